//! HTTP on a unix socket for the administrator: status, switch, explanations, metrics, health.
//!
//! What it shows comes through `AdminState`; deciding anything is left to who made that.

mod socket;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::counters::{Counters, Figures};
use super::explain::{BadQuestion, Explanation, QUESTION_BYTES_MAX, Question};
use super::reasons::ReasonFigure;
use super::switch::{Subject, Switch, Switches};
use super::{
    AccelerationStatus, ClusterStatus, Position, Status, StoreStatus, SwitchAnswer, SwitchRequest,
    WorkloadStatus,
};

pub use socket::{AdminSocket, BindError, sweep_stale};

/// Bytes of a request body; beyond it 413.
const REQUEST_BYTES_MAX: usize = 4096;
/// Time for one connection, its answer included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer to a switch waits for the heartbeat to follow.
const SWITCH_WAIT: Duration = Duration::from_millis(900);
const SWITCH_POLL: Duration = Duration::from_millis(20);
/// Lets other tasks run where accepting fails at once again and again, as without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin server cannot know by itself.
pub trait DaemonView: Send + Sync {
    /// Lists every wanted workload.
    fn workloads(&self) -> Vec<WorkloadStatus>;
    /// Returns the figures of the store.
    fn store(&self) -> StoreStatus;
    /// Returns what is known of hits inside the kernel, but for their switch; `None` where there is no kernel.
    fn acceleration(&self) -> Option<AccelerationStatus>;
    /// Returns what is known of the cluster; `None` without one.
    fn cluster(&self) -> Option<ClusterStatus>;
    /// Explains what would become of a request; may take its time, and is called where that holds nobody up.
    ///
    /// # Errors
    /// `BadQuestion`.
    fn explain(&self, question: &Question) -> Result<Explanation, BadQuestion>;
    /// Folds what the kernel has counted into `counters`; called before each reading.
    fn fold_kernel_counters(&self, counters: &Counters);
}

/// What the admin server shows and moves.
pub struct AdminState {
    /// The daemon's figures.
    pub counters: Arc<Counters>,
    /// The daemon's switches.
    pub switches: Switches,
    /// The rest of the daemon.
    pub view: Box<dyn DaemonView>,
    /// Told where another process is to serve instead; none where that cannot be.
    pub handover: Option<Arc<Notify>>,
}

impl AdminState {
    fn figures(&self) -> Figures {
        self.view.fold_kernel_counters(&self.counters);
        self.counters.figures()
    }

    fn status(&self) -> Status {
        let figures = self.figures();
        let mut reasons: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ReasonFigure { name, reason, value, .. } in &figures.by_reason {
            reasons.entry((*name).to_owned()).or_default().insert((*reason).to_owned(), *value);
        }
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            switch: self.switches.redirection.in_effect(),
            switched_off_by: self.switches.redirection.switched_off_by().map(PathBuf::from),
            acceleration: self.acceleration(),
            cluster: self.view.cluster(),
            workloads: self.view.workloads(),
            counters: figures.list().into_iter().map(|(name, _, _, n)| (name.to_owned(), n)).collect(),
            reasons,
            store: self.view.store(),
        }
    }
}

impl AdminState {
    fn acceleration(&self) -> Option<AccelerationStatus> {
        let of_kernel = self.view.acceleration()?;
        let switch = |subject: Subject| {
            let switch = self.switches.of(subject);
            (switch.in_effect(), switch.switched_off_by().map(PathBuf::from))
        };
        let (redirection, redirected_off_by) = switch(Subject::Redirection);
        let (position, switched_off_by) = switch(Subject::Acceleration);
        let is_off = |position| position == Position::Off;
        let mut status = AccelerationStatus { switch: position, switched_off_by, ..of_kernel };
        if !is_off(status.state) && (is_off(redirection) || is_off(position)) {
            let by = redirected_off_by.or(status.switched_off_by.clone());
            let by = by.map_or(String::new(), |file| format!(" ({} is there)", file.display()));
            status.state = Position::Off;
            status.reason = format!("it is switched off{by}");
        }
        Some(status)
    }
}

/// A bound admin socket with its state; dropping it, or the future of `run`, removes the socket's file.
pub struct AdminServer {
    socket: AdminSocket,
    state: Arc<AdminState>,
    connections_max: usize,
}

impl AdminServer {
    /// Binds `path` with mode 0600, replacing a socket that nobody answers on; needs a running tokio runtime.
    ///
    /// # Errors
    /// `BindError` names what is in the way.
    pub fn bind(path: &Path, state: Arc<AdminState>, connections_max: usize) -> Result<Self, BindError> {
        let socket = AdminSocket::bind(path)?;
        Ok(Self { socket, state, connections_max: connections_max.max(1) })
    }

