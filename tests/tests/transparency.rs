//! What may differ between a message sent and the same message received through the cache: nothing but
//! hop-by-hop fields (RFC 9110 §7.6.1), `Cache-Status` and `Age`.

use anyhow::{Context, Result, ensure};
use harness::exec::Exec;
use harness::origin::{Answer, Origin};

/// Field lines that only mean something between two neighbours.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// The end-to-end field lines of a head, spelled and ordered as they are.
fn end_to_end(fields: &[(String, String)]) -> Vec<(String, String)> {
    let ours = ["cache-status", "age"];
    let other = |name: &str| HOP_BY_HOP.iter().chain(&ours).any(|field| field.eq_ignore_ascii_case(name));
    fields.iter().filter(|(name, _)| !other(name)).cloned().collect()
}

fn pairs(lines: &str) -> Vec<(String, String)> {
    let split = lines.lines().filter_map(|line| line.split_once(": "));
    split.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn end_to_end_request_fields_arrive_with_their_case_their_order_and_their_repetitions() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").field("Cache-Control", "no-store"))?;
    let client = Exec::port(origin.port())?.agent()?;
    let lines = "User-Agent: an-Agent/1.0\r\nX-second: 2\r\nHOST: shop.example:8080\r\nx-First: 1\r\n\
                 Accept: text/html, */*;q=0.1\r\nX-SECOND: 2 again\r\nCookie: a=b; c=d\r\nX-Empty: \r\n\
                 traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nACCEPT-encoding: gzip\r\n";

    let connection = client.connect(origin.addr())?;
    let request = format!("GET /Path/%7euser?q=%C3%A9&b=a+b HTTP/1.1\r\n{lines}\r\n");
    connection.exchange("GET", request)?.expect(200)?;

    let seen = origin.requests().pop().context("no request")?;
    let expected: Vec<_> = lines.split_terminator("\r\n").filter_map(|line| line.split_once(':')).collect();
    let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), v.trim().to_owned())).collect();
    ensure!(seen.target() == "/Path/%7euser?q=%C3%A9&b=a+b", "target: {}", seen.target());
    ensure!(end_to_end(seen.head().fields()) == expected, "{}", seen.head().text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn nothing_is_added_to_a_request_that_would_tell_of_the_cache() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let client = Exec::port(origin.port())?.agent()?;

    client.get(origin.addr(), "/a")?.expect(200)?;

    let seen = origin.requests().pop().context("no request")?;
    let fields = end_to_end(seen.head().fields());
    ensure!(fields == pairs(&format!("Host: {}", origin.addr())), "{}", seen.head().text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn fields_named_by_connection_go_no_further() -> Result<()> {
    let origin = Origin::http(|_| {
        let answer = Answer::ok("x").field("Connection", "X-Answer-Hop, keep-alive");
        answer.field("X-Answer-Hop", "1").field("Keep-Alive", "timeout=5").field("X-Answer-End", "1")
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    let connection = client.connect(origin.addr())?;
    let response = connection.get_with(
        "/a",
        "X-Hop: 1\r\nConnection: keep-alive, x-hop\r\nX-End: 1\r\nKeep-Alive: timeout=9\r\n\
         Proxy-Connection: keep-alive\r\n",
    )?;

    let response = response.expect(200)?;
    let seen = origin.requests().pop().context("no request")?;
    ensure!(seen.field("x-hop").is_none() && seen.field("keep-alive").is_none(), "{}", seen.head().text());
    ensure!(seen.field("proxy-connection").is_none(), "{}", seen.head().text());
    ensure!(seen.field("x-end") == Some("1"), "{}", seen.head().text());
    ensure!(response.field("x-answer-hop").is_none(), "{}", response.head_text());
    ensure!(response.field("x-answer-end") == Some("1"), "{}", response.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn end_to_end_response_fields_arrive_with_their_case_their_order_and_their_repetitions() -> Result<()> {
    let lines = [
        ("DATE", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("x-First", "1"),
        ("Content-Type", "text/plain; charset=UTF-8"),
        ("SET-cookie", "a=b; Path=/"),
        ("Set-Cookie", "c=d"),
        ("X-Empty", ""),
        ("eTag", "W/\"x\""),
        ("Server", "an-Origin/1.0"),
    ];
    let origin = Origin::http(move |_| {
        lines.iter().fold(Answer::ok("x").without_fields(), |answer, (name, value)| answer.field(name, value))
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    let response = client.get(origin.addr(), "/a")?.expect(200)?;

    let mut expected: Vec<_> = lines.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    expected.push(("Content-Length".to_owned(), "1".to_owned()));
    ensure!(end_to_end(response.fields()) == expected, "{}", response.head_text());
    ensure!(response.head_text().starts_with("HTTP/1.1 200 OK\r\n"), "{}", response.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_hit_has_the_fields_of_the_stored_response_and_an_age() -> Result<()> {
    let origin = Origin::http(|_| {
        Answer::ok("x")
            .max_age(600)
            .field("X-Some", "Value")
            .field("Content-Language", "en")
            .field("ETag", "\"1\"")
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    let first = client.get(origin.addr(), "/a")?.expect(200)?;
    let second = client.get(origin.addr(), "/a")?.expect(200)?;

    ensure!(first.cache_status() == "sidestep; fwd=uri-miss; stored", "{}", first.head_text());
    ensure!(second.cache_status() == "sidestep; hit", "{}", second.head_text());
    ensure!(first.field("age").is_none(), "{}", first.head_text());
    ensure!(second.age().is_some(), "{}", second.head_text());
    ensure!(end_to_end(first.fields()) == end_to_end(second.fields()), "{}", second.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_answer_has_no_via_and_keeps_the_cache_status_of_others() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600).field("Cache-Status", "edge; hit; ttl=9"))?;
    let client = Exec::port(origin.port())?.agent()?;

    for _ in 0..2 {
        let response = client.get(origin.addr(), "/a")?.expect(200)?;
        ensure!(response.field("via").is_none(), "{}", response.head_text());
        let mut all = Vec::new();
        for (name, value) in response.fields() {
            if name.eq_ignore_ascii_case("cache-status") {
                all.push(value.as_str());
            }
        }
        // RFC 9211 §2: the origin's neighbour comes first, the client's neighbour last.
        let joined = all.join(", ");
        ensure!(joined.starts_with("edge; hit; ttl=9, sidestep; "), "{}", response.head_text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_request_body_and_its_fields_arrive_unchanged() -> Result<()> {
    let origin = Origin::http(|_| Answer::status("201 Created", "made").field("Location", "/things/1"))?;
    let client = Exec::port(origin.port())?.agent()?;
    let body = "{\"a\": 1}";

    let connection = client.connect(origin.addr())?;
    let response = connection.exchange(
        "POST",
        format!(
            "POST /things HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )?;

    let response = response.expect(201)?;
    let seen = origin.requests().pop().context("no request")?;
    ensure!(seen.body() == body.as_bytes() && seen.method() == "POST", "{seen:?}");
    ensure!(seen.field("content-type") == Some("application/json"), "{}", seen.head().text());
    ensure!(response.field("location") == Some("/things/1"), "{}", response.head_text());
    ensure!(response.cache_status().starts_with("sidestep; fwd=method"), "{}", response.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn unusual_methods_and_statuses_pass() -> Result<()> {
    let origin = Origin::http(|request| match request.method() {
        "PROPFIND" => Answer::status("207 Multi-Status", "<multistatus/>"),
        "GET" => Answer::status("418 I'm a teapot", "short and stout"),
        _ => Answer::status("599 Strange", "strange"),
    })?;
    let client = Exec::port(origin.port())?.agent()?;
    let connection = client.connect(origin.addr())?;

    let found =
        connection.exchange("PROPFIND", "PROPFIND / HTTP/1.1\r\nHost: h\r\nDepth: 1\r\n\r\n")?.expect(207)?;
    let teapot = connection.get("/")?.expect(418)?;
    let strange = connection.exchange("X-Y", "X-Y / HTTP/1.1\r\nHost: h\r\n\r\n")?.expect(599)?;

    ensure!(found.text() == "<multistatus/>", "{}", found.text());
    ensure!(teapot.head_text().starts_with("HTTP/1.1 418 I'm a teapot\r\n"), "{}", teapot.head_text());
    ensure!(strange.text() == "strange", "{}", strange.text());
    Ok(())
}
