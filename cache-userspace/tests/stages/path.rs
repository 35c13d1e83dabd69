//! Requests through every stage: what comes from the store, what from the origin, in which order, and how it is
//! counted.

use sidestep::policy::{Profile, Rules};

use crate::simulated::{Client, End, Node, Origin, Wire, fresh, get, ok, post, within};

/// A node whose store holds the answer to `/a`, with the connections that brought it there.
async fn stored(origin: &Origin) -> (Node, Client, Wire) {
    let node = Node::before(origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("stored")).await;
    client.response("GET").await;
    (node, client, server)
}

#[tokio::test]
async fn the_second_request_is_answered_from_the_store_with_the_same_bytes() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("Cache-Control: max-age=60\r\nX-Kept: Yes\r\nAge: 7\r\n", "content")).await;

    let first = client.response("GET").await;
    let second = client.get("/a").await;

    assert_eq!(first.cache_status(), "fwd=uri-miss; stored");
    assert_eq!((first.field("age"), first.text().as_str()), (Some("7"), "content"));
    assert_eq!(second.cache_status(), "hit");
    assert_eq!((second.start, second.content), (first.start, first.content));
    assert!(
        matches!(second.fields.iter().find(|(name, _)| name == "Age"), Some((_, age)) if age.as_str() >= "7")
    );
    assert!(second.fields.contains(&("X-Kept".to_owned(), "Yes".to_owned())));
    let figures = node.figures();
    assert_eq!((figures.requests, figures.misses, figures.hits, figures.stored), (2, 1, 1, 1));
    assert_eq!((figures.bytes_from_origin, figures.bytes_from_cache), (7, 7));
}

#[tokio::test]
async fn another_client_of_the_workload_is_answered_without_the_origin() {
    let origin = Origin::new().await;
    let (node, _client, _server) = stored(&origin).await;

    let answer = node.client().await.get("/a").await;

    assert!(answer.is_hit() && answer.text() == "stored", "{answer:?}");
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn a_head_request_is_answered_by_a_stored_get_without_content() {
    let origin = Origin::new().await;
    let (_node, mut client, _server) = stored(&origin).await;

    client.send("HEAD /a HTTP/1.1\r\nHost: origin.test\r\n\r\n").await;
    let head = client.response("HEAD").await;
    let next = client.get("/a").await;

    assert!(head.is_hit() && head.field("content-length") == Some("6"), "{head:?}");
    assert_eq!(next.text(), "stored");
}

#[tokio::test]
async fn every_request_is_counted_once() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(&origin).await;
    let outcomes = |node: &Node| {
        let f = node.figures();
        (f.misses, f.hits, f.uncacheable, f.errors)
    };
    assert_eq!(outcomes(&node), (1, 0, 0, 0));

    client.get("/a").await;
    assert_eq!(outcomes(&node), (1, 1, 0, 0), "a hit");

    client.get_from("/b", &mut server, &ok("Cache-Control: no-store\r\n", "")).await;
    assert_eq!(outcomes(&node), (1, 1, 1, 0), "not storable");

    client.send(post("/a", "x")).await;
    server.request().await;
    server.send(ok("", "")).await;
    client.response("POST").await;
    assert_eq!(outcomes(&node), (1, 1, 2, 0), "not looked up");

    client.send("GET /c HTTP/1.1\r\nHost: origin.test\r\nCache-Control: only-if-cached\r\n\r\n").await;
    assert_eq!(client.response("GET").await.status(), 504);
    assert_eq!(outcomes(&node), (1, 1, 2, 1), "not stored, and not to be forwarded");

    client.send("GET /c HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert_eq!(client.response("GET").await.status(), 400);
    assert_eq!(outcomes(&node), (1, 1, 2, 2), "refused");

    let mut client = node.client().await;
    client.send(post("/d", "x")).await;
    let mut other = origin.connection().await;
    other.request().await;
    drop(other);
    assert_eq!(client.end().await, End::Closed);
    assert_eq!(outcomes(&node), (1, 1, 2, 3), "no answer");

    let mut client = node.client().await;
    client
        .get_from(
            "/e",
            &mut server,
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
    assert_eq!(outcomes(&node), (2, 1, 2, 3), "another miss");
    assert_eq!(node.figures().requests, 8);
}

#[tokio::test]
async fn pipelined_hits_and_misses_are_answered_in_order() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(&origin).await;
    client.send([get("/b"), get("/a"), get("/c"), get("/a")].concat()).await;

    assert_eq!(server.request().await.target(), "/b");
    server.send(ok("", "second")).await;
    assert_eq!(server.request().await.target(), "/c");
    server.send(ok("", "third")).await;

    let mut texts = Vec::new();
    for _ in 0..4 {
        texts.push(client.response("GET").await.text());
    }
    assert_eq!(texts, ["second", "stored", "third", "stored"]);
}

#[tokio::test]
async fn an_unsafe_request_invalidates_before_its_answer_is_passed_on() {
    let origin = Origin::new().await;
    let (node, mut reader, mut server) = stored(&origin).await;
    let mut writer = node.client().await;
    writer.send(post("/a", "new")).await;
    let mut written = origin.connection().await;
    written.request().await;

    // The head is all there is of the answer so far.
    written.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
    writer.head_only().await;
    let answer = reader.get_from("/a", &mut server, &fresh("written")).await;

    assert_eq!(answer.cache_status(), "fwd=uri-miss; stored", "{answer:?}");
    written.send("done").await;
    assert_eq!(writer.bytes(4).await, b"done");
    assert_eq!(reader.get("/a").await.text(), "written");
}

#[tokio::test]
async fn an_unsafe_request_that_failed_invalidates_nothing() {
    let origin = Origin::new().await;
    let (node, _reader, _server) = stored(&origin).await;
    let mut client = node.client().await;
    client.send(post("/a", "new")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n").await;
    client.response("POST").await;

    assert!(client.get("/a").await.is_hit());
}

#[tokio::test]
async fn an_answer_that_an_unsafe_request_overtook_is_not_stored() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut reader, mut writer) = (node.client().await, node.client().await);
    reader.send(get("/a")).await;
    let mut slow = origin.connection().await;
    slow.request().await;
    slow.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\no").await;
    reader.head_only().await;

    writer.send("DELETE /a HTTP/1.1\r\nHost: origin.test\r\n\r\n").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    writer.response("DELETE").await;
    slow.send("ld").await;
    assert_eq!(reader.bytes(3).await, b"old");

    let answer = reader.get_from("/a", &mut slow, &fresh("new")).await;
    assert_eq!((answer.text().as_str(), answer.cache_status()), ("new", "fwd=uri-miss; stored"));
    assert_eq!((node.figures().stored, node.figures().not_stored), (1, 1));
}

