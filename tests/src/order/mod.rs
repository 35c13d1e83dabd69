//! Clients that give an answer of the kernel every chance to come before an earlier one, or in the middle of it.
//!
//! The probe runs them inside the cached cgroup: `probe order CASE ADDR THREADS TRIES`. Each try has a connection of its
//! own on which what is hot was asked for once; it ends with the first thing that is wrong, which is enough to see a test
//! fail. What is wrong, and where, is left to the tests.
//!
//! Environment: `SIDESTEP_TEST_TRIES_PERCENT` is how many of a hundred tries are made, where the machine is slow.

mod cases;
mod messages;
pub mod origin;
mod pairs;

use std::env;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::client::Connection;
use crate::manners::{HOT, Tally, content};
use crate::words;

/// How long an answer may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// The length of an answer that does not fit where others do, bytes.
const BIG: u64 = 1 << 20;

/// What a client does with each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Asks for what takes its time, then for what is hot.
    SlowMiss,
    /// Asks for what is hot with an answer unread.
    Unread,
    /// Asks for what is hot in the middle of an answer that has come whole.
    HalfRead,
    /// Asks for what is hot in the middle of an answer, with little room to receive.
    SmallBuffer,
    /// Asks for what is hot when all that has come of an answer is read; the rest is still on its way.
    InFlight,
    /// Sends several requests in pieces: write, writev, `MSG_MORE`.
    Pieces,
    /// Sends the second half of a head, which is itself a hot one, by itself.
    HeadInHead,
    /// Sends a body that is a hot head by itself.
    Body,
    /// Asks for what is hot with content, which is a hot head and comes when the answer may be there.
    HitWithBody,
    /// Sends a chunk that is a hot head by itself.
    Chunk,
    /// Sends such a body when `100 (Continue)` has come.
    ContinuedBody,
    /// Sends such a body when the final answer has come.
    AnsweredBody,
    /// Sends a hot head through a tunnel.
    Tunnel,
    /// Resets its connection and makes another one from the same port, on which it asks for what takes its time.
    SamePort,
    /// Asks for what is hot, then for what is not, before it reads, waiting for edges.
    HotThenMiss,
    /// The same the other way round.
    MissThenHot,
}

/// Each case by its word.
const WORDS: [(Case, &str); 16] = [
    (Case::SlowMiss, "slow-miss"),
    (Case::Unread, "unread"),
    (Case::HalfRead, "half-read"),
    (Case::SmallBuffer, "small-buffer"),
    (Case::InFlight, "in-flight"),
    (Case::Pieces, "pieces"),
    (Case::HeadInHead, "head-in-head"),
    (Case::Body, "body"),
    (Case::HitWithBody, "hit-with-body"),
    (Case::Chunk, "chunk"),
    (Case::ContinuedBody, "continued-body"),
    (Case::AnsweredBody, "answered-body"),
    (Case::Tunnel, "tunnel"),
    (Case::SamePort, "same-port"),
    (Case::HotThenMiss, "hot-then-miss"),
    (Case::MissThenHot, "miss-then-hot"),
];

impl Case {
    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        words::word(&WORDS, &self)
    }

    fn of(word: &str) -> Result<Self> {
        words::named(&WORDS, word)
    }
}

/// How many tries of a case are made here instead of `tries`; an error where the environment says no number.
pub fn tries_made(tries: u64) -> Result<u64> {
    let percent: u64 = match env::var("SIDESTEP_TEST_TRIES_PERCENT") {
        Ok(percent) => percent.parse().context("SIDESTEP_TEST_TRIES_PERCENT")?,
        Err(_) => 100,
    };
    Ok((tries * percent / 100).max(1))
}

/// Tries a case `tries` times on each of `threads` threads, and prints the tally: a try counts as one.
pub fn run(word: &str, addr: &str, threads: u64, tries: u64) -> Result<()> {
    let (case, addr): (_, SocketAddr) = (Case::of(word)?, addr.parse()?);
    match case {
        Case::HotThenMiss | Case::MissThenHot => pairs::run(case, addr, threads, tries),
        _ => Tally::print(threads, |thread| tried(case, addr, thread * tries..(thread + 1) * tries)),
    }
}

fn tried(case: Case, addr: SocketAddr, numbers: std::ops::Range<u64>) -> Tally {
    let mut tally = Tally { right: 0, wrong: Vec::new() };
    for number in numbers {
        if let Err(error) = cases::tried(case, addr, number) {
            tally.wrong.push(format!("try {number}: {error:#}"));
            break;
        }
        tally.right += 1;
    }
    tally
}

/// A connection on which what is hot was asked for and read.
fn warm(connection: Connection, addr: SocketAddr) -> Result<Connection> {
    let mut connection = connection;
    connection.send(&messages::hot(addr), None)?;
    is_answered(&mut connection, HOT).context("the first request")?;
    Ok(connection)
}

/// The next answer is that of a target, whole and right.
fn is_answered(connection: &mut Connection, target: &str) -> Result<()> {
    let response = connection.response("GET", PATIENCE);
    if !response.complete() {
        bail!("{target}: no answer: {response:?}");
    }
    let is_right = match target.starts_with(origin::BIG) {
        true => response.is_pattern(BIG),
        false => response.text() == content(target),
    };
    ensure!(response.status() == 200 && is_right, "{target}: another answer: {response:?}");
    Ok(())
}
