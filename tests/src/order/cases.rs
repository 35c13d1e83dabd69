//! The cases that one blocking connection is enough for.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

use super::messages::{Dice, get, hot, post, send_in_pieces, some};
use super::origin::{BIG, EARLY, MISS, OPEN, SLOW, TAKES, TUNNEL};
use super::{BIG as BIG_BYTES, Case, PATIENCE, is_answered, warm};
use crate::client::Connection;
use crate::manners::{HOT, content};
use crate::response::Response;
use crate::{port, wait};

/// Room for all of a long answer; what the kernel keeps for a byte of it may be several.
const LARGE_BUFFER: usize = 32 << 20;

/// Hardly any room.
const SMALL_BUFFER: usize = 8 << 10;

/// Requests that are sent in pieces before anything is read.
const PIPELINED_MAX: usize = 4;

/// Tries a case once.
pub(super) fn tried(case: Case, addr: SocketAddr, number: u64) -> Result<()> {
    match case {
        Case::SlowMiss => slow_miss(opened(addr)?, addr, number),
        Case::Unread => unread(addr, number),
        Case::HalfRead => half_read(addr, number),
        Case::SmallBuffer => long(addr, number, SMALL_BUFFER, |connection| Ok(connection.hold(1, PATIENCE)?)),
        // Room enough that nothing but the link holds the answer back.
        Case::InFlight => long(addr, number, LARGE_BUFFER, |connection| {
            connection.hold(1, PATIENCE)?;
            Ok(connection.hold_all()?)
        }),
        Case::Pieces => pieces(addr, number),
        Case::HeadInHead => head_in_head(addr, number),
        Case::Body => body(addr, number),
        Case::HitWithBody => hit_with_body(addr),
        Case::Chunk => chunk(addr, number),
        Case::ContinuedBody => continued_body(addr, number),
        Case::AnsweredBody => answered_body(addr, number),
        Case::Tunnel => tunnel(addr, number),
        Case::SamePort => same_port(addr, number),
        Case::HotThenMiss | Case::MissThenHot => bail!("not of one blocking connection"),
    }
}

fn opened(addr: SocketAddr) -> Result<Connection> {
    warm(Connection::open(addr, None, PATIENCE)?, addr)
}

/// A connection with this much room to receive.
fn with_room(addr: SocketAddr, bytes: usize) -> Result<Connection> {
    let fd = unconnected(addr)?;
    // Beyond what an ordinary user may ask for.
    socket::setsockopt(&fd, sockopt::RcvBufForce, &bytes)?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    warm(Connection::over(TcpStream::from(fd))?, addr)
}

fn unconnected(addr: SocketAddr) -> Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// One request on a connection of its own: while it goes to the origin and back, the daemon comes to rest.
fn elsewhere(addr: SocketAddr, target: &str) -> Result<()> {
    let mut connection = Connection::open(addr, None, PATIENCE)?;
    connection.send(&get(target, addr), None)?;
    is_answered(&mut connection, target).context("on another connection")
}

fn slow_miss(mut connection: Connection, addr: SocketAddr, number: u64) -> Result<()> {
    let target = format!("{SLOW}{number}");
    connection.send(&get(&target, addr), None)?;
    connection.send(&hot(addr), None)?;
    elsewhere(addr, &format!("{OPEN}{number}"))?;
    is_answered(&mut connection, &target)?;
    is_answered(&mut connection, HOT)
}

fn unread(addr: SocketAddr, number: u64) -> Result<()> {
    let mut connection = opened(addr)?;
    let target = format!("{MISS}{number}");
    connection.send(&get(&target, addr), None)?;
    arrived(&connection, content(&target).len())?;
    elsewhere(addr, &format!("{OPEN}{number}"))?;
    connection.send(&hot(addr), None)?;
    is_answered(&mut connection, &target)?;
    is_answered(&mut connection, HOT)
}

