//! QUERY (RFC 10008) through the path: a request whose content is part of the key.

use std::time::Duration;

use sidestep::config::Limits;

use crate::simulated::{
    Client, End, Message, Node, Origin, StillClock, Wire, fresh, get, ok, post, settled, within,
};

const JSON: &str = "Content-Type: application/json\r\n";

/// A QUERY with content of a known length; `fields` are whole lines.
fn query(target: &str, fields: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "QUERY {target} HTTP/1.1\r\nHost: origin.test\r\n{fields}Content-Length: {length}\r\n\r\n{content}"
    )
}

/// The same in chunks.
fn chunked(target: &str, fields: &str, chunks: &[&str]) -> String {
    let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    let framing = "Transfer-Encoding: chunked\r\n";
    format!("QUERY {target} HTTP/1.1\r\nHost: origin.test\r\n{fields}{framing}\r\n{chunks}0\r\n\r\n")
}

/// Sends a request and lets the origin's connection answer it; what the origin saw, and what the client did.
async fn forwarded(
    client: &mut Client,
    server: &mut Wire,
    request: &str,
    answer: &str,
) -> (Message, Message) {
    client.send(request).await;
    let asked = server.request().await;
    server.send(answer).await;
    (asked, client.response("QUERY").await)
}

/// A node whose store holds the answer to a QUERY for `{}` at `/q`.
async fn stored(node: Node, origin: &Origin, fields: &str) -> (Node, Client, Wire) {
    let mut client = node.client().await;
    client.send(query("/q", JSON, "{}")).await;
    let mut server = origin.connection().await;
    let asked = server.request().await;
    assert_eq!((asked.method(), asked.text().as_str()), ("QUERY", "{}"));
    assert_eq!(
        (asked.field("content-type"), asked.field("content-length")),
        (Some("application/json"), Some("2"))
    );
    server.send(ok(fields, "stored")).await;
    assert_eq!(client.response("QUERY").await.cache_status(), "fwd=uri-miss; stored");
    (node, client, server)
}

const FRESH: &str = "Cache-Control: max-age=60\r\nLocation: /equivalent\r\nContent-Location: /result\r\n";

#[tokio::test]
async fn the_same_query_is_answered_from_the_store_however_it_is_framed_rfc10008_2_7() {
    let origin = Origin::new().await;
    let (node, mut client, _server) = stored(Node::before(&origin), &origin, FRESH).await;
    for request in [query("/q", JSON, "{}"), chunked("/q", JSON, &["{}"]), chunked("/q", JSON, &["{", "}"])] {
        client.send(request).await;
        let answer = client.response("QUERY").await;
        assert!(answer.is_hit() && answer.text() == "stored", "{answer:?}");
    }
    assert_eq!(node.figures().hits, 3);
}

#[tokio::test]
async fn what_differs_in_content_metadata_target_or_method_is_another_request_rfc10008_2_7() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    for request in [
        query("/q", JSON, "{ }"),
        query("/q", JSON, ""),
        query("/q", "", "{}"),
        query("/q", "Content-Type: application/sql\r\n", "{}"),
        query("/q", &format!("{JSON}Content-Encoding: gzip\r\n"), "{}"),
        query("/q", &format!("{JSON}Content-Language: de\r\n"), "{}"),
        query("/q?a", JSON, "{}"),
        chunked("/q", JSON, &["{}", "}"]),
    ] {
        let (_, answer) = forwarded(&mut client, &mut server, &request, &ok("", "other")).await;
        assert_eq!(answer.text(), "other", "{request}");
    }
    for target in ["/q", "/equivalent", "/result"] {
        let answer = client.get_from(target, &mut server, &fresh("a GET's")).await;
        assert_eq!((answer.text().as_str(), answer.cache_status()), ("a GET's", "fwd=uri-miss; stored"));
    }
    client.send(query("/q", JSON, "{}")).await;
    assert_eq!(client.response("QUERY").await.text(), "stored", "nor does it get what a GET stored");
}

