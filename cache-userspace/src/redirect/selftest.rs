//! Whether hits inside the kernel are right on the kernel that runs: tried out at start on loopback connections of this
//! process, before any workload is enrolled. It takes well under a second and less than 10 MB.
//!
//! What fails here would be a wrong answer, an answer out of order, or a client that hangs: then there are no such hits.
//! What merely differs from plain TCP in a known way is reported. Conclusions are left to `acceleration`.

mod bench;
mod bytes;
mod callers;
mod deviations;
mod ends;
mod guards;
mod memory;
mod order;
mod readiness;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::btf::Offsets;
use super::hit_maps::HitSettings;
use super::kernel::Kernel;
use bench::Bench;

/// After how long no further part is tried; one that has to be right counts as failed then.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How a part came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Wrong: no hits inside this kernel.
    Failed,
    /// Different from plain TCP, in a known way.
    Deviates,
    /// Could not be tried, and does not matter so much.
    Untested,
}

/// What one part found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The part.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// One sentence.
    pub says: String,
}

/// What FIONREAD counts on an enrolled socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Unread answers of the kernel.
    pub hits: bool,
    /// Unread bytes that came by TCP.
    pub tcp: bool,
}

/// A part that did not come out wrong.
enum Seen {
    Right(String),
    Deviates(String),
    Untested(String),
}

impl Seen {
    fn right(says: &str) -> Result<Self, Wrong> {
        Ok(Self::Right(says.to_owned()))
    }
}

/// What is wrong, in one sentence.
struct Wrong(String);

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        Self(format!("a socket failed: {error}"))
    }
}

impl From<nix::Error> for Wrong {
    fn from(error: nix::Error) -> Self {
        std::io::Error::from(error).into()
    }
}

impl From<super::kernel::KernelError> for Wrong {
    fn from(error: super::kernel::KernelError) -> Self {
        Self(error.to_string())
    }
}

fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), Wrong> {
    if is_so { Ok(()) } else { Err(Wrong(otherwise())) }
}

type Part = fn(&Bench<'_>) -> Result<Seen, Wrong>;

/// What has to be right. The others need what the first finds.
const FATAL: [(&str, Part); 14] = [
    ("callers", callers::are_told_apart),
    ("bytes", bytes::are_right),
    ("heads", bytes::heads_are_told_apart),
    ("order", order::is_kept),
    ("fragments", order::fragments_pass),
    ("end", ends::end_is_seen),
    ("reset", ends::reset_is_seen),
    ("poll", readiness::poll),
    ("epoll", readiness::edge_triggered),
    ("expiry", guards::expiry),
    ("heartbeat", guards::heartbeat),
    ("no-hits", guards::no_hits),
    ("retired", guards::retired),
    ("memory", memory::is_given_back),
];

/// What may differ.
const KNOWN: [(&str, Part); 4] = [
    ("fionread", deviations::fionread),
    ("splice", deviations::splice),
    ("half-close", deviations::half_close),
    ("mptcp", deviations::mptcp),
];

/// Tries everything; `watch` says why nobody watches for splice(2), where that is so, and `failing` names a part that is
/// to fail. Returns what FIONREAD counts too. Everything is as before afterwards, but for the counters.
pub fn run(
    kernel: &Kernel,
    settings: &HitSettings,
    offsets: &Offsets,
    watch: Result<(), String>,
    failing: Option<&str>,
) -> (Vec<Finding>, Counted) {
    let bench = Bench::new(kernel, settings, offsets, watch);
    let end = Instant::now() + TIME_MAX;
    let parts = FATAL.iter().map(|part| (part, true)).chain(KNOWN.iter().map(|part| (part, false)));
    let mut findings = Vec::new();
    for ((name, part), is_fatal) in parts {
        let started = Instant::now();
        let seen = if started > end {
            let says = format!("not tried: the parts before took more than {} s", TIME_MAX.as_secs());
            if is_fatal { Err(Wrong(says)) } else { Ok(Seen::Untested(says)) }
        } else if failing == Some(name) {
            Err(Wrong("made to fail".to_owned()))
        } else {
            bench.begin().and_then(|()| part(&bench))
        };
        let (outcome, says) = match seen {
            Ok(Seen::Right(says)) => (Outcome::Ok, says),
            Ok(Seen::Deviates(says)) => (Outcome::Deviates, says),
            Ok(Seen::Untested(says)) => (Outcome::Untested, says),
            Err(Wrong(says)) => (Outcome::Failed, says),
        };
        tracing::debug!(name, took = ?started.elapsed(), "a part of the self-test");
        findings.push(Finding { name: (*name).to_owned(), outcome, says });
        if findings.len() == 1 && outcome == Outcome::Failed {
            // Nobody gets an answer of the kernel: the others would say so once more each.
            break;
        }
    }
    if let Err(Wrong(says)) = bench.clear() {
        findings.push(Finding { name: "clear".to_owned(), outcome: Outcome::Failed, says });
    }
    (findings, bench.counted.get())
}