/// Waits until more than this much lies unread.
fn arrived(connection: &Connection, bytes: usize) -> Result<()> {
    let has_come = || connection.unread(bytes + 1).is_ok_and(|unread| unread > bytes);
    wait::wait_until(PATIENCE, "an answer that lies unread", has_come)
}

fn half_read(addr: SocketAddr, number: u64) -> Result<()> {
    long(addr, number, LARGE_BUFFER, |connection| {
        arrived(connection, usize::try_from(BIG_BYTES)?)?;
        elsewhere(addr, &format!("{OPEN}{number}"))?;
        Ok(connection.hold(usize::try_from(BIG_BYTES / 2)?, PATIENCE)?)
    })
}

/// Asks for what is hot at some point of a long answer.
fn long(
    addr: SocketAddr,
    number: u64,
    room: usize,
    point: impl Fn(&mut Connection) -> Result<()>,
) -> Result<()> {
    let mut connection = with_room(addr, room)?;
    let target = format!("{BIG}{number}");
    connection.send(&get(&target, addr), None)?;
    point(&mut connection).context("in a long answer")?;
    connection.send(&hot(addr), None)?;
    is_answered(&mut connection, &target)?;
    is_answered(&mut connection, HOT)
}

fn pieces(addr: SocketAddr, number: u64) -> Result<()> {
    let (mut dice, mut connection) = (Dice::of(number), opened(addr)?);
    for round in 0..3 {
        let count = 1 + dice.below(PIPELINED_MAX);
        let requests: Vec<_> = (0..count).map(|_| some(&mut dice, addr, number)).collect();
        for (_, bytes) in &requests {
            send_in_pieces(&connection.socket()?, bytes, &mut dice)?;
        }
        for (target, _) in &requests {
            is_answered(&mut connection, target).with_context(|| format!("round {round} of {requests:?}"))?;
        }
    }
    Ok(())
}

fn head_in_head(addr: SocketAddr, number: u64) -> Result<()> {
    let mut connection = opened(addr)?;
    let target = format!("{MISS}{number}");
    connection.send(format!("GET {target} HTTP/1.1\r\nX-Hot: ").as_bytes(), None)?;
    connection.send(&hot(addr), None)?;
    is_answered(&mut connection, &target)?;
    is_still_right(connection, addr)
}

fn body(addr: SocketAddr, number: u64) -> Result<()> {
    let (mut connection, body) = (opened(addr)?, hot(addr));
    let target = format!("{TAKES}{number}");
    connection.send(&post(&target, addr, &format!("Content-Length: {}\r\n", body.len())), None)?;
    connection.send(&body, None)?;
    is_answered(&mut connection, &target)?;
    is_still_right(connection, addr)
}

/// A hit that needs no content to be given, and gets some.
fn hit_with_body(addr: SocketAddr) -> Result<()> {
    let (mut connection, body) = (opened(addr)?, hot(addr));
    let length = body.len();
    let head = format!("GET {HOT} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: {length}\r\n\r\n");
    connection.send(head.as_bytes(), None)?;
    elsewhere(addr, HOT)?;
    if connection.send(&body, None).is_err() || connection.finish_sending().is_err() {
        return Ok(());
    }
    is_answered(&mut connection, HOT)?;
    is_over(connection)
}

/// Nothing more is answered: where the daemon closes at once, even the end may be lost.
fn is_over(mut connection: Connection) -> Result<()> {
    let (rest, end) = connection.rest(PATIENCE);
    ensure!(rest.is_empty(), "the body was answered with {} bytes, and {end}", rest.len());
    Ok(())
}

fn chunk(addr: SocketAddr, number: u64) -> Result<()> {
    let (mut connection, body) = (opened(addr)?, hot(addr));
    let target = format!("{TAKES}{number}");
    connection.send(&post(&target, addr, "Transfer-Encoding: chunked\r\n"), None)?;
    connection.send(format!("{:x}\r\n", body.len()).as_bytes(), None)?;
    connection.send(&body, None)?;
    connection.send(b"\r\n0\r\n\r\n", None)?;
    is_answered(&mut connection, &target)?;
    is_still_right(connection, addr)
}

