//! THE PATH of a request: route, look-up, forward, store, respond, one stage after the other. Only this file and the
//! folder beside it know the order; each stage knows `policy` and types, not the others.

mod answered;
mod ask;
mod background;
mod content;
pub mod explain;
mod fetch;
mod inputs;
mod landing;
mod lease;
mod outcome;
mod promote;
mod searches;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use background::Background;
use bytes::{Bytes, BytesMut};
use cache_common::hot::Asker;
use content::Content;
pub(crate) use landing::is_reset;
pub use landing::{Body, Follow, Landing, Pump, Shared};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::accept::netns::SocketMaker;
use crate::admin::Counters;
use crate::clock;
use crate::config::Limits;
use crate::forward::upload::Upload;
use crate::forward::{
    Answer, Destination, Exchange, Flights, ForwardError, Lateness, Pool, PoolKey, Purpose, RequestBody,
    Turns, Uncacheable, Upstream,
};
use crate::http1::{Fields, Framing, Names, RequestHead, ResponseHead, Version, encode};
use crate::identify::Workload;
use crate::policy::{self, Decision, Eligibility, Miss, Reason, RequestView, ResponseView, Stored};
use crate::redirect::bypass::Bypass;
use crate::redirect::enrolled::Enrolled;
use crate::redirect::hot::HotSet;
use crate::respond::{CacheStatus, Forwarded, Own, Response, Reused};
use crate::route::{Route, Routes, Service};
use crate::store::Store;
use ask::{About, Ask, LookUp};
use fetch::Fetched;
use lease::Claim;
use searches::Searches;

/// How often a request that waited in vain for another's answer looks again before it goes on alone.
const LOOKS_MAX: usize = 3;

/// Everything that a request meets on its way.
pub struct Path {
    /// What is cached at all.
    pub routes: Routes,
    /// Stored responses.
    pub store: Store,
    /// Upstream connections.
    pub pool: Pool,
    /// Forward requests that others may join.
    pub flights: Arc<Flights<About, Landing>>,
    /// Bytes that the contents of further QUERYs may have.
    contents: Arc<Semaphore>,
    /// The rules of paths whose responses answer several queries.
    searches: Searches,
    /// What is not worth waiting for.
    pub uncacheable: Uncacheable,
    /// How many requests a destination gets at a time.
    pub turns: Arc<Turns>,
    /// How long answers usually take.
    pub lateness: Lateness,
    /// What goes on without a client.
    pub background: Background,
    /// Destinations to be left alone.
    pub bypass: Bypass,
    /// What the kernel gives; none where it gives nothing.
    pub hot: Option<Arc<HotSet>>,
    /// Figures.
    pub counters: Arc<Counters>,
    /// Bounds.
    pub limits: Limits,
    /// Malformed requests get 400 instead of a relay.
    pub is_strict: bool,
}

/// What a path is made of.
pub struct Parts {
    /// What is cached at all.
    pub routes: Routes,
    /// Stored responses.
    pub store: Store,
    /// Makes sockets in the workloads' namespaces.
    pub sockets: SocketMaker,
    /// Destinations to be left alone.
    pub bypass: Bypass,
    /// What the kernel gives; none where it gives nothing.
    pub hot: Option<Arc<HotSet>>,
    /// Figures.
    pub counters: Arc<Counters>,
    /// Malformed requests get 400 instead of a relay.
    pub is_strict: bool,
}

/// One redirected connection, as far as its requests need to know it.
pub struct Connection {
    /// Who is asking.
    pub workload: Arc<Workload>,
    /// The address that was asked for.
    pub destination: SocketAddr,
    /// The address the application bound its socket to, where it did.
    pub source: Option<IpAddr>,
    /// Who asks whom, as the kernel says it; none where it gives nothing.
    pub asker: Option<Asker>,
    /// Tells connections apart.
    pub id: u64,
    /// The client's socket, where the kernel may answer its requests.
    pub enrolled: Option<Enrolled>,
    /// Whether a later connection of the client might be enrolled where this one is not.
    pub may_be_enrolled: bool,
    /// The workload's partition of the cache where its destination is no service that is known.
    partition: Vec<u8>,
    /// The identity of such a destination in keys: the address itself. A name is only a claim of the client.
    destination_identity: String,
}

