//! Ranges out of what is stored (RFC 9110 §14): the right bytes, and the origin's answer wherever there is doubt.

use crate::simulated::{Client, Message, Node, Origin, Wire, get, ok};

/// A node whose store holds `0123456789` for `/a`.
async fn stored(origin: &Origin) -> (Node, Client, Wire) {
    let node = Node::before(origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    let fields = "Cache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Type: text/x\r\n\
                  Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    server.send(ok(fields, "0123456789")).await;
    client.response("GET").await;
    (node, client, server)
}

async fn ask(client: &mut Client, fields: &str) -> Message {
    client.send(format!("GET /a HTTP/1.1\r\nHost: origin.test\r\n{fields}\r\n")).await;
    client.response("GET").await
}

#[tokio::test]
async fn a_range_of_a_stored_response_is_its_bytes() {
    let origin = Origin::new().await;
    let (node, mut client, _server) = stored(&origin).await;
    for (range, text, content_range) in [
        ("0-0", "0", "bytes 0-0/10"),
        ("2-5", "2345", "bytes 2-5/10"),
        ("7-", "789", "bytes 7-9/10"),
        ("-3", "789", "bytes 7-9/10"),
        ("5-99", "56789", "bytes 5-9/10"),
    ] {
        let answer = ask(&mut client, &format!("Range: bytes={range}\r\n")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (206, text), "{range}");
        assert_eq!(answer.field("content-range"), Some(content_range));
        assert!(answer.is_hit() && answer.field("etag") == Some("\"a\"") && answer.field("age").is_some());
    }
    assert_eq!(node.figures().hits, 5);
}

#[tokio::test]
async fn several_ranges_are_the_parts_of_one_answer_rfc9110_14_6() {
    let origin = Origin::new().await;
    let (_node, mut client, _server) = stored(&origin).await;
    let answer = ask(&mut client, "Range: bytes=0-1,8-9\r\n").await;
    assert_eq!(answer.status(), 206);
    let kind = answer.field("content-type").unwrap().to_owned();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let text = answer.text();
    let part = |range: &str, bytes: &str| {
        format!("--{boundary}\r\nContent-Type: text/x\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}\r\n")
    };
    assert_eq!(text, format!("{}{}--{boundary}--\r\n", part("0-1", "01"), part("8-9", "89")));
    assert!(client.get("/a").await.is_hit(), "the connection is in step");
}

#[tokio::test]
async fn if_range_decides_between_the_range_and_the_whole_rfc9110_13_1_5() {
    let origin = Origin::new().await;
    let (_node, mut client, _server) = stored(&origin).await;
    for (condition, status) in [
        ("\"a\"", 206),
        ("\"b\"", 200),
        ("W/\"a\"", 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
    ] {
        let answer = ask(&mut client, &format!("Range: bytes=1-2\r\nIf-Range: {condition}\r\n")).await;
        let text = if status == 206 { "12" } else { "0123456789" };
        assert_eq!((answer.status(), answer.text().as_str()), (status, text), "{condition}");
        assert!(answer.is_hit());
    }
}

#[tokio::test]
async fn what_cannot_be_satisfied_here_is_the_origins_to_answer() {
    let origin = Origin::new().await;
    let (_node, mut client, mut server) = stored(&origin).await;
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nRange: bytes=10-\r\n\r\n").await;
    assert_eq!(server.request().await.field("range"), Some("bytes=10-"));
    server.send("HTTP/1.1 416 No\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response("GET").await.status(), 416);
    assert!(client.get("/a").await.is_hit(), "what is stored stays");
}

#[tokio::test]
async fn a_range_that_is_not_stored_is_the_origins_and_is_kept_as_a_part() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    let part = |range: &str, bytes: &str| {
        format!(
            "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nETag: \"a\"\r\n\
             Content-Range: bytes {range}/10\r\nContent-Length: {}\r\n\r\n{bytes}",
            bytes.len()
        )
    };
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nRange: bytes=0-4\r\n\r\n").await;
    let mut server = origin.connection().await;
    assert_eq!(server.request().await.field("range"), Some("bytes=0-4"));
    server.send(part("0-4", "01234")).await;
    let first = client.response("GET").await;
    assert_eq!((first.status(), first.text().as_str()), (206, "01234"));

    let within = ask(&mut client, "Range: bytes=1-3\r\n").await;
    assert!(within.is_hit() && within.text() == "123", "{within:?}");

    // The other half completes it: then the whole is stored (RFC 9111 §3.4).
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nRange: bytes=5-9\r\n\r\n").await;
    server.request().await;
    server.send(part("5-9", "56789")).await;
    assert_eq!(client.response("GET").await.text(), "56789");
    let whole = client.get("/a").await;
    assert!(whole.is_hit() && whole.status() == 200 && whole.text() == "0123456789", "{whole:?}");
    assert!(whole.start.ends_with(" OK"));
}

#[tokio::test]
async fn a_206_that_holds_everything_answers_others_as_a_200_rfc9110_15_3_7_3() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nRange: bytes=0-\r\n\r\n").await;
    let mut server = origin.connection().await;
    server.request().await;
    let fields =
        "Cache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n";
    server.send(format!("HTTP/1.1 206 Partial Content\r\n{fields}\r\n0123456789")).await;
    assert_eq!(client.response("GET").await.status(), 206);

    let whole = client.get("/a").await;
    assert!(whole.is_hit() && whole.text() == "0123456789", "{whole:?}");
    assert_eq!((whole.status(), whole.start.ends_with(" OK")), (200, true));
    assert_eq!(whole.field("content-range"), None);
    let part = ask(&mut client, "Range: bytes=1-2\r\n").await;
    assert!(part.is_hit() && part.status() == 206 && part.text() == "12", "{part:?}");
}
