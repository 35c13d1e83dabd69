//! The least that must hold on every kernel: it takes the programs, attaches and detaches them, redirects what is in
//! the cgroup and nothing else, and lets a workload go when the daemon is killed.
//!
//! Nothing but this package's own programs takes part, so that the file also runs on kernels booted by
//! `cargo xtask kernels`, where nothing else is installed.

use anyhow::{Context, Result, ensure};
use harness::cgroup::Cgroup;
use harness::node::{Node, Workload};
use harness::origin::{Answer, Gate, Origin};
use sidestep::redirect::cgroup::Cgroup as Enrolled;
use sidestep::redirect::hit_maps::HitSettings;
use sidestep::redirect::kernel::Kernel;
use sidestep::redirect::prog_query::{Hook, attached};

/// How many programs each hook of the cgroup has, in the order of [`Hook::ALL`].
fn programs(cgroup: &Enrolled) -> Result<Vec<usize>> {
    let count = |hook: Hook| Ok(attached(cgroup.dir(), hook).context(hook.name())?.programs.len());
    Hook::ALL.into_iter().map(count).collect()
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_kernel_takes_every_program_and_lets_go_of_each() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let enrolled = Enrolled::open(cgroup.path())?;
    let kernel = Kernel::load(&HitSettings::NONE, None)?;
    ensure!(programs(&enrolled)? == [0; Hook::ALL.len()], "before: {:?}", programs(&enrolled)?);

    let attachment = kernel.attach(enrolled.dir())?;
    let during = programs(&enrolled)?;
    drop(attachment);

    ensure!(during == [1; Hook::ALL.len()], "attached: {during:?}");
    ensure!(programs(&enrolled)? == [0; Hook::ALL.len()], "after: {:?}", programs(&enrolled)?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_cgroup_beside_the_workload_s_is_not_redirected() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("fresh").max_age(600))?;
    let (workload, beside) = (Workload::local("w", &[origin.port()])?, Workload::local("beside", &[])?);
    let (agent, stranger) = (workload.agent()?, beside.agent()?);
    let node = Node::start([workload])?;

    let inside = [agent.get(origin.addr(), "/a")?.expect(200)?, agent.get(origin.addr(), "/a")?.expect(200)?];
    let outside = stranger.get(origin.addr(), "/a")?.expect(200)?;

    ensure!(!inside[0].is_hit() && inside[1].is_hit(), "{}", inside[1].head_text());
    ensure!(!outside.passed_through_cache() && origin.count() == 2, "{}", outside.head_text());
    ensure!(node.figure("connections_redirected")? == 2, "{:?}", node.figures()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_daemon_killed_within_a_request_takes_down_that_connection_only() -> Result<()> {
    let (asked, answered) = (Gate::closed(), Gate::closed());
    let (reached, held) = (asked.clone(), answered.clone());
    let origin = Origin::http(move |request| {
        if request.target() == "/held" {
            reached.open();
            held.pass();
        }
        Answer::ok("x")
    })?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;
    let open = agent.connect(origin.addr())?;
    ensure!(open.get("/a")?.expect(200)?.passed_through_cache());
    open.send(format!("GET /held HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))?;
    asked.pass();

    node.kill()?;
    let next = agent.get(origin.addr(), "/a")?.expect(200)?;
    answered.open();

    ensure!(!next.passed_through_cache(), "through a dead daemon: {}", next.head_text());
    let rest = open.rest()?;
    ensure!(rest.bytes.is_empty() && ["eof", "reset"].contains(&rest.end.as_str()), "{rest:?}");
    Ok(())
}
