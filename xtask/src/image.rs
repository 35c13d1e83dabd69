//! `cargo xtask image`: a container image for this kind of machine or another, of the program, the libraries it needs, the list
//! of what it consists of, and nothing else: no shell, no package manager. No builder is needed; it is an OCI image that also
//! `docker load` takes.

mod cross;
mod libraries;
mod oci;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::platform::{PLATFORMS, Platform};
use crate::{machine, sbom, setup, steps};

pub(crate) use libraries::{Library, Package};

/// Where the program is in the image.
const PROGRAM: &str = "usr/local/bin/sidestep";

/// Where the list of what it consists of is.
const LIST: &str = "usr/share/doc/sidestep/sbom.cdx.json";

/// What the image is for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The kind of machine, by default this one; `all` makes one image for each, and one for all.
    #[arg(long, value_parser = ["amd64", "arm64", ALL])]
    arch: Option<String>,
}

/// Every kind of machine.
const ALL: &str = "all";

/// Builds the program and the image, and tries it.
///
/// # Errors
/// If the program cannot be built, a library it needs is not found, it does not run in the image, or the disk is full.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let checkout = Checkout::find()?;
    setup::run(false)?;
    let platforms = match arguments.arch.as_deref() {
        None => vec![Platform::here()?],
        Some(ALL) => PLATFORMS.to_vec(),
        Some(name) => vec![Platform::named(name).context("no such machine")?],
    };
    let images =
        platforms.into_iter().map(|platform| make(&checkout, platform)).collect::<Result<Vec<_>>>()?;
    if images.len() > 1 {
        let archive = join(&checkout, &images)?;
        println!("\nfor all of them: {}", archive.display());
        println!("copy it with: skopeo copy --all oci-archive:{} docker://REGISTRY/NAME", archive.display());
    }
    let loaders =
        [("docker", "docker load -i"), ("podman", "podman load -i"), ("ctr", "ctr -n k8s.io images import")];
    let here: Vec<&str> =
        loaders.iter().filter(|(name, _)| machine::has(name)).map(|(_, words)| *words).collect();
    let words = if here.is_empty() { loaders.iter().map(|(_, words)| *words).collect() } else { here };
    println!("\nload one with: {} FILE", words.join(" | "));
    Ok(())
}

fn make(checkout: &Checkout, platform: Platform) -> Result<Image> {
    let (contents, emulator) = if platform == Platform::here()? {
        steps::run(checkout.cargo().args(["build", "--release"]))?;
        (Contents::of_this_machine(checkout)?, None)
    } else {
        let cross = setup::install_cross(checkout, platform)?;
        (cross::build(checkout, &cross)?, Some(cross.qemu))
    };
    let image = build(checkout, contents)?;
    let tried = attempt(&image, emulator.as_deref())?.unwrap_or("the program runs in it");
    let bytes = fs::metadata(&image.archive)?.len();
    println!("\nimage for {}: {}, {} KiB: {tried}", platform.name, image.archive.display(), bytes / 1024);
    println!("  its contents: {}", image.root.display());
    println!("  what they consist of: {}", image.list.display());
    Ok(image)
}

fn join(checkout: &Checkout, images: &[Image]) -> Result<PathBuf> {
    let folder = emptied(checkout.target.join("image-all"))?;
    let archive = folder.join("sidestep.tar");
    let parts: Vec<_> =
        images.iter().map(|it| (it.folder.as_path(), it.contents.platform, &it.described)).collect();
    oci::join(&folder, &archive, &parts)?;
    Ok(archive)
}

/// Builds the image of the program that is there, and tries what can be tried without a builder: that its contents are enough
/// to run it, and no more.
///
/// # Errors
/// As [`run`], or where the program does not run in it.
pub(crate) fn check(checkout: &Checkout) -> Result<String> {
    let first = build(checkout, Contents::of_this_machine(checkout)?)?;
    let bytes = fs::read(&first.archive)?;
    let image = build(checkout, Contents::of_this_machine(checkout)?)?;
    ensure!(fs::read(&image.archive)? == bytes, "the same contents make another image");
    let shells = ["bin/sh", "bin/bash", "usr/bin/sh", "bin/busybox"];
    ensure!(!shells.iter().any(|shell| image.root.join(shell).exists()), "a shell is in it");
    let listed = sbom::check(checkout, &image.list, &image.contents.program)?;
    let size = format!("{} MiB, {listed}", bytes.len() / (1 << 20));
    Ok(match attempt(&image, None)? {
        Some(why) => format!("{size}; {why}"),
        None => size,
    })
}

/// Runs the program where there is nothing but what is in the image, or says why not.
fn attempt(image: &Image, emulator: Option<&Path>) -> Result<Option<&'static str>> {
    if !machine::is_root() {
        return Ok(Some("not tried: chroot needs root"));
    }
    let mut chroot = Command::new("chroot");
    chroot.arg(&image.root);
    let inside = image.root.join("emulator");
    if let Some(emulator) = emulator {
        copy(emulator, &inside)?;
        chroot.arg("/emulator");
    }
    let output = chroot.args([&format!("/{PROGRAM}"), "--version"]).output();
    if emulator.is_some() {
        fs::remove_file(&inside)?;
    }
    let output = output.context("chroot did not start")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = concat!("sidestep ", env!("CARGO_PKG_VERSION"));
    ensure!(said.trim() == expected, "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(None)
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
    contents: Contents,
    /// Where all of it is.
    folder: PathBuf,
    /// What is in it.
    root: PathBuf,
    archive: PathBuf,
    /// What it consists of.
    list: PathBuf,
    /// How an index of images names it.
    described: Value,
}

/// Builds the image; each kind of machine has a folder of its own, this one the shortest.
fn build(checkout: &Checkout, contents: Contents) -> Result<Image> {
    let platform = contents.platform;
    let is_here = platform == Platform::here()?;
    let name = if is_here { "image".to_owned() } else { format!("image-{}", platform.name) };
    let folder = emptied(checkout.target.join(name))?;
    let root = folder.join("root");
    fill(&root, &contents)?;
    let list = folder.join("sidestep.cdx.json");
    sbom::write(checkout, &contents, &list)?;
    copy(&list, &root.join(LIST))?;
    let archive = folder.join("sidestep.tar");
    let described = oci::pack(&folder, &root, &archive, platform)?;
    Ok(Image { contents, folder, root, archive, list, described })
}

fn emptied(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
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
