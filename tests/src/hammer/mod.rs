//! Connections that are kept and used without end, each of whose answers is checked against a clock or a version.
//!
//! The probe runs them inside the cached cgroup for a time, `probe hammer KIND ADDR CONNECTIONS MILLISECONDS`, and
//! prints when answers came, and whether from the kernel. What may be when is left to the tests.

mod checks;
pub mod origin;
mod record;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use self::checks::{Known, writes};
pub use self::record::Record;
use crate::client::Connection;
use crate::load::clock;
use crate::wait;
use crate::words;

/// How long a connection waits for an answer before that counts as one that never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two requests of a connection where a hundred of them are to leave room for others, and after a failure.
const PAUSE: Duration = Duration::from_millis(2);

/// How far connections are apart in what they ask for in turn.
const APART: u64 = 37;

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
    /// What the origin makes anew each time it is asked, and may be reused for [`origin::SHORT`]: a hit must be what was
    /// fetched for this client.
    Own,
    /// So many things in turn, each of which is its own.
    Many(u64),
    /// What is written again and again by a connection more: nothing of before a write may come after it, and nothing
    /// of two versions.
    Versions,
}

/// Each kind by its word, which is its target too; that of `Many` goes on with a number.
const WORDS: [(Kind, &str); 5] = [
    (Kind::Hot, "hot"),
    (Kind::Short, "short"),
    (Kind::Lasting, "lasting"),
    (Kind::Own, "own"),
    (Kind::Versions, "versions"),
];

/// The word of [`Kind::Many`].
const MANY: &str = "many/";

impl Kind {
    /// Its word on the command line.
    pub fn word(self) -> String {
        match self {
            Self::Many(count) => format!("{MANY}{count}"),
            _ => words::word(&WORDS, &self).to_owned(),
        }
    }

    /// The target that it asks for in its n-th request.
    pub fn target(self, turn: u64) -> String {
        match self {
            Self::Many(count) => format!("/{MANY}{}", turn % count.max(1)),
            _ => format!("/{}", self.word()),
        }
    }

    fn of(word: &str) -> Result<Self> {
        if let Some(count) = word.strip_prefix(MANY) {
            return Ok(Self::Many(count.parse()?));
        }
        words::named(&WORDS, word)
    }
}

/// Keeps `connections` connections busy for a time, and prints the record of them.
pub fn run(word: &str, addr: &str, connections: u64, time: Duration) -> Result<()> {
    let (kind, addr): (_, SocketAddr) = (Kind::of(word)?, addr.parse()?);
    let (until, known) = (Instant::now() + time, Known::default());
    let mut record = thread::scope(|scope| {
        let writer = (kind == Kind::Versions).then(|| scope.spawn(|| writes(addr, &known, until)));
        let workers: Vec<_> = (0..connections)
            .map(|n| {
                scope.spawn({
                    let known = &known;
                    move || kept(kind, addr, known, n, until)
                })
            })
            .collect();
        let mut all = Record::default();
        for worker in workers {
            all.add(worker.join().map_err(|_| anyhow!("a thread panicked"))?);
        }
        if let Some(writer) = writer {
            all.add(writer.join().map_err(|_| anyhow!("the writer panicked"))?);
        }
        Ok::<Record, anyhow::Error>(all)
    })?;
    record.wrong.extend(known.alien());
    writeln!(io::stdout(), "{}", record.to_json())?;
    Ok(())
}

/// Uses one connection after the other.
fn kept(kind: Kind, addr: SocketAddr, known: &Known, number: u64, until: Instant) -> Record {
    let (mut record, mut turn) = (Record::default(), number * APART);
    while Instant::now() < until && record.wrong.len() < WRONG_MAX {
        match Connection::open(addr, None, PATIENCE) {
            Ok(connection) => used(kind, connection, addr, known, &mut turn, until, &mut record),
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
    known: &Known,
    turn: &mut u64,
    until: Instant,
    record: &mut Record,
) {
    while Instant::now() < until {
        let target = kind.target(*turn);
        *turn += 1;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
        let asked = known.asked(target);
        if let Err(error) = connection.send(request.as_bytes(), None) {
            return record.ended(clock(), &format!("send: {error}"));
        }
        let response = connection.response("GET", PATIENCE);
        let answered = clock();
        if !response.complete() {
            return record.ended(answered, response.end());
        }
        match known.checked(kind, &asked, answered, &response) {
            Ok(()) => record.answered(answered, &response),
            Err(error) => {
                let fields = response.head_text();
                return record.wrong.push(format!("asked at {}: {error:#}: {fields}", asked.at));
            }
        }
        if response.closes() {
            return;
        }
        if kind == Kind::Hot {
            wait::pause(PAUSE);
        }
    }
}
