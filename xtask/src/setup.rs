//! Installs what is missing: first the toolchain of the kernel programs, then what the tests run.
//!
//! Which compiler fits is left to `toolchain`. No service is ever started.

mod apt;
mod cluster;
mod cross;
mod kernels;
mod npm;
mod oha;
mod python;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use anyhow::{Result, anyhow};

use crate::{
    checkout::Checkout,
    machine,
    platform::Platform,
    steps::run_silently,
    toolchain::{self, DEBIAN_LLVM_BIN, DEBIAN_PACKAGES, INSTALL_LINKER, Missing},
};

pub(crate) use cross::Cross;
pub(crate) use kernels::{Kernel, SERIES};

/// Packages of the tests, and the program by which each is known to be there.
const TEST_PACKAGES: [(&str, &str); 10] = [
    ("nginx-light", "nginx"),
    VARNISH,
    ("wrk", "wrk"),
    ("iproute2", "ip"),
    ("iptables", "iptables"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("nodejs", "node"),
    ("npm", "npm"),
    ("default-jdk-headless", "javac"),
];

/// A cache that is compared with.
const VARNISH: (&str, &str) = ("varnish", "varnishd");

/// Those without which nothing is compared.
const BENCH_PACKAGES: [(&str, &str); 4] =
    [("nginx-light", "nginx"), ("wrk", "wrk"), ("iproute2", "ip"), ("iptables", "iptables")];

/// Those that `conformance` needs.
const CONFORMANCE_PACKAGES: [(&str, &str); 3] = [("iproute2", "ip"), ("nodejs", "node"), ("npm", "npm")];

/// Installs what is missing and says what is there.
///
/// # Errors
/// If something is missing that cannot be installed here; the error names it and how to get it.
pub(crate) fn run(tests: bool) -> Result<()> {
    install(&Checkout::find()?, tests)
}

/// Installs what is missing for this checkout; quick when nothing is.
///
/// # Errors
/// As [`run`].
pub(crate) fn install(checkout: &Checkout, tests: bool) -> Result<()> {
    let toolchain = match toolchain::find() {
        Ok(found) => found,
        Err(missing) => {
            install_toolchain(&missing)?;
            toolchain::find().map_err(|missing| anyhow!("{missing}"))?
        }
    };
    eprintln!("kernel programs: {toolchain}");
    if tests {
        install_programs(&TEST_PACKAGES, !python::can_make_environments())?;
        python::install(&checkout.tools())?;
        npm::install(&checkout.tools())?;
        cluster::install(&checkout.tools())?;
    }
    Ok(())
}

/// Installs the public cache test suite and what runs it; returns its folder. Quick when nothing is missing.
///
/// # Errors
/// If something is missing that cannot be installed here.
pub(crate) fn install_conformance(checkout: &Checkout) -> Result<PathBuf> {
    install_programs(&CONFORMANCE_PACKAGES, false)?;
    npm::install(&checkout.tools())
}

/// Installs what Sidestep is compared with, and what measures it; meanwhile builds Sidestep itself, since what is
/// fetched needs no core; returns where the load generator oha is. Quick when nothing is missing.
///
/// What can be left out is named where it cannot be installed.
///
/// # Errors
/// If something is missing without which nothing can be compared, or as `build` says.
pub(crate) fn install_bench(checkout: &Checkout, build: impl FnOnce() -> Result<()>) -> Result<PathBuf> {
    thread::scope(|scope| {
        let rivals = scope.spawn(|| install_rivals(checkout));
        let built = build();
        let oha = rivals.join().map_err(|_| anyhow!("the installation panicked"))?;
        built.and(oha)
    })
}

fn install_rivals(checkout: &Checkout) -> Result<PathBuf> {
    install_programs(&BENCH_PACKAGES, false)?;
    let oha = oha::install(checkout)?;
    let environment = install_programs(&[], !python::can_make_environments());
    let optional = [
        ("Varnish", install_programs(&[VARNISH], false)),
        ("Envoy", environment.and_then(|()| python::install(&checkout.tools()))),
    ];
    for (name, done) in optional {
        if let Err(why) = done {
            eprintln!("left out: {name}: {why:#}");
        }
    }
    Ok(oha)
}

/// Installs what builds the program for another kind of machine. Quick when nothing is missing.
///
/// # Errors
/// If this machine's packages do not hold it.
pub(crate) fn install_cross(checkout: &Checkout, platform: Platform) -> Result<Cross> {
    cross::install(&checkout.tools(), platform)
}

/// Gets a kernel of each series and what boots them. Quick when nothing is missing.
///
/// # Errors
/// If they cannot be had here; the error says why.
pub(crate) fn install_kernels(checkout: &Checkout, series: &[&str]) -> Result<Vec<Kernel>> {
    kernels::install(&checkout.kernels(), series)
}

fn install_toolchain(missing: &Missing) -> Result<()> {
    if !machine::is_debian() {
        return Err(anyhow!("{missing}"));
    }
    let llvm_config = Path::new(DEBIAN_LLVM_BIN).join("llvm-config");
    if missing.compiler.is_some() || (missing.linker && !llvm_config.exists()) {
        apt::install(&DEBIAN_PACKAGES, "35 s").map_err(|why| why.context(missing.to_string()))?;
    }
    if missing.linker {
        timed(&format!("cargo {}", INSTALL_LINKER.join(" ")), "74 s", || {
            let mut path = OsString::from(DEBIAN_LLVM_BIN);
            path.push(":");
            path.push(env::var_os("PATH").unwrap_or_default());
            let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            run_silently(std::process::Command::new(cargo).args(INSTALL_LINKER).env("PATH", path))
        })?;
    }
    Ok(())
}

fn install_programs(packages: &[(&str, &str)], lacks_venv: bool) -> Result<()> {
    let mut missing: Vec<&str> =
        packages.iter().filter(|(_, program)| !machine::has(program)).map(|(package, _)| *package).collect();
    if lacks_venv {
        missing.push("python3-venv");
    }
    if !missing.is_empty() {
        if !machine::is_debian() {
            return Err(anyhow!("the tests need these, by their names on Debian: {}", missing.join(", ")));
        }
        apt::install(&missing, "1 min")?;
    }
    for (_, program) in packages {
        let found = machine::program_path(program);
        let found = found.ok_or_else(|| anyhow!("{program} is still missing after the installation"))?;
        eprintln!("{program}: {}", found.display());
    }
    Ok(())
}

/// Says what will run and how long it usually takes, runs it, says how long it took.
fn timed(what: &str, about: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("{what}\n  takes about {about} …");
    let start = Instant::now();
    act()?;
    eprintln!("  done in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