impl Connection {
    /// A connection of `workload` to `destination`.
    pub fn new(workload: Arc<Workload>, destination: SocketAddr, source: Option<IpAddr>, id: u64) -> Self {
        let partition = workload.partition(workload.netns_cookie, b"");
        let destination_identity = destination.to_string();
        Self {
            workload,
            destination,
            source,
            asker: None,
            id,
            enrolled: None,
            may_be_enrolled: false,
            partition,
            destination_identity,
        }
    }

    /// The same, where the kernel may answer requests on it, or on a later one of the client.
    pub fn with_enrolled(self, enrolled: Option<Enrolled>, may_be_enrolled: bool) -> Self {
        Self { enrolled, may_be_enrolled, ..self }
    }

    /// Which upstream connections may serve it.
    pub fn pool_key(&self) -> PoolKey {
        PoolKey { workload: self.workload.id, destination: self.destination, source: self.source }
    }

    /// The destination as its network namespace knows it.
    pub fn destination_in_netns(&self) -> Destination {
        (self.workload.netns_cookie, self.destination)
    }

    /// The primary key of a request (RFC 9111 §2) with this content.
    fn key(&self, request: &RequestHead, content: &[u8], service: Option<&Service>) -> Vec<u8> {
        let destination = self.identity(service);
        let of_service = service.map(|service| {
            let inputs = inputs::digest(&service.guard().inputs, request, &self.workload);
            self.workload.partition(service.epoch, &inputs)
        });
        let partition = of_service.as_ref().unwrap_or(&self.partition);
        let mut key = Vec::with_capacity(partition.len() + destination.len() + request.target.len() + 96);
        policy::key(partition, destination, authority(request), &request.target, &mut key);
        if is_query(request) {
            policy::query_key(&mut key, &request.fields, content);
        }
        key
    }

    /// The name under which writes invalidate a target of the request's authority: the same in all epochs, for what began
    /// in one may end in another.
    fn resource(&self, request: &RequestHead, target: &[u8], service: Option<&Service>) -> Vec<u8> {
        let mut resource = Vec::new();
        policy::resource(self.identity(service), authority(request), target, &mut resource);
        resource
    }

    /// The destination's identity in keys (MESH.md S1).
    fn identity<'a>(&'a self, service: Option<&'a Service>) -> &'a [u8] {
        service.map_or(self.destination_identity.as_bytes(), |service| &service.identity)
    }
}

/// A request that goes past what is stored: whose it is, where it goes, and what its answer says of the client's rights.
#[derive(Clone, Copy)]
struct Past<'a> {
    connection: &'a Connection,
    service: Option<&'a Service>,
    claim: Claim,
}

impl Path {
    /// The path with nothing on it yet.
    pub fn new(parts: Parts, limits: Limits) -> Self {
        let Parts { routes, store, sockets, bypass, hot, counters, is_strict } = parts;
        Self {
            routes,
            store,
            pool: Pool::new(sockets, &limits, counters.clone()),
            flights: Arc::new(Flights::new(limits.collapse_followers_max)),
            contents: Arc::new(Semaphore::new(limits.query_contents_bytes_max)),
            searches: Searches::default(),
            uncacheable: Uncacheable::default(),
            turns: Arc::new(Turns::new(limits.origin_requests_max, limits.origin_turn_timeout)),
            lateness: Lateness::default(),
            background: Background::new(limits.background_max, counters.clone()),
            bypass,
            hot,
            counters,
            limits,
            is_strict,
        }
    }

