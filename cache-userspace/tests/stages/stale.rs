//! Stale answers: given only where the response, the policy or the profile allows it, never where it is forbidden.

use std::time::Duration;

use sidestep::policy::StaleAfter;
use sidestep::policy::{Profile, Rules};

use crate::simulated::{Client, End, Node, Origin, StillClock, Wire, get, ok, settled};

/// A node whose store holds a stale answer to `/a`.
async fn stored(node: Node, origin: &Origin, control: &str) -> (Node, Client, Wire) {
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    let fields = format!("Cache-Control: max-age=60{control}\r\nAge: 65\r\nETag: \"a\"\r\n");
    server.send(ok(&fields, "stored")).await;
    assert_eq!(client.response("GET").await.cache_status(), "fwd=uri-miss; stored");
    (node, client, server)
}

fn rfc9111() -> Rules {
    Rules { profile: Profile::Rfc9111, ..Rules::default() }
}

const CONFIRMED: &str = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n";
const ERROR: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nerror";

#[tokio::test]
async fn a_stale_answer_is_given_while_it_is_validated_once_rfc5861_3() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) =
        stored(Node::before(&origin), &origin, ", stale-while-revalidate=60").await;
    for _ in 0..3 {
        let answer = client.get("/a").await;
        assert_eq!(answer.text(), "stored");
        assert_eq!(answer.cache_status(), "hit; ttl=-5; detail=stale-while-revalidate");
    }
    assert_eq!(server.request().await.field("if-none-match"), Some("\"a\""));
    server.send(CONFIRMED).await;
    settled().await;
    while !client.get("/a").await.is_hit() {}
    let f = node.figures();
    assert!(f.stale >= 3 && f.upstream_connections == 1, "{f:?}");
}

#[tokio::test]
async fn whatever_part_was_asked_for_the_whole_is_validated_behind_it() {
    let origin = Origin::new().await;
    for (ask, method) in [
        ("GET /a HTTP/1.1\r\nHost: origin.test\r\nRange: bytes=0-1\r\n\r\n", "GET"),
        ("GET /a HTTP/1.1\r\nHost: origin.test\r\nIf-None-Match: \"mine\"\r\n\r\n", "GET"),
        ("GET /a HTTP/1.1\r\nHost: origin.test\r\nCache-Control: only-if-cached\r\n\r\n", "GET"),
        ("HEAD /a HTTP/1.1\r\nHost: origin.test\r\n\r\n", "HEAD"),
    ] {
        let node = Node::before(&origin);
        let (_node, mut client, mut server) = stored(node, &origin, ", stale-while-revalidate=60").await;
        client.send(ask).await;
        let answer = client.response(method).await;
        assert!(answer.cache_status().ends_with("detail=stale-while-revalidate"), "{ask}: {answer:?}");
        let asked = server.request().await;
        assert!(asked.start.starts_with("GET "), "{asked:?}");
        assert_eq!(asked.field("if-none-match"), Some("\"a\""));
        assert_eq!((asked.field("range"), asked.field("cache-control")), (None, None));
        server.send(CONFIRMED).await;
        while !client.get("/a").await.is_hit() {}
    }
}

#[tokio::test]
async fn beyond_the_window_nothing_stale_is_given() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) =
        stored(Node::before(&origin), &origin, ", stale-while-revalidate=4, stale-if-error=4").await;
    let answer = client.get_from("/a", &mut server, ERROR).await;
    assert_eq!((answer.status(), answer.text().as_str()), (503, "error"));
}

#[tokio::test]
async fn an_error_is_replaced_where_stale_if_error_allows_rfc5861_4() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(Node::before(&origin), &origin, ", stale-if-error=60").await;
    for status in ["500", "502", "503", "504"] {
        client.send(get("/a")).await;
        server.request().await;
        server.send(format!("HTTP/1.1 {status} E\r\nContent-Length: 0\r\n\r\n")).await;
        let answer = client.response("GET").await;
        let expected = format!("fwd=stale; fwd-status={status}; ttl=-5; detail=stale-if-error");
        assert_eq!((answer.text().as_str(), answer.cache_status()), ("stored", expected.as_str()));
    }
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nCache-Control: max-age=0\r\n\r\n";
    let answer = client.get_from("/a", &mut server, missing).await;
    assert_eq!(answer.status(), 404, "an answer that is no such error is passed on");
    assert_eq!(node.figures().stale, 4);
}

#[tokio::test]
async fn a_dead_origin_is_replaced_where_that_is_allowed() {
    let refused = |origin: Origin| drop(origin);
    for (rules, control, is_given) in [
        (Rules::default(), ", stale-if-error=60", true),
        (Rules::default(), "", false),
        (Rules { stale_if_error: Some(Duration::from_secs(60)), ..Rules::default() }, "", true),
        (rfc9111(), "", true),
    ] {
        let origin = Origin::new().await;
        let (node, mut client, server) = stored(Node::by(rules, &origin), &origin, control).await;
        server.reset();
        refused(origin);
        settled().await;
        client.send(get("/a")).await;
        if is_given {
            let answer = client.response("GET").await;
            assert_eq!(answer.text(), "stored");
            assert_eq!(answer.cache_status(), "fwd=stale; ttl=-5; detail=stale-on-disconnect");
            assert_eq!(node.figures().stale, 1);
        } else {
            assert_eq!(client.end().await, End::Reset, "as without us");
        }
    }
}

