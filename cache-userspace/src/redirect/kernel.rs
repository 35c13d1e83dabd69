//! The user side of the kernel programs: loads them, attaches them to cgroups, and writes their maps through typed
//! functions. What is written and when is decided elsewhere.

use std::fs::File;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::sock_ops::SockOpsLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError, SockOps};
use aya::{Ebpf, EbpfLoader};
use cache_common::connection::{BypassKey, ConnectionKey, IpWords, OriginalDst, PortKey};
use cache_common::event::Counter;
use cache_common::redirect::Workload;

/// The object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidestep-ebpf.o"));

const NAMES: [&str; 4] = ["sidestep_peer4", "sidestep_peer6", "sidestep_name4", "sidestep_name6"];
const CONNECT: [&str; 2] = ["sidestep_connect4", "sidestep_connect6"];
const SOCK_OPS: &str = "sidestep_sockops";

/// Why the kernel did not take our programs or a map entry.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object was not accepted.
    #[error("the kernel did not accept Sidestep's programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program was not accepted, or not attached.
    #[error("the kernel did not accept or attach {program}: {source}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        source: ProgramError,
    },
    /// The object does not hold what this program was built with.
    #[error("the kernel object lacks {0}")]
    Missing(&'static str),
    /// A map could not be read or written.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
}

/// Attachments of one cgroup; they end when this is dropped, or when the process dies however it dies.
#[derive(Debug)]
pub struct Attachment {
    // Declared in the order of detaching: connections first.
    connect: Vec<CgroupSockAddrLink>,
    _names: Vec<CgroupSockAddrLink>,
    _sock_ops: SockOpsLink,
}

impl Attachment {
    /// Redirects no more. A `connect()` that was redirected this very moment still needs the rest before its SYN
    /// leaves, or the daemon would not know where it was meant to go.
    pub fn end_redirection(&mut self) {
        self.connect.clear();
    }
}

type Map<K, V> = Mutex<HashMap<MapData, K, V>>;

/// Sidestep's programs and maps in the running kernel.
pub struct Kernel {
    programs: Mutex<Ebpf>,
    workloads: Map<u64, Workload>,
    ports: Map<PortKey, u32>,
    excluded_users: Map<u32, u32>,
    heartbeat: Mutex<Array<MapData, u64>>,
    bypass: Map<BypassKey, u64>,
    original_dst: Map<ConnectionKey, OriginalDst>,
    pending_begun: Map<u64, u64>,
    pending_taken: Map<u64, u64>,
    counts: PerCpuArray<MapData, u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a map handle was held leaves the handle as good as before: it has no state of its own.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash_map<K: aya::Pod, V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<Map<K, V>, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Missing(name))?;
    Ok(Mutex::new(HashMap::try_from(map).map_err(|source| KernelError::Map { map: name, source })?))
}

impl Kernel {
    /// Loads the programs and maps.
    ///
    /// # Errors
    /// What the kernel refuses, in the kernel's words; needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
    pub fn load() -> Result<Self, KernelError> {
        let mut ebpf = EbpfLoader::new().load(OBJECT)?;
        for name in NAMES.into_iter().chain(CONNECT) {
            hook(&mut ebpf, name)?.load().map_err(|source| KernelError::Program { program: name, source })?;
        }
        sock_ops(&mut ebpf)?.load().map_err(|source| KernelError::Program { program: SOCK_OPS, source })?;
        let heartbeat = ebpf.take_map("HEARTBEAT").ok_or(KernelError::Missing("HEARTBEAT"))?;
        let counts = ebpf.take_map("COUNTS").ok_or(KernelError::Missing("COUNTS"))?;
        let kernel = Self {
            workloads: hash_map(&mut ebpf, "WORKLOADS")?,
            ports: hash_map(&mut ebpf, "PORTS")?,
            excluded_users: hash_map(&mut ebpf, "EXCLUDED_USERS")?,
            heartbeat: Mutex::new(
                Array::try_from(heartbeat).map_err(|source| KernelError::Map { map: "HEARTBEAT", source })?,
            ),
            bypass: hash_map(&mut ebpf, "BYPASS")?,
            original_dst: hash_map(&mut ebpf, "ORIGINAL_DST")?,
            pending_begun: hash_map(&mut ebpf, "PENDING_BEGUN")?,
            pending_taken: hash_map(&mut ebpf, "PENDING_TAKEN")?,
            counts: PerCpuArray::try_from(counts)
                .map_err(|source| KernelError::Map { map: "COUNTS", source })?,
            programs: Mutex::new(ebpf),
        };
        insert(&kernel.pending_begun, "PENDING_BEGUN", &0, &0)?;
        insert(&kernel.pending_taken, "PENDING_TAKEN", &0, &0)?;
        Ok(kernel)
    }

