//! Requests that two readers could understand differently get 400 and the end; those that are merely odd reach the
//! origin byte for byte. On their first and on a later request of a connection alike.

use crate::simulated::{Client, End, Node, Origin, Wire, fresh, get};

const AMBIGUOUS: [&str; 12] = [
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
];

const BAD_CHUNKS: [&str; 8] = [
    "5\r\nhelloXX0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "0\r\nno trailer\r\n\r\n",
];

const ODD: [&str; 9] = [
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    "GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// A client that has been served once, with the connection that its next request would be forwarded on.
async fn served(origin: &Origin, node: &Node) -> (Client, Wire) {
    let mut client = node.client().await;
    client.send(get("/first")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("first").replace("max-age=60", "no-store")).await;
    assert_eq!(client.response("GET").await.text(), "first");
    (client, server)
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_reach_no_origin() {
    for request in AMBIGUOUS {
        let origin = Origin::new().await;
        let node = Node::before(&origin);

        let mut client = node.client().await;
        // What follows the refused request is nobody's.
        client.send([request, &get("/smuggled")].concat()).await;
        assert_eq!(client.response("GET").await.status(), 400, "{request:?}");
        assert_eq!(client.end().await, End::Closed);
        assert_eq!(node.figures().upstream_connections, 0, "{request:?}");
        client.close().await;

        let (mut client, mut server) = served(&origin, &node).await;
        client.send([request, &get("/smuggled")].concat()).await;
        assert_eq!(client.response("GET").await.status(), 400, "{request:?}");
        assert_eq!(client.end().await, End::Closed);
        // The pool ends with the last connection, and its connections have brought nothing more until then.
        client.close().await;
        drop(node);
        assert_eq!(server.end().await, End::Closed, "{request:?}");
    }
}

#[tokio::test]
async fn chunks_that_cannot_be_read_with_certainty_are_refused_and_never_completed() {
    for chunks in BAD_CHUNKS {
        let origin = Origin::new().await;
        let node = Node::before(&origin);
        let mut client = node.client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let mut server = origin.connection().await;
        server.head_only().await;

        client.send([chunks, &get("/smuggled")].concat()).await;

        assert_eq!(client.response("POST").await.status(), 400, "{chunks:?}");
        assert_eq!(client.end().await, End::Closed);
        let (rest, _) = server.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{chunks:?} arrived as {:?}", rest.escape_ascii().to_string());
        assert_eq!((node.figures().rejected_malformed, node.figures().errors), (1, 1), "{chunks:?}");
    }
}

#[tokio::test]
async fn odd_requests_reach_the_origin_byte_for_byte_on_a_connection_of_their_own() {
    for request in ODD {
        let origin = Origin::new().await;
        let node = Node::before(&origin);
        let (mut later, _server) = served(&origin, &node).await;

        for client in [&mut node.client().await, &mut later] {
            client.send(request).await;
            let mut server = origin.connection().await;
            assert_eq!(server.bytes(request.len()).await, request.as_bytes(), "{request:?}");
            server.send("any answer").await;
            drop(server);
            assert_eq!(client.rest().await, (b"any answer".to_vec(), End::Closed), "{request:?}");
        }

        assert_eq!((node.figures().requests, node.figures().stored), (1, 0), "{request:?}");
    }
}
