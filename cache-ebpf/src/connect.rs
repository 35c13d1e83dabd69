//! cgroup/connect4 and connect6: sends a new connection to the node's cache, or leaves it alone.
//!
//! What is decided stands in `cache_common::redirect`; this file only looks things up and rewrites.

use core::ptr::{addr_of_mut, write_volatile};

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_uid_gid,
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
};
use aya_ebpf::programs::SockAddrContext;
use cache_common::connection::{BypassKey, DestinationKey, IpWords, OriginalDst, PortKey, is_mapped, mapped};
use cache_common::event::Counter;
use cache_common::redirect::{BY_DESTINATION, Connect, Redirect, Workload, decide};
use cache_common::{AF_INET, AF_INET6};

use crate::context::{load_ip6, load_u32};
use crate::lookup::{self, LOOPBACK4, LOOPBACK6};
use crate::maps::{
    BYPASS, DESTINATIONS, EXCLUDED_USERS, HEARTBEAT, PENDING_BEGUN, PENDING_TAKEN, PORTS, SOCKET_DST,
    WORKLOADS,
};

/// How deep below a workload's cgroup, or how deep in the tree, a process may be: kubelet's trees end at 5.
const CGROUP_LEVELS: i32 = 12;
/// Of `ORIGINAL_DST`, what all workloads together may fill; the rest is slack for what is between the check and the insert.
const PENDING_TOTAL_MAX: u64 = 60_000;

/// IPv4 sockets.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> Result<(), Option<Counter>> {
    let address = ctx.sock_addr;
    let ip = mapped(load_u32!(address, bpf_sock_addr, user_ip4));
    let attempt = Attempt::new(ctx, ip, AF_INET)?;
    let redirect = attempt.decide()?;
    // SAFETY: writable fields of the context.
    unsafe {
        write_volatile(addr_of_mut!((*address).user_ip4), LOOPBACK4);
        write_volatile(addr_of_mut!((*address).user_port), (redirect.port as u16).to_be() as u32);
    }
    Ok(())
}

/// IPv6 sockets; a v4-mapped destination stays v4-mapped.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> Result<(), Option<Counter>> {
    let address = ctx.sock_addr;
    let ip = load_ip6!(address, bpf_sock_addr, user_ip6);
    let attempt = Attempt::new(ctx, ip, AF_INET6)?;
    let redirect = attempt.decide()?;
    let target = if redirect.via4 { mapped(LOOPBACK4) } else { LOOPBACK6 };
    // SAFETY: writable fields of the context, a word at a time.
    unsafe {
        write_volatile(addr_of_mut!((*address).user_ip6[0]), target[0]);
        write_volatile(addr_of_mut!((*address).user_ip6[1]), target[1]);
        write_volatile(addr_of_mut!((*address).user_ip6[2]), target[2]);
        write_volatile(addr_of_mut!((*address).user_ip6[3]), target[3]);
        write_volatile(addr_of_mut!((*address).user_port), (redirect.port as u16).to_be() as u32);
    }
    Ok(())
}

struct Attempt<'a> {
    ctx: &'a SockAddrContext,
    socket: *mut bpf_sock,
    ip: IpWords,
    port: u32,
    family: u32,
    workload: &'a Workload,
}

impl<'a> Attempt<'a> {
    #[inline(always)]
    fn new(ctx: &'a SockAddrContext, ip: IpWords, family: u32) -> Result<Self, Option<Counter>> {
        // SAFETY: the context's socket; read as a pointer only.
        let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
        if socket.is_null() {
            return Err(None);
        }
        // A socket that was redirected once may connect again, elsewhere: what it remembers is no longer true.
        // SAFETY: the socket pointer comes from the context and is not null.
        let _ = unsafe { SOCKET_DST.delete(socket) };
        let workload = find_workload().ok_or(None)?;
        let port = u16::from_be(load_u32!(ctx.sock_addr, bpf_sock_addr, user_port) as u16) as u32;
        Ok(Self { ctx, socket, ip, port, family, workload })
    }