    /// Attaches every hook to a cgroup.
    ///
    /// # Errors
    /// EPERM where a program attached to an ancestor forbids ours (see `preflight`).
    pub fn attach(&self, cgroup: &File) -> Result<Attachment, KernelError> {
        let mut ebpf = lock(&self.programs);
        let failed = |program| move |source| KernelError::Program { program, source };
        let program = sock_ops(&mut ebpf)?;
        let link = program.attach(cgroup, CgroupAttachMode::Single).map_err(failed(SOCK_OPS))?;
        let sock_ops = program.take_link(link).map_err(failed(SOCK_OPS))?;
        let mut attach = |names: &[&'static str]| -> Result<Vec<CgroupSockAddrLink>, KernelError> {
            let mut links = Vec::with_capacity(names.len());
            for name in names {
                let program = hook(&mut ebpf, name)?;
                let link = program.attach(cgroup, CgroupAttachMode::Single).map_err(failed(name))?;
                links.push(program.take_link(link).map_err(failed(name))?);
            }
            Ok(links)
        };
        let names = attach(&NAMES)?;
        // Last: from now on connections are redirected, and all else must be in place.
        Ok(Attachment { connect: attach(&CONNECT)?, _names: names, _sock_ops: sock_ops })
    }

    /// Makes a workload, its ports and its counters known.
    ///
    /// # Errors
    /// A full map: the workload stays direct.
    pub fn insert_workload(&self, id: u64, workload: Workload, ports: &[u16]) -> Result<(), KernelError> {
        if workload.flags & cache_common::redirect::EXCLUDED == 0 {
            insert(&self.pending_begun, "PENDING_BEGUN", &id, &0)?;
            insert(&self.pending_taken, "PENDING_TAKEN", &id, &0)?;
        }
        for port in ports {
            insert(&self.ports, "PORTS", &PortKey { workload: id, port: u32::from(*port), reserved: 0 }, &1)?;
        }
        self.update_workload(id, workload)
    }

    /// Replaces what the kernel knows of a workload (its flags change).
    ///
    /// # Errors
    /// A full map.
    pub fn update_workload(&self, id: u64, workload: Workload) -> Result<(), KernelError> {
        insert(&self.workloads, "WORKLOADS", &id, &workload)
    }

    /// Forgets a workload: its connections go direct from now on.
    pub fn remove_workload(&self, id: u64, ports: &[u16]) {
        // What is not there needs no removal.
        let _ = lock(&self.workloads).remove(&id);
        for port in ports {
            let _ = lock(&self.ports).remove(&PortKey { workload: id, port: u32::from(*port), reserved: 0 });
        }
        let _ = lock(&self.pending_begun).remove(&id);
        let _ = lock(&self.pending_taken).remove(&id);
    }

    /// Leaves the connections of a user alone.
    ///
    /// # Errors
    /// More than 64 users.
    pub fn exclude_user(&self, uid: u32) -> Result<(), KernelError> {
        insert(&self.excluded_users, "EXCLUDED_USERS", &uid, &1)
    }

