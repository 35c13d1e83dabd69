//! THE PATH of a request: route, look-up, forward, store, respond, one stage after the other. Only this file knows
//! the order; each stage knows `policy` and types, not the others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::admin::{Counters, Outcome};
use crate::clock;
use crate::config::Limits;
use crate::forward::upload::Upload;
use crate::forward::{Answer, Exchange, ForwardError, Pool, PoolKey, Purpose, RequestBody, Upstream};
use crate::http1::{Framing, RequestHead, ResponseHead, encode};
use crate::identify::Workload;
use crate::policy::{self, Decision, Eligibility, Miss, Reason, RequestView, ResponseView, Rules};
use crate::redirect::bypass::Bypass;
use crate::respond::{CacheStatus, Forwarded, Own, Response, write::not_stored};
use crate::route::{Route, Routes};
use crate::store::{Entry, Place, Recording, Store};

/// Everything that a request meets on its way.
pub struct Path {
    /// What is cached at all.
    pub routes: Routes,
    /// Stored responses.
    pub store: Store,
    /// Upstream connections.
    pub pool: Pool,
    /// Destinations to be left alone.
    pub bypass: Bypass,
    /// Figures.
    pub counters: Arc<Counters>,
    /// Bounds.
    pub limits: Limits,
    /// Malformed requests get 400 instead of a relay.
    pub is_strict: bool,
}

/// One redirected connection, as far as its requests need to know it.
pub struct Connection {
    /// Who is asking.
    pub workload: Arc<Workload>,
    /// The workload's partition of the cache.
    pub partition: Vec<u8>,
    /// The address that was asked for.
    pub destination: SocketAddr,
    /// The address the application bound its socket to, where it did.
    pub source: Option<IpAddr>,
    /// Tells connections apart.
    pub id: u64,
}

impl Connection {
    /// Which upstream connections may serve it.
    pub fn pool_key(&self) -> PoolKey {
        PoolKey { workload: self.workload.id, destination: self.destination, source: self.source }
    }

    /// The identity of the destination in cache keys: the address itself. A name is only a claim of the client.
    fn destination_identity(&self) -> String {
        self.destination.to_string()
    }
}

/// Why a request is forwarded and what may become of its answer.
enum Forwarding<'r> {
    /// Nothing usable is stored; the answer may be.
    Miss(Miss, &'r Rules, Vec<u8>),
    /// It was not looked up.
    Bypass { fwd: &'static str, detail: &'static str },
}