#[tokio::test]
async fn a_switch_that_is_off_bypasses_the_store_and_ends_connections() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(&origin).await;

    node.switch(false);
    let answer = client.get_from("/a", &mut server, &fresh("from the origin")).await;

    assert_eq!(
        (answer.text().as_str(), answer.cache_status()),
        ("from the origin", "fwd=bypass; detail=off")
    );
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(client.end().await, End::Closed);
    node.switch(true);
    assert_eq!(node.client().await.get("/a").await.text(), "stored");
}

#[tokio::test]
async fn a_daemon_that_drains_ends_connections_with_their_next_answer() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(&origin).await;
    let mut other = node.client().await;
    node.end();

    let from_store = client.get("/a").await;
    let forwarded = other.get_from("/b", &mut server, &fresh("b")).await;

    assert_eq!((from_store.text().as_str(), forwarded.text().as_str()), ("stored", "b"));
    for (answer, client) in [(from_store, &mut client), (forwarded, &mut other)] {
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(client.end().await, End::Closed);
    }
}

#[tokio::test]
async fn a_write_while_the_switch_is_off_invalidates_all_the_same() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(&origin).await;
    node.switch(false);
    client.send(post("/a", "new")).await;
    server.request().await;
    server.send(ok("", "")).await;
    client.response("POST").await;

    node.switch(true);
    let mut client = node.client().await;
    let answer = client.get_from("/a", &mut server, &fresh("new")).await;

    assert_eq!(answer.text(), "new");
}

#[tokio::test]
async fn interim_responses_are_passed_on_while_the_final_one_is_awaited() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;

    server.send("HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n").await;
    let early = client.head_only().await;
    server.send("HTTP/1.1 102 Processing\r\n\r\n").await;
    server.send(ok("", "final")).await;
    let last = client.response("GET").await;

    assert_eq!((early.status(), early.field("link")), (103, Some("</s>")));
    assert_eq!((last.interim.len(), last.text().as_str()), (1, "final"));
}

#[tokio::test]
async fn a_client_that_half_closes_gets_its_answer_and_the_origin_sees_it() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    client.finish();
    let mut server = origin.connection().await;
    server.request().await;

    assert_eq!(server.end().await, End::Closed);
    server.send(ok("", "late")).await;

    assert_eq!(client.response("GET").await.text(), "late");
    assert_eq!(client.end().await, End::Closed);
}

#[tokio::test]
async fn a_client_that_dies_takes_its_request_with_it() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("POST /a HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut server = origin.connection().await;
    assert_eq!(server.head_only().await.field("content-length"), Some("10"));

    client.die().await;

    let (content, _) = server.rest().await;
    assert!(content.len() < 10, "{content:?}");
    assert_eq!(node.figures().requests, 1);
}

