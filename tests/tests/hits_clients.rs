//! Programs that people use get the same answers whether hits are given inside the kernel or by the daemon, and those
//! that keep connections get 99 of 100 hits inside the kernel.
//!
//! Each client runs twice against one origin, first with `--acceleration off`, then with what is under test.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::acceleration::{self, Share};
use harness::envoy::Envoy;
use harness::exec::Exec;
use harness::nginx::Proxy;
use harness::origin::{Answer, Origin, Request};
use harness::replay::{self, Seen};
use harness::scratch::Scratch;
use harness::shell::Shell;
use harness::{locate, pattern, toolchain, wait};
use serde_json::Value;

/// What every client asks for, in turn.
const TARGETS: [&str; 8] =
    ["/0", "/1000", "/16000", "/60000", "/chunked", "/missing", "/tagged", "/tagged=\"v1\""];

/// Programs started one after the other before the figures are read, so that each has connections of its own.
const WARM_RUNS: usize = 3;

/// Rounds of each of them: more than the daemon answers before it asks a kept connection to be made anew.
const WARM_ROUNDS: usize = 5;

/// Rounds that are measured: 2000 requests.
const ROUNDS: usize = 250;

const CONTENT: &str = "what the origin says";

fn answer(request: &Request) -> Answer {
    let path = request.target();
    let answer = match path.trim_start_matches('/').parse() {
        Ok(length) => Answer::ok(pattern::bytes(length)),
        Err(_) if path == "/chunked" => Answer::chunked(&[CONTENT, CONTENT], ""),
        Err(_) if path == "/tagged" && request.field("if-none-match") == Some("\"v1\"") => {
            Answer::bare("304 Not Modified").field("ETag", "\"v1\"")
        }
        Err(_) if path == "/tagged" => Answer::ok(CONTENT).field("ETag", "\"v1\""),
        Err(_) => Answer::status("404 Not Found", CONTENT),
    };
    answer.field("Content-Type", "text/plain").field("X-Some", "Value").max_age(600)
}

/// The status and the content that a target must be answered with.
fn expected(target: &str) -> (&'static str, Vec<u8>) {
    match target.trim_start_matches('/').parse() {
        Ok(length) => ("200", pattern::bytes(length)),
        Err(_) if target == "/chunked" => ("200", CONTENT.repeat(2).into()),
        Err(_) if target == "/tagged" => ("200", CONTENT.into()),
        Err(_) if target == "/missing" => ("404", CONTENT.into()),
        Err(_) => ("304", Vec::new()),
    }
}

/// Every target is answered as often as there are rounds, with the right status and content.
fn is_right(all: &[Seen], rounds: usize) -> Result<()> {
    for target in TARGETS {
        let (status, content) = expected(target);
        let digest = replay::digest(&content);
        let answers: Vec<_> = all.iter().filter(|seen| seen.target == target).collect();
        ensure!(answers.len() == rounds, "{target}: {} answers in {rounds} rounds", answers.len());
        let wrong = answers.iter().find(|seen| seen.status != status || seen.digest != digest);
        ensure!(wrong.is_none(), "{target}: {wrong:?}");
    }
    Ok(())
}

/// How a client is run: `words`, then the base URL, the rounds and the targets.
type Words = Vec<OsString>;

fn plan(words: &Words, base: &str, rounds: usize) -> Words {
    let plan = [OsString::from(base), rounds.to_string().into()];
    words.iter().cloned().chain(plan).chain(TARGETS.map(OsString::from)).collect()
}

/// A program of the workload through which its client reaches the origin.
struct Through {
    words: Words,
    port: u16,
}

/// One client in one mode: what it saw while it warmed up, and in the rounds that are measured.
struct Session {
    warm: Vec<Seen>,
    measured: Vec<Seen>,
    share: Share,
}

