//! `cargo xtask image`: a container image for the architecture of this machine, of the program, the libraries it needs and
//! nothing else: no shell, no package manager. No builder is needed; it is an OCI image that also `docker load` takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::checkout::Checkout;
use crate::{machine, setup, steps};

/// Where the program is in the image.
const PROGRAM: &str = "usr/local/bin/sidestep";

/// Builds the program and the image.
///
/// # Errors
/// If the program cannot be built, a library it needs is not found, or the disk is full.
pub(crate) fn run() -> Result<()> {
    let checkout = Checkout::find()?;
    setup::run(false)?;
    steps::run(checkout.cargo().args(["build", "--release"]))?;
    let Image { root, archive } = build(&checkout)?;
    println!("\nimage: {}, {} KiB", archive.display(), fs::metadata(&archive)?.len() / 1024);
    println!("its contents: {}", root.display());
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
    let Image { root, archive } = build(checkout)?;
    ensure!(fs::read(&archive)? == bytes, "the same contents make another image");
    let shells = ["bin/sh", "bin/bash", "usr/bin/sh", "bin/busybox"];
    ensure!(!shells.iter().any(|shell| root.join(shell).exists()), "a shell is in it");
    let size = format!("{} MiB", bytes.len() / (1 << 20));
    if !machine::is_root() {
        return Ok(format!("{size}; not tried: chroot needs root"));
    }
    let output = Command::new("chroot").arg(&root).args([&format!("/{PROGRAM}"), "--version"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = concat!("sidestep ", env!("CARGO_PKG_VERSION"));
    ensure!(said.trim() == expected, "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(size)
}

/// What was built, and from what.
struct Image {
    root: PathBuf,
    archive: PathBuf,
}

fn build(checkout: &Checkout) -> Result<Image> {
    let folder = checkout.target.join("image");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let root = folder.join("root");
    fill(&root, &checkout.sidestep())?;
    let archive = folder.join("sidestep.tar");
    pack(&folder, &root, &archive)?;
    Ok(Image { root, archive })
}

/// Puts the program and the libraries that it is loaded with below a folder.
fn fill(root: &Path, program: &Path) -> Result<()> {
    copy(program, &root.join(PROGRAM))?;
    let output = Command::new("ldd").arg(program).output().context("ldd did not start")?;
    ensure!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    let libraries = libraries(&String::from_utf8_lossy(&output.stdout))?;
    for library in &libraries {
        copy(library, &root.join(library.strip_prefix("/").unwrap_or(library)))?;
    }
    // Where a pod's volumes are mounted although nothing may be written.
    for folder in ["etc/sidestep", "host/cgroup", "run/sidestep", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

/// The files that `ldd` names; those that the kernel brings have none.
fn libraries(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        ensure!(!line.contains("not found"), "{line}");
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        let path = place.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no folder")?)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display())).map(drop)
}

/// Makes the image of one layer: the same bytes for the same contents.
fn pack(folder: &Path, root: &Path, archive: &Path) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = folder.join("layer.tar");
    tar(root, &layer, &["."])?;
    let layer_digest = keep(&blobs, &layer)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": [format!("/{PROGRAM}")], "User": "0:0", "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    });
    let (config_digest, config_bytes) = keep_json(folder, &blobs, &config)?;
    let of = |digest: &str, bytes: u64, kind: &str| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"), "size": bytes,
        })
    };
    let layer_bytes = fs::metadata(blobs.join(&layer_digest))?.len();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": of(&config_digest, config_bytes, "config.v1+json"),
        "layers": [of(&layer_digest, layer_bytes, "layer.v1.tar")],
    });
    let (manifest_digest, manifest_bytes) = keep_json(folder, &blobs, &manifest)?;
    let name = format!("sidestep:{}", env!("CARGO_PKG_VERSION"));
    let mut entry = of(&manifest_digest, manifest_bytes, "manifest.v1+json");
    entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION") });
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())?;
    fs::write(folder.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    // What `docker load` has always taken.
    let blob = |digest: &str| format!("blobs/sha256/{digest}");
    let entry =
        json!({ "Config": blob(&config_digest), "RepoTags": [name], "Layers": [blob(&layer_digest)] });
    fs::write(folder.join("manifest.json"), json!([entry]).to_string())?;
    tar(folder, archive, &["oci-layout", "index.json", "manifest.json", "blobs"])
}

fn tar(folder: &Path, archive: &Path, names: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=posix"]);
    tar.args(["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "-cf"]);
    steps::run_silently(tar.arg(archive).arg("-C").arg(folder).args(names))
}

/// Moves a file to where its digest names it, and returns that.
fn keep(blobs: &Path, file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg("--").arg(file).output().context("sha256sum did not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split_whitespace().next().filter(|digest| digest.len() == 64).context("no digest")?;
    fs::rename(file, blobs.join(digest))?;
    Ok(digest.to_owned())
}

fn keep_json(folder: &Path, blobs: &Path, value: &Value) -> Result<(String, u64)> {
    let (file, text) = (folder.join("part.json"), value.to_string());
    fs::write(&file, &text)?;
    Ok((keep(blobs, &file)?, text.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected =
            ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(said).unwrap(), expected);
        assert_eq!(libraries("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
        assert!(libraries("\tlibx.so => not found\n").is_err());
    }
}