#[tokio::test]
async fn bytes_that_are_no_response_are_relayed_both_ways() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;

    server.send("ICY 200 OK\r\n\r\nmusic").await;
    assert_eq!(client.bytes(19).await, b"ICY 200 OK\r\n\r\nmusic");
    client.send("anything").await;
    assert_eq!(server.bytes(8).await, b"anything");
    drop(server);

    assert_eq!(client.end().await, End::Closed);
    assert_eq!((node.figures().requests, node.figures().uncacheable), (1, 1));
}

#[tokio::test]
async fn a_malformed_request_is_relayed_on_a_connection_of_its_own_that_is_never_used_again() {
    let origin = Origin::new().await;
    let (node, mut client, mut pooled) = stored(&origin).await;
    let folded = "GET /f HTTP/1.1\r\nHost: origin.test\r\nX: a\r\n b\r\n\r\n";
    client.send(folded).await;

    let mut own = origin.connection().await;
    assert_eq!(own.bytes(folded.len()).await, folded.as_bytes());
    own.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response("GET").await.status(), 400);
    drop(client);

    assert_eq!(own.end().await, End::Closed);
    let mut next = node.client().await;
    assert_eq!(next.get_from("/b", &mut pooled, &ok("", "b")).await.text(), "b");
    assert_eq!((node.figures().passthrough_malformed, node.figures().upstream_connections), (1, 2));
}

#[tokio::test]
async fn a_strict_node_refuses_what_is_malformed() {
    let origin = Origin::new().await;
    let node = Node::strict(&origin);
    let mut client = node.client().await;

    client.send("GET /f HTTP/1.1\r\nHost: origin.test\r\nX: a\r\n b\r\n\r\n").await;

    assert_eq!(client.response("GET").await.status(), 400);
    assert_eq!(client.end().await, End::Closed);
    assert_eq!((node.figures().rejected_malformed, node.figures().upstream_connections), (1, 0));
}

#[tokio::test]
async fn a_strict_node_refuses_a_head_that_breaks_off() {
    let origin = Origin::new().await;
    let node = Node::strict(&origin);
    let mut client = node.client().await;

    client.send("GET /f HTTP/1.1\r\nHost: ori").await;
    client.finish();

    assert_eq!(client.response("GET").await.status(), 400);
    assert_eq!(node.figures().upstream_connections, 0);
}

#[tokio::test]
async fn a_destination_that_refuses_resets_the_client() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    drop(origin);
    let mut client = node.client().await;

    client.send(get("/a")).await;

    assert_eq!(client.end().await, End::Reset);
    within("the end of the task", client.close()).await;
    assert_eq!((node.figures().dial_errors, node.figures().errors), (1, 1));
}

#[tokio::test]
async fn an_answer_in_an_unknown_transfer_coding_passes_with_it_and_is_stored_with_it_in_rfc9111() {
    const CODED: &str =
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: x-odd\r\n\r\n(coded)";
    for profile in [Profile::Safe, Profile::Rfc9111] {
        let origin = Origin::new().await;
        let node = Node::by(Rules { profile, ..Rules::default() }, &origin);
        let mut client = node.client().await;
        client.send(get("/a")).await;
        let mut server = origin.connection().await;
        server.request().await;
        server.send(CODED).await;
        drop(server);
        let mut answers = vec![client.rest().await];
        if profile == Profile::Rfc9111 {
            let mut client = node.client().await;
            client.send(get("/a")).await;
            answers.push(client.rest().await);
            assert_eq!(node.figures().hits, 1);
            // Whoever offers other codings, wants a part or the head asks the origin.
            for other in [
                "GET /a HTTP/1.1\r\nHost: origin.test\r\nTE: x-odd\r\nConnection: TE\r\n\r\n",
                "GET /a HTTP/1.1\r\nHost: origin.test\r\nRange: bytes=0-1\r\n\r\n",
                "HEAD /a HTTP/1.1\r\nHost: origin.test\r\n\r\n",
                "GET /a HTTP/1.0\r\nHost: origin.test\r\n\r\n",
            ] {
                let mut client = node.client().await;
                client.send(other).await;
                let mut server = origin.connection().await;
                server.request().await;
                server.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
                assert_eq!(client.response("HEAD").await.status(), 404);
            }
        }
        for (bytes, end) in answers {
            let text = String::from_utf8(bytes).unwrap();
            assert!(
                text.contains("\r\nTransfer-Encoding: x-odd\r\n") && text.ends_with("\r\n\r\n(coded)"),
                "{text}"
            );
            assert!(!text.contains("Content-Length") && end == End::Closed, "{text}");
        }
        assert_eq!(node.figures().stored, u64::from(profile == Profile::Rfc9111));
    }
}
