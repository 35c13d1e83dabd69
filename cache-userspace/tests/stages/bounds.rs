//! Every bound at its limit: how much is held for a peer that does not read, and what happens to what is too long or
//! too many.

use sidestep::config::Limits;
use sidestep::http1::head::FIELD_LINES_MAX;
use sidestep::store::StoreLimits;

use crate::simulated::{Client, End, Node, Origin, StillClock, Wire, fresh, get, ok, within};

/// What the origin or the client tries to send: far more than anything may hold.
const FLOOD: usize = 64 << 20;
/// What the path may hold of one answer: the write queue and one read, twice over.
const HELD_MAX: u64 = 1 << 20;

/// A node of small kernel buffers, with a request at the origin.
async fn asked(request: &str) -> (Origin, Node, Client, Wire) {
    let origin = Origin::with_small_buffers();
    let node = Node::before(&origin);
    let mut client = node.client_with_small_buffers().await;
    client.send(request).await;
    let mut server = origin.connection().await;
    server.head_only().await;
    (origin, node, client, server)
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_origin_back() {
    let (_origin, node, mut client, mut server) = asked(&get("/a")).await;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n")).await;

    let sent = server.flood(FLOOD).await;

    assert!(sent < FLOOD);
    let held = node.figures().bytes_from_origin;
    assert!(held <= HELD_MAX, "{held} bytes are held for a client that reads nothing");
    client.head_only().await;
    let content = client.bytes(sent).await;
    assert!(content.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn an_answer_that_is_to_be_stored_is_held_back_once_the_store_refuses_it() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client_with_small_buffers().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    server.send(format!("{FLOOD:x}\r\n")).await;

    server.flood(FLOOD).await;

    // Until then it does not wait for its client, for others may want it.
    let taken = node.figures().bytes_from_origin;
    let object_bytes_max = StoreLimits::default().object_bytes_max;
    assert!((object_bytes_max..=object_bytes_max + HELD_MAX).contains(&taken), "{taken}");
}

#[tokio::test]
async fn an_origin_that_does_not_read_holds_the_client_back() {
    let request = format!("POST /a HTTP/1.1\r\nHost: origin.test\r\nContent-Length: {FLOOD}\r\n\r\n");
    let (_origin, _node, mut client, mut server) = asked(&request).await;

    let sent = client.flood(FLOOD).await;

    // The node's own upstream socket has the kernel's default size, of a few megabytes.
    assert!(sent < FLOOD / 4, "{sent}");
    assert!(server.bytes(sent).await.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn an_answer_larger_than_the_store_takes_is_passed_on_whole_and_not_stored() {
    const LARGE: usize = 17 << 20;
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    let mut answer =
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    answer.extend_from_slice(format!("{LARGE:x}\r\n").as_bytes());
    answer.resize(answer.len() + LARGE, b'x');
    answer.extend_from_slice(b"\r\n0\r\n\r\n");

    let (_, answer) = tokio::join!(server.send(answer), client.response("GET"));

    assert_eq!(answer.content.len(), LARGE);
    assert_eq!((node.figures().stored, node.figures().not_stored), (0, 1));
}

#[tokio::test]
async fn a_head_that_never_ends_is_relayed_at_its_limit() {
    let origin = Origin::new().await;
    let limits = Limits { head_bytes_max: 4096, ..Limits::default() };
    let node = Node::with(&origin, limits);
    let head = |bytes: usize| {
        let start = "GET /a HTTP/1.1\r\nHost: origin.test\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    let mut client = node.client().await;
    client.send(head(4096)).await;
    let mut server = origin.connection().await;
    assert_eq!(server.request().await.target(), "/a");
    server.send(ok("", "")).await;
    client.response("GET").await;
    assert_eq!(node.figures().passthrough_malformed, 0);

    for begun in [head(4097), head(8192), head(100_000)[..5000].to_owned()] {
        let before = node.figures().passthrough_malformed;
        let mut client = node.client().await;
        client.send(&begun).await;
        let mut server = origin.connection().await;
        assert_eq!(server.bytes(begun.len()).await, begun.as_bytes());
        assert_eq!(node.figures().passthrough_malformed, before + 1);
    }
}

#[tokio::test]
async fn a_request_line_that_never_ends_is_relayed_at_the_same_limit() {
    let origin = Origin::new().await;
    let node = Node::with(&origin, Limits { head_bytes_max: 4096, ..Limits::default() });
    let mut client = node.client().await;
    let line = format!("GET /{}", "a".repeat(5000));

    client.send(&line).await;

    let mut server = origin.connection().await;
    assert_eq!(server.bytes(line.len()).await, line.as_bytes());
}

#[tokio::test]
async fn an_answer_s_head_that_never_ends_is_relayed_at_its_limit() {
    let origin = Origin::new().await;
    let node = Node::with(&origin, Limits { head_bytes_max: 4096, ..Limits::default() });
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(8000));

    server.send(&head).await;

    assert_eq!(client.bytes(head.len()).await, head.as_bytes());
    assert_eq!(node.figures().uncacheable, 1);
}

#[tokio::test]
async fn more_field_lines_than_the_limit_are_relayed() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    for (lines, relayed) in [(FIELD_LINES_MAX, 0), (FIELD_LINES_MAX + 1, 1)] {
        let fields = "X: y\r\n".repeat(lines - 1);
        let mut client = node.client().await;
        client.send(format!("GET /a HTTP/1.1\r\nHost: origin.test\r\n{fields}\r\n")).await;

        let mut server = origin.connection().await;
        assert_eq!(server.request().await.fields.len(), lines);
        server.send(ok("Connection: close\r\n", "")).await;
        client.response("GET").await;
        assert_eq!(node.figures().passthrough_malformed, relayed, "{lines}");
    }
}

#[tokio::test]
async fn a_request_s_trailer_section_that_is_too_large_is_refused() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    for trailers in ["X: y\r\n".repeat(65), format!("X: {}\r\n", "y".repeat(17 * 1024)), "y".repeat(40_000)] {
        let mut client = node.client().await;
        client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").await;
        let mut server = origin.connection().await;
        server.head_only().await;

        client.send(format!("{trailers}\r\n")).await;

        assert_eq!(client.response("POST").await.status(), 400);
        assert_eq!(client.end().await, End::Closed);
        let (rest, _) = server.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "the origin must not take the request for complete");
    }
}

#[tokio::test]
async fn an_answer_s_trailer_section_that_is_too_large_breaks_it_off() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n").await;

    server.send(format!("1\r\na\r\n0\r\nX: {}\r\n\r\n", "y".repeat(17 * 1024))).await;

    let got = client.any_response("GET").await;
    assert_eq!((got.text().as_str(), got.cut), ("a", Some(End::Closed)));
    assert_eq!(node.figures().stored, 0);
}