#[tokio::test]
async fn content_that_is_too_large_passes_through_unharmed() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    let (fitting, large) = ("x".repeat(64 << 10), "x".repeat((64 << 10) + 1));
    let chunks: Vec<&str> = vec![&large[..40_000]; 4];
    for (request, expected, status) in [
        (query("/q", JSON, &fitting), fitting.clone(), "fwd=uri-miss; stored"),
        (query("/q", JSON, &large), large.clone(), "fwd=bypass; detail=content-too-large"),
        (chunked("/q", JSON, &chunks), chunks.concat(), "fwd=bypass; detail=content-too-large"),
    ] {
        let (asked, answer) = forwarded(&mut client, &mut server, &request, &fresh("answer")).await;
        assert!(asked.text() == expected, "{} bytes", asked.content.len());
        assert_eq!((answer.text().as_str(), answer.cache_status()), ("answer", status));
    }
}

/// Sends the beginning of a QUERY, lets the time for its content pass, and sends the rest.
async fn slow(framing: &str, start: &str, rest: &str) {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(format!("QUERY /q HTTP/1.1\r\nHost: origin.test\r\n{framing}\r\n\r\n{start}")).await;
    let clock = StillClock::begin();
    clock.pass(Duration::from_millis(900)).await;
    assert_eq!(node.figures().upstream_connections, 0);
    clock.pass(Duration::from_millis(200)).await;
    drop(clock);
    let mut server = origin.connection().await;
    assert_eq!(server.head_only().await.method(), "QUERY");
    assert_eq!(server.bytes(start.len()).await, start.as_bytes(), "what came is not held back");
    client.send(rest).await;
    assert_eq!(server.bytes(rest.len()).await, rest.as_bytes());
    server.send(fresh("answer")).await;
    assert_eq!(client.response("QUERY").await.cache_status(), "fwd=bypass; detail=content-late");
}

#[tokio::test]
async fn slow_content_goes_forward_as_it_comes() {
    slow("Content-Length: 10", "first", "rest.").await;
}

#[tokio::test]
async fn slow_chunks_go_forward_as_they_come() {
    slow("Transfer-Encoding: chunked", "5\r\nfirst\r\n", "4\r\nrest\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn content_within_its_time_is_looked_up_by_though_it_came_in_pieces() {
    let origin = Origin::new().await;
    let limits = Limits { query_content_timeout: Duration::from_secs(20), ..Limits::default() };
    let (_node, mut client, _server) = stored(Node::with(&origin, limits), &origin, FRESH).await;
    let request = query("/q", JSON, "{}");
    client.send_in_pieces(request.as_bytes(), &[1]).await;
    assert!(client.response("QUERY").await.is_hit());
}

#[tokio::test]
async fn requests_after_a_query_are_answered_in_order() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    let pipelined =
        [query("/q", JSON, "{}"), chunked("/q", JSON, &["[", "]"]), get("/a"), query("/q", JSON, "{}")];
    client.send(pipelined.concat()).await;
    assert!(client.response("QUERY").await.is_hit());
    assert_eq!(server.request().await.text(), "[]");
    server.send(fresh("list")).await;
    assert_eq!(client.response("QUERY").await.text(), "list");
    assert_eq!(server.request().await.target(), "/a");
    server.send(fresh("page")).await;
    assert_eq!(client.response("GET").await.text(), "page");
    assert!(client.response("QUERY").await.is_hit());
}

#[tokio::test]
async fn a_write_to_its_target_invalidates_it_rfc9111_4_4() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    let (_, answer) = forwarded(&mut client, &mut server, &query("/q", JSON, "[]"), &ok("", "x")).await;
    assert_eq!(answer.status(), 200);
    client.send(query("/q", JSON, "{}")).await;
    assert!(client.response("QUERY").await.is_hit(), "another QUERY is safe");
    client.send(post("/q", "x")).await;
    server.request().await;
    server.send(ok("", "")).await;
    client.response("POST").await;
    let (_, answer) = forwarded(&mut client, &mut server, &query("/q", JSON, "{}"), &fresh("new")).await;
    assert_eq!(answer.text(), "new");
}

