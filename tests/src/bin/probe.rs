//! The process that stands for a workload: it is what `sidestep exec` and the node's cgroups run in the tests.
//!
//! `probe agent` obeys its test; `probe load ADDR TARGET THREADS` and `probe spin` run until standard input
//! ends; `probe exit N` and `probe echo` are for the tests of `exec` itself.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use harness::{agent, load};

fn main() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["agent"] => agent::serve::serve()?,
        ["load", addr, target, threads] => load::run(addr, target, threads.parse()?)?,
        ["spin"] => load::spin()?,
        ["exit", status] => return Ok(ExitCode::from(status.parse::<u8>()?)),
        ["echo"] => {
            let copied = io::copy(&mut io::stdin(), &mut io::stdout())?;
            writeln!(io::stderr(), "echoed {copied}").context("stderr")?;
        }
        other => bail!("unknown: {other:?}"),
    }
    Ok(ExitCode::SUCCESS)
}
