//! Upstream connections: who may use which one again, and what happens when the origin closes one of them.

use sidestep::config::Limits;

use crate::simulated::{End, Node, Origin, get, ok, post};

#[tokio::test]
async fn a_connection_serves_the_next_request_of_another_client() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut one, mut two) = (node.client().await, node.client().await);
    one.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "1")).await;
    one.response("GET").await;

    let answer = two.get_from("/2", &mut server, &ok("", "2")).await;

    assert_eq!(answer.text(), "2");
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_while_it_was_idle_is_not_used() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "1")).await;
    client.response("GET").await;

    drop(server);
    client.send(post("/2", "x")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "2")).await;

    assert_eq!(client.response("POST").await.text(), "2");
    assert_eq!((node.figures().upstream_connections, node.figures().upstream_retries), (2, 0));
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_are_never_taken_for_an_answer() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send([ok("", "1"), ok("", "forged")].concat()).await;
    assert_eq!(client.response("GET").await.text(), "1");

    client.send(get("/2")).await;
    let mut next = origin.connection().await;
    next.request().await;
    next.send(ok("", "2")).await;

    assert_eq!(client.response("GET").await.text(), "2");
    let _ = server.end().await;
}

#[tokio::test]
async fn a_get_on_a_connection_that_closes_under_it_is_sent_once_more() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "1")).await;
    client.response("GET").await;

    client.send(get("/2")).await;
    server.request().await;
    drop(server);
    let mut server = origin.connection().await;
    let again = server.request().await;
    server.send(ok("", "2")).await;

    assert_eq!(again.target(), "/2");
    assert_eq!(client.response("GET").await.text(), "2");
    assert_eq!((node.figures().requests, node.figures().upstream_retries), (2, 1));
}

#[tokio::test]
async fn a_get_on_a_connection_that_is_reset_under_it_is_sent_once_more() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "1")).await;
    client.response("GET").await;

    client.send(get("/2")).await;
    server.request().await;
    server.reset();
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "2")).await;

    assert_eq!(client.response("GET").await.text(), "2");
    assert_eq!(node.figures().upstream_retries, 1);
}

#[tokio::test]
async fn a_get_is_not_sent_a_third_time() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "1")).await;
    client.response("GET").await;

    client.send(get("/2")).await;
    server.request().await;
    drop(server);
    let mut server = origin.connection().await;
    server.request().await;
    drop(server);

    assert_eq!(client.end().await, End::Closed);
    assert_eq!((node.figures().upstream_connections, node.figures().errors), (2, 1));
}

#[tokio::test]
async fn a_get_whose_answer_has_begun_is_not_sent_again() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "1")).await;
    client.response("GET").await;

    client.send(get("/2")).await;
    server.request().await;
    server.send("HTTP/1.1 200 O").await;
    drop(server);

    assert_eq!(client.rest().await, (b"HTTP/1.1 200 O".to_vec(), End::Closed));
    assert_eq!(node.figures().upstream_connections, 1);
}

#[tokio::test]
async fn a_post_on_a_connection_that_closes_under_it_is_never_sent_again() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "1")).await;
    client.response("GET").await;

    client.send("POST /2 HTTP/1.1\r\nHost: origin.test\r\n\r\n").await;
    assert_eq!(server.request().await.method(), "POST");
    drop(server);

    assert_eq!(client.end().await, End::Closed);
    assert_eq!((node.figures().upstream_connections, node.figures().upstream_retries), (1, 0));
}

#[tokio::test]
async fn a_post_uses_no_connection_of_another_client() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut one, mut two) = (node.client().await, node.client().await);
    one.send(get("/1")).await;
    let mut of_one = origin.connection().await;
    of_one.request().await;
    of_one.send(ok("", "1")).await;
    one.response("GET").await;

    two.send(post("/2", "x")).await;
    let mut of_two = origin.connection().await;
    assert_eq!(of_two.request().await.text(), "x");
    of_two.send(ok("", "2")).await;
    two.response("POST").await;

    // Each of them has one of its own now.
    one.send(post("/3", "y")).await;
    assert_eq!(of_one.request().await.text(), "y");
    two.send(post("/4", "z")).await;
    assert_eq!(of_two.request().await.text(), "z");
    assert_eq!(node.figures().upstream_connections, 2);
}

#[tokio::test]
async fn a_connection_whose_answer_says_close_is_not_used_again() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/1")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("Connection: close\r\n", "1")).await;

    let answer = client.response("GET").await;

    assert_eq!(answer.field("connection"), None, "the client's own connection stays");
    assert_eq!(server.end().await, End::Closed);
    client.send(get("/2")).await;
    origin.connection().await.request().await;
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_the_limit_says() {
    let origin = Origin::new().await;
    let node = Node::with(&origin, Limits { upstream_idle_per_destination_max: 3, ..Limits::default() });
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for n in 0..8 {
        let mut client = node.client().await;
        client.send(get(&format!("/{n}"))).await;
        let mut server = origin.connection().await;
        server.request().await;
        clients.push(client);
        servers.push(server);
    }

    for (client, server) in clients.iter_mut().zip(&mut servers) {
        server.send(ok("", "")).await;
        client.response("GET").await;
    }

    // The oldest gave way; the last three still serve.
    let last = servers.split_off(5);
    for server in &mut servers {
        assert_eq!(server.end().await, End::Closed);
    }
    for (client, mut server) in clients.iter_mut().skip(5).zip(last) {
        client.get_from("/again", &mut server, &ok("", "")).await;
    }
    assert_eq!(node.figures().upstream_connections, 8);
}
