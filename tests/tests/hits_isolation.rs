//! What the kernel gives to one workload is that workload's own, and one request's own, even where hashes meet; and no
//! workload pushes out what is hot for another one.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cache_common::faults::{COMPARE, HASH, STAY};
use harness::acceleration;
use harness::exclusive::Exclusive;
use harness::hammer::{self, Kind, Record};
use harness::locate;
use harness::node::{Node, Workload};
use harness::origin::Origin;
use harness::process::Process;
use harness::wait;

/// How long clients ask.
const TIME: Duration = Duration::from_secs(6);

/// Connections of each client.
const CONNECTIONS: u64 = 4;

/// How many things a client asks for where several are to have the same hash.
const FEW: u64 = 20;

/// A node with two workloads, and what a client in each of them saw.
fn hammered(node: &Node, origin: &Origin, kinds: [Kind; 2]) -> Result<[Record; 2]> {
    let clients = [0, 1].map(|n| -> Result<Process> {
        let workload = node.workloads().get(n).context("no workload")?;
        let words = ["hammer".to_owned(), kinds[n].word(), origin.addr().to_string()];
        let numbers = [CONNECTIONS.to_string(), TIME.as_millis().to_string()];
        let words = [locate::probe()?.display().to_string()].into_iter().chain(words).chain(numbers);
        Process::start(&mut workload.command(words))
    });
    let records = clients.map(|client| -> Result<Record> {
        Record::read(&client?.finish(TIME + wait::PATIENCE)?.succeeded()?.text())
    });
    let [one, other] = records;
    Ok([one?, other?])
}

fn workloads(origin: &Origin) -> Result<[Workload; 2]> {
    let workload =
        |name: &str| Ok::<_, anyhow::Error>(Workload::local(name, &[origin.port()])?.identity("shop", name));
    Ok([workload("web")?, workload("jobs")?])
}

/// Runs two clients under a daemon that leaves out these conditions, if any; nothing where it cannot be.
fn under(faults: u32, kinds: [Kind; 2]) -> Result<Option<[Record; 2]>> {
    let mode = acceleration::tested();
    let binary = locate::sidestep_with_faults()?;
    let (true, Some(binary)) = (acceleration::is_demanded(&mode), binary) else { return Ok(None) };
    let _turn = Exclusive::machine()?;
    let origin = hammer::origin::start()?;
    let node = Node::with_faults(Path::new(&binary), faults | STAY, workloads(&origin)?)?;
    let records = hammered(&node, &origin, kinds)?;
    let kernel_hits: Vec<u64> = records.iter().map(|record| record.by_kernel(0, u64::MAX)).collect();
    println!(
        "{kinds:?}, without {faults}: {kernel_hits:?} by the kernel; the origin was asked {}",
        origin.count()
    );
    let is_wrong = records.iter().any(|record| !record.wrong.is_empty());
    ensure!(is_wrong || kernel_hits.iter().sum::<u64>() > 1000, "too few to tell: {kernel_hits:?}");
    Ok(Some(records))
}

fn is_right(records: &[Record; 2]) -> Result<()> {
    for record in records {
        record.all_right()?;
        record.no_errors()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn two_workloads_get_their_own_answers_to_the_same_request() -> Result<()> {
    let mode = acceleration::tested();
    let _turn = Exclusive::machine()?;
    let origin = hammer::origin::start()?;
    let node = Node::configured(&format!("acceleration: {mode}\n"), workloads(&origin)?)?;

    let records = hammered(&node, &origin, [Kind::Own, Kind::Own])?;

    is_right(&records)?;
    ensure!(origin.count() >= TIME.as_secs(), "the origin was asked {} times", origin.count());
    for record in &records {
        let (hits, all) = (record.by_kernel(0, u64::MAX), record.answers(0, u64::MAX));
        ensure!(!acceleration::is_demanded(&mode) || hits * 10 >= all * 9, "{hits} of {all} by the kernel");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn heads_of_two_workloads_with_the_same_hash_are_told_apart() -> Result<()> {
    under(HASH, [Kind::Own, Kind::Own])?.as_ref().map_or(Ok(()), is_right)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn heads_of_one_workload_with_the_same_hash_are_told_apart() -> Result<()> {
    under(HASH, [Kind::Many(FEW), Kind::Many(FEW)])?.as_ref().map_or(Ok(()), is_right)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn heads_that_are_not_compared_would_be_seen() -> Result<()> {
    for kinds in [[Kind::Own, Kind::Own], [Kind::Many(FEW), Kind::Many(FEW)]] {
        let Some(records) = under(HASH | COMPARE, kinds)? else { return Ok(()) };
        ensure!(is_right(&records).is_err(), "{kinds:?}: nobody saw it");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_workload_that_churns_leaves_what_is_hot_for_another_one() -> Result<()> {
    let mode = acceleration::tested();
    if !acceleration::is_demanded(&mode) {
        return Ok(());
    }
    let _turn = Exclusive::machine()?;
    let origin = hammer::origin::start()?;
    // Room for some hundred of what both want.
    let lines = format!("acceleration: {mode}\nhotBytes: 1MiB\n");
    let node = Node::configured(&lines, workloads(&origin)?)?;

    let [quiet, churning] = hammered(&node, &origin, [Kind::Many(FEW), Kind::Many(2000)])?;

    let said = node.status()?;
    println!("{}", said["workloads"]);
    println!("{}", said["acceleration"]);
    is_right(&[quiet.clone(), churning.clone()])?;
    let share = |record: &Record| (record.by_kernel(0, u64::MAX), record.answers(0, u64::MAX));
    println!("quiet: {:?}; churning: {:?} (by the kernel, all)", share(&quiet), share(&churning));
    let (hits, all) = share(&quiet);
    ensure!(hits * 100 >= all * 95, "{hits} of {all} by the kernel beside one that churns");
    ensure!(share(&churning).0 > 0, "it did not churn");
    Ok(())
}
