//! Compiles the kernel programs and leaves the object in `OUT_DIR/sidestep-ebpf.o`, to be embedded in the binary.
//!
//! Which compiler and linker is left to `build/toolchain.rs`.

#[path = "build/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use toolchain::{Core, TARGET, Toolchain};

/// The package that holds the kernel programs, and its binary.
const PACKAGE: &str = "cache-ebpf";
const BINARY: &str = "sidestep-ebpf";

/// `--btf`: the kernel wants types for maps, and people want them for programs.
const RUSTFLAGS: &str = "-Cdebuginfo=2 -Clink-arg=--btf";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            for line in why.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the package has no parent folder")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);
    for name in ["BPF_RUSTC", "BPF_LINKER", "RUSTUP_HOME", "CARGO_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["cache-ebpf", "cache-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }

    let toolchain = toolchain::find().map_err(|missing| missing.to_string())?;
    println!("cargo::rerun-if-changed={}", toolchain.rustc.display());
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());

    // A target folder of its own: the outer cargo holds the lock of the other one.
    let target_dir = out.join("ebpf");
    let mut cargo = cargo(&toolchain);
    cargo.current_dir(root).arg("--target-dir").arg(&target_dir);
    let output = cargo.output().map_err(|e| format!("{:?} did not start: {e}", cargo.get_program()))?;
    if !output.status.success() {
        return Err(format!(
            "{}\nthe kernel programs did not compile with {toolchain}\n(\"invalid bitcode\" means that bpf-linker's LLVM is older than that rustc's)",
            String::from_utf8_lossy(&output.stderr).trim_end()
        ));
    }
    let object = target_dir.join(TARGET).join("release").join(BINARY);
    fs::copy(&object, out.join("sidestep-ebpf.o")).map_err(|e| format!("{}: {e}", object.display()))?;
    Ok(())
}

/// The inner cargo with its arguments, in an environment that holds nothing of the outer one's build.
fn cargo(toolchain: &Toolchain) -> Command {
    // `-Z build-std` needs the cargo that belongs to the sources.
    let own = toolchain.sysroot.join("bin/cargo");
    let program = match env::var_os("CARGO") {
        _ if toolchain.core == Core::Source && own.exists() => own,
        Some(outer) => outer.into(),
        None => "cargo".into(),
    };
    let mut cargo = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_build) {
            cargo.env_remove(name);
        }
    }
    cargo.env("RUSTC", &toolchain.rustc);
    // Present but empty: these also silence a wrapper that a cargo configuration names.
    cargo.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    // Inline assembly for BPF, and `-Z build-std`, are unstable.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("RUSTFLAGS", RUSTFLAGS);
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker);
    cargo.args(["build", "--locked", "--release", "--package", PACKAGE, "--bin", BINARY, "--target", TARGET]);
    if toolchain.core == Core::Source {
        cargo.args(["-Z", "build-std=core"]);
    }
    if let Ok(jobs) = env::var("NUM_JOBS") {
        cargo.args(["--jobs", &jobs]);
    }
    cargo
}

/// Whether cargo, or someone who steers it, set this variable for the outer build.
///
/// Where packages come from (home, network, registries) and how cargo prints stays.
fn belongs_to_outer_build(name: &str) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const SET: [&str; 9] =
        ["TARGET", "HOST", "PROFILE", "OPT_LEVEL", "DEBUG", "OUT_DIR", "NUM_JOBS", "MAKEFLAGS", "MFLAGS"];
    if KEPT.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    SET.contains(&name)
        || ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "DEP_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}
