//! What holds for every sequence of bytes: the path does not panic, says nothing of its own but 400, and neither this
//! connection nor the next one gets anything that belongs to another.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::random::{Random, holds, pieces, request};
use crate::simulated::wire::latin1;
use crate::simulated::{Message, Node, Origin, Reply};

/// A change that makes something else of a request.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(Index, u8),
    Insert(Index, &'static [u8]),
    Remove(Index, usize),
    Repeat(Index, usize),
    Truncate(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let words = select(vec![
        &b"\r\n"[..],
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b":",
        b"\r\n\r\n",
        b"\r\n ",
        b"Content-Length: 5\r\n",
        b"Content-Length: 05\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Host: other.test\r\n",
        b"Connection: close, transfer-encoding\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"Expect: 100-continue\r\n",
        b"HTTP/1.0",
        b"http://other.test",
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ]);
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        4 => (any::<Index>(), words).prop_map(|(at, word)| Mutation::Insert(at, word)),
        2 => (any::<Index>(), 1..20_usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => (any::<Index>(), 1..100_usize).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // Most of what matters is in the head, and most of the bytes are not.
        let place = |at: &Index| at.index(bytes.len().min(400) + 1);
        match self {
            Self::Replace(at, byte) => {
                if let Some(old) = bytes.get_mut(at.index(400)) {
                    *old = *byte;
                }
            }
            Self::Insert(at, word) => {
                // At the beginning of a line, where there is one near: words are lines, for the most part.
                let at = place(at);
                let line = bytes[at..].windows(2).position(|pair| pair == b"\r\n").map(|end| at + end + 2);
                let at = if word.len() > 4 { line.unwrap_or(at) } else { at };
                bytes.splice(at..at, word.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Repeat(at, count) => {
                let at = place(at);
                let part = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            Self::Truncate(at) => bytes.truncate(place(at)),
        }
    }
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (vec(request(), 1..3), vec(mutation(), 1..4)).prop_map(|(requests, mutations)| {
        let mut bytes: Vec<u8> = requests.iter().flat_map(Random::bytes).collect();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    })
}

/// The origin's answer: it may be stored, and tells whom it is for.
fn reply(request: &Message) -> Reply {
    let target = request.target();
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-From: origin\r\n";
    let bytes = format!("{head}Content-Length: {}\r\n\r\n{target}", target.len());
    Reply { bytes: bytes.into_bytes(), ..Reply::default() }
}

/// Asserts that these bytes are answers of the origin, and refusals of ours.
fn only_answers_and_refusals(received: &[u8]) {
    let text = latin1(received);
    for answer in text.split("HTTP/1.1 ").skip(1) {
        let is_refusal = answer.starts_with("400 ") && answer.contains("\r\nCache-Status: sidestep; detail=");
        assert!(is_refusal || answer.contains("X-From: origin\r\n"), "{text}");
    }
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
    assert!(!text.contains("/next"), "an answer of the next client");
}

async fn does_no_harm(bytes: Vec<u8>, pieces: Vec<usize>) {
    let origin = Origin::new().await;
    let answering = origin.answer(reply);
    let node = Node::before(&origin);
    let mut client = node.client().await;
    let sender = client.sender();
    let sending = async {
        sender.send_in_pieces(&bytes, &pieces).await;
        sender.finish();
    };

    let (_, (received, _)) = tokio::join!(sending, client.rest());

    only_answers_and_refusals(&received);
    drop(sender);
    client.close().await;
    for n in 0..2 {
        let target = format!("/next/{n}");
        let mut next = node.client().await;
        assert_eq!(next.get(&target).await.text(), target);
        next.close().await;
        let seen: Vec<_> =
            answering.requests().into_iter().filter(|request| request.target() == target).collect();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].fields, [("Host".to_owned(), "origin.test".to_owned())]);
        assert!(seen[0].start == format!("GET {target} HTTP/1.1") && seen[0].content.is_empty());
    }
}

#[test]
fn mutations_of_valid_requests_do_no_harm() {
    holds(384, (mutated(), pieces()), async |(bytes, pieces)| does_no_harm(bytes, pieces).await);
}

#[test]
fn random_bytes_do_no_harm() {
    holds(96, (vec(any::<u8>(), 0..300), pieces()), async |(bytes, pieces)| {
        does_no_harm(bytes, pieces).await
    });
}
