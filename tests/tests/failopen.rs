//! The workload never pays for the daemon: it is killed, stopped, started again and starved while a load runs.
//!
//! These tests load both cores, so they take turns. They print what happened in each phase.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::exclusive::Exclusive;
use harness::exec::Exec;
use harness::load::{self, Attempt};
use harness::locate;
use harness::netns::NodeNet;
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin};
use harness::process::{self, Output, Process};
use harness::wait::{self, PATIENCE};
use nix::sys::signal::Signal;

const THREADS: &str = "6";

/// An origin each of whose answers it counts, because nothing may be stored.
fn counting_origin() -> Result<Origin> {
    Origin::http(|_| Answer::ok("counted").field("Cache-Control", "no-store"))
}

fn load_words(origin: &Origin, patience_ms: u32) -> Result<Vec<String>> {
    let probe = locate::probe()?.to_string_lossy().into_owned();
    let (addr, patience) = (origin.addr().to_string(), patience_ms.to_string());
    Ok(vec![probe, "load".to_owned(), addr, "/a".to_owned(), THREADS.to_owned(), patience])
}

/// Waits until the origin has answered this many more requests.
fn more(origin: &Origin, requests: u64) -> Result<()> {
    origin.reached(origin.count() + requests)
}

fn tally(name: &str, attempts: &[&Attempt]) -> (usize, usize) {
    let count = |outcome: &str| attempts.iter().filter(|a| a.outcome == outcome).count();
    let failed: Vec<_> = attempts.iter().filter(|attempt| !attempt.succeeded()).collect();
    let (cached, direct) = (count("cached"), count("direct"));
    println!(
        "{name}: {} connections, {cached} through the cache, {direct} direct, {} failed",
        attempts.len(),
        failed.len()
    );
    for attempt in failed.iter().take(5) {
        println!("    {}", attempt.outcome);
    }
    (cached, direct)
}

/// Every one of these connections succeeded, and there were some; tells how.
fn all_succeeded(name: &str, attempts: &[&Attempt]) -> Result<(usize, usize)> {
    let tallied = tally(name, attempts);
    ensure!(!attempts.is_empty(), "{name}: no connection");
    let failed = attempts.iter().find(|attempt| !attempt.succeeded());
    ensure!(failed.is_none(), "{name}: {failed:?}");
    Ok(tallied)
}

/// The connections that were over before a moment.
fn over_before(record: &[Attempt], moment: u64) -> Vec<&Attempt> {
    record.iter().filter(|attempt| attempt.ended < moment).collect()
}

/// The connections that were begun at a moment or later, and before another.
fn begun(record: &[Attempt], from: u64, until: u64) -> Vec<&Attempt> {
    record.iter().filter(|attempt| (from..until).contains(&attempt.begun)).collect()
}

