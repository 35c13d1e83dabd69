//! `cargo xtask image`: a container image for the architecture of this machine, of the program, the libraries it needs and
//! nothing else: no shell, no package manager. No builder is needed; it is an OCI image that also `docker load` takes.

mod libraries;
mod oci;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;
use crate::platform::Platform;
use crate::{machine, sbom, setup, steps};

pub(crate) use libraries::{Library, Package};

/// Where the program is in the image.
const PROGRAM: &str = "usr/local/bin/sidestep";

/// Where the list of what it consists of is.
const LIST: &str = "usr/share/doc/sidestep/sbom.cdx.json";

/// Builds the program and the image.
///
/// # Errors
/// If the program cannot be built, a library it needs is not found, or the disk is full.
pub(crate) fn run() -> Result<()> {
    let checkout = Checkout::find()?;
    setup::run(false)?;
    steps::run(checkout.cargo().args(["build", "--release"]))?;
    let Image { root, archive, list } = build(&checkout)?;
    println!("\nimage: {}, {} KiB", archive.display(), fs::metadata(&archive)?.len() / 1024);
    println!("its contents: {}", root.display());
    println!("what they consist of: {}", list.display());
    let loaders =
        [("docker", "docker load -i"), ("podman", "podman load -i"), ("ctr", "ctr -n k8s.io images import")];
    let here: Vec<&str> =
        loaders.iter().filter(|(name, _)| machine::has(name)).map(|(_, words)| *words).collect();
    let words = if here.is_empty() { loaders.iter().map(|(_, words)| *words).collect() } else { here };
    println!("load it with: {} {}", words.join(" | "), archive.display());
    Ok(())
}

/// Builds the image of the program that is there, and tries what can be tried without a builder: that its contents are enough
/// to run it, and no more.
///
/// # Errors
/// As [`run`], or where the program does not run in it.
pub(crate) fn check(checkout: &Checkout) -> Result<String> {
    let first = build(checkout)?;
    let bytes = fs::read(&first.archive)?;
    let Image { root, archive, list } = build(checkout)?;
    ensure!(fs::read(&archive)? == bytes, "the same contents make another image");
    let shells = ["bin/sh", "bin/bash", "usr/bin/sh", "bin/busybox"];
    ensure!(!shells.iter().any(|shell| root.join(shell).exists()), "a shell is in it");
    let listed = sbom::check(checkout, &list, &checkout.sidestep())?;
    let size = format!("{} MiB, {listed}", bytes.len() / (1 << 20));
    if !machine::is_root() {
        return Ok(format!("{size}; not tried: chroot needs root"));
    }
    let output = Command::new("chroot").arg(&root).args([&format!("/{PROGRAM}"), "--version"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = concat!("sidestep ", env!("CARGO_PKG_VERSION"));
    ensure!(said.trim() == expected, "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(size)
}

/// What goes into an image.
#[derive(Debug)]
pub(crate) struct Contents {
    /// What it is for.
    pub(crate) platform: Platform,
    /// The program.
    pub(crate) program: PathBuf,
    /// What it is loaded with.
    pub(crate) libraries: Vec<Library>,
    /// The arguments of cargo that name the packages it was built together with.
    pub(crate) selection: Vec<&'static str>,
}

impl Contents {
    /// Those of the program that `cargo build --release` made.
    ///
    /// # Errors
    /// If a library that it needs is not found.
    pub(crate) fn of_this_machine(checkout: &Checkout) -> Result<Self> {
        let program = checkout.sidestep();
        let libraries = libraries::of_this_machine(&program)?;
        Ok(Self { platform: Platform::here()?, program, libraries, selection: Vec::new() })
    }
}

/// What was built, and from what.
struct Image {
    root: PathBuf,
    archive: PathBuf,
    list: PathBuf,
}

fn build(checkout: &Checkout) -> Result<Image> {
    let contents = Contents::of_this_machine(checkout)?;
    let folder = checkout.target.join("image");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let root = folder.join("root");
    fill(&root, &contents)?;
    let list = folder.join("sidestep.cdx.json");
    sbom::write(checkout, &contents, &list)?;
    copy(&list, &root.join(LIST))?;
    let archive = folder.join("sidestep.tar");
    oci::pack(&folder, &root, &archive, contents.platform)?;
    Ok(Image { root, archive, list })
}

/// Puts the program and the libraries that it is loaded with below a folder.
fn fill(root: &Path, contents: &Contents) -> Result<()> {
    copy(&contents.program, &root.join(PROGRAM))?;
    for library in &contents.libraries {
        copy(&library.file, &root.join(library.place.strip_prefix("/").unwrap_or(&library.place)))?;
    }
    // Where a pod's volumes are mounted although nothing may be written.
    for folder in ["etc/sidestep", "host/cgroup", "run/sidestep", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no folder")?)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display())).map(drop)
}
