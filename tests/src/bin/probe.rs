//! The process that stands for a workload: it is what `sidestep exec` and the node's cgroups run in the tests.
//!
//! `probe agent` obeys its test; `probe load ADDR TARGET THREADS PATIENCE_MS`, `probe steady ADDR THREADS` and `probe spin`
//! run until standard input ends; `probe manners MANNER ADDR THREADS CONNECTIONS`, `probe order CASE ADDR THREADS TRIES` and
//! `probe hammer KIND ADDR CONNECTIONS MILLISECONDS` run to their own end; `probe exit N` and `probe echo` are for the
//! tests of `exec` itself.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::{agent, hammer, load, manners, order, steady};

fn main() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["agent"] => agent::serve::serve()?,
        ["load", addr, target, threads, patience_ms] => {
            let patience = Duration::from_millis(patience_ms.parse()?);
            load::run(addr, target, threads.parse()?, patience)?;
        }
        ["steady", addr, threads] => steady::run(addr, threads.parse()?)?,
        ["manners", manner, addr, threads, connections] => {
            manners::run(manner, addr, threads.parse()?, connections.parse()?)?;
        }
        ["order", case, addr, threads, tries] => order::run(case, addr, threads.parse()?, tries.parse()?)?,
        ["hammer", kind, addr, connections, ms] => {
            hammer::run(kind, addr, connections.parse()?, Duration::from_millis(ms.parse()?))?;
        }
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
