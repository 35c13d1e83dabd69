//! Finds a way to compile for the kernel: a rustc that has `core` for BPF, and bpf-linker.
//!
//! The one place that knows: the build script takes what `find` returns, `cargo xtask setup` installs what it
//! misses. Running the compiler is left to the build script, installing to `setup`.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The target that the kernel programs are compiled for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The packages of Debian that hold a stable rustc, `core` for BPF, and what bpf-linker is built with.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];

/// Where Debian's llvm-22-dev puts `llvm-config`.
pub(crate) const DEBIAN_LLVM_BIN: &str = "/usr/lib/llvm-22/bin";

/// The arguments of `cargo` that build bpf-linker against the system's LLVM 22.
pub(crate) const INSTALL_LINKER: [&str; 8] = [
    "install",
    "bpf-linker",
    "--version",
    "0.13.0",
    "--locked",
    "--no-default-features",
    "--features",
    "llvm-22",
];

/// The command that gives rustup a compiler with the library's sources.
pub(crate) const RUSTUP_COMMAND: &str =
    "rustup toolchain install nightly --profile minimal --component rust-src";

/// A compiler and a linker that fit the kernel programs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler itself, never a proxy of rustup.
    pub(crate) rustc: PathBuf,
    /// Where the compiler keeps its libraries.
    pub(crate) sysroot: PathBuf,
    /// How that compiler comes by `core` for BPF.
    pub(crate) core: Core,
    /// bpf-linker.
    pub(crate) linker: PathBuf,
}

/// Where `core` for BPF comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// Compiled already, in the sysroot.
    Precompiled,
    /// The sysroot holds its sources: cargo compiles it (`-Z build-std`).
    Source,
}

/// What stands in the way, and how to get it.
#[derive(Debug)]
pub(crate) struct Missing {
    /// Why each compiler that was found does not fit; `None` if one of them does.
    pub(crate) compiler: Option<Vec<String>>,
    /// Whether bpf-linker is missing.
    pub(crate) linker: bool,
}

/// Finds the compiler and the linker.
///
/// `BPF_RUSTC` and `BPF_LINKER` decide where they are set. Otherwise the first compiler of `RUSTC`, rustup's
/// toolchains, PATH and /usr/bin wins that has `core` compiled, or else the first that has its sources.
///
/// # Errors
/// What is missing.
pub(crate) fn find() -> Result<Toolchain, Missing> {
    match (find_compiler(), find_linker()) {
        (Ok((rustc, sysroot, core)), Some(linker)) => Ok(Toolchain { rustc, sysroot, core, linker }),
        (compiler, linker) => Err(Missing { compiler: compiler.err(), linker: linker.is_none() }),
    }
}

fn find_compiler() -> Result<(PathBuf, PathBuf, Core), Vec<String>> {
    let mut with_source = None;
    let mut refusals = Vec::new();
    for candidate in compilers() {
        match inspect(&candidate) {
            Ok(found @ (_, _, Core::Precompiled)) => return Ok(found),
            Ok(found) => with_source = with_source.or(Some(found)),
            Err(why) => refusals.push(format!("{}: {why}", candidate.display())),
        }
    }
    with_source.ok_or(refusals)
}

/// The compilers to look at, the likeliest first.
fn compilers() -> Vec<PathBuf> {
    if let Some(chosen) = env::var_os("BPF_RUSTC").filter(|path| !path.is_empty()) {
        return vec![chosen.into()];
    }
    let mut found: Vec<PathBuf> = env::var_os("RUSTC").map(PathBuf::from).into_iter().collect();
    found.extend(rustup_compilers());
    found.extend(in_path("rustc"));
    found.push("/usr/bin/rustc".into());
    found.retain(|path| path.components().count() == 1 || path.exists());
    let mut seen = Vec::new();
    found.retain(|path| {
        let new = !seen.contains(path);
        seen.push(path.clone());
        new
    });
    found
}

