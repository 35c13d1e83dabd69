//! What this machine is and has: programs, privileges, cgroup2. Reads only.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Capabilities by their number in `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether a program of this name is installed.
pub(crate) fn has(program: &str) -> bool {
    program_path(program).is_some()
}

/// The file of a program, looked for in PATH and where administrators' programs are.
pub(crate) fn program_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(admin).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether apt is this machine's package installer.
pub(crate) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && has("apt-get")
}

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    status_field("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// Where cgroup2 is mounted.
pub(crate) fn cgroup2() -> Option<PathBuf> {
    cgroup2_in(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn cgroup2_in(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| {
        let folder = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(folder))
    })
}

/// Why tests through real kernel hooks cannot run here; `None` if they can.
pub(crate) fn kernel_tests_refused() -> Option<String> {
    if !is_root() {
        return Some("not root".into());
    }
    let capabilities = status_field("CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    let held = |capability: u32| capabilities.is_some_and(|bits| bits >> capability & 1 == 1);
    if !held(CAP_SYS_ADMIN) || !held(CAP_NET_ADMIN) {
        return Some("this root lacks CAP_SYS_ADMIN or CAP_NET_ADMIN (a container?)".into());
    }
    let Some(cgroup2) = cgroup2() else { return Some("cgroup2 is not mounted".into()) };
    let probe = cgroup2.join(format!("sidestep-xtask-{}", std::process::id()));
    if let Err(why) = fs::create_dir(&probe) {
        return Some(format!("no cgroup can be made in {}: {why}", cgroup2.display()));
    }
    // An empty cgroup that was just made can always be removed.
    fs::remove_dir(&probe).err().map(|why| format!("{} cannot be removed: {why}", probe.display()))
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_version_1() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_in(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_in("proc /proc proc rw 0 0\n"), None);
    }
}
