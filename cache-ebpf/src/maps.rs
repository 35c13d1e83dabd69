//! Every map: its key, its value, who writes it, who reads it, and what happens when it is full.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use cache_common::connection::{BypassKey, ConnectionKey, OriginalDst, PortKey};
use cache_common::event::{COUNTERS, Counter};
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

/// Users whose connections are left alone (mesh proxies).
///
/// Key: uid. Written by the daemon, read by `connect`. Full: the daemon refuses to start.
#[map]
pub static EXCLUDED_USERS: HashMap<u32, u32> = HashMap::with_max_entries(64, 0);

/// The daemon's last sign of life, nanoseconds of `CLOCK_BOOTTIME`; 0 while the switch is off.
///
/// Written by the daemon's heartbeat thread, read by `connect`.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

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

/// One slot for each `Counter`. Written by the programs, read by the daemon.
#[map]
pub static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// Counts one event.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own, and programs of one kind do not interrupt each other here.
        unsafe { *slot += 1 }
    }
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