    /// Serves one request: from the store where policy allows it, else by the origin.
    ///
    /// # Errors
    /// `ForwardError`: the client has seen nothing of an answer yet.
    pub async fn serve<'a>(
        self: &Arc<Self>,
        request: &RequestHead,
        mut body: RequestBody<'a>,
        connection: &Arc<Connection>,
    ) -> Result<Response<'a>, ForwardError> {
        let route = self.route(request, connection);
        let (rules, service, claim) =
            (&route.rules, route.service.as_ref(), Claim::of(request, &route, &connection.workload));
        let past = Past { connection, service: route.service.as_deref(), claim };
        if let Some(reason) = route.bypass {
            self.counters.reasons.bypassed(reason);
            return self
                .bypass(request, &Content::default(), body, past, reason.fwd(), reason.as_str())
                .await;
        }
        let view = view(request);
        let content = match policy::eligible(&view, rules) {
            Eligibility::Lookup => self.content(request, &mut body).await?,
            Eligibility::Bypass(reason) => Content::refused(reason),
        };
        if let Some(reason) = content.refusal {
            self.counters.reasons.bypassed(reason);
            if matches!(reason, Reason::ContentTooLarge | Reason::ContentLate | Reason::ContentRoom) {
                self.counters.query_contents_refused.incr();
            }
            return self.bypass(request, &content, body, past, reason.fwd(), reason.as_str()).await;
        }
        let key = connection.key(request, &content.bytes, past.service);
        let mut wait_until = None;
        for look in 1..=LOOKS_MAX {
            // What was waited for, content or an answer, may have taken longer than the service stayed what it was.
            if (look > 1 || is_query(request)) && !self.is_current(connection, past.service) {
                break;
            }
            let search_key = if is_query(request) { None } else { self.searches.key(&key, &request.target) };
            let found = LookUp::of(&self.store, &key, search_key, &request.target);
            let now = clock::now();
            let decision = match policy::decide(&view, found.candidates(), rules, now) {
                // The origin says whether this client may have it.
                reuse if claim.left(connection, now.boot).is_none() => {
                    policy::asked_first(reuse, &view, Miss::Lease)
                }
                // Asked in general, it might be another one.
                reuse @ Decision::Reuse { revalidate: true, .. } if route.has_inputs() => {
                    policy::asked_first(reuse, &view, Miss::Stale)
                }
                decision => decision,
            };
            let (selected, miss) = match decision {
                Decision::Reuse { index, age, revalidate } => match found.entry(index, &self.store) {
                    Some(entry) if !takes(request, &entry.stored) => (None, Miss::Request),
                    Some(entry) => {
                        if revalidate {
                            let general = general(request);
                            let about = (
                                connection,
                                rules,
                                service,
                                Claim::of(&general, &route, &connection.workload),
                            );
                            let ask = Ask::new(&general, &content, about, &found, Some(index), Miss::Stale);
                            self.validate_in_background(ask);
                        }
                        let reused = if revalidate { Reused::StaleWhileRevalidate } else { Reused::Hit };
                        let may_promote = self.hot.is_some() && !revalidate && !found.has_searched();
                        let response = Response::stored(&view, entry, age, now, reused);
                        return Ok(response.found_under(may_promote.then_some(key)));
                    }
                    // Purged meanwhile.
                    None => continue,
                },
                Decision::Unsatisfiable => return Ok(Response::Own(Own::GatewayTimeout("only-if-cached"))),
                Decision::Validate { index, miss } => match found.entry(index, &self.store) {
                    Some(entry) if !takes(request, &entry.stored) => (None, Miss::Request),
                    _ => (Some(index), miss),
                },
                Decision::Forward(miss) => (None, miss),
            };
            let about = (connection, rules, service, claim);
            let ask = Ask::new(request, &content, about, &found, selected, miss);
            // One wait for all looks.
            let until = *wait_until.get_or_insert_with(|| Instant::now() + self.limits.collapse_timeout);
            let fetched = self.fetch(ask, body, (look < LOOKS_MAX).then_some(until)).await;
            match fetched.inspect_err(|error| self.leave_alone(connection, error))? {
                Fetched::Response(response) => return Ok(response),
                Fetched::LookAgain(client) => body = client,
            }
        }
        self.bypass(request, &content, body, past, "miss", "look-again").await
    }

    /// Whether the service that a request went to, if any, is still what it was when the request came.
    fn is_current(&self, connection: &Connection, service: Option<&Service>) -> bool {
        service.is_none_or(|service| self.routes.is_current(&connection.destination, service))
    }

    /// What applies to a request.
    fn route(&self, request: &RequestHead, connection: &Connection) -> Route {
        let Connection { workload, destination, .. } = connection;
        if workload.leases.is_none() {
            return self.routes.find();
        }
        let route = self.routes.find_service(destination, &workload.namespace);
        // It has no label any more, whatever connections it still has here.
        if workload.has_ended() {
            return Route { bypass: Some(Reason::Off), ..route };
        }
        let is_foreign = route.service.as_ref().is_some_and(|service| {
            !service.is_called(authority(request), &workload.namespace, destination.ip())
        });
        Route { bypass: route.bypass.or(is_foreign.then_some(Reason::ForeignHost)), ..route }
    }

    /// Forwards a request that was not looked up; its answer is not stored.
    async fn bypass<'a>(
        &self,
        request: &RequestHead,
        content: &Content,
        body: RequestBody<'a>,
        past: Past<'_>,
        fwd: &'static str,
        detail: &'static str,
    ) -> Result<Response<'a>, ForwardError> {
        let connection = past.connection;
        let taught = |error: &ForwardError| self.leave_alone(connection, error);
        let requested_at = clock::boot();
        let mut exchange = self.exchange(request, content, body, connection).await.inspect_err(taught)?;
        let answer = self.answer(&mut exchange, request, content, connection).await.inspect_err(taught);
        self.note_rights(past.claim, connection, &answer, requested_at);
        self.invalidate(request, past, &answer);
        match answer? {
            Answer::Opaque => Ok(Response::Opaque(Box::new(exchange))),
            Answer::Head(head) => {
                bind(&mut exchange, request, &head);
                // One word is enough where both would be the same.
                let detail = (detail != fwd).then_some(detail);
                let status = CacheStatus { fwd, detail, ..CacheStatus::default() };
                Ok(Response::Forwarded(Box::new(Forwarded { head: *head, exchange, status })))
            }
        }
    }

    /// Makes stored responses unusable that the request may have changed: before the client learns that it happened
    /// (RFC 9111 §4.4).
    fn invalidate(&self, request: &RequestHead, past: Past<'_>, answer: &Result<Answer, ForwardError>) {
        let Past { connection, service, .. } = past;
        let resource = connection.resource(request, &request.target, service);
        if let Ok(Answer::Head(head)) = answer {
            // RFC 9875 §3 asks for no success: the origin's word is enough.
            for group in policy::invalidated_groups(&request.method, &head.fields) {
                self.store.invalidate_group(&resource, &group);
            }
        }
        let may_have_changed = match answer {
            Ok(Answer::Head(head)) => policy::invalidates(&request.method, head.status),
            // Sent, and what became of it is not known.
            Ok(Answer::Opaque) | Err(_) => !policy::is_safe(&request.method),
        };
        if !may_have_changed {
            return;
        }
        self.store.invalidate(&resource);
        if let Ok(Answer::Head(head)) = answer {
            for target in policy::named_targets(&view(request), authority(request), &answer_view(head)) {
                self.store.invalidate(&connection.resource(request, &target, service));
            }
        }
    }

    /// Prepares a request on an idle or a new upstream connection.
    async fn exchange<'a>(
        &self,
        request: &RequestHead,
        content: &Content,
        body: RequestBody<'a>,
        connection: &Connection,
    ) -> Result<Exchange<'a>, ForwardError> {
        let not_before = self.connections_from(connection);
        let (key, purpose) = (connection.pool_key(), purpose(request, content));
        let upstream = match self.pool.take(&key, connection.id, purpose, not_before) {
            Some(upstream) => upstream,
            None => self.connect(connection).await?,
        };
        Ok(Exchange::new(upstream, Upload::new(body, outgoing(request, content)), self.limits.head_bytes_max))
    }

    /// Since when an upstream connection must have been made, since boot. Where nobody looks into requests, whom a connection
    /// leads to is decided once, and so is whether it is let through: it is made anew with each change of the service, and
    /// as often as a lease has to be.
    fn connections_from(&self, connection: &Connection) -> Duration {
        let now = clock::boot();
        match &connection.workload.leases {
            Some(leases) => {
                let leased = now.saturating_sub(leases.lasts());
                self.routes.connections_from(&connection.destination, now).max(leased)
            }
            None => Duration::ZERO,
        }
    }

    /// Waits for the answer; a pooled connection that was closed meanwhile is replaced once, where that is safe
    /// (RFC 9110 §9.2.2: a proxy MUST NOT automatically retry non-idempotent requests), or nothing was sent yet.
    async fn answer(
        &self,
        exchange: &mut Exchange<'_>,
        request: &RequestHead,
        content: &Content,
        connection: &Connection,
    ) -> Result<Answer, ForwardError> {
        // RFC 9110 §15.5.9: an origin may say 408 before it closes an idle connection; the request MAY be repeated.
        let is_closing = |answer: &Result<Answer, ForwardError>| match answer {
            Err(ForwardError::Closed | ForwardError::Broken(_)) => true,
            Ok(Answer::Head(head)) => head.status == 408 && !head.persists(),
            _ => false,
        };
        let may_repeat = purpose(request, content) != Purpose::Write;
        match exchange.answer(request).await {
            answer
                if is_closing(&answer)
                    && (exchange.is_unsent() || (may_repeat && exchange.may_restart())) =>
            {
                self.counters.upstream_retries.incr();
                let upstream = self.connect(connection).await?;
                exchange.restart(upstream, outgoing(request, content));
                exchange.answer(request).await
            }
            answer => answer,
        }
    }

    /// Connects upstream for a relay; a destination that cannot be reached is left alone for a moment.
    ///
    /// # Errors
    /// `ForwardError::Dial`.
    pub async fn dial(&self, connection: &Connection) -> Result<Upstream, ForwardError> {
        self.connect(connection).await.inspect_err(|error| self.leave_alone(connection, error))
    }

    async fn connect(&self, connection: &Connection) -> Result<Upstream, ForwardError> {
        let failed = |error| {
            self.counters.dial_errors.incr();
            tracing::debug!(%error, destination = %connection.destination, "cannot connect upstream");
            ForwardError::Dial(error)
        };
        let Connection { workload, destination, .. } = connection;
        let upstream = self.pool.dial(&workload.netns, &connection.pool_key()).await.map_err(failed)?;
        if let Some(unproven) = &workload.unproven {
            let local = upstream.stream.local_addr().map_err(failed)?;
            unproven.prove(&workload.netns, *destination, local).await;
        }
        Ok(upstream)
    }

    /// Leaves a destination that cannot be reached alone for a moment, so that the application's retries see it as
    /// it is. Not where something stored stands in for its answers.
    fn leave_alone(&self, connection: &Connection, error: &ForwardError) {
        if matches!(error, ForwardError::Dial(_)) {
            self.bypass.unreachable(connection.workload.id, connection.destination);
        }
    }
}

