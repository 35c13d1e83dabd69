//! The root filesystem of a booted kernel: busybox, the binaries that this checkout built, and what they link to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Run;
use crate::{checkout::Checkout, machine, steps::run_silently};

/// What the first process does before the tests.
const INIT: &str = include_str!("init.sh");

/// How long one test binary may take in a kernel, in seconds.
const BINARY_SECONDS_MAX: u64 = 300;

/// Makes an archive of everything below `$1`, in the form that the kernel unpacks.
const PACK: &str =
    r#"cd "$1" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet > "$2""#;

/// Builds the test binaries and packs the filesystem; returns its file. `sidestep` itself must be built already,
/// with and without faults.
///
/// # Errors
/// If a binary does not compile or is not among the tests, or a program of the host's fails.
pub(super) fn build(checkout: &Checkout, runs: &[Run]) -> Result<PathBuf> {
    let binaries = binaries(checkout)?;
    let folder = checkout.kernels();
    let (root, image) = (folder.join("root"), folder.join("initramfs.cpio"));
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for mounted in ["bin", "t", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(root.join(mounted))?;
    }

    let busybox = machine::program_path("busybox").context("busybox is not installed")?;
    let mut files = vec![
        (busybox, "bin/busybox".to_owned()),
        (checkout.sidestep(), "t/sidestep".to_owned()),
        (checkout.sidestep_with_faults(), "t/sidestep-faults".to_owned()),
    ];
    for name in runs.iter().map(|run| run.binary).chain(["probe"]) {
        let file = binaries.get(name).with_context(|| format!("no test binary {name}"))?;
        files.push((file.clone(), format!("t/{name}")));
    }
    let mut linked = BTreeSet::new();
    for (binary, _) in &files {
        linked.extend(linked_to(binary)?);
    }
    // Each at its own path, where the binaries look for it.
    let inside = |file: &PathBuf| file.to_string_lossy().trim_start_matches('/').to_owned();
    files.extend(linked.into_iter().map(|file| (file.clone(), inside(&file))));
    for (from, inside) in files {
        let to = root.join(inside);
        to.parent().map(fs::create_dir_all).transpose()?;
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }

    let init = root.join("init");
    fs::write(&init, script(runs))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    run_silently(Command::new("sh").args(["-c", PACK, "sh"]).arg(&root).arg(&image))?;
    Ok(image)
}

/// What the first process does, whole.
fn script(runs: &[Run]) -> String {
    let mut script = INIT.to_owned();
    for run in runs {
        let tests = run.tests.join(" ");
        script.push_str(&format!("run {BINARY_SECONDS_MAX} {} {tests}\n", run.binary));
    }
    script.push_str("echo \"@ tainted $(cat /proc/sys/kernel/tainted)\"\necho \"@ done\"\npoweroff -f\n");
    script
}

/// The binaries of the package `tests` by their names, freshly built.
fn binaries(checkout: &Checkout) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = checkout.cargo();
    cargo.args([
        "test",
        "--release",
        "--package=tests",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let output = cargo.stderr(Stdio::inherit()).output().context("cargo did not start")?;
    if !output.status.success() {
        bail!("the tests were not built: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(binary).collect())
}

/// The name and file of a test or program, from one message of cargo.
fn binary(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let (target, file) = (message.get("target")?, message.get("executable")?.as_str()?);
    let kind = target.get("kind")?.get(0)?.as_str()?;
    // A program is built twice: as itself, and with its unit tests.
    let is_test = message.get("profile")?.get("test")?.as_bool()?;
    let wanted = (kind == "test" && is_test) || (kind == "bin" && !is_test);
    wanted.then(|| Some((target.get("name")?.as_str()?.to_owned(), PathBuf::from(file))))?
}

/// The shared objects that a binary needs, the loader included; none if it is static.
fn linked_to(file: &Path) -> Result<Vec<PathBuf>> {
    // ldd fails for a static binary. For any other reason the binary will not start in the kernel, which is seen.
    let output = Command::new("ldd").arg(file).output().context("ldd did not start")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(shared_object).collect())
}

/// The file in a line such as `libc.so.6 => /lib/libc.so.6 (0x…)` or `/lib64/ld.so (0x…)`; the vDSO has none.
fn shared_object(line: &str) -> Option<PathBuf> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_messages_name_tests_and_programs_but_no_library_and_no_unit_tests() {
        let message = |kind: &str, test: bool, file: &str| {
            format!(
                r#"{{"target":{{"kind":["{kind}"],"name":"a"}},"profile":{{"test":{test}}},"executable":{file}}}"#
            )
        };
        let found = Some(("a".to_owned(), PathBuf::from("/x")));
        assert_eq!(binary(&message("test", true, r#""/x""#)), found);
        assert_eq!(binary(&message("bin", false, r#""/x""#)), found);
        assert_eq!(binary(&message("bin", true, r#""/x""#)), None);
        assert_eq!(binary(&message("lib", true, r#""/x""#)), None);
        assert_eq!(binary(&message("lib", false, "null")), None);
        assert_eq!(binary(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(binary("words"), None);
    }

    #[test]
    fn shared_objects_are_read_from_what_ldd_prints() {
        assert_eq!(shared_object("\tlibc.so.6 => /lib/libc.so.6 (0x7f)"), Some("/lib/libc.so.6".into()));
        assert_eq!(shared_object("\t/lib64/ld-linux.so.2 (0x7f)"), Some("/lib64/ld-linux.so.2".into()));
        assert_eq!(shared_object("\tlinux-vdso.so.1 (0x7f)"), None);
    }

    #[test]
    fn the_first_process_runs_each_binary_and_then_powers_off() {
        let runs = [Run { subject: "a", binary: "hooks", tests: &["one", "two"] }];
        let script = script(&runs);
        assert!(script.starts_with("#!/bin/busybox sh\n"), "{script}");
        assert!(
            script.contains("\nrun 300 hooks one two\n") && script.ends_with("\npoweroff -f\n"),
            "{script}"
        );
    }
}
