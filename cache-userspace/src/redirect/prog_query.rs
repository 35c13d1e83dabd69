//! Asks the kernel which programs are attached to a cgroup, and tries whether it takes ours at all.
//!
//! Speaks bpf(2) directly: aya has no query for one cgroup's own attachments. What the answers mean is left to
//! `preflight`.

use std::fs::File;
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Bounds the programs listed of one hook of one cgroup; the kernel's own limit per cgroup is 64.
pub const PROGRAMS_MAX: usize = 64;

/// Attached exclusively for the subtree of the cgroup where a program is there and no flag is.
pub const ALLOW_OVERRIDE: u32 = 1 << 0;
/// Attached beside others (BPF_F_ALLOW_MULTI).
pub const ALLOW_MULTI: u32 = 1 << 1;

const MAP_CREATE: u32 = 0;
const PROG_LOAD: u32 = 5;
const PROG_GET_FD_BY_ID: u32 = 13;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;
const QUERY_EFFECTIVE: u32 = 1;
const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const MAP_TYPE_ARRAY: u32 = 2;

/// One of the hooks of a cgroup that the redirection uses; the number is the kernel's attach type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Hook {
    /// TCP state changes and options.
    SockOps = 3,
    /// connect() of IPv4 sockets.
    Connect4 = 10,
    /// connect() of IPv6 sockets.
    Connect6 = 11,
    /// getpeername() of IPv4 sockets.
    Peername4 = 29,
    /// getpeername() of IPv6 sockets.
    Peername6 = 30,
    /// getsockname() of IPv4 sockets.
    Sockname4 = 31,
    /// getsockname() of IPv6 sockets.
    Sockname6 = 32,
}

impl Hook {
    /// Lists every hook that the redirection attaches to.
    pub const ALL: [Self; 7] = [
        Self::Connect4,
        Self::Connect6,
        Self::Peername4,
        Self::Peername6,
        Self::Sockname4,
        Self::Sockname6,
        Self::SockOps,
    ];

    /// Returns the name that bpftool prints for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SockOps => "sock_ops",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Peername4 => "getpeername4",
            Self::Peername6 => "getpeername6",
            Self::Sockname4 => "getsockname4",
            Self::Sockname6 => "getsockname6",
        }
    }
}

/// What is attached at one hook of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// How: `ALLOW_OVERRIDE`, `ALLOW_MULTI` or 0 (exclusive). BPF_F_PREORDER is never reported (Linux 6.18).
    pub flags: u32,
    /// Program ids in the order in which they run.
    pub programs: Vec<u32>,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    zero: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
    zero: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The beginning of the kernel's `struct bpf_prog_info`, up to the name; it fills as much as it is offered.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Calls bpf(2). Returns what it returns where that is not negative.
///
/// # Safety
/// `attr` is the member of `union bpf_attr` that `command` takes, without implicit padding, and every address
/// inside it is valid for what the kernel reads or writes there for the length of the call.
unsafe fn bpf<T>(command: u32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the pointer and the length describe `attr`, exclusively borrowed; its contents by the caller's word.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of_val(attr)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(answer).unwrap_or(i32::MAX)) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor from a bpf(2) call; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn query(cgroup: &File, hook: Hook, query_flags: u32) -> io::Result<Attached> {
    let mut ids = [0u32; PROGRAMS_MAX];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd().unsigned_abs(),
        attach_type: hook as u32,
        query_flags,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: PROGRAMS_MAX as u32,
        ..QueryAttr::default()
    };
    // SAFETY: QueryAttr is laid out as BPF_PROG_QUERY's part of the union without padding, and `prog_ids` points
    // to `prog_cnt` integers that outlive the call.
    match unsafe { bpf(PROG_QUERY, &mut attr) } {
        // More programs than asked for: the first ones were written, which is enough to judge.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {}
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let programs = ids.into_iter().take(attr.prog_cnt as usize).filter(|id| *id != 0).collect();
    Ok(Attached { flags: attr.attach_flags, programs })
}

/// Lists what is attached at `hook` of exactly this cgroup.
///
/// # Errors
/// What the kernel answers; EPERM without CAP_NET_ADMIN, EINVAL for a hook that it does not know.
pub fn attached(cgroup: &File, hook: Hook) -> io::Result<Attached> {
    query(cgroup, hook, 0)
}

/// Lists the programs that run for processes in this cgroup, its ancestors' included, in order.
///
/// # Errors
/// As `attached`.
pub fn effective(cgroup: &File, hook: Hook) -> io::Result<Vec<u32>> {
    Ok(query(cgroup, hook, QUERY_EFFECTIVE)?.programs)
}

/// Tells whether `program` is the first to run; false where an ancestor used BPF_F_PREORDER.
///
/// # Errors
/// As `attached`.
pub fn runs_first(cgroup: &File, hook: Hook, program: u32) -> io::Result<bool> {
    Ok(effective(cgroup, hook)?.first() == Some(&program))
}