fn view(request: &RequestHead) -> RequestView<'_> {
    RequestView { method: &request.method, target: &request.target, fields: &request.fields }
}

fn answer_view(head: &ResponseHead) -> ResponseView<'_> {
    ResponseView {
        status: head.status,
        fields: &head.fields,
        delimited_by_close: head.framing == Framing::UntilClose,
    }
}

/// Fields by which a client asks for a part, for what it does not have yet, or for how old it may be.
const OF_ONE_CLIENT: Names =
    Names::of(&["range", "if-range", "if-none-match", "if-modified-since", "cache-control", "pragma"]);

/// The request for the whole and for everybody: without what asks for a part, for the head only, for what this client
/// does not have yet, or for how old it may be.
fn general(request: &RequestHead) -> RequestHead {
    let fields = Fields::from_pairs(request.fields.iter().filter(|(name, _)| !OF_ONE_CLIENT.has(name)));
    let method =
        if &request.method[..] == b"HEAD" { Bytes::from_static(b"GET") } else { request.method.clone() };
    RequestHead { method, fields, ..request.clone() }
}

/// RFC 9112 §6.1: no transfer coding for a client of HTTP/1.0.
fn takes(request: &RequestHead, stored: &Stored) -> bool {
    !stored.is_coded || request.version == Version::Http11
}

