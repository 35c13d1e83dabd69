//! Everything that must hold before a change goes in: format, lints, house rules, tests, kernel tests.

use std::thread;

use anyhow::{Context, Result, bail};

use crate::{
    checkout::Checkout,
    conformance, image, kernels, machine, setup,
    steps::{self, Steps, run_silently, run_tests},
    supply_chain, tidy,
};

/// Runs all steps, each under its header, and ends with a table of them.
///
/// # Errors
/// If the set-up is not complete or any step failed.
pub(crate) fn run(quick: bool) -> Result<()> {
    let checkout = Checkout::find()?;
    let mut steps = Steps::default();
    if !steps.run("setup", || setup::install(&checkout, !quick).map(|()| String::new())) {
        return steps.finish();
    }
    steps.command("format", checkout.cargo().args(["fmt", "--all", "--check"]));
    steps.run("lints", || lints(&checkout));
    steps.run("tidy", || tidy::check(&checkout));
    match supply_chain::program(&checkout) {
        Some(deny) => drop(steps.run("supply chain", || supply_chain::check(&checkout, &deny))),
        None => steps.not_run("supply chain", "cargo-deny is not here (`cargo xtask setup --tests`)"),
    }
    steps.run("unit tests", || {
        let packages = ["--package=cache-common", "--package=cache-userspace", "--package=xtask"];
        let count = run_tests(checkout.cargo().arg("test").args(packages))?;
        Ok(format!("{} passed, {} ignored", count.passed, count.ignored))
    });
    if quick {
        steps.not_run("release build", "--quick");
        steps.not_run("image", "--quick");
        steps.not_run("kernel tests", "--quick");
        steps.not_run("older kernels", "--quick");
        steps.not_run("conformance", "--quick");
    } else if steps.command("release build", checkout.cargo().args(["build", "--release"]))
        && steps.command("build with faults", &mut checkout.build_with_faults())
    {
        steps.run("image", || image::check(&checkout));
        steps.run("kernel tests", || kernel_tests(&checkout));
        steps.run("older kernels", || kernels::check(&checkout));
        steps.run("conformance", || conformance::check(&checkout));
    } else {
        for step in ["image", "kernel tests", "older kernels", "conformance"] {
            steps.not_run(step, "a build failed");
        }
    }
    steps.finish()
}

fn lints(checkout: &Checkout) -> Result<String> {
    run_silently(checkout.cargo().args(["clippy", "--version"]))
        .context("clippy is not installed (rustup component add clippy, or Debian's rust-clippy)")?;
    steps::run(checkout.cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]))?;
    // Clippy never generates code, so that the kernel programs can be checked as if they were for the host: no
    // BPF target is needed, only the unstable features and no unwinding. A target folder of its own, because
    // RUSTC_BOOTSTRAP would make every build script of the other one run again.
    steps::run(
        checkout
            .cargo()
            .args(["clippy", "--package=cache-ebpf", "--target-dir"])
            .arg(checkout.target.join("clippy-ebpf"))
            .args(["--", "-D", "warnings"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_PROFILE_DEV_PANIC", "abort"),
    )?;
    Ok(String::new())
}

/// Runs the package `tests`; what needs root and a kernel that lets us is counted as skipped where it cannot run.
fn kernel_tests(checkout: &Checkout) -> Result<String> {
    let mut cargo = checkout.cargo();
    cargo.args(["test", "--release", "--package=tests", "--no-fail-fast"]);
    cargo.env("SIDESTEP_BIN", checkout.sidestep()).env("SIDESTEP_TOOLS", checkout.tools());
    cargo.env("SIDESTEP_FAULTS_BIN", checkout.sidestep_with_faults());
    let refused = machine::kernel_tests_refused();
    if refused.is_none() {
        let threads = thread::available_parallelism()?;
        cargo.args(["--", "--include-ignored"]).arg(format!("--test-threads={threads}"));
    }
    let count = run_tests(&mut cargo)?;
    match refused {
        Some(why) => Ok(format!("{} passed, {} SKIPPED: {why}", count.passed, count.ignored)),
        None if count.ignored > 0 => bail!("{} tests did not run", count.ignored),
        None => Ok(format!("{} passed", count.passed)),
    }
}
