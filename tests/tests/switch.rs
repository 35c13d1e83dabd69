//! `sidestep off` and `sidestep on`: a switch without restart, in force within a second.
//!
//! Without `--admin` the switch concerns every daemon of the machine, so these tests take turns.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::agent::Agent;
use harness::exclusive::Exclusive;
use harness::exec::Exec;
use harness::node::{self, Node, Workload};
use harness::origin::{Answer, Origin, Request};
use harness::wait;

const SECOND: Duration = Duration::from_secs(1);

fn fresh(_: &Request) -> Answer {
    Answer::ok("fresh").max_age(600)
}

/// Turns the switch, and waits until new connections obey it; an error where that takes a second.
fn turn(word: &str, socket: Option<&Path>, agent: &Agent, origin: &Origin) -> Result<()> {
    let redirected = word == "on";
    let began = Instant::now();
    node::command(&[word], socket)?.succeeded()?;
    wait::wait_until(SECOND, &format!("`sidestep {word}` is in force"), || {
        agent.get(origin.addr(), "/a").is_ok_and(|response| response.passed_through_cache() == redirected)
    })?;
    println!("sidestep {word}: in force after {:?}", began.elapsed());
    ensure!(began.elapsed() < SECOND, "`sidestep {word}` took {:?}", began.elapsed());
    Ok(())
}

/// Turns it on again, whatever became of the test.
struct OnAgain<'a>(Option<&'a Path>);

impl Drop for OnAgain<'_> {
    fn drop(&mut self) {
        let _ = node::command(&["on"], self.0);
    }
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_and_on_are_obeyed_within_a_second_by_exec() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;
    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());

    turn("off", client.admin(), &client, &origin)?;
    turn("on", client.admin(), &client, &origin)?;

    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.is_hit(), "what was stored is gone");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_survives_a_restart_of_the_daemon() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = Origin::http(fresh)?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;
    let admin = node.admin();
    ensure!(node.status()?["switch"] == "on", "{}", node.status()?);

    turn("off", Some(&admin), &agent, &origin)?;
    ensure!(node.status()?["switch"] == "off", "{}", node.status()?);
    node.kill()?;
    node.restart()?;

    ensure!(node.status()?["switch"] == "off", "{}", node.status()?);
    for _ in 0..3 {
        let response = agent.get(origin.addr(), "/a")?.expect(200)?;
        ensure!(!response.passed_through_cache(), "{}", response.head_text());
    }
    turn("on", Some(&admin), &agent, &origin)?;
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_without_an_admin_socket_concerns_every_daemon_of_the_machine() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let _on = OnAgain(None);
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;
    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());

    turn("off", None, &client, &origin)?;
    let later = Exec::port(origin.port())?.agent()?;
    let response = later.get(origin.addr(), "/a")?.expect(200)?;
    ensure!(!response.passed_through_cache(), "{}", response.head_text());
    turn("on", None, &client, &origin)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn connections_that_are_open_go_on_when_it_is_switched_off() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;
    let open = client.connect(origin.addr())?;
    open.get("/a")?.expect(200)?;

    turn("off", client.admin(), &client, &origin)?;

    let response = open.get("/a")?.expect(200)?;
    ensure!(response.text() == "fresh", "{response:?}");
    Ok(())
}
