//! The first bytes of a connection, and silence: what is served, what is relayed, what is taught to the kernel. On
//! a clock that stands still.

use std::time::Duration;

use sidestep::config::Limits;

use crate::simulated::{Client, End, Node, Origin, StillClock, fresh, get, ok, post, settled};

const HEAD: &str = "GET /a HTTP/1.1\r\n";

/// How many connections were relayed as opaque, and how many destinations were taught.
fn opaque(node: &Node) -> (u64, u64) {
    (node.figures().passthrough_opaque, node.figures().bypass_taught)
}

/// A silent client whose destination was asked meanwhile.
async fn silent(clock: &StillClock, origin: &Origin) -> (Node, Client, crate::simulated::Wire) {
    let node = Node::before(origin);
    let client = node.client().await;
    clock.pass_until(|| node.figures().upstream_connections == 1).await;
    let server = origin.connection().await;
    (node, client, server)
}

#[tokio::test]
async fn a_client_that_says_nothing_makes_the_origin_be_asked() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let _client = node.client().await;

    let silence = clock.pass_until(|| node.figures().upstream_connections == 1).await;

    let limit = Limits::default().sniff_silence;
    assert!((limit..limit * 2).contains(&silence), "{silence:?}");
    assert_eq!(opaque(&node), (0, 0), "silence decides nothing");
}

#[tokio::test]
async fn a_client_that_speaks_in_time_makes_nobody_be_asked() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;

    clock.pass(Limits::default().sniff_silence / 2).await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "a")).await;

    assert_eq!(client.response("GET").await.text(), "a");
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn an_origin_that_speaks_first_is_relayed_and_left_alone_from_then_on() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let (node, mut client, mut server) = silent(&clock, &origin).await;

    server.send("220 mail.test ESMTP\r\n").await;
    assert_eq!(client.bytes(21).await, b"220 mail.test ESMTP\r\n");
    // From here on nothing is read as HTTP.
    client.send(get("/a")).await;
    assert_eq!(server.bytes(get("/a").len()).await, get("/a").as_bytes());
    drop(server);

    assert_eq!(client.end().await, End::Closed);
    assert_eq!(opaque(&node), (1, 1));
    assert_eq!(node.figures().requests, 0);
}

#[tokio::test]
async fn a_client_that_speaks_late_is_served_on_the_connection_made_meanwhile() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let (node, mut client, mut server) = silent(&clock, &origin).await;

    // A POST: it takes no connection but one of this client's own.
    client.send(post("/a", "late")).await;
    assert_eq!(server.request().await.text(), "late");
    server.send(ok("", "served")).await;

    assert_eq!(client.response("POST").await.text(), "served");
    let answer = client.get_from("/b", &mut server, &fresh("b")).await;
    assert_eq!(answer.cache_status(), "fwd=uri-miss; stored");
    assert_eq!((node.figures().upstream_connections, opaque(&node)), (1, (0, 0)));
}

#[tokio::test]
async fn a_client_that_speaks_another_protocol_late_is_relayed() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let (node, mut client, mut server) = silent(&clock, &origin).await;

    client.send(b"\x16\x03\x01hello").await;

    assert_eq!(server.bytes(8).await, b"\x16\x03\x01hello");
    assert_eq!((node.figures().upstream_connections, opaque(&node)), (1, (1, 1)));
}

#[tokio::test]
async fn a_connection_that_both_ends_leave_silent_stays_open() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let (node, mut client, mut server) = silent(&clock, &origin).await;

    clock.pass(Duration::from_secs(60)).await;

    assert!(!client.is_over());
    client.send(get("/a")).await;
    server.request().await;
    server.send(ok("", "a")).await;
    assert_eq!(client.response("GET").await.text(), "a");
    assert_eq!((node.figures().upstream_connections, opaque(&node)), (1, (0, 0)));
}

#[tokio::test]
async fn the_end_of_a_silent_connection_is_passed_on_from_either_side() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;

    let (_node, mut client, server) = silent(&clock, &origin).await;
    drop(server);
    assert_eq!(client.end().await, End::Closed);

    let (node, mut client, mut server) = silent(&clock, &origin).await;
    client.finish();
    assert_eq!(server.end().await, End::Closed);
    server.send("bye").await;
    drop(server);
    assert_eq!(client.rest().await, (b"bye".to_vec(), End::Closed));
    assert_eq!(opaque(&node), (0, 0));
}

