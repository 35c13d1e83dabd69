//! Cgroups v2: finding them, making one for a command, and leaving nothing behind.
//!
//! Attaching programs to a cgroup is left to the parent module, judging its ancestors to `preflight`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

/// Names the cgroups that this program makes, before the process id of the maker.
pub const NAME_PREFIX: &str = "sidestep-";

/// Bounds the rounds in which processes are moved: a process that forks meanwhile leaves a child for the next.
const MOVE_ROUNDS_MAX: usize = 64;
/// Bounds the attempts to remove a cgroup whose last process is just leaving it.
const REMOVE_TRIES_MAX: usize = 40;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);
/// Bounds how many cgroups below one are looked at.
const DESCENDANTS_MAX: usize = 4096;

/// Says what stands in the way of using a cgroup, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup v2 hierarchy is mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`, \
         or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    /// This process has no place in the hierarchy that can be reached.
    #[error(
        "this process's own cgroup {0:?} cannot be reached below the cgroup v2 mount; \
         start it in the host's cgroup namespace, or name a cgroup with --cgroup"
    )]
    OwnUnreachable(String),
    /// The directory is not a cgroup v2 directory.
    #[error("{0} is not a cgroup v2 directory; name one below the cgroup v2 mount of /proc/self/mounts")]
    NotACgroup(PathBuf),
    /// Processes remained after all attempts.
    #[error("cgroup {path} still holds processes {left:?}; end them, then `rmdir {path}`")]
    Busy {
        /// The cgroup that is not empty.
        path: PathBuf,
        /// Some of the processes in it.
        left: Vec<u32>,
    },
    /// The operating system refused.
    #[error("cannot {act} {path}: {source}; {}", advice(.source))]
    Io {
        /// What was attempted.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "run as root, with the cgroup file system mounted read-write",
        io::ErrorKind::ReadOnlyFilesystem => "mount the cgroup file system read-write",
        io::ErrorKind::NotFound => "the cgroup is gone; check its path",
        io::ErrorKind::AlreadyExists => "another process made it; remove it if that process is gone",
        _ => "`sidestep check` tells what this machine lacks",
    }
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError::Io { act, path: path.to_owned(), source }
}

/// Finds the mount point of the cgroup v2 hierarchy of this process.
///
/// # Errors
/// `NotMounted` where there is none; `Io` where the list of mounts cannot be read.
pub fn mount_point() -> Result<PathBuf, CgroupError> {
    let list = Path::new("/proc/self/mounts");
    let mounts = fs::read_to_string(list).map_err(failed("read", list))?;
    mount_points(&mounts).into_iter().find(|path| is_cgroup(path)).ok_or(CgroupError::NotMounted)
}

/// Lists the cgroup v2 mount points named by a text in the format of `/proc/self/mounts`.
pub fn mount_points(mounts: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (_source, target, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(unescape(target)))
        })
        .collect()
}

/// The kernel writes a blank, tab, newline and backslash of a mount point as three octal digits.
fn unescape(target: &str) -> String {
    target.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Finds this process's place in the v2 hierarchy in a text in the format of `/proc/self/cgroup`.
pub fn own_place(memberships: &str) -> Option<&str> {
    memberships.lines().find_map(|line| line.strip_prefix("0::"))
}

fn is_cgroup(path: &Path) -> bool {
    path.join("cgroup.procs").exists() && path.join("cgroup.controllers").exists()
}

/// One cgroup v2 directory, held open and marked as in use for as long as this value lives.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    id: u64,
    /// The open directory; its shared lock tells `sweep_stale` of other starts that somebody still wants it.
    dir: File,
}

