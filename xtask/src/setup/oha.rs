//! The load generator oha, compiled for this checkout only.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use super::timed;
use crate::{checkout::Checkout, steps::run_silently};

/// One version, so that reports can be compared.
const VERSION: &str = "1.16.0";

/// What makes compiling it quicker; every report says what it can do where nothing holds it up.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

/// Puts it into the folder `oha` of the tools, unless it is there in this version.
///
/// # Errors
/// If cargo cannot fetch or compile it.
pub(super) fn install(checkout: &Checkout) -> Result<()> {
    let root = checkout.tools().join("oha");
    let program = root.join("bin/oha");
    if !is_wanted(&program) {
        let words = ["install", "oha", "--version", VERSION, "--locked", "--force"];
        timed(&format!("cargo {}", words.join(" ")), "5 min", || {
            let mut cargo = checkout.cargo();
            cargo.args(words).args(tls()).arg("--root").arg(&root).envs(PROFILE);
            // Nothing of it is of use to the project's own builds.
            run_silently(cargo.env_remove("CARGO_TARGET_DIR"))
        })?;
        if !is_wanted(&program) {
            bail!("cargo did not install oha {VERSION}");
        }
    }
    eprintln!("oha: {}", program.display());
    Ok(())
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