#[tokio::test]
async fn what_must_be_validated_is_our_504_when_the_origin_is_gone_rfc9111_5_2_2_2() {
    for directive in
        [", must-revalidate", ", proxy-revalidate", ", s-maxage=60", ", no-cache, stale-if-error=60"]
    {
        for rules in [Rules::default(), rfc9111()] {
            let origin = Origin::new().await;
            let (node, mut client, server) = stored(Node::by(rules, &origin), &origin, directive).await;
            server.reset();
            drop(origin);
            settled().await;
            client.send(get("/a")).await;
            let answer = client.response("GET").await;
            assert_eq!(answer.status(), 504, "{directive}");
            assert_eq!(answer.cache_status(), "detail=must-revalidate");
            assert_eq!(node.figures().errors, 1);
        }
    }
}

fn allowing() -> Rules {
    Rules { stale_after: true, ..Rules::default() }
}

/// Asks for what is stale and lets the origin be late.
async fn late(rules: Rules, control: &str, is_given: bool) {
    let origin = Origin::new().await;
    let node = Node::impatient(StaleAfter::Fixed(Duration::from_millis(300)), rules, &origin);
    let (node, mut client, mut server) = stored(node, &origin, control).await;
    client.send(get("/a")).await;
    server.request().await;
    let clock = StillClock::begin();
    clock.pass(Duration::from_millis(290)).await;
    assert_eq!(node.figures().stale, 0);
    clock.pass(Duration::from_millis(20)).await;
    assert_eq!(node.figures().stale, u64::from(is_given));
    drop(clock);
    if is_given {
        let answer = client.response("GET").await;
        assert_eq!(answer.cache_status(), "fwd=stale; ttl=-5; detail=stale-after");
        // The validation goes on and counts.
        server.send(CONFIRMED).await;
        while !client.get("/a").await.is_hit() {}
    } else {
        server.send(CONFIRMED).await;
        assert_eq!(client.response("GET").await.cache_status(), "fwd=stale; fwd-status=304");
    }
}

#[tokio::test]
async fn a_late_answer_is_replaced_where_policy_says_so() {
    late(allowing(), "", true).await;
}

#[tokio::test]
async fn a_late_answer_is_replaced_within_stale_if_error() {
    late(Rules::default(), ", stale-if-error=60", true).await;
}

#[tokio::test]
async fn a_late_answer_is_waited_for_where_nothing_allows_another() {
    late(Rules::default(), "", false).await;
}

#[tokio::test]
async fn a_late_answer_is_waited_for_where_validation_is_demanded_rfc9111_5_2_2_2() {
    late(allowing(), ", must-revalidate", false).await;
}

#[tokio::test]
async fn an_answer_in_time_is_given_as_it_is() {
    let origin = Origin::new().await;
    let node = Node::impatient(
        StaleAfter::Fixed(Duration::from_secs(3600)),
        Rules { stale_after: true, ..Rules::default() },
        &origin,
    );
    let (node, mut client, mut server) = stored(node, &origin, "").await;
    let answer = client.get_from("/a", &mut server, &ok("Cache-Control: max-age=60\r\n", "new")).await;
    assert_eq!(answer.text(), "new");
    assert_eq!(node.figures().stale, 0);
}

#[tokio::test]
async fn a_late_answer_is_replaced_for_everybody_who_asks_meanwhile() {
    let origin = Origin::new().await;
    let node = Node::impatient(StaleAfter::Fixed(Duration::from_millis(300)), allowing(), &origin);
    let (node, mut client, mut server) = stored(node, &origin, "").await;
    client.send(get("/a")).await;
    server.request().await;
    let clock = StillClock::begin();
    clock.pass(Duration::from_millis(310)).await;
    let mut later = node.client().await;
    later.send(get("/a")).await;
    settled().await;
    assert_eq!(node.figures().stale, 2, "the answer is late already for who comes now");
    drop(clock);
    for client in [&mut client, &mut later] {
        assert_eq!(client.response("GET").await.cache_status(), "fwd=stale; ttl=-5; detail=stale-after");
    }
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn a_validation_that_nobody_waits_for_is_given_up_where_the_origin_is_silent() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) =
        stored(Node::before(&origin), &origin, ", stale-while-revalidate=600").await;
    assert_eq!(client.get("/a").await.text(), "stored");
    server.request().await;
    let clock = StillClock::begin();
    clock.pass(Duration::from_secs(70)).await;
    assert!(server.is_at_end().await);
    drop(clock);
}

#[tokio::test]
async fn a_connection_with_a_login_stays_its_clients_also_after_an_error_that_was_replaced() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) =
        stored(Node::before(&origin), &origin, ", public, stale-if-error=60").await;
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nAuthorization: Negotiate abc\r\n\r\n").await;
    server.request().await;
    server.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response("GET").await.text(), "stored");
    let mut other = node.client().await;
    other.send(get("/b")).await;
    let mut server = origin.connection().await;
    assert_eq!(server.request().await.target(), "/b");
    server.send(ok("", "b")).await;
    assert_eq!(other.response("GET").await.text(), "b");
}

#[tokio::test]
async fn a_silent_origin_is_replaced_for_as_long_as_it_is_silent_and_asked_once_a_minute() {
    let origin = Origin::new().await;
    let node = Node::impatient(StaleAfter::Fixed(Duration::from_millis(300)), allowing(), &origin);
    let (node, mut client, mut server) = stored(node, &origin, "").await;
    let clock = StillClock::begin();
    for seen in 1..=11 {
        client.send(get("/a")).await;
        clock.pass(Duration::from_secs(5)).await;
        assert_eq!(node.figures().stale, seen);
        assert_eq!(client.response("GET").await.text(), "stored");
    }
    drop(clock);
    server.request().await;
    assert_eq!(node.figures().upstream_connections, 1);
}
