//! What each step on the way to a hit inside the kernel costs: how long the program that sees every send() runs where it
//! stops at that step, as the kernel itself counts it (`kernel.bpf_stats_enabled`, which is set back at the end).
//!
//! A step's cost is the difference to the one before it. Counting costs some 20 ns a run, the same in every line.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::programs::loaded_programs;
use harness::acceleration;
use harness::exec::{Client, Exec};
use harness::origin::{Answer, Origin};
use harness::wait;

/// Rounds in turn; medians are printed.
const ROUNDS: usize = 7;

/// Messages of one round and step.
const MESSAGES: u64 = 500;

/// The program, as the kernel cuts its name.
const PROGRAM: &str = "sidestep_sent";

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Where the program stops.
const STEPS: [(&str, Step); 5] = [
    ("no request: looks at the size and the first letters", Step::NoHead),
    ("a head, while an answer is unread: heartbeat and order", Step::Unread),
    ("a head that is not resident: walks over it, hashes, looks it up", Step::Cold),
    ("a hit of 1 KB: compares, who sends, memory, copies, age, looks again", Step::Hit("/1024")),
    ("a hit of 16 KB", Step::Hit("/16384")),
];

#[derive(Clone, Copy)]
enum Step {
    NoHead,
    Unread,
    Cold,
    Hit(&'static str),
}

fn main() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root: kernel hooks");
    }
    let before = fs::read_to_string(STATS).context("the kernel counts no run times")?;
    fs::write(STATS, "1")?;
    let measured = measured();
    fs::write(STATS, before.trim())?;
    let measured = measured?;
    println!("{:<72} {:>8} {:>8}", "one send() of a client that polls, medians of 7 rounds", "ns", "more");
    let mut last = 0;
    for ((name, _), ns) in STEPS.iter().zip(&measured) {
        println!("{name:<72} {ns:>8} {:>+8}", *ns as i64 - last as i64);
        last = *ns;
    }
    Ok(())
}

fn measured() -> Result<Vec<u64>> {
    let origin = Origin::http(|request| match request.target().trim_start_matches('/').parse::<usize>() {
        Ok(size) => Answer::ok("x".repeat(size)).max_age(600),
        Err(_) => Answer::ok("x").field("Cache-Control", "no-store"),
    })?;
    let client = Exec::port(origin.port())?.flag(acceleration::FLAG).flag("hits").agent()?;
    for target in ["/1024", "/16384"] {
        wait::wait_until(wait::PATIENCE, "an answer of the kernel", || {
            client.get(origin.addr(), target).is_ok_and(|response| response.is_by_kernel())
        })?;
    }
    let mut rounds = vec![Vec::new(); STEPS.len()];
    for _ in 0..ROUNDS {
        for ((name, step), times) in STEPS.iter().zip(&mut rounds) {
            times.push(one(&client, &origin, *step).context(*name)?);
        }
    }
    let median = |mut times: Vec<u64>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let mut medians: Vec<u64> = rounds.into_iter().map(median).collect();
    // Half of those messages are not resident, the others find an answer unread.
    let (unread, cold) = (medians[1], medians[2]);
    medians[1] = (2 * unread).saturating_sub(cold);
    client.finish()?;
    Ok(medians)
}

/// How long the program runs for a message of this kind, nanoseconds.
fn one(client: &Client, origin: &Origin, step: Step) -> Result<u64> {
    let connection = client.connect(origin.addr())?;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr());
    let before = counted()?;
    for _ in 0..MESSAGES {
        match step {
            Step::NoHead => connection.send(get("/miss").replacen("GET", "OPTIONS", 1))?,
            Step::Unread => {
                connection.send(get("/miss"))?;
                connection.send(get("/1024"))?;
                connection.response()?.expect(200)?;
            }
            Step::Cold => connection.send(get("/miss"))?,
            Step::Hit(target) => connection.send(get(target))?,
        }
        connection.response()?.expect(200)?;
    }
    let after = counted()?;
    let (time, runs) = (after.0 - before.0, after.1 - before.1);
    if runs < MESSAGES / 2 {
        bail!("the program ran {runs} times for {MESSAGES} messages");
    }
    Ok(time.as_nanos() as u64 / runs)
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