    /// Decides, and remembers the original destination before anything is rewritten.
    #[inline(always)]
    fn decide(&self) -> Result<Redirect, Option<Counter>> {
        let redirect = decide(self.workload, self)?;
        let mut original = OriginalDst {
            ip: self.ip,
            port: self.port,
            family: self.family,
            workload: self.workload.id,
            netns_cookie: self.workload.netns_cookie,
            begun_at_ns: self.now_ns(),
            // SAFETY: the context of this program.
            cookie: unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) },
            epoch: self.workload.epoch,
            reserved: 0,
        };
        // SAFETY: creates the value from `original`; null means that there was no memory.
        let kept = unsafe { SOCKET_DST.get_or_insert_ptr_mut(self.ctx, Some(&mut original)) };
        if kept.is_null() { Err(Some(Counter::PassedStorage)) } else { Ok(redirect) }
    }
}

/// The innermost cgroup of the calling process that is enrolled or excluded.
#[inline(always)]
fn find_workload() -> Option<&'static Workload> {
    // SAFETY: no arguments.
    let own = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: an entry is replaced as a whole and freed after an RCU grace period, which this program is in.
    if let Some(workload) = unsafe { WORKLOADS.get(own) } {
        return Some(workload);
    }
    let mut level = CGROUP_LEVELS;
    while level > 0 {
        // SAFETY: answers 0 for a level that the process does not have.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if ancestor != 0 {
            // SAFETY: as above.
            if let Some(workload) = unsafe { WORKLOADS.get(ancestor) } {
                return Some(workload);
            }
        }
        level -= 1;
    }
    None
}

#[inline(always)]
fn pending_of(workload: u64) -> u64 {
    // SAFETY: counters; a torn read is impossible for an aligned u64.
    let begun = unsafe { PENDING_BEGUN.get(workload) }.copied().unwrap_or(u64::MAX);
    // SAFETY: as above.
    let taken = unsafe { PENDING_TAKEN.get(workload) }.copied().unwrap_or(0);
    begun.saturating_sub(taken)
}

impl Connect for Attempt<'_> {
    #[inline(always)]
    fn protocol(&self) -> u32 {
        load_u32!(self.ctx.sock_addr, bpf_sock_addr, protocol)
    }
    #[inline(always)]
    fn ip(&self) -> IpWords {
        self.ip
    }
    #[inline(always)]
    fn is_socket6(&self) -> bool {
        self.family == AF_INET6
    }
    #[inline(always)]
    fn is_intercepted(&self) -> bool {
        if self.workload.flags & BY_DESTINATION != 0 {
            let key = DestinationKey { ip: self.ip, port: self.port, reserved: 0 };
            // SAFETY: only whether it is there.
            return unsafe { DESTINATIONS.get(key) }.is_some();
        }
        let key = PortKey { workload: self.workload.id, port: self.port, reserved: 0 };
        // SAFETY: only whether it is there.
        unsafe { PORTS.get(key) }.is_some()
    }
    #[inline(always)]
    fn is_routed_apart(&self) -> bool {
        load_u32!(self.socket, bpf_sock, bound_dev_if) != 0 || load_u32!(self.socket, bpf_sock, mark) != 0
    }
    #[inline(always)]
    fn is_user_excluded(&self) -> bool {
        // SAFETY: only whether it is there.
        unsafe { EXCLUDED_USERS.get(bpf_get_current_uid_gid() as u32) }.is_some()
    }
    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: the context of this program.
        unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) }
    }
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_boot_ns() }
    }
    #[inline(always)]
    fn heartbeat_ns(&self) -> u64 {
        HEARTBEAT.get(0).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn bypass_until_ns(&self) -> u64 {
        let ip = if self.family == AF_INET6 && is_mapped(&self.ip) { mapped(self.ip[3]) } else { self.ip };
        let key = BypassKey { workload: self.workload.id, ip, port: self.port, reserved: 0 };
        // SAFETY: a u64 that the daemon replaces as a whole.
        unsafe { BYPASS.get(key) }.copied().unwrap_or(0)
    }
    #[inline(always)]
    fn pending(&self) -> u64 {
        if pending_of(0) >= PENDING_TOTAL_MAX { u64::MAX } else { pending_of(self.workload.id) }
    }
    #[inline(always)]
    fn is_reachable(&self, via4: bool, port: u32) -> bool {
        lookup::is_listening(self.ctx, via4, port) && !lookup::is_taken(self.ctx, self.socket, via4, port)
    }
}
