//! `cargo xtask bench`: Sidestep beside what people use today. The measuring is a bench of the tests' package; here it
//! gets what it needs.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;
use crate::{setup, steps};

/// The packages are always named together: by itself each would have its dependencies built with other features.
const COMPARISON: [&str; 3] = ["--package=cache-userspace", "--package=tests", "--bench=comparison"];

/// Installs what is missing, builds, measures.
///
/// # Errors
/// If something is missing that cannot be installed, if it cannot be built, or as the bench says.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let checkout = Checkout::find()?;
    let asks_for_help = arguments.iter().any(|word| word == "--help" || word == "-h");
    let mut oha = None;
    if !asks_for_help {
        oha = Some(setup::install_bench(&checkout, || {
            let mut build = checkout.cargo();
            build.args(["build", "--release", "--bin=sidestep"]).args(COMPARISON);
            steps::run(&mut build)
        })?);
    }
    let mut bench = checkout.cargo();
    if let Some(oha) = oha {
        bench.env("SIDESTEP_OHA", oha);
    }
    let status = bench
        .args(["bench", "--quiet"])
        .args(COMPARISON)
        .arg("--")
        .args(arguments)
        .env("SIDESTEP_BENCH_FROM", std::env::current_dir()?)
        .env("SIDESTEP_BIN", checkout.sidestep())
        .env("SIDESTEP_TOOLS", checkout.tools())
        .status()
        .context("cargo did not start")?;
    ensure!(status.success(), "the comparison failed");
    Ok(())
}
