//! Many clients, one forward request: who waits, who goes alone, and what happens when a leader or a client is lost.

use std::time::Duration;

use sidestep::config::Limits;

use crate::simulated::{Client, End, Node, Origin, StillClock, fresh, get, ok, post, settled};

/// So many clients that have all asked for the same.
async fn asking(node: &Node, count: usize, target: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = node.client().await;
        client.send(get(target)).await;
        clients.push(client);
    }
    settled().await;
    clients
}

#[tokio::test]
async fn requests_arriving_during_a_fetch_share_it() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut clients = asking(&node, 3, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("content")).await;

    let mut statuses = Vec::new();
    for client in &mut clients {
        let answer = client.response("GET").await;
        assert_eq!(answer.text(), "content");
        statuses.push(answer.cache_status().to_owned());
    }
    statuses.sort();
    assert_eq!(statuses, ["fwd=uri-miss; collapsed", "fwd=uri-miss; collapsed", "fwd=uri-miss; stored"]);
    let f = node.figures();
    assert_eq!((f.misses, f.collapsed, f.upstream_connections), (1, 2, 1));
}

#[tokio::test]
async fn waiters_read_along_while_the_answer_is_still_coming() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut clients = asking(&node, 3, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfirst").await;
    for client in &mut clients {
        client.head_only().await;
        assert_eq!(client.bytes(5).await, b"first");
    }
    let mut late = node.client().await;
    late.send(get("/a")).await;
    late.head_only().await;
    assert_eq!(late.bytes(5).await, b"first", "who comes later begins at the beginning");
    server.send("rest.").await;
    for client in clients.iter_mut().chain([&mut late]) {
        assert_eq!(client.bytes(5).await, b"rest.");
    }
    assert!(node.client().await.get("/a").await.is_hit());
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn the_others_finish_when_the_first_client_dies_before_the_answer() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut leader = asking(&node, 1, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    let mut clients = asking(&node, 3, "/a").await;
    leader.remove(0).die().await;
    server.send(fresh("content")).await;
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "content");
    }
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn the_others_finish_when_the_first_client_dies_within_the_answer() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut leader = asking(&node, 1, "/a").await.remove(0);
    let mut server = origin.connection().await;
    server.request().await;
    let mut clients = asking(&node, 3, "/a").await;
    server.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfirst").await;
    leader.head_only().await;
    leader.die().await;
    server.send("rest.").await;
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "firstrest.");
    }
    assert!(node.client().await.get("/a").await.is_hit());
}

#[tokio::test]
async fn an_answer_is_stored_though_its_only_client_left() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = asking(&node, 1, "/a").await.remove(0);
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nfirst").await;
    client.head_only().await;
    client.die().await;
    server.send("rest.").await;
    node.reaches(|figures| figures.stored == 1).await;
    let answer = node.client().await.get("/a").await;
    assert!(answer.is_hit() && answer.text() == "firstrest.");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_is_given_up() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let client = asking(&node, 1, "/a").await.remove(0);
    let mut server = origin.connection().await;
    server.request().await;
    client.die().await;
    server.end().await;
}

#[tokio::test]
async fn what_may_not_be_shared_is_forwarded_for_each_without_waiting_again() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut clients = asking(&node, 5, "/a").await;
    let mut first = origin.connection().await;
    first.request().await;
    first.send(ok("Cache-Control: private\r\nConnection: close\r\n", "mine")).await;
    for _ in 1..5 {
        let mut server = origin.connection().await;
        server.request().await;
        server.send(ok("Cache-Control: private\r\nConnection: close\r\n", "mine")).await;
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "mine");
    }
    // Known by now: the next ones do not even wait for the first of them.
    let mut clients = asking(&node, 2, "/a").await;
    let mut servers = [origin.connection().await, origin.connection().await];
    for server in &mut servers {
        server.request().await;
    }
    for server in &mut servers {
        server.send(ok("Cache-Control: private\r\nConnection: close\r\n", "mine")).await;
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").await.cache_status(), "fwd=uri-miss; detail=private");
    }
    assert_eq!(node.figures().collapsed, 0);
}

#[tokio::test]
async fn an_answer_that_varies_serves_only_those_that_asked_alike() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let ask = |language: &str| {
        format!("GET /a HTTP/1.1\r\nHost: origin.test\r\nAccept-Language: {language}\r\n\r\n")
    };
    let mut clients = Vec::new();
    for language in ["de", "fr", "de", "fr"] {
        let mut client = node.client().await;
        client.send(ask(language)).await;
        settled().await;
        clients.push(client);
    }
    let answer = |language: &str| ok("Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", language);
    for _ in 0..2 {
        let mut server = origin.connection().await;
        let asked = server.request().await.field("accept-language").unwrap().to_owned();
        server.send(answer(&asked)).await;
    }
    for (client, language) in clients.iter_mut().zip(["de", "fr", "de", "fr"]) {
        assert_eq!(client.response("GET").await.text(), language);
    }
    let f = node.figures();
    assert_eq!((f.misses, f.collapsed), (2, 2));
}

#[tokio::test]
async fn two_identities_make_two_forward_requests() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let ask =
        |who: &str| format!("GET /a HTTP/1.1\r\nHost: origin.test\r\nAuthorization: Bearer {who}\r\n\r\n");
    let (mut one, mut other) = (node.client().await, node.client().await);
    one.send(ask("one")).await;
    settled().await;
    other.send(ask("other")).await;
    for _ in 0..2 {
        let mut server = origin.connection().await;
        let who = server.request().await.field("authorization").unwrap().to_owned();
        server.send(ok("Cache-Control: max-age=60\r\n", &who)).await;
    }
    assert_eq!(one.response("GET").await.text(), "Bearer one");
    assert_eq!(other.response("GET").await.text(), "Bearer other");
}