fn session(mode: &str, origin: &Origin, through: Option<&Through>, run: Run<'_>) -> Result<Session> {
    let exec = Exec::port(origin.port())?.flag(acceleration::FLAG).flag(mode);
    let mut shell = Shell::behind(exec)?;
    let base = match through {
        None => origin.url(),
        Some(Through { words, port }) => {
            shell.start(words)?;
            let listens = || TcpStream::connect(("127.0.0.1", *port)).is_ok();
            wait::wait_until(wait::PATIENCE, "the proxy listens", listens)
                .with_context(|| shell.printed("errors"))?;
            format!("http://127.0.0.1:{port}")
        }
    };
    let mut warm = Vec::new();
    for _ in 0..WARM_RUNS {
        warm.extend(run(&mut shell, &base, WARM_ROUNDS)?);
    }
    let before = shell.figures()?;
    let measured = run(&mut shell, &base, ROUNDS)?;
    let share = shell.hits_since(&before, measured.len() as u64)?;

    let outcome = shell.finish()?;
    let summary = outcome.summary()?;
    summary.balances()?;
    ensure!(summary.figure("errors")? == 0, "{mode}: errors: {summary:?}");
    Ok(Session { warm, measured, share })
}

type Run<'a> = &'a dyn Fn(&mut Shell, &str, usize) -> Result<Vec<Seen>>;

/// Runs a client in both modes and compares everything that it saw.
fn compared(origin: &Origin, through: Option<&Through>, run: Run<'_>) -> Result<()> {
    let tested = acceleration::tested();
    let off = session(acceleration::OFF, origin, through, run).context("off")?;
    let on = session(&tested, origin, through, run).context("on")?;

    println!("{}: {:?}; {}: {:?}", acceleration::OFF, off.share, tested, on.share);
    for session in [&off, &on] {
        is_right(&session.warm, WARM_RUNS * WARM_ROUNDS)?;
        is_right(&session.measured, ROUNDS)?;
        let other = session.measured.iter().find(|seen| !seen.is_hit());
        ensure!(other.is_none(), "not a hit: {other:?}");
    }
    replay::same(&off.warm, &on.warm).context("while warming up")?;
    replay::same(&off.measured, &on.measured).context("once warm")?;
    off.share.suits(acceleration::OFF)?;
    on.share.suits(&tested)
}

/// Compares a client that obeys `fixtures/README.md`.
fn client(words: impl IntoIterator<Item = OsString>) -> Result<()> {
    let words: Words = words.into_iter().collect();
    let run =
        |shell: &mut Shell, base: &str, rounds| replay::printed(&shell.run(plan(&words, base, rounds))?);
    compared(&Origin::http(answer)?, None, &run)
}

/// Compares a proxy, asked by a client that keeps one connection to it.
fn proxy(origin: &Origin, words: Option<Words>, port: u16) -> Result<()> {
    let (Some(words), Some(client)) = (words, python("http_client.py")?) else { return Ok(()) };
    let run =
        |shell: &mut Shell, base: &str, rounds| replay::printed(&shell.run(plan(&client, base, rounds))?);
    compared(origin, Some(&Through { words, port }), &run)
}

/// The words that run a Python client; no compiled copies of it are left beside it.
fn python(script: &str) -> Result<Option<Words>> {
    let Some(python) = locate::needed("the tools' python", locate::tool("python"))? else { return Ok(None) };
    Ok(Some(vec![python.into(), "-B".into(), locate::fixture("hits").join(script).into()]))
}

fn python_client(script: &str) -> Result<()> {
    let Some(words) = python(script)? else { return Ok(()) };
    client(words)
}

