//! Clients with manners of their own: they half-close, reset, idle, leave answers unread, or speak MPTCP.
//!
//! Their reads block, but for MPTCP. The probe runs them inside the cached cgroup, without an order between two steps: what goes wrong here goes wrong
//! within microseconds. Each prints what it counted as one line of JSON.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{SockaddrStorage, connect};
use nix::unistd::{Pid, gettid};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::wait;
use crate::wire::End;
use crate::words;

/// The target whose answer may be reused.
pub const HOT: &str = "/hot";

/// The target whose answer ends with its connection.
pub const UNTIL_CLOSE: &str = "/until-close";

/// The target whose answer takes a while, and is not stored.
pub const SLOW: &str = "/slow";

/// What a client does with each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Fifty requests, each when the answer before it was read.
    Keep,
    /// One request, half-closed before its answer is read.
    HalfCloseFirst,
    /// Two requests, half-closed before the second answer is read.
    HalfClose,
    /// Two requests, half-closed when their answers were read.
    HalfCloseAfter,
    /// Two requests; half-closed by another thread while a read waits for more.
    ///
    /// A read that is told EAGAIN first and the end only when it asks again counts as neither right nor wrong.
    HalfCloseElsewhere,
    /// Two requests that are answered, a third one, and a reset in place of reading.
    Reset,
    /// Requests for what is hot, then one whose answer ends with the connection.
    UntilClose,
    /// Requests for what is hot, then one for what takes a while, with signals that are handled during the wait.
    Interrupted,
    /// Five requests over MPTCP.
    Mptcp,
    /// A request, one whose answer lies unread until no daemon had a word for [`IDLE`], then two more.
    Idle,
}

/// Each manner by its word.
const WORDS: [(Manner, &str); 10] = [
    (Manner::Keep, "keep"),
    (Manner::HalfCloseFirst, "half-close-first"),
    (Manner::HalfClose, "half-close"),
    (Manner::HalfCloseAfter, "half-close-after"),
    (Manner::HalfCloseElsewhere, "half-close-elsewhere"),
    (Manner::Reset, "reset"),
    (Manner::UntilClose, "until-close"),
    (Manner::Interrupted, "interrupted"),
    (Manner::Mptcp, "mptcp"),
    (Manner::Idle, "idle"),
];

/// Requests on a connection that is kept.
pub const KEPT: u64 = 50;

/// Requests on an MPTCP connection.
pub const OVER_MPTCP: u64 = 5;

/// Longer than a connection may go without the daemon, which then takes the next request.
const IDLE: Duration = Duration::from_secs(6);

/// How long an answer may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many things that went wrong are kept.
const WRONG_MAX: usize = 10;

impl Manner {
    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        words::word(&WORDS, &self)
    }

    fn of(word: &str) -> Result<Self> {
        words::named(&WORDS, word)
    }
}

/// The content of a target.
pub fn content(target: &str) -> String {
    target.repeat(300)
}

/// What the connections of a client came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Answers that came whole and right.
    pub right: u64,
    /// The first things that went wrong.
    pub wrong: Vec<String>,
}

impl Tally {
    /// Reads what the probe printed.
    pub fn read(text: &str) -> Result<Self> {
        let said: Value = serde_json::from_str(text.trim()).with_context(|| text.to_owned())?;
        let wrong = said["wrong"].as_array().context("no list")?.iter().map(ToString::to_string).collect();
        Ok(Self { right: said["right"].as_u64().context("no count")?, wrong })
    }

    /// Checks that this many answers came, each right.
    pub fn all_right(&self, answers: u64) -> Result<()> {
        ensure!(self.wrong.is_empty(), "{self:?}");
        ensure!(self.right == answers, "{} right answers, {answers} expected", self.right);
        Ok(())
    }