impl Cgroup {
    /// Opens an existing cgroup directory.
    ///
    /// # Errors
    /// `NotACgroup` where it has no `cgroup.procs`; `Io` where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let path = path.canonicalize().map_err(failed("open cgroup", path))?;
        if !is_cgroup(&path) {
            return Err(CgroupError::NotACgroup(path));
        }
        let dir = File::open(&path).map_err(failed("open cgroup", &path))?;
        let id = dir.metadata().map_err(failed("look at cgroup", &path))?.ino();
        // Without the lock a sweep may take an empty cgroup away; anybody may hold one, so it must not be an error.
        let _ = dir.try_lock_shared();
        Ok(Self { path, id, dir })
    }

    /// Opens the cgroup that this process is in.
    ///
    /// # Errors
    /// `NotMounted`, or `OwnUnreachable` where a cgroup namespace hides it.
    pub fn own() -> Result<Self, CgroupError> {
        let mount = mount_point()?;
        let list = Path::new("/proc/self/cgroup");
        let memberships = fs::read_to_string(list).map_err(failed("read", list))?;
        let place = own_place(&memberships).unwrap_or_default();
        if !place.starts_with('/') || place.contains("/..") {
            return Err(CgroupError::OwnUnreachable(place.to_owned()));
        }
        let path = mount.join(place.trim_start_matches('/'));
        if !is_cgroup(&path) {
            return Err(CgroupError::OwnUnreachable(place.to_owned()));
        }
        Self::open(&path)
    }

    /// Makes the cgroup `name` below `parent`.
    ///
    /// # Errors
    /// `Io` where the system refuses, also where it exists already.
    pub fn create_child(parent: &Self, name: &str) -> Result<Self, CgroupError> {
        let path = parent.path.join(name);
        fs::create_dir(&path).map_err(failed("create cgroup", &path))?;
        Self::open(&path)
    }

    /// Returns the absolute path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the id that `bpf_get_current_cgroup_id` gives for processes in it: the directory's inode number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the open directory, as `BPF_PROG_QUERY` and link creation want it.
    pub fn dir(&self) -> &File {
        &self.dir
    }

    /// Lists the processes in it, not those in cgroups below it.
    ///
    /// # Errors
    /// `Io` where the list cannot be read.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        procs_in(&self.path)
    }

    /// Moves all processes of it and of the cgroups below it to `parent`.
    ///
    /// # Errors
    /// `Busy` where some remain after a bounded number of rounds (a fork bomb, or a foreign PID namespace).
    pub fn move_all_to(&self, parent: &Self) -> Result<(), CgroupError> {
        let target = parent.path.join("cgroup.procs");
        let mut left = Vec::new();
        for _ in 0..MOVE_ROUNDS_MAX {
            left.clear();
            for dir in tree(&self.path) {
                left.extend(procs_in(&dir).unwrap_or_default());
            }
            if left.is_empty() {
                return Ok(());
            }
            for pid in &left {
                match fs::write(&target, pid.to_string()) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) && *pid != 0 => {
                        return Err(failed("move a process to", &target)(error));
                    }
                    _ => {}
                }
            }
        }
        left.truncate(8);
        Err(CgroupError::Busy { path: self.path.clone(), left })
    }

    /// Removes it and the cgroups below it; waits up to 0.2 s for processes that are just ending.
    ///
    /// # Errors
    /// `Busy` where processes are left in it; `Io` where the system refuses for another reason.
    pub fn remove(self) -> Result<(), CgroupError> {
        let mut last = None;
        for attempt in 0..REMOVE_TRIES_MAX {
            if attempt > 0 {
                thread::sleep(REMOVE_PAUSE);
            }
            match remove_tree(&self.path) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
                let mut left: Vec<u32> =
                    tree(&self.path).iter().filter_map(|dir| procs_in(dir).ok()).flatten().collect();
                left.truncate(8);
                Err(CgroupError::Busy { path: self.path.clone(), left })
            }
            Some(error) => Err(failed("remove cgroup", &self.path)(error)),
            None => Ok(()),
        }
    }
}

fn procs_in(dir: &Path) -> Result<Vec<u32>, CgroupError> {
    let list = dir.join("cgroup.procs");
    let text = fs::read_to_string(&list).map_err(failed("read", &list))?;
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// Lists a cgroup and those below it, parents first.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        let children = fs::read_dir(&dir).into_iter().flatten().flatten();
        for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
            if found.len() < DESCENDANTS_MAX {
                found.push(child.path());
            }
        }
    }
    found
}

fn remove_tree(root: &Path) -> io::Result<()> {
    for dir in tree(root).iter().rev() {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the empty `sidestep-<pid>` cgroups below `parent` whose maker is gone, and returns their paths.
pub fn sweep_stale(parent: &Cgroup) -> Vec<PathBuf> {
    let children = fs::read_dir(&parent.path).into_iter().flatten().flatten();
    children
        .filter(|child| child.file_name().to_str().and_then(maker).is_some_and(is_gone))
        .map(|child| child.path())
        .filter(|path| remove_unused(path).is_ok())
        .collect()
}

fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(NAME_PREFIX)?.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// The lock is what protects a start in another PID namespace, whose process id means nothing here.
fn remove_unused(path: &Path) -> io::Result<()> {
    let dir = File::open(path)?;
    dir.try_lock()?;
    fs::remove_dir(path)
}

/// Makes `command` start inside `cgroup`: its very first instruction already runs there.
///
/// # Errors
/// `Io` where `cgroup.procs` cannot be opened for writing.
pub fn enter_on_spawn(command: &mut Command, cgroup: &Cgroup) -> Result<(), CgroupError> {
    let list = cgroup.path.join("cgroup.procs");
    let procs = OpenOptions::new().write(true).open(&list).map_err(failed("open", &list))?;
    let enter = move || match (&procs).write(b"0") {
        Ok(1) => Ok(()),
        Ok(_) => Err(Errno::EIO.into()),
        Err(error) => Err(error),
    };
    // SAFETY: between fork and exec the closure only calls write(2) on a descriptor opened before the fork;
    // it allocates nothing, takes no lock and touches no state that another thread could have left half changed.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Finds the process that started first in `dir` and the cgroups below it: for a pod, its pause container.
pub fn oldest_process(dir: &Path) -> Option<u32> {
    let pids = tree(dir).into_iter().filter_map(|dir| procs_in(&dir).ok()).flatten();
    pids.filter_map(|pid| Some((started(pid)?, pid))).min().map(|(_, pid)| pid)
}

/// Says whether the cgroup with this id is `dir` or below it.
pub fn contains(dir: &Path, id: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    tree(dir).iter().any(|dir| fs::metadata(dir).is_ok_and(|found| found.ino() == id))
}

/// Returns the path of the network namespace that a process is in.
pub fn netns_path(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("ns/net")
}

fn started(pid: u32) -> Option<u64> {
    start_time(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

/// Reads field 22 of `/proc/<pid>/stat`, in clock ticks since boot; the name in field 2 may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
