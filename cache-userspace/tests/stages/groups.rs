//! Cache groups (RFC 9875) through the path: an unsafe request invalidates what its answer names.

use crate::simulated::{Client, Node, Origin, Wire, fresh, get, ok, post, settled};

/// Fields of a fresh response in these groups.
fn of(groups: &str) -> String {
    format!("Cache-Control: max-age=60\r\nCache-Groups: {groups}\r\n")
}

/// Stores an answer to each target.
async fn store(client: &mut Client, server: &mut Wire, answers: &[(&str, &str)]) {
    for (target, groups) in answers {
        let answer = client.get_from(target, server, &ok(&of(groups), "stored")).await;
        assert_eq!(answer.cache_status(), "fwd=uri-miss; stored", "{target}");
    }
}

/// A node and a client whose first connection to the origin is open.
async fn begin(origin: &Origin) -> (Node, Client, Wire) {
    let node = Node::before(origin);
    let mut client = node.client().await;
    client.send(get("/first")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "")).await;
    client.response("GET").await;
    (node, client, server)
}

/// Sends a write whose answer says what groups it invalidates.
async fn write(client: &mut Client, server: &mut Wire, status: &str, groups: &str) {
    client.send(post("/write", "x")).await;
    server.request().await;
    let answer =
        format!("HTTP/1.1 {status}\r\nCache-Group-Invalidation: {groups}\r\nContent-Length: 0\r\n\r\n");
    server.send(answer).await;
    client.response("POST").await;
}

#[tokio::test]
async fn an_answer_to_a_write_invalidates_the_groups_that_it_names_rfc9875_3() {
    let origin = Origin::new().await;
    for status in ["200 OK", "303 See Other", "500 Internal Server Error"] {
        let (_node, mut client, mut server) = begin(&origin).await;
        let answers = [("/a", "\"x\""), ("/b", "\"w\", \"x\""), ("/c", "\"y\""), ("/d", "x")];
        store(&mut client, &mut server, &answers).await;
        write(&mut client, &mut server, status, "\"x\", \"z\"").await;
        for target in ["/c", "/d"] {
            assert!(client.get(target).await.is_hit(), "{target}");
        }
        for target in ["/a", "/b"] {
            let answer = client.get_from(target, &mut server, &fresh("new")).await;
            assert_eq!((answer.text().as_str(), answer.cache_status()), ("new", "fwd=uri-miss; stored"));
        }
    }
}

#[tokio::test]
async fn an_answer_to_a_safe_request_invalidates_nothing_rfc9875_3() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = begin(&origin).await;
    store(&mut client, &mut server, &[("/a", "\"x\"")]).await;
    let answer = ok("Cache-Group-Invalidation: \"x\"\r\n", "");
    client.get_from("/b", &mut server, &answer).await;
    assert!(client.get("/a").await.is_hit());
}

#[tokio::test]
async fn a_fill_that_began_before_its_group_was_invalidated_is_neither_stored_nor_joined() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = begin(&origin).await;
    client.send(get("/a")).await;
    server.request().await;
    let head = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 6\r\n\r\n", of("\"x\""));
    server.send(format!("{head}old")).await;
    client.head_only().await;

    let mut writer = node.client().await;
    writer.send(post("/write", "x")).await;
    let mut second = origin.connection().await;
    second.request().await;
    second.send(ok("Cache-Group-Invalidation: \"x\"\r\n", "")).await;
    writer.response("POST").await;

    let mut late = node.client().await;
    late.send(get("/a")).await;
    assert_eq!(second.request().await.target(), "/a", "it goes forward itself");
    second.send(ok(&of("\"x\""), "newest")).await;
    assert_eq!(late.response("GET").await.text(), "newest");
    server.send("old").await;
    client.bytes(6).await;
    settled().await;
    let answer = client.get("/a").await;
    assert!(answer.is_hit() && answer.text() == "newest", "{answer:?}");
}

#[tokio::test]
async fn a_waiter_does_not_get_an_answer_whose_group_was_invalidated_since_it_began() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = begin(&origin).await;
    client.send(get("/a")).await;
    server.request().await;
    let mut waiter = node.client().await;
    waiter.send(get("/a")).await;
    settled().await;
    let mut writer = node.client().await;
    writer.send(post("/write", "x")).await;
    let mut second = origin.connection().await;
    second.request().await;
    second.send(ok("Cache-Group-Invalidation: \"x\"\r\n", "")).await;
    writer.response("POST").await;
    let head = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 3\r\n\r\n", of("\"x\""));
    server.send(format!("{head}ol")).await;
    client.head_only().await;
    assert_eq!(client.bytes(2).await, b"ol", "it asked before");
    assert_eq!(second.request().await.target(), "/a");
    second.send(ok(&of("\"x\""), "new")).await;
    assert_eq!(waiter.response("GET").await.text(), "new");
}

#[tokio::test]
async fn what_a_304_puts_into_a_group_that_was_invalidated_since_is_fetched_anew_once() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = begin(&origin).await;
    let stale = "Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"a\"\r\n";
    client.get_from("/a", &mut server, &ok(stale, "old")).await;
    write(&mut client, &mut server, "200 OK", "\"x\"").await;
    client.send(get("/a")).await;
    assert_eq!(server.request().await.field("if-none-match"), Some("\"a\""));
    server.send(format!("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n{}\r\n", of("\"x\""))).await;
    assert_eq!(server.request().await.field("if-none-match"), None, "it was of no use");
    server.send(ok(&of("\"x\""), "new")).await;
    let answer = client.response("GET").await;
    assert_eq!((answer.text().as_str(), answer.cache_status()), ("new", "fwd=uri-miss; stored"));
    assert!(client.get("/a").await.is_hit());
}

#[tokio::test]
async fn a_response_in_more_groups_than_are_remembered_is_not_stored() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = begin(&origin).await;
    let names: Vec<String> = (0..65).map(|n| format!("\"{n}\"")).collect();
    let answer = client.get_from("/a", &mut server, &ok(&of(&names.join(", ")), "a")).await;
    assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=groups");
}
