//! The bytes that the clients of the cases send, and the ways in which they send them.

use std::io::{self, IoSlice, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, send};

use super::origin::{MISS, TAKES};
use crate::manners::HOT;

/// The head that is hot.
pub(super) fn hot(addr: SocketAddr) -> Vec<u8> {
    get(HOT, addr)
}

/// A GET with nothing but Host.
pub(super) fn get(target: &str, addr: SocketAddr) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes()
}

/// The head of a POST with these further field lines.
pub(super) fn post(target: &str, addr: SocketAddr, fields: &str) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: {addr}\r\n{fields}\r\n").into_bytes()
}

/// Numbers that look random and are the same in every run (xorshift64).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Those of a try.
    pub(super) fn of(number: u64) -> Self {
        Self(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

/// Some request: its target and its bytes.
pub(super) fn some(dice: &mut Dice, addr: SocketAddr, number: u64) -> (String, Vec<u8>) {
    match dice.below(4) {
        0 => {
            let (target, body) = (format!("{TAKES}{number}"), hot(addr));
            let mut bytes = post(&target, addr, &format!("Content-Length: {}\r\n", body.len()));
            bytes.extend_from_slice(&body);
            (target, bytes)
        }
        1 => {
            let target = format!("{MISS}{number}");
            let bytes = get(&target, addr);
            (target, bytes)
        }
        _ => (HOT.to_owned(), hot(addr)),
    }
}

/// Sends bytes cut anywhere, each piece in one of the ways there are; nothing of them is kept back at the end.
pub(super) fn send_in_pieces(mut socket: &TcpStream, bytes: &[u8], dice: &mut Dice) -> io::Result<()> {
    let mut rest = bytes;
    let mut pieces = dice.below(4);
    while !rest.is_empty() {
        let at = if pieces == 0 { rest.len() } else { 1 + dice.below(rest.len()) };
        let (piece, later) = rest.split_at(at);
        match dice.below(3) {
            0 => socket.write_all(piece)?,
            1 => write_vectored(socket, piece, dice)?,
            _ if later.is_empty() => send_all(socket, piece, MsgFlags::empty())?,
            _ => send_all(socket, piece, MsgFlags::from_bits_retain(libc::MSG_MORE))?,
        }
        (rest, pieces) = (later, pieces.saturating_sub(1));
    }
    Ok(())
}

fn write_vectored(mut socket: &TcpStream, piece: &[u8], dice: &mut Dice) -> io::Result<()> {
    let mut rest = piece;
    while !rest.is_empty() {
        let (one, other) = rest.split_at(dice.below(rest.len()));
        let (two, three) = other.split_at(dice.below(other.len()));
        let written = socket.write_vectored(&[one, two, three].map(IoSlice::new))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

fn send_all(socket: &TcpStream, piece: &[u8], flags: MsgFlags) -> io::Result<()> {
    let mut rest = piece;
    while !rest.is_empty() {
        let sent = send(socket.as_raw_fd(), rest, flags)?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}
