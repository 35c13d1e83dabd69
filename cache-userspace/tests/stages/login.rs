//! Logins that belong to a connection, not to a request (NTLM, Negotiate: RFC 4559): one client's login must not
//! speak for another one.

use crate::simulated::{Client, Node, Origin, Wire, fresh, get, ok};

const HOST: &str = "Host: origin.test\r\n";

/// A node, and a client that logged in on its upstream connection.
async fn logged_in(origin: &Origin, challenge: &str) -> (Node, Client, Wire) {
    let node = Node::before(origin);
    let mut client = node.client().await;
    client.send(get("/login")).await;
    let mut server = origin.connection().await;
    server.request().await;
    let refusal = format!("HTTP/1.1 401 Unauthorized\r\n{challenge}Content-Length: 0\r\n\r\n");
    server.send(refusal).await;
    client.response("GET").await;
    client.send(format!("GET /login HTTP/1.1\r\n{HOST}Authorization: NTLM TlRMTVNTUAAD\r\n\r\n")).await;
    assert!(server.request().await.field("authorization").is_some());
    server.send(ok("", "welcome")).await;
    assert_eq!(client.response("GET").await.text(), "welcome");
    (node, client, server)
}

/// Whether the next request of another client comes on a new connection.
async fn another_client_gets_a_connection_of_its_own(origin: &Origin, node: &Node) {
    let mut other = node.client().await;
    other.send(get("/secret")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("", "who are you?")).await;
    assert_eq!(other.response("GET").await.text(), "who are you?");
}

#[tokio::test]
async fn a_connection_that_somebody_logged_in_on_serves_nobody_else() {
    for challenge in [
        "WWW-Authenticate: NTLM\r\n",
        "WWW-Authenticate: Negotiate\r\n",
        "www-authenticate: negotiate YII=\r\n",
        "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: NTLM\r\n",
        "WWW-Authenticate: Basic realm=\"a\", NTLM\r\n",
        "WWW-Authenticate: Basic realm=\"a, b\",Negotiate,NTLM\r\n",
    ] {
        let origin = Origin::new().await;
        let node = Node::before(&origin);
        let mut client = node.client().await;
        client.send(get("/login")).await;
        let mut server = origin.connection().await;
        server.request().await;
        server.send(format!("HTTP/1.1 401 Unauthorized\r\n{challenge}Content-Length: 0\r\n\r\n")).await;
        client.response("GET").await;

        another_client_gets_a_connection_of_its_own(&origin, &node).await;

        assert_eq!(node.figures().upstream_connections, 2, "{challenge}");
    }
}

#[tokio::test]
async fn whoever_logged_in_keeps_the_connection() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = logged_in(&origin, "WWW-Authenticate: NTLM\r\n").await;

    let answer = client.get_from("/secret", &mut server, &ok("", "for you")).await;

    assert_eq!(answer.text(), "for you");
    another_client_gets_a_connection_of_its_own(&origin, &node).await;
}

#[tokio::test]
async fn an_answer_that_a_login_of_the_connection_got_is_not_shared() {
    let origin = Origin::new().await;
    let (node, mut client, mut server) = logged_in(&origin, "WWW-Authenticate: NTLM\r\n").await;

    let answer = client.get_from("/secret", &mut server, &fresh("for you only")).await;

    assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=connection");
    another_client_gets_a_connection_of_its_own(&origin, &node).await;
}
