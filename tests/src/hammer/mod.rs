//! Connections that are kept and used without end, each of whose answers is checked against a clock or a version.
//!
//! The probe runs them inside the cached cgroup for a time, `probe hammer KIND ADDR CONNECTIONS MILLISECONDS`, and
//! prints when answers came, and whether from the kernel. What may be when is left to the tests.

mod checks;
pub mod origin;
mod record;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use self::checks::{Asked, checked, writes};
pub use self::record::Record;
use crate::client::Connection;
use crate::load::clock;
use crate::wait;

/// How long a connection waits for an answer before that counts as one that never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two requests of a connection where a hundred of them are to leave room for others, and after a failure.
const PAUSE: Duration = Duration::from_millis(2);

/// How many wrong answers of a connection are kept.
const WRONG_MAX: usize = 3;

/// What is asked for, and how the answers are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What is hot, and always the same.
    Hot,
    /// What may be reused for [`origin::SHORT`] and says when it was made.
    Short,
    /// What may be reused for long and says when it was made: its `Age` is checked.
    Lasting,
    /// What is written again and again by a connection more: nothing of before a write may come after it, and nothing
    /// of two versions.
    Versions,
}

/// Each kind by its word, and its target.
const WORDS: [(Kind, &str, &str); 4] = [
    (Kind::Hot, "hot", crate::manners::HOT),
    (Kind::Short, "short", "/short"),
    (Kind::Lasting, "lasting", "/lasting"),
    (Kind::Versions, "versions", "/versions"),
];

impl Kind {
    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        WORDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, word, _)| word)
    }

    /// The target that it asks for.
    pub fn target(self) -> &'static str {
        WORDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., target)| target)
    }

    fn of(word: &str) -> Result<Self> {
        let found = WORDS.iter().find(|(_, known, _)| *known == word).map(|(kind, ..)| *kind);
        found.with_context(|| format!("no such kind: {word}"))
    }
}

/// Keeps `connections` connections busy for a time, and prints the record of them.
pub fn run(word: &str, addr: &str, connections: u64, time: Duration) -> Result<()> {
    let (kind, addr): (_, SocketAddr) = (Kind::of(word)?, addr.parse()?);
    let (until, newest) = (Instant::now() + time, AtomicU64::new(0));
    let record = thread::scope(|scope| {
        let writer = (kind == Kind::Versions).then(|| scope.spawn(|| writes(addr, &newest, until)));
        let workers: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| kept(kind, addr, &newest, until))).collect();
        let mut all = Record::default();
        for worker in workers {
            all.add(worker.join().map_err(|_| anyhow!("a thread panicked"))?);
        }
        if let Some(writer) = writer {
            let written = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
            all.add(written.unwrap_or_else(|error| Record::of_wrong(format!("the writer: {error:#}"))));
        }
        Ok::<Record, anyhow::Error>(all)
    })?;
    writeln!(io::stdout(), "{}", record.to_json())?;
    Ok(())
}

/// Uses one connection after the other.
fn kept(kind: Kind, addr: SocketAddr, newest: &AtomicU64, until: Instant) -> Record {
    let mut record = Record::default();
    while Instant::now() < until && record.wrong.len() < WRONG_MAX {
        match Connection::open(addr, None, PATIENCE) {
            Ok(connection) => used(kind, connection, addr, newest, until, &mut record),
            Err(error) => {
                record.ended(clock(), &format!("connect: {error}"));
                wait::pause(PAUSE);
            }
        }
    }
    record
}

/// Uses a connection until it ends, or the time does.
fn used(
    kind: Kind,
    mut connection: Connection,
    addr: SocketAddr,
    newest: &AtomicU64,
    until: Instant,
    record: &mut Record,
) {
    let request = format!("GET {} HTTP/1.1\r\nHost: {addr}\r\n\r\n", kind.target());
    while Instant::now() < until {
        let asked = Asked::now(newest);
        if let Err(error) = connection.send(request.as_bytes(), None) {
            return record.ended(clock(), &format!("send: {error}"));
        }
        let response = connection.response("GET", PATIENCE);
        let answered = clock();
        if !response.complete() {
            return record.ended(answered, response.end());
        }
        match checked(kind, &asked, answered, &response) {
            Ok(()) => record.answered(answered, &response),
            Err(error) => {
                let fields = response.head_text();
                return record.wrong.push(format!("asked at {}: {error:#}: {fields}", asked.at));
            }
        }
        if response.field("connection").is_some_and(|option| option.eq_ignore_ascii_case("close")) {
            return;
        }
        if kind == Kind::Hot {
            wait::pause(PAUSE);
        }
    }
}
