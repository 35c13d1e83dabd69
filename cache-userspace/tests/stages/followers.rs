//! Those who wait for or read along with another's answer, when something goes wrong with it: nobody hangs, nobody
//! pays for another's fault, and nothing is fetched for nobody.

use std::time::Duration;

use sidestep::config::Limits;
use sidestep::policy::{Profile, Rules};
use sidestep::store::StoreLimits;

use crate::simulated::{Client, Node, Origin, StillClock, Wire, fresh, get, ok, settled};

/// What the origin tries to send: far more than anything may hold.
const FLOOD: usize = 64 << 20;
const HALF: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfirst";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";

async fn asking(node: &Node, target: &str) -> Client {
    let mut client = node.client().await;
    client.send(get(target)).await;
    settled().await;
    client
}

/// A client that caused an answer, one that reads along, and the origin's side; half of the answer is there.
async fn half_way(origin: &Origin, node: &Node) -> (Client, Client, Wire) {
    let mut leader = asking(node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    let mut follower = asking(node, "/a").await;
    server.send(HALF).await;
    for client in [&mut leader, &mut follower] {
        client.head_only().await;
        assert_eq!(client.bytes(5).await, b"first");
    }
    (leader, follower, server)
}

#[tokio::test]
async fn who_reads_along_gets_everything_though_the_client_left_and_the_background_is_full() {
    let origin = Origin::new().await;
    let node = Node::with(&origin, Limits { background_max: 0, ..Limits::default() });
    let (leader, mut follower, mut server) = half_way(&origin, &node).await;
    let dying = tokio::spawn(leader.die());
    node.reaches(|figures| figures.background_full == 1).await;
    settled().await;
    server.send("rest.").await;
    assert_eq!(follower.bytes(5).await, b"rest.");
    dying.await.unwrap();
}

#[tokio::test]
async fn a_fill_for_nobody_ends_with_its_client_where_the_background_is_full() {
    let origin = Origin::new().await;
    let node = Node::with(&origin, Limits { background_max: 0, ..Limits::default() });
    let mut client = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(HALF).await;
    client.head_only().await;
    client.die().await;
    server.end().await;
    assert_eq!(node.figures().background_full, 1);
}

#[tokio::test]
async fn who_reads_along_outlasts_a_pause_of_the_origin_though_the_client_left() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (leader, mut follower, mut server) = half_way(&origin, &node).await;
    leader.die().await;
    let clock = StillClock::begin();
    clock.pass(Duration::from_secs(200)).await;
    drop(clock);
    server.send("rest.").await;
    assert_eq!(follower.bytes(5).await, b"rest.");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_fetched_to_the_end_for_nobody() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(CHUNKED).await;
    server.send(format!("{FLOOD:x}\r\n")).await;
    client.head_only().await;
    client.die().await;
    server.flood(FLOOD).await;
    let (taken, stored_max) = (node.figures().bytes_from_origin, StoreLimits::default().object_bytes_max);
    assert!(taken <= stored_max + (1 << 20), "{taken} bytes for nobody");
}

#[tokio::test]
async fn an_old_flight_holds_up_nobody_else() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut leader = asking(&node, "/a").await;
    let mut slow = origin.connection().await;
    slow.request().await;
    let clock = StillClock::begin();
    clock.pass(Duration::from_secs(6)).await;
    let mut later = asking(&node, "/a").await;
    drop(clock);
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("quick")).await;
    assert_eq!(later.response("GET").await.text(), "quick");
    assert_eq!(node.figures().collapse_timeouts, 0);
    slow.send(fresh("slow")).await;
    assert_eq!(leader.response("GET").await.text(), "slow");
}

#[tokio::test]
async fn a_304_to_a_condition_of_the_client_says_nothing_about_waiting() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nIf-None-Match: \"mine\"\r\n\r\n").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 304 Not Modified\r\nETag: \"mine\"\r\n\r\n").await;
    assert_eq!(client.response("GET").await.status(), 304);

    let mut clients = [asking(&node, "/a").await, asking(&node, "/a").await];
    server.request().await;
    server.send(fresh("content")).await;
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "content");
    }
    let f = node.figures();
    assert_eq!((f.collapsed, f.upstream_connections), (1, 1));
}