/// The authority of the request: its Host (RFC 9110 §7.2); eligible requests have exactly one.
fn authority(request: &RequestHead) -> &[u8] {
    request.fields.first("host").unwrap_or_default()
}

/// What the request wants a connection for.
///
/// RFC 9110 §9.2.2 would allow to repeat PUT and DELETE as well, but a DELETE that is carried out twice is answered 404.
fn purpose(request: &RequestHead, content: &Content) -> Purpose {
    match &request.method[..] {
        // RFC 10008 §2: safe and idempotent, and all of it is here.
        b"QUERY" if content.is_whole => Purpose::Read,
        _ if request.framing != Framing::Empty => Purpose::Write,
        // A 304 to a validation changes what is stored: it must be no other's content.
        b"HEAD"
            if request.fields.contains("if-none-match") || request.fields.contains("if-modified-since") =>
        {
            Purpose::Read
        }
        b"HEAD" => Purpose::Head,
        b"GET" | b"OPTIONS" | b"TRACE" => Purpose::Read,
        _ => Purpose::Write,
    }
}

fn is_query(request: &RequestHead) -> bool {
    &request.method[..] == b"QUERY"
}

/// A request as it goes forward, as far as it is here.
fn outgoing(request: &RequestHead, content: &Content) -> Bytes {
    let mut bytes = BytesMut::new();
    encode::request_head(request, &mut bytes);
    content.encode(&mut bytes);
    bytes.freeze()
}

/// Notes on the connection what binds it to this client; whether the answer is what anybody would get.
fn bind(exchange: &mut Exchange<'_>, request: &RequestHead, head: &ResponseHead) -> bool {
    if negotiates_login(request, head) {
        exchange.pin();
    }
    let is_impersonal = exchange.is_impersonal();
    exchange.doubt(head.framing == Framing::Empty && announces_content(request, head));
    is_impersonal
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
