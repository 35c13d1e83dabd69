//! Looks at the machine and this process, and changes nothing.

use std::fs::{self, File};
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::unistd::{AccessFlags, geteuid};

use super::super::cgroup::{self, Cgroup, CgroupError};
use super::super::prog_query::{self, Hook};
use super::{Attachment, Probe};

/// Missing in libc for some targets; the value of `asm-generic/socket.h`.
const SO_NETNS_COOKIE: libc::c_int = 71;

impl Probe {
    /// Looks at everything; `target` is the cgroup that is to be used, by default this process's own.
    pub fn gather(target: Option<&Path>) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let mut probe = Self {
            kernel: version(&release),
            kernel_release: release,
            cgroup2_mount: cgroup::mount_point().ok(),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            euid: geteuid().as_raw(),
            capabilities: fs::read_to_string("/proc/self/status")
                .map(|text| capabilities(&text))
                .unwrap_or(0),
            map_errno: errno(prog_query::try_map()),
            program_errno: errno(prog_query::try_program()),
            netns_cookie: netns_cookie_supported(),
            ..Self::default()
        };
        let opened = target.map_or_else(Cgroup::own, Cgroup::open);
        match opened {
            Ok(target) => {
                probe.target_writable = is_writable(target.path());
                probe.gather_attachments(&target);
                probe.target = Some(Ok(target.path().to_owned()));
            }
            // A finding of its own already.
            Err(CgroupError::NotMounted) => {}
            Err(error) => probe.target = Some(Err(error.to_string())),
        }
        probe
    }

    fn gather_attachments(&mut self, target: &Cgroup) {
        let root = self.cgroup2_mount.clone().unwrap_or_default();
        for hook in Hook::ALL {
            match prog_query::effective(target.dir(), hook) {
                Ok(programs) => self.effective.push((hook, programs)),
                Err(error) => self.query_errno = error.raw_os_error(),
            }
        }
        for path in target.path().ancestors().take_while(|path| path.starts_with(&root)) {
            let Ok(dir) = File::open(path) else { continue };
            for hook in Hook::ALL {
                match prog_query::attached(&dir, hook) {
                    Ok(attached) if !attached.programs.is_empty() => {
                        let names = attached.programs.iter();
                        let names = names.filter_map(|id| prog_query::program_name(*id)).collect();
                        let (cgroup, is_target) = (path.to_owned(), path == target.path());
                        self.attachments.push(Attachment { cgroup, is_target, hook, attached, names });
                    }
                    Ok(_) => {}
                    Err(error) => self.query_errno = error.raw_os_error(),
                }
            }
        }
    }
}

fn errno(result: std::io::Result<()>) -> Option<i32> {
    result.err().map(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Reads the two numbers at the beginning of a kernel release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Reads the effective set from a text in the format of `/proc/self/status`.
pub(super) fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn is_writable(path: &Path) -> bool {
    let cwd = nix::fcntl::AT_FDCWD;
    nix::unistd::faccessat(cwd, path, AccessFlags::W_OK, nix::fcntl::AtFlags::AT_EACCESS).is_ok()
}

/// Tells whether the kernel knows SO_NETNS_COOKIE (Linux 5.14).
pub fn netns_cookie_supported() -> bool {
    let Ok(socket) = UdpSocket::bind(("127.0.0.1", 0)) else { return false };
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the length of the call, `cookie` has the `length` bytes that the kernel
    // may write, and both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut length,
        )
    };
    answer == 0
}
