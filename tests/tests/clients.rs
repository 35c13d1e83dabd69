//! Programs that people use, unmodified, through `sidestep exec`: right bytes, no errors, and figures that
//! agree with the origin's own log.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result, ensure};
use harness::exec::{Exec, Outcome};
use harness::nginx::Nginx;
use harness::origin::{Answer, Origin, Request};
use harness::scratch::Scratch;
use harness::{locate, toolchain};
use serde_json::Value;

const ROUNDS: u64 = 5;
const PATHS: u64 = 4;

fn answer(request: &Request) -> Answer {
    let body = request.target().repeat(500);
    match request.target() {
        "/fresh" => Answer::ok(body).max_age(600),
        "/chunked" => {
            let (first, second) = body.split_at(1000);
            Answer::chunked(&[first, second], "").max_age(600)
        }
        "/private" => Answer::ok(body).field("Cache-Control", "no-store"),
        "/validated" if request.field("if-none-match") == Some("\"v1\"") => {
            Answer::bare("304 Not Modified").field("ETag", "\"v1\"").field("Cache-Control", "no-cache")
        }
        "/validated" => Answer::ok(body).field("ETag", "\"v1\"").field("Cache-Control", "no-cache"),
        _ => Answer::status("404 Not Found", "no such path"),
    }
}

/// The figures agree with the client's count and the origin's log.
fn agree(outcome: &Outcome, requests: u64, at_origin: u64) -> Result<()> {
    let summary = outcome.summary()?;
    summary.balances()?;
    ensure!(summary.figure("requests")? == requests, "{requests} requests by the client: {summary:?}");
    ensure!(summary.forwarded()? == at_origin, "{at_origin} requests at the origin: {summary:?}");
    ensure!(summary.figure("errors")? == 0, "errors: {summary:?}");
    ensure!(summary.figure("hits")? > 0, "no hits: {summary:?}");
    Ok(())
}