    /// Publishes the daemon's sign of life, nanoseconds of `CLOCK_BOOTTIME`; 0 sends new connections direct.
    ///
    /// # Errors
    /// None that a valid handle could cause.
    pub fn beat(&self, now_ns: u64) -> Result<(), KernelError> {
        lock(&self.heartbeat)
            .set(0, now_ns, 0)
            .map_err(|source| KernelError::Map { map: "HEARTBEAT", source })
    }

    /// Leaves a destination alone for one workload until a time of `CLOCK_BOOTTIME`, nanoseconds.
    ///
    /// # Errors
    /// None: a full map forgets its least recently used entry.
    pub fn bypass_until(
        &self,
        workload: u64,
        ip: IpAddr,
        port: u16,
        until_ns: u64,
    ) -> Result<(), KernelError> {
        let key = BypassKey { workload, ip: words(ip), port: u32::from(port), reserved: 0 };
        insert(&self.bypass, "BYPASS", &key, &until_ns)
    }

    /// Takes out where an accepted connection was meant to go.
    pub fn take_original_dst(&self, key: &ConnectionKey) -> Option<OriginalDst> {
        let mut map = lock(&self.original_dst);
        let original = map.get(key, 0).ok()?;
        let _ = map.remove(key);
        Some(original)
    }

    /// Takes out entries begun before `before_ns` that nobody accepted, and says whose they were.
    pub fn sweep_original_dst(&self, before_ns: u64) -> Vec<u64> {
        let mut map = lock(&self.original_dst);
        let old: Vec<(ConnectionKey, u64)> = map
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, original)| original.begun_at_ns < before_ns)
            .map(|(key, original)| (key, original.workload))
            .collect();
        old.into_iter().filter(|(key, _)| map.remove(key).is_ok()).map(|(_, workload)| workload).collect()
    }

    /// Publishes how many entries of a workload (0: of all) were taken out of the original destinations, ever.
    ///
    /// # Errors
    /// An unknown workload of a full map.
    pub fn publish_taken(&self, workload: u64, taken: u64) -> Result<(), KernelError> {
        insert(&self.pending_taken, "PENDING_TAKEN", &workload, &taken)
    }

    /// How many connections were redirected, ever, and their original destination put into the map.
    pub fn begun(&self) -> u64 {
        lock(&self.pending_begun).get(&0, 0).unwrap_or(0)
    }

    /// What a counter of the programs stands at, all CPUs together.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counts.get(&(counter as u32), 0).map(|slots| slots.iter().sum()).unwrap_or(0)
    }
}

fn insert<K: aya::Pod, V: aya::Pod>(
    map: &Map<K, V>,
    name: &'static str,
    key: &K,
    value: &V,
) -> Result<(), KernelError> {
    lock(map).insert(key, value, 0).map_err(|source| KernelError::Map { map: name, source })
}

fn hook<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    program.try_into().map_err(|source| KernelError::Program { program: name, source })
}

fn sock_ops(ebpf: &mut Ebpf) -> Result<&mut SockOps, KernelError> {
    let program = ebpf.program_mut(SOCK_OPS).ok_or(KernelError::Missing(SOCK_OPS))?;
    program.try_into().map_err(|source| KernelError::Program { program: SOCK_OPS, source })
}

/// An address as the kernel programs write it.
pub fn words(ip: IpAddr) -> IpWords {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

/// The address that the kernel programs wrote, IPv4 as such.
pub fn ip(words: IpWords) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    IpAddr::V6(octets.into()).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_meaning_in_both_directions() {
        for text in ["10.1.2.3", "2001:db8::7", "::1", "127.0.0.1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip(words(address)), address);
        }
        assert_eq!(
            words("10.1.2.3".parse().unwrap()),
            cache_common::connection::mapped(u32::from_ne_bytes([10, 1, 2, 3]))
        );
    }
}
