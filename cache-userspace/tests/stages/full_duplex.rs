//! Content that goes up while the answer comes down: neither may wait for the other where the origin does not make
//! it wait.

use crate::simulated::{Client, Node, Origin, Wire, ok};

const UPLOAD: &str = "POST /a HTTP/1.1\r\nHost: origin.test\r\n";

/// A request with this framing whose head has reached the origin.
async fn begun(framing: &str) -> (Origin, Node, Client, Wire) {
    let origin = Origin::with_small_buffers();
    let node = Node::before(&origin);
    let mut client = node.client_with_small_buffers().await;
    client.send(format!("{UPLOAD}{framing}\r\n")).await;
    let mut server = origin.connection().await;
    server.head_only().await;
    (origin, node, client, server)
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let (_origin, node, mut client, mut server) = begun("Transfer-Encoding: chunked\r\n").await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head_only().await;

    for _ in 0..50 {
        client.send("4\r\nping\r\n").await;
        assert_eq!(server.bytes(9).await, b"4\r\nping\r\n");
        server.send("4\r\npong\r\n").await;
        assert_eq!(client.bytes(9).await, b"4\r\npong\r\n");
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(server.bytes(5).await, b"0\r\n\r\n");
    server.send("0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");

    // Both messages ended: both connections serve the next one.
    assert_eq!(client.get_from("/b", &mut server, &ok("", "b")).await.text(), "b");
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn a_client_that_reads_only_after_it_has_sent_everything_is_not_stuck() {
    const CONTENT: usize = 2 << 20;
    let (_origin, _node, mut client, mut server) = begun(&format!("Content-Length: {CONTENT}\r\n")).await;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {CONTENT}\r\n\r\n")).await;
    let sent = server.flood(CONTENT).await;
    assert!(sent < CONTENT, "nobody reads, so that not everything can be on its way");

    let content = vec![b'c'; CONTENT];
    let (_, received) = tokio::join!(client.send(&content), server.bytes(CONTENT));

    assert!(received == content);
    client.head_only().await;
    let rest = vec![b'x'; CONTENT - sent];
    let (_, answer) = tokio::join!(server.send(rest), client.bytes(CONTENT));
    assert!(answer == vec![b'x'; CONTENT]);
}

#[tokio::test]
async fn after_an_early_answer_the_content_still_goes_where_it_was_meant_to() {
    let (_origin, _node, mut client, mut server) = begun("Content-Length: 10\r\n").await;
    server.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!").await;

    assert_eq!(client.response("POST").await.text(), "no!");

    // What follows looks like a request and is content: the framing says so, and nobody else may decide.
    client.send("GET /smuggled").await;
    assert_eq!(server.bytes(10).await, b"GET /smugg");
}

#[tokio::test]
async fn an_origin_that_refuses_content_and_closes_is_heard() {
    let (_origin, _node, mut client, mut server) = begun("Content-Length: 1000000\r\n").await;
    server.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!").await;
    assert_eq!(client.head_only().await.status(), 413);

    drop(server);
    client.send([b'c'; 100_000]).await;

    assert_eq!(client.bytes(3).await, b"no!");
}

#[tokio::test]
async fn a_client_that_expects_100_continue_sends_after_it() {
    let (_origin, _node, mut client, mut server) =
        begun("Content-Length: 4\r\nExpect: 100-continue\r\n").await;
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head_only().await.status(), 100);

    client.send("body").await;
    assert_eq!(server.bytes(4).await, b"body");
    server.send(ok("", "thanks")).await;

    assert_eq!(client.response("POST").await.text(), "thanks");
    assert_eq!(client.get_from("/b", &mut server, &ok("", "b")).await.text(), "b");
}
