//! What holds for every well-formed message: it arrives as it was sent, however it was cut, and in its order.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::random::{Pair, Random, holds, interim, pieces, request, response};
use crate::simulated::{Message, Node, Origin, Reply, get};

/// The fields without the lines that an intermediary rewrites or adds.
fn without(fields: &[Pair], names: &[&str]) -> Vec<Pair> {
    let is_kept = |(name, _): &&Pair| !names.iter().any(|other| name.eq_ignore_ascii_case(other));
    fields.iter().filter(is_kept).cloned().collect()
}

/// An answer that tells which request it answers.
fn echo(request: &Message, pieces: &[usize]) -> Reply {
    let content = [request.start.as_bytes(), b" / ", &request.content].concat();
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n", content.len())
            .into_bytes();
    bytes.extend_from_slice(&content);
    Reply { bytes, pieces: pieces.to_vec(), closes: false }
}

#[test]
fn pipelined_requests_reach_the_origin_as_they_were_sent_and_are_answered_in_order() {
    holds(96, (vec(request(), 1..6), pieces(), pieces()), async |(requests, up, down)| {
        let origin = Origin::new().await;
        let answering = origin.answer(move |request| echo(request, &down));
        let node = Node::before(&origin);
        let mut client = node.client().await;
        let bytes: Vec<u8> = requests.iter().flat_map(Random::bytes).collect();
        let sender = client.sender();
        let sending = sender.send_in_pieces(&bytes, &up);
        let reading = async {
            let mut answers = Vec::new();
            for _ in &requests {
                answers.push(client.response("GET").await);
            }
            answers
        };

        let (_, answers) = tokio::join!(sending, reading);

        let received = answering.requests();
        assert_eq!(received.len(), requests.len());
        for ((sent, got), answer) in requests.iter().zip(&received).zip(&answers) {
            assert_eq!(got.start, sent.start);
            assert_eq!(got.fields, sent.end_to_end());
            assert!(got.content == sent.content.whole(), "{got:?}");
            assert_eq!(got.trailers, sent.content.trailers());
            assert!(answer.content == [sent.start.as_bytes(), b" / ", &sent.content.whole()].concat());
        }
        drop(sender);
        client.close().await;
        assert_eq!(node.figures().requests, requests.len() as u64);
    });
}

#[test]
fn responses_reach_the_client_as_they_were_sent_from_the_origin_and_from_the_store() {
    let cases = (response(), vec(interim(), 0..3), pieces(), any::<bool>());
    holds(192, cases, async |(sent, interim, pieces, takes_trailers)| {
        let origin = Origin::new().await;
        let closes = matches!(sent.content, crate::random::Content::UntilClose(_));
        let bytes: Vec<u8> = interim.iter().chain([&sent]).flat_map(Random::bytes).collect();
        let answering =
            origin.answer(move |_| Reply { bytes: bytes.clone(), pieces: pieces.clone(), closes });
        let node = Node::before(&origin);
        let te = if takes_trailers { "TE: trailers\r\nConnection: TE\r\n" } else { "" };
        let request = get("/a").replace("\r\n\r\n", &format!("\r\n{te}\r\n"));

        for _ in 0..3 {
            let mut client = node.client().await;
            client.send(&request).await;
            let got = client.response("GET").await;

            let added = ["date", "cache-status", "age", "connection", "transfer-encoding", "content-length"];
            assert_eq!(got.start, sent.start);
            assert_eq!(without(&got.fields, &added), without(&sent.end_to_end(), &added));
            assert!(got.content == sent.content.whole(), "{got:?}");
            if got.is_hit() {
                assert!(sent.content.trailers().is_empty() && got.trailers.is_empty());
            } else {
                let trailers = if takes_trailers { sent.content.trailers() } else { &[] };
                assert_eq!(got.trailers, trailers);
                assert_eq!(got.interim.len(), interim.len());
                for (sent, got) in interim.iter().zip(&got.interim) {
                    assert_eq!((&got.start, &got.fields), (&sent.start, &sent.end_to_end()));
                }
            }
            client.close().await;
        }

        let figures = node.figures();
        assert_eq!(
            (figures.requests, figures.requests - figures.hits),
            (3, answering.requests().len() as u64)
        );
        assert_eq!(figures.hits, figures.stored * 2, "what was stored answers the other two");
    });
}
