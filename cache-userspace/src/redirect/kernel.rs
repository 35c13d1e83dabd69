//! The user side of the kernel programs: loads them, attaches them to cgroups, and writes their maps through typed
//! functions. What is written and when is decided elsewhere.

use std::collections::HashSet;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::fentry::FEntryLink;
use aya::programs::sk_msg::SkMsgLink;
use aya::programs::sock_ops::SockOpsLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, FEntry, ProgramError, SkMsg, SockOps};
use aya::{Btf, Ebpf, EbpfLoader};
use cache_common::connection::{BypassKey, ConnectionKey, DestinationKey, IpWords, OriginalDst, PortKey};
use cache_common::event::Counter;
use cache_common::hot::SENDING_CALLS;
use cache_common::redirect::{EXCLUDED, Workload};

use super::btf::Offsets;
use super::hit_maps::{HitMaps, HitSettings};

/// The object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidestep-ebpf.o"));

const NAMES: [&str; 4] = ["sidestep_peer4", "sidestep_peer6", "sidestep_name4", "sidestep_name6"];
const CONNECT: [&str; 2] = ["sidestep_connect4", "sidestep_connect6"];
const SOCK_OPS: &str = "sidestep_sockops";
const ENROL: &str = "sidestep_enrol";
const SENT: &str = "sidestep_sent";
const SPLICE: &str = "sidestep_splice";

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
    /// The memory of resident responses could not be mapped.
    #[error("the memory of resident responses cannot be mapped: {0}")]
    Memory(#[source] std::io::Error),
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
    names: Vec<CgroupSockAddrLink>,
    _sock_ops: SockOpsLink,
    enrol: Option<SockOpsLink>,
}

impl Attachment {
    /// Redirects no more. A `connect()` that was redirected this very moment still needs the rest before its SYN
    /// leaves, or the daemon would not know where it was meant to go.
    pub fn end_redirection(&mut self) {
        self.connect.clear();
    }

    /// The programs that are attached.
    pub fn hooks(&self) -> impl Iterator<Item = &'static str> {
        // All of a kind, or none.
        let connect = CONNECT.into_iter().filter(|_| !self.connect.is_empty());
        let names = NAMES.into_iter().filter(|_| !self.names.is_empty());
        let all = connect.chain(names).chain([SOCK_OPS]).chain(self.enrol.as_ref().map(|_| ENROL));
        all.map(|name| name.trim_start_matches("sidestep_"))
    }
}

/// A hash map whose handle one thread uses at a time.
pub(super) type Typed<K, V> = Mutex<HashMap<MapData, K, V>>;

/// Sidestep's programs and maps in the running kernel.
pub struct Kernel {
    programs: Mutex<Ebpf>,
    workloads: Typed<u64, Workload>,
    ports: Typed<PortKey, u32>,
    destinations: Typed<DestinationKey, u32>,
    excluded_users: Typed<u32, u32>,
    heartbeat: Mutex<Array<MapData, u64>>,
    bypass: Typed<BypassKey, u64>,
    original_dst: Typed<ConnectionKey, OriginalDst>,
    pending_begun: Typed<u64, u64>,
    pending_taken: Typed<u64, u64>,
    counts: PerCpuArray<MapData, u64>,
    hits: HitMaps,
    /// Kept for as long as they are to run.
    hit_links: Mutex<HitLinks>,
}

/// System calls whose callers may get answers of the kernel: those that send what is in the caller's memory.
const SENDING: [u32; SENDING_CALLS] = [
    libc::SYS_write as u32,
    libc::SYS_writev as u32,
    libc::SYS_sendto as u32,
    libc::SYS_sendmsg as u32,
    libc::SYS_sendmmsg as u32,
    libc::SYS_io_uring_enter as u32,
];

/// What of the programs for hits is attached to no cgroup.
#[derive(Default)]
struct HitLinks {
    is_enrolling: bool,
    _sent: Option<SkMsgLink>,
    _splice: Option<FEntryLink>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a map handle was held leaves the handle as good as before: it has no state of its own.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn hash_map<K: aya::Pod, V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<Typed<K, V>, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Missing(name))?;
    Ok(Mutex::new(HashMap::try_from(map).map_err(|source| KernelError::Map { map: name, source })?))
}