/// rustup's compilers, nightly ones first: read off the disk, because asking rustup may make it download.
fn rustup_compilers() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".rustup")));
    let toolchains = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut names: Vec<PathBuf> =
        toolchains.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    names.sort_by_key(|path| (!path.to_string_lossy().contains("nightly"), path.clone()));
    names.into_iter().map(|path| path.join("bin/rustc")).collect()
}

/// Whether this compiler fits, or else why not.
fn inspect(rustc: &Path) -> Result<(PathBuf, PathBuf, Core), String> {
    let version = ask(rustc, &["--version"])?;
    let needed = env!("CARGO_PKG_RUST_VERSION");
    if minor(&version).is_some_and(|minor| Some(minor) < self::minor(needed)) {
        return Err(format!("is older than {needed}"));
    }
    let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?);
    let core = core_of(&sysroot).ok_or_else(|| format!("has neither `core` for {TARGET} nor rust-src"))?;
    // RUSTC may be a proxy of rustup, whose answer depends on directory and environment.
    let own = sysroot.join("bin/rustc");
    Ok((if own.exists() { own } else { rustc.to_path_buf() }, sysroot, core))
}

fn core_of(sysroot: &Path) -> Option<Core> {
    let rustlib = sysroot.join("lib/rustlib");
    let is_core = |name: &str| name.starts_with("libcore-") && name.ends_with(".rlib");
    let compiled = fs::read_dir(rustlib.join(TARGET).join("lib"))
        .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_str().is_some_and(is_core)));
    if compiled {
        return Some(Core::Precompiled);
    }
    rustlib.join("src/rust/library/core/src/lib.rs").exists().then_some(Core::Source)
}

/// The second number of the first version in `text`: 96 in `rustc 1.96.0 (…)`.
fn minor(text: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| word.strip_prefix("1."))?.split('.').next()?.parse().ok()
}

fn ask(program: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("`{}` failed", args.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn find_linker() -> Option<PathBuf> {
    if let Some(chosen) = env::var_os("BPF_LINKER").filter(|path| !path.is_empty()) {
        return Some(PathBuf::from(chosen)).filter(|path| path.exists());
    }
    let cargo_homes = [env::var_os("CARGO_HOME").map(PathBuf::from), home().map(|home| home.join(".cargo"))];
    let of_cargo = cargo_homes.into_iter().flatten().map(|home| home.join("bin/bpf-linker"));
    in_path("bpf-linker").into_iter().chain(of_cargo).find(|path| path.exists())
}

fn in_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).filter(|file| file.exists()).collect()
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = match self.core {
            Core::Precompiled => "`core` precompiled",
            Core::Source => "`core` from rust-src",
        };
        let (rustc, linker) = (self.rustc.display(), self.linker.display());
        write!(f, "{rustc} ({core} in {}), {linker}", self.sysroot.display())
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the kernel programs cannot be compiled here:")?;
        for refusal in self.compiler.iter().flatten() {
            writeln!(f, "  {refusal}")?;
        }
        if self.compiler.is_some() {
            writeln!(f, "  no rustc has what it takes to compile for {TARGET}")?;
        }
        if self.linker {
            writeln!(f, "  bpf-linker is neither in PATH nor in cargo's bin folder")?;
        }
        writeln!(f, "`cargo xtask setup` installs what is missing on Debian. By hand:")?;
        writeln!(f, "  Debian:    apt-get install --no-install-recommends {}", DEBIAN_PACKAGES.join(" "))?;
        writeln!(f, "             PATH={DEBIAN_LLVM_BIN}:$PATH cargo {}", INSTALL_LINKER.join(" "))?;
        writeln!(f, "  elsewhere: {RUSTUP_COMMAND}")?;
        writeln!(f, "             cargo binstall bpf-linker")?;
        write!(f, "             (or `cargo install` it with the LLVM that `rustc -vV` names, or a newer one)")
    }
}
