//! Which hits are given inside the kernel: what the daemon would give for the same head, until it would not any more.
//!
//! Each request is the first one of its connection. An answer of the kernel is known by its `Age` of eight digits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::admin;
use harness::agent::Agent;
use harness::exec::{Client, Exec};
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin};
use harness::response::Response;
use harness::wait::{self, PATIENCE};

fn behind(origin: &Origin) -> Result<Client> {
    Exec::port(origin.port())?.agent()
}

/// A request as it is sent, with these further lines.
fn request(origin: &Origin, method: &str, target: &str, lines: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", origin.addr())
}

fn ask(agent: &Agent, origin: &Origin, request: &str) -> Result<Response> {
    let method = request.split(' ').next().context("a method")?;
    agent.connect(origin.addr())?.exchange(method, request)
}

fn get(agent: &Agent, origin: &Origin, target: &str) -> Result<Response> {
    ask(agent, origin, &request(origin, "GET", target, ""))?.expect(200)
}

fn is_by_kernel(response: &Response) -> bool {
    response.field("age").is_some_and(|age| age.len() == 8)
}

/// Asks until the kernel answers; the last answer of the daemon, and the kernel's.
fn hot(agent: &Agent, origin: &Origin, request: &str) -> Result<(Response, Response)> {
    let mut before = None;
    wait::poll(PATIENCE, "an answer of the kernel", || match ask(agent, origin, request) {
        Ok(response) if is_by_kernel(&response) => Some(before.take().map(|before| (before, response))),
        Ok(response) => {
            before = Some(response);
            None
        }
        Err(_) => Some(None),
    })?
    .context("the daemon did not answer before")
}

