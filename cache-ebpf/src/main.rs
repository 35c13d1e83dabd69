//! Sidestep's kernel programs: entry points only. A hook maps a result to its verdict and never refuses a
//! connection because of a fault of ours; what it decides is in the module of its name.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
// Every module is private to the object: what is public is the ELF.
#![allow(unreachable_pub, missing_docs)]

mod caller;
mod connect;
mod context;
mod enrol;
mod give;
mod head;
mod lookup;
mod maps;
mod names;
mod order;
mod resident;
mod sk_msg;
mod sock_ops;
mod splice;
mod tcp;

use aya_ebpf::macros::{cgroup_sock_addr, fentry, sk_msg, sock_ops};
use aya_ebpf::programs::{FEntryContext, SkMsgContext, SockAddrContext, SockOpsContext};

/// The verdict that lets the system call go on.
const PROCEED: i32 = 1;

/// `connect()` of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn sidestep_connect4(ctx: SockAddrContext) -> i32 {
    maps::count_outcome(connect::connect4(&ctx));
    PROCEED
}

/// `connect()` of an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn sidestep_connect6(ctx: SockAddrContext) -> i32 {
    maps::count_outcome(connect::connect6(&ctx));
    PROCEED
}

/// `getpeername()` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn sidestep_peer4(ctx: SockAddrContext) -> i32 {
    names::peername4(&ctx);
    PROCEED
}

/// `getpeername()` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn sidestep_peer6(ctx: SockAddrContext) -> i32 {
    names::peername6(&ctx);
    PROCEED
}

/// `getsockname()` of an IPv4 socket.
#[cgroup_sock_addr(getsockname4)]
pub fn sidestep_name4(ctx: SockAddrContext) -> i32 {
    names::sockname4(&ctx);
    PROCEED
}

/// `getsockname()` of an IPv6 socket.
#[cgroup_sock_addr(getsockname6)]
pub fn sidestep_name6(ctx: SockAddrContext) -> i32 {
    names::sockname6(&ctx);
    PROCEED
}

/// Changes of a workload's TCP sockets.
#[sock_ops]
pub fn sidestep_sockops(ctx: SockOpsContext) -> u32 {
    sock_ops::changed(&ctx);
    0
}

/// Changes of a workload's TCP sockets, for answers of the kernel.
#[sock_ops]
pub fn sidestep_enrol(ctx: SockOpsContext) -> u32 {
    enrol::changed(&ctx);
    0
}

/// `send()` of an enrolled socket.
#[sk_msg]
pub fn sidestep_sent(ctx: SkMsgContext) -> u32 {
    match sk_msg::sent(&ctx) {
        sk_msg::Verdict::Proceed => 1,
        sk_msg::Verdict::Fail => 0,
    }
}

/// `splice()` from any TCP socket.
#[fentry(function = "tcp_splice_read")]
pub fn sidestep_splice(ctx: FEntryContext) -> u32 {
    splice::read(&ctx);
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that no program reaches this.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
