//! Stale answers through the real hooks: an origin that is gone is stood in for where it said so, and missed where it
//! forbade it.

use anyhow::{Result, ensure};
use harness::exec::{Client, Exec};
use harness::node::{Node, Workload};
use harness::origin::{Answer, Gate, Origin};

/// A client whose cache holds an answer that was stale when it came, and its origin's address.
fn stored(control: &'static str) -> Result<(Client, Origin)> {
    let origin = Origin::http(move |_| {
        let control = format!("max-age=60, {control}");
        Answer::ok("stored").field("Cache-Control", control).field("Age", "61").field("ETag", "\"a\"")
    })?;
    let client = Exec::port(origin.port())?.agent()?;
    client.get(origin.addr(), "/a")?.expect(200)?;
    Ok((client, origin))
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_dead_origin_is_stood_in_for_as_long_as_it_allowed() -> Result<()> {
    let (client, origin) = stored("stale-if-error=600")?;
    let addr = origin.addr();
    drop(origin);

    for _ in 0..3 {
        let answer = client.get(addr, "/a")?.expect(200)?;
        ensure!(answer.text() == "stored", "{}", answer.head_text());
        ensure!(answer.cache_status().ends_with("detail=stale-on-disconnect"), "{}", answer.head_text());
    }

    let outcome = client.finish()?;
    ensure!(outcome.figure("stale")? == 3, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_must_be_validated_is_504_when_its_origin_is_dead() -> Result<()> {
    let (client, origin) = stored("must-revalidate, stale-if-error=600")?;
    let addr = origin.addr();
    drop(origin);

    let answer = client.get(addr, "/a")?.expect(504)?;

    ensure!(answer.cache_status() == "sidestep; detail=must-revalidate", "{}", answer.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_late_origin_is_stood_in_for_where_the_operator_says_so() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let origin = Origin::http(move |request| {
        let answer = Answer::ok("stored").field("Cache-Control", "max-age=60").field("Age", "61");
        let answer = answer.field("ETag", "\"a\"");
        if request.field("if-none-match").is_some() { answer.held(&held) } else { answer }
    })?;
    let lines = "policy: {staleAfter: 200ms}\n";
    let node = Node::configured(lines, [Workload::local("late", &[origin.port()])?])?;
    let agent = node.workloads()[0].agent()?;
    agent.get(origin.addr(), "/a")?.expect(200)?;

    let answer = agent.get(origin.addr(), "/a")?.expect(200)?;
    gate.open();

    ensure!(answer.text() == "stored", "{}", answer.head_text());
    ensure!(answer.cache_status().ends_with("detail=stale-after"), "{}", answer.head_text());
    Ok(())
}
