//! Requests that two parsers could read differently: ambiguous framing is refused with 400 and the connection
//! closed; what is merely malformed is relayed raw on an upstream connection of its own; neither is ever stored.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::agent::Received;
use harness::exec::Exec;
use harness::origin::{Answer, Origin};

/// Framing, routing or content could be understood in two ways.
const AMBIGUOUS: [(&str, &[u8]); 18] = [
    ("two different lengths", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
    ("a list of different lengths", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4, 5\r\n\r\nabcde"),
    ("a length that is no number", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4x\r\n\r\nabcd"),
    ("a negative length", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: -4\r\n\r\nabcd"),
    ("a length with a sign", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +4\r\n\r\nabcd"),
    ("a length past all bounds", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\nabcd"),
    (
        "a length and chunks",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
    ),
    (
        "chunks and a length",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    ("a coding that does not end in chunks", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
    ("a coding that is hidden", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (
        "two codings",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    ("a chunk size that is no number", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n"),
    (
        "a chunk size past all bounds",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ),
    ("a chunk longer than its size", b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n"),
    // RFC 9112 §5.1: a server must reject it.
    ("a space before the colon", b"GET /a HTTP/1.1\r\nHost: h\r\nX-Space : y\r\n\r\n"),
    ("a space behind the length's name", b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length : 4\r\n\r\nabcd"),
    ("two hosts", b"GET /a HTTP/1.1\r\nHost: h\r\nHost: other\r\n\r\n"),
    ("a nul byte", b"GET /a HTTP/1.1\r\nHost: h\r\nX-Nul: a\0b\r\n\r\n"),
];

/// Not what the grammar allows, but with no framing to dispute about.
const MALFORMED: [(&str, &[u8]); 5] = [
    ("bare line feeds", b"GET /a HTTP/1.1\nHost: h\n\n"),
    ("one bare line feed", b"GET /a HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
    ("a folded line", b"GET /a HTTP/1.1\r\nHost: h\r\nX-Fold: one\r\n two\r\n\r\n"),
    ("a name with a strange character", b"GET /a HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n"),
    ("no host", b"GET /a HTTP/1.1\r\nX: y\r\n\r\n"),
];

/// An origin that answers each connection's first bytes with an answer that may be stored, and hangs on.
fn lenient_origin() -> Result<Origin> {
    Origin::raw(|talk| {
        while !talk.receive()?.is_empty() {
            talk.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 7\r\n\r\nlenient")?;
        }
        Ok(())
    })
}

fn refused_and_closed(name: &str, received: &Received) -> Result<()> {
    let text = String::from_utf8_lossy(&received.bytes).into_owned();
    // The 400 may be lost where the rest of the request was not read.
    ensure!(text.starts_with("HTTP/1.1 400 "), "{name}: {:?} {text}", received.end);
    ensure!(text.matches("HTTP/1.1 ").count() == 1, "{name}: more than one answer: {text}");
    ensure!(["eof", "reset"].contains(&received.end.as_str()), "{name}: {}", received.end);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn ambiguous_requests_are_refused_and_their_connection_closed() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("reached").max_age(600))?;
    let client = Exec::port(origin.port())?.agent()?;

    for (name, request) in AMBIGUOUS {
        let connection = client.connect(origin.addr())?;
        connection.send(request)?;
        refused_and_closed(name, &connection.rest()?)?;
    }

    // A body whose chunks turn out broken may have begun its way; no request of it may be whole.
    let whole: Vec<_> = origin.requests().into_iter().filter(|request| request.end().is_none()).collect();
    ensure!(whole.is_empty(), "the origin saw {whole:?}");
    ensure!(client.finish()?.figure("hits")? == 0);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_ambiguous_request_behind_a_good_one_is_refused_after_the_good_answer() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("good").max_age(600))?;
    let client = Exec::port(origin.port())?.agent()?;

    for (name, request) in AMBIGUOUS {
        let connection = client.connect(origin.addr())?;
        connection.send([b"GET /good HTTP/1.1\r\nHost: h\r\n\r\n".as_slice(), request].concat())?;
        let good = connection.response()?.expect(200)?;
        ensure!(good.text() == "good", "{name}: {good:?}");
        refused_and_closed(name, &connection.rest()?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn malformed_requests_are_relayed_raw_each_on_a_connection_of_its_own() -> Result<()> {
    let origin = lenient_origin()?;
    let client = Exec::port(origin.port())?.agent()?;
    let mut expected = Vec::new();

    for (name, request) in MALFORMED {
        for _ in 0..2 {
            let connection = client.connect(origin.addr())?;
            let response = connection.exchange("GET", request)?.expect(200)?;
            ensure!(response.text() == "lenient" && !response.is_hit(), "{name}: {}", response.head_text());
            expected.push(request.to_vec());
        }
    }

    let received: Vec<_> = origin.received().into_iter().filter(|bytes| !bytes.is_empty()).collect();
    ensure!(received == expected, "other bytes or shared connections: {received:?}");
    let outcome = client.finish()?;
    ensure!(outcome.figure("hits")? == 0, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_follows_a_malformed_request_stays_on_its_raw_connection() -> Result<()> {
    let origin = lenient_origin()?;
    let client = Exec::port(origin.port())?.agent()?;
    let follower = b"GET /good HTTP/1.1\r\nHost: h\r\n\r\n";

    let connection = client.connect(origin.addr())?;
    connection.exchange("GET", "GET /a HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n")?.expect(200)?;
    let second = connection.exchange("GET", follower)?.expect(200)?;
    drop(connection);
    let fresh = client.get(origin.addr(), "/good")?.expect(200)?;

    ensure!(!second.is_hit() && !fresh.is_hit(), "{}", fresh.head_text());
    let raw = origin.received().into_iter().find(|bytes| bytes.starts_with(b"GET /a "));
    ensure!(raw.is_some_and(|bytes| bytes.ends_with(follower)), "{:?}", origin.received());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn one_malformed_request_does_not_end_caching_for_the_destination() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("fresh").max_age(600))?;
    let client = Exec::port(origin.port())?.agent()?;

    client
        .connect(origin.addr())?
        .exchange("GET", "GET /a HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n")?
        .expect(200)?;
    client.get(origin.addr(), "/b")?.expect(200)?;
    let second = client.get(origin.addr(), "/b")?.expect(200)?;

    ensure!(second.is_hit(), "{}", second.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn strict_http_refuses_what_is_malformed_too() -> Result<()> {
    let origin = lenient_origin()?;
    let client = Exec::port(origin.port())?.flag("--strict-http").agent()?;

    for (name, request) in AMBIGUOUS.into_iter().chain(MALFORMED) {
        let connection = client.connect(origin.addr())?;
        connection.send(request)?;
        refused_and_closed(name, &connection.rest()?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_head_past_all_bounds_is_not_kept_in_memory() -> Result<()> {
    let origin = Origin::raw(|talk| talk.drain())?;
    let client = Exec::port(origin.port())?.flag("--strict-http").agent()?;
    let line = format!("X-Filler: {}\r\n", "y".repeat(8000));

    let connection = client.connect(origin.addr())?;
    let mut sent = connection.try_send("GET /a HTTP/1.1\r\nHost: h\r\n")?;
    for _ in 0..200 {
        if sent == "ok" {
            sent = connection.try_send(&line)?;
        }
    }
    let end = connection.rest_within(Duration::from_secs(10))?;

    let text = String::from_utf8_lossy(&end.bytes).into_owned();
    ensure!(["eof", "reset"].contains(&end.end.as_str()), "{end:?}");
    ensure!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_oversized_head_works_or_is_refused_but_is_never_stored() -> Result<()> {
    let origin = lenient_origin()?;
    let client = Exec::port(origin.port())?.agent()?;
    let request = format!("GET /a HTTP/1.1\r\nHost: h\r\nX-Filler: {}\r\n\r\n", "y".repeat(300_000));

    for _ in 0..2 {
        let connection = client.connect(origin.addr())?;
        connection.try_send(&request)?;
        let response = connection.response()?;
        ensure!(!response.is_hit(), "{}", response.head_text());
        ensure!(response.status() != 502, "{}", response.head_text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_request_hidden_in_a_body_is_not_answered() -> Result<()> {
    let origin = Origin::http(|request| Answer::ok(request.target()).max_age(600))?;
    let client = Exec::port(origin.port())?.agent()?;
    let hidden = format!("GET /hidden HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr());
    client.get(origin.addr(), "/hidden")?.expect(200)?;

    let connection = client.connect(origin.addr())?;
    connection.send(format!("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", hidden.len()))?;
    // The body in a segment of its own looks exactly like a request whose answer is stored.
    connection.send(&hidden)?;
    let posted = connection.response_to("POST")?.expect(200)?;
    let after = connection.get("/after")?.expect(200)?;

    ensure!(posted.text() == "/p" && after.text() == "/after", "{posted:?} {after:?}");
    let body = origin.requests().into_iter().find(|request| request.method() == "POST");
    ensure!(body.is_some_and(|request| request.body() == hidden.as_bytes()), "other body");
    Ok(())
}