#[tokio::test]
async fn a_stale_answer_is_validated_with_its_etag_and_the_content() {
    let stale = "Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:00:00 GMT\r\n";
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, stale).await;
    let confirmed = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n";
    let (asked, answer) = forwarded(&mut client, &mut server, &query("/q", JSON, "{}"), confirmed).await;
    assert_eq!((asked.field("if-none-match"), asked.field("if-modified-since")), (Some("\"a\""), None));
    assert_eq!((asked.text().as_str(), asked.field("content-length")), ("{}", Some("2")));
    assert_eq!((answer.text().as_str(), answer.cache_status()), ("stored", "fwd=stale; fwd-status=304"));
    client.send(query("/q", JSON, "{}")).await;
    assert!(client.response("QUERY").await.is_hit());
}

#[tokio::test]
async fn a_stale_answer_is_given_while_the_query_is_sent_again_behind_it_rfc5861_3() {
    let stale = "Cache-Control: max-age=60, stale-while-revalidate=60\r\nAge: 65\r\nETag: \"a\"\r\n";
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, stale).await;
    client.send(chunked("/q", JSON, &["{", "}"])).await;
    assert_eq!(client.response("QUERY").await.cache_status(), "hit; ttl=-5; detail=stale-while-revalidate");
    let asked = server.request().await;
    assert_eq!((asked.text().as_str(), asked.field("if-none-match")), ("{}", Some("\"a\"")));
    server.send(fresh("new")).await;
    within("the new answer", async {
        loop {
            client.send(query("/q", JSON, "{}")).await;
            if client.response("QUERY").await.text() == "new" {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_others_finish_when_the_client_that_asked_first_dies() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut leader, mut other) = (node.client().await, node.client().await);
    leader.send(query("/q", JSON, "{}")).await;
    let mut server = origin.connection().await;
    assert_eq!(server.request().await.text(), "{}");
    other.send(query("/q", JSON, "{}")).await;
    settled().await;
    leader.die().await;
    server.send(fresh("object")).await;
    assert_eq!(other.response("QUERY").await.text(), "object");
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn an_origin_that_knows_no_conditions_of_a_query_is_asked_without_rfc9110_13_1_2() {
    let stale = "Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"a\"\r\n";
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, stale).await;
    client.send(query("/q", JSON, "{}")).await;
    assert_eq!(server.request().await.field("if-none-match"), Some("\"a\""));
    server.send("HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n").await;
    let asked = server.request().await;
    assert_eq!((asked.field("if-none-match"), asked.text().as_str()), (None, "{}"));
    server.send(fresh("new")).await;
    let answer = client.response("QUERY").await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "new"));
}

#[tokio::test]
async fn a_query_with_conditions_ranges_or_expectations_is_passed_on() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    for (field, detail) in [
        ("If-None-Match: \"a\"\r\n", "conditional"),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT\r\n", "conditional"),
        ("Range: bytes=0-1\r\n", "range"),
        ("Expect: 100-continue\r\n", "expect"),
    ] {
        let request = query("/q", &format!("{JSON}{field}"), "{}");
        let (asked, answer) = forwarded(&mut client, &mut server, &request, &fresh("origin's")).await;
        assert_eq!(asked.text(), "{}");
        assert_eq!(answer.cache_status(), format!("fwd=bypass; detail={detail}"));
    }
}

#[tokio::test]
async fn trailers_are_passed_on() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    let request = chunked("/q", JSON, &["{}"]).replace("0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n");
    let (asked, answer) = forwarded(&mut client, &mut server, &request, &fresh("origin's")).await;
    assert_eq!(asked.text(), "{}");
    assert_eq!(asked.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    assert_eq!(answer.cache_status(), "fwd=bypass; detail=trailers");
}

#[tokio::test]
async fn content_that_cannot_be_framed_is_refused_and_one_cut_short_is_cut_short_rfc9112_7_1() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("QUERY /q HTTP/1.1\r\nHost: origin.test\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n").await;
    assert_eq!(client.response("QUERY").await.status(), 400);
    let mut client = node.client().await;
    client.send("QUERY /q HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 10\r\n\r\nshort").await;
    client.finish();
    let mut server = origin.connection().await;
    let asked = server.any_request().await;
    assert_eq!((asked.text().as_str(), asked.cut), ("short", Some(End::Closed)));
    let mut client = node.client().await;
    client.send("QUERY /q HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 10\r\n\r\nshort").await;
    settled().await;
    client.die().await;
}