fn node_client(script: &str) -> Result<()> {
    let Some(node) = locate::needed("node", locate::on_path("node"))? else { return Ok(()) };
    client([node.into(), locate::fixture("hits").join(script).into()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn python_http_client_gets_the_same_from_the_kernel() -> Result<()> {
    python_client("http_client.py")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn python_requests_gets_the_same_from_the_kernel() -> Result<()> {
    python_client("requests_client.py")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn python_aiohttp_gets_the_same_from_the_kernel() -> Result<()> {
    python_client("aiohttp_client.py")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn python_asyncio_streams_get_the_same_from_the_kernel() -> Result<()> {
    python_client("streams_client.py")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn node_fetch_gets_the_same_from_the_kernel() -> Result<()> {
    node_client("fetch_client.mjs")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn node_http_agent_gets_the_same_from_the_kernel() -> Result<()> {
    node_client("agent_client.mjs")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn go_net_http_gets_the_same_from_the_kernel() -> Result<()> {
    let scratch = Scratch::new()?;
    let source = locate::fixture("hits").join("client.go");
    let Some(binary) = toolchain::go(&source, &scratch)? else { return Ok(()) };
    client([binary.into_os_string()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn java_http_client_gets_the_same_from_the_kernel() -> Result<()> {
    let scratch = Scratch::new()?;
    let source = locate::fixture("hits").join("HitsClient.java");
    let Some(java) = toolchain::java(&source, &scratch)? else { return Ok(()) };
    let class_path = scratch.path().into();
    client([java.into(), "-XX:TieredStopAtLevel=1".into(), "-cp".into(), class_path, "HitsClient".into()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn reqwest_which_polls_edge_triggered_gets_the_same_from_the_kernel() -> Result<()> {
    client([locate::reqwest_client()?.into_os_string()])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn curl_gets_the_same_from_the_kernel() -> Result<()> {
    let Some(curl) = locate::needed("curl", locate::on_path("curl"))? else { return Ok(()) };
    let scratch = Scratch::new()?;
    compared(&Origin::http(answer)?, None, &|shell, base, rounds| {
        let targets: Vec<&str> = (0..rounds).flat_map(|_| TARGETS).collect();
        let requests: Vec<String> = targets.iter().map(|target| lines(base, target)).collect();
        let config = scratch.write("urls", requests.join("next\n"))?;
        shell.run([curl.as_os_str(), "--config".as_ref(), config.as_os_str()])?;
        replay::raw(&std::fs::read(shell.stream("out"))?, &targets)
    })
}

/// The lines of curl's configuration for one request, whose answer it prints as it came.
fn lines(base: &str, target: &str) -> String {
    let (path, tag) = target.split_once('=').unwrap_or((target, ""));
    let condition = match tag {
        "" => String::new(),
        tag => format!("header = \"If-None-Match: {}\"\n", tag.replace('"', "\\\"")),
    };
    format!("url = \"{base}{path}\"\n{condition}raw\ninclude\nsilent\nshow-error\nmax-time = 20\n")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn nginx_as_a_proxy_in_the_workload_gets_the_same_from_the_kernel() -> Result<()> {
    let origin = Origin::http(answer)?;
    let nginx = Proxy::to(origin.port())?;
    proxy(&origin, nginx.words()?, nginx.port())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn envoy_as_a_proxy_in_the_workload_gets_the_same_from_the_kernel() -> Result<()> {
    let origin = Origin::http(answer)?;
    let envoy = Envoy::proxy(origin.port())?;
    proxy(&origin, envoy.words()?, envoy.port())
}

/// Runs wrk, which checks every content itself; returns how many answers it counted.
fn wrk(shell: &mut Shell, program: &Path, connections: u32, url: &str) -> Result<u64> {
    let mut words: Words =
        vec![program.into(), "-t1".into(), format!("-c{connections}").into(), "-d1s".into()];
    words.extend(["-s".into(), locate::fixture("check_body.lua").into(), url.into()]);
    let text = shell.run(words)?;
    let line = text.lines().find(|line| line.starts_with('{')).context("no figures")?;
    let said: Value = serde_json::from_str(line)?;
    ensure!(said["wrong"] == 0 && said["failed"] == 0, "{text}");
    said["requests"].as_u64().context("no count")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn wrk_gets_right_bytes_on_1_and_on_16_connections() -> Result<()> {
    let Some(program) = locate::needed("wrk", locate::on_path("wrk"))? else { return Ok(()) };
    let origin = Origin::http(|request| Answer::ok(request.target().repeat(500)).max_age(600))?;
    let url = format!("{}/fresh", origin.url());
    for mode in [acceleration::OFF, &acceleration::tested()] {
        for connections in [1, 16] {
            let exec = Exec::port(origin.port())?.flag(acceleration::FLAG).flag(mode);
            let mut shell = Shell::behind(exec)?;
            wrk(&mut shell, &program, connections, &url)?;
            let before = shell.figures()?;

            let requests = wrk(&mut shell, &program, connections, &url)?;

            let share = shell.hits_since(&before, requests)?;
            println!("{mode}, {connections} connections, 1 s: {requests} answers, {share:?}");
            let outcome = shell.finish()?;
            outcome.summary()?.balances()?;
            ensure!(requests > 2000, "only {requests}");
            share.suits(mode)?;
        }
    }
    Ok(())
}