    /// Serves until dropped.
    pub async fn run(self) {
        let Self { socket, state, connections_max } = &self;
        let one = |stream| {
            let state = Arc::clone(state);
            async move { serve(stream, &state).await }
        };
        accept_each(*connections_max, || socket.accept(), "the admin socket cannot accept", one).await;
    }
}

/// Serves each connection that is accepted, no more than so many at a time; `trouble` is said where accepting fails.
pub(super) async fn accept_each<
    T,
    A: Future<Output = io::Result<T>>,
    F: Future<Output = ()> + Send + 'static,
>(
    connections_max: usize,
    accept: impl Fn() -> A,
    trouble: &'static str,
    one: impl Fn(T) -> F,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "{trouble}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let served = one(stream);
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

async fn serve(stream: UnixStream, state: &Arc<AdminState>) {
    let allowed = is_allowed(&stream);
    let one = service_fn(|request| async move {
        Ok::<_, Infallible>(if allowed { route(request, state).await } else { refused() })
    });
    answer(stream, one).await;
}

/// Answers one request of a connection, within a bound time and memory.
pub(super) async fn answer<T, S>(stream: T, service: S)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// The file's mode keeps others out already; this holds where the file was given another mode.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

fn refused() -> Response<Full<Bytes>> {
    text(StatusCode::FORBIDDEN, "only root and the daemon's own user may ask\n".to_owned())
}

async fn route(request: Request<Incoming>, state: &Arc<AdminState>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/v1/status") => json(StatusCode::OK, &state.status()),
        (&Method::PUT, "/v1/switch") => switch(request, state).await,
        (&Method::POST, "/v1/explain") => explain(request, state).await,
        (&Method::POST, "/v1/handover") => handover(state),
        (&Method::GET, "/metrics") => metrics(state),
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n".to_owned()),
        (_, "/v1/status" | "/metrics" | "/healthz") => not_allowed("GET"),
        (_, "/v1/switch") => not_allowed("PUT"),
        (_, "/v1/explain" | "/v1/handover") => not_allowed("POST"),
        _ => text(StatusCode::NOT_FOUND, format!("nothing is at {path}\n")),
    }
}

/// The socket goes once the daemon has let go of everything that another needs.
fn handover(state: &AdminState) -> Response<Full<Bytes>> {
    match &state.handover {
        Some(handover) => {
            handover.notify_one();
            text(
                StatusCode::ACCEPTED,
                "new connections go direct, and this socket goes in a moment\n".to_owned(),
            )
        }
        None => {
            text(StatusCode::CONFLICT, "this daemon serves one command and hands nothing over\n".to_owned())
        }
    }
}

pub(super) fn metrics(state: &AdminState) -> Response<Full<Bytes>> {
    let mut answer = text(StatusCode::OK, state.figures().prometheus_text());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

async fn switch(request: Request<Incoming>, state: &AdminState) -> Response<Full<Bytes>> {
    let body = match body(request, REQUEST_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let wish: SwitchRequest = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => {
            return text(StatusCode::BAD_REQUEST, format!("want {{\"state\":\"on\"|\"off\"}}: {error}\n"));
        }
    };
    let switch = state.switches.of(wish.subject);
    match switch.set(wish.state) {
        Ok(wanted) => {
            wait_for(switch, wanted).await;
            let answer = SwitchAnswer {
                state: switch.in_effect(),
                switched_off_by: switch.switched_off_by().map(PathBuf::from),
            };
            json(StatusCode::OK, &answer)
        }
        Err(error) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("the switch cannot be kept: {error}\n"))
        }
    }
}

async fn explain(request: Request<Incoming>, state: &Arc<AdminState>) -> Response<Full<Bytes>> {
    let body = match body(request, QUESTION_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("not a question: {error}\n")),
    };
    let state = Arc::clone(state);
    // It may walk through the whole store.
    match tokio::task::spawn_blocking(move || state.view.explain(&question)).await {
        Ok(Ok(explanation)) => json(StatusCode::OK, &explanation),
        Ok(Err(error)) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The whole body, or the answer that refuses it.
async fn body(request: Request<Incoming>, bytes_max: usize) -> Result<Bytes, Box<Response<Full<Bytes>>>> {
    match Limited::new(request.into_body(), bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => {
            let refusal = "the body is not complete, or too large\n".to_owned();
            Err(Box::new(text(StatusCode::PAYLOAD_TOO_LARGE, refusal)))
        }
    }
}

async fn wait_for(switch: &Switch, wanted: Position) {
    let deadline = Instant::now() + SWITCH_WAIT;
    while switch.in_effect() != wanted && Instant::now() < deadline {
        sleep(SWITCH_POLL).await;
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut answer = Response::new(Full::new(Bytes::from(body)));
            *answer.status_mut() = status;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

pub(super) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

pub(super) fn not_allowed(method: &'static str) -> Response<Full<Bytes>> {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {method} is possible here\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    answer
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
