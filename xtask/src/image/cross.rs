//! The program for another kind of machine, built here, and the libraries that it is loaded with there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Contents, Library, Package};
use crate::{checkout::Checkout, setup::Cross, steps, toolchain};

/// Folders of libraries in a package, and in what it is installed in.
const FOLDERS: [&str; 4] = ["lib", "usr/lib", "lib64", "usr/lib64"];

/// Builds the program and finds its libraries.
///
/// # Errors
/// If it cannot be built, or a library that it needs is in none of the packages.
pub(super) fn build(checkout: &Checkout, cross: &Cross) -> Result<Contents> {
    // Of the workspace only the program: what the tests are made of would be built for that machine too.
    let selection = vec!["--package", "cache-userspace"];
    let target_dir = checkout.target.join("cross");
    let triple = cross.platform.triple;
    let mut cargo = checkout.cargo();
    cargo.args(["build", "--release", "--target", triple, "--target-dir"]).arg(&target_dir).args(&selection);
    cargo.env("RUSTC", &cross.rustc);
    // The compiler of the kernel programs stays what it is otherwise.
    let toolchain = toolchain::find().map_err(|missing| anyhow!("{missing}"))?;
    cargo.env("BPF_RUSTC", toolchain.rustc);
    let name = |what: &str| format!("CARGO_TARGET_{}_{what}", triple.replace('-', "_").to_uppercase());
    cargo.env(name("LINKER"), &cross.gcc);
    // What is set for all targets would win over what is set for one.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(sysroot) = &cross.sysroot {
        cargo.env(name("RUSTFLAGS"), format!("--sysroot={}", sysroot.display()));
    }
    steps::run(&mut cargo)?;
    let program = target_dir.join(triple).join("release/sidestep");
    let libraries = libraries(&program, cross)?;
    Ok(Contents { platform: cross.platform, program, libraries, selection })
}

/// The loader that a program names, and all that it and its libraries need.
fn libraries(program: &Path, cross: &Cross) -> Result<Vec<Library>> {
    let loader = loader(&readelf("--program-headers", program)?).context("the program names no loader")?;
    let loader_name = loader.file_name().context("the loader has no name")?.to_string_lossy().into_owned();
    let mut found = vec![find(&loader_name, loader.clone(), cross)?];
    let mut seen = BTreeSet::from([loader_name]);
    let mut left = vec![program.to_path_buf()];
    while let Some(file) = left.pop() {
        for name in needed(&readelf("--dynamic", &file)?) {
            if seen.insert(name.clone()) {
                let place = Path::new("/lib").join(cross.platform.gnu).join(&name);
                let library = find(&name, place, cross)?;
                left.push(library.file.clone());
                found.push(library);
            }
        }
    }
    found.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(found)
}

/// Finds a library in the packages.
fn find(name: &str, place: PathBuf, cross: &Cross) -> Result<Library> {
    // The packages are those of the system that this machine has, too.
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    for (package, version, root) in cross.packages()? {
        let folders =
            FOLDERS.into_iter().flat_map(|lib| [root.join(lib).join(cross.platform.gnu), root.join(lib)]);
        if let Some(file) = folders.map(|folder| folder.join(name)).find(|file| file.is_file()) {
            return Ok(Library { file, place, package: Package::new(package, &version, &system) });
        }
    }
    bail!("{name} is in no package for {}", cross.platform.name)
}

fn readelf(what: &str, file: &Path) -> Result<String> {
    let output = Command::new("readelf").env("LC_ALL", "C").args(["--wide", what]).arg(file).output();
    let output = output.context("readelf did not start")?;
    ensure!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn loader(headers: &str) -> Option<PathBuf> {
    let rest = headers.split("program interpreter: ").nth(1)?;
    rest.split(']').next().map(PathBuf::from)
}

fn needed(dynamic: &str) -> Vec<String> {
    let lines = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_what_is_needed_are_found_in_what_readelf_says() {
        let said =
            "  INTERP  0x000238 R 0x1\n      [Requesting program interpreter: /lib/ld-linux-aarch64.so.1]\n";
        assert_eq!(loader(said), Some("/lib/ld-linux-aarch64.so.1".into()));
        assert_eq!(loader("There are no program headers in this file.\n"), None);
        let said = " 0x0000000000000001 (NEEDED)  Shared library: [libgcc_s.so.1]\n \
                    0x000000000000000e (SONAME)  Library soname: [libx.so]\n";
        assert_eq!(needed(said), ["libgcc_s.so.1"]);
    }
}
