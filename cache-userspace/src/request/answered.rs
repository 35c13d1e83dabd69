//! What the origin's answer to a request that was looked up does: to what is stored, and to the client.

use std::sync::Arc;

use super::ask::{Ask, candidate};
use super::fetch::{Away, Fetched};
use super::landing::{Landing, Pump, Shared};
use super::lease::is_refusal;
use super::{Path, answer_view, bind, view};
use crate::clock;
use crate::forward::{Answer, Exchange, ForwardError, RequestBody};
use crate::http1::{Framing, ResponseHead};
use crate::policy::{self, Cause, Decision, Now, Reason, ResponseView, Stored};
use crate::respond::write::not_stored;
use crate::respond::{
    CacheStatus, Forwarded, Response, Reused, Role, SharedResponse, reason_phrase, stored_head,
};
use crate::store::{Entry, Place, Recording};

impl Path {
    /// Takes up the origin's answer.
    pub(super) fn answered<'a>(
        self: &Arc<Self>,
        ask: Ask,
        mut away: Away<'a>,
        answer: Result<Answer, ForwardError>,
    ) -> Result<Fetched<'a>, ForwardError> {
        let received_at = clock::now();
        self.note_rights(ask.claim, &ask.connection, &answer, away.requested_at.boot);
        let head = match answer {
            Err(error) => return self.failed(&ask, away.lead, error),
            Ok(Answer::Opaque) => {
                return Ok(Fetched::Response(Response::Opaque(Box::new(away.exchange))));
            }
            Ok(Answer::Head(head)) => *head,
        };
        let took = received_at.boot.saturating_sub(away.requested_at.boot);
        self.lateness.note(ask.connection.destination_in_netns(), took);
        if head.status == 304 && ask.conditions.is_some() {
            return Ok(self.confirmed(ask, away, head, received_at));
        }
        if ask.is_misunderstood(head.status) {
            return Ok(self.not_confirmed(ask, away, head));
        }
        if matches!(head.status, 500 | 502 | 503 | 504)
            && let Some(response) = self.stale(&ask, Cause::Error(head.status))
        {
            if let Some(lead) = &away.lead {
                lead.land(Arc::new(Landing::Failed(Cause::Error(head.status))));
            }
            bind(&mut away.exchange, &ask.request, &head);
            self.keep(&ask, away.exchange);
            return Ok(Fetched::Response(response));
        }
        Ok(Fetched::Response(self.received(ask, away, head, received_at)))
    }

    /// A 304: the stored responses that it is about are updated and one of them is the answer (RFC 9111 §4.3.3).
    fn confirmed<'a>(
        self: &Arc<Self>,
        ask: Ask,
        mut away: Away<'a>,
        head: ResponseHead,
        received_at: Now,
    ) -> Fetched<'a> {
        let is_impersonal = bind(&mut away.exchange, &ask.request, &head);
        let stored = ask.variants.iter().map(|entry| &entry.stored);
        let updated = policy::freshen(
            &view(&ask.request),
            stored,
            &answer_view(&head),
            &ask.rules,
            away.requested_at,
            received_at,
        );
        if updated.is_empty() || !is_impersonal {
            return self.not_confirmed(ask, away, head);
        }
        let is_refused = updated.iter().any(|(_, stored)| stored.refused.is_some());
        let mut confirmed: Option<Arc<Entry>> = None;
        for (index, stored) in updated {
            let entry = self.freshen(&ask, index, stored);
            let is_selected = ask.selected == Some(index);
            // A part that was not selected does not hold what is asked for.
            if is_selected || (confirmed.is_none() && entry.as_ref().is_some_and(|e| e.stored.part.is_none()))
            {
                confirmed = entry.or(confirmed);
            }
        }
        if is_refused {
            // Good for this answer only, whether or not there was room for its new form.
            self.store.invalidate(&ask.resource);
        }
        let Some(entry) = confirmed else {
            // Purged meanwhile, or dead or without room in its new form: then the next validation would be as vain.
            self.store.invalidate(&ask.resource);
            let (exchange, body) = away.exchange.with_body(RequestBody::of_nobody());
            self.keep(&ask, exchange);
            return Fetched::LookAgain(body);
        };
        self.note_worth(&ask, &entry.stored, received_at);
        if let Some(lead) = away.lead.take() {
            lead.land(Arc::new(Landing::Confirmed(entry.clone())));
        }
        self.keep(&ask, away.exchange);
        let age = entry.stored.age(received_at);
        let reused = Reused::Revalidated { miss: ask.miss };
        Fetched::Response(Response::stored(&view(&ask.request), entry, age, received_at, reused))
    }

    /// A 304 about nothing that is stored, or what stands for one: the client's own condition was met, or the origin
    /// must be asked without conditions of ours.
    fn not_confirmed<'a>(self: &Arc<Self>, ask: Ask, away: Away<'a>, head: ResponseHead) -> Fetched<'a> {
        let Away { exchange, .. } = away;
        if policy::names_what_client_has(&ask.request.fields, &head.fields) {
            let status = CacheStatus { fwd_status: Some(304), ..CacheStatus::of(ask.miss) };
            return Fetched::Response(Response::Forwarded(Box::new(Forwarded { head, exchange, status })));
        }
        // What the origin does not confirm is not offered again.
        self.store.invalidate(&ask.resource);
        let (exchange, body) = exchange.with_body(RequestBody::of_nobody());
        self.keep(&ask, exchange);
        Fetched::LookAgain(body)
    }

    /// A whole answer: recorded where it may be stored, else passed on.
    fn received<'a>(
        self: &Arc<Self>,
        ask: Ask,
        away: Away<'a>,
        head: ResponseHead,
        received_at: Now,
    ) -> Response<'a> {
        let Away { mut exchange, lead, turn, requested_at } = away;
        let is_impersonal = bind(&mut exchange, &ask.request, &head);
        let response = answer_view(&head);
        let request = view(&ask.request);
        let expected = match head.framing {
            Framing::Length(bytes) => Some(bytes),
            Framing::Empty => Some(0),
            _ => None,
        };
        let recording = self
            .may_be_kept(&ask, &response, requested_at)
            .and_then(|()| policy::store(&request, &response, &ask.rules, requested_at, received_at))
            .and_then(|stored| if is_impersonal { Ok(stored) } else { Err(Reason::Connection) })
            .and_then(|stored| {
                let key = match &stored.search {
                    Some(search) => self.searches.note(&ask.key, &ask.request.target, search.rule()),
                    None => ask.key.clone(),
                };
                let place = Place {
                    key,
                    resource: ask.resource.clone(),
                    begun: ask.begun,
                    owner: self.store.owner(ask.connection.workload.namespace.as_bytes()),
                };
                Recording::begin(&self.store, place, stored.clone(), expected)
                    .map(|recording| (recording, stored))
            });
        let (recording, stored) = match recording {
            Ok(recorded) => {
                self.note_worth(&ask, &recorded.1, received_at);
                recorded
            }
            Err(reason) => {
                if ask.may_share() {
                    self.uncacheable.note(&ask.key, Some(reason), received_at.boot);
                } else if ask.stores() {
                    // Nobody would have waited for it; it is remembered for whoever asks why.
                    self.uncacheable.note_landed(&ask.key, reason, received_at.boot);
                }
                not_stored(reason, &self.counters);
                self.replaced(&ask, &head, requested_at, received_at);
                let status = CacheStatus { detail: Some(reason.as_str()), ..CacheStatus::of(ask.miss) };
                return Response::Forwarded(Box::new(Forwarded { head, exchange, status }));
            }
        };
        let shared = Shared::new(head, stored, recording.filled());
        let follow = shared.follow(None);
        if let Some(lead) = &lead {
            lead.land(Arc::new(Landing::Recorded(shared.clone())));
        }
        let (exchange, body) = exchange.with_body(RequestBody::of_nobody());
        let pump = Pump::new(self.clone(), &ask, exchange, recording, shared, lead, turn);
        let role = Role::Leader(ask.miss);
        let response =
            SharedResponse { follow, role, is_not_modified: false, body, pump: Some(Box::new(pump)) };
        Response::Shared(Box::new(response))
    }

    /// Whether the mesh leaves it to the response whether it is stored (MESH.md S4, S6).
    fn may_be_kept(&self, ask: &Ask, response: &ResponseView<'_>, requested_at: Now) -> Result<(), Reason> {
        let Some(service) = &ask.service else { return Ok(()) };
        if policy::is_mesh_reply(response) {
            return Err(Reason::MeshReply);
        }
        let is_current = self.routes.is_current(&ask.connection.destination, service);
        if is_current && service.storing_from <= requested_at.boot { Ok(()) } else { Err(Reason::Settling) }
    }

    /// Notes whether others may gain by waiting for such an answer: not where each has to ask for itself.
    fn note_worth(&self, ask: &Ask, stored: &Stored, now: Now) {
        let candidate = policy::Candidate { stored, content_bytes: 0 };
        let decide = || policy::decide(&view(&ask.request), std::iter::once(candidate), &ask.rules, now);
        let is_for_one = (stored.no_cache || stored.lifetime.is_zero())
            && ask.may_share()
            && !matches!(decide(), Decision::Reuse { .. });
        self.uncacheable.note(&ask.key, is_for_one.then_some(Reason::ForOne), now.boot);
    }

    /// What an answer that is not stored does to what is: a HEAD updates it (RFC 9111 §4.3.5); any other final answer
    /// says that the origin would not give it now.
    fn replaced(&self, ask: &Ask, head: &ResponseHead, requested_at: Now, received_at: Now) {
        // What a pod is refused, others of its account are given all the same.
        if ask.variants.is_empty() || (ask.service.is_some() && is_refusal(head)) {
            return;
        }
        if ask.stores() {
            if ask.selected.is_some() && head.status < 500 && head.status != 304 && head.status != 206 {
                self.store.invalidate(&ask.resource);
            }
            return;
        }
        let updated = policy::update_by_head(
            &view(&ask.request),
            ask.variants.iter().map(|entry| candidate(entry)),
            &answer_view(head),
            &ask.rules,
            requested_at,
            received_at,
        );
        for (index, stored) in updated {
            self.freshen(ask, index, stored);
        }
    }

    /// Puts the new form of a variant into the store.
    fn freshen(&self, ask: &Ask, index: usize, stored: Stored) -> Option<Arc<Entry>> {
        let old = ask.variants.get(index)?;
        let head = stored_head(&stored, reason_phrase(&old.head), old.body_bytes);
        let search_key = ask.search_key.as_ref().filter(|_| old.stored.search.is_some());
        let key = search_key.unwrap_or(&ask.key);
        let freshened = self.store.freshen(key, &ask.resource, old, stored, head);
        freshened.inspect_err(|reason| not_stored(*reason, &self.counters)).ok()
    }

    /// Keeps the upstream connection of an answer that is not passed on, if nothing of it is still to come.
    fn keep(&self, ask: &Ask, exchange: Exchange<'_>) {
        if let Some(upstream) = exchange.into_reusable() {
            self.pool.put(ask.connection.pool_key(), ask.connection.id, upstream);
        }
    }
}
