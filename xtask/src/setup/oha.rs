//! The load generator oha: cargo installs it where it installs programs, once for all checkouts. Where another version is
//! there already, that stays, and this checkout gets its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::timed;
use crate::{checkout::Checkout, machine, steps::run_silently};

/// One version, so that reports can be compared.
const VERSION: &str = "1.16.0";

/// What makes compiling it quicker; every report says what it can do where nothing holds it up.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

/// Installs it, unless it is there in this version, and returns where it is.
///
/// # Errors
/// If cargo cannot fetch or compile it.
pub(super) fn install(checkout: &Checkout) -> Result<PathBuf> {
    let root = checkout.tools().join("oha");
    let found = || -> Option<PathBuf> {
        let places = [machine::program_path("oha"), Some(root.join("bin/oha"))];
        places.into_iter().flatten().find(|program| is_wanted(program))
    };
    if found().is_none() {
        let is_shared = !machine::has("oha");
        let words = ["install", "oha", "--version", VERSION, "--locked", "--force"];
        timed(&format!("cargo {}", words.join(" ")), "5 min", || {
            let mut cargo = checkout.cargo();
            cargo.args(words).args(tls()).envs(PROFILE);
            if !is_shared {
                cargo.arg("--root").arg(&root);
            }
            // Nothing of it is of use to the project's own builds.
            run_silently(cargo.env_remove("CARGO_TARGET_DIR"))
        })?;
    }
    let program = found()
        .with_context(|| format!("cargo did not install oha {VERSION} in a folder of the search path"))?;
    eprintln!("oha: {}", program.display());
    Ok(program)
}

/// The system's TLS where it can be compiled with: its own takes 3 minutes more, and without any it does not compile.
fn tls() -> &'static [&'static str] {
    match run_silently(Command::new("pkg-config").args(["--exists", "openssl"])) {
        Ok(()) => &["--no-default-features", "--features", "native-tls"],
        Err(_) => &[],
    }
}

fn is_wanted(program: &Path) -> bool {
    let said = Command::new(program).arg("--version").output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).trim() == format!("oha {VERSION}"))
}
