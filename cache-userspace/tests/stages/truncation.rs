//! Answers that break off: the client sees it as it would have without us, and nothing of them is stored.

use crate::simulated::{Client, End, Message, Node, Origin, Wire, fresh, get};

const CACHEABLE: &str = "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\n";

/// A request whose answer has begun with these bytes.
async fn begun(answer: &str) -> (Origin, Node, Client, Wire) {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(format!("{CACHEABLE}{answer}")).await;
    (origin, node, client, server)
}

/// What the client got, after which the next client is answered by the origin.
async fn cut(origin: &Origin, node: &Node, client: &mut Client) -> Message {
    let got = client.any_response("GET").await;
    let figures = node.figures();
    assert_eq!((figures.stored, figures.answers_broken_off), (0, 1), "{got:?}");
    let mut next = node.client().await;
    next.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("whole")).await;
    assert_eq!(next.response("GET").await.text(), "whole");
    got
}

#[tokio::test]
async fn content_shorter_than_its_length_ends_the_connection() {
    let (origin, node, mut client, server) = begun("Content-Length: 10\r\n\r\nhalf").await;

    drop(server);

    let got = cut(&origin, &node, &mut client).await;
    assert_eq!((got.text().as_str(), got.cut), ("half", Some(End::Closed)));
}

#[tokio::test]
async fn chunks_without_an_end_get_none_from_us() {
    let (origin, node, mut client, server) = begun("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;

    drop(server);

    let got = cut(&origin, &node, &mut client).await;
    assert_eq!((got.text().as_str(), got.cut), ("half", Some(End::Closed)));
}

#[tokio::test]
async fn chunks_that_cannot_be_read_end_the_connection() {
    let (origin, node, mut client, server) =
        begun("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nZZ\r\nnot this\r\n0\r\n\r\n").await;

    let got = cut(&origin, &node, &mut client).await;

    assert_eq!((got.text().as_str(), got.cut), ("half", Some(End::Closed)));
    drop(server);
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    for framing in
        ["Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "\r\nhalf"]
    {
        let (origin, node, mut client, server) = begun(framing).await;
        client.head_only().await;

        server.reset();

        let (_, end) = client.rest().await;
        assert_eq!(end, End::Reset, "{framing:?}");
        assert_eq!((node.figures().stored, node.figures().answers_broken_off), (0, 1));
        drop(origin);
    }
}

#[tokio::test]
async fn content_that_only_the_end_delimits_is_passed_on_and_not_stored() {
    let (_origin, node, mut client, server) = begun("\r\nto the end").await;

    drop(server);

    let got = client.response("GET").await;
    assert_eq!((got.text().as_str(), got.field("connection")), ("to the end", Some("close")));
    assert_eq!((node.figures().stored, node.figures().answers_broken_off), (0, 0));
}

#[tokio::test]
async fn an_http_1_0_client_learns_by_a_reset_that_chunks_broke_off() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("GET /a HTTP/1.0\r\nHost: origin.test\r\n\r\n").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(format!("{CACHEABLE}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")).await;
    let head = client.head_only().await;
    assert_eq!((head.field("transfer-encoding"), head.field("connection")), (None, Some("close")));
    assert_eq!(client.bytes(4).await, b"half");

    drop(server);

    assert_eq!(client.end().await, End::Reset);
}

#[tokio::test]
async fn a_client_that_spoils_its_own_request_does_not_take_part_of_an_answer_for_the_whole() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let mut server = origin.connection().await;
    server.head_only().await;
    server.send("HTTP/1.1 200 OK\r\n\r\nto the e").await;
    client.head_only().await;
    assert_eq!(client.bytes(8).await, b"to the e");

    client.send("no chunk\r\n").await;

    assert_eq!(client.end().await, End::Reset);
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_client_left_is_not_stored() {
    let (_origin, node, mut client, server) = begun("Content-Length: 10\r\n\r\nhalf").await;
    client.head_only().await;

    client.die().await;
    drop(server);

    node.reaches(|figures| figures.not_stored == 1).await;
    assert_eq!((node.figures().stored, node.figures().answers_broken_off), (0, 0));
}