impl Kernel {
    /// Loads the programs and maps; the programs for hits are loaded by [`Kernel::load_hits`], which is in vain without
    /// `offsets`.
    ///
    /// # Errors
    /// What the kernel refuses, in the kernel's words; needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
    pub fn load(settings: &HitSettings, offsets: Option<&Offsets>) -> Result<Self, KernelError> {
        let HitSettings { chunks, skip, seeds, faults } = settings;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("HOT_CHUNKS", *chunks).map_max_entries("HOT_INDEX", *chunks);
        loader.override_global("SKIP", skip, true).override_global("SEEDS", seeds, true);
        loader.override_global("FAULTS", faults, true);
        if let Some(offsets) = offsets {
            loader
                .override_global("OFFSET_COPIED_SEQ", &offsets.copied_seq, true)
                .override_global("OFFSET_RCV_NXT", &offsets.rcv_nxt, true)
                .override_global("OFFSET_RMEM_ALLOC", &offsets.rmem_alloc, true)
                .override_global("OFFSET_WRITE_SEQ", &offsets.write_seq, true)
                .override_global("OFFSET_SND_UNA", &offsets.snd_una, true)
                .override_global("OFFSET_BYTES_RECEIVED", &offsets.bytes_received, true)
                .override_global("OFFSET_BYTES_ACKED", &offsets.bytes_acked, true)
                .override_global("OFFSET_IS_MPTCP", &offsets.is_mptcp.0, true)
                .override_global("MASK_IS_MPTCP", &offsets.is_mptcp.1, true)
                .override_global("OFFSET_SK_SOCKET", &offsets.sk_socket, true)
                .override_global("OFFSET_SOCKET_FILE", &offsets.socket_file, true)
                .override_global("OFFSET_FILE_FLAGS", &offsets.file_flags, true)
                .override_global("OFFSET_SOCKET_SK", &offsets.socket_sk, true)
                .override_global("OFFSET_TASK_STACK", &offsets.task_stack, true)
                .override_global("SENDING", &SENDING, true);
        }
        let mut ebpf = loader.load(OBJECT)?;
        for name in NAMES.into_iter().chain(CONNECT) {
            hook(&mut ebpf, name)?.load().map_err(|source| KernelError::Program { program: name, source })?;
        }
        sock_ops(&mut ebpf, SOCK_OPS)?
            .load()
            .map_err(|source| KernelError::Program { program: SOCK_OPS, source })?;
        let heartbeat = ebpf.take_map("HEARTBEAT").ok_or(KernelError::Missing("HEARTBEAT"))?;
        let counts = ebpf.take_map("COUNTS").ok_or(KernelError::Missing("COUNTS"))?;
        let kernel = Self {
            workloads: hash_map(&mut ebpf, "WORKLOADS")?,
            ports: hash_map(&mut ebpf, "PORTS")?,
            destinations: hash_map(&mut ebpf, "DESTINATIONS")?,
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
            hits: HitMaps::take(&mut ebpf, *chunks)?,
            hit_links: Mutex::default(),
            programs: Mutex::new(ebpf),
        };
        insert(&kernel.pending_begun, "PENDING_BEGUN", &0, &0)?;
        insert(&kernel.pending_taken, "PENDING_TAKEN", &0, &0)?;
        Ok(kernel)
    }

    /// The maps of hits.
    pub fn hits(&self) -> &HitMaps {
        &self.hits
    }

    /// Loads the programs that answer requests, for the sockets that are enrolled by hand.
    ///
    /// # Errors
    /// What the kernel refuses, in the kernel's words.
    pub fn load_hits(&self) -> Result<(), KernelError> {
        let mut ebpf = lock(&self.programs);
        let failed = |program| move |source| KernelError::Program { program, source };
        sock_ops(&mut ebpf, ENROL)?.load().map_err(failed(ENROL))?;
        let program = ebpf.program_mut(SENT).ok_or(KernelError::Missing(SENT))?;
        let program: &mut SkMsg = program.try_into().map_err(failed(SENT))?;
        program.load().map_err(failed(SENT))?;
        let link = program.attach(lock(self.hits.clients()).fd()).map_err(failed(SENT))?;
        lock(&self.hit_links)._sent = Some(program.take_link(link).map_err(failed(SENT))?);
        Ok(())
    }

    /// Notices who reads with splice(2), from now on.
    ///
    /// # Errors
    /// Where the kernel lets nobody trace `tcp_splice_read`.
    pub fn watch_splice(&self) -> Result<(), KernelError> {
        let mut ebpf = lock(&self.programs);
        let failed = |source| KernelError::Program { program: SPLICE, source };
        let types = Btf::from_sys_fs().map_err(|error| failed(error.into()))?;
        let program = ebpf.program_mut(SPLICE).ok_or(KernelError::Missing(SPLICE))?;
        let program: &mut FEntry = program.try_into().map_err(failed)?;
        program.load("tcp_splice_read", &types).map_err(failed)?;
        let link = program.attach().map_err(failed)?;
        lock(&self.hit_links)._splice = Some(program.take_link(link).map_err(failed)?);
        Ok(())
    }

    /// Enrols the sockets of workloads that are attached from now on; `load_hits` comes first.
    pub fn enrol_clients(&self) {
        lock(&self.hit_links).is_enrolling = true;
    }

