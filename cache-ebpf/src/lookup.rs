//! Looks for other TCP sockets in the network namespace of the connecting one: may it be sent to the listener at all?

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::{bpf_sk_lookup_tcp, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::SockAddrContext;
use cache_common::connection::IpWords;

use crate::context::{load_ip6, load_u32};

/// 127.0.0.1 in network byte order.
pub const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();
/// `::1` in network byte order.
pub const LOOPBACK6: IpWords = [0, 0, 0, 1_u32.to_be()];
/// TCP_LISTEN.
const LISTEN: u32 = 10;
/// BPF_F_CURRENT_NETNS: the namespace of the context's socket.
const CURRENT_NETNS: u64 = u64::MAX;

type Tuple4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1;
type Tuple6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2;

/// Whether somebody listens on the redirect address.
#[inline(always)]
pub fn is_listening(ctx: &SockAddrContext, via4: bool, port: u32) -> bool {
    let (mut tuple, size) = tuple(via4, 0, LOOPBACK4, LOOPBACK6, port_of(port));
    // SAFETY: the tuple is initialised and of the size given; the reference is released at once.
    unsafe {
        let socket = bpf_sk_lookup_tcp(ctx.as_ptr(), &mut tuple, size, CURRENT_NETNS, 0);
        if socket.is_null() {
            return false;
        }
        let is_listening = (*socket).state == LISTEN;
        bpf_sk_release(socket.cast());
        is_listening
    }
}

/// Whether another socket with the same bound port is connected to the redirect address, or was a moment ago.
///
/// Ports may be shared (SO_REUSEADDR, SO_REUSEPORT) as long as destinations differ; ours is one for all of them.
#[inline(always)]
pub fn is_taken(ctx: &SockAddrContext, connecting: *mut bpf_sock, via4: bool, port: u32) -> bool {
    let own_port = load_u32!(connecting, bpf_sock, src_port);
    if own_port == 0 {
        return false;
    }
    let own4 = match load_u32!(connecting, bpf_sock, src_ip4) {
        0 => LOOPBACK4,
        bound => bound,
    };
    let own6 = match load_ip6!(connecting, bpf_sock, src_ip6) {
        [0, 0, 0, 0] => LOOPBACK6,
        bound => bound,
    };
    let (mut tuple, size) = tuple(via4, port_of(port), own4, own6, port_of(own_port));
    // SAFETY: as above. This helper also finds what is in TIME_WAIT, which is no whole socket but has a state.
    unsafe {
        let socket = bpf_skc_lookup_tcp(ctx.as_ptr(), &mut tuple, size, CURRENT_NETNS, 0);
        if socket.is_null() {
            return false;
        }
        let is_connected = (*socket).state != LISTEN;
        bpf_sk_release(socket.cast());
        is_connected
    }
}

#[inline(always)]
fn port_of(port: u32) -> u16 {
    (port as u16).to_be()
}

/// As a packet from the redirect address would bear them; ports in network byte order.
#[inline(always)]
fn tuple(via4: bool, sport: u16, daddr4: u32, daddr6: IpWords, dport: u16) -> (bpf_sock_tuple, u32) {
    // SAFETY: all-zero is a value of this union of integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    if via4 {
        tuple.__bindgen_anon_1.ipv4 = Tuple4 { saddr: LOOPBACK4, daddr: daddr4, sport, dport };
        (tuple, core::mem::size_of::<Tuple4>() as u32)
    } else {
        tuple.__bindgen_anon_1.ipv6 = Tuple6 { saddr: LOOPBACK6, daddr: daddr6, sport, dport };
        (tuple, core::mem::size_of::<Tuple6>() as u32)
    }
}
