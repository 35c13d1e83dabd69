//! Nothing is given past its lifetime, past a write that was answered, or made of two versions, however fast it is asked
//! for. `SIDESTEP_TEST_SECONDS` says how long: 20 each if it does not.

use std::env;
use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cache_common::faults::EXPIRED;
use harness::acceleration::{self, FAULTS};
use harness::exclusive::Exclusive;
use harness::exec::Exec;
use harness::hammer::{self, Kind, Record};
use harness::locate;

/// Connections that ask.
const CONNECTIONS: &str = "8";

/// How long each of these tests asks.
fn duration() -> Result<Duration> {
    match env::var("SIDESTEP_TEST_SECONDS") {
        Ok(seconds) => Ok(Duration::from_secs(seconds.parse().context("SIDESTEP_TEST_SECONDS")?)),
        Err(_) => Ok(Duration::from_secs(20)),
    }
}

/// Lets a client ask behind the cache, and returns what it saw; the origin is asked again at least `forwarded` times.
fn hammered(exec: fn(Exec) -> Result<Exec>, kind: Kind, time: Duration, forwarded: u64) -> Result<Record> {
    let _turn = Exclusive::machine()?;
    let (origin, mode) = (hammer::origin::start()?, acceleration::tested());
    let exec = exec(Exec::port(origin.port())?.flag(acceleration::FLAG).flag(&mode))?;
    let (addr, ms) = (origin.addr().to_string(), time.as_millis().to_string());
    let words = ["hammer", &kind.word(), &addr, CONNECTIONS, &ms];
    let words: Vec<_> = words.iter().map(OsStr::new).collect();
    let probe = locate::probe()?;
    let outcome = exec.run([probe.as_os_str()].into_iter().chain(words))?;
    let record = Record::read(&outcome.output.text()).with_context(|| outcome.output.errors())?;
    let (all, by_kernel) = (record.answers(0, u64::MAX), record.by_kernel(0, u64::MAX));
    println!(
        "{kind:?}: {all} answers, {by_kernel} by the kernel; the origin was asked {} times",
        origin.count()
    );
    outcome.summary()?.balances()?;
    ensure!(origin.count() >= forwarded, "the origin was asked {} times", origin.count());
    if acceleration::is_demanded(&mode) {
        ensure!(by_kernel * 5 >= all, "too few by the kernel to tell: {by_kernel} of {all}");
    }
    Ok(record)
}

fn all_right(kind: Kind, forwarded: u64) -> Result<()> {
    let record = hammered(Ok, kind, duration()?, forwarded)?;
    record.all_right()?;
    record.no_errors()
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn no_answer_is_older_than_a_lifetime_of_one_second() -> Result<()> {
    all_right(Kind::Short, duration()?.as_secs() / 2)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_expired_answer_would_be_seen() -> Result<()> {
    let Some(_) = locate::sidestep_with_faults()? else { return Ok(()) };
    if !acceleration::is_demanded(&acceleration::tested()) {
        return Ok(());
    }
    let faulty = |exec: Exec| {
        let binary = locate::sidestep_with_faults()?.context("gone")?;
        Ok(exec.program(&binary).env(FAULTS, EXPIRED.to_string()))
    };
    let record = hammered(faulty, Kind::Short, Duration::from_secs(5), 1)?;
    ensure!(!record.wrong.is_empty(), "expired responses counted as fresh, and nobody saw it");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn age_counts_up_second_by_second() -> Result<()> {
    all_right(Kind::Lasting, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn no_request_begun_after_a_write_was_answered_gets_what_was_before_nor_parts_of_two_versions() -> Result<()>
{
    all_right(Kind::Versions, 2 * duration()?.as_secs())
}
