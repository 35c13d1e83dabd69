//! A steady load of requests, on connections that are kept and on new ones, for what is stored and for what is not, with
//! a record of every single one.
//!
//! The probe runs it inside the cached cgroup until its standard input ends, `probe steady ADDR THREADS`, then prints
//! the record.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::load::clock;
use crate::origin::{Answer, Request};
use crate::response::Response;
use crate::wait;

/// What every thread asks for in turn.
const TARGETS: [&str; 2] = ["/stored", "/forwarded"];
/// Between two requests of a thread: the load is steady and leaves room for others.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// From memory, by the daemon or inside the kernel.
    Hit,
    /// By the origin, through the daemon.
    Forwarded,
    /// By the origin, past the daemon.
    Direct,
}

/// One request of the load.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it was begun, by [`clock`].
    pub begun: u64,
    /// Whether its connection had answered one before.
    pub is_on_kept: bool,
    /// How it was answered, with a complete 200; else what failed.
    pub outcome: Result<By, String>,
}

/// What an origin answers to it.
pub fn answer(request: &Request) -> Answer {
    let answer = Answer::ok(request.target());
    if request.target() == TARGETS[0] {
        answer.max_age(600)
    } else {
        answer.field("Cache-Control", "no-store")
    }
}

/// Asks `addr` from `threads` threads until standard input ends; prints the record.
///
/// Every other thread makes a connection for each request.
pub fn run(addr: &str, threads: usize) -> Result<()> {
    let addr: SocketAddr = addr.parse()?;
    let stop = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let work = |n: usize| {
            scope.spawn({
                let stop = &stop;
                move || ask(addr, n.is_multiple_of(2), stop)
            })
        };
        let workers: Vec<_> = (0..threads).map(work).collect();
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
        let joined: thread::Result<Vec<_>> = workers.into_iter().map(|worker| worker.join()).collect();
        joined.map_err(|_| anyhow!("a thread of the load panicked"))
    })?;
    let all: Vec<Value> = asked.iter().flatten().map(Asked::to_json).collect();
    writeln!(io::stdout(), "{}", Value::from(all))?;
    Ok(())
}

fn ask(addr: SocketAddr, keeps: bool, stop: &AtomicBool) -> Vec<Asked> {
    let (mut all, mut kept) = (Vec::new(), None);
    for target in TARGETS.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (begun, is_on_kept) = (clock(), kept.is_some());
        let outcome = match exchange(kept.take(), addr, target) {
            Ok((connection, response)) => {
                kept = (keeps && !response.closes()).then_some(connection);
                how(target, &response)
            }
            Err(error) => Err(format!("{error:#}")),
        };
        all.push(Asked { begun, is_on_kept, outcome });
        wait::pause(PAUSE);
    }
    all
}

fn exchange(kept: Option<Connection>, addr: SocketAddr, target: &str) -> Result<(Connection, Response)> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection::open(addr, None, PATIENCE).context("connect")?,
    };
    let request = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    connection.send(request.as_bytes(), None).context("send")?;
    let response = connection.response("GET", PATIENCE);
    ensure!(response.complete(), "broke off: {}", response.end());
    Ok((connection, response))
}

fn how(target: &str, response: &Response) -> Result<By, String> {
    if response.status() != 200 || response.text() != target {
        return Err(format!("{response:?}"));
    }
    Ok(match (response.is_hit(), response.passed_through_cache()) {
        (true, _) => By::Hit,
        (false, true) => By::Forwarded,
        (false, false) => By::Direct,
    })
}

impl Asked {
    fn to_json(&self) -> Value {
        let outcome = match &self.outcome {
            Ok(By::Hit) => "hit",
            Ok(By::Forwarded) => "forwarded",
            Ok(By::Direct) => "direct",
            Err(why) => why,
        };
        json!([self.begun, self.is_on_kept, outcome])
    }

    fn from_json(item: &Value) -> Option<Self> {
        let outcome = match item[2].as_str()? {
            "hit" => Ok(By::Hit),
            "forwarded" => Ok(By::Forwarded),
            "direct" => Ok(By::Direct),
            why => Err(why.to_owned()),
        };
        Some(Self { begun: item[0].as_u64()?, is_on_kept: item[1].as_bool()?, outcome })
    }
}

/// Reads the record that the probe printed.
pub fn record(text: &str) -> Result<Vec<Asked>> {
    let all: Value = serde_json::from_str(text.trim()).with_context(|| text.to_owned())?;
    let all = all.as_array().context("no record")?;
    all.iter().map(|item| Asked::from_json(item).context("no request")).collect()
}
