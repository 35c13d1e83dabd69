//! `cargo xtask cachesim`: what the store keeps, beside other caches of as many bytes. The simulation itself is a bench
//! of the daemon's package, so that it plays to the daemon's own store.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;

/// Builds and runs the simulation.
///
/// # Errors
/// If it cannot be built, or if it found a response refused although there was room.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let status = Checkout::find()?
        .cargo()
        .args(["bench", "--quiet", "-p", "cache-userspace", "--bench", "cachesim", "--"])
        .args(arguments)
        .status()
        .context("cargo did not start")?;
    ensure!(status.success(), "the simulation failed");
    Ok(())
}