/// Runs a client that obeys `fixtures/README.md`, and checks everything.
fn client(words: impl IntoIterator<Item = OsString>) -> Result<()> {
    let origin = Origin::http(answer)?;
    let words = words.into_iter().chain([origin.url().into(), ROUNDS.to_string().into()]);

    let outcome = Exec::port(origin.port())?.run(words)?;

    let text = outcome.output.text();
    let said: Value = serde_json::from_str(text.trim()).with_context(|| outcome.output.errors())?;
    ensure!(said["wrong"] == Value::Array(Vec::new()), "{said}");
    ensure!(said["requests"] == ROUNDS * PATHS, "{said}");
    ensure!(outcome.output.status.success(), "{:?}", outcome.output);
    agree(&outcome, ROUNDS * PATHS, origin.count())?;
    ensure!(outcome.figure("connections_redirected")? > 0, "nothing was redirected");
    // Each path that may be reused was asked for by each round, and cached by the first.
    ensure!(outcome.figure("hits")? >= 2 * (ROUNDS - 1), "too few hits: {:?}", outcome.summary()?);
    ensure!(origin.count_of("/private") as u64 == ROUNDS, "no-store was answered from a store");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn curl_gets_the_right_bytes() -> Result<()> {
    let Some(curl) = locate::needed("curl", locate::on_path("curl"))? else { return Ok(()) };
    let origin = Origin::http(answer)?;
    let paths = ["/fresh", "/chunked", "/private", "/validated"];
    let urls = (0..ROUNDS).flat_map(|_| paths).map(|path| OsString::from(format!("{}{path}", origin.url())));

    let outcome = Exec::port(origin.port())?.run([curl.into(), "-sS".into()].into_iter().chain(urls))?;

    let expected: String = (0..ROUNDS).flat_map(|_| paths).map(|path| path.repeat(500)).collect();
    ensure!(outcome.output.text() == expected, "other bytes: {}", outcome.output.errors());
    agree(&outcome, ROUNDS * PATHS, origin.count())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn curl_run_twice_is_answered_from_memory_the_second_time() -> Result<()> {
    let Some(_) = locate::needed("curl", locate::on_path("curl"))? else { return Ok(()) };
    let origin = Origin::http(answer)?;
    let script = format!("curl -sSi {0}/fresh && curl -sSi {0}/fresh", origin.url());

    let outcome = Exec::port(origin.port())?.run(["sh", "-c", &script])?;

    ensure!(origin.count() == 1, "the origin saw {}", origin.count());
    let text = outcome.output.text();
    ensure!(text.matches("Cache-Status: sidestep; hit").count() == 1, "{text}");
    ensure!(text.matches("Cache-Status: sidestep; fwd=uri-miss; stored").count() == 1, "{text}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn python_urllib_gets_the_right_bytes() -> Result<()> {
    let Some(python) = locate::needed("python3", locate::on_path("python3"))? else { return Ok(()) };
    client([python.into(), locate::fixture("urllib_client.py").into()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn python_aiohttp_gets_the_right_bytes() -> Result<()> {
    let Some(python) = locate::needed("the tools' python", locate::tool("python"))? else { return Ok(()) };
    client([python.into(), locate::fixture("aiohttp_client.py").into()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn node_fetch_gets_the_right_bytes() -> Result<()> {
    let Some(node) = locate::needed("node", locate::on_path("node"))? else { return Ok(()) };
    client([node.into(), locate::fixture("fetch_client.mjs").into()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn go_net_http_gets_the_right_bytes() -> Result<()> {
    let scratch = Scratch::new()?;
    let Some(binary) = toolchain::go(&locate::fixture("client.go"), &scratch)? else { return Ok(()) };
    client([binary.into_os_string()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn java_http_client_with_its_defaults_gets_hits() -> Result<()> {
    let Some(java) = locate::needed("java", locate::on_path("java"))? else { return Ok(()) };
    client([java.into(), "-XX:TieredStopAtLevel=1".into(), locate::fixture("Client.java").into()])
}

fn wrk(seconds: u64, url: &str, port: u16) -> Result<Option<(Outcome, u64)>> {
    let Some(wrk) = locate::needed("wrk", locate::on_path("wrk"))? else { return Ok(None) };
    let mut words: Vec<OsString> =
        vec![wrk.into(), "-t2".into(), "-c64".into(), format!("-d{seconds}s").into(), "-s".into()];
    words.extend([locate::fixture("check_body.lua").into(), url.into()]);
    let outcome = Exec::port(port)?.run(words)?;
    let text = outcome.output.text();
    let line = text.lines().find(|line| line.starts_with('{')).with_context(|| outcome.output.errors())?;
    let said: Value = serde_json::from_str(line)?;
    ensure!(said["wrong"] == 0 && said["failed"] == 0, "{text}");
    let requests = said["requests"].as_u64().context("no count")?;
    Ok(Some((outcome, requests)))
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn wrk_with_64_connections_gets_right_bytes_and_the_figures_agree_with_nginx() -> Result<()> {
    let body = "/fresh".repeat(500).into_bytes();
    let Some(nginx) = Nginx::serving(&[("fresh", body)])? else { return Ok(()) };
    let url = format!("http://127.0.0.1:{}/fresh", nginx.port());

    let Some((outcome, requests)) = wrk(2, &url, nginx.port())? else { return Ok(()) };

    let summary = outcome.summary()?;
    summary.balances()?;
    ensure!(summary.forwarded()? == nginx.count()?, "nginx saw {}: {summary:?}", nginx.count()?);
    ensure!(nginx.count()? <= 64, "more misses than connections: {}", nginx.count()?);
    // wrk stops with a request under way on each connection.
    let seen = summary.figure("requests")?;
    ensure!((requests..=requests + 64).contains(&seen), "wrk counted {requests}: {summary:?}");
    ensure!(requests > 1000, "only {requests} requests in two seconds");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn wrk_with_64_connections_works_where_nothing_may_be_stored() -> Result<()> {
    let origin =
        Origin::http(|request| Answer::ok(request.target().repeat(500)).field("Cache-Control", "no-store"))?;

    let Some((outcome, requests)) = wrk(1, &format!("{}/fresh", origin.url()), origin.port())? else {
        return Ok(());
    };

    let summary = outcome.summary()?;
    summary.balances()?;
    ensure!(summary.figure("hits")? == 0, "{summary:?}");
    // A request that was under way when wrk stopped counts as an error, or reached the origin.
    let (seen, at_origin) = (summary.figure("requests")?, origin.count());
    ensure!((requests..=requests + 64).contains(&seen), "wrk counted {requests}: {summary:?}");
    ensure!(at_origin.abs_diff(summary.forwarded()?) <= 64, "the origin saw {at_origin}: {summary:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_large_file_of_nginx_is_the_same_from_the_origin_and_from_the_store() -> Result<()> {
    let Some(_) = locate::needed("curl", locate::on_path("curl"))? else { return Ok(()) };
    let body = harness::pattern::bytes(5_000_000);
    let Some(nginx) = Nginx::serving(&[("large", body.clone())])? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let (first, second) = (scratch.file("first"), scratch.file("second"));
    let url = format!("http://127.0.0.1:{}/large", nginx.port());
    let script = format!("curl -sS -o {} {url} && curl -sS -o {} {url}", first.display(), second.display());

    let outcome = Exec::port(nginx.port())?.run(["sh", "-c", &script])?;

    ensure!(outcome.output.status.success(), "{:?}", outcome.output);
    ensure!(fs::read(first)? == body && fs::read(second)? == body, "other bytes");
    ensure!(nginx.count()? == 1 && outcome.figure("hits")? == 1, "{:?}", outcome.summary()?);
    Ok(())
}
