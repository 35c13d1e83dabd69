//! Hits inside the kernel end when the daemon does, stops, drains or is told to, and teach it nothing wrong about
//! connections on which it has heard nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::acceleration;
use harness::agent::Agent;
use harness::exclusive::Exclusive;
use harness::exec::Exec;
use harness::hammer::{self, Kind, Record};
use harness::load::clock;
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin};
use harness::process::Process;
use harness::wire::{End, Reader};
use harness::{locate, node, wait};
use nix::sys::signal::Signal;

const SECOND: Duration = Duration::from_secs(1);

/// Longer than the daemon waits for the first bytes of a connection before it asks whether the origin speaks first.
const SILENCE: Duration = Duration::from_millis(300);

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// A node with one workload, and a client in it that keeps its connections busy for a time.
struct Scene {
    _turn: Exclusive,
    origin: Origin,
    node: Node,
    client: Process,
    time: Duration,
}

impl Scene {
    /// Waits until the client has had hits inside the kernel; nothing where those are not demanded.
    fn busy(connections: u32, time: Duration) -> Result<Option<Self>> {
        let mode = acceleration::tested();
        if !acceleration::is_demanded(&mode) {
            return Ok(None);
        }
        let turn = Exclusive::machine()?;
        let origin = hammer::origin::start()?;
        let workload = Workload::local("w", &[origin.port()])?;
        let node = Node::configured(&format!("acceleration: {mode}\n"), [workload])?;
        let said = node.status()?["acceleration"].clone();
        ensure!(said["state"] == "on", "no hits inside the kernel: {said}");
        let words = ["hammer".to_owned(), Kind::Hot.word(), origin.addr().to_string()];
        let numbers = [connections.to_string(), time.as_millis().to_string()];
        let words = [locate::probe()?.display().to_string()].into_iter().chain(words).chain(numbers);
        let client = Process::start(&mut node.workloads().first().context("no workload")?.command(words))?;
        let enrolled = node.reaches("enrolled", connections.into());
        enrolled.with_context(|| format!("{:?}", node.figures()))?;
        node.reaches("kernel_hits", 20 * u64::from(connections))?;
        Ok(Some(Self { _turn: turn, origin, node, client, time }))
    }