#[tokio::test]
async fn ten_thousand_requests_in_one_write_are_answered_in_order() {
    const COUNT: usize = 10_000;
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/0")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh("0")).await;
    client.response("GET").await;
    for n in 1..10 {
        client.get_from(&format!("/{n}"), &mut server, &fresh(&n.to_string())).await;
    }
    let mut reader = node.client().await;
    let requests: String = (0..COUNT).map(|n| get(&format!("/{}", n * 7 % 10))).collect();

    let sender = reader.sender();
    let write = sender.send(requests);
    let read = async {
        for n in 0..COUNT {
            let answer = reader.response("GET").await;
            assert_eq!(answer.text(), (n * 7 % 10).to_string(), "answer {n}");
        }
    };
    tokio::join!(write, read);

    assert_eq!(node.figures().hits, COUNT as u64);
}

#[tokio::test]
async fn a_client_that_pipelines_and_does_not_read_is_held_back() {
    let origin = Origin::with_small_buffers();
    let node = Node::before(&origin);
    let mut client = node.client_with_small_buffers().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh(&"a".repeat(10_000))).await;
    client.response("GET").await;

    let requests = get("/a").repeat(100_000);
    let sent = client.push(requests.as_bytes()).await;

    assert!(sent < requests.len() / 4, "{sent} bytes of requests were taken");
    assert!(node.figures().hits < 1000, "{}", node.figures().hits);
}

#[tokio::test]
async fn interim_responses_without_end_are_passed_on_one_by_one() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    let all = ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(2000), ok("", "at last")].concat();

    let (_, answer) = tokio::join!(server.send(all), client.response("GET"));

    assert_eq!((answer.interim.len(), answer.text().as_str()), (2000, "at last"));
    drop(node);
}

#[tokio::test]
async fn hundreds_of_clients_at_once_each_get_their_own_answer() {
    const COUNT: usize = 200;
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for n in 0..COUNT {
        let mut client = node.client().await;
        client.send(get(&format!("/{n}"))).await;
        clients.push(client);
    }
    for _ in 0..COUNT {
        let mut server = origin.connection().await;
        let target = server.request().await.target().to_owned();
        servers.push((server, target));
    }

    for (server, target) in servers.iter_mut().rev() {
        server.send(fresh(target)).await;
    }

    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response("GET").await.text(), format!("/{n}"));
    }
    let limit = Limits::default().upstream_idle_per_destination_max;
    let mut kept = 0;
    for (server, _) in &mut servers {
        kept += usize::from(!server.is_at_end().await);
    }
    assert_eq!((node.figures().misses, kept), (COUNT as u64, limit));
}

#[tokio::test]
async fn a_client_that_goes_on_sending_after_a_refusal_is_cut_off_at_a_megabyte() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert_eq!(client.response("GET").await.status(), 400);

    let content = vec![b'x'; FLOOD];
    within("the end of sending", client.send(&content)).await;

    client.close().await;
    drop(clock);
}