    /// Attaches every hook to a cgroup.
    ///
    /// # Errors
    /// EPERM where a program attached to an ancestor forbids ours (see `preflight`).
    pub fn attach(&self, cgroup: &File) -> Result<Attachment, KernelError> {
        let mut ebpf = lock(&self.programs);
        let failed = |program| move |source| KernelError::Program { program, source };
        let mut attach_sock_ops = |name| -> Result<SockOpsLink, KernelError> {
            let program = sock_ops(&mut ebpf, name)?;
            let link = program.attach(cgroup, CgroupAttachMode::Single).map_err(failed(name))?;
            program.take_link(link).map_err(failed(name))
        };
        let sock_ops = attach_sock_ops(SOCK_OPS)?;
        let is_enrolling = lock(&self.hit_links).is_enrolling;
        let enrol = is_enrolling.then(|| attach_sock_ops(ENROL)).transpose()?;
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
        Ok(Attachment { connect: attach(&CONNECT)?, names, _sock_ops: sock_ops, enrol })
    }

    /// Makes a workload, its ports and its counters known; where `members` are named, only connections from those cgroups
    /// in it are redirected.
    ///
    /// # Errors
    /// A full map: the workload stays direct.
    pub fn insert_workload(
        &self,
        workload: Workload,
        members: &[u64],
        ports: &[u16],
    ) -> Result<(), KernelError> {
        let id = workload.id;
        if workload.flags & EXCLUDED == 0 {
            insert(&self.pending_begun, "PENDING_BEGUN", &id, &0)?;
            insert(&self.pending_taken, "PENDING_TAKEN", &id, &0)?;
        }
        for port in ports {
            insert(&self.ports, "PORTS", &PortKey { workload: id, port: u32::from(*port), reserved: 0 }, &1)?;
        }
        self.update_workload(workload, members)
    }

    /// Replaces what the kernel knows of a workload (its flags change).
    ///
    /// # Errors
    /// A full map.
    pub fn update_workload(&self, workload: Workload, members: &[u64]) -> Result<(), KernelError> {
        let insert = |id, workload| insert(&self.workloads, "WORKLOADS", &id, &workload);
        if members.is_empty() {
            return insert(workload.id, workload);
        }
        // Whatever else is in it, such as a mesh's proxy in whatever cgroup, is not redirected.
        insert(workload.id, Workload { flags: workload.flags | EXCLUDED, ..workload })?;
        members.iter().try_for_each(|id| insert(*id, workload))
    }

    /// Makes these the destinations that are intercepted for workloads with `BY_DESTINATION`, given those that were;
    /// returns those that did not fit.
    pub fn replace_destinations(
        &self,
        before: &HashSet<SocketAddr>,
        now: &HashSet<SocketAddr>,
    ) -> Vec<SocketAddr> {
        let mut map = lock(&self.destinations);
        let key =
            |at: &SocketAddr| DestinationKey { ip: words(at.ip()), port: u32::from(at.port()), reserved: 0 };
        for gone in before.difference(now) {
            // What is not there needs no removal.
            let _ = map.remove(&key(gone));
        }
        now.difference(before).filter(|new| map.insert(key(new), 1, 0).is_err()).copied().collect()
    }

    /// Forgets a workload: its connections go direct from now on.
    pub fn remove_workload(&self, id: u64, members: &[u64], ports: &[u16]) {
        // What is not there needs no removal.
        for id in members.iter().chain([&id]) {
            let _ = lock(&self.workloads).remove(id);
        }
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
        self.set_heartbeat(0, now_ns)
    }

    /// The same for hits: 0 ends them.
    ///
    /// # Errors
    /// None that a valid handle could cause.
    pub fn beat_for_hits(&self, now_ns: u64) -> Result<(), KernelError> {
        self.set_heartbeat(1, now_ns)
    }

    fn set_heartbeat(&self, index: u32, now_ns: u64) -> Result<(), KernelError> {
        lock(&self.heartbeat)
            .set(index, now_ns, 0)
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

    /// Sets every counter of the programs to zero: what the self-test did is nobody's.
    ///
    /// # Errors
    /// None that a valid handle could cause.
    pub fn forget_counts(&mut self) -> Result<(), KernelError> {
        let failed = |source| KernelError::Map { map: "COUNTS", source };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(error.into()))?;
        for counter in Counter::ALL {
            let zeros = PerCpuValues::try_from(vec![0; cpus]).map_err(|error| failed(error.into()))?;
            self.counts.set(*counter as u32, zeros, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// What a counter of the programs stands at, all CPUs together.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counts.get(&(counter as u32), 0).map(|slots| slots.iter().sum()).unwrap_or(0)
    }
}

pub(super) fn insert<K: aya::Pod, V: aya::Pod>(
    map: &Typed<K, V>,
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

fn sock_ops<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SockOps, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    program.try_into().map_err(|source| KernelError::Program { program: name, source })
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
