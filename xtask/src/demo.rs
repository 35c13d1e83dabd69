//! Shows the whole on this machine: real programs, the kernel's hooks, the cache, an origin that counts.
//!
//! What runs under the cache is in `inside`, the origin in `origin`, what must be gone at the end in `leftovers`,
//! and whether the numbers agree in `verdict`.

pub(crate) mod inside;
mod leftovers;
mod origin;
mod verdict;

use std::{
    env, fs,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{checkout::Checkout, machine, setup, steps};
use inside::Exchange;
use leftovers::Leftovers;
use origin::Origin;

/// Runs the demonstration; its last line is `ok: N hits, origin saw M requests`.
///
/// # Errors
/// If anything differs from what was promised; the error says what.
pub(crate) fn run() -> Result<()> {
    if !machine::is_root() {
        bail!("the demo attaches eBPF programs to a cgroup and needs root: run it as root or with sudo");
    }
    let checkout = Checkout::find()?;
    println!("== setup: a compiler for eBPF");
    setup::install(&checkout, false)?;
    println!("\n== cargo build --release");
    steps::run(checkout.cargo().args(["build", "--release"]))?;

    let folder = checkout.target.join("demo");
    fs::create_dir_all(&folder)?;
    let summary = folder.join("summary.json");
    // A summary of an earlier run must not pass for one of this run.
    if summary.exists() {
        fs::remove_file(&summary)?;
    }

    let origin = Origin::start()?;
    let port = origin.port();
    println!(
        "\n== an origin on 127.0.0.1:{port}: 1 KB, Cache-Control: max-age=60, {} ms to think",
        origin::DELAY.as_millis()
    );
    println!("== sidestep exec --port {port} -- (each program asks for its own URL twice)\n");
    let mut exec = Command::new(checkout.sidestep());
    exec.args(["exec", "--port", &port.to_string(), "--summary-json"]).arg(&summary).arg("--");
    exec.arg(env::current_exe()?).args(["demo-inside", "--port", &port.to_string(), "--folder"]).arg(&folder);
    let child = exec.stdout(Stdio::piped()).spawn().context("sidestep did not start")?;
    let leftovers = Leftovers::of(child.id());
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("sidestep exec ended with {}", output.status);
    }
    let report = inside::Report::parse(&String::from_utf8_lossy(&output.stdout))?;
    print_table(&report.exchanges);

    let seen = origin.requests();
    let summary = fs::read_to_string(&summary).context("sidestep wrote no summary")?;
    let summary = verdict::Summary::parse(&summary)?;
    println!("\nthe origin counted {seen} requests; sidestep's summary says:\n  {summary}");
    let hits = verdict::check(&report.exchanges, seen, &summary)?;

    println!("nothing is left: {}", leftovers.check(&report)?.join(", "));
    println!("ok: {hits} hits, origin saw {seen} requests");
    Ok(())
}

fn print_table(exchanges: &[Exchange]) {
    println!("{:<16} {:<24} {:<12} {:>9}  bytes", "client", "request", "answered by", "time");
    for exchange in exchanges {
        println!(
            "{:<16} {:<24} {:<12} {:>6.1} ms  {}",
            exchange.client,
            format!("GET {}", exchange.target),
            exchange.answered_by().to_string(),
            exchange.seconds * 1000.0,
            if exchange.identical { "identical" } else { "DIFFERENT" },
        );
    }
}
