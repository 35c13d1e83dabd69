//! The public cache test suite, an npm package, for this checkout only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::timed;
use crate::steps::run_silently;

/// The suite, in one version: the lists in `tests/fixtures/conformance` speak of its cases.
const PACKAGE: &str = "http-cache-tests";
const VERSION: &str = "0.4.5";

/// Puts the suite into `tools`, unless it is there in this version; returns its folder.
///
/// # Errors
/// If npm cannot fetch it.
pub(super) fn install(tools: &Path) -> Result<PathBuf> {
    let prefix = tools.join("conformance");
    let folder = prefix.join("node_modules").join(PACKAGE);
    if installed_version(&folder).as_deref() != Some(VERSION) {
        let package = format!("{PACKAGE}@{VERSION}");
        timed(&format!("npm install {package}"), "10 s", || {
            fs::create_dir_all(&prefix)?;
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
            run_silently(npm.arg(&prefix).arg(&package))
        })?;
        if installed_version(&folder).as_deref() != Some(VERSION) {
            bail!("npm did not install {package}");
        }
    }
    eprintln!("conformance: {}", folder.display());
    Ok(folder)
}

fn installed_version(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    package.get("version")?.as_str().map(str::to_owned)
}
