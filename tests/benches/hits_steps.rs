//! What a hit inside the kernel costs, and each safety step of it: how long the program that sees every send() runs, as
//! the kernel itself counts it (`kernel.bpf_stats_enabled`, which is set back at the end).
//!
//! First by where it stops. Then hits of 1 KB with one condition left out at a time, in a build for tests: what that
//! makes faster is what the condition costs. The verifier takes a condition that is left out out of the program.
//! Counting costs some 20 ns a run, the same in every line.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::loaded_programs;
use cache_common::faults;
use harness::acceleration::{self, FAULTS};
use harness::client::Connection;
use harness::comparison::figures::Series;
use harness::exec::Exec;
use harness::locate;
use harness::origin::{Answer, Origin};

/// Rounds in turn; medians are printed.
const ROUNDS: usize = 9;

/// Messages of one round and step: hits follow each other at once, misses wait for the daemon.
const HITS: u64 = 200_000;
const MISSES: u64 = 1_000;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program, as the kernel cuts its name.
const PROGRAM: &str = "sidestep_sent";

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Where the program stops, and the word of it.
const STOPS: [(&str, &str); 5] = [
    ("a hit of 1 KB", "1024"),
    ("a hit of 16 KB", "16384"),
    ("no request (OPTIONS): passes", "other"),
    ("a head, while an answer is unread: passes", "unread"),
    ("a head that is not resident: passes", "miss"),
];

/// What is left out.
const CONDITIONS: [(&str, u32); 10] = [
    ("(nothing is left out)", 0),
    ("(nothing is left out, again)", 0),
    ("every byte sent was answered by the daemon", faults::OUTSTANDING),
    ("every byte that the daemon wrote has arrived", faults::IN_FLIGHT),
    ("what came by TCP was read", faults::UNREAD_TCP),
    ("what came from the kernel was read", faults::UNREAD_HIT),
    ("it has not expired", faults::EXPIRED),
    ("the head is the same, byte by byte", faults::COMPARE),
    ("it was not taken back while it was copied", faults::RETIRED),
    ("the system call is one that sends", faults::CALLER),
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, origin, step] = words.as_slice()
        && word == "client"
    {
        return client(origin.parse()?, step);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root: kernel hooks");
    }
    let before = fs::read_to_string(STATS).context("the kernel counts no run times")?;
    fs::write(STATS, "1")?;
    let measured = measured();
    fs::write(STATS, before.trim())?;
    measured
}

fn measured() -> Result<()> {
    let origin = Origin::http(|request| match request.target().trim_start_matches('/').parse::<usize>() {
        Ok(size) => Answer::ok("x".repeat(size)).max_age(600),
        Err(_) => Answer::ok("x").field("Cache-Control", "no-store"),
    })?;
    let steps = STOPS.map(|(name, step)| (name, step, 0));
    let stops = rounds(&origin, &locate::sidestep()?, &steps)?;
    println!(
        "{:<60}{:>8}{:>8}",
        format!("one send() of a client, ns, {ROUNDS} rounds in turn"),
        "median",
        "least"
    );
    for ((name, _), times) in STOPS.iter().zip(stops) {
        println!("{name:<60}{:>8.0}{:>8.0}", times.median(), times.min());
    }
    let Some(binary) = locate::sidestep_with_faults()? else { return Ok(()) };
    let every = CONDITIONS.iter().fold(0, |every, (_, fault)| every | fault);
    let conditions = CONDITIONS.into_iter().chain([("all of these", every)]);
    let steps: Vec<_> = conditions.map(|(name, fault)| (name, "1024", fault)).collect();
    let figures = rounds(&origin, &binary, &steps)?;
    println!(
        "\n{:<60}{:>8}{:>8}",
        "a hit of 1 KB in a build for tests, without asking whether", "median", "least"
    );
    for ((name, ..), times) in steps.iter().zip(figures) {
        println!("{name:<60}{:>8.0}{:>8.0}", times.median(), times.min());
    }
    Ok(())
}

/// How long the program runs in each step with those conditions left out, nanoseconds.
fn rounds(origin: &Origin, binary: &Path, steps: &[(&str, &str, u32)]) -> Result<Vec<Series>> {
    let own = std::env::current_exe()?;
    let mut rounds = vec![Series::default(); steps.len()];
    for round in 1..=ROUNDS {
        for ((name, step, fault), times) in steps.iter().zip(&mut rounds) {
            eprint!("\rround {round} of {ROUNDS}: {name:<60}");
            times.0.push(one(origin, binary, &own, step, *fault).with_context(|| (*name).to_owned())?);
        }
    }
    eprint!("\r{:<80}\r", "");
    Ok(rounds)
}

fn one(origin: &Origin, binary: &Path, own: &Path, step: &str, fault: u32) -> Result<f64> {
    let exec = Exec::port(origin.port())?.flag(acceleration::FLAG).flag("hits");
    let exec = exec.program(binary).env(FAULTS, fault.to_string());
    let addr = origin.addr().to_string();
    let outcome = exec.run([own.as_os_str(), "client".as_ref(), addr.as_ref(), step.as_ref()])?;
    let hits = outcome.figure("kernel_hits")?;
    ensure!(step.parse::<u32>().is_err() || hits > HITS, "{hits} hits inside the kernel");
    Ok(outcome.output.succeeded()?.text().trim().parse()?)
}

/// Makes the destination hot, then sends one kind of message over and over; prints how long the program ran for each,
/// nanoseconds.
fn client(origin: SocketAddr, step: &str) -> Result<()> {
    let target = if step.parse::<u32>().is_ok() { step } else { "1024" };
    let get = |target: &str| format!("GET /{target} HTTP/1.1\r\nHost: {origin}\r\n\r\n");
    let (hot, miss) = (get(target), get("miss"));
    for _ in 0..4 {
        let mut heating = Connection::open(origin, None, PATIENCE)?;
        for _ in 0..20 {
            asked(&mut heating, &hot)?;
        }
    }
    let mut connection = Connection::open(origin, None, PATIENCE)?;
    let count = if step == target { HITS } else { MISSES };
    for _ in 0..count / 10 {
        asked(&mut connection, if step == target { &hot } else { &miss })?;
    }
    let before = counted()?;
    for _ in 0..count {
        match step {
            "other" => asked(&mut connection, &miss.replacen("GET", "OPTIONS", 1))?,
            "miss" => asked(&mut connection, &miss)?,
            "unread" => {
                connection.send(miss.as_bytes(), None)?;
                asked(&mut connection, &hot)?;
                answered(&mut connection)?;
            }
            _ => asked(&mut connection, &hot)?,
        }
    }
    let after = counted()?;
    let (time, runs) = ((after.0 - before.0).as_nanos() as u64, after.1 - before.1);
    ensure!(runs >= count, "the program ran {runs} times for {count} messages");
    println!("{}", time / runs);
    Ok(())
}

fn asked(connection: &mut Connection, request: &str) -> Result<()> {
    connection.send(request.as_bytes(), None)?;
    answered(connection)
}

fn answered(connection: &mut Connection) -> Result<()> {
    let response = connection.response("GET", PATIENCE);
    ensure!(response.complete() && response.status() == 200, "another answer: {}", response.end());
    Ok(())
}

/// How long and how often the program has run.
fn counted() -> Result<(Duration, u64)> {
    let mut found = None;
    for program in loaded_programs().filter_map(Result::ok) {
        if program.name_as_str().is_some_and(|name| PROGRAM.starts_with(name) && name.len() > 8) {
            // The one that was loaded last.
            found = Some((program.run_time(), program.run_count()));
        }
    }
    found.context("the program is not loaded")
}