impl Path {
    /// Serves one request: from the store where policy allows it, else by the origin.
    ///
    /// # Errors
    /// `ForwardError`: the client has seen nothing of an answer yet.
    pub async fn serve<'a>(
        &self,
        request: &RequestHead,
        body: RequestBody<'a>,
        connection: &Connection,
    ) -> Result<Response<'a>, ForwardError> {
        let rules = match self.routes.find() {
            Route::Cache(rules) => rules,
            Route::Bypass(detail) => {
                let bypass = Forwarding::Bypass { fwd: "bypass", detail };
                return self.forward(request, body, connection, bypass).await;
            }
        };
        let view = view(request);
        if let Eligibility::Bypass(reason) = policy::eligible(&view, rules) {
            let bypass = Forwarding::Bypass { fwd: reason.fwd(), detail: reason.as_str() };
            return self.forward(request, body, connection, bypass).await;
        }
        let key = key(request, connection);
        let variants = self.store.variants(&key);
        // Looked at once: what is judged is what is served, also while a purge goes on.
        let alive: Vec<&Arc<Entry>> =
            variants.iter().flat_map(|v| v.iter()).filter(|entry| self.store.alive(entry)).collect();
        let now = clock::now();
        match policy::decide(&view, alive.iter().map(|entry| &entry.stored), rules, now) {
            Decision::Reuse { index, age } => {
                match alive.get(index).filter(|entry| self.store.alive(entry)) {
                    Some(entry) => Ok(Response::Stored {
                        is_not_modified: policy::is_not_modified(&view, &entry.stored, now.wall),
                        entry: Arc::clone(entry),
                        age,
                    }),
                    // Purged meanwhile.
                    None => {
                        self.forward(request, body, connection, Forwarding::Miss(Miss::Stale, rules, key))
                            .await
                    }
                }
            }
            Decision::Unsatisfiable => Ok(Response::Own(Own::GatewayTimeout)),
            Decision::Forward(miss) => {
                self.forward(request, body, connection, Forwarding::Miss(miss, rules, key)).await
            }
        }
    }

    async fn forward<'a>(
        &self,
        request: &RequestHead,
        body: RequestBody<'a>,
        connection: &Connection,
        forwarding: Forwarding<'_>,
    ) -> Result<Response<'a>, ForwardError> {
        let requested_at = clock::now();
        // Before anything is sent: what is purged from here on must not be stored.
        let begun = self.store.begin();
        let mut head = BytesMut::new();
        encode::request_head(request, &mut head);
        let head = head.freeze();
        let purpose = purpose(request);
        let upstream = match self.pool.take(&connection.pool_key(), connection.id, purpose) {
            Some(upstream) => upstream,
            None => self.dial(connection).await?,
        };
        let mut exchange =
            Exchange::new(upstream, Upload::new(body, head.clone()), self.limits.head_bytes_max);
        let answer = self.answer(&mut exchange, request, connection, purpose, &head).await;
        let received_at = clock::now();
        let may_have_changed = match &answer {
            Ok(Answer::Head(head)) => policy::invalidates(&request.method, head.status),
            // Sent, and what became of it is not known.
            Ok(Answer::Opaque) | Err(_) => !policy::is_safe(&request.method),
        };
        if may_have_changed {
            // RFC 9111 §4.4: before the client learns that the write happened.
            self.store.invalidate(&resource(request, connection));
        }
        let Answer::Head(head) = answer? else { return Ok(Response::Opaque(Box::new(exchange))) };
        if negotiates_login(request, &head) {
            exchange.pin();
        }
        let is_impersonal = exchange.is_impersonal();
        exchange.doubt(head.framing == Framing::Empty && announces_content(request, &head));
        let (status, recording) = match forwarding {
            Forwarding::Bypass { fwd, detail } => {
                // One word is enough where both would be the same.
                (CacheStatus { fwd, stored: false, detail: (detail != fwd).then_some(detail) }, None)
            }
            Forwarding::Miss(miss, rules, key) => {
                let response = ResponseView {
                    status: head.status,
                    fields: &head.fields,
                    delimited_by_close: head.framing == Framing::UntilClose,
                };
                let owner = self.store.owner(connection.workload.namespace.as_bytes());
                let place = || Place { key, resource: resource(request, connection), begun, owner };
                let expected = match head.framing {
                    Framing::Length(bytes) => Some(bytes),
                    Framing::Empty => Some(0),
                    _ => None,
                };
                let recording = policy::store(&view(request), &response, rules, requested_at, received_at)
                    .and_then(|stored| if is_impersonal { Ok(stored) } else { Err(Reason::Connection) })
                    .and_then(|stored| Recording::begin(&self.store, place(), stored, expected));
                let detail = recording.as_ref().err().map(|reason| reason.as_str());
                let status = CacheStatus { fwd: miss.as_str(), stored: recording.is_ok(), detail };
                (status, recording.inspect_err(|reason| not_stored(*reason, &self.counters)).ok())
            }
        };
        Ok(Response::Forwarded(Box::new(Forwarded { head: *head, exchange, status, recording })))
    }

    /// Waits for the answer; a pooled connection that was closed meanwhile is replaced once, where that is safe
    /// (RFC 9110 §9.2.2: a proxy MUST NOT automatically retry non-idempotent requests), or nothing was sent yet.
    async fn answer(
        &self,
        exchange: &mut Exchange<'_>,
        request: &RequestHead,
        connection: &Connection,
        purpose: Purpose,
        head: &Bytes,
    ) -> Result<Answer, ForwardError> {
        // RFC 9110 §15.5.9: an origin may say 408 before it closes an idle connection; the request MAY be repeated.
        let is_closing = |answer: &Result<Answer, ForwardError>| match answer {
            Err(ForwardError::Closed | ForwardError::Broken(_)) => true,
            Ok(Answer::Head(head)) => head.status == 408 && !head.persists(),
            _ => false,
        };
        match exchange.answer(request).await {
            answer
                if is_closing(&answer)
                    && (exchange.is_unsent() || (purpose != Purpose::Write && exchange.may_restart())) =>
            {
                self.counters.upstream_retries.incr();
                exchange.restart(self.dial(connection).await?, head.clone());
                exchange.answer(request).await
            }
            answer => answer,
        }
    }

    /// Connects upstream; a destination that cannot be reached is left alone for a moment, so that the application's
    /// retries see it as it is.
    ///
    /// # Errors
    /// `ForwardError::Dial`.
    pub async fn dial(&self, connection: &Connection) -> Result<Upstream, ForwardError> {
        self.pool.dial(&connection.workload.netns, &connection.pool_key()).await.map_err(|error| {
            self.counters.dial_errors.incr();
            self.bypass.unreachable(connection.workload.id, connection.destination);
            tracing::debug!(%error, destination = %connection.destination, "cannot connect upstream");
            ForwardError::Dial(error)
        })
    }

    /// The outcome of a response, as RFC 9211 and the summary call it.
    pub fn outcome(response: &Response<'_>) -> Outcome {
        match response {
            Response::Stored { .. } => Outcome::Hit,
            Response::Own(_) => Outcome::Error,
            Response::Opaque(_) => Outcome::Uncacheable,
            Response::Forwarded(forwarded) if forwarded.recording.is_some() => Outcome::Miss,
            Response::Forwarded(_) => Outcome::Uncacheable,
        }
    }
}