fn record_of(output: &Output) -> Result<Vec<Attempt>> {
    load::record(&output.text()).with_context(|| output.errors())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn after_kill_9_of_exec_every_new_connection_of_its_command_succeeds_directly() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = counting_origin()?;
    let mut running = Exec::port(origin.port())?.start(load_words(&origin, 5000)?)?;
    more(&origin, 300)?;

    let (asked, stdin) = (load::clock(), running.process.take_stdin());
    running.process.kill()?;
    let dead = load::clock();
    more(&origin, 300)?;
    drop(stdin);
    // The command outlives its parent and prints the record.
    let output = running.process.finish(PATIENCE)?;

    let record = record_of(&output)?;
    all_succeeded("before the kill", &over_before(&record, asked))?;
    tally("while it died", &begun(&record, asked, dead));
    let (cached, direct) = all_succeeded("after its death", &begun(&record, dead, u64::MAX))?;
    ensure!(cached == 0 && direct > 0, "{cached} through a dead daemon");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_node_that_was_killed_is_sidestepped_and_started_again_it_redirects_again() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = counting_origin()?;
    let workload = Workload::local("load", &[origin.port()])?;
    let mut command = workload.command(load_words(&origin, 5000)?);
    let mut node = Node::start([workload])?;
    let mut load = Process::start(&mut command)?;
    let stdin = load.take_stdin();
    more(&origin, 300)?;

    let asked = load::clock();
    node.kill()?;
    let dead = load::clock();
    more(&origin, 300)?;
    let again = load::clock();
    node.restart()?;
    let up = load::clock();
    more(&origin, 300)?;
    drop(stdin);
    let record = record_of(&load.finish(PATIENCE)?)?;

    let (cached, _) = all_succeeded("before the kill", &over_before(&record, asked))?;
    ensure!(cached > 0, "nothing was redirected before");
    tally("while it died", &begun(&record, asked, dead));
    let (cached, direct) = all_succeeded("while it was dead", &begun(&record, dead, again))?;
    ensure!(cached == 0 && direct > 0, "{cached} through a dead daemon");
    all_succeeded("while it started", &begun(&record, again, up))?;
    let (cached, direct) = all_succeeded("when it was up again", &begun(&record, up, u64::MAX))?;
    ensure!(cached > 0 && direct == 0, "{cached} redirected, {direct} direct");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_stopped_daemon_is_sidestepped_within_a_second() -> Result<()> {
    const SECOND: u64 = 1_000_000_000;
    let _machine = Exclusive::machine()?;
    let origin = counting_origin()?;
    let workload = Workload::local("load", &[origin.port()])?;
    // Those that hang give up soon, so that others are begun while it is stopped.
    let mut command = workload.command(load_words(&origin, 300)?);
    let node = Node::start([workload])?;
    let mut load = Process::start(&mut command)?;
    let stdin = load.take_stdin();
    more(&origin, 300)?;

    node.process().signal(Signal::SIGSTOP)?;
    let stopped = load::clock();
    wait::wait_until(PATIENCE, "a second passes", || load::clock() >= stopped + SECOND)?;
    more(&origin, 300)?;
    let resumed = load::clock();
    // On a busy machine a connection may be begun by its own clock and not yet by the kernel's.
    more(&origin, 100)?;
    node.process().signal(Signal::SIGCONT)?;
    node.reaches("connections_redirected", node.figure("connections_redirected")? + 50)?;
    drop(stdin);
    let record = record_of(&load.finish(PATIENCE)?)?;

    let during = |a: &&Attempt| (stopped..resumed).contains(&a.begun) && a.outcome == "direct";
    let first_direct = record.iter().filter(during).map(|a| a.begun).min().context("none went direct")?;
    println!(
        "the first direct connection began {:?} after the stop",
        Duration::from_nanos(first_direct - stopped)
    );
    tally("within the first second", &begun(&record, stopped, stopped + SECOND));
    ensure!(first_direct < stopped + SECOND + SECOND / 3, "the first direct connection came late");
    let (cached, direct) = all_succeeded("after one second", &begun(&record, stopped + SECOND, resumed))?;
    ensure!(cached == 0 && direct > 0, "{cached} through a stopped daemon");
    let (cached, _) = tally("when it ran again", &begun(&record, resumed, u64::MAX));
    ensure!(cached > 0, "nothing was redirected afterwards");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_busy_node_does_not_flip_to_direct() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let cores = thread::available_parallelism()?.get();
    let origin = counting_origin()?;
    let workload = Workload::local("load", &[origin.port()])?;
    let mut command = workload.command(load_words(&origin, 5000)?);
    let node = Node::start([workload])?;
    let probe = locate::probe()?;
    let spinners = (0..2 * cores).map(|_| Process::start(std::process::Command::new(&probe).arg("spin")));
    let spinners = spinners.collect::<Result<Vec<_>>>()?;

    let mut load = Process::start(&mut command)?;
    let (began, stdin) = (load::clock(), load.take_stdin());
    wait::wait_until(PATIENCE, "four busy seconds", || load::clock() >= began + 4_000_000_000)?;
    drop(stdin);
    let record = record_of(&load.finish(PATIENCE)?)?;

    drop(spinners);
    let (cached, direct) = all_succeeded("on a busy node", &begun(&record, 0, u64::MAX))?;
    ensure!(direct == 0 && cached > 0, "{direct} of {} went direct", record.len());
    ensure!(node.figure("passed_stale")? == 0, "{:?}", node.figures()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn connections_that_are_open_when_the_daemon_ends_cleanly_see_an_end_and_new_ones_go_direct() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let seen = AtomicU64::new(0);
    let origin = Origin::http(move |_| Answer::ok(seen.fetch_add(1, Ordering::SeqCst).to_string()))?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let node = Node::start([workload])?;
    let open = agent.connect(origin.addr())?;
    ensure!(open.get("/a")?.expect(200)?.passed_through_cache());

    let _workloads = node.finish()?;

    let rest = open.rest()?;
    ensure!(rest.bytes.is_empty() && ["eof", "reset"].contains(&rest.end.as_str()), "{rest:?}");
    let direct = agent.get(origin.addr(), "/a")?.expect(200)?;
    ensure!(!direct.passed_through_cache(), "{}", direct.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn with_no_descriptors_left_new_connections_go_direct_and_none_waits() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = counting_origin()?;
    // Every connection is kept open, more of them than the daemon may have descriptors.
    let script = "import socket, sys, threading
kept = []
def ask(count):
    for _ in range(count):
        s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=3)
        kept.append(s)
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')
        assert s.recv(999).startswith(b'HTTP/1.1 200')
threads = [threading.Thread(target=ask, args=(10,)) for _ in range(14)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(kept))";
    let exec = Exec::port(origin.port())?.behind(["prlimit", "--nofile=160:160"]);

    let outcome = exec.run(["python3", "-c", script, &origin.port().to_string()])?;

    ensure!(outcome.output.errors().is_empty(), "{}", outcome.output.errors());
    ensure!(outcome.output.text().trim() == "140", "{}", outcome.output.text());
    ensure!(outcome.figure("connections_redirected")? > 10 && outcome.figure("passed_paused")? > 10);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_burst_beyond_a_short_accept_queue_goes_direct_at_once() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let net = NodeNet::new()?;
    let listener = net.listen()?;
    // The burst must not be too much for the origin itself.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4000)?)?;
    let origin = Origin::http_on(listener, |_| Answer::ok("x"))?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    let mut words = pod.enter().into_iter();
    let mut short = Command::new(words.next().context("no program")?);
    short.args(words).args(["sh", "-c", "echo 8 > /proc/sys/net/core/somaxconn"]);
    process::run(&mut short, PATIENCE)?.succeeded()?;
    // A SYN that does not fit into the queue is sent again after a second.
    let script = "import select, socket, sys, time
worst = 0
for _ in range(3):
    begun, waiting, kept = time.monotonic(), select.poll(), []
    for _ in range(100):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((sys.argv[1], int(sys.argv[2])))
        waiting.register(s, select.POLLOUT)
        kept.append(s)
    for _ in kept:
        waiting.unregister(waiting.poll(10000)[0][0])
    worst = max(worst, time.monotonic() - begun)
print('ok' if worst < 0.9 else worst)";

    let exec = Exec::port(origin.port())?.within(&pod);
    let (ip, port) = (origin.addr().ip().to_string(), origin.port().to_string());
    let outcome = exec.run(["python3", "-c", script, &ip, &port])?;

    ensure!(outcome.output.text().trim() == "ok", "{} {}", outcome.output.text(), outcome.output.errors());
    ensure!(outcome.figure("connections_redirected")? > 0 && outcome.figure("passed_pending")? > 0);
    Ok(())
}
