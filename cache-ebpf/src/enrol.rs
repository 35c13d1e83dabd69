//! cgroup/sockops, for answers of the kernel: enrols a client's socket when its connection is established, and takes it
//! out at its own half-close. Separate from `sock_ops`: where this cannot be loaded, connections are redirected all the
//! same.

use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, BPF_TCP_CLOSE, BPF_TCP_ESTABLISHED,
    BPF_TCP_FIN_WAIT1, bpf_sock_ops,
};
use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_map_delete_elem, bpf_sock_ops_cb_flags_set};
use aya_ebpf::programs::SockOpsContext;
use cache_common::connection::OriginalDst;
use cache_common::event::Counter;
use cache_common::hot::{Asker, CLOSED, ConnectionRecord, LEAVES, LEFT, PIPELINES};

use crate::context::load_u32;
use crate::maps::{CLIENTS, CONNECTIONS, HOT_DESTINATIONS, count, socket_dst};
use crate::tcp::Tcp;

/// What an enrolled socket calls for: changes of its state, and each packet that it sends.
const CALLBACKS: u32 = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;

/// A TCP socket of the workload changed its state, or sends something.
#[inline(always)]
pub fn changed(ctx: &SockOpsContext) {
    let op = load_u32!(ctx.ops, bpf_sock_ops, op);
    if op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        && op != BPF_SOCK_OPS_STATE_CB
        && op != BPF_SOCK_OPS_HDR_OPT_LEN_CB
    {
        return;
    }
    // SAFETY: the context's socket; read as a pointer only.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    let Some(original) = socket_dst(socket) else { return };
    let Some(tcp) = Tcp::of(socket) else { return };
    if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        if let Err(why) = established(ctx, original, tcp) {
            count(why);
        }
        return;
    }
    if op == BPF_SOCK_OPS_HDR_OPT_LEN_CB {
        sends(original, tcp);
        return;
    }
    const ARGUMENTS: usize = core::mem::offset_of!(bpf_sock_ops, __bindgen_anon_1);
    let before = load_u32!(at ctx.ops, ARGUMENTS);
    let after = load_u32!(at ctx.ops, ARGUMENTS + 4);
    if before == BPF_TCP_ESTABLISHED && after == BPF_TCP_FIN_WAIT1 {
        half_closed(original, tcp);
    } else if after == BPF_TCP_CLOSE {
        closed(original);
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext, original: &OriginalDst, tcp: Tcp) -> Result<(), Counter> {
    let asker = Asker::of(original);
    // SAFETY: a u64 that the daemon replaces as a whole.
    let hot_until = unsafe { HOT_DESTINATIONS.get(asker) }.copied().unwrap_or(0);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if hot_until <= now {
        return Ok(());
    }
    if tcp.is_mptcp() {
        return Err(Counter::EnrolRefusedMptcp);
    }
    // Fast Open, or bytes queued while the connection was being made: they never met `sk_msg`.
    if tcp.bytes_sent() != 0 {
        return Err(Counter::EnrolRefusedData);
    }
    let record = ConnectionRecord { last_passed_ns: now, ..ConnectionRecord::default() };
    let refused = |_| Counter::EnrolRefusedFull;
    CONNECTIONS.insert(original.cookie, record, BPF_NOEXIST.into()).map_err(refused)?;
    // SAFETY: the context of this program, and nothing else holds it.
    let ops = unsafe { &mut *ctx.ops };
    let flags = load_u32!(ctx.ops, bpf_sock_ops, bpf_sock_ops_cb_flags) | CALLBACKS;
    // SAFETY: the context of this program.
    let is_told = unsafe { bpf_sock_ops_cb_flags_set(ops, flags as i32) } == 0;
    let mut cookie = original.cookie;
    if !is_told || CLIENTS.update(&mut cookie, ops, BPF_NOEXIST.into()).is_err() {
        let _ = CONNECTIONS.remove(original.cookie);
        return Err(Counter::EnrolRefusedFull);
    }
    count(Counter::Enrolled);
    Ok(())
}

/// A packet is about to leave, within the send() that `sk_msg` has just passed on, so that the read that follows is one
/// of plain TCP.
#[inline(always)]
fn sends(original: &OriginalDst, tcp: Tcp) {
    let Some(record) = record(original) else { return };
    if record.flags & (LEAVES | LEFT) == LEAVES && has_read_hits(record, tcp) && take_out(original.cookie) {
        record.flags |= LEFT;
        count(Counter::LeftToWait);
    }
}

#[inline(always)]
fn record(original: &OriginalDst) -> Option<&'static mut ConnectionRecord> {
    let record = CONNECTIONS.get_ptr_mut(original.cookie)?;
    // SAFETY: a map value until this program ends; the socket is locked, and only its own programs write here.
    Some(unsafe { &mut *record })
}

/// Whether no answer of ours is unread, which would be lost: nothing is, or something was passed on since the last one
/// was given, and that had been read by then.
#[inline(always)]
fn has_read_hits(record: &ConnectionRecord, tcp: Tcp) -> bool {
    tcp.is_empty() || (record.hits_in_row == 0 && record.flags & PIPELINES == 0)
}

/// Takes a socket out: it is one of plain TCP from the next system call on.
#[inline(always)]
fn take_out(mut cookie: u64) -> bool {
    // SAFETY: the map and a key of its type.
    unsafe { bpf_map_delete_elem((&raw const CLIENTS).cast_mut().cast(), (&raw mut cookie).cast()) == 0 }
}

/// A blocking reader of an enrolled socket gets a spurious EAGAIN when its own side is closed: back to plain TCP.
#[inline(always)]
fn half_closed(original: &OriginalDst, tcp: Tcp) {
    let Some(record) = record(original) else { return };
    if record.flags & LEFT == 0 && has_read_hits(record, tcp) && take_out(original.cookie) {
        record.flags |= LEFT;
        count(Counter::LeftAtHalfClose);
    }
}

/// The daemon takes the record out: it may still have to learn that there were answers.
#[inline(always)]
fn closed(original: &OriginalDst) {
    if let Some(record) = record(original) {
        record.flags |= CLOSED;
    }
}
