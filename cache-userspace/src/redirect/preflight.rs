//! What this machine must offer, judged from plain data; no system call here.
//!
//! Gathering that data is left to `gather`, printing to `cli::check`, and the order after a real attachment to
//! `prog_query::runs_first`.

mod ancestors;
mod gather;

use std::path::PathBuf;

use super::prog_query::{Attached, Hook};

pub use gather::netns_cookie_supported;

/// The oldest Linux on which all hooks and helpers that are used exist.
pub const KERNEL_MIN: (u32, u32) = (5, 15);

/// Loads programs and creates maps.
pub const CAP_BPF: u32 = 39;
/// Attaches programs to cgroups and asks what is attached.
pub const CAP_NET_ADMIN: u32 = 12;
/// Lets the verifier accept reads of kernel structures.
pub const CAP_PERFMON: u32 = 38;
/// Enters network namespaces; implies `CAP_BPF`, `CAP_NET_ADMIN`'s part in loading and `CAP_PERFMON`.
pub const CAP_SYS_ADMIN: u32 = 21;
/// Opens `/proc/<pid>/ns/net` of other users' processes.
pub const CAP_SYS_PTRACE: u32 = 19;

/// What a process is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One command under the cache, in this network namespace.
    Exec,
    /// The daemon of a node, with listeners in other network namespaces.
    Node,
}

/// What a machine and this process offer, as plain data.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Major and minor number of the running kernel; `None` where the release text has none.
    pub kernel: Option<(u32, u32)>,
    /// The release text of the running kernel.
    pub kernel_release: String,
    /// Where the cgroup v2 hierarchy is mounted.
    pub cgroup2_mount: Option<PathBuf>,
    /// The cgroup that is to be used, or what kept it from being opened.
    pub target: Option<Result<PathBuf, String>>,
    /// Whether cgroups may be made below the target.
    pub target_writable: bool,
    /// Whether the kernel publishes its type information at `/sys/kernel/btf/vmlinux`.
    pub btf: bool,
    /// Effective user id.
    pub euid: u32,
    /// Effective capabilities, bit n for capability n.
    pub capabilities: u64,
    /// The error number of creating a map; `None` where it went well.
    pub map_errno: Option<i32>,
    /// The error number of loading a program; `None` where it went well.
    pub program_errno: Option<i32>,
    /// Whether SO_NETNS_COOKIE is known.
    pub netns_cookie: bool,
    /// What is attached at the target and its ancestors, nearest first.
    pub attachments: Vec<Attachment>,
    /// The programs that run for the target now, in order.
    pub effective: Vec<(Hook, Vec<u32>)>,
    /// The error number of asking what is attached, where that failed.
    pub query_errno: Option<i32>,
}

/// What is attached at one hook of one cgroup on the way from the target to the root.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// Whether it is the target itself.
    pub is_target: bool,
    /// The hook.
    pub hook: Hook,
    /// Flags and program ids; never without a program.
    pub attached: Attached,
    /// The programs' names, where known.
    pub names: Vec<String>,
}

