//! What is told to whoever reaches a TCP address: figures and health, for Prometheus and probes. Nothing can be changed
//! there, and nothing of any request is told.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

use super::server::{AdminState, accept_each, answer, metrics, not_allowed, text};

/// A bound address; nobody listens there any more once it, or the future of `run`, is dropped.
pub struct ExposedServer {
    listener: tokio::net::TcpListener,
    state: Arc<AdminState>,
    connections_max: usize,
}

impl ExposedServer {
    /// Binds an address; needs a running tokio runtime.
    ///
    /// # Errors
    /// What the system says where the address cannot be had.
    pub fn bind(at: SocketAddr, state: Arc<AdminState>, connections_max: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Self { listener, state, connections_max: connections_max.max(1) })
    }

    /// The address.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    pub async fn run(self) {
        let Self { listener, state, connections_max } = &self;
        let accept = || async move { listener.accept().await.map(|(stream, _)| stream) };
        let one = |stream| {
            let state = Arc::clone(state);
            let told = service_fn(move |request| {
                let told = tell(&request, &state);
                async move { Ok::<_, Infallible>(told) }
            });
            answer(stream, told)
        };
        accept_each(*connections_max, accept, "metrics cannot be asked for", one).await;
    }
}

fn tell<B>(request: &Request<B>, state: &AdminState) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => metrics(state),
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n".to_owned()),
        (_, "/metrics" | "/healthz") => not_allowed("GET"),
        _ => text(StatusCode::NOT_FOUND, "only /metrics and /healthz are here\n".to_owned()),
    }
}