#[tokio::test]
async fn two_partitions_make_two_forward_requests() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut one, mut other) = (node.client().await, node.client_of("another").await);
    one.send(get("/a")).await;
    other.send(get("/a")).await;
    for content in ["x", "y"] {
        let mut server = origin.connection().await;
        server.request().await;
        server.send(fresh(content)).await;
    }
    let mut answers = [one.response("GET").await.text(), other.response("GET").await.text()];
    answers.sort();
    assert_eq!(answers, ["x", "y"]);
    assert_eq!(node.figures().collapsed, 0);
}

#[tokio::test]
async fn nobody_waits_longer_than_the_lock_timeout() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut leader = node.client().await;
    leader.send(get("/a")).await;
    let mut slow = origin.connection().await;
    slow.request().await;
    let mut waiter = node.client().await;
    waiter.send(get("/a")).await;
    let clock = StillClock::begin();
    let waited = clock.pass_until(|| node.figures().collapse_timeouts == 1).await;
    assert!((5..6).contains(&waited.as_secs()), "{waited:?}");
    drop(clock);
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("quick")).await;
    assert_eq!(waiter.response("GET").await.text(), "quick");
    slow.send(fresh("slow")).await;
    assert_eq!(leader.response("GET").await.text(), "slow");
}

#[tokio::test]
async fn a_write_during_a_slow_fill_keeps_later_requests_out_of_it() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut reader = node.client().await;
    reader.send(get("/a")).await;
    let mut slow = origin.connection().await;
    slow.request().await;
    let mut waiter = node.client().await;
    waiter.send(get("/a")).await;
    settled().await;

    let mut writer = node.client().await;
    writer.send(post("/a", "new")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "")).await;
    writer.response("POST").await;

    let mut later = node.client().await;
    later.send(get("/a")).await;
    assert_eq!(server.request().await.target(), "/a", "it does not join the fill");
    server.send(fresh("new")).await;
    assert_eq!(later.response("GET").await.text(), "new");
    slow.send(fresh("old")).await;
    assert_eq!(reader.response("GET").await.text(), "old", "its own answer");
    let waited = waiter.response("GET").await;
    assert_eq!(waited.text(), "new", "who waited is not given what is outdated");
    assert_eq!(node.client().await.get("/a").await.text(), "new", "nor is it stored");
}

#[tokio::test]
async fn followers_of_a_failed_leader_go_alone() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut clients = asking(&node, 3, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.reset();
    for _ in 1..3 {
        let mut server = origin.connection().await;
        server.request().await;
        server.send(fresh("content")).await;
    }
    let mut ends = Vec::new();
    for client in &mut clients {
        let answer = client.any_response("GET").await;
        ends.push(answer.cut);
    }
    ends.sort_by_key(Option::is_some);
    assert_eq!(ends, [None, None, Some(End::Reset)]);
}

#[tokio::test]
async fn a_thousand_clients_of_one_cold_key_make_one_forward_request() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut clients = asking(&node, 1000, "/a").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("content")).await;
    for client in &mut clients {
        assert_eq!(client.response("GET").await.text(), "content");
    }
    let f = node.figures();
    assert_eq!((f.misses, f.hits + f.collapsed, f.upstream_connections), (1, 999, 1));
}

#[tokio::test]
async fn a_thousand_clients_of_an_uncacheable_url_are_all_with_the_origin_at_once() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut clients = asking(&node, 1000, "/a").await;
    let mut first = origin.connection().await;
    first.request().await;
    first.send(ok("Cache-Control: no-store\r\nConnection: close\r\n", "mine")).await;
    // None of them is answered before all have arrived.
    let mut servers = Vec::new();
    for _ in 0..999 {
        let mut server = origin.connection().await;
        server.request().await;
        servers.push(server);
    }
    for server in &mut servers {
        server.send(ok("Cache-Control: no-store\r\nConnection: close\r\n", "mine")).await;
    }
    let mut answered = 0;
    for client in &mut clients {
        answered += usize::from(client.response("GET").await.text() == "mine");
    }
    assert_eq!(answered, 1000);
}

#[tokio::test]
async fn a_destination_gets_so_many_requests_at_a_time_and_more_after_a_while() {
    let origin = Origin::new().await;
    let limits = Limits { origin_requests_max: 2, ..Limits::default() };
    let node = Node::with(&origin, limits);
    let mut clients = Vec::new();
    for target in ["/a", "/b", "/c"] {
        clients.append(&mut asking(&node, 1, target).await);
    }
    let mut servers = [origin.connection().await, origin.connection().await];
    for server in &mut servers {
        server.request().await;
    }
    assert_eq!(node.figures().upstream_connections, 2);
    servers[0].send(fresh("a")).await;
    assert_eq!(clients[0].response("GET").await.text(), "a");
    assert_eq!(servers[0].request().await.target(), "/c");

    let mut fourth = asking(&node, 1, "/d").await;
    let clock = StillClock::begin();
    let waited = clock.pass_until(|| node.figures().origin_turns_late == 1).await;
    assert!(waited < Duration::from_millis(1200), "{waited:?}");
    drop(clock);
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("d")).await;
    assert_eq!(fourth[0].response("GET").await.text(), "d");
}
