//! A foreign program on a cgroup, attached the way that forbids every other program below it.
//!
//! aya attaches by links only, which are always shared; so this speaks the system call itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_INET4_CONNECT: u32 = 10;
/// `r0 = 1; exit`: lets every connection pass.
const PROGRAM: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// A connect4 program attached with flags 0; detached when dropped.
#[derive(Debug)]
pub struct Forbidding {
    cgroup: File,
    program: OwnedFd,
}

impl Forbidding {
    /// Loads the program and attaches it.
    pub fn attach(cgroup: &Cgroup) -> Result<Self> {
        let license = c"GPL";
        // bpf_attr of BPF_PROG_LOAD, up to expected_attach_type.
        let mut load = [0_u32; 18];
        load[0] = CGROUP_SOCK_ADDR;
        load[1] = u32::try_from(PROGRAM.len())?;
        put_pointer(&mut load, 2, PROGRAM.as_ptr().expose_provenance());
        put_pointer(&mut load, 4, license.as_ptr().expose_provenance());
        load[17] = CGROUP_INET4_CONNECT;
        let fd = bpf(BPF_PROG_LOAD, &load).context("load the foreign program")?;
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let program = unsafe { OwnedFd::from_raw_fd(fd) };
        let attached = Self { cgroup: File::open(cgroup.path())?, program };
        bpf(BPF_PROG_ATTACH, &attached.attribute()).context("attach the foreign program")?;
        Ok(attached)
    }

    /// bpf_attr of attaching and detaching: target, program, kind, flags 0.
    fn attribute(&self) -> [u32; 18] {
        let mut attribute = [0; 18];
        attribute[0] = self.cgroup.as_raw_fd().cast_unsigned();
        attribute[1] = self.program.as_raw_fd().cast_unsigned();
        attribute[2] = CGROUP_INET4_CONNECT;
        attribute
    }
}

impl Drop for Forbidding {
    fn drop(&mut self) {
        let _ = bpf(BPF_PROG_DETACH, &self.attribute());
    }
}

fn put_pointer(attribute: &mut [u32; 18], at: usize, pointer: usize) {
    let bytes = (pointer as u64).to_ne_bytes();
    let (low, high) = bytes.split_at(4);
    for (word, half) in attribute.iter_mut().skip(at).zip([low, high]) {
        *word = half.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    }
}

fn bpf(command: libc::c_long, attribute: &[u32; 18]) -> io::Result<i32> {
    let length = size_of_val(attribute);
    // SAFETY: the kernel reads `length` bytes of the attribute, which are there, and follows only the pointers
    // in it, to the program and the licence, which outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
