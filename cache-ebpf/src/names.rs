//! getpeername4,6: the application still sees the address it asked for; getsockname4,6: and an own address that
//! others could reach, not the loopback one its redirected socket really has.

use core::ptr::{addr_of_mut, write_volatile};

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::programs::SockAddrContext;
use cache_common::connection::{OriginalDst, is_loopback, is_mapped, mapped};
use cache_common::redirect::Workload;

use crate::context::{load_ip6, load_u32};
use crate::maps::{WORKLOADS, socket_dst};

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the context's socket; read as a pointer only.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

/// The peer of an IPv4 socket.
#[inline(always)]
pub fn peername4(ctx: &SockAddrContext) {
    let Some(original) = socket_dst(socket(ctx)) else { return };
    // SAFETY: writable fields of the context.
    unsafe {
        write_volatile(addr_of_mut!((*ctx.sock_addr).user_ip4), original.ip[3]);
        write_volatile(addr_of_mut!((*ctx.sock_addr).user_port), (original.port as u16).to_be() as u32);
    }
}

/// The peer of an IPv6 socket.
#[inline(always)]
pub fn peername6(ctx: &SockAddrContext) {
    let Some(original) = socket_dst(socket(ctx)) else { return };
    write_ip6(ctx.sock_addr, original.ip);
    // SAFETY: a writable field of the context.
    unsafe {
        write_volatile(addr_of_mut!((*ctx.sock_addr).user_port), (original.port as u16).to_be() as u32)
    };
}

/// The own address of an IPv4 socket.
#[inline(always)]
pub fn sockname4(ctx: &SockAddrContext) {
    let Some(workload) = renamed(ctx) else { return };
    let own = mapped(load_u32!(ctx.sock_addr, bpf_sock_addr, user_ip4));
    if is_loopback(&own) && workload.address4 != 0 {
        // SAFETY: a writable field of the context.
        unsafe { write_volatile(addr_of_mut!((*ctx.sock_addr).user_ip4), workload.address4) };
    }
}

/// The own address of an IPv6 socket.
#[inline(always)]
pub fn sockname6(ctx: &SockAddrContext) {
    let Some(workload) = renamed(ctx) else { return };
    let own = load_ip6!(ctx.sock_addr, bpf_sock_addr, user_ip6);
    if !is_loopback(&own) {
        return;
    }
    if is_mapped(&own) {
        if workload.address4 != 0 {
            write_ip6(ctx.sock_addr, mapped(workload.address4));
        }
    } else if workload.address6[0] != 0 {
        write_ip6(ctx.sock_addr, workload.address6);
    }
}

/// The workload of a socket whose own address is not the one it would have had.
#[inline(always)]
fn renamed(ctx: &SockAddrContext) -> Option<&'static Workload> {
    let original: &OriginalDst = socket_dst(socket(ctx))?;
    if is_loopback(&original.ip) {
        return None;
    }
    // SAFETY: an entry is replaced as a whole and freed after an RCU grace period, which this program is in.
    unsafe { WORKLOADS.get(original.workload) }
}

#[inline(always)]
fn write_ip6(address: *mut bpf_sock_addr, ip: [u32; 4]) {
    // SAFETY: writable fields of the context, a word at a time.
    unsafe {
        write_volatile(addr_of_mut!((*address).user_ip6[0]), ip[0]);
        write_volatile(addr_of_mut!((*address).user_ip6[1]), ip[1]);
        write_volatile(addr_of_mut!((*address).user_ip6[2]), ip[2]);
        write_volatile(addr_of_mut!((*address).user_ip6[3]), ip[3]);
    }
}