#[tokio::test]
async fn nobody_waits_for_what_each_must_validate_rfc9111_5_2_2_4() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let answer = ok("Cache-Control: no-cache\r\nETag: \"a\"\r\n", "content");
    let mut client = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(&answer).await;
    client.response("GET").await;

    let mut clients = [asking(&node, "/a").await, asking(&node, "/a").await, asking(&node, "/a").await];
    let mut servers = [server, origin.connection().await, origin.connection().await];
    for server in &mut servers {
        assert_eq!(server.request().await.field("if-none-match"), Some("\"a\""));
    }
    for server in &mut servers {
        server.send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: no-cache\r\n\r\n").await;
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "content");
    }
    assert_eq!(node.figures().revalidated, 3);
}

#[tokio::test]
async fn a_validation_that_failed_for_one_is_tried_again_for_another_before_it_is_our_504() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    let fields =
        "Cache-Control: max-age=60, must-revalidate\r\nAge: 65\r\nETag: \"a\"\r\nConnection: close\r\n";
    server.send(ok(fields, "stored")).await;
    client.response("GET").await;

    let mut leader = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    let mut follower = asking(&node, "/a").await;
    server.reset();
    assert_eq!(leader.response("GET").await.status(), 504);
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n").await;
    let answer = follower.response("GET").await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "stored"));
}

#[tokio::test]
async fn endless_answers_that_are_not_stored_take_no_turns() {
    let origin = Origin::new().await;
    let node = Node::with(&origin, Limits { origin_requests_max: 1, ..Limits::default() });
    let mut listener = asking(&node, "/events").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    listener.head_only().await;
    let clock = StillClock::begin();
    let mut other = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("content")).await;
    assert_eq!(other.response("GET").await.text(), "content");
    drop(clock);
    assert_eq!(node.figures().origin_turns_late, 0);
}

#[tokio::test]
async fn an_http_1_0_client_does_not_read_along_in_a_coding_rfc9112_6_1() {
    let origin = Origin::new().await;
    let node = Node::by(Rules { profile: Profile::Rfc9111, ..Rules::default() }, &origin);
    let mut leader = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    let mut old = node.client().await;
    old.send("GET /a HTTP/1.0\r\nHost: origin.test\r\n\r\n").await;
    settled().await;
    server
        .send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: x-own\r\n\r\ncoded")
        .await;
    leader.head_only().await;
    let mut other = origin.connection().await;
    other.request().await;
    other.send(ok("Cache-Control: max-age=60\r\n", "plain")).await;
    let answer = old.response("GET").await;
    assert_eq!((answer.field("transfer-encoding"), answer.text().as_str()), (None, "plain"));
}

#[tokio::test]
async fn who_reads_along_is_told_the_length_whatever_connection_says() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut leader, mut follower) = (asking(&node, "/a").await, asking(&node, "/a").await);
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("Cache-Control: max-age=60\r\nConnection: content-length\r\n", "content")).await;
    for client in [&mut leader, &mut follower] {
        let answer = client.response("GET").await;
        assert_eq!((answer.field("content-length"), answer.text().as_str()), (Some("7"), "content"));
    }
}

#[tokio::test]
async fn an_answer_for_nobody_that_trickles_is_given_up() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(CHUNKED).await;
    client.head_only().await;
    client.die().await;
    let clock = StillClock::begin();
    let mut seconds = 0;
    while node.figures().not_stored == 0 {
        assert!(seconds < 1000, "{seconds} s for nobody");
        server.send("1\r\nx\r\n").await;
        clock.pass(Duration::from_secs(50)).await;
        seconds += 50;
    }
    drop(clock);
    assert!(server.is_at_end().await);
}

#[tokio::test]
async fn who_has_it_already_is_told_what_the_origin_said_rfc9211_2_3() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = asking(&node, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("Cache-Control: max-age=60\r\nAge: 65\r\nETag: \"a\"\r\n", "old")).await;
    client.response("GET").await;
    let mut leader = asking(&node, "/a").await;
    server.request().await;
    let mut follower = node.client().await;
    follower.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nIf-None-Match: \"b\"\r\n\r\n").await;
    settled().await;
    server.send(ok("Cache-Control: max-age=60\r\nETag: \"b\"\r\n", "new")).await;
    assert_eq!(leader.response("GET").await.text(), "new");
    let answer = follower.response("GET").await;
    assert_eq!((answer.status(), answer.cache_status()), (304, "fwd=stale; fwd-status=200; collapsed"));
}