#[tokio::test]
async fn queries_for_the_same_share_a_forward_request() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut clients = Vec::new();
    for content in ["{}", "{}", "[]"] {
        let mut client = node.client().await;
        client.send(query("/q", JSON, content)).await;
        settled().await;
        clients.push(client);
    }
    let (mut first, mut second) = (origin.connection().await, origin.connection().await);
    assert_eq!(
        (first.request().await.text(), second.request().await.text()),
        ("{}".to_owned(), "[]".to_owned())
    );
    first.send(fresh("object")).await;
    second.send(fresh("list")).await;
    for (client, text) in clients.iter_mut().zip(["object", "object", "list"]) {
        assert_eq!(client.response("QUERY").await.text(), text);
    }
    assert_eq!(node.figures().collapsed, 1);
}

#[tokio::test]
async fn a_query_is_sent_again_where_the_idle_connection_was_closed_rfc10008_2() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    client.send(chunked("/q", JSON, &["[", "]"])).await;
    assert_eq!(server.request().await.text(), "[]");
    drop(server);
    let mut server = origin.connection().await;
    let asked = server.request().await;
    assert_eq!((asked.text().as_str(), asked.field("content-type")), ("[]", Some("application/json")));
    server.send(fresh("list")).await;
    assert_eq!(client.response("QUERY").await.text(), "list");
    assert_eq!(node.figures().upstream_retries, 1);
}

#[tokio::test]
async fn contents_together_have_a_bound() {
    let origin = Origin::new().await;
    let limits = Limits { query_content_bytes_max: 100, query_contents_bytes_max: 150, ..Limits::default() };
    let node = Node::with(&origin, limits);
    let (mut client, mut other) = (node.client().await, node.client().await);
    let content = "x".repeat(100);
    client.send(query("/a", JSON, &content)).await;
    let mut first = origin.connection().await;
    first.request().await;
    other.send(query("/b", JSON, &content)).await;
    let mut second = origin.connection().await;
    assert_eq!(second.request().await.text(), content);
    second.send(fresh("b")).await;
    assert_eq!(other.response("QUERY").await.cache_status(), "fwd=bypass; detail=content-room");
    assert_eq!(node.figures().query_contents_refused, 1);
    first.send(fresh("a")).await;
    assert_eq!(client.response("QUERY").await.cache_status(), "fwd=uri-miss; stored");
    let (_, answer) = forwarded(&mut other, &mut second, &query("/b", JSON, &content), &fresh("b")).await;
    assert_eq!(answer.cache_status(), "fwd=uri-miss; stored", "the room is free again");
}

#[tokio::test]
async fn what_follows_a_query_that_is_too_large_is_answered_though_the_client_has_ended() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(Node::before(&origin), &origin, FRESH).await;
    let large = "x".repeat((64 << 10) + 100);
    let chunks: Vec<&str> = vec![&large[..40_000]; 4];
    client.send([chunked("/q", JSON, &chunks), get("/after"), query("/q", JSON, "[]")].concat()).await;
    client.finish();
    assert_eq!(server.request().await.content.len(), 160_000);
    server.send(fresh("one")).await;
    assert_eq!(client.response("QUERY").await.text(), "one");
    assert_eq!(server.request().await.target(), "/after");
    server.send(fresh("two")).await;
    assert_eq!(client.response("GET").await.text(), "two");
    assert_eq!(server.request().await.text(), "[]");
    server.send(fresh("three")).await;
    assert_eq!(client.response("QUERY").await.text(), "three");
    let figures = node.figures();
    assert_eq!((figures.requests, figures.misses, figures.uncacheable), (4, 3, 1));
}

#[tokio::test]
async fn a_client_that_ended_after_its_query_gets_the_answer_to_the_second_try() {
    let stale = "Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"a\"\r\n";
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, stale).await;
    client.send(query("/q", JSON, "{}")).await;
    client.finish();
    assert_eq!(server.request().await.field("if-none-match"), Some("\"a\""));
    settled().await;
    server.send("HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n").await;
    let mut server = origin.connection().await;
    let asked = server.request().await;
    assert_eq!((asked.field("if-none-match"), asked.text().as_str()), (None, "{}"));
    server.send(fresh("new")).await;
    assert_eq!(client.response("QUERY").await.text(), "new");
}
