//! One daemon after another: nobody notices that another process serves.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::exclusive::Exclusive;
use harness::load;
use harness::locate;
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin};
use harness::process::Process;
use harness::wait::{self, PATIENCE};
use nix::sys::signal::Signal;

/// Waits until the origin has answered this many more requests.
fn more(origin: &Origin, requests: u64) -> Result<()> {
    origin.reached(origin.count() + requests)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn upgrades_under_load_fail_no_request() -> Result<()> {
    const UPGRADES: usize = 5;
    let _machine = Exclusive::machine()?;
    let origin = Origin::http(|_| Answer::ok("counted").field("Cache-Control", "no-store"))?;
    let workload = Workload::local("load", &[origin.port()])?;
    let probe = locate::probe()?.to_string_lossy().into_owned();
    let words = [&probe, "load", &origin.addr().to_string(), "/a", "6", "5000"].map(str::to_owned);
    let mut command = workload.command(words);
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;
    let mut load = Process::start(&mut command)?;
    let stdin = load.take_stdin();
    more(&origin, 300)?;

    let mut moments = Vec::new();
    for number in 0..UPGRADES {
        // One connection that is there before and after, and is asked again and again.
        let open = agent.connect(origin.addr())?;
        ensure!(open.get("/b")?.expect(200)?.passed_through_cache(), "{number}: not served before");
        let begun = load::clock();
        let before = node.take_over()?;
        moments.push((begun, load::clock()));
        let last = open.get("/b")?.expect(200)?;
        ensure!(last.passed_through_cache() && last.closes(), "{number}: {}", last.head_text());
        more(&origin, 300)?;
        // What is open there gets its time; then it ends.
        before.signal(Signal::SIGTERM)?;
        before.finish(PATIENCE)?.succeeded()?;
        more(&origin, 300)?;
    }
    drop(stdin);
    let output = load.finish(PATIENCE)?;
    let record = load::record(&output.text()).with_context(|| output.errors())?;

    let failed: Vec<_> = record.iter().filter(|attempt| !attempt.succeeded()).collect();
    ensure!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), record.len(), failed.first());
    let direct: Vec<_> = record.iter().filter(|attempt| attempt.outcome == "direct").collect();
    let is_during =
        |one: &load::Attempt| moments.iter().any(|(from, until)| one.begun < *until && one.ended > *from);
    let (count, outside) = (direct.len(), direct.iter().filter(|attempt| !is_during(attempt)).count());
    println!(
        "{} connections, {count} of them direct, while {UPGRADES} daemons followed one another",
        record.len()
    );
    ensure!(outside == 0, "{outside} went direct although nobody took over");
    Ok(())
}

/// The ids of the maps that a process holds.
fn maps(pid: i32) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // One that is closed meanwhile is no map of interest.
        let text = fs::read_to_string(file?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// A daemon of another version may lay its maps out otherwise: what it would misread, it must never get.
#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_new_daemon_adopts_no_map_of_the_one_before_and_finds_none() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = Origin::http(|_| Answer::ok("x").max_age(60))?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;
    agent.get(origin.addr(), "/a")?.expect(200)?;
    let of_first = maps(node.process().pid())?;
    ensure!(of_first.len() > 10, "{of_first:?}");

    let before = node.take_over()?;
    agent.get(origin.addr(), "/a")?.expect(200)?;
    let (of_second, still) = (maps(node.process().pid())?, maps(before.pid())?);

    ensure!(of_second.len() == of_first.len(), "{of_first:?} {of_second:?}");
    ensure!(of_second.is_disjoint(&of_first), "adopted: {:?}", of_second.intersection(&of_first));
    ensure!(of_second.is_disjoint(&still), "shared: {still:?}");
    // What outlives a process is what it pins.
    for pinned in fs::read_dir("/sys/fs/bpf").into_iter().flatten() {
        let name = pinned?.file_name();
        ensure!(!name.to_string_lossy().contains("sidestep"), "pinned: {}", name.display());
    }
    before.signal(Signal::SIGTERM)?;
    before.finish(PATIENCE)?.succeeded().map(drop)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_answer_that_is_under_way_is_whole_though_another_process_serves() -> Result<()> {
    const BYTES: u64 = 64 << 20;
    let _machine = Exclusive::machine()?;
    let origin = Origin::http(|request| match request.target() {
        "/large" => Answer::pattern(BYTES).field("Cache-Control", "no-store"),
        _ => Answer::ok("small"),
    })?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;
    let open = agent.connect(origin.addr())?;
    open.send(format!("GET /large HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))?;
    origin.reached(1)?;

    let before = node.take_over()?;
    before.signal(Signal::SIGTERM)?;
    let response = open.response_within("GET", Duration::from_secs(60))?.expect(200)?;

    ensure!(response.is_pattern(BYTES), "{} bytes", response.length());
    drop(open);
    before.finish(PATIENCE)?.succeeded()?;
    ensure!(agent.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache(), "not served afterwards");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn who_has_retired_serves_again_once_its_successor_is_gone() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = Origin::http(|_| Answer::ok("x"))?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;
    let before = node.take_over()?;
    ensure!(
        agent.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache(),
        "the successor does not serve"
    );

    node.kill()?;
    ensure!(!agent.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache(), "by whom?");
    node.is_served_by(before.pid())?;

    wait::wait_until(PATIENCE, "a served workload", || {
        agent.get(origin.addr(), "/a").is_ok_and(|response| response.passed_through_cache())
    })?;
    before.signal(Signal::SIGTERM)?;
    before.finish(PATIENCE)?.succeeded().map(drop)
}