    /// Does the work on each of `threads` threads and prints one tally of all.
    pub(crate) fn print(threads: u64, work: impl Fn(u64) -> Self + Sync) -> Result<()> {
        let tallies = thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
            let joined: thread::Result<Vec<Self>> = workers.into_iter().map(|worker| worker.join()).collect();
            joined.map_err(|_| anyhow!("a thread panicked"))
        })?;
        let right: u64 = tallies.iter().map(|tally| tally.right).sum();
        let wrong: Vec<&String> = tallies.iter().flat_map(|tally| &tally.wrong).collect();
        writeln!(io::stdout(), "{}", json!({"right": right, "wrong": wrong}))?;
        Ok(())
    }
}

/// Makes `connections` connections on each of `threads` threads, in this manner, and prints the tally.
pub fn run(word: &str, addr: &str, threads: u64, connections: u64) -> Result<()> {
    let (manner, addr): (_, SocketAddr) = (Manner::of(word)?, addr.parse()?);
    Tally::print(threads, |_| match manner {
        Manner::Idle => idle(addr, connections),
        _ => one_by_one(manner, addr, connections),
    })
}

fn one_by_one(manner: Manner, addr: SocketAddr, connections: u64) -> Tally {
    let mut tally = Tally { right: 0, wrong: Vec::new() };
    for n in 0..connections {
        match one(manner, addr) {
            Ok(right) => tally.right += right,
            Err(error) => tally.wrong.push(format!("connection {n}: {error:#}")),
        }
        if tally.wrong.len() >= WRONG_MAX {
            break;
        }
    }
    tally
}

/// Uses one connection in this manner; returns how many answers were right.
fn one(manner: Manner, addr: SocketAddr) -> Result<u64> {
    let mut connection = match manner {
        Manner::Mptcp => Connection::over(over_mptcp(addr)?)?,
        _ => Connection::blocking(addr, PATIENCE)?,
    };
    match manner {
        Manner::Keep => kept(connection, addr, KEPT),
        Manner::Mptcp => kept(connection, addr, OVER_MPTCP),
        Manner::HalfCloseFirst => {
            ask(&connection, addr, HOT)?;
            connection.finish_sending()?;
            is_right(&mut connection, HOT)?;
            is_over(&mut connection)?;
            Ok(1)
        }
        Manner::HalfClose => {
            hot(&mut connection, addr, 1)?;
            ask(&connection, addr, HOT)?;
            connection.finish_sending()?;
            is_right(&mut connection, HOT)?;
            is_over(&mut connection)?;
            Ok(2)
        }
        Manner::HalfCloseAfter => {
            hot(&mut connection, addr, 2)?;
            connection.finish_sending()?;
            is_over(&mut connection)?;
            Ok(2)
        }
        Manner::HalfCloseElsewhere => {
            hot(&mut connection, addr, 2)?;
            half_closed_elsewhere(&mut connection)
        }
        Manner::Reset => {
            hot(&mut connection, addr, 2)?;
            ask(&connection, addr, HOT)?;
            connection.reset()?;
            Ok(2)
        }
        Manner::UntilClose => {
            hot(&mut connection, addr, 3)?;
            ask(&connection, addr, UNTIL_CLOSE)?;
            is_right(&mut connection, UNTIL_CLOSE)?;
            Ok(4)
        }
        Manner::Interrupted => {
            hot(&mut connection, addr, 3)?;
            interrupted(&connection.socket()?, addr)?;
            Ok(4)
        }
        Manner::Idle => bail!("not one by one"),
    }
}

/// Asks so many times for what is hot, each time when the answer before was read.
fn hot(connection: &mut Connection, addr: SocketAddr, requests: u64) -> Result<()> {
    for _ in 0..requests {
        ask(connection, addr, HOT)?;
        is_right(connection, HOT)?;
    }
    Ok(())
}

