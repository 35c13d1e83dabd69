//! Many real clients at once on one key: one forward request, whoever of them dies, and no queue where nothing can be
//! shared.
//!
//! Each test holds a thousand connections, so they take turns.

use anyhow::{Result, ensure};
use harness::agent::{Agent, Connection};
use harness::exclusive::Exclusive;
use harness::node::{Node, Workload};
use harness::origin::{Answer, Gate, Origin, Request};

/// So many connections, each with a request for `/a` sent.
fn asking<'a>(agent: &'a Agent, origin: &Origin, count: usize) -> Result<Vec<Connection<'a>>> {
    let connections = (0..count).map(|_| agent.connect(origin.addr())).collect::<Result<Vec<_>>>()?;
    for connection in &connections {
        connection.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")?;
    }
    Ok(connections)
}

fn node(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<(Origin, Node)> {
    let origin = Origin::http(answer)?;
    let node = Node::start([Workload::local("many", &[origin.port()])?])?;
    Ok((origin, node))
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_thousand_clients_of_one_cold_key_make_one_forward_request() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let (origin, node) = node(move |_| Answer::ok("content").max_age(600).held(&held))?;
    let agent = node.workloads()[0].agent()?;

    let connections = asking(&agent, &origin, 1000)?;
    origin.reached(1)?;
    node.reaches("connections_open", 1000)?;
    gate.open();
    for connection in &connections {
        let answer = connection.response()?.expect(200)?;
        ensure!(answer.text() == "content", "{}", answer.head_text());
    }

    ensure!(origin.count() == 1, "{} forward requests", origin.count());
    let figures = node.figures()?;
    println!("collapsed {}, hits {}", figures.figure("collapsed")?, figures.figure("hits")?);
    ensure!(figures.figure("collapsed")? + figures.figure("hits")? == 999, "{figures:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_others_finish_when_the_first_client_is_killed() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let (origin, node) = node(move |_| Answer::pattern(3_000_000).max_age(600).content_held(&held))?;
    let workload = &node.workloads()[0];
    let (first, others) = (workload.agent()?, workload.agent()?);

    let leader = asking(&first, &origin, 1)?;
    origin.reached(1)?;
    let connections = asking(&others, &origin, 50)?;
    node.reaches("connections_open", 51)?;
    leader[0].reset()?;
    drop(leader);
    gate.open();

    for connection in &connections {
        ensure!(connection.response()?.expect(200)?.is_pattern(3_000_000), "other bytes");
    }
    ensure!(origin.count() == 1, "{} forward requests", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_thousand_clients_of_an_uncacheable_url_are_with_the_origin_at_once() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let (first, rest) = (Gate::closed(), Gate::closed());
    let gates = (first.clone(), rest.clone());
    let seen = std::sync::atomic::AtomicU64::new(0);
    let (origin, node) = node(move |_| {
        let is_first = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let gate = if is_first { &gates.0 } else { &gates.1 };
        Answer::ok("mine").field("Cache-Control", "private").held(gate)
    })?;
    let agent = node.workloads()[0].agent()?;

    let connections = asking(&agent, &origin, 1000)?;
    origin.reached(1)?;
    node.reaches("connections_open", 1000)?;
    first.open();
    // None of the others is answered before all of them have arrived.
    origin.reached(1000)?;
    rest.open();
    for connection in &connections {
        let answer = connection.response()?.expect(200)?;
        ensure!(answer.text() == "mine", "{}", answer.head_text());
    }

    ensure!(origin.count() == 1000, "{} requests", origin.count());
    ensure!(node.figure("collapsed")? == 0, "{:?}", node.figures()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn two_identities_make_two_forward_requests_and_get_their_own_answers() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let number = std::sync::atomic::AtomicU64::new(0);
    let origin = Origin::http(move |_| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Answer::ok(number.to_string()).max_age(600).held(&held)
    })?;
    let ports = [origin.port()];
    let node = Node::start([
        Workload::local("one", &ports)?.identity("shop", "web"),
        Workload::local("other", &ports)?.identity("shop", "batch"),
    ])?;
    let agents = [node.workloads()[0].agent()?, node.workloads()[1].agent()?];

    let connections = [asking(&agents[0], &origin, 1)?, asking(&agents[1], &origin, 1)?];
    origin.reached(2)?;
    gate.open();
    let mut own = Vec::new();
    for connection in &connections {
        own.push(connection[0].response()?.expect(200)?.text());
    }
    ensure!(own[0] != own[1], "both got {}", own[0]);
    for (agent, own) in agents.iter().zip(&own) {
        let again = asking(agent, &origin, 1)?[0].response()?.expect(200)?;
        ensure!(again.is_hit() && again.text() == *own, "{} instead of {own}", again.text());
    }
    Ok(())
}
