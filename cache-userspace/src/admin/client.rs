//! Asks a daemon through its admin socket; what to print is left to `cli`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::explain::{Explanation, Question};
use super::{Position, Status, Subject, SwitchAnswer, SwitchRequest};

/// Time for one question and its answer.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer; a status of 10 000 workloads fits.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Says why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon answers at {path}: {source}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the daemon at {0} did not answer in time")]
    Timeout(PathBuf),
    /// Something answered that does not speak HTTP.
    #[error("the daemon at {path} broke off: {source}")]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon refused.
    #[error("the daemon at {path} answered {status}: {text}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The status of its answer.
        status: StatusCode,
        /// What it said.
        text: String,
    },
}

/// One daemon, by its admin socket.
#[derive(Clone, Debug)]
pub struct AdminClient {
    path: PathBuf,
    timeout: Duration,
}

impl AdminClient {
    /// Names the daemon that listens at `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), timeout: TIMEOUT }
    }

    /// Sets the time for one question and its answer.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Returns the socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for the status.
    ///
    /// # Errors
    /// `ClientError` says what failed.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let body = self.ask(Method::GET, "/v1/status", Bytes::new()).await?;
        self.parse(&body)
    }

    /// Switches the daemon and waits until the kernel follows, at most about a second.
    ///
    /// # Errors
    /// `ClientError` says what failed.
    pub async fn switch(&self, subject: Subject, to: Position) -> Result<SwitchAnswer, ClientError> {
        let wish = SwitchRequest { state: to, subject };
        let wish = serde_json::to_vec(&wish).map_err(|error| self.broken(error))?;
        let body = self.ask(Method::PUT, "/v1/switch", wish.into()).await?;
        self.parse(&body)
    }

    /// Asks what would become of a request.
    ///
    /// # Errors
    /// `ClientError` says what failed.
    pub async fn explain(&self, question: &Question) -> Result<Explanation, ClientError> {
        let question = serde_json::to_vec(question).map_err(|error| self.broken(error))?;
        let body = self.ask(Method::POST, "/v1/explain", question.into()).await?;
        self.parse(&body)
    }

    /// Asks the daemon to let this process serve instead.
    ///
    /// # Errors
    /// `ClientError` says what failed.
    pub async fn hand_over(&self) -> Result<(), ClientError> {
        self.ask(Method::POST, "/v1/handover", Bytes::new()).await.map(drop)
    }

    /// Asks whether the daemon is well.
    ///
    /// # Errors
    /// `ClientError` says what failed.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.ask(Method::GET, "/healthz", Bytes::new()).await.map(drop)
    }

    /// Asks for the metrics in the Prometheus text format.
    ///
    /// # Errors
    /// `ClientError` says what failed.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let body = self.ask(Method::GET, "/metrics", Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Protocol { path: self.path.clone(), source: source.into() }
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(error))
    }

    async fn ask(&self, method: Method, target: &str, body: Bytes) -> Result<Bytes, ClientError> {
        timeout(self.timeout, self.exchange(method, target, body))
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout(self.path.clone())))
    }

    async fn exchange(&self, method: Method, target: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| ClientError::Unreachable { path: self.path.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "sidestep")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.broken(error))?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let text = String::from_utf8_lossy(&body).trim_end().to_owned();
            Err(ClientError::Refused { path: self.path.clone(), status, text })
        };
        // The connection is driven beside the question, and dropped with it.
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            driven = &mut connection => match driven {
                Ok(()) => answer.await,
                Err(error) => Err(self.broken(error)),
            },
        }
    }
}
