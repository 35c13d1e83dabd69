//! What is answered from the store through real hooks, and what never is. The engine's own tables cover the rules
//! in depth; here each rule is seen once from outside.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::exec::{Client, Exec};
use harness::origin::{Answer, Origin, Request};
use harness::response::Response;
use harness::{date, wait};

fn behind(origin: &Origin) -> Result<Client> {
    Exec::port(origin.port())?.agent()
}

/// Two requests with the same field lines on one connection; the second response.
fn twice(client: &Client, origin: &Origin, target: &str, fields: &str) -> Result<Response> {
    let connection = client.connect(origin.addr())?;
    let first = connection.get_with(target, fields)?.expect(200)?;
    ensure!(!first.is_hit(), "{target}: the first was a hit: {}", first.head_text());
    connection.get_with(target, fields)?.expect(200)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_second_request_is_answered_from_the_store() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("fresh").max_age(600))?;
    let client = behind(&origin)?;

    let second = twice(&client, &origin, "/a?x=1", "")?;
    let other_query = client.get(origin.addr(), "/a?x=2")?.expect(200)?;

    ensure!(second.is_hit() && second.text() == "fresh", "{}", second.head_text());
    ensure!(!other_query.is_hit() && origin.count() == 2, "{}", other_query.head_text());
    let outcome = client.finish()?;
    let summary = outcome.summary()?;
    summary.balances()?;
    ensure!(summary.figure("hits")? == 1 && summary.figure("misses")? == 2, "{summary:?}");
    ensure!(summary.figure("bytes_from_cache")? >= 5, "{summary:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn every_way_to_say_fresh_is_understood() -> Result<()> {
    let origin = Origin::http(|request| {
        let answer = Answer::ok("fresh");
        match request.target() {
            "/max-age" => answer.field("cache-control", "MAX-AGE=600"),
            "/quoted" => answer.field("Cache-Control", "max-age=\"600\""),
            "/s-maxage" => answer.field("Cache-Control", "max-age=0, s-maxage=600"),
            "/two-lines" => answer.field("Cache-Control", "public").field("Cache-Control", "max-age=600"),
            "/expires" => answer.field("Expires", "Fri, 31 Dec 2100 23:59:59 GMT"),
            _ => answer.field("Cache-Control", "max-age=600").field("Expires", "0"),
        }
    })?;
    let client = behind(&origin)?;

    for target in ["/max-age", "/quoted", "/s-maxage", "/two-lines", "/expires", "/max-age-wins"] {
        let second = twice(&client, &origin, target, "")?;
        ensure!(second.is_hit(), "{target}: {}", second.head_text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_may_not_be_stored_is_not_in_any_letter_case() -> Result<()> {
    const CASES: [(&str, &str, &str); 10] = [
        ("/1", "Cache-Control", "no-store, max-age=600"),
        ("/2", "CACHE-CONTROL", "NO-STORE, max-age=600"),
        ("/3", "cache-control", "max-age=600, No-Store"),
        ("/4", "Cache-Control", "private, max-age=600"),
        ("/5", "Cache-Control", "PRIVATE, max-age=600"),
        ("/6", "Cache-Control", "max-age=600, Private=\"Set-Cookie\""),
        ("/7", "Cache-Control", "max-age=0"),
        ("/8", "Expires", "0"),
        ("/9", "X-Nothing", "said"),
        ("/10", "Cache-Control", "max-age=600,\tno-store"),
    ];
    let origin = Origin::http(|request| {
        let case = CASES.iter().find(|(target, ..)| *target == request.target());
        case.map_or_else(|| Answer::ok("?"), |(_, name, value)| Answer::ok("once").field(name, value))
    })?;
    let client = behind(&origin)?;

    for (target, name, value) in CASES {
        let second = twice(&client, &origin, target, "")?;
        ensure!(!second.is_hit(), "{name}: {value} was stored");
        ensure!(origin.count_of(target) == 2, "{name}: {value}: the origin saw {}", origin.count_of(target));
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_response_that_is_not_stored_says_why() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").field("Cache-Control", "no-store"))?;
    let client = behind(&origin)?;

    let response = client.get(origin.addr(), "/a")?.expect(200)?;

    ensure!(
        response.cache_status().starts_with("sidestep; fwd=uri-miss; detail="),
        "{}",
        response.head_text()
    );
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn no_cache_reaches_the_origin_each_time() -> Result<()> {
    let origin = Origin::http(|request| match request.field("if-none-match") {
        Some("\"v1\"") => {
            Answer::bare("304 Not Modified").field("ETag", "\"v1\"").field("Cache-Control", "no-cache")
        }
        _ => Answer::ok("body").field("ETag", "\"v1\"").field("Cache-Control", "no-cache"),
    })?;
    let client = behind(&origin)?;

    let second = twice(&client, &origin, "/a", "")?;

    ensure!(second.text() == "body", "{second:?}");
    ensure!(origin.count() == 2, "the origin saw {}", origin.count());
    let outcome = client.finish()?;
    ensure!(outcome.summary()?.forwarded()? == 2, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_request_that_forbids_it_is_not_answered_from_the_store() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("fresh").max_age(600))?;
    let client = behind(&origin)?;
    twice(&client, &origin, "/a", "")?;
    let connection = client.connect(origin.addr())?;

    for fields in
        ["Cache-Control: no-cache\r\n", "Cache-Control: No-Store\r\n", "Cache-Control: max-age=0\r\n"]
    {
        let response = connection.get_with("/a", fields)?.expect(200)?;
        ensure!(!response.is_hit(), "{fields}: {}", response.head_text());
    }
    ensure!(origin.count() == 4, "the origin saw {}", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn only_if_cached_is_answered_504_where_nothing_is_stored() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("fresh").max_age(600))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    let nothing = connection.get_with("/a", "Cache-Control: only-if-cached\r\n")?.expect(504)?;
    connection.get("/a")?.expect(200)?;
    let stored = connection.get_with("/a", "Cache-Control: only-if-cached\r\n")?.expect(200)?;

    ensure!(nothing.passed_through_cache() && stored.is_hit(), "{}", stored.head_text());
    ensure!(origin.count() == 1, "the origin saw {}", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn vary_selects_by_every_nominated_field() -> Result<()> {
    let origin = Origin::http(|request| {
        let language = request.field("accept-language").unwrap_or("none");
        let kind = request.field("x-kind").unwrap_or("none");
        Answer::ok(format!("{language} {kind}"))
            .max_age(600)
            .field("Vary", "Accept-Language")
            .field("vary", "X-KIND")
    })?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    for round in 0..2 {
        for (fields, body) in [
            ("Accept-Language: de\r\nX-Kind: a\r\n", "de a"),
            ("Accept-Language: fr\r\nX-Kind: a\r\n", "fr a"),
            ("Accept-Language: de\r\nX-Kind: b\r\n", "de b"),
            ("", "none none"),
        ] {
            let response = connection.get_with("/a", fields)?.expect(200)?;
            ensure!(response.text() == body, "{fields} was given {}", response.text());
            ensure!(response.is_hit() == (round == 1), "{fields}: {}", response.head_text());
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn vary_on_everything_or_on_credentials_is_never_a_hit() -> Result<()> {
    let origin = Origin::http(|request| {
        let vary = match request.target() {
            "/star" => "*",
            "/cookie" => "Cookie",
            "/authorization" => "Authorization",
            _ => "Accept, *",
        };
        Answer::ok("x").max_age(600).field("Vary", vary)
    })?;
    let client = behind(&origin)?;

    for target in ["/star", "/cookie", "/authorization", "/list"] {
        let second = twice(&client, &origin, target, "")?;
        ensure!(!second.is_hit(), "{target}: {}", second.head_text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_response_to_credentials_is_shared_only_where_the_origin_says_so() -> Result<()> {
    let origin = Origin::http(|request| {
        let control = match request.target() {
            "/public" => "max-age=600, public",
            "/s-maxage" => "s-maxage=600",
            "/must-revalidate" => "max-age=600, must-revalidate",
            _ => "max-age=600",
        };
        Answer::ok(request.field("authorization").unwrap_or("nobody")).field("Cache-Control", control)
    })?;
    let client = behind(&origin)?;
    let alice = "Authorization: Basic alice\r\n";

    let mine = twice(&client, &origin, "/mine", alice)?;
    let others = client.get(origin.addr(), "/mine")?.expect(200)?;
    ensure!(!mine.is_hit(), "{}", mine.head_text());
    ensure!(!others.is_hit() && others.text() == "nobody", "{}: {}", others.head_text(), others.text());
    for target in ["/public", "/s-maxage", "/must-revalidate"] {
        let second = twice(&client, &origin, target, alice)?;
        ensure!(second.is_hit(), "{target}: {}", second.head_text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_response_that_sets_a_cookie_is_not_shared_unless_it_is_public() -> Result<()> {
    let origin = Origin::http(|request| {
        let control = if request.target() == "/public" { "public, max-age=600" } else { "max-age=600" };
        Answer::ok("x").field("Set-Cookie", "session=1").field("Cache-Control", control)
    })?;
    let client = behind(&origin)?;

    ensure!(!twice(&client, &origin, "/session", "")?.is_hit(), "a session was shared");
    ensure!(twice(&client, &origin, "/public", "")?.is_hit(), "public was not stored");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn age_counts_on_from_what_the_origin_said() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600).field("Age", "100"))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;
    connection.get("/a")?.expect(200)?;

    let first = connection.get("/a")?.expect(200)?;
    ensure!(first.age().is_some_and(|age| (100..105).contains(&age)), "{}", first.head_text());
    let began = first.age().unwrap_or_default();
    wait::wait_until(Duration::from_secs(4), "Age goes on", || {
        // A connection each time: one that is older than the kernel's hits ends after a while.
        let answer = client.connect(origin.addr()).and_then(|connection| connection.get("/a"));
        answer.is_ok_and(|hit| hit.is_hit() && hit.age().is_some_and(|age| age > began))
    })
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_response_that_was_old_already_counts_as_old() -> Result<()> {
    let origin = Origin::http(|request| {
        let old = date::before_now(Duration::from_secs(300));
        let answer = Answer::ok("x").without_fields().field("Date", old);
        answer.max_age(if request.target() == "/gone" { 200 } else { 400 })
    })?;
    let client = behind(&origin)?;

    let gone = twice(&client, &origin, "/gone", "")?;
    let old = twice(&client, &origin, "/old", "")?;

    ensure!(!gone.is_hit(), "{}", gone.head_text());
    ensure!(old.is_hit() && old.age().is_some_and(|age| (299..310).contains(&age)), "{}", old.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_is_fresh_for_a_second_is_fetched_again_afterwards() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(1))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;
    connection.get("/a")?.expect(200)?;

    wait::wait_until(Duration::from_secs(5), "the response goes stale", || {
        // A connection each time: one that is older than the kernel's hits ends after a while.
        let answer = client.connect(origin.addr()).and_then(|connection| connection.get("/a"));
        answer.is_ok_and(|response| response.complete()) && origin.count() >= 2
    })
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_host_that_lies_poisons_no_other_destination() -> Result<()> {
    let evil = Origin::http(|_| Answer::ok("evil").max_age(600))?;
    let victim = Origin::http(|_| Answer::ok("victim").max_age(600))?;
    let ports = [evil.port().to_string(), victim.port().to_string()];
    let client = Exec::new()?.flag("--port").flag(&ports[0]).flag("--port").flag(&ports[1]).agent()?;
    let request = "GET /a HTTP/1.1\r\nHost: victim.example\r\n\r\n";

    for _ in 0..2 {
        let lie = client.connect(evil.addr())?.exchange("GET", request)?.expect(200)?;
        let truth = client.connect(victim.addr())?.exchange("GET", request)?.expect(200)?;
        ensure!(lie.text() == "evil" && truth.text() == "victim", "{} {}", lie.text(), truth.text());
    }
    ensure!(evil.count() == 1 && victim.count() == 1, "{} {}", evil.count(), victim.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn two_hosts_of_one_destination_are_two_resources() -> Result<()> {
    let origin = Origin::http(|request| Answer::ok(request.field("host").unwrap_or("?")).max_age(600))?;
    let client = behind(&origin)?;

    for host in ["a.example", "b.example", "a.example:1"] {
        let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = client.connect(origin.addr())?.exchange("GET", request)?.expect(200)?;
        ensure!(response.text() == host && !response.is_hit(), "{host} was given {}", response.text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_unsafe_method_invalidates_what_is_stored() -> Result<()> {
    let origin = Origin::http(|request: &Request| match request.method() {
        "GET" => Answer::ok("x").max_age(600),
        _ if request.target() == "/failing" => Answer::status("500 Internal Server Error", "no"),
        _ => Answer::ok("done"),
    })?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    for (method, target, gone) in [
        ("POST", "/a", true),
        ("PUT", "/b", true),
        ("DELETE", "/c", true),
        ("FROB", "/d", true),
        ("POST", "/failing", false),
    ] {
        ensure!(twice(&client, &origin, target, "")?.is_hit(), "{target} was not stored");
        let host = origin.addr();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        let answer = connection.exchange(method, request)?;
        ensure!(answer.complete(), "{answer:?}");
        let after = connection.get(target)?.expect(200)?;
        ensure!(after.is_hit() != gone, "after {method} {target}: {}", after.head_text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_unsafe_method_is_always_forwarded() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    for _ in 0..3 {
        let request = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
        let response = connection.exchange("POST", request)?.expect(200)?;
        ensure!(response.cache_status().starts_with("sidestep; fwd=method"), "{}", response.head_text());
    }
    drop(connection);
    ensure!(origin.count() == 3 && client.finish()?.figure("uncacheable")? == 3);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn part_of_a_response_is_not_taken_for_the_whole() -> Result<()> {
    let origin = Origin::http(|request| match request.field("range") {
        Some(_) => {
            Answer::status("206 Partial Content", "part").field("Content-Range", "bytes 0-3/9").max_age(600)
        }
        None => Answer::ok("the whole").max_age(600),
    })?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;

    let part = connection.get_with("/a", "Range: bytes=0-3\r\n")?.expect(206)?;
    let whole = connection.get("/a")?.expect(200)?;
    let again = connection.get("/a")?.expect(200)?;

    ensure!(part.text() == "part" && whole.text() == "the whole", "{part:?} {whole:?}");
    ensure!(again.is_hit() && again.text() == "the whole", "{again:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn health_paths_are_not_cached() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("ok").max_age(600))?;
    let client = behind(&origin)?;

    for target in ["/health", "/healthz", "/ready", "/livez", "/ping", "/status"] {
        let second = twice(&client, &origin, target, "")?;
        ensure!(!second.is_hit(), "{target}: {}", second.head_text());
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_conditional_request_is_answered_from_the_store() -> Result<()> {
    let origin =
        Origin::http(|_| Answer::ok("body").max_age(600).field("ETag", "\"v1\"").field("X-Other", "1"))?;
    let client = behind(&origin)?;
    let connection = client.connect(origin.addr())?;
    connection.get("/a")?.expect(200)?;

    let same = connection.get_with("/a", "If-None-Match: W/\"v1\", \"v0\"\r\n")?.expect(304)?;
    let since =
        connection.get_with("/a", "If-Modified-Since: Fri, 31 Dec 2049 23:59:59 GMT\r\n")?.expect(304)?;
    let other = connection.get_with("/a", "If-None-Match: \"v2\"\r\n")?.expect(200)?;
    let plain = connection.get("/a")?.expect(200)?;

    ensure!(same.is_hit() && same.field("etag") == Some("\"v1\"") && same.field("age").is_some());
    ensure!(
        same.field("x-other").is_none() && same.field("content-length").is_none(),
        "{}",
        same.head_text()
    );
    ensure!(since.is_hit() && other.is_hit() && other.text() == "body" && plain.text() == "body");
    ensure!(origin.count() == 1, "the origin saw {}", origin.count());
    Ok(())
}
