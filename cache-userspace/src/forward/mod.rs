//! The request goes on: to the address the workload asked for, from the workload's own network namespace, on a
//! connection of the workload's own (MESH.md S10). What to ask and what becomes of the answer is decided elsewhere.

pub mod exchange;
pub mod flight;
pub mod lateness;
pub mod pool;
pub mod turns;
pub mod uncacheable;
pub mod upload;

pub use exchange::{Answer, Exchange};
pub use flight::{Flights, Follower, Lead, Part};
pub use lateness::Lateness;
pub use pool::{Pool, PoolKey, Purpose, Upstream};
pub use turns::{Destination, Turn, Turns};
pub use uncacheable::{Refusal, Uncacheable};
pub use upload::RequestBody;

/// Why a request got no answer from upstream.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection: refused, unreachable, timed out. Nothing was sent.
    #[error("cannot connect upstream: {0}")]
    Dial(#[source] std::io::Error),
    /// The connection ended before an answer began.
    #[error("upstream closed before it answered")]
    Closed,
    /// The connection broke.
    #[error("upstream connection broke: {0}")]
    Broken(#[source] std::io::Error),
    /// The client's content cannot be framed (RFC 9112 §7.1).
    #[error("the client's content is malformed: {0}")]
    BadContent(#[source] crate::http1::body::BodyFault),
    /// The client went away before its content was complete.
    #[error("the client went away")]
    ClientGone,
}
