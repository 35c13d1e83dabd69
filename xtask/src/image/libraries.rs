//! The libraries that the program is loaded with, and the packages that they come from: of this machine, as `ldd` and
//! dpkg know them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A file that the program needs beside itself.
#[derive(Debug)]
pub(crate) struct Library {
    /// Where it is here.
    pub(crate) file: PathBuf,
    /// Where the program looks for it.
    pub(crate) place: PathBuf,
    /// What installed it, where that is known.
    pub(crate) package: Option<Package>,
}

/// A package of Debian or one of its kin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// Its name, without the architecture.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Whose package it is, as os-release has it: `debian`.
    pub(crate) vendor: String,
    /// The release of that system, such as `12`.
    pub(crate) release: String,
}

/// Those of a program of this machine.
///
/// # Errors
/// If one is not found, or `ldd` does not run.
pub(super) fn of_this_machine(program: &Path) -> Result<Vec<Library>> {
    let output = Command::new("ldd").arg(program).output().context("ldd did not start")?;
    ensure!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    let found = named_by_ldd(&String::from_utf8_lossy(&output.stdout))?;
    Ok(found.into_iter().map(|file| Library { place: file.clone(), package: owner(&file), file }).collect())
}

/// The files that `ldd` names; those that the kernel brings have none.
fn named_by_ldd(text: &str) -> Result<Vec<PathBuf>> {
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

/// The package that installed a file; none where there is no dpkg, or none knows it.
fn owner(file: &Path) -> Option<Package> {
    // dpkg knows one name of a file, which may be another since /lib became a part of /usr.
    let names = [file.to_path_buf(), fs::canonicalize(file).ok()?];
    let package = names.iter().find_map(|name| {
        let said = asked(Command::new("dpkg-query").arg("--search").arg(name))?;
        said.split(": ").next().map(str::to_owned)
    })?;
    let format = "--showformat=${Package}\t${Version}";
    let said = asked(Command::new("dpkg-query").args(["--show", format]).arg(&package))?;
    let (name, version) = said.split_once('\t')?;
    let system = fs::read_to_string("/etc/os-release").ok()?;
    Package::new(name, version, &system)
}

impl Package {
    /// A package of the system that an os-release describes.
    pub(crate) fn new(name: &str, version: &str, os_release: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches('"').to_owned())
        };
        let release = field("VERSION_ID").unwrap_or_default();
        Some(Self { name: name.into(), version: version.into(), vendor: field("ID")?, release })
    }
}

fn asked(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
        assert_eq!(named_by_ldd(said).unwrap(), expected);
        assert_eq!(named_by_ldd("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
        assert!(named_by_ldd("\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn a_package_is_of_the_system_that_its_release_file_names() {
        let package =
            Package::new("libc6", "2.36-9", "NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n").unwrap();
        assert_eq!((package.vendor.as_str(), package.release.as_str()), ("debian", "12"));
        assert_eq!(Package::new("libc6", "2.36-9", "NAME=x\n"), None);
    }
}
