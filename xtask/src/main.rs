//! The project's own commands. This file only dispatches: each act has a file of its own.

mod bench;
mod cachesim;
mod checkout;
mod conformance;
mod demo;
mod image;
mod kernels;
mod machine;
mod platform;
mod sbom;
mod setup;
mod steps;
mod supply_chain;
mod test;
mod tidy;
#[path = "../../cache-userspace/build/toolchain.rs"]
mod toolchain;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Sidestep's own commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Install what is missing to compile the kernel programs (Debian, Ubuntu), or say what to install.
    Setup {
        /// Install what the tests use as well: nginx, Varnish, wrk, a JDK, Node, Go, Python packages …
        #[arg(long)]
        tests: bool,
    },
    /// Build everything and show real programs answered by the cache (root needed).
    Demo,
    /// Run every check and every test.
    Test {
        /// Leave out the release build and the tests through real kernel hooks.
        #[arg(long)]
        quick: bool,
    },
    /// Run what continuous integration runs: exactly `test`.
    Ci,
    /// Run the public cache test suite against the cache, in both profiles (root needed).
    Conformance(conformance::Arguments),
    /// Boot Debian's older kernels in an emulated machine and run tests through their hooks.
    Kernels(kernels::Arguments),
    /// Build the container image, for this kind of machine or another; needs no container builder.
    Image(image::Arguments),
    /// Write what that image consists of, as CycloneDX.
    Sbom,
    /// Hold what the workspace is built on against `deny.toml`: licences, sources, advisories.
    SupplyChain,
    /// Check the house rules that a machine can check.
    Tidy,
    /// Measure Sidestep beside sidecars and caches, and report it (root needed).
    #[command(disable_help_flag = true)]
    Bench {
        /// See `cargo xtask bench --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Play traces to the store and to other caches of as many bytes, and compare their hit ratios.
    #[command(disable_help_flag = true)]
    Cachesim {
        /// See `cargo xtask cachesim --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The part of `demo` that runs under `sidestep exec`.
    #[command(hide = true)]
    DemoInside(demo::inside::Arguments),
    /// The part of `conformance` that runs in a network namespace of its own.
    #[command(hide = true)]
    ConformanceInside(conformance::inside::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().act {
        Act::Setup { tests } => setup::run(tests),
        Act::Demo => demo::run(),
        Act::Test { quick } => test::run(quick),
        Act::Ci => test::run(false),
        Act::Conformance(arguments) => conformance::run(&arguments),
        Act::Kernels(arguments) => kernels::run(&arguments),
        Act::Image(arguments) => image::run(&arguments),
        Act::Sbom => sbom::run(),
        Act::SupplyChain => supply_chain::run(),
        Act::Tidy => tidy::run(),
        Act::Bench { arguments } => bench::run(&arguments),
        Act::Cachesim { arguments } => cachesim::run(&arguments),
        Act::DemoInside(arguments) => demo::inside::run(&arguments),
        Act::ConformanceInside(arguments) => conformance::inside::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}
