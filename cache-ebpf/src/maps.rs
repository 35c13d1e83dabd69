//! Every map: its key, its value, who writes it, who reads it, and what happens when it is full.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::btf_maps::{Array as InnerArray, ArrayOfMaps, SkStorage};
use aya_ebpf::helpers::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, SockHash};
use cache_common::connection::{BypassKey, ConnectionKey, DestinationKey, OriginalDst, PortKey};
use cache_common::event::{COUNTERS, Counter};
use cache_common::hot::{
    Asker, CHUNK_WORDS, ConnectionRecord, HotKey, HotSlot, Published, SCRATCH_CELLS, setting,
};
use cache_common::redirect::Workload;

/// Enrolled workloads, and cgroups that are excluded.
///
/// Key: cgroup id. Written by the daemon, read by every hook.
/// Full: the daemon cannot enrol the workload and says so; its connections go direct.
#[map]
pub static WORKLOADS: HashMap<u64, Workload> = HashMap::with_max_entries(8192, 0);

/// Ports that are intercepted, for each workload.
///
/// Written by the daemon, read by `connect`. Full: as for `WORKLOADS`.
#[map]
pub static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(65536, 0);

/// The cluster's HTTP services: what is intercepted for workloads with `BY_DESTINATION`.
///
/// Written by the daemon, read by `connect`. Full: what does not fit goes direct; the daemon says so.
#[map]
pub static DESTINATIONS: HashMap<DestinationKey, u32> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Users whose connections are left alone (mesh proxies).
///
/// Key: uid. Written by the daemon, read by `connect`. Full: the daemon refuses to start.
#[map]
pub static EXCLUDED_USERS: HashMap<u32, u32> = HashMap::with_max_entries(64, 0);

/// The daemon's last sign of life, nanoseconds of `CLOCK_BOOTTIME`; 0 while the switch is off. Of two: for new
/// connections, and for answers of the kernel.
///
/// Written by the daemon's heartbeat thread, read by `connect` and `sk_msg`.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(2, 0);

/// What the programs are told while they run; see `cache_common::hot::setting`.
///
/// Written by the daemon once its self-test knows, read by `sk_msg`.
#[map]
pub static SETTINGS: Array<u64> = Array::with_max_entries(setting::COUNT, 0);

/// Destinations left alone until the time stored (`CLOCK_BOOTTIME`), for one workload.
///
/// Written by the daemon, read by `connect`. Full: the least recently used one is redirected again.
#[map]
pub static BYPASS: LruHashMap<BypassKey, u64> = LruHashMap::with_max_entries(16384, 0);

/// Original destination of a redirected socket, kept in the socket itself: never evicted, gone with it.
///
/// Written by `connect`, read by `names` and `sock_ops`. No memory: the connection is not rewritten.
#[btf_map]
pub static SOCKET_DST: SkStorage<OriginalDst> = SkStorage::new();

/// Original destination of each redirected connection that the daemon has not accepted yet.
///
/// Written by `sock_ops` before the SYN leaves, taken out by the daemon at `accept()`; what nobody takes is swept
/// by its age. Full: prevented by the quotas that `connect` checks; else counted in `original_dst_full`.
#[map]
pub static ORIGINAL_DST: HashMap<ConnectionKey, OriginalDst> = HashMap::with_max_entries(65536, 0);

/// How many entries a workload has ever put into `ORIGINAL_DST`; under key 0 all of them together.
///
/// Created by the daemon, incremented by `sock_ops` only.
#[map]
pub static PENDING_BEGUN: HashMap<u64, u64> = HashMap::with_max_entries(8193, 0);

/// How many of them were taken out again. Written by the daemon only.
#[map]
pub static PENDING_TAKEN: HashMap<u64, u64> = HashMap::with_max_entries(8193, 0);

/// The sockets of clients whose requests may be answered by the kernel.
///
/// Key: socket cookie. Written by `enrol`, read by `sk_msg`; a socket leaves it by itself when it is closed.
/// Full: the connection is served by the daemon; counted in `enrol_refused_full`.
#[map]
pub static CLIENTS: SockHash<u64> = SockHash::with_max_entries(CONNECTIONS_MAX, 0);

