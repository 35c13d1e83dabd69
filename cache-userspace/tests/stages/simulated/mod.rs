//! Both ends of the path: a client and an origin that a test plays by hand, a node between them without a kernel, and
//! a clock that stands still.
//!
//! A test holds all ends in one task, so that awaiting what one of them received is the barrier for the others.
//! Every wait ends after [`PATIENCE`] in a panic that says what was waited for.

mod clock;
mod node;
mod origin;
mod scratch;
pub(crate) mod wire;

use std::future::Future;
use std::time::Duration;

pub(crate) use clock::{StillClock, settled};
pub(crate) use node::{Client, Node};
pub(crate) use origin::{Origin, Reply};
pub(crate) use wire::{End, Message, Wire};

/// How long a test waits for what takes microseconds, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits what must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A request without content.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: origin.test\r\n\r\n")
}

/// A request with content of a known length.
pub(crate) fn post(target: &str, content: &str) -> String {
    let length = content.len();
    format!("POST {target} HTTP/1.1\r\nHost: origin.test\r\nContent-Length: {length}\r\n\r\n{content}")
}

/// A response with content of a known length; `fields` are whole lines.
pub(crate) fn ok(fields: &str, content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{content}", content.len())
}

/// A response that may be stored.
pub(crate) fn fresh(content: &str) -> String {
    ok("Cache-Control: max-age=60\r\n", content)
}
