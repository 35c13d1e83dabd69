//! No-Vary-Search through the path: one stored response for all queries that its rule holds for equivalent.

use std::time::{Duration, SystemTime};

use sidestep::policy::{Profile, Rules};

use crate::simulated::{Client, Node, Origin, Wire, fresh, get, ok, post, settled};

const RULE: &str =
    "Cache-Control: max-age=60\r\nETag: \"a\"\r\nNo-Vary-Search: key-order, params=(\"utm\")\r\n";

/// A node whose store holds an answer to `target` with the rule.
async fn stored(node: Node, origin: &Origin, target: &str) -> (Node, Client, Wire) {
    let mut client = node.client().await;
    client.send(get(target)).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok(RULE, "stored")).await;
    assert_eq!(client.response("GET").await.cache_status(), "fwd=uri-miss; stored");
    (node, client, server)
}

#[tokio::test]
async fn equivalent_queries_are_answered_by_one_response() {
    for profile in [Profile::Safe, Profile::Rfc9111] {
        let origin = Origin::new().await;
        let node = Node::by(Rules { profile, ..Rules::default() }, &origin);
        let (node, mut client, mut server) = stored(node, &origin, "/p?a=1&b=2&utm=x").await;
        for target in ["/p?a=1&b=2&utm=x", "/p?a=1&b=2", "/p?b=2&utm=y&a=1", "/p?utm=&b=%32&a=1&"] {
            let answer = client.get(target).await;
            assert!(answer.is_hit() && answer.text() == "stored", "{target}: {answer:?}");
        }
        for target in ["/p?a=1", "/p?a=1&b=3", "/p", "/p/?a=1&b=2", "/P?a=1&b=2"] {
            let answer =
                client.get_from(target, &mut server, &ok("Cache-Control: no-store\r\n", "other")).await;
            assert_eq!(
                (answer.text().as_str(), &answer.cache_status()[..12]),
                ("other", "fwd=uri-miss"),
                "{target}"
            );
        }
        client.send("HEAD /p?b=2&a=1 HTTP/1.1\r\nHost: origin.test\r\n\r\n").await;
        assert!(client.response("HEAD").await.is_hit());
        assert_eq!(node.figures().hits, 5);
    }
}

#[tokio::test]
async fn another_host_or_workload_is_not_answered() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(Node::before(&origin), &origin, "/p?utm=x").await;
    client.send("GET /p HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    server.request().await;
    server.send(fresh("other")).await;
    assert_eq!(client.response("GET").await.text(), "other");
    let mut other = node.client_of("elsewhere").await;
    assert_eq!(other.get_from("/p", &mut server, &fresh("theirs")).await.text(), "theirs");
}

#[tokio::test]
async fn a_write_to_any_query_of_the_path_invalidates_what_answers_several() {
    let origin = Origin::new().await;
    for target in ["/p?a=1&utm=x", "/p?a=1", "/p?a=1&utm=y", "/p"] {
        let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, "/p?a=1&utm=x").await;
        client.send(post(target, "x")).await;
        server.request().await;
        server.send(ok("", "")).await;
        client.response("POST").await;
        let answer = client.get_from("/p?a=1", &mut server, &fresh("new")).await;
        assert_eq!(answer.text(), "new", "after a write to {target}");
    }
}

#[tokio::test]
async fn a_fill_that_began_before_such_a_write_is_dead() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = stored(Node::before(&origin), &origin, "/p?a=1&utm=x").await;
    client.send(get("/p?a=2&utm=x")).await;
    server.request().await;
    let mut writer = node.client().await;
    writer.send(post("/p?a=2", "x")).await;
    let mut second = origin.connection().await;
    second.request().await;
    second.send(ok("", "")).await;
    writer.response("POST").await;
    server.send(ok(RULE, "old")).await;
    assert_eq!(client.response("GET").await.text(), "old");
    settled().await;
    client.send(get("/p?a=2&utm=x")).await;
    let asked = tokio::select! { asked = server.request() => asked, asked = second.request() => asked };
    assert_eq!(asked.target(), "/p?a=2&utm=x");
}

#[tokio::test]
async fn a_response_for_an_equivalent_query_is_validated_and_freshened() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/p?utm=x")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok(&format!("{RULE}Age: 60\r\n"), "stored")).await;
    client.response("GET").await;
    client.send(get("/p?utm=y")).await;
    let asked = server.request().await;
    assert_eq!((asked.target(), asked.field("if-none-match")), ("/p?utm=y", Some("\"a\"")));
    server.send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n").await;
    let answer = client.response("GET").await;
    assert_eq!((answer.text().as_str(), answer.cache_status()), ("stored", "fwd=stale; fwd-status=304"));
    assert!(client.get("/p?utm=z").await.is_hit());
}

#[tokio::test]
async fn the_newest_by_date_of_those_that_may_answer_does_rfc9111_4() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    let made = |seconds_ago: u64, more: &str| {
        let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(seconds_ago));
        format!("Cache-Control: max-age=60\r\nDate: {date}\r\n{more}")
    };
    client.send(get("/p?a=1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok(&made(30, ""), "own")).await;
    client.response("GET").await;
    client.get_from("/p?a=2", &mut server, &ok(&made(20, "No-Vary-Search: params\r\n"), "any")).await;
    assert_eq!(client.get("/p?a=1").await.text(), "any");
    client.send("GET /p?a=1 HTTP/1.1\r\nHost: origin.test\r\nCache-Control: no-cache\r\n\r\n").await;
    server.request().await;
    server.send(ok(&made(10, ""), "own again")).await;
    client.response("GET").await;
    for (target, text) in [("/p?a=1", "own again"), ("/p?a=2", "any"), ("/p", "any")] {
        let answer = client.get(target).await;
        assert!(answer.is_hit() && answer.text() == text, "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn each_response_of_a_path_is_judged_by_its_own_rule() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(Node::before(&origin), &origin, "/p?a=1&utm=x").await;
    let wide = "Cache-Control: max-age=60\r\nNo-Vary-Search: params\r\n";
    assert_eq!(client.get_from("/p?a=2", &mut server, &ok(wide, "any")).await.text(), "any");
    assert_eq!(client.get("/p?b=7").await.text(), "any");
    let plain = client.get_from("/q?a=1", &mut server, &fresh("plain")).await;
    assert_eq!(plain.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(
        client.get_from("/q?a=2", &mut server, &fresh("other")).await.text(),
        "other",
        "a path without rules"
    );
}

#[tokio::test]
async fn variants_of_equivalent_queries_are_selected_by_vary_rfc9111_4_1() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    let ask = |target: &str, language: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: origin.test\r\nAccept-Language: {language}\r\n\r\n")
    };
    client.send(ask("/p?utm=x", "en")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok(&format!("{RULE}Vary: Accept-Language\r\n"), "english")).await;
    client.response("GET").await;
    client.send(ask("/p?utm=y", "de")).await;
    server.request().await;
    server.send(ok(&format!("{RULE}Vary: Accept-Language\r\n"), "deutsch")).await;
    assert_eq!(client.response("GET").await.cache_status(), "fwd=vary-miss; stored");
    for (language, text) in [("en", "english"), ("de", "deutsch")] {
        client.send(ask("/p?utm=z", language)).await;
        let answer = client.response("GET").await;
        assert!(answer.is_hit() && answer.text() == text, "{answer:?}");
    }
}