/// Everything of a response but its age.
fn ageless(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>, u64) {
    let fields = response.fields().iter().filter(|(name, _)| name != "Age").cloned().collect();
    (response.status(), fields, response.body().to_vec(), response.length())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_kernel_gives_what_the_daemon_gave_and_its_age_goes_on() -> Result<()> {
    let origin = Origin::http(|request| match request.target() {
        "/missing" => Answer::status("404 Not Found", "no").max_age(600),
        "/gone" => Answer::bare("204 No Content").max_age(600),
        _ => Answer::ok("what the origin says").max_age(600).field("ETag", "\"v1\"").field("X-Some", "Value"),
    })?;
    let client = behind(&origin)?;
    for (method, target, lines, status) in [
        ("GET", "/a", "", 200),
        ("GET", "/a", "Connection: keep-alive\r\nAccept: */*\r\n", 200),
        ("HEAD", "/a", "", 200),
        ("GET", "/a", "If-None-Match: \"v1\"\r\n", 304),
        ("GET", "/a", "Range: bytes=5-7\r\n", 206),
        ("GET", "/missing", "", 404),
        ("GET", "/gone", "", 204),
    ] {
        let request = request(&origin, method, target, lines);
        let (daemon, kernel) = hot(&client, &origin, &request).context(request)?;
        ensure!(kernel.complete() && kernel.status() == status, "{kernel:?}");
        ensure!(ageless(&daemon) == ageless(&kernel), "{daemon:?}\n{kernel:?}");
    }
    let mut ages = Vec::new();
    wait::wait_until(PATIENCE, "three ages", || {
        let age = get(&client, &origin, "/a").ok().filter(is_by_kernel).and_then(|response| response.age());
        ages.extend(age);
        ages.dedup();
        ages.len() >= 3
    })?;
    ensure!(ages.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ages:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_large_answer_is_given_where_the_kernel_counts_it_as_unread() -> Result<()> {
    let origin = Origin::http(|_| Answer::pattern(60_000).max_age(600))?;
    let client = behind(&origin)?;
    let status = admin::get(client.admin().context("no admin socket")?, "/v1/status")?;
    if !status["acceleration"]["deviations"].to_string().contains("2 KB at most") {
        let (daemon, kernel) = hot(&client, &origin, &request(&origin, "GET", "/large", ""))?;
        ensure!(ageless(&daemon) == ageless(&kernel) && kernel.is_pattern(60_000), "{kernel:?}");
        return Ok(());
    }
    for number in 0..20 {
        let response = get(&client, &origin, "/large")?;
        ensure!(response.is_pattern(60_000) && !is_by_kernel(&response), "{number}: {response:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn nothing_of_before_is_given_after_a_write_was_answered() -> Result<()> {
    let version = Arc::new(AtomicU64::new(0));
    let written = version.clone();
    let origin = Origin::http(move |request| match request.method() {
        "GET" => Answer::ok(written.load(Ordering::SeqCst).to_string()).max_age(600),
        _ => {
            written.fetch_add(1, Ordering::SeqCst);
            Answer::ok("written")
        }
    })?;
    let client = behind(&origin)?;
    for round in 0..40 {
        let expected = version.load(Ordering::SeqCst).to_string();
        let (daemon, kernel) = hot(&client, &origin, &request(&origin, "GET", "/a", ""))?;
        ensure!(daemon.text() == expected && kernel.text() == expected, "{round}: {daemon:?} {kernel:?}");
        let method = ["PUT", "POST", "DELETE"][round % 3];
        ask(&client, &origin, &request(&origin, method, "/a", "Content-Length: 0\r\n"))?.expect(200)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn nothing_is_given_past_a_lifetime_of_one_second() -> Result<()> {
    let begin = Instant::now();
    let origin = Origin::http(move |_| Answer::ok(begin.elapsed().as_micros().to_string()).max_age(1))?;
    let client = behind(&origin)?;
    let (mut by_kernel, mut made) = (0, HashMap::new());
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let asked_us = begin.elapsed().as_micros() as u64;
        let response = get(&client, &origin, "/a")?;
        let made_us: u64 = response.text().parse()?;
        ensure!(asked_us < made_us + 1_000_000, "asked at {asked_us}, made at {made_us}: {response:?}");
        by_kernel += u64::from(is_by_kernel(&response));
        *made.entry(made_us).or_insert(0) += 1;
    }
    ensure!(by_kernel > 20 && made.len() >= 3, "{by_kernel} by the kernel, {made:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn only_what_tracers_change_makes_no_difference() -> Result<()> {
    let origin = Origin::http(|request| match request.target() {
        "/varies" => Answer::ok("x").max_age(600).field("Vary", "Traceparent"),
        _ => Answer::ok("x").max_age(600),
    })?;
    let client = behind(&origin)?;
    hot(&client, &origin, &request(&origin, "GET", "/a", ""))?;
    let mut by_kernel = 0;
    for number in 0..20 {
        let traced = format!("traceparent: 00-{number}-01\r\nX-Request-ID: {number}\r\nAccept: */*\r\n");
        let other = format!("X-Other: {number}\r\n");
        let [traced, other] = [traced, other].map(|lines| request(&origin, "GET", "/a", &lines));
        let (traced, other) = (ask(&client, &origin, &traced)?, ask(&client, &origin, &other)?);
        // The line that is not skipped has to become hot itself.
        ensure!(number >= 2 || !is_by_kernel(&traced), "{number}: {traced:?}");
        by_kernel += u32::from(is_by_kernel(&traced));
        ensure!(!is_by_kernel(&other) && other.is_hit(), "{other:?}");
    }
    // Not all: a machine that stands still for half a second gives none.
    ensure!(by_kernel >= 9, "{by_kernel} of 18");
    for _ in 0..6 {
        let varies = request(&origin, "GET", "/varies", "traceparent: 1\r\n");
        let response = ask(&client, &origin, &varies)?.expect(200)?;
        ensure!(!is_by_kernel(&response), "{response:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_looks_like_a_tracer_s_field_within_a_line_tells_requests_apart() -> Result<()> {
    let origin = Origin::http(|request| Answer::ok(request.target()).max_age(600))?;
    let client = behind(&origin)?;
    // Eight bytes from the beginning of a line on: whoever took them for a line's own would leave them out.
    hot(&client, &origin, &request(&origin, "GET", "/abc", ""))?;
    for number in 0..10 {
        let target = format!("/abcb3:{number:05}");
        let response = get(&client, &origin, &target)?;
        ensure!(response.text() == target, "{target}: {response:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_the_kernel_is_not_to_judge_goes_to_the_daemon() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let client = behind(&origin)?;
    hot(&client, &origin, &request(&origin, "GET", "/a", ""))?;
    for lines in ["Cache-Control: max-age=500\r\n", "Pragma: x\r\n", "Connection: close\r\n"] {
        for _ in 0..5 {
            let response = ask(&client, &origin, &request(&origin, "GET", "/a", lines))?.expect(200)?;
            ensure!(!is_by_kernel(&response), "{lines}: {response:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn each_workload_gets_its_own() -> Result<()> {
    let asked = Arc::new(Mutex::new(0));
    let origin = Origin::http(move |_| {
        let mut asked = asked.lock().expect("no panic");
        *asked += 1;
        Answer::ok(format!("answer {asked}")).max_age(600)
    })?;
    let web = Workload::local("web", &[origin.port()])?.identity("shop", "web");
    let jobs = Workload::local("jobs", &[origin.port()])?.identity("shop", "jobs");
    let agents = [web.agent()?, jobs.agent()?];
    let node = Node::start([web, jobs])?;

    for (agent, expected) in agents.iter().zip(["answer 1", "answer 2"]) {
        let (daemon, kernel) = hot(agent, &origin, &request(&origin, "GET", "/a", ""))?;
        ensure!(daemon.text() == expected && kernel.text() == expected, "{daemon:?} {kernel:?}");
    }
    for _ in 0..10 {
        for (agent, expected) in agents.iter().zip(["answer 1", "answer 2"]) {
            let response = get(agent, &origin, "/a")?;
            ensure!(is_by_kernel(&response) && response.text() == expected, "{response:?}");
        }
    }
    // One answer while it became hot, and ten.
    wait::wait_until(PATIENCE, "11 hits of each workload", || {
        let status = admin::get(&node.admin(), "/v1/status").unwrap_or_default();
        let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
        workloads.len() == 2 && workloads.iter().all(|workload| workload["kernelHits"] == 11)
    })?;
    ensure!(origin.count() == 2, "{}", origin.count());
    Ok(())
}
