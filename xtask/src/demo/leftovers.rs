//! What must be gone when `sidestep exec` has ended: its cgroup, processes, BPF links, pins and namespaces.
//!
//! Looks only, through /proc and /sys: it removes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::inside::Report;
use crate::machine;

/// How long the kernel may take to let go of what a process held.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Folders whose entries of our name outlive a process.
const NAMED: [(&str, &str); 2] = [("/sys/fs/bpf", "pinned BPF object"), ("/run/netns", "network namespace")];

/// What to look for after one run.
#[derive(Debug)]
pub(super) struct Leftovers {
    cgroup_name: String,
}

impl Leftovers {
    /// For the run of `sidestep exec` in this process.
    pub(super) fn of(pid: u32) -> Self {
        Self { cgroup_name: format!("sidestep-{pid}") }
    }

    /// Waits until everything is gone and names each kind of thing that is.
    ///
    /// # Errors
    /// If something is still there after two seconds, or the clients ran in another cgroup than ours.
    pub(super) fn check(&self, report: &Report) -> Result<Vec<String>> {
        ensure!(
            report.cgroup.components().any(|part| part.as_os_str() == self.cgroup_name.as_str()),
            "the clients ran in {}, not in a cgroup {}",
            report.cgroup.display(),
            self.cgroup_name
        );
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let left = self.look(report)?;
            if left.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                bail!("left behind: {}", left.join(", "));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut gone = vec![
            format!("no cgroup {}", self.cgroup_name),
            "no process in it".to_owned(),
            "no BPF link to it".to_owned(),
        ];
        gone.extend(NAMED.iter().map(|(folder, what)| format!("no {what} in {folder}")));
        Ok(gone)
    }

    fn look(&self, report: &Report) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let root = machine::cgroup2().context("cgroup2 is not mounted")?;
        left.extend(cgroups_named(&root, &self.cgroup_name).map(|path| format!("cgroup {}", path.display())));
        for process in processes() {
            let membership = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            if membership.split(['/', '\n']).any(|part| part == self.cgroup_name) {
                left.push(format!("process {}", process.display()));
            }
            if holds_link_to(&process, report.cgroup_id) {
                left.push(format!("a BPF link of process {}", process.display()));
            }
        }
        for (folder, what) in NAMED {
            let names = entries(Path::new(folder)).filter(|path| is_named(path, &self.cgroup_name));
            left.extend(names.map(|path| format!("{what} {}", path.display())));
        }
        Ok(left)
    }
}

/// The first cgroup of this name, anywhere below a folder.
fn cgroups_named(folder: &Path, name: &str) -> Option<PathBuf> {
    entries(folder)
        .filter(|path| path.is_dir())
        .find_map(|path| if is_named(&path, name) { Some(path) } else { cgroups_named(&path, name) })
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let is_number = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries(Path::new("/proc")).filter(is_number)
}

/// Whether an open file of this process is a BPF link to this cgroup, as the kernel says in fdinfo.
fn holds_link_to(process: &Path, cgroup_id: u64) -> bool {
    entries(&process.join("fdinfo")).any(|file| {
        let info = fs::read_to_string(file).unwrap_or_default();
        info.lines()
            .any(|line| line.strip_prefix("cgroup_id:").is_some_and(|id| id.trim() == cgroup_id.to_string()))
    })
}

/// What a folder holds; nothing if it cannot be read, because processes end while we look.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file == name)
}
