//! Programs of the fixtures that are compiled before they run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::scratch::Scratch;
use crate::{locate, process};

/// How long a compiler may take on a busy machine.
const COMPILE: Duration = Duration::from_secs(180);

/// Compiles a Go program of the standard library alone into `scratch`; nothing where Go is not installed.
pub fn go(source: &Path, scratch: &Scratch) -> Result<Option<PathBuf>> {
    let Some(go) = locate::needed("go", locate::tool("go").or_else(|| locate::on_path("go")))? else {
        return Ok(None);
    };
    let binary = scratch.file("program");
    let mut build = Command::new(go);
    build.args(["build", "-o"]).arg(&binary).arg(source);
    build.env_remove("GOFLAGS").env("GOPROXY", "off").env("CGO_ENABLED", "0").env("GO111MODULE", "off");
    // Packages of the standard library stay built for the next run, if the user has a cache.
    if std::env::var_os("HOME").is_none() {
        build.env("GOCACHE", scratch.file("cache"));
    }
    process::run(&mut build, COMPILE)?.succeeded().context("go build")?;
    Ok(Some(binary))
}

/// Compiles a Java program into classes in `scratch`; returns `java`, or nothing where there is no JDK.
pub fn java(source: &Path, scratch: &Scratch) -> Result<Option<PathBuf>> {
    let (java, javac) = (locate::on_path("java"), locate::on_path("javac"));
    let (Some(java), Some(javac)) = (locate::needed("java", java)?, locate::needed("javac", javac)?) else {
        return Ok(None);
    };
    process::run(Command::new(javac).arg("-d").arg(scratch.path()).arg(source), COMPILE)?
        .succeeded()
        .context("javac")?;
    Ok(Some(java))
}
