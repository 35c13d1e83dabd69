//! The same content through the cache as without it, however it is framed; chunk boundaries may differ.

use anyhow::{Context, Result, ensure};
use harness::exec::{Client, Exec};
use harness::origin::{After, Answer, Gate, Origin, Request};
use harness::wire::Framing;

const HOST: &str = "Host: h\r\n";

fn behind(origin: &Origin) -> Result<Client> {
    Exec::port(origin.port())?.agent()
}

fn chunked(_: &Request) -> Answer {
    Answer::chunked(&["one,", "two,", "three"], "").max_age(600)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_chunked_response_is_the_same_from_the_origin_and_from_the_store() -> Result<()> {
    let origin = Origin::http(chunked)?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    let (first, second) = (connection.get("/a")?.expect(200)?, connection.get("/a")?.expect(200)?);

    ensure!(first.text() == "one,two,three" && second.text() == "one,two,three", "{first:?} {second:?}");
    ensure!(second.is_hit() && origin.count() == 1, "{}", second.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_chunked_request_arrives_chunked_with_the_same_content() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("got it"))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;
    let request = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\n\r\n";

    // Both in one piece and byte by byte, on one connection.
    let first = connection.exchange("POST", request)?.expect(200)?;
    connection.send_in_pieces(request, 1)?;
    let second = connection.response()?.expect(200)?;

    ensure!(first.text() == "got it" && second.text() == "got it");
    ensure!(origin.count() == 2, "the origin saw {}", origin.count());
    for seen in origin.requests() {
        ensure!(seen.body() == b"abc0123456789" && seen.framing() == Framing::Chunked, "{seen:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn trailers_of_a_response_reach_a_client_that_accepts_them() -> Result<()> {
    let origin =
        Origin::http(|_| Answer::chunked(&["body"], "X-Checksum: 9\r\n").field("Trailer", "X-Checksum"))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    let with = connection.get_with("/a", "TE: trailers\r\nConnection: TE\r\n")?.expect(200)?;
    let without = connection.get("/a")?.expect(200)?;

    ensure!(with.trailers().eq_ignore_ascii_case("X-Checksum: 9\r\n"), "{with:?}");
    ensure!(with.text() == "body" && without.text() == "body");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn trailers_of_a_request_reach_the_origin() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x"))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    connection
        .exchange(
            "POST",
            "POST /a HTTP/1.1\r\nHost: h\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n",
        )?
        .expect(200)?;

    let seen = origin.requests().pop().context("no request")?;
    ensure!(seen.body() == b"body", "{seen:?}");
    ensure!(seen.trailers().eq_ignore_ascii_case("X-Sum: 7\r\n"), "{seen:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn head_has_the_fields_and_no_content() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("twelve bytes").max_age(600))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    let head = connection.exchange("HEAD", format!("HEAD /a HTTP/1.1\r\n{HOST}\r\n"))?.expect(200)?;
    let get = connection.get_with("/a", "")?.expect(200)?;
    let again = connection.exchange("HEAD", format!("HEAD /a HTTP/1.1\r\n{HOST}\r\n"))?.expect(200)?;
    let last = connection.get("/a")?.expect(200)?;

    for response in [&head, &again] {
        ensure!(response.field("content-length") == Some("12") && response.length() == 0, "{response:?}");
    }
    ensure!(get.text() == "twelve bytes" && last.text() == "twelve bytes", "{get:?} {last:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn responses_without_content_leave_the_connection_usable() -> Result<()> {
    let origin = Origin::http(|request| match request.target() {
        "/204" => Answer::bare("204 No Content"),
        "/304" => Answer::bare("304 Not Modified").field("ETag", "\"1\""),
        "/empty" => Answer::ok("").max_age(600),
        _ => Answer::ok("after"),
    })?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    let none = connection.get("/204")?.expect(204)?;
    let unchanged = connection.get_with("/304", "If-None-Match: \"1\"\r\n")?.expect(304)?;
    let empty = connection.get("/empty")?.expect(200)?;
    let empty_again = connection.get("/empty")?.expect(200)?;
    let after = connection.get("/after")?.expect(200)?;

    ensure!(none.length() == 0 && none.field("transfer-encoding").is_none(), "{}", none.head_text());
    ensure!(unchanged.field("etag") == Some("\"1\""), "{}", unchanged.head_text());
    ensure!(empty.length() == 0 && empty_again.length() == 0 && empty_again.is_hit(), "{empty_again:?}");
    ensure!(after.text() == "after", "{after:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_conditional_request_is_answered_304_and_others_still_get_the_content() -> Result<()> {
    let origin = Origin::http(|request| {
        let answer = match request.field("if-none-match") {
            Some("\"v1\"") => Answer::bare("304 Not Modified"),
            _ => Answer::ok("body"),
        };
        answer.max_age(600).field("ETag", "\"v1\"")
    })?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    for _ in 0..2 {
        let unchanged = connection.get_with("/a", "If-None-Match: \"v1\"\r\n")?.expect(304)?;
        let changed = connection.get_with("/a", "If-None-Match: \"v2\"\r\n")?.expect(200)?;
        let plain = connection.get("/a")?.expect(200)?;
        ensure!(unchanged.field("etag") == Some("\"v1\""), "{}", unchanged.head_text());
        ensure!(changed.text() == "body" && plain.text() == "body", "{changed:?} {plain:?}");
    }
    ensure!(connection.get("/a")?.expect(200)?.is_hit(), "nothing was stored");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn interim_responses_are_passed_on_before_the_final_one() -> Result<()> {
    let origin = Origin::http(|_| {
        Answer::ok("final")
            .after_interim("103 Early Hints", "Link: </style.css>; rel=preload\r\n")
            .after_interim("102 Processing", "")
    })?;
    let client = behind(&origin)?;

    let response = client.get(origin.addr(), "/a")?.expect(200)?;

    let [hints, processing] = response.interim() else { anyhow::bail!("interim: {:?}", response.interim()) };
    ensure!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    ensure!(hints.to_ascii_lowercase().contains("link: </style.css>; rel=preload"), "{hints}");
    ensure!(processing.starts_with("HTTP/1.1 102 "), "{processing}");
    ensure!(response.text() == "final", "{response:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_interim_response_arrives_while_the_final_one_is_held_back() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let origin = Origin::http(move |_| Answer::ok("final").after_interim("103 Early Hints", "").held(&held))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";

    connection.send(format!("GET /a HTTP/1.1\r\n{HOST}\r\n"))?;
    let early = connection.exact(hints.len())?;
    gate.open();
    let response = connection.response()?.expect(200)?;

    ensure!(early.bytes == hints.as_bytes(), "{early:?}");
    ensure!(response.text() == "final", "{response:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_client_that_expects_100_continue_is_told_so_before_it_sends() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("thanks"))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    connection.send("POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")?;
    let go_on = connection.exact("HTTP/1.1 100 Continue\r\n\r\n".len())?;
    connection.send("body")?;
    let response = connection.response_to("POST")?.expect(200)?;

    ensure!(go_on.bytes.starts_with(b"HTTP/1.1 100 "), "{go_on:?}");
    ensure!(response.text() == "thanks", "{response:?}");
    ensure!(origin.requests().pop().is_some_and(|request| request.body() == b"body"));
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_client_whose_expectation_is_refused_gets_the_refusal_without_having_sent() -> Result<()> {
    let origin = Origin::raw(|talk| {
        while !talk.receive()?.ends_with(b"\r\n\r\n") {}
        talk.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    })?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    let response = connection.exchange(
        "POST",
        "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n",
    )?;

    ensure!(response.expect(417)?.text() == "no");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_http_1_0_client_gets_no_chunks_and_the_end_of_the_connection() -> Result<()> {
    let origin = Origin::http(chunked)?;
    let client = behind(&origin)?;

    for expected_hit in [false, true] {
        let connection = client.connect(origin.addr())?;
        let request = format!("GET /a HTTP/1.0\r\nHost: {}\r\n\r\n", origin.addr());
        let response = connection.exchange("GET", request)?.expect(200)?;
        let end = connection.rest()?;
        ensure!(response.text() == "one,two,three" && response.framing() != "chunked", "{response:?}");
        ensure!(response.is_hit() == expected_hit, "{}", response.head_text());
        ensure!(end.bytes.is_empty() && end.end == "eof", "{end:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_http_1_0_client_without_host_is_served() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("old").max_age(600))?;
    let client = behind(&origin)?;

    for _ in 0..2 {
        let connection = client.connect(origin.addr())?;
        let response = connection.exchange("GET", "GET /old HTTP/1.0\r\n\r\n")?.expect(200)?;
        ensure!(response.text() == "old", "{response:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_client_that_asks_to_close_sees_the_connection_close() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("bye").max_age(600))?;
    let client = behind(&origin)?;

    for expected_hit in [false, true] {
        let connection = client.connect(origin.addr())?;
        let response = connection.get_with("/a", "Connection: close\r\n")?.expect(200)?;
        let end = connection.rest()?;
        ensure!(response.text() == "bye" && response.is_hit() == expected_hit, "{response:?}");
        let says_close =
            response.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        ensure!(says_close, "{}", response.head_text());
        ensure!(end.end == "eof" && end.bytes.is_empty(), "{end:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_answer_that_ends_with_the_connection_is_whole_and_ends() -> Result<()> {
    let body = "until the end ".repeat(4000);
    let sent = body.clone();
    let origin = Origin::http(move |_| Answer::until_close(&sent).max_age(600))?;
    let client = behind(&origin)?;

    for _ in 0..2 {
        let response = client.connect(origin.addr())?.get("/a")?.expect(200)?;
        ensure!(response.text() == body, "{} bytes ({})", response.length(), response.end());
    }
    Ok(())
}

/// Ten requests of a client that opens a new connection where the last one has ended.
fn ten_requests(client: &Client, origin: &Origin) -> Result<()> {
    let mut connection = client.connect(origin.addr())?;
    let mut used = false;
    for _ in 0..10 {
        let mut response = connection.get("/a").unwrap_or_default();
        // A connection that was used before may have come to its end, as it may without a cache.
        if used && response.status() == 0 {
            connection = client.connect(origin.addr())?;
            response = connection.get("/a")?;
        }
        let response = response.expect(200)?;
        ensure!(response.text() == "one", "{response:?}");
        used = true;
        if response.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            ensure!(connection.rest()?.end == "eof", "said close and stayed open");
            connection = client.connect(origin.addr())?;
            used = false;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_origin_that_closes_after_each_answer_loses_no_request() -> Result<()> {
    let origin = Origin::http(|_| {
        Answer::ok("one").field("Connection", "close").field("Cache-Control", "no-store").then(After::Close)
    })?;

    ten_requests(&behind(&origin)?, &origin)?;

    ensure!(origin.count() == 10, "the origin saw {}", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_origin_that_closes_idle_connections_loses_no_request() -> Result<()> {
    // It closes without having said so, as a server does whose idle time is over.
    let origin = Origin::http(|_| Answer::ok("one").field("Cache-Control", "no-store").then(After::Close))?;

    ten_requests(&behind(&origin)?, &origin)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    let origin = Origin::http(|request| {
        let answer = Answer::ok(request.target().repeat(50));
        if request.target().starts_with("/fresh") { answer.max_age(600) } else { answer }
    })?;
    let client = behind(&origin)?;
    let targets = ["/fresh", "/b", "/fresh", "/c", "/fresh", "/fresh", "/d"];
    client.get(origin.addr(), "/other")?.expect(200)?;

    let connection = client.connect(origin.addr())?;
    let all: String =
        targets.iter().map(|t| format!("GET {t} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr())).collect();
    connection.send(all)?;

    for target in targets {
        let response = connection.response()?.expect(200)?;
        ensure!(response.text() == target.repeat(50), "{target}: {}", response.text());
    }
    ensure!(origin.count_of("/fresh") == 1, "the origin saw /fresh {} times", origin.count_of("/fresh"));
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_pipelined_request_behind_a_body_is_not_taken_for_the_body() -> Result<()> {
    let origin = Origin::http(|request| Answer::ok(format!("{} {}", request.method(), request.target())))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    connection.send(
        "POST /one HTTP/1.1\r\nHost: h\r\nContent-Length: 18\r\n\r\nGET /x HTTP/1.1\r\n\r\
         GET /two HTTP/1.1\r\nHost: h\r\n\r\n",
    )?;

    ensure!(connection.response_to("POST")?.expect(200)?.text() == "POST /one");
    ensure!(connection.response()?.expect(200)?.text() == "GET /two");
    ensure!(origin.requests().first().is_some_and(|r| r.body() == b"GET /x HTTP/1.1\r\n\r"));
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_head_that_comes_byte_by_byte_is_understood() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("patience").max_age(600))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;
    let request =
        format!("GET /a HTTP/1.1\r\nHost: {}\r\nX-Long: {}\r\n\r\n", origin.addr(), "y".repeat(300));

    for expected_hit in [false, true] {
        connection.send_in_pieces(&request, 1)?;
        let response = connection.response()?.expect(200)?;
        ensure!(response.text() == "patience" && response.is_hit() == expected_hit, "{response:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_client_that_closes_its_side_after_the_request_gets_the_answer() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let origin = Origin::http(move |_| Answer::ok("still here").max_age(600).held(&held))?;
    let client = behind(&origin)?;

    let connection = client.connect(origin.addr())?;
    connection.send(format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))?;
    connection.finish_sending()?;
    origin.reached(1)?;
    gate.open();
    let from_origin = connection.response()?.expect(200)?;
    let end = connection.rest()?;

    ensure!(from_origin.text() == "still here", "{from_origin:?}");
    ensure!(end.end == "eof", "{end:?}");
    let connection = client.connect(origin.addr())?;
    connection.send(format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))?;
    connection.finish_sending()?;
    let stored = connection.response()?.expect(200)?;
    ensure!(stored.is_hit() && stored.text() == "still here", "{stored:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_slow_origin_is_waited_for_and_what_it_has_sent_arrives_at_once() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let origin = Origin::http(move |_| Answer::ok("late content").max_age(600).content_held(&held))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    connection.send(format!("GET /a HTTP/1.1\r\n{HOST}\r\n"))?;
    let early = connection.exact("HTTP/1.1 200 OK\r\n".len())?;
    gate.open();
    let rest = connection.rest_within(std::time::Duration::from_millis(500))?;

    ensure!(early.bytes == b"HTTP/1.1 200 OK\r\n", "{early:?}");
    ensure!(rest.bytes.ends_with(b"late content"), "{rest:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn many_requests_on_one_connection_are_all_answered() -> Result<()> {
    let origin = Origin::http(|request| Answer::ok(request.target()).max_age(600))?;
    // With hits inside the kernel this connection would end after a while, for one that can be enrolled.
    let client = Exec::port(origin.port())?.flag("--acceleration=off").agent()?;
    let connection = client.connect(origin.addr())?;

    for n in 0..500 {
        let target = format!("/{}", n % 7);
        ensure!(connection.get(&target)?.expect(200)?.text() == target);
    }

    drop(connection);
    let outcome = client.finish()?;
    outcome.summary()?.balances()?;
    ensure!(origin.count() == 7 && outcome.figure("hits")? == 493, "{:?}", outcome.summary()?);
    ensure!(outcome.figure("connections_redirected")? == 1, "{:?}", outcome.summary()?);
    Ok(())
}
