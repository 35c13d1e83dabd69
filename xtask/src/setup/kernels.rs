//! Debian's older kernels, unpacked for this checkout only and never installed, and what boots them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{install_programs, timed};
use crate::{machine, steps::run_silently};

/// The series that are booted, the oldest first.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// The emulator, and what a root filesystem is made with.
const PACKAGES: [(&str, &str); 3] =
    [("qemu-system-x86", "qemu-system-x86_64"), ("busybox-static", "busybox"), ("cpio", "cpio")];

/// Debian's cloud kernels by their names: small, with all that redirection needs built in.
const NAMES: &str = "^linux-image-[0-9].*cloud-amd64$";

/// Unpacks the package `$2` in the folder `$1`; what is there under its name is whole.
const FETCH: &str = r#"
set -eu
cd "$1"
rm -rf "$2.partial" "$2"_*.deb
apt-get download -qq "$2"
dpkg-deb --extract "$2"_*.deb "$2.partial"
rm "$2"_*.deb
mv "$2.partial" "$2"
"#;

/// A kernel that can be booted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The file to boot.
    pub(crate) image: PathBuf,
}

/// Puts a kernel of each series into `folder`, unless one is there, and installs what boots them.
///
/// A kernel that is there stays, however old: delete the folder for a newer one.
///
/// # Errors
/// If this machine's packages do not hold them, or its processor cannot run the tests in them.
pub(super) fn install(folder: &Path, series: &[&str]) -> Result<Vec<Kernel>> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the kernels are for x86-64, and the tests in them are this machine's own");
    }
    install_programs(&PACKAGES, false)?;
    fs::create_dir_all(folder)?;
    let missing: Vec<&str> =
        series.iter().copied().filter(|series| unpacked(folder, series).is_none()).collect();
    if !missing.is_empty() {
        fetch(folder, &missing)?;
    }
    let unpacked =
        |series: &&str| unpacked(folder, series).with_context(|| format!("Linux {series} is not there"));
    let kernels = series.iter().map(unpacked).collect::<Result<Vec<_>>>()?;
    for kernel in &kernels {
        eprintln!("Linux {}: {}", kernel.release, kernel.image.display());
    }
    Ok(kernels)
}

fn fetch(folder: &Path, series: &[&str]) -> Result<()> {
    if !machine::is_debian() {
        bail!("Debian's kernels {} come with apt", series.join(" and "));
    }
    if machine::is_root() {
        run_silently(Command::new("apt-get").args(["update", "-qq"]))?;
    }
    let found = Command::new("apt-cache").args(["search", "--names-only", NAMES]).output()?;
    let found = String::from_utf8_lossy(&found.stdout);
    let names: Vec<&str> = found.lines().filter_map(|line| line.split(' ').next()).collect();
    for series in series {
        let package = newest(&names, series)
            .with_context(|| format!("this machine's apt knows no linux-image-{series}.*-cloud-amd64"))?;
        timed(&format!("apt-get download {package}, unpacked into {}", folder.display()), "5 s", || {
            run_silently(Command::new("sh").args(["-c", FETCH, "sh"]).arg(folder).arg(package))
        })?;
    }
    Ok(())
}

/// The newest package of a series: `6.1` is not `6.12`, and `6.12-cloud` only names another package.
fn newest<'a>(names: &[&'a str], series: &str) -> Option<&'a str> {
    let prefix = format!("linux-image-{series}.");
    let of_series = names.iter().copied().filter(|name| name.starts_with(&prefix));
    of_series.max_by_key(|name| numbers(name))
}

/// The numbers in a name, in order: what makes 6.1.0-9 older than 6.1.0-56.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn unpacked(folder: &Path, series: &str) -> Option<Kernel> {
    let names: Vec<String> =
        fs::read_dir(folder).ok()?.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    let whole: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| name.ends_with("-cloud-amd64")).collect();
    let boot = folder.join(newest(&whole, series)?).join("boot");
    let mut files = fs::read_dir(boot).ok()?.flatten().map(|entry| entry.path());
    files.find_map(|image| {
        let release = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        Some(Kernel { release, image })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: [&str; 5] = [
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.99+deb12-cloud-amd64",
    ];

    #[test]
    fn the_newest_kernel_of_a_series_is_taken_by_its_numbers() {
        assert_eq!(newest(&FOUND, "6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&FOUND, "6.12"), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(&FOUND, "6.6"), None);
    }
}
