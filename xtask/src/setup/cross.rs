//! What builds the program for another kind of machine, tries it here, and is what it is loaded with there: packages of
//! Debian, of which the other machine's are only unpacked, below this checkout's tools.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{install_programs, timed};
use crate::{machine, platform::Platform, steps::run_silently};

/// The packages with the libraries that the program is loaded with.
const LIBRARIES: [&str; 2] = ["libc6", "libgcc-s1"];

/// Rust's own library, and the compiler that it is of.
const RUST_LIBRARY: &str = "libstd-rust-web-dev";
const RUST: &str = "rustc-web";
const RUSTC: &str = "/usr/bin/rustc";

/// Unpacks the packages `$3 …` for the architecture `$2` in the folder `$1`, each with its version beside it. With lists of
/// packages of its own: the machine need not know of that architecture.
const FETCH: &str = r#"
set -eu
folder=$1 architecture=$2
shift 2
rm -rf "$folder"
mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
cd "$folder"
apt() {
    apt-get -qq -o APT::Architectures::="$architecture" -o APT::Architectures::="$(dpkg --print-architecture)" \
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" -o APT::Sandbox::User=root "$@"
}
apt update
for package; do
    name=${package%%:*}
    apt download "$package"
    dpkg-deb --field "$name"_*.deb Version > "$name.version"
    dpkg-deb --extract "$name"_*.deb "$name"
    rm "$name"_*.deb
done
rm -rf lists cache
"#;

/// What builds for another kind of machine.
#[derive(Debug)]
pub(crate) struct Cross {
    /// The machine.
    pub(crate) platform: Platform,
    /// The compiler, and where its library for that machine is if it is not its own.
    pub(crate) rustc: PathBuf,
    /// See `rustc`.
    pub(crate) sysroot: Option<PathBuf>,
    /// What links, and compiles C.
    pub(crate) gcc: String,
    /// The folder of the packages with libraries.
    packages: PathBuf,
    /// What runs that machine's programs here.
    pub(crate) qemu: PathBuf,
}

impl Cross {
    /// The packages with libraries: name, version and folder of each.
    ///
    /// # Errors
    /// If one is not there.
    pub(crate) fn packages(&self) -> Result<Vec<(&'static str, String, PathBuf)>> {
        let package = |name| {
            let version = self.packages.join(format!("{name}.version"));
            let version = fs::read_to_string(&version).with_context(|| version.display().to_string())?;
            Ok((name, version.trim().to_owned(), self.packages.join(name)))
        };
        LIBRARIES.into_iter().map(package).collect()
    }
}

/// Installs what builds for another kind of machine. Quick when nothing is missing; what is there stays, however old, as
/// long as it is of the compiler's version: delete the folder for newer ones.
///
/// # Errors
/// If this machine's packages do not hold it.
pub(crate) fn install(tools: &Path, platform: Platform) -> Result<Cross> {
    ensure!(machine::is_debian(), "images for {} are built with packages of Debian", platform.name);
    let Platform { name, gnu, .. } = platform;
    let gcc = format!("{gnu}-gcc");
    let qemu = format!("qemu-{}-static", platform.processor());
    let gcc_package = format!("gcc-{}", gnu.replace('_', "-"));
    let (libc_package, libc) = (format!("libc6-dev-{name}-cross"), format!("/usr/{gnu}/lib/crt1.o"));
    let packages =
        [(gcc_package.as_str(), gcc.as_str()), (&libc_package, &libc), ("qemu-user-static", &qemu)];
    install_programs(&packages, false)?;
    let own = compiler_with(platform);
    let mut wanted = LIBRARIES.map(|package| format!("{package}:{name}")).to_vec();
    if own.is_none() {
        wanted.push(format!("{RUST_LIBRARY}:{name}={}", version_of_rust()?));
    }
    let folder = tools.join("cross").join(name);
    fetch(&folder, name, &wanted)?;
    let qemu = machine::program_path(&qemu).with_context(|| format!("no {qemu}"))?;
    let sysroot = own.is_none().then(|| folder.join(RUST_LIBRARY).join("usr"));
    let rustc = own.unwrap_or_else(|| RUSTC.into());
    Ok(Cross { platform, rustc, sysroot, gcc, packages: folder, qemu })
}

fn fetch(folder: &Path, architecture: &str, packages: &[String]) -> Result<()> {
    let recipe = folder.join("recipe");
    let words = packages.join(" ");
    let said = format!("{words}\n{FETCH}");
    if fs::read_to_string(&recipe).is_ok_and(|found| found == said) {
        return Ok(());
    }
    timed(&format!("apt-get download {words}, unpacked into {}", folder.display()), "20 s", || {
        fs::create_dir_all(folder)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", FETCH, "sh"]).arg(fs::canonicalize(folder)?).arg(architecture).args(packages);
        run_silently(&mut shell)?;
        fs::write(&recipe, said).with_context(|| recipe.display().to_string())
    })
}

/// The compiler of this build, if it has the library for that machine (`rustup target add`).
fn compiler_with(platform: Platform) -> Option<PathBuf> {
    let rustc = env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from);
    let output = Command::new(&rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let files = fs::read_dir(sysroot.join("lib/rustlib").join(platform.triple).join("lib")).ok()?;
    let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
    let has_std = files.flatten().any(|file| file.file_name().to_str().is_some_and(is_std));
    has_std.then_some(rustc)
}

/// The version of Debian's compiler, which `setup` installs for the kernel programs unless there is another for them.
fn version_of_rust() -> Result<String> {
    install_programs(&[(RUST, RUSTC)], false)?;
    let show = ["--show", "--showformat=${Version}", RUST];
    let output = Command::new("dpkg-query").args(show).output().context("dpkg-query did not start")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if version.is_empty() {
        bail!("{RUSTC} is not {RUST}'s: `rustup target add` may give your compiler what it lacks");
    }
    Ok(version)
}