/// Returns the name of a loaded program (at most 15 bytes), where it has one and may be looked at.
pub fn program_name(id: u32) -> Option<String> {
    let mut attr = IdAttr { prog_id: id, ..IdAttr::default() };
    // SAFETY: IdAttr is laid out as the id part of the union; it holds no address.
    let program = owned(unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.ok()?);
    let mut info = ProgInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: program.as_raw_fd().unsigned_abs(),
        info_len: size_of::<ProgInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` points to `info_len` zeroed bytes that outlive the call; the kernel writes no more than that,
    // and zero lengths in it ask for none of the arrays that its other fields could point to.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.ok()?;
    let name: Vec<u8> = info.name.into_iter().take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

/// Creates a map of one entry and drops it.
///
/// # Errors
/// What the kernel answers: EPERM without CAP_BPF, ENOSYS where bpf(2) is not compiled in.
pub fn try_map() -> io::Result<()> {
    let mut attr = MapAttr { map_type: MAP_TYPE_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    // SAFETY: MapAttr is laid out as the beginning of BPF_MAP_CREATE's part of the union; it holds no address.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(|fd| drop(owned(fd)))
}

/// Loads a program for `connect4` that lets everything pass, and drops it without attaching it.
///
/// # Errors
/// What the kernel answers: EPERM without CAP_BPF and CAP_NET_ADMIN, EINVAL where it lacks CONFIG_CGROUP_BPF.
pub fn try_program() -> io::Result<()> {
    load_passing().map(drop)
}

fn load_passing() -> io::Result<OwnedFd> {
    // r0 = 1; exit
    let instructions: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
    let instructions = instructions.map(u64::to_le_bytes);
    let license = c"GPL";
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_SOCK_ADDR,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_name: *b"sidestep_trial\0\0",
        expected_attach_type: Hook::Connect4 as u32,
        ..LoadAttr::default()
    };
    // SAFETY: LoadAttr is laid out as the beginning of BPF_PROG_LOAD's part of the union without padding; `insns`
    // points to `insn_cnt` instructions and `license` to a terminated string, both outliving the call.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(owned)
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Cgroup;
    use super::super::preflight::{Probe, Role, findings, first_obstacle};
    use super::*;

    fn is_root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("skipped: needs root");
        }
        root
    }

    #[test]
    fn each_structure_has_the_size_of_the_kernels_part_of_the_union() {
        assert_eq!(size_of::<QueryAttr>(), 32);
        assert_eq!(size_of::<LoadAttr>(), 72);
        assert_eq!(size_of::<ProgInfo>(), 80);
    }

    #[test]
    fn the_kernel_takes_a_map_and_a_program() {
        if is_root() {
            try_map().unwrap();
            try_program().unwrap();
        }
    }

    #[test]
    fn a_cgroup_of_our_own_has_nothing_attached_and_every_hook_is_known() {
        if !is_root() {
            return;
        }
        let name = format!("sidestep-test-query-{}", std::process::id());
        let Ok(group) = Cgroup::own().and_then(|own| Cgroup::create_child(&own, &name)) else {
            eprintln!("skipped: needs cgroup v2");
            return;
        };
        for hook in Hook::ALL {
            assert_eq!(attached(group.dir(), hook).unwrap().programs, [0u32; 0], "{}", hook.name());
            assert!(effective(group.dir(), hook).is_ok());
            assert!(!runs_first(group.dir(), hook, u32::MAX).unwrap());
        }
        group.remove().unwrap();
    }

    #[repr(C)]
    struct AttachAttr {
        target_fd: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
    }

    fn attach(cgroup: &Cgroup, flags: u32) -> io::Result<()> {
        const PROG_ATTACH: u32 = 8;
        let program = load_passing()?;
        let mut attr = AttachAttr {
            target_fd: cgroup.dir().as_raw_fd().unsigned_abs(),
            attach_bpf_fd: program.as_raw_fd().unsigned_abs(),
            attach_type: Hook::Connect4 as u32,
            attach_flags: flags,
        };
        // SAFETY: AttachAttr is laid out as the beginning of BPF_PROG_ATTACH's part; it holds no address.
        unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
    }

    /// What the preflight says must be what the kernel then does.
    #[test]
    fn the_kernel_treats_a_child_as_the_preflight_foretells() {
        if !is_root() {
            return;
        }
        for (number, flags) in [0, ALLOW_OVERRIDE, ALLOW_MULTI].into_iter().enumerate() {
            let name = format!("sidestep-test-attach-{}-{number}", std::process::id());
            let Ok(above) = Cgroup::own().and_then(|own| Cgroup::create_child(&own, &name)) else {
                eprintln!("skipped: needs cgroup v2");
                return;
            };
            let target = Cgroup::create_child(&above, "target").unwrap();
            attach(&above, flags).unwrap();
            let theirs = attached(above.dir(), Hook::Connect4).unwrap();
            assert_eq!((theirs.flags, theirs.programs.len()), (flags, 1));
            assert_eq!(program_name(theirs.programs[0]).as_deref(), Some("sidestep_trial"));

            let all = findings(&Probe::gather(Some(target.path())));
            let foretold = first_obstacle(&all, Role::Exec).map(|one| one.says.clone()).unwrap_or_default();
            let ours = attach(&target, ALLOW_MULTI);

            let effective = effective(target.dir(), Hook::Connect4).unwrap();
            match flags {
                0 => {
                    assert!(foretold.contains("forbids ours"), "{foretold}");
                    assert_eq!(ours.unwrap_err().raw_os_error(), Some(libc::EPERM));
                }
                ALLOW_OVERRIDE => {
                    assert!(foretold.contains("silently replaced"), "{foretold}");
                    assert!(!effective.contains(&theirs.programs[0]));
                }
                _ => {
                    assert_eq!(foretold, "");
                    assert_eq!(effective.last(), Some(&theirs.programs[0]));
                    assert!(runs_first(target.dir(), Hook::Connect4, effective[0]).unwrap());
                }
            }
            target.remove().unwrap();
            above.remove().unwrap();
        }
    }

    #[test]
    fn a_program_that_does_not_exist_has_no_name() {
        assert_eq!(program_name(u32::MAX), None);
    }
}
