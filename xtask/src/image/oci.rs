//! A folder's contents as an OCI image of one layer that also `docker load` takes, and several of them as one image for
//! several kinds of machines: the same bytes for the same contents.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::PROGRAM;
use crate::{platform::Platform, sbom, steps};

/// Where the blobs are.
const BLOBS: &str = "blobs/sha256";

/// Makes the image of `root` at `archive`, and returns what describes it; what it consists of stays in `folder`.
///
/// # Errors
/// If tar does not run, or the disk is full.
pub(super) fn pack(folder: &Path, root: &Path, archive: &Path, platform: Platform) -> Result<Value> {
    let blobs = folder.join(BLOBS);
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
    let layer_bytes = fs::metadata(blobs.join(&layer_digest))?.len();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": of(&config_digest, config_bytes, "config.v1+json"),
        "layers": [of(&layer_digest, layer_bytes, "layer.v1.tar")],
    });
    let (manifest_digest, manifest_bytes) = keep_json(folder, &blobs, &manifest)?;
    let described = of(&manifest_digest, manifest_bytes, "manifest.v1+json");
    name(folder, described.clone())?;
    // What `docker load` has always taken.
    let blob = |digest: &str| format!("blobs/sha256/{digest}");
    let entry =
        json!({ "Config": blob(&config_digest), "RepoTags": [tag()], "Layers": [blob(&layer_digest)] });
    fs::write(folder.join("manifest.json"), json!([entry]).to_string())?;
    tar(folder, archive, &["oci-layout", "index.json", "manifest.json", "blobs"])?;
    Ok(described)
}

/// Makes one image of those in the folders, each for its kind of machine and as `pack` described it.
///
/// # Errors
/// As [`pack`].
pub(super) fn join(folder: &Path, archive: &Path, parts: &[(&Path, Platform, &Value)]) -> Result<()> {
    let blobs = folder.join(BLOBS);
    fs::create_dir_all(&blobs)?;
    let mut manifests = Vec::new();
    for (part, platform, described) in parts {
        for blob in fs::read_dir(part.join(BLOBS))? {
            let blob = blob?;
            fs::copy(blob.path(), blobs.join(blob.file_name()))?;
        }
        let mut described = (*described).clone();
        described["platform"] = json!({ "architecture": platform.name, "os": "linux" });
        manifests.push(described);
    }
    let kind = "index.v1+json";
    let index = json!({
        "schemaVersion": 2,
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "manifests": manifests,
    });
    let (digest, bytes) = keep_json(folder, &blobs, &index)?;
    name(folder, of(&digest, bytes, kind))?;
    tar(folder, archive, &["oci-layout", "index.json", "blobs"])
}

/// Writes what a reader of the folder begins with.
fn name(folder: &Path, mut described: Value) -> Result<()> {
    described["annotations"] = json!({
        "io.containerd.image.name": tag(),
        "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION"),
    });
    fs::write(
        folder.join("index.json"),
        json!({ "schemaVersion": 2, "manifests": [described] }).to_string(),
    )?;
    fs::write(folder.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    Ok(())
}

fn tag() -> String {
    format!("sidestep:{}", env!("CARGO_PKG_VERSION"))
}

fn of(digest: &str, bytes: u64, kind: &str) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": format!("sha256:{digest}"), "size": bytes,
    })
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::platform::PLATFORMS;

    /// A folder that is removed again.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sidestep-xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What a description leads to.
    fn blob(folder: &Path, described: &Value) -> Value {
        let digest = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let file = folder.join(BLOBS).join(digest);
        assert_eq!(sbom::digest(&file).unwrap(), digest);
        assert_eq!(fs::metadata(&file).unwrap().len(), described["size"].as_u64().unwrap());
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap_or_default()
    }

    fn index(folder: &Path) -> Value {
        serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap()
    }

    #[test]
    fn an_image_for_several_machines_leads_to_the_contents_for_each() {
        let scratch = Scratch::new("join");
        let folders = PLATFORMS.map(|platform| scratch.0.join(platform.name));
        let described: Vec<Value> = PLATFORMS
            .iter()
            .zip(&folders)
            .map(|(platform, folder)| {
                let root = folder.join("root");
                fs::create_dir_all(&root).unwrap();
                fs::write(root.join("program"), platform.name).unwrap();
                let described = pack(folder, &root, &folder.join("it.tar"), *platform).unwrap();
                assert_eq!(index(folder)["manifests"][0]["digest"], described["digest"]);
                described
            })
            .collect();

        let all = scratch.0.join("all");
        let parts: Vec<_> =
            PLATFORMS.iter().zip(&folders).zip(&described).map(|((p, f), d)| (f.as_path(), *p, d)).collect();
        join(&all, &scratch.0.join("all.tar"), &parts).unwrap();

        let manifests = blob(&all, &index(&all)["manifests"][0]);
        for (at, platform) in PLATFORMS.iter().enumerate() {
            let entry = &manifests["manifests"][at];
            assert_eq!(entry["platform"]["architecture"], platform.name);
            let manifest = blob(&all, entry);
            assert_eq!(blob(&all, &manifest["config"])["architecture"], platform.name);
            blob(&all, &manifest["layers"][0]);
        }
    }
}
