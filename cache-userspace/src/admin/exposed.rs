//! What is told to whoever reaches a TCP address: figures and health, for Prometheus and probes. Nothing can be changed
//! there, and nothing of any request is told.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::server::{ACCEPT_PAUSE, AdminState, answer, metrics, not_allowed, text};

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
        let places = Arc::new(Semaphore::new(self.connections_max));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "metrics cannot be asked for");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let state = Arc::clone(&self.state);
            tokio::spawn(async move {
                let one = service_fn(|request| {
                    let told = tell(&request, &state);
                    async move { Ok::<_, Infallible>(told) }
                });
                answer(stream, one).await;
                drop(place);
            });
        }
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