impl Probe {
    /// Tells whether a capability is effective.
    pub fn has(&self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing works without it.
    Required,
    /// A node's daemon does not work without it; `exec` does.
    RequiredForNode,
    /// `exec` does not work without it; a node's daemon does.
    RequiredForExec,
    /// Something is slower or less certain without it.
    Useful,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in one or two words.
    pub subject: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What it means where it is not.
    pub weight: Weight,
    /// One sentence about what was found.
    pub says: String,
    /// What to do where it is not ok; empty otherwise.
    pub advice: String,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(subject: &'static str, says: impl Into<String>) -> Self {
        Self { subject, ok: true, weight: Weight::Useful, says: says.into(), advice: String::new() }
    }

    /// Something is missing, and what to do about it.
    pub(crate) fn not_ok(
        subject: &'static str,
        weight: Weight,
        says: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { subject, ok: false, weight, says: says.into(), advice: advice.into() }
    }

    /// Tells whether `role` cannot go on.
    pub fn stops(&self, role: Role) -> bool {
        let required = match self.weight {
            Weight::Required => true,
            Weight::RequiredForNode => role == Role::Node,
            Weight::RequiredForExec => role == Role::Exec,
            Weight::Useful => false,
        };
        !self.ok && required
    }
}

/// Returns the first finding that keeps `role` from going on.
pub fn first_obstacle(findings: &[Finding], role: Role) -> Option<&Finding> {
    findings.iter().find(|finding| finding.stops(role))
}

/// Judges a probe: one finding a subject, in the order in which they are best mended.
pub fn findings(probe: &Probe) -> Vec<Finding> {
    let mut all = vec![kernel(probe), cgroup2(probe)];
    all.extend(privileges(probe));
    // Without the privileges these would only fail for the same reason again.
    if probe.has(CAP_SYS_ADMIN) || (probe.has(CAP_BPF) && probe.has(CAP_NET_ADMIN)) {
        all.push(bpf(probe));
    }
    all.push(netns_cookie(probe));
    all.push(btf(probe));
    if let Some(target) = &probe.target {
        all.extend(target_finding(probe, target));
    }
    all
}

fn kernel(probe: &Probe) -> Finding {
    let (major, minor) = KERNEL_MIN;
    let release = &probe.kernel_release;
    match probe.kernel {
        Some(found) if found >= KERNEL_MIN => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::not_ok(
            "kernel",
            Weight::Required,
            format!("Linux {release} is too old: {major}.{minor} or newer is needed"),
            format!("boot a kernel of {major}.{minor} or newer"),
        ),
        None => Finding::not_ok(
            "kernel",
            Weight::Required,
            format!("the kernel release {release:?} names no version"),
            format!("run on Linux {major}.{minor} or newer"),
        ),
    }
}

fn cgroup2(probe: &Probe) -> Finding {
    match &probe.cgroup2_mount {
        Some(path) => Finding::ok("cgroup2", format!("mounted at {}", path.display())),
        None => Finding::not_ok(
            "cgroup2",
            Weight::Required,
            "no cgroup v2 hierarchy is mounted",
            "mount one: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`, \
             or boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

fn privileges(probe: &Probe) -> Vec<Finding> {
    let admin = probe.has(CAP_SYS_ADMIN);
    let lacking: Vec<&str> = [(CAP_BPF, "CAP_BPF", admin), (CAP_NET_ADMIN, "CAP_NET_ADMIN", false)]
        .into_iter()
        .filter(|(capability, _, implied)| !implied && !probe.has(*capability))
        .map(|(_, name, _)| name)
        .collect();
    let who = if probe.euid == 0 { "root".to_owned() } else { format!("uid {}", probe.euid) };
    if !lacking.is_empty() {
        let says = if probe.euid == 0 {
            format!("this root process was deprived of {}", lacking.join(" and "))
        } else {
            format!("this process is not root: {who} lacks {}", lacking.join(" and "))
        };
        let advice = if probe.euid == 0 {
            "start the container privileged, or add these capabilities and SYS_ADMIN, PERFMON, SYS_PTRACE"
        } else {
            "run it as root, for example with sudo"
        };
        return vec![Finding::not_ok("capabilities", Weight::Required, says, advice)];
    }

    let mut all = vec![Finding::ok("capabilities", format!("{who} may load and attach programs"))];
    let optional = [
        (
            CAP_SYS_ADMIN,
            false,
            Weight::RequiredForNode,
            "without CAP_SYS_ADMIN the network namespaces of pods cannot be entered",
            "add the capability SYS_ADMIN",
        ),
        (
            CAP_SYS_PTRACE,
            false,
            Weight::RequiredForNode,
            "without CAP_SYS_PTRACE the network namespace of a pod cannot be found through its processes",
            "add the capability SYS_PTRACE",
        ),
        (
            CAP_PERFMON,
            admin,
            Weight::Useful,
            "without CAP_PERFMON programs may not read kernel structures, and some may be refused",
            "add the capability PERFMON",
        ),
    ];
    all.extend(
        optional
            .into_iter()
            .filter(|(capability, implied, ..)| !implied && !probe.has(*capability))
            .map(|(_, _, weight, says, advice)| Finding::not_ok("capabilities", weight, says, advice)),
    );
    all
}

fn bpf(probe: &Probe) -> Finding {
    let (what, errno) = match (probe.map_errno, probe.program_errno) {
        (None, None) => return Finding::ok("bpf", "a map and a program were accepted by the kernel"),
        (Some(errno), _) => ("to create a map", errno),
        (None, Some(errno)) => ("to load a program", errno),
    };
    let advice = match errno {
        libc::EPERM | libc::EACCES => {
            "lift what forbids bpf(2) here: a seccomp profile, kernel lockdown, or a user namespace"
        }
        libc::ENOSYS | libc::EINVAL => "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y",
        libc::ENOMEM => "free memory, or raise the memory limit of this cgroup",
        _ => "look into the kernel log (`dmesg`) for the reason",
    };
    let name = error_name(errno);
    Finding::not_ok("bpf", Weight::Required, format!("the kernel refuses {what}: {name}"), advice)
}

/// Names an error number as manuals do.
fn error_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

fn netns_cookie(probe: &Probe) -> Finding {
    if probe.netns_cookie {
        return Finding::ok("namespace cookies", "SO_NETNS_COOKIE is supported");
    }
    Finding::not_ok(
        "namespace cookies",
        Weight::Required,
        "the kernel does not know SO_NETNS_COOKIE, which tells connections of different pods apart",
        "boot a kernel of 5.15 or newer with CONFIG_NET_NS=y",
    )
}

fn btf(probe: &Probe) -> Finding {
    if probe.btf {
        return Finding::ok("BTF", "/sys/kernel/btf/vmlinux is there");
    }
    Finding::not_ok(
        "BTF",
        Weight::Useful,
        "the kernel publishes no type information, so programs cannot read its structures",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
    )
}

/// Judges whether hits are given inside the kernel, for this reason; without them the daemon gives all hits.
pub fn accelerated(is_on: bool, reason: &str) -> Finding {
    if is_on {
        return Finding::ok("acceleration", reason);
    }
    Finding::not_ok(
        "acceleration",
        Weight::Useful,
        format!("no hits inside the kernel: {reason}"),
        "nothing need be done: the daemon gives all hits",
    )
}

fn target_finding(probe: &Probe, target: &Result<PathBuf, String>) -> Vec<Finding> {
    let path = match target {
        Ok(path) => path,
        Err(why) => {
            return vec![Finding::not_ok(
                "cgroup",
                Weight::Required,
                why.clone(),
                "name a cgroup v2 directory with --cgroup",
            )];
        }
    };
    let mut all = vec![if probe.target_writable {
        Finding::ok("cgroup", format!("{} may be used", path.display()))
    } else {
        Finding::not_ok(
            "cgroup",
            Weight::RequiredForExec,
            format!("{} is not writable for this process", path.display()),
            "run as root, with the cgroup file system mounted read-write",
        )
    }];
    all.extend(ancestors::findings(probe));
    all
}

#[cfg(test)]
#[path = "preflight/tests.rs"]
mod tests;
