//! The API server dies under load and comes back: no request notices, and its news count again at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::cluster::{API, Cluster, PROMISED, RunningPod, SHOP, http};
use harness::exclusive::Exclusive;
use harness::load::clock;
use harness::locate;
use harness::origin::Origin;
use harness::process::Process;
use harness::steady::{self, Asked, By};
use harness::wait;
use serde_json::json;

/// How long it stays away.
const AWAY: Duration = Duration::from_secs(5);
/// Requests at once: half of them on connections that are kept.
const THREADS: &str = "6";
/// What is answered in each phase, at least, in each of the ways that there are.
const SOME: usize = 50;

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn no_request_notices_that_the_api_server_is_killed_and_what_changes_after_its_return_counts_at_once()
-> Result<()> {
    let _machine = Exclusive::machine()?;
    let Some(mut cluster) = Cluster::enabled(&["storingPause: 0s"])? else { return Ok(()) };
    let origin = Origin::http_on(cluster.kubelet.net().listen_as(API, 80)?, steady::answer)?;
    let pod = cluster.run_as("a", "web")?;
    let other = cluster.run_as("b", "web")?;
    let mut load = start(&pod)?;
    let stdin = load.take_stdin();
    origin.reached(300)?;

    let killed = clock();
    cluster.api.kill()?;
    wait::pause(AWAY);
    let away_until = clock();
    cluster.api.restart()?;
    // News that change nothing: they tell when it is listened to again.
    let news = json!({ "metadata": { "annotations": { "news": "some" } } });
    cluster.api.send("PATCH", SHOP, Some(&news))?;
    let begun = Instant::now();
    wait::poll(wait::PATIENCE, "a watch of Namespaces", || match is_watching(&cluster) {
        Ok(false) => None,
        told => Some(told),
    })??;
    println!("watched again {:?} after the API server was ready", begun.elapsed());

    cluster.label(&format!("{SHOP}/pods/b"), "none")?;
    let took_other = cluster.becomes(&other.name(), None)?;
    let unlabelled = clock();
    cluster.label(SHOP, "")?;
    let took = cluster.becomes(&pod.name(), None)?;
    let left = clock();
    origin.reached(origin.count() + 300)?;
    drop(stdin);
    let record = steady::record(&load.finish(wait::PATIENCE)?.succeeded()?.text())?;

    let failed: Vec<_> = record.iter().filter(|asked| asked.outcome.is_err()).collect();
    ensure!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), record.len(), failed.first());
    println!("a label taken away: {took_other:?} (a pod's), {took:?} (a namespace's)");
    ensure!(took < PROMISED && took_other < PROMISED, "gone after {took_other:?} and {took:?}");
    for (phase, from, until) in [("before", 0, killed), ("while it was away", killed, away_until)] {
        is_served(phase, &record, from, until)?;
    }
    is_served("when it was back", &record, away_until, unlabelled)?;
    let ways = ways("without a label", &record, left, u64::MAX);
    // What was asked on a kept connection at that moment is its last one there.
    let on_new = |by: By| ways.get(&(false, name(by))).copied().unwrap_or(0);
    ensure!(on_new(By::Direct) > SOME && on_new(By::Hit) + on_new(By::Forwarded) == 0, "{ways:?}");
    Ok(())
}

fn start(pod: &RunningPod) -> Result<Process> {
    let (probe, addr) = (locate::probe()?.to_string_lossy().into_owned(), http(API).to_string());
    Process::start(&mut pod.command("app", [&probe, "steady", &addr, THREADS]))
}

/// Whether the daemon knows of no trouble with its watch of Namespaces.
fn is_watching(cluster: &Cluster) -> Result<bool> {
    let watches = cluster.status()?["cluster"]["watches"].clone();
    let watch = watches.as_array().context("no watches")?.iter().find(|one| one["kind"] == "Namespace");
    Ok(watch.context("no watch of Namespaces")?["trouble"].is_null())
}

fn name(by: By) -> &'static str {
    match by {
        By::Hit => "hits",
        By::Forwarded => "forwarded",
        By::Direct => "direct",
    }
}

/// How many were answered in which way, by whether their connection was kept, of those begun in a time.
fn ways(phase: &str, record: &[Asked], from: u64, until: u64) -> BTreeMap<(bool, &'static str), usize> {
    let mut ways = BTreeMap::new();
    for asked in record.iter().filter(|asked| (from..until).contains(&asked.begun)) {
        let by = asked.outcome.as_ref().map_or("failed", |by| name(*by));
        *ways.entry((asked.is_on_kept, by)).or_default() += 1;
    }
    println!("{phase} (on a kept connection, how): {ways:?}");
    ways
}

/// Hits and misses were given, on new connections and on kept ones, and nobody went past the daemon.
fn is_served(phase: &str, record: &[Asked], from: u64, until: u64) -> Result<()> {
    let ways = ways(phase, record, from, until);
    for way in [(false, "hits"), (false, "forwarded"), (true, "hits"), (true, "forwarded")] {
        ensure!(ways.get(&way).is_some_and(|count| *count > SOME), "{phase}: too few {way:?} of {ways:?}");
    }
    let direct = ways.iter().filter(|((_, by), _)| *by == "direct").map(|(_, count)| count).sum::<usize>();
    ensure!(direct == 0, "{phase}: {direct} went direct");
    Ok(())
}