#[tokio::test]
async fn a_client_that_leaves_without_a_word_is_seen_to_leave() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;

    client.finish();
    let mut server = origin.connection().await;

    assert_eq!(server.end().await, End::Closed);
    server.send("bye").await;
    drop(server);
    assert_eq!(client.rest().await, (b"bye".to_vec(), End::Closed));
    assert_eq!(opaque(&node), (0, 0));
}

#[tokio::test]
async fn a_silent_client_of_a_destination_that_refuses_is_reset() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    drop(origin);
    let mut client = node.client().await;

    clock.pass_until(|| client.is_over()).await;

    assert_eq!(client.end().await, End::Reset);
}

#[tokio::test]
async fn first_bytes_that_are_no_http_1_are_relayed_at_once_and_taught() {
    let clock = StillClock::begin();
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"EHLO a\r\n", b"\0"] {
        let origin = Origin::new().await;
        let node = Node::before(&origin);
        let mut client = node.client().await;

        client.send(bytes).await;

        let mut server = origin.connection().await;
        assert_eq!(server.bytes(bytes.len()).await, bytes);
        assert_eq!(opaque(&node), (1, 1), "{bytes:?}");
    }
    drop(clock);
}

#[tokio::test]
async fn a_word_that_stalls_is_relayed_and_teaches_nothing() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("HELO").await;

    let stalled = clock.pass_until(|| node.figures().upstream_connections == 1).await;

    let limit = Limits::default().sniff_timeout;
    assert!((limit..limit * 2).contains(&stalled), "{stalled:?}");
    assert_eq!(origin.connection().await.bytes(4).await, b"HELO");
    assert_eq!(opaque(&node), (1, 0));
}

#[tokio::test]
async fn a_word_that_ends_is_relayed_with_its_end() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;

    client.send("GET").await;
    client.finish();

    let mut server = origin.connection().await;
    assert_eq!(server.rest().await, (b"GET".to_vec(), End::Closed));
    assert_eq!(opaque(&node), (1, 0));
}

#[tokio::test]
async fn a_request_line_that_comes_slowly_is_still_served() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("GET /a").await;

    clock.pass(Limits::default().sniff_timeout * 3).await;
    client.send(" HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut server = origin.connection().await;
    assert_eq!(server.request().await.target(), "/a");
    server.send(ok("", "a")).await;

    assert_eq!(client.response("GET").await.text(), "a");
    assert_eq!(opaque(&node), (0, 0));
}

#[tokio::test]
async fn a_head_that_stalls_is_relayed_as_it_is() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(HEAD).await;

    let stalled = clock.pass_until(|| node.figures().upstream_connections == 1).await;

    assert!(stalled >= Limits::default().head_read_timeout, "{stalled:?}");
    assert_eq!(origin.connection().await.bytes(HEAD.len()).await, HEAD.as_bytes());
    assert_eq!((node.figures().passthrough_malformed, opaque(&node)), (1, (0, 0)));
}

#[tokio::test]
async fn a_head_that_trickles_is_bounded_by_the_same_time() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(HEAD).await;
    let limit = Limits::default().head_read_timeout;

    // A byte for every tenth of the time, twice as long as it may take.
    for _ in 0..20 {
        client.send("x").await;
        clock.pass(limit / 10).await;
    }

    assert_eq!(node.figures().passthrough_malformed, 1);
    assert_eq!(origin.connection().await.bytes(HEAD.len()).await, HEAD.as_bytes());
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("a")).await;
    client.response("GET").await;
    let limit = Limits::default().downstream_idle;

    clock.pass(limit / 2).await;
    assert!(client.get("/a").await.is_hit(), "half the time is not all of it");
    let idle = clock.pass_until(|| client.is_over()).await;

    assert!(idle >= limit && idle < limit + limit / 20, "{idle:?}");
    assert_eq!(client.end().await, End::Closed);
}

#[tokio::test]
async fn a_client_that_does_not_close_after_a_refusal_is_left_after_a_moment() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert_eq!(client.response("GET").await.status(), 400);
    assert_eq!(client.end().await, End::Closed);

    // What it sends meanwhile is thrown away, and does not take the answer with it.
    client.send("more").await;
    settled().await;
    assert!(!client.is_over());
    let lingered = clock.pass_until(|| client.is_over()).await;

    assert!(lingered <= Duration::from_secs(3), "{lingered:?}");
}
