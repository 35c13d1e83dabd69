//! What the store keeps, beside other caches of as many bytes: a trace is played to each of them, and the table says how
//! many requests and how many bytes they answered. `cargo xtask cachesim --help`.
//!
//! The store is the daemon's own code with real contents. The others know only keys and sizes, and are charged for
//! each response what it costs the store besides its bytes.

mod contenders;
mod trace;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use contenders::{Contender, Lru, Outcome, TheStore, TinyLfu};
use serde::Serialize;
use trace::{Shape, Trace};

/// Plays traces to the store and to other caches of as many bytes.
#[derive(Parser)]
#[command(bin_name = "cargo xtask cachesim")]
struct Arguments {
    /// Play this trace: a line a request, `time key bytes [namespace]`, times ascending, # begins a comment.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Write the generated trace with a scan to this file and play nothing.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Bytes of each cache.
    #[arg(long, default_value_t = 64 << 20)]
    store_bytes: u64,
    #[command(flatten)]
    shape: Shape,
    /// How the result is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What one cache made of one trace.
#[derive(Serialize)]
struct Row {
    trace: String,
    cache: &'static str,
    requests: u64,
    object_hit_ratio: f64,
    byte_hit_ratio: f64,
    /// Responses that were refused because what is stored is worth more.
    refused: u64,
    /// The same while less than 90 % of the bytes were in use: must be none.
    refused_early: u64,
    nanoseconds_per_request: u64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(path) = &arguments.write {
        let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
        return Trace::generate(&arguments.shape).write(file);
    }
    let traces = match &arguments.trace {
        Some(path) => vec![Trace::read(path)?],
        None => vec![Trace::generate(&arguments.shape.without_scan()), Trace::generate(&arguments.shape)],
    };
    let mut rows = Vec::new();
    for trace in &traces {
        let overhead = TheStore::overhead_bytes();
        rows.push(play(trace, &mut TheStore::new(arguments.store_bytes)));
        rows.push(play(trace, &mut TinyLfu::new(arguments.store_bytes, overhead)));
        rows.push(play(trace, &mut Lru::new(arguments.store_bytes, overhead)));
    }
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Table => print(&rows),
    }
    ensure!(rows.iter().all(|row| row.refused_early == 0), "a response was refused although there was room");
    Ok(())
}

/// The first fifth of a trace only fills the cache.
fn play(trace: &Trace, cache: &mut impl Contender) -> Row {
    let begun = Instant::now();
    let (mut hits, mut hit_bytes, mut bytes, mut requests) = (0_u64, 0_u64, 0_u64, 0_u64);
    let (mut refused, mut refused_early) = (0, 0);
    for (index, request) in trace.requests.iter().enumerate() {
        let outcome = cache.request(request);
        match outcome {
            Outcome::Refused => refused += 1,
            Outcome::RefusedEarly => refused_early += 1,
            Outcome::Hit | Outcome::Miss => {}
        }
        if index < trace.requests.len() / 5 {
            continue;
        }
        requests += 1;
        bytes += request.bytes;
        if outcome == Outcome::Hit {
            hits += 1;
            hit_bytes += request.bytes;
        }
    }
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    Row {
        trace: trace.name.clone(),
        cache: cache.name(),
        requests,
        object_hit_ratio: ratio(hits, requests),
        byte_hit_ratio: ratio(hit_bytes, bytes),
        refused,
        refused_early,
        nanoseconds_per_request: (begun.elapsed().as_nanos() / trace.requests.len().max(1) as u128) as u64,
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<28} {:<12} {:>8} {:>8} {:>10} {:>10}",
        "trace", "cache", "objects", "bytes", "refused", "too early"
    );
    for row in rows {
        println!(
            "{:<28} {:<12} {:>7.1}% {:>7.1}% {:>10} {:>10}",
            row.trace,
            row.cache,
            row.object_hit_ratio * 100.0,
            row.byte_hit_ratio * 100.0,
            row.refused,
            row.refused_early
        );
    }
}
