//! The way forward of a request that was looked up: join a request that is under way or go oneself, and fall back on
//! what is stored where that is allowed. What an answer then does is left to `answered`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::ask::{About, Ask, candidate};
use super::landing::{Landing, SILENCE_MAX, Shared};
use super::{Path, takes, view};
use crate::clock;
use crate::forward::{Answer, Exchange, Follower, ForwardError, Lead, Part, RequestBody, Turn};
use crate::http1::RequestHead;
use crate::policy::{self, Cause, Decision, Now, StaleVerdict};
use crate::respond::{Own, Response, Reused, Role, SharedResponse};

/// What a fetch led to.
pub(super) enum Fetched<'a> {
    Response(Response<'a>),
    /// What was waited for is of no use here: the request is to be looked up again.
    LookAgain(RequestBody<'a>),
}

/// The leader's side of a flight.
type Leading = Lead<About, Landing>;

/// A request on its way, and what it holds until its answer is complete.
pub(super) struct Away<'a> {
    pub(super) exchange: Exchange<'a>,
    pub(super) lead: Option<Leading>,
    pub(super) turn: Option<Turn>,
    pub(super) requested_at: Now,
}

impl Path {
    /// Gets the answer to a request that the store alone cannot answer.
    ///
    /// `wait_until`: how long another's answer may be waited for, if at all.
    pub(super) async fn fetch<'a>(
        self: &Arc<Self>,
        ask: Ask,
        body: RequestBody<'a>,
        wait_until: Option<Instant>,
    ) -> Result<Fetched<'a>, ForwardError> {
        let until = wait_until.unwrap_or_else(Instant::now);
        let deadline = self.deadline(&ask);
        let joins = match deadline {
            // Whatever becomes of it, nobody waits in vain.
            Some(_) => Some(Duration::MAX),
            None if self.uncacheable.knows(&ask.key, clock::boot()) => None,
            None => Some(self.limits.collapse_timeout),
        };
        let follower = match self.part(&ask, joins.filter(|_| wait_until.is_some())) {
            Part::Alone => return self.go(ask, None, body).await,
            Part::Lead(lead) if deadline.is_none() => return self.go(ask, Some(lead), body).await,
            Part::Lead(lead) => {
                let follower = lead.follower();
                self.go_unattended(ask.clone(), lead);
                follower
            }
            Part::Follow(follower) => follower,
        };
        match deadline {
            None => self.follow(ask, follower, body, until).await,
            Some(deadline) => self.race(ask, follower, body, deadline, until).await,
        }
    }

    /// Validates a stored response that was given while stale (RFC 5861 §3), unless somebody does already.
    pub(super) fn validate_in_background(self: &Arc<Self>, ask: Ask) {
        let is_worth_it = !self.uncacheable.knows(&ask.key, clock::boot());
        if let Part::Lead(lead) = self.part(&ask, is_worth_it.then_some(Duration::MAX)) {
            self.go_unattended(ask, lead);
        }
    }

    /// Whether the request leads, follows or goes alone; it follows what is under way for less than `joins`.
    fn part(self: &Arc<Self>, ask: &Ask, joins: Option<Duration>) -> Part<About, Landing> {
        let Some(age_max) = joins.filter(|_| ask.may_share()) else { return Part::Alone };
        self.flights.enter(
            &ask.key,
            || ask.about(),
            |about, landing| {
                if !ask.may_join(about) {
                    return false;
                }
                // Nobody joins what began before a purge or an unsafe request that concerns it.
                match landing {
                    Some(Landing::Recorded(shared)) => self.is_usable(ask, about, shared),
                    Some(_) => self.store.is_current(&ask.resource, about.begun),
                    None => {
                        self.store.is_current(&ask.resource, about.begun)
                            && about.since.elapsed() < age_max
                            && ask.may_match(&about.fields)
                    }
                }
            },
        )
    }

    /// Waits for another's answer.
    async fn follow<'a>(
        self: &Arc<Self>,
        ask: Ask,
        follower: Follower<About, Landing>,
        mut body: RequestBody<'a>,
        until: Instant,
    ) -> Result<Fetched<'a>, ForwardError> {
        let landing = tokio::select! {
            biased;
            landing = timeout_at(until, follower.landed()) => landing,
            () = body.gone() => return Err(ForwardError::ClientGone),
        };
        let Ok(landing) = landing else {
            self.counters.collapse_timeouts.incr();
            drop(follower);
            return self.go(ask, None, body).await;
        };
        let now = clock::now();
        match landing.as_deref() {
            // What the origin gave to another.
            Some(Landing::Recorded(_) | Landing::Confirmed(_)) if !self.may_be_given(&ask) => {}
            Some(Landing::Recorded(shared)) if self.is_usable(&ask, follower.about(), shared) => {
                if let Some(follow) = shared.follow(Some(follower)) {
                    let role = Role::Follower(ask.miss, shared.stored.age(now));
                    let is_not_modified =
                        policy::is_not_modified(&view(&ask.request), &shared.stored, now.wall);
                    let shared =
                        SharedResponse { follow: Some(follow), role, is_not_modified, body, pump: None };
                    return Ok(Fetched::Response(Response::Shared(Box::new(shared))));
                }
            }
            Some(Landing::Confirmed(entry)) if self.store.alive(entry) => {
                let decision =
                    policy::decide(&view(&ask.request), std::iter::once(candidate(entry)), &ask.rules, now);
                if let Decision::Reuse { age, revalidate: false, .. } = decision {
                    let reused = Reused::Collapsed { miss: ask.miss, status: 304 };
                    let entry = entry.clone();
                    return Ok(Fetched::Response(Response::stored(
                        &view(&ask.request),
                        entry,
                        age,
                        now,
                        reused,
                    )));
                }
            }
            Some(Landing::Failed(cause)) => {
                // An error of ours is only made of a failure of one's own.
                return match self.stale(&ask, *cause) {
                    Some(response @ Response::Stored(_)) => Ok(Fetched::Response(response)),
                    _ => self.go(ask, None, body).await,
                };
            }
            _ => {}
        }
        Ok(Fetched::LookAgain(body))
    }

    /// Whether an answer that is being recorded may serve a follower: nothing concerned it since it began, and
    /// policy lets it answer this request, by Vary, credentials and freshness.
    fn is_usable(&self, ask: &Ask, about: &About, shared: &Shared) -> bool {
        self.store.is_current_as(&ask.resource, &shared.stored, about.begun) && is_for(ask, shared)
    }

    /// Whether what is stored, or was given to another, may answer this request now: the client has the right to it, and the
    /// service is still what it was when the request came. It may have waited for long.
    fn may_be_given(&self, ask: &Ask) -> bool {
        ask.may_be_given() && self.is_current(&ask.connection, ask.service.as_deref())
    }

    /// How long the origin may take before policy prefers what is stored.
    fn deadline(&self, ask: &Ask) -> Option<Duration> {
        let late_after = ask.rules.late_after.filter(|_| self.may_be_given(ask))?;
        let stored = &ask.selected()?.stored;
        let verdict = policy::stale(&view(&ask.request), stored, &ask.rules, clock::now(), Cause::Late);
        let StaleVerdict::Reuse { .. } = verdict else { return None };
        self.lateness.deadline(ask.connection.destination_in_netns(), late_after)
    }

    /// Waits for an answer; gives what is stored once that is under way for longer than `deadline`.
    async fn race<'a>(
        self: &Arc<Self>,
        ask: Ask,
        follower: Follower<About, Landing>,
        mut body: RequestBody<'a>,
        deadline: Duration,
        until: Instant,
    ) -> Result<Fetched<'a>, ForwardError> {
        let left = deadline.saturating_sub(follower.about().since.elapsed());
        let landing = tokio::select! {
            biased;
            _ = follower.landed() => true,
            // The timer would take a moment also for none.
            () = async { if !left.is_zero() { sleep(left).await } } => false,
            () = body.gone() => return Err(ForwardError::ClientGone),
        };
        if !landing && let Some(response) = self.stale(&ask, Cause::Late) {
            return Ok(Fetched::Response(response));
        }
        self.follow(ask, follower, body, until).await
    }

    /// Goes forward without a client; others may join.
    fn go_unattended(self: &Arc<Self>, ask: Ask, lead: Leading) {
        let path = self.clone();
        // Where there is no room, those who wait learn of it by the drop.
        let _ = self.background.run(async move {
            if let Ok(fetched) = path.go(ask, Some(lead), RequestBody::of_nobody()).await {
                attend(fetched).await;
            }
        });
    }

    /// Goes forward oneself.
    async fn go<'a>(
        self: &Arc<Self>,
        ask: Ask,
        lead: Option<Leading>,
        body: RequestBody<'a>,
    ) -> Result<Fetched<'a>, ForwardError> {
        self.counters.reasons.forwarded(ask.miss);
        let destination = ask.connection.destination_in_netns();
        let turn = self.turns.take(destination).await;
        if turn.is_none() {
            self.counters.origin_turns_late.incr();
        }
        let requested_at = clock::now();
        let request = ask.forwarded();
        let exchange = match self.exchange(&request, &ask.content, body, &ask.connection).await {
            Ok(exchange) => exchange,
            Err(error) => return self.failed(&ask, lead, error),
        };
        let mut away = Away { exchange, lead, turn, requested_at };
        let answer = self.awaited(&mut away, &request, &ask).await;
        if matches!(answer, Err(ForwardError::ClientGone))
            && away.lead.as_ref().is_some_and(Lead::has_followers)
        {
            self.go_on_unattended(ask, away);
            return Err(ForwardError::ClientGone);
        }
        self.answered(ask, away, answer)
    }

    /// Waits for the answer for as long as anybody does: without a client, the origin's silence has a limit.
    async fn awaited(
        &self,
        away: &mut Away<'_>,
        request: &RequestHead,
        ask: &Ask,
    ) -> Result<Answer, ForwardError> {
        let Away { exchange, lead, .. } = away;
        let is_unattended = exchange.is_unattended();
        let answering = self.answer(exchange, request, &ask.content, &ask.connection);
        tokio::pin!(answering);
        loop {
            match timeout(SILENCE_MAX, &mut answering).await {
                Ok(answer) => return answer,
                Err(_) if is_unattended && !lead.as_ref().is_some_and(Lead::has_followers) => {
                    return Err(ForwardError::ClientGone);
                }
                Err(_) => {}
            }
        }
    }

    /// Goes on waiting for an answer whose client left, for those who wait for it too.
    fn go_on_unattended(self: &Arc<Self>, ask: Ask, away: Away<'_>) {
        let Away { exchange, lead, turn, requested_at } = away;
        let (exchange, _) = exchange.with_body(RequestBody::of_nobody());
        let mut away = Away { exchange, lead, turn, requested_at };
        let path = self.clone();
        let _ = self.background.run(async move {
            let request = ask.forwarded();
            let answer = path.awaited(&mut away, &request, &ask).await;
            if let Ok(fetched) = path.answered(ask, away, answer) {
                attend(fetched).await;
            }
        });
    }

    /// What becomes of a request that got no answer (RFC 9111 §4.2.4).
    pub(super) fn failed<'a>(
        &self,
        ask: &Ask,
        lead: Option<Leading>,
        error: ForwardError,
    ) -> Result<Fetched<'a>, ForwardError> {
        if matches!(error, ForwardError::ClientGone | ForwardError::BadContent(_)) {
            return Err(error);
        }
        if let Some(lead) = lead {
            lead.land(Arc::new(Landing::Failed(Cause::Disconnected)));
        }
        tracing::debug!(%error, "no answer");
        self.stale(ask, Cause::Disconnected).map(Fetched::Response).ok_or(error)
    }

    /// What is stored, instead of an answer that failed so, where policy allows it; or our 504 where it demands it.
    pub(super) fn stale<'a>(&self, ask: &Ask, cause: Cause) -> Option<Response<'a>> {
        let entry = ask.selected().filter(|entry| {
            self.store.alive(entry) && takes(&ask.request, &entry.stored) && self.may_be_given(ask)
        })?;
        let now = clock::now();
        match policy::stale(&view(&ask.request), &entry.stored, &ask.rules, now, cause) {
            StaleVerdict::Reuse { age } => {
                let reused = Reused::StaleInstead { miss: ask.miss, cause };
                Some(Response::stored(&view(&ask.request), entry.clone(), age, now, reused))
            }
            StaleVerdict::GatewayTimeout => Some(Response::Own(Own::GatewayTimeout("must-revalidate"))),
            StaleVerdict::Pass => None,
        }
    }
}

/// Whether policy lets an answer that is being recorded answer another request.
fn is_for(ask: &Ask, shared: &Shared) -> bool {
    let candidate = policy::Candidate { stored: &shared.stored, content_bytes: 0 };
    let decision = policy::decide(&view(&ask.request), std::iter::once(candidate), &ask.rules, clock::now());
    matches!(decision, Decision::Reuse { revalidate: false, .. }) && takes(&ask.request, &shared.stored)
}

/// Sees an answer through that has no client.
async fn attend(fetched: Fetched<'static>) {
    if let Fetched::Response(Response::Shared(shared)) = fetched
        && let Some(pump) = shared.pump
    {
        drop(shared.follow);
        pump.detached().run().await;
    }
}
