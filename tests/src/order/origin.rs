//! The origin of the cases: what is hot, what is never stored, and what is answered only when somebody asks for it.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::BIG as BIG_BYTES;
use crate::manners::{HOT, content};
use crate::origin::{After, Answer, Gate, Origin, Request};
use crate::wire::Reader;

/// Never stored; a number follows.
pub const MISS: &str = "/miss/";
/// Never stored, and answered when the same number was opened.
pub const SLOW: &str = "/slow/";
/// Opens a number.
pub const OPEN: &str = "/open/";
/// Never stored, and long.
pub const BIG: &str = "/big/";
/// Takes content.
pub const TAKES: &str = "/takes/";
/// Takes content, and answers before it has it.
pub const EARLY: &str = "/early/";
/// Becomes a tunnel that sends everything back.
pub const TUNNEL: &str = "/tunnel/";

/// An origin for every case but [`super::Case::AnsweredBody`].
pub fn ordinary() -> Result<Origin> {
    on(TcpListener::bind(("127.0.0.1", 0))?)
}

/// The same on a listener.
pub fn on(listener: TcpListener) -> Result<Origin> {
    let gates: Mutex<HashMap<String, Gate>> = Mutex::default();
    Origin::http_on(listener, move |request| {
        let gate = |number: &str| {
            let mut gates = gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.entry(number.to_owned()).or_default().clone()
        };
        answer(request, gate)
    })
}

fn answer(request: &Request, gate: impl Fn(&str) -> Gate) -> Answer {
    let target = request.target();
    if target == HOT {
        return Answer::ok(content(target)).max_age(600);
    }
    let answer = if target.starts_with(BIG) {
        Answer::pattern(BIG_BYTES)
    } else if target.starts_with(TUNNEL) {
        return Answer::bare("101 Switching Protocols")
            .field("Upgrade", "echo")
            .field("Connection", "upgrade")
            .then(After::Echo);
    } else {
        Answer::ok(content(target))
    };
    if let Some(number) = target.strip_prefix(OPEN) {
        gate(number).open();
    }
    let answer = answer.field("Cache-Control", "no-store");
    match target.strip_prefix(SLOW) {
        Some(number) => answer.held(&gate(number)),
        None => answer,
    }
}

/// An origin that answers what is hot, and everything else before it has read the content.
pub fn early() -> Result<Origin> {
    Origin::raw(|talk| {
        let mut out = talk.stream()?;
        let mut reader = Reader::new(talk.stream()?);
        while let Ok(head) = reader.head() {
            let (target, control) =
                (head.word(1), if head.word(1) == HOT { "max-age=600" } else { "no-store" });
            let body = content(target);
            write!(
                out,
                "HTTP/1.1 200 OK\r\nCache-Control: {control}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            if reader.body(head.request_framing(), &mut |_| {}).is_err() {
                return Ok(());
            }
        }
        Ok(())
    })
}
