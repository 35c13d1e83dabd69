//! `sidestep off` and `sidestep on`: a switch without restart, in force within a second.
//!
//! Without `--admin` the switch concerns every daemon of the machine; a state directory of the test's own stands for
//! the machine here, so that other tests go on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::agent::Agent;
use harness::exec::{Exec, STATE_DIR};
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin, Request};
use harness::scratch::Scratch;
use harness::{locate, process, wait};

const SECOND: Duration = Duration::from_secs(1);

fn fresh(_: &Request) -> Answer {
    Answer::ok("fresh").max_age(600)
}

/// Whose switch is turned: one daemon's by its admin socket, or the machine's.
enum Whose<'a> {
    Daemon(&'a Path),
    Machine(&'a Path),
}

/// Turns the switch, and waits until new connections obey it; an error where that takes a second.
fn turn(word: &str, whose: Whose<'_>, agent: &Agent, origin: &Origin) -> Result<()> {
    let redirected = word == "on";
    let mut command = Command::new(locate::sidestep()?);
    command.arg(word);
    match whose {
        Whose::Daemon(socket) => command.arg("--admin").arg(socket),
        Whose::Machine(state) => command.env(STATE_DIR, state),
    };
    let began = Instant::now();
    process::run(&mut command, wait::PATIENCE)?.succeeded()?;
    wait::wait_until(SECOND, &format!("`sidestep {word}` is in force"), || {
        agent.get(origin.addr(), "/a").is_ok_and(|response| response.passed_through_cache() == redirected)
    })?;
    println!("sidestep {word}: in force after {:?}", began.elapsed());
    ensure!(began.elapsed() < SECOND, "`sidestep {word}` took {:?}", began.elapsed());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_and_on_are_obeyed_within_a_second_by_exec() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;
    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());

    turn("off", Whose::Daemon(client.admin().context("no socket")?), &client, &origin)?;
    turn("on", Whose::Daemon(client.admin().context("no socket")?), &client, &origin)?;

    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.is_hit(), "what was stored is gone");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_survives_a_restart_of_the_daemon() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;
    let admin = node.admin();
    ensure!(node.status()?["switch"] == "on", "{}", node.status()?);

    turn("off", Whose::Daemon(&admin), &agent, &origin)?;
    ensure!(node.status()?["switch"] == "off", "{}", node.status()?);
    node.kill()?;
    node.restart()?;

    ensure!(node.status()?["switch"] == "off", "{}", node.status()?);
    for _ in 0..3 {
        let response = agent.get(origin.addr(), "/a")?.expect(200)?;
        ensure!(!response.passed_through_cache(), "{}", response.head_text());
    }
    turn("on", Whose::Daemon(&admin), &agent, &origin)?;
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_without_an_admin_socket_concerns_every_daemon_of_the_machine() -> Result<()> {
    let machine = Scratch::new()?;
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.state(machine.path()).agent()?;
    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());

    turn("off", Whose::Machine(machine.path()), &client, &origin)?;
    let later = Exec::port(origin.port())?.state(machine.path()).agent()?;
    let response = later.get(origin.addr(), "/a")?.expect(200)?;
    ensure!(!response.passed_through_cache(), "{}", response.head_text());
    turn("on", Whose::Machine(machine.path()), &client, &origin)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn connections_that_are_open_go_on_when_it_is_switched_off() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;
    let open = client.connect(origin.addr())?;
    open.get("/a")?.expect(200)?;

    turn("off", Whose::Daemon(client.admin().context("no socket")?), &client, &origin)?;

    let response = open.get("/a")?.expect(200)?;
    ensure!(response.text() == "fresh", "{response:?}");
    Ok(())
}