/// Asks for what takes a while, and waits in one read without a time limit while this thread gets signals; they are
/// handled, and reads go on afterwards (SA_RESTART), so that nothing but the answer may come of it.
fn interrupted(mut socket: &TcpStream, addr: SocketAddr) -> Result<()> {
    extern "C" fn handled(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(handled), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action)? };
    socket.set_read_timeout(None)?;
    write!(socket, "GET {SLOW} HTTP/1.1\r\nHost: {addr}\r\n\r\n")?;
    let (reader, has_read) = (pthread_self(), AtomicBool::new(false));
    let read = thread::scope(|scope| {
        let end = Instant::now() + PATIENCE;
        let has_read = &has_read;
        scope.spawn(move || {
            while !has_read.load(Ordering::Relaxed) && Instant::now() < end {
                // The thread is there: it waits for this one.
                let _ = pthread_kill(reader, Signal::SIGUSR1);
                thread::sleep(Duration::from_millis(1));
            }
            if !has_read.load(Ordering::Relaxed) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        });
        let read = socket.read(&mut [0; 65536]);
        has_read.store(true, Ordering::Relaxed);
        read
    });
    ensure!(read.as_ref().is_ok_and(|count| *count > 0), "{SLOW}, with signals: {read:?}");
    Ok(())
}

/// Asks `requests` times, on a new connection where the answer before ended the old one.
fn kept(mut connection: Connection, addr: SocketAddr, requests: u64) -> Result<u64> {
    for n in 0..requests {
        ask(&connection, addr, HOT)?;
        let open = is_right(&mut connection, HOT).with_context(|| format!("request {n}"))?;
        if !open {
            connection = Connection::blocking(addr, PATIENCE)?;
        }
    }
    Ok(requests)
}

/// Asks on all connections, lets the answers lie, then reads them and goes on.
fn idle(addr: SocketAddr, connections: u64) -> Tally {
    let mut tally = Tally { right: 0, wrong: Vec::new() };
    let opened = (0..connections).map(|_| {
        let mut connection = Connection::blocking(addr, PATIENCE)?;
        hot(&mut connection, addr, 1)?;
        ask(&connection, addr, HOT)?;
        Ok::<_, anyhow::Error>(connection)
    });
    let all: Vec<_> = opened.collect();
    wait::pause(IDLE);
    for connection in all {
        let read = connection.and_then(|mut connection| {
            is_right(&mut connection, HOT).context("the answer that lay unread")?;
            kept(connection, addr, 2)
        });
        match read {
            Ok(right) => tally.right += 2 + right,
            Err(error) if tally.wrong.len() < WRONG_MAX => tally.wrong.push(format!("{error:#}")),
            Err(_) => {}
        }
    }
    tally
}

fn ask(connection: &Connection, addr: SocketAddr, target: &str) -> io::Result<()> {
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes(), None)
}

/// Reads an answer, which must be whole and right; returns whether the connection stays open.
fn is_right(connection: &mut Connection, target: &str) -> Result<bool> {
    let response = connection.response("GET", PATIENCE);
    ensure!(response.complete() && response.status() == 200, "{target}: {response:?}");
    ensure!(response.text() == content(target), "{target}: other bytes: {response:?}");
    Ok(!response.closes())
}

/// Nothing comes any more but the end.
fn is_over(connection: &mut Connection) -> Result<()> {
    let (bytes, end) = connection.rest(PATIENCE);
    ensure!(bytes.is_empty() && end == End::Eof, "{} bytes and {end} in place of the end", bytes.len());
    Ok(())
}

/// Reads while another thread closes the sending side; returns 1 where the read finds the end, 0 where it is told EAGAIN.
fn half_closed_elsewhere(connection: &mut Connection) -> Result<u64> {
    let (socket, reader) = (connection.socket()?, gettid());
    let begun = Instant::now();
    let (bytes, end) = thread::scope(|scope| {
        scope.spawn(move || {
            let _ = wait::wait_until(PATIENCE, "a read that waits", || is_asleep(reader));
            socket.shutdown(Shutdown::Write)
        });
        connection.rest(PATIENCE)
    });
    ensure!(bytes.is_empty(), "{} bytes in place of the end", bytes.len());
    match end {
        End::Eof => Ok(1),
        End::Timeout if begun.elapsed() < PATIENCE / 2 => is_over(connection).map(|()| 0),
        end => bail!("{end} in place of the end"),
    }
}

fn is_asleep(thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Connects an MPTCP socket.
fn over_mptcp(addr: SocketAddr) -> Result<TcpStream> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket(2) reads no memory of ours.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP) };
    ensure!(fd >= 0, "no MPTCP: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just made and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    connect(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(TcpStream::from(fd))
}
