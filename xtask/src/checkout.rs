//! Where this checkout is, where cargo builds it, and cargo itself.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result};

/// The folders of this checkout.
#[derive(Debug)]
pub(crate) struct Checkout {
    /// The folder of the workspace.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
}

impl Checkout {
    /// Asks cargo.
    ///
    /// # Errors
    /// If cargo does not run or does not understand the workspace.
    pub(crate) fn find() -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .context("cargo did not start")?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
        let folder = |name: &str| {
            metadata.get(name).and_then(|path| path.as_str()).map(PathBuf::from).context("cargo metadata")
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// The program that `cargo build --release` makes.
    pub(crate) fn sidestep(&self) -> PathBuf {
        self.target.join("release/sidestep")
    }

    /// The program that [`Self::build_with_faults`] makes.
    pub(crate) fn sidestep_with_faults(&self) -> PathBuf {
        self.faults().join("release/sidestep")
    }

    /// Builds the program that can be told to leave conditions of kernel hits out: where none, the tests could not
    /// fail. In a folder of its own, so that nobody takes it for the product.
    pub(crate) fn build_with_faults(&self) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["build", "--release", "--package=cache-userspace", "--features=faults", "--target-dir"]);
        cargo.arg(self.faults());
        cargo
    }

    fn faults(&self) -> PathBuf {
        self.target.join("faults")
    }

    /// The folder of what `setup --tests` installs for this checkout only.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The folder of the kernels that `kernels` boots, and of what it makes for them.
    pub(crate) fn kernels(&self) -> PathBuf {
        self.target.join("kernels")
    }

    /// The lists and the client of `conformance`.
    pub(crate) fn conformance(&self) -> PathBuf {
        self.root.join("tests/fixtures/conformance")
    }

    /// cargo, in the folder of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = cargo();
        cargo.current_dir(&self.root);
        cargo
    }
}

/// The cargo that runs us, or the one in PATH, without what `cargo run` set for this program.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        // Build scripts that watch these would run again on every change between `cargo` and `cargo xtask`.
        let set = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(set) {
            cargo.env_remove(name);
        }
    }
    cargo
}
