//! Stored responses that must be validated first (RFC 9111 §4.3): what is asked, what each answer makes of what is
//! stored, and what the client gets.

use crate::simulated::{Client, Node, Origin, Wire, get, ok, post, settled};

/// Fields of a response that is stale on arrival and can be validated.
const STALE: &str = "Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"a\"\r\nX-Kept: old\r\n";

/// A node whose store holds a stale answer to `/a`, with the connections that brought it there.
async fn stored(origin: &Origin, fields: &str) -> (Node, Client, Wire) {
    let node = Node::before(origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok(fields, "stored")).await;
    assert_eq!(client.response("GET").await.cache_status(), "fwd=uri-miss; stored");
    (node, client, server)
}

fn not_modified(fields: &str) -> String {
    format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n")
}

#[tokio::test]
async fn stale_response_is_validated_with_its_etag() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(&origin, STALE).await;
    client.send(get("/a")).await;
    let asked = server.request().await;
    assert_eq!(asked.field("if-none-match"), Some("\"a\""));
    server.send(not_modified("ETag: \"a\"\r\nCache-Control: max-age=60\r\nX-Kept: new\r\n")).await;

    let answer = client.response("GET").await;
    let next = client.get("/a").await;

    assert_eq!((answer.status(), answer.text().as_str()), (200, "stored"));
    assert_eq!(answer.cache_status(), "fwd=stale; fwd-status=304");
    assert_eq!((answer.field("x-kept"), answer.field("age")), (Some("new"), Some("0")));
    assert!(next.is_hit() && next.text() == "stored" && next.field("x-kept") == Some("new"), "{next:?}");
    let f = node.figures();
    assert_eq!((f.revalidated, f.hits, f.misses), (1, 1, 1));
}

#[tokio::test]
async fn a_new_answer_replaces_what_was_stored() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(&origin, STALE).await;
    let answer =
        client.get_from("/a", &mut server, &ok("Cache-Control: max-age=60\r\nETag: \"b\"\r\n", "new")).await;
    assert_eq!((answer.text().as_str(), answer.cache_status()), ("new", "fwd=stale; stored"));
    let next = client.get("/a").await;
    assert!(next.is_hit() && next.text() == "new");
}

#[tokio::test]
async fn a_304_about_something_else_makes_the_request_go_again_without_conditions() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(&origin, STALE).await;
    client.send(get("/a")).await;
    server.request().await;
    server.send(not_modified("ETag: \"other\"\r\n")).await;
    let asked = server.request().await;
    assert_eq!(asked.field("if-none-match"), None);
    server.send(ok("Cache-Control: max-age=60\r\n", "new")).await;
    let answer = client.response("GET").await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "new"));
}

#[tokio::test]
async fn a_bare_304_confirms_the_only_thing_that_was_asked_about() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(&origin, STALE).await;
    let answer = client.get_from("/a", &mut server, &not_modified("")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "stored"));
}

#[tokio::test]
async fn a_client_that_has_it_gets_304_and_one_that_has_another_gets_it_whole_rfc9111_4_3_2() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(&origin, STALE).await;
    let ask = |tag: &str| format!("GET /a HTTP/1.1\r\nHost: origin.test\r\nIf-None-Match: {tag}\r\n\r\n");
    for (tag, status, text) in [("\"a\"", 304, ""), ("\"mine\"", 200, "stored")] {
        client.send(ask(tag)).await;
        let asked = server.request().await;
        let tags = asked.field("if-none-match").unwrap().to_owned();
        assert!(tags.contains("\"a\"") && tags.contains(tag), "{tags}");
        server.send(not_modified("ETag: \"a\"\r\nCache-Control: max-age=60\r\nAge: 60\r\n")).await;
        let answer = client.response("GET").await;
        assert_eq!((answer.status(), answer.text().as_str()), (status, text), "{tag}");
    }
    client.send(ask("\"mine\"")).await;
    server.request().await;
    server.send(not_modified("ETag: \"mine\"\r\n")).await;
    let answer = client.response("GET").await;
    assert_eq!((answer.status(), answer.field("etag")), (304, Some("\"mine\"")), "its own is confirmed");
}

#[tokio::test]
async fn a_no_cache_response_is_validated_each_time_rfc9111_5_2_2_4() {
    let origin = Origin::new().await;
    let fields = "Cache-Control: no-cache\r\nETag: \"a\"\r\n";
    let (node, mut client, mut server) = stored(&origin, fields).await;
    for _ in 0..2 {
        let answer = client.get_from("/a", &mut server, &not_modified(fields)).await;
        assert_eq!((answer.text().as_str(), answer.cache_status()), ("stored", "fwd=stale; fwd-status=304"));
    }
    assert_eq!(node.figures().revalidated, 2);
}

#[tokio::test]
async fn a_reload_is_a_validation_rfc9111_5_2_1_4() {
    let origin = Origin::new().await;
    let fields = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
    let (_node, mut client, mut server) = stored(&origin, fields).await;
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nCache-Control: no-cache\r\n\r\n").await;
    let asked = server.request().await;
    assert_eq!(
        (asked.field("if-none-match"), asked.field("cache-control")),
        (Some("\"a\""), Some("no-cache"))
    );
    server.send(not_modified(fields)).await;
    let answer = client.response("GET").await;
    assert_eq!((answer.text().as_str(), answer.cache_status()), ("stored", "fwd=request; fwd-status=304"));
}

