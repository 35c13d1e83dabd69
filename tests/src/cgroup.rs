//! Control groups of a test's own, under the cgroup2 mount wherever that is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, process};

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::scratch::unique_name;
use crate::wait;

/// Where cgroup2 is mounted.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut kinds = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = kinds.find(|words| words.get(2) == Some(&"cgroup2")).context("no cgroup2 is mounted")?;
    Ok(PathBuf::from(line.get(1).context("a mount without a path")?))
}

/// Every directory below the cgroup2 mount whose name begins so.
pub fn named(prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![mount()?];
    while let Some(dir) = open.pop() {
        // A cgroup of another test may go while we look.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
                found.push(path.clone());
            }
            open.push(path);
        }
    }
    Ok(found)
}

/// A cgroup; what runs in it is killed and it is removed with its children when dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one beside the test's own.
    pub fn new() -> Result<Self> {
        Self::at(&own()?.join(unique_name()))
    }

    /// Makes one with this path.
    pub fn at(path: &Path) -> Result<Self> {
        fs::create_dir(path).with_context(|| path.display().to_string())?;
        Ok(Self(path.to_owned()))
    }

    /// Takes one over that is there.
    pub fn adopt(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The words that, put before a command, run it in here.
    pub fn enter(&self) -> Vec<OsString> {
        enter(&self.0)
    }

    /// Moves a process in here.
    pub fn admit(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = wait::wait_until(Duration::from_secs(5), "an empty cgroup", || {
            remove(&self.0);
            !self.0.exists()
        });
    }
}

/// The words that, put before a command, run it in the cgroup with this path.
pub fn enter(cgroup: &Path) -> Vec<OsString> {
    let script = "echo 0 > \"$0/cgroup.procs\" && exec \"$@\"";
    vec!["sh".into(), "-c".into(), script.into(), cgroup.into()]
}

/// The test's own cgroup.
pub fn own() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).context("not in a cgroup2")?;
    Ok(mount()?.join(path))
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let inside = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines().filter_map(|line| line.parse().ok()).filter(|&pid: &i32| pid > 0) {
        if u32::try_from(pid) != Ok(process::id()) {
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = fs::remove_dir(dir);
}