/// What the kernel counts of each connection in `CLIENTS`.
///
/// Key: socket cookie. Created by `enrol`, written by `sk_msg` and `splice`, read and taken out by the daemon.
/// Full: as for `CLIENTS`.
#[map]
pub static CONNECTIONS: HashMap<u64, ConnectionRecord> =
    HashMap::with_max_entries(CONNECTIONS_MAX, BPF_F_NO_PREALLOC);

/// What the daemon says of each connection in `CLIENTS`; nothing until it has answered something.
///
/// Key: socket cookie. Written by the daemon only, read by `sk_msg`. Full: the connection gets no hits.
#[map]
pub static PUBLISHED: HashMap<u64, Published> = HashMap::with_max_entries(CONNECTIONS_MAX, BPF_F_NO_PREALLOC);

/// Destinations of workloads with resident responses, until when (`CLOCK_BOOTTIME`): others are not enrolled.
///
/// Written by the daemon, read by `enrol`. Full: the least recently used one is no longer enrolled.
#[map]
pub static HOT_DESTINATIONS: LruHashMap<Asker, u64> = LruHashMap::with_max_entries(16384, 0);

/// Where the resident response to a head is.
///
/// Written by the daemon, read by `sk_msg`. Full: nothing more is promoted until something gives way.
#[map]
pub static HOT_INDEX: HashMap<HotKey, HotSlot> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// The resident responses, cut into chunks; the daemon writes through a mapping of this memory, and never what is in
/// the index. Its size is the budget, set at load.
#[map]
pub static HOT_CHUNKS: Array<[u64; CHUNK_WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Holds nothing: a change of a map of maps from user space returns when all programs that ran at its beginning have
/// ended, which is what the daemon waits for before it uses a chunk again.
#[btf_map]
pub static GRACE: ArrayOfMaps<InnerArray<u32, 1>, 1> = ArrayOfMaps::new();

/// Where `sk_msg` keeps the cells of the head that it looks at.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The cells of a head, and how many programs use this memory: one that was interrupted by another of its CPU is the
/// only one to use it.
#[repr(C)]
pub struct Scratch {
    /// How many programs want it.
    pub users: u64,
    /// Always 0.
    pub zero: u64,
    /// The cells.
    pub cells: [u64; SCRATCH_CELLS],
}

/// Bounds the connections that the kernel may answer on.
const CONNECTIONS_MAX: u32 = 65536;
/// Memory when it is used, not before.
const BPF_F_NO_PREALLOC: u32 = 1;
/// Memory that user space may map.
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// One slot for each `Counter`. Written by the programs, read by the daemon.
#[map]
pub static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// Counts one event.
#[inline(always)]
pub fn count(counter: Counter) {
    count_many(counter, 1);
}

/// Counts a number of something.
#[inline(always)]
pub fn count_many(counter: Counter, many: u64) {
    if let Some(slot) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: an aligned u64, a map value, changed in this way only.
        unsafe { add(slot, many) }
    }
}

/// Adds in one piece: a program may be interrupted by another one of its CPU.
///
/// # Safety
/// `slot` is aligned, in a map value, and changed in this way only.
#[inline(always)]
pub unsafe fn add(slot: *mut u64, number: u64) {
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!("lock *(u64 *)({at} + 0) += {number}", at = in(reg) slot, number = in(reg) number)
    };
}

/// Counts a redirected connection, or the reason why it was not.
#[inline(always)]
pub fn count_outcome(outcome: Result<(), Option<Counter>>) {
    match outcome {
        Ok(()) => count(Counter::Redirected),
        Err(Some(why)) => count(why),
        Err(None) => {}
    }
}

/// The original destination kept in a socket.
#[inline(always)]
pub fn socket_dst(socket: *mut bpf_sock) -> Option<&'static OriginalDst> {
    if socket.is_null() {
        return None;
    }
    let map = core::ptr::addr_of!(SOCKET_DST).cast_mut().cast();
    // SAFETY: the socket pointer comes from the context and is not null; null initial value, no creation.
    let value = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0) };
    // SAFETY: the helper returns null or a value of the map's type that lives as long as the socket.
    unsafe { value.cast::<OriginalDst>().as_ref() }
}