#[tokio::test]
async fn waiters_of_a_validation_are_answered_by_it() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(&origin, STALE).await;
    client.send(get("/a")).await;
    server.request().await;
    let mut waiters = Vec::new();
    for _ in 0..3 {
        let mut waiter = node.client().await;
        waiter.send(get("/a")).await;
        waiters.push(waiter);
    }
    settled().await;
    server.send(not_modified("ETag: \"a\"\r\nCache-Control: max-age=60\r\n")).await;
    for waiter in &mut waiters {
        let answer = waiter.response("GET").await;
        assert_eq!(answer.text(), "stored");
        assert_eq!(answer.cache_status(), "fwd=stale; fwd-status=304; collapsed");
    }
    assert_eq!(client.response("GET").await.text(), "stored");
    let f = node.figures();
    assert_eq!((f.revalidated, f.collapsed, f.upstream_connections), (1, 3, 1));
}

#[tokio::test]
async fn a_write_during_a_validation_is_not_undone_by_its_304() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(&origin, STALE).await;
    client.send(get("/a")).await;
    server.request().await;
    let mut writer = node.client().await;
    writer.send(post("/a", "x")).await;
    let mut other = origin.connection().await;
    other.request().await;
    other.send(ok("", "")).await;
    writer.response("POST").await;
    server.send(not_modified("ETag: \"a\"\r\nCache-Control: max-age=60\r\n")).await;
    let asked = server.request().await;
    assert_eq!(asked.field("if-none-match"), None, "what was purged is neither given nor asked about");
    server.send(ok("Cache-Control: max-age=60\r\n", "new")).await;
    assert_eq!(client.response("GET").await.text(), "new");
}

#[tokio::test]
async fn an_answer_that_may_not_be_stored_ends_what_was_stored() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(&origin, STALE).await;
    let gone = "HTTP/1.1 404 Not Found\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(client.get_from("/a", &mut server, gone).await.status(), 404);
    client.send(get("/a")).await;
    assert_eq!(server.request().await.field("if-none-match"), None);
    server.send(gone).await;
    client.response("GET").await;
}

#[tokio::test]
async fn an_answer_to_head_updates_what_is_stored_or_makes_it_stale_rfc9111_4_3_5() {
    let origin = Origin::new().await;
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 6\r\n\r\n");
    let ask = "HEAD /a HTTP/1.1\r\nHost: origin.test\r\nCache-Control: max-age=0\r\n\r\n";
    for (etag, is_updated) in [("\"a\"", true), ("\"b\"", false)] {
        let (_node, mut client, mut server) =
            stored(&origin, "Cache-Control: max-age=60\r\nAge: 1\r\nETag: \"a\"\r\nX-Kept: old\r\n").await;
        client.send(ask).await;
        assert_eq!(&server.request().await.start[..4], "HEAD");
        let fields = format!("Cache-Control: max-age=60\r\nETag: {etag}\r\nX-Kept: new\r\n");
        server.send(head(&fields)).await;
        assert_eq!(client.response("HEAD").await.status(), 200);
        client.send(get("/a")).await;
        if is_updated {
            let answer = client.response("GET").await;
            assert!(answer.is_hit() && answer.field("x-kept") == Some("new"), "{answer:?}");
        } else {
            let mut server = origin.connection().await;
            assert_eq!(server.request().await.field("if-none-match"), Some("\"a\""));
            server.send(not_modified("ETag: \"a\"\r\n")).await;
            client.response("GET").await;
        }
    }
}

#[tokio::test]
async fn a_write_also_invalidates_what_its_answer_names_rfc9111_4_4() {
    let origin = Origin::new().await;
    let fields = "Cache-Control: max-age=60\r\n";
    for (name, value, is_gone) in [
        ("Location", "/a", true),
        ("Content-Location", "http://origin.test/a", true),
        ("Location", "http://elsewhere.test/a", false),
    ] {
        let (_node, mut client, mut server) = stored(&origin, fields).await;
        client.send(post("/other", "x")).await;
        server.request().await;
        server.send(ok(&format!("{name}: {value}\r\n"), "")).await;
        client.response("POST").await;
        client.send(get("/a")).await;
        if is_gone {
            assert_eq!(server.request().await.target(), "/a", "{name}: {value}");
            server.send(ok(fields, "new")).await;
            assert_eq!(client.response("GET").await.text(), "new");
        } else {
            assert!(client.response("GET").await.is_hit(), "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn head_after_head_is_validated_and_loses_nothing() {
    let origin = Origin::new().await;
    let (node, mut client, server) = stored(&origin, STALE).await;
    let mut servers = vec![server];
    for round in 0..3 {
        client.send("HEAD /a HTTP/1.1\r\nHost: origin.test\r\n\r\n").await;
        if round > 0 {
            // The last one may still get content that belongs to no answer.
            servers.push(origin.connection().await);
        }
        let server = servers.last_mut().unwrap();
        assert_eq!(server.request().await.field("if-none-match"), Some("\"a\""));
        server.send(not_modified(STALE)).await;
        assert_eq!(client.response("HEAD").await.cache_status(), "fwd=stale; fwd-status=304");
    }
    assert_eq!(node.figures().revalidated, 3);
}

#[tokio::test]
async fn what_was_fresh_does_not_outlive_an_answer_for_which_there_is_no_room() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) =
        stored(&origin, "Cache-Control: max-age=60\r\nETag: \"a\"\r\n").await;
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nCache-Control: no-cache\r\n\r\n").await;
    server.request().await;
    // A trailer section is not stored.
    server
        .send(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nnew\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
        .await;
    assert_eq!(client.response("GET").await.text(), "new");
    let answer = client.get_from("/a", &mut server, &ok("Cache-Control: max-age=60\r\n", "new")).await;
    assert_eq!(answer.text(), "new");
}
