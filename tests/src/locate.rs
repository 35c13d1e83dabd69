//! Where the programs under test and the tools of the tests are.
//!
//! Environment: `SIDESTEP_BIN` names the binary, `SIDESTEP_FAULTS_BIN` one with the feature `faults`, `SIDESTEP_TOOLS` a directory whose `venv` holds aiohttp and Go, `SIDESTEP_OHA` the load generator.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The `sidestep` binary: `SIDESTEP_BIN`, else `release/sidestep` of the target directory of this test.
pub fn sidestep() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SIDESTEP_BIN") {
        let path = PathBuf::from(path);
        return path.canonicalize().with_context(|| format!("SIDESTEP_BIN={}", path.display()));
    }
    beside_test("release/sidestep")
}

/// The `sidestep` binary that can be told to leave conditions out, if it was built.
pub fn sidestep_with_faults() -> Result<Option<PathBuf>> {
    let path = env::var_os("SIDESTEP_FAULTS_BIN").map(PathBuf::from);
    let path =
        path.map(|path| path.canonicalize().with_context(|| path.display().to_string())).transpose()?;
    needed("SIDESTEP_FAULTS_BIN, a binary with the feature `faults`,", path)
}

/// The `probe` binary of this package, which cargo builds along with the tests.
pub fn probe() -> Result<PathBuf> {
    beside_test("probe")
}

/// The client of [`crate::replay`] that is made of reqwest, which cargo builds along with the tests.
pub fn reqwest_client() -> Result<PathBuf> {
    beside_test("reqwest_client")
}

/// The relay of [`crate::comparison`], which cargo builds along with the tests.
pub fn relay() -> Result<PathBuf> {
    beside_test("relay")
}

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A file of `deploy`.
pub fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// A program of the tools' virtual environment, if it is installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("SIDESTEP_TOOLS")?).join("venv/bin").join(name);
    path.exists().then_some(path)
}

/// The load generator oha: `SIDESTEP_OHA`, else that on the search path, if it is installed.
pub fn oha() -> Option<PathBuf> {
    env::var_os("SIDESTEP_OHA").map(PathBuf::from).or_else(|| on_path("oha"))
}

/// A program on the search path, if it is installed.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The program, or nothing where the test may do without it, having said so.
///
/// Where `SIDESTEP_TOOLS` is set somebody has set the machine up, and a missing program is an error.
pub fn needed(name: &str, found: Option<PathBuf>) -> Result<Option<PathBuf>> {
    if found.is_none() {
        skip(&format!("{name} is not installed"))?;
    }
    Ok(found)
}

/// Says that a test is skipped for want of a program, and why; the same error where somebody has set the machine up.
pub fn skip(why: &str) -> Result<()> {
    ensure!(env::var_os("SIDESTEP_TOOLS").is_none(), "{why}");
    println!("skipped: {why}");
    Ok(())
}

fn beside_test(name: &str) -> Result<PathBuf> {
    let exe = env::current_exe()?;
    for dir in exe.ancestors().skip(1) {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("no {name} beside {}: build it first", exe.display());
}
