//! cgroup/sockops: tells the daemon, before the SYN leaves, where a redirected connection was meant to go.

use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops};
use aya_ebpf::programs::SockOpsContext;
use cache_common::connection::{ConnectionKey, IpWords, mapped};
use cache_common::event::Counter;
use cache_common::{AF_INET, AF_INET6};

use crate::context::{load_ip6, load_u32};
use crate::maps::{ORIGINAL_DST, PENDING_BEGUN, count, socket_dst};

/// A TCP socket of the workload changed its state.
#[inline(always)]
pub fn changed(ctx: &SockOpsContext) {
    if load_u32!(ctx.ops, bpf_sock_ops, op) != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return;
    }
    // SAFETY: the context's socket; read as a pointer only.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    let Some(original) = socket_dst(socket) else { return };
    let Some((client_ip, listener_ip)) = addresses(ctx.ops) else { return };
    let key = ConnectionKey {
        netns_cookie: original.netns_cookie,
        client_ip,
        listener_ip,
        client_port: load_u32!(ctx.ops, bpf_sock_ops, local_port),
        listener_port: u32::from_be(load_u32!(ctx.ops, bpf_sock_ops, remote_port)),
    };
    // What an earlier connection with the same port left there is counted already, and will be taken out once only.
    if ORIGINAL_DST.insert(key, original, BPF_NOEXIST.into()).is_ok() {
        begun(original.workload);
        begun(0);
    } else if ORIGINAL_DST.insert(key, original, BPF_EXIST.into()).is_err() {
        count(Counter::OriginalDstFull);
    }
}

#[inline(always)]
fn begun(workload: u64) {
    if let Some(counter) = PENDING_BEGUN.get_ptr_mut(workload) {
        // core has no fetch_add for this target without compare-and-swap; the instruction exists since Linux 4.
        // SAFETY: an aligned u64 in a map value, changed by this instruction only.
        unsafe {
            core::arch::asm!("lock *(u64 *)({at} + 0) += {one}", at = in(reg) counter, one = in(reg) 1_u64)
        };
    }
}

/// The socket's own address and its peer's.
#[inline(always)]
fn addresses(ops: *mut bpf_sock_ops) -> Option<(IpWords, IpWords)> {
    match load_u32!(ops, bpf_sock_ops, family) {
        AF_INET => Some((
            mapped(load_u32!(ops, bpf_sock_ops, local_ip4)),
            mapped(load_u32!(ops, bpf_sock_ops, remote_ip4)),
        )),
        AF_INET6 => {
            // A v4-mapped socket has its addresses in the IPv4 fields and, mapped, in the IPv6 ones.
            Some((load_ip6!(ops, bpf_sock_ops, local_ip6), load_ip6!(ops, bpf_sock_ops, remote_ip6)))
        }
        _ => None,
    }
}