    /// Waits for the client's end; nothing that it got was wrong.
    fn record(client: Process, time: Duration) -> Result<Record> {
        let output = client.finish(time + wait::PATIENCE)?.succeeded()?;
        let record = Record::read(&output.text())?;
        record.all_right()?;
        Ok(record)
    }
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn after_kill_9_there_is_no_hit_later_than_a_second_and_clients_go_on() -> Result<()> {
    let Some(scene) = Scene::busy(100, Duration::from_secs(10))? else { return Ok(()) };
    let Scene { mut node, client, time, origin, .. } = scene;
    let killed = clock();
    node.kill()?;
    let record = Scene::record(client, time)?;

    println!("last hit {:?} after kill -9", record.last_by_kernel(killed, u64::MAX));
    println!("{} connections ended: {:?}", record.ends.len(), record.ends.first());
    ensure!(record.by_kernel(killed - nanoseconds(SECOND), killed) > 0, "there were no hits before");
    ensure!(record.by_kernel(killed + nanoseconds(SECOND), u64::MAX) == 0, "hits of a dead daemon");
    ensure!(record.direct(killed, u64::MAX) > 100, "the clients did not go on; {} requests", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn while_the_daemon_is_stopped_there_is_no_hit_later_than_a_second_and_afterwards_all_goes_on() -> Result<()>
{
    let Some(scene) = Scene::busy(100, Duration::from_secs(12))? else { return Ok(()) };
    let stopped = clock();
    scene.node.process().signal(Signal::SIGSTOP)?;
    wait::pause(3 * SECOND);
    let continued = clock();
    scene.node.process().signal(Signal::SIGCONT)?;
    let record = Scene::record(scene.client, scene.time)?;

    println!("last hit {:?} after SIGSTOP", record.last_by_kernel(stopped, continued));
    ensure!(record.by_kernel(stopped - nanoseconds(SECOND), stopped) > 0, "there were no hits before");
    ensure!(
        record.by_kernel(stopped + nanoseconds(SECOND), continued) == 0,
        "hits of a daemon that is stopped, the last {:?} after",
        record.last_by_kernel(stopped, continued)
    );
    record.no_errors()?;
    ensure!(record.by_kernel(continued, u64::MAX) > 100, "no hits afterwards");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_daemon_that_drains_under_hits_costs_no_client_an_error() -> Result<()> {
    let Some(scene) = Scene::busy(32, Duration::from_secs(8))? else { return Ok(()) };
    let asked = clock();
    let workloads = scene.node.finish()?;
    let ended = clock();
    let record = Scene::record(scene.client, scene.time)?;
    drop(workloads);

    println!("drained within {:?}", Duration::from_nanos(ended - asked));
    ensure!(record.by_kernel(asked - nanoseconds(SECOND), asked) > 0, "there were no hits before");
    ensure!(record.by_kernel(asked + nanoseconds(SECOND), u64::MAX) == 0, "hits of a daemon that drains");
    ensure!(record.direct(ended, u64::MAX) > 100, "the clients did not go on");
    record.no_errors()
}

/// Turns the switch for hits inside the kernel; returns the time before.
fn turn(word: &str, node: &Node) -> Result<u64> {
    let before = clock();
    node::command(&[word, "--acceleration"], Some(&node.admin()))?.succeeded()?;
    Ok(before)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_acceleration_ends_hits_under_load_within_a_second_and_on_brings_them_back() -> Result<()> {
    let Some(scene) = Scene::busy(16, Duration::from_secs(10))? else { return Ok(()) };
    let off = turn("off", &scene.node)?;
    wait::pause(3 * SECOND);
    let on = turn("on", &scene.node)?;
    let record = Scene::record(scene.client, scene.time)?;

    println!("last hit {:?} after `off --acceleration`", record.last_by_kernel(off, on));
    ensure!(record.by_kernel(off + nanoseconds(SECOND), on) == 0, "{:?}", record.last_by_kernel(off, on));
    ensure!(record.answers(off + nanoseconds(SECOND), on) > 100, "the clients did not go on");
    ensure!(record.direct(0, u64::MAX) == 0, "connections went past the daemon");
    ensure!(record.by_kernel(on, u64::MAX) > 100, "no hits afterwards");
    record.no_errors()
}

/// Asks on new connections until the kernel answers.
fn heat(agent: &Agent, origin: &Origin) -> Result<()> {
    wait::wait_until(wait::PATIENCE, "an answer of the kernel", || {
        agent.get(origin.addr(), "/hot").is_ok_and(|response| response.is_by_kernel())
    })
}

/// Connections on which the kernel answers what the daemon has heard nothing of are of HTTP all the same.
#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_first_request_that_hits_teaches_nobody_that_the_destination_is_no_http() -> Result<()> {
    let mode = acceleration::tested();
    if !acceleration::is_demanded(&mode) {
        return Ok(());
    }
    // It gives up on a client that says nothing, in words that are not meant for one that does.
    let origin = Origin::raw(|talk| {
        let (mut reader, answer) = (Reader::new(talk.stream()?), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n");
        talk.stream()?.set_read_timeout(Some(SILENCE / 2))?;
        loop {
            match reader.head() {
                Ok(head) if head.word(1) == "/hot" => {
                    talk.send(format!("{answer}Cache-Control: max-age=600\r\n\r\nhello"))?;
                }
                Ok(_) => talk.send(format!("{answer}Cache-Control: no-store\r\n\r\nhello"))?,
                Err(End::Timeout) => {
                    return talk.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
                }
                Err(_) => return Ok(()),
            }
        }
    })?;
    let client = Exec::port(origin.port())?.flag(acceleration::FLAG).flag(&mode).agent()?;
    heat(&client, &origin)?;

    // Silent before the hit, and after it.
    for (before, after) in
        [(SILENCE / 2, SILENCE), (SILENCE, SILENCE), (Duration::ZERO, SILENCE), (SILENCE, Duration::ZERO)]
    {
        let connections = (0..4).map(|_| client.connect(origin.addr())).collect::<Result<Vec<_>>>()?;
        wait::pause(before);
        let mut open = Vec::new();
        for connection in connections {
            let response = connection.get("/hot")?;
            // An origin that gives up on a silent client says so to that client too.
            let gave_up = before >= SILENCE && response.status() == 408;
            ensure!(gave_up || response.is_by_kernel(), "silent for {before:?}: {response:?}");
            if !gave_up {
                open.push(connection);
            }
        }
        wait::pause(after);
        for connection in open {
            let response = connection.get("/other")?.expect(200)?;
            ensure!(response.text() == "hello", "silent for {before:?} and {after:?}: {response:?}");
            ensure!(response.passed_through_cache(), "silent for {before:?} and {after:?}: {response:?}");
        }
    }
    let response = client.get(origin.addr(), "/hot")?.expect(200)?;
    ensure!(response.is_by_kernel(), "afterwards: {response:?}");
    let summary = client.finish()?;
    for name in ["passthrough_opaque", "bypass_taught", "passed_bypass"] {
        ensure!(summary.figure(name)? == 0, "{name}: {:?}", summary.summary()?);
    }
    Ok(())
}

/// Client connections that end with hits only, before the daemon has heard a byte, make it ask nobody.
#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn connections_that_had_hits_only_cost_the_origin_nothing() -> Result<()> {
    let mode = acceleration::tested();
    if !acceleration::is_demanded(&mode) {
        return Ok(());
    }
    let origin = Origin::http(|_| Answer::ok("hello").max_age(600))?;
    let client = Exec::port(origin.port())?.flag(acceleration::FLAG).flag(&mode).agent()?;
    heat(&client, &origin)?;
    let before = origin.connections();

    let kept = (0..20).map(|_| client.connect(origin.addr())).collect::<Result<Vec<_>>>()?;
    for connection in &kept {
        ensure!(connection.get("/hot")?.is_by_kernel());
    }
    let began = Instant::now();
    while began.elapsed() < 2 * SILENCE {
        for connection in &kept {
            connection.get("/hot")?.expect(200)?;
        }
    }
    drop(kept);

    ensure!(origin.connections() == before, "{} connections to the origin", origin.connections() - before);
    ensure!(client.finish()?.figure("passthrough_opaque")? == 0);
    Ok(())
}
