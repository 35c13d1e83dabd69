//! A load of connections, each begun, used for one GET and closed, with a record of every single one.
//!
//! The probe runs it inside the cached cgroup until its standard input ends, then prints the record.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::client::Connection;

/// Nanoseconds since 1970: comparable between processes of one machine.
pub fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// One connection of the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When connect was called, by [`clock`].
    pub begun: u64,
    /// When the response was complete or the attempt failed, by [`clock`].
    pub ended: u64,
    /// `cached` or `direct` where a complete 200 came, with and without our Cache-Status; else what failed.
    pub outcome: String,
}

impl Attempt {
    /// Whether a complete 200 came.
    pub fn succeeded(&self) -> bool {
        self.outcome == "cached" || self.outcome == "direct"
    }

    /// Whether it was connected, and ended or reset by the other side before its response was complete.
    pub fn was_cut(&self) -> bool {
        CUT.iter().any(|cut| self.outcome.contains(cut))
    }
}

/// What the outcome of a connection says that was ended by the other side.
const CUT: [&str; 4] = ["broke off: eof", "broke off: reset", "ConnectionReset", "BrokenPipe"];

/// Reads the record that the probe printed.
pub fn record(text: &str) -> Result<Vec<Attempt>> {
    let all: Value = serde_json::from_str(text.trim()).with_context(|| text.to_owned())?;
    let attempt = |item: &Value| {
        Some(Attempt {
            begun: item[0].as_u64()?,
            ended: item[1].as_u64()?,
            outcome: item[2].as_str()?.to_owned(),
        })
    };
    all.as_array().context("no record")?.iter().map(|item| attempt(item).context("no attempt")).collect()
}

/// Loads `addr` with `threads` threads until standard input ends; prints the record.
///
/// An attempt waits `patience` for each of its steps.
pub fn run(addr: &str, target: &str, threads: usize, patience: Duration) -> Result<()> {
    let addr: SocketAddr = addr.parse()?;
    let stop = AtomicBool::new(false);
    let attempts = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work(addr, target, patience, &stop))).collect();
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
        let joined: thread::Result<Vec<_>> = workers.into_iter().map(|worker| worker.join()).collect();
        joined.map_err(|_| anyhow!("a thread of the load panicked"))
    })?;
    let all: Vec<Value> = attempts.iter().flatten().map(|a| json!([a.begun, a.ended, a.outcome])).collect();
    writeln!(io::stdout(), "{}", Value::from(all))?;
    Ok(())
}

/// Keeps one core busy until standard input ends.
pub fn spin() -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn work(addr: SocketAddr, target: &str, patience: Duration, stop: &AtomicBool) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = clock();
        let outcome = attempt(addr, target, patience).unwrap_or_else(|error| format!("{error:?}"));
        attempts.push(Attempt { begun, ended: clock(), outcome });
    }
    attempts
}

fn attempt(addr: SocketAddr, target: &str, patience: Duration) -> io::Result<String> {
    let mut connection = Connection::open(addr, None, patience)?;
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes(), None)?;
    let response = connection.response("GET", patience);
    Ok(match (response.complete(), response.status()) {
        (true, 200) if response.passed_through_cache() => "cached".to_owned(),
        (true, 200) => "direct".to_owned(),
        (true, status) => format!("status {status}"),
        (false, _) => format!("broke off: {}", response.end()),
    })
}
