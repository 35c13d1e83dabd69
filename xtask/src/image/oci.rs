//! A folder's contents as an OCI image of one layer that also `docker load` takes: the same bytes for the same contents.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::PROGRAM;
use crate::{platform::Platform, sbom, steps};

/// Makes the image of `root` at `archive`; what it consists of stays in `folder`.
///
/// # Errors
/// If tar does not run, or the disk is full.
pub(super) fn pack(folder: &Path, root: &Path, archive: &Path, platform: Platform) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = folder.join("layer.tar");
    tar(root, &layer, &["."])?;
    let layer_digest = keep(&blobs, &layer)?;
    let config = json!({
        "architecture": platform.name,
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
    let digest = sbom::digest(file)?;
    fs::rename(file, blobs.join(&digest)).context("a blob")?;
    Ok(digest)
}

fn keep_json(folder: &Path, blobs: &Path, value: &Value) -> Result<(String, u64)> {
    let (file, text) = (folder.join("part.json"), value.to_string());
    fs::write(&file, &text)?;
    Ok((keep(blobs, &file)?, text.len() as u64))
}