fn view(request: &RequestHead) -> RequestView<'_> {
    RequestView { method: &request.method, target: &request.target, fields: &request.fields }
}

/// The authority of the request: its Host (RFC 9110 §7.2); eligible requests have exactly one.
fn authority(request: &RequestHead) -> &[u8] {
    request.fields.first("host").unwrap_or_default()
}

fn key(request: &RequestHead, connection: &Connection) -> Vec<u8> {
    let mut key = Vec::new();
    let destination = connection.destination_identity();
    policy::key(&connection.partition, destination.as_bytes(), authority(request), &request.target, &mut key);
    key
}

fn resource(request: &RequestHead, connection: &Connection) -> Vec<u8> {
    let mut resource = Vec::new();
    let destination = connection.destination_identity();
    policy::resource(destination.as_bytes(), authority(request), &request.target, &mut resource);
    resource
}

/// What the request wants a connection for.
///
/// RFC 9110 §9.2.2 would allow to repeat PUT and DELETE as well, but a DELETE that is carried out twice is answered 404.
fn purpose(request: &RequestHead) -> Purpose {
    match &request.method[..] {
        _ if request.framing != Framing::Empty => Purpose::Write,
        b"HEAD" => Purpose::Head,
        b"GET" | b"OPTIONS" | b"TRACE" => Purpose::Read,
        _ => Purpose::Write,
    }
}

/// Whether an answer that has no content (RFC 9112 §6.3) has fields as if it had some: always possible with HEAD.
fn announces_content(request: &RequestHead, head: &ResponseHead) -> bool {
    let has_length = head.fields.values("content-length").any(|length| length != b"0");
    &request.method[..] == b"HEAD" || has_length || head.fields.contains("transfer-encoding")
}

/// Whether a login that belongs to the connection, not to the request, is being negotiated (NTLM, Negotiate).
fn negotiates_login(request: &RequestHead, response: &ResponseHead) -> bool {
    // One line may hold several challenges (RFC 9110 §11.6.1). A comma in a quoted string can only bind a connection
    // that need not be bound.
    let names = |member: &[u8]| {
        let scheme = member.split(|b| *b == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    };
    request.fields.tokens("authorization").any(names) || response.fields.tokens("www-authenticate").any(names)
}
