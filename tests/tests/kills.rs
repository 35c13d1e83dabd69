//! The daemon is killed again and again while thousands of connections a second are made: none is refused, and none is
//! reset that was not there when it died.

use std::process::{ChildStdin, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::exclusive::Exclusive;
use harness::load::{self, Attempt};
use harness::locate;
use harness::netns::NodeNet;
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin};
use harness::process::Process;
use harness::wait::{self, PATIENCE};

const KILLS: usize = 20;
/// New connections a second through the daemon, at least, when it is killed.
const RATE: f64 = 2_000.0;
/// How long the rate is measured before each kill.
const WINDOW: Duration = Duration::from_millis(250);
/// Connections that go direct before it is started again.
const DIRECT: u64 = 200;
/// What is asked for, and by how many threads at once: what is stored, and what is not.
const LOADS: [(&str, &str); 2] = [("/stored", "12"), ("/forwarded", "4")];

/// When it was asked to die, was dead and was up again, by [`load::clock`].
struct Kill {
    asked: u64,
    dead: u64,
    up: u64,
    rate: f64,
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn twenty_kills_at_2000_connections_a_second_refuse_none_and_reset_only_those_that_were_there() -> Result<()>
{
    let _machine = Exclusive::machine()?;
    let net = NodeNet::new()?;
    let origin = Origin::http_on(net.listen()?, |request| match request.target() {
        "/stored" => Answer::ok("stored").max_age(600),
        _ => Answer::ok("forwarded").field("Cache-Control", "no-store"),
    })?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    // Connections that went direct would keep the pod's ports for a minute.
    pod.set("ipv4/tcp_tw_reuse", "1")?;
    let workload = Workload::of_pod("load", pod, &[origin.port()])?;
    let commands = LOADS.map(|(target, threads)| load_command(&workload, &origin, target, threads));
    let mut node = Node::start([workload])?;
    let loads = commands.into_iter().map(|command| start(command?)).collect::<Result<Vec<_>>>()?;

    let mut kills = Vec::new();
    for _ in 0..KILLS {
        let rate = at_rate(&node)?;
        let asked = load::clock();
        node.kill()?;
        let dead = load::clock();
        origin.reached(origin.count() + DIRECT)?;
        node.restart()?;
        kills.push(Kill { asked, dead, up: load::clock(), rate });
    }
    at_rate(&node)?;

    let mut record = Vec::new();
    for (load, stdin) in loads {
        drop(stdin);
        let output = load.finish(PATIENCE)?;
        record.extend(load::record(&output.text()).with_context(|| output.errors())?);
    }
    judge(&record, &kills)
}

fn load_command(workload: &Workload, origin: &Origin, target: &str, threads: &str) -> Result<Command> {
    let (probe, addr) = (locate::probe()?.to_string_lossy().into_owned(), origin.addr().to_string());
    Ok(workload.command([&probe, "load", &addr, target, threads, "5000"]))
}

fn start(mut command: Command) -> Result<(Process, Option<ChildStdin>)> {
    let mut load = Process::start(&mut command)?;
    let stdin = load.take_stdin();
    Ok((load, stdin))
}

/// Waits until so many connections a second go through the daemon; returns how many.
///
/// On a busy machine it takes more than one try.
fn at_rate(node: &Node) -> Result<f64> {
    wait::poll(PATIENCE, &format!("{RATE} connections a second"), || {
        let (begun, before) = (Instant::now(), node.figure("connections_redirected").ok()?);
        wait::pause(WINDOW);
        let made = node.figure("connections_redirected").ok()?.saturating_sub(before);
        let rate = made as f64 / begun.elapsed().as_secs_f64();
        (rate >= RATE).then_some(rate)
    })
}

/// Each connection that failed was there when the daemon died, and was ended by that.
fn judge(record: &[Attempt], kills: &[Kill]) -> Result<()> {
    let failed = || record.iter().filter(|attempt| !attempt.succeeded());
    for (n, Kill { asked, dead, up, rate }) in kills.iter().enumerate() {
        let there = |a: &&Attempt| a.begun < *dead && a.ended >= *asked;
        let of_it = failed().filter(there).count();
        let between = record.iter().filter(|a| (*dead..*up).contains(&a.begun));
        let direct = between.filter(|a| a.outcome == "direct").count();
        println!(
            "kill {n}: at {rate:.0} connections a second, dead after {:?}, {of_it} of {} ended; {direct} direct",
            Duration::from_nanos(dead - asked),
            record.iter().filter(there).count(),
        );
        ensure!(direct > 0, "kill {n}: none went direct");
    }
    let is_excused =
        |a: &Attempt| a.was_cut() && kills.iter().any(|kill| a.begun < kill.dead && a.ended >= kill.asked);
    let wrong: Vec<_> = failed().filter(|attempt| !is_excused(attempt)).collect();
    println!("{} connections, {} ended by a kill, {} otherwise", record.len(), failed().count(), wrong.len());
    ensure!(wrong.is_empty(), "{} failed: {:?}", wrong.len(), wrong.iter().take(5).collect::<Vec<_>>());
    Ok(())
}