fn continued_body(addr: SocketAddr, number: u64) -> Result<()> {
    let (mut connection, body) = (opened(addr)?, hot(addr));
    let target = format!("{TAKES}{number}");
    let fields = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
    connection.send(&post(&target, addr, &fields), None)?;
    connection.hold(b"HTTP/1.1 100 Continue\r\n\r\n".len(), PATIENCE)?;
    connection.send(&body, None)?;
    is_answered(&mut connection, &target)?;
    is_still_right(connection, addr)
}

/// The body is no request, whatever becomes of the connection.
fn answered_body(addr: SocketAddr, number: u64) -> Result<()> {
    let (mut connection, body) = (opened(addr)?, hot(addr));
    let target = format!("{EARLY}{number}");
    connection.send(&post(&target, addr, &format!("Content-Length: {}\r\n", body.len())), None)?;
    is_answered(&mut connection, &target)?;
    elsewhere(addr, HOT)?;
    if connection.send(&body, None).is_err() || connection.finish_sending().is_err() {
        return Ok(());
    }
    is_over(connection)
}

fn tunnel(addr: SocketAddr, number: u64) -> Result<()> {
    let (mut connection, said) = (opened(addr)?, hot(addr));
    let fields = "Connection: upgrade\r\nUpgrade: echo\r\n";
    let request = format!("GET {TUNNEL}{number} HTTP/1.1\r\nHost: {addr}\r\n{fields}\r\n");
    connection.send(request.as_bytes(), None)?;
    // A head ends with its empty line; what follows is the tunnel's.
    let answer = connection.head(PATIENCE)?;
    ensure!(answer.word(1) == "101", "{answer:?}");
    elsewhere(addr, HOT)?;
    connection.send(&said, None)?;
    let back = connection.exact(said.len(), PATIENCE)?;
    ensure!(back == said, "not what was said: {:?}", back.escape_ascii().to_string());
    Ok(())
}

/// A connection from a port of 127.0.0.1 that the kernel gives to nobody else.
fn from_port(addr: SocketAddr, port: u16) -> Result<Connection> {
    let fd = unconnected(addr)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    let name = SocketAddr::from(([127, 0, 0, 1], port));
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(name)).with_context(|| name.to_string())?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(Connection::over(TcpStream::from(fd))?)
}

/// A connection from a port on which this was asked for, and what came.
fn asked_from(port: u16, target: &str, addr: SocketAddr) -> Result<(Connection, Response)> {
    let mut connection = from_port(addr, port)?;
    connection.send(&get(target, addr), None)?;
    let response = connection.response("GET", PATIENCE);
    Ok((connection, response))
}

/// An earlier connection of the same two addresses, of which something was answered and something was not, or which was
/// not even accepted, tells nothing about the later one.
fn same_port(addr: SocketAddr, number: u64) -> Result<()> {
    let port = port::unused()?;
    let mut first = from_port(addr, port)?;
    let target = format!("{MISS}{number}");
    first.send(&get(&target, addr), None)?;
    let was_accepted = number.is_multiple_of(2);
    if was_accepted {
        is_answered(&mut first, &target)?;
        first = warm(first, addr)?;
    }
    first.reset()?;

    let second = asked_from(port, &target, addr);
    if !was_accepted && !second.as_ref().is_ok_and(|(_, response)| response.complete()) {
        // The daemon took the one for the other, and closed it, perhaps before anything was asked.
        return Ok(());
    }
    let (second, response) = second?;
    ensure!(response.complete() && response.text() == content(&target), "{target}: {response:?}");
    slow_miss(warm(second, addr)?, addr, number)
}

/// The connection goes on as if nothing had been.
fn is_still_right(mut connection: Connection, addr: SocketAddr) -> Result<()> {
    connection.send(&hot(addr), None)?;
    is_answered(&mut connection, HOT).context("afterwards")
}
