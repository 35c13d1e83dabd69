//! What a client of `fixtures/hits` was asked for and what it got, in a form that two runs can be compared in.

use std::fmt;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::hex;
use crate::wire::Reader;

/// Fields that two runs may differ in: the time, and what is said between two neighbours about their connection.
///
/// An answer may end a connection, so that the client's next one is enrolled; libraries keep that to themselves.
const DIFFER: [&str; 4] = ["age", "date", "connection", "keep-alive"];

/// One answer as a client saw it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The target, with `=` and the value of If-None-Match where one was sent.
    pub target: String,
    /// The status code.
    pub status: String,
    /// The SHA-256 of the content, in hexadecimal.
    pub digest: String,
    /// `name: value` in lower-case names, sorted, without those that may differ.
    pub fields: Vec<String>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.get(..8).unwrap_or_default();
        write!(out, "{} {} {digest} {:?}", self.target, self.status, self.fields)
    }
}

impl Seen {
    fn new(target: &str, status: &str, digest: &str, fields: impl Iterator<Item = (String, String)>) -> Self {
        let kept = fields.map(|(name, value)| (name.to_ascii_lowercase(), value));
        let kept = kept.filter(|(name, _)| !DIFFER.contains(&name.as_str()));
        let mut fields: Vec<String> = kept.map(|(name, value)| line(&name, &value)).collect();
        fields.sort();
        Self { target: target.to_owned(), status: status.to_owned(), digest: digest.to_owned(), fields }
    }

    /// Whether the answer says that it is a hit.
    pub fn is_hit(&self) -> bool {
        self.fields.iter().any(|field| field == "cache-status: sidestep; hit")
    }
}

/// A field line; of a hit the bare word, since where it was given may be a detail of it.
fn line(name: &str, value: &str) -> String {
    let value = match (name, value.split_once(';')) {
        ("cache-status", Some((cache, rest))) if rest.split(';').next().map(str::trim) == Some("hit") => {
            format!("{cache}; hit")
        }
        _ => value.to_owned(),
    };
    format!("{name}: {value}")
}

/// The SHA-256 of `content`, in hexadecimal.
pub fn digest(content: &[u8]) -> String {
    hex::encode(&Sha256::digest(content))
}

/// Reads the lines of a client that obeys `fixtures/README.md`.
pub fn printed(text: &str) -> Result<Vec<Seen>> {
    let seen = |line: &str| {
        let mut words = line.split('\t');
        let mut word = || words.next().with_context(|| format!("not a line of a client: {line:?}"));
        let (target, status, digest) = (word()?, word()?, word()?);
        let fields = words.filter_map(|field| field.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Seen::new(target, status, digest, fields))
    };
    text.lines().map(seen).collect()
}

/// Reads raw answers one after the other, as `curl --raw --include` prints them.
pub fn raw(bytes: &[u8], targets: &[&str]) -> Result<Vec<Seen>> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    for target in targets {
        let head = reader.head().ok().with_context(|| format!("{} answers", all.len()))?;
        let mut body = Vec::new();
        let read = reader.body(head.response_framing("GET"), &mut |part| body.extend_from_slice(part));
        ensure!(read.is_ok(), "{target}: cut short");
        all.push(Seen::new(target, head.word(1), &digest(&body), head.fields().iter().cloned()));
    }
    ensure!(reader.rest().0.is_empty(), "more bytes than answers");
    Ok(all)
}

/// Checks that two runs saw the same answers, in whatever order.
pub fn same(one: &[Seen], other: &[Seen]) -> Result<()> {
    let sorted = |all: &[Seen]| {
        let mut all = all.to_vec();
        all.sort();
        all
    };
    let (one, other) = (sorted(one), sorted(other));
    ensure!(one.len() == other.len(), "{} answers and {}", one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        ensure!(one == other, "they differ:\n{one:?}\n{other:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_same_but_for_time_connection_and_the_place_of_a_hit() {
        let one = printed("/a\t200\tff\tAge: 1\tETag: \"x\"\tCache-Status: sidestep; hit\n").unwrap();
        let two = printed(
            "/a\t200\tff\tetag: \"x\"\tage: 2\tConnection: close\tcache-status: sidestep; hit; detail=x\n",
        )
        .unwrap();
        assert!(one[0].is_hit());
        same(&one, &two).unwrap();
    }

    #[test]
    fn another_field_status_or_digest_is_another_answer() {
        let one = printed("/a\t200\tff\tx: 1\n").unwrap();
        for other in ["/a\t200\tff\tx: 2\n", "/a\t404\tff\tx: 1\n", "/a\t200\tfe\tx: 1\n", ""] {
            assert!(same(&one, &printed(other).unwrap()).is_err(), "{other:?}");
        }
    }

    #[test]
    fn raw_answers_are_told_apart_by_their_framing() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 304 Not Modified\r\n\r\n";
        let all = raw(bytes, &["/a", "/a=x"]).unwrap();
        assert_eq!((all[0].digest.as_str(), all[1].status.as_str()), (digest(b"ab").as_str(), "304"));
        assert!(raw(bytes, &["/a"]).is_err() && raw(bytes, &["/a", "/b", "/c"]).is_err());
    }
}
