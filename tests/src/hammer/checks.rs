//! What an answer must be, given when it was asked for.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::origin::{SHORT, letter};
use super::{Kind, PATIENCE, Record};
use crate::client::Connection;
use crate::load::clock;
use crate::manners::content;
use crate::response::Response;
use crate::wait;

/// Between two writes: time enough for the new version to become hot.
const BETWEEN_WRITES: Duration = Duration::from_millis(30);

const SECOND: u64 = 1_000_000_000;

/// What the connections of a client know together.
#[derive(Default)]
pub(super) struct Known {
    /// The version whose write was answered last.
    newest: AtomicU64,
    /// Of [`Kind::Own`], what was fetched for this client, and what it got.
    own: Mutex<[HashSet<String>; 2]>,
}

/// What was known when a request was made.
pub(super) struct Asked {
    /// The time.
    pub(super) at: u64,
    newest: u64,
    target: String,
}

impl Known {
    /// Before a request is sent.
    pub(super) fn asked(&self, target: String) -> Asked {
        Asked { newest: self.newest.load(Ordering::SeqCst), at: clock(), target }
    }

    /// Checks its answer.
    pub(super) fn checked(
        &self,
        kind: Kind,
        asked: &Asked,
        answered: u64,
        response: &Response,
    ) -> Result<()> {
        ensure!(response.status() == 200, "status {}", response.status());
        match kind {
            Kind::Hot | Kind::Many(_) => {
                ensure!(response.text() == content(&asked.target), "not that of {}", asked.target);
            }
            Kind::Own => {
                let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                own[usize::from(response.is_hit())].insert(response.text());
            }
            Kind::Short => {
                let age = asked.at.saturating_sub(made(response)?);
                let lifetime = SHORT.as_nanos() as u64;
                ensure!(age < lifetime, "older than its lifetime by {} µs", (age - lifetime) / 1000);
            }
            Kind::Lasting => {
                let (made, age) = (made(response)?, response.age().unwrap_or(0));
                let (least, most) = (asked.at.saturating_sub(made), answered.saturating_sub(made));
                ensure!(age >= least / SECOND, "Age {age}, and it is {least} ns old");
                // The Date of an origin is of whole seconds, so that an age may be one too large (RFC 9111 §4.2.3).
                ensure!(age <= most / SECOND + 1, "Age {age}, and it is {most} ns old");
            }
            Kind::Versions => {
                let (version, body) = (version(response)?, response.body());
                let one = letter(version);
                let other = body.iter().position(|byte| *byte != one);
                ensure!(other.is_none(), "version {version} is another one from byte {other:?} on");
                ensure!(version >= asked.newest, "version {version} after {} was written", asked.newest);
            }
        }
        Ok(())
    }

    /// What can be told at the end only: hits with what was never fetched for this client.
    pub(super) fn alien(&self) -> Vec<String> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let [fetched, got] = &*own;
        got.difference(fetched).map(|alien| format!("somebody else's: {alien}")).collect()
    }
}

fn made(response: &Response) -> Result<u64> {
    response.text().trim().parse().context("no time in the body")
}

fn version(response: &Response) -> Result<u64> {
    let tag = response.field("etag").context("no ETag")?;
    tag.trim_matches('"').parse().with_context(|| format!("ETag {tag}"))
}

/// Writes one version after the other, and says of each when it was answered.
pub(super) fn writes(addr: SocketAddr, known: &Known, until: Instant) -> Record {
    let mut record = Record::default();
    while Instant::now() < until {
        if let Err(error) = written(addr, known, until) {
            record.ended(clock(), &format!("the writer: {error:#}"));
            wait::pause(BETWEEN_WRITES);
        }
    }
    record
}

fn written(addr: SocketAddr, known: &Known, until: Instant) -> Result<()> {
    let mut connection = Connection::open(addr, None, PATIENCE)?;
    let target = Kind::Versions.target(0);
    let request = format!("PUT {target} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 0\r\n\r\n");
    while Instant::now() < until {
        connection.send(request.as_bytes(), None)?;
        let response = connection.response("PUT", PATIENCE);
        ensure!(response.complete() && response.status() == 204, "{response:?}");
        known.newest.store(version(&response)?, Ordering::SeqCst);
        if response.closes() {
            return Ok(());
        }
        wait::pause(BETWEEN_WRITES);
    }
    Ok(())
}
