//! A Deployment is rolled out, rolled back and scaled by real controllers (MESH.md S6), with clients that are answered by
//! the daemon and inside the kernel.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::cluster::{Caller, Cluster, FRONT, Front, PROMISED, http};
use harness::wait;

/// What is told to the node: the pause in which nothing is stored is short, and a lease outlasts the test.
const TOLD: [&str; 2] = ["storingPause: 1s", "authorizationLease: 10m"];

/// Requests between two steps of a roll-out.
const REQUESTS: usize = 50;

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s6_kubectl_rollout_undo_shows_no_body_of_what_was_rolled_back_and_scaling_flushes_nothing() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&TOLD)? else { return Ok(()) };
    let Some(mut front) = Front::start(&cluster)? else { return Ok(()) };
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(FRONT));
    ensure!(caller.heat("/a")?.text() == "v1", "not the first version");

    front.kubectl(&["set", "image", "deployment/front", "app=front:2"])?;
    front.rolled_out(|| (0..REQUESTS).try_for_each(|_| caller.get("/a")?.expect(200).map(drop)))?;
    println!("rolled out: the first v2 after {:?}", only(&mut caller, "v2")?);

    front.kubectl(&["rollout", "undo", "deployment/front"])?;
    let (mut old, mut new) = (0, 0);
    front.rolled_out(|| {
        for _ in 0..REQUESTS {
            let is_old = caller.get("/a")?.expect(200)?.text() == "v2";
            *(if is_old { &mut old } else { &mut new }) += 1;
        }
        Ok(())
    })?;
    let took = only(&mut caller, "v1")?;
    println!("rolled back: the first v1 for good after {took:?}; while it went on {old} of v2, {new} of v1");

    for replicas in [3, 1] {
        front.kubectl(&["scale", "deployment/front", &format!("--replicas={replicas}")])?;
        let mut hits = 0;
        front.rolled_out(|| {
            for _ in 0..REQUESTS {
                let response = caller.get("/a")?.expect(200)?;
                hits += 1;
                ensure!(response.is_hit() && response.text() == "v1", "flushed: {}", response.head_text());
            }
            Ok(())
        })?;
        ensure!(front.pods() == replicas, "{} pods", front.pods());
        wait::pause(PROMISED);
        for _ in 0..50 {
            ensure!(caller.get("/a")?.expect(200)?.is_hit(), "flushed by scaling to {replicas}");
        }
        println!("scaled to {replicas}: {hits} hits meanwhile, and nothing else");
    }
    Ok(())
}

/// Asks until the body is this, and for four seconds more: no other one comes, also from the kernel; how long it took.
fn only(caller: &mut Caller<'_>, body: &str) -> Result<Duration> {
    let begun = Instant::now();
    while caller.get("/a")?.expect(200)?.text() != body {
        ensure!(begun.elapsed() < PROMISED, "no {body} after {:?}", begun.elapsed());
    }
    let (took, mut by_kernel) = (begun.elapsed(), 0);
    while begun.elapsed() < took + 2 * PROMISED {
        let response = caller.get("/a")?.expect(200)?;
        by_kernel += usize::from(response.is_by_kernel());
        ensure!(
            response.text() == body,
            "{:?}: {}{}",
            begun.elapsed(),
            response.head_text(),
            response.text()
        );
    }
    ensure!(by_kernel > 0, "no hit inside the kernel");
    Ok(took)
}
