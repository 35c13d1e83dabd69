//! The redirect decision as a pure function: the same code runs in the kernel and in the tests on the host.

use crate::connection::{IpWords, is_link_local6, is_loopback, is_mapped};
use crate::event::Counter;

/// The workload is never redirected: a mesh proxy's container, the daemon itself.
pub const EXCLUDED: u32 = 1;
/// Connections to loopback addresses are redirected too.
pub const LOOPBACK: u32 = 2;
/// New connections go direct for now.
pub const PAUSED: u32 = 4;

/// What is redirected are the cluster's HTTP services, not ports of the workload's own.
pub const BY_DESTINATION: u32 = 8;

/// IPPROTO_TCP.
pub const TCP: u32 = 6;

/// What the kernel knows of an enrolled workload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Id of the workload's cgroup, also in the entries of containers that are in it.
    pub id: u64,
    /// Cookie of the network namespace its listeners are in.
    pub netns_cookie: u64,
    /// Port of the listener on 127.0.0.1.
    pub listener4_port: u32,
    /// Port of the listener on `::1`; 0 where the namespace has no IPv6 loopback.
    pub listener6_port: u32,
    /// `EXCLUDED`, `LOOPBACK`, `PAUSED`, `BY_DESTINATION`.
    pub flags: u32,
    /// How many redirected connections may wait for the daemon's `accept()`.
    pub pending_max: u32,
    /// The workload's own IPv6 address, shown by `getsockname()`; zero where there is none.
    pub address6: IpWords,
    /// The workload's own IPv4 address (network byte order); zero where there is none.
    pub address4: u32,
    /// Which of this cgroup's enrolments it is: what one was given is not another's.
    pub epoch: u32,
}

#[cfg(feature = "user")]
// SAFETY: #[repr(C)], integers only, no padding (see the test below): every bit pattern is a value.
unsafe impl aya::Pod for Workload {}

/// What a decision may ask about one `connect()`; each answer is looked up only when it is needed.
pub trait Connect {
    /// IP protocol of the socket.
    fn protocol(&self) -> u32;
    /// Destination address; IPv4 mapped.
    fn ip(&self) -> IpWords;
    /// Whether the socket is an IPv6 one.
    fn is_socket6(&self) -> bool;
    /// Whether the destination is intercepted for the workload: its port, or with `BY_DESTINATION` its address and port.
    fn is_intercepted(&self) -> bool;
    /// Whether the socket's packets take a route of their own: it is bound to a device, or marked (SO_MARK).
    fn is_routed_apart(&self) -> bool;
    /// Whether the calling user is excluded.
    fn is_user_excluded(&self) -> bool;
    /// Cookie of the socket's network namespace.
    fn netns_cookie(&self) -> u64;
    /// Now, nanoseconds of `CLOCK_BOOTTIME`.
    fn now_ns(&self) -> u64;
    /// The daemon's last heartbeat on the same clock; 0: the switch is off.
    fn heartbeat_ns(&self) -> u64;
    /// Until when the destination is left alone, on the same clock; 0: it is not.
    fn bypass_until_ns(&self) -> u64;
    /// Redirected connections that the daemon has not accepted yet.
    fn pending(&self) -> u64;
    /// Whether somebody listens on the redirect address in the socket's network namespace, and the port that the
    /// socket may be bound to is not connected there already.
    fn is_reachable(&self, via4: bool, port: u32) -> bool;
}

/// Where a connection is sent: the listener on 127.0.0.1 (`via4`) or on `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 127.0.0.1 (also as a v4-mapped address) rather than `::1`.
    pub via4: bool,
    /// The listener's port.
    pub port: u32,
}

/// How old the heartbeat may be before connections go direct: 0.5 s, five beats.
pub const HEARTBEAT_MAX_AGE_NS: u64 = 500_000_000;

/// Decides whether a `connect()` is sent to the node's cache.
///
/// The error is the counter of the reason why it goes direct; `None` for what was never ours to look at.
#[inline(always)]
pub fn decide(workload: &Workload, connect: &impl Connect) -> Result<Redirect, Option<Counter>> {
    if connect.protocol() != TCP {
        return Err(None);
    }
    if workload.flags & EXCLUDED != 0 {
        return Err(Some(Counter::PassedExcluded));
    }
    if !connect.is_intercepted() {
        return Err(Some(Counter::PassedPort));
    }
    let ip = connect.ip();
    if is_link_local6(&ip) || (is_loopback(&ip) && workload.flags & LOOPBACK == 0) {
        return Err(Some(Counter::PassedAddress));
    }
    // A socket bound to a device cannot reach 127.0.0.1; one with a mark has a route that our upstream socket lacks.
    if connect.is_routed_apart() {
        return Err(Some(Counter::PassedDevice));
    }
    if connect.is_user_excluded() {
        return Err(Some(Counter::PassedExcluded));
    }
    // In another namespace the same loopback address is somebody else's.
    if connect.netns_cookie() != workload.netns_cookie {
        return Err(Some(Counter::PassedNetns));
    }
    if workload.flags & PAUSED != 0 {
        return Err(Some(Counter::PassedPaused));
    }
    let (now, heartbeat) = (connect.now_ns(), connect.heartbeat_ns());
    if heartbeat == 0 {
        return Err(Some(Counter::PassedOff));
    }
    // Saturating: a beat may be younger than `now`.
    if now.saturating_sub(heartbeat) > HEARTBEAT_MAX_AGE_NS {
        return Err(Some(Counter::PassedStale));
    }
    if connect.bypass_until_ns() > now {
        return Err(Some(Counter::PassedBypass));
    }
    if connect.pending() >= workload.pending_max as u64 {
        return Err(Some(Counter::PassedPending));
    }
    let via4 = !connect.is_socket6() || is_mapped(&ip);
    let port = if via4 { workload.listener4_port } else { workload.listener6_port };
    if port == 0 || !connect.is_reachable(via4, port) {
        return Err(Some(Counter::PassedNoListener));
    }
    Ok(Redirect { via4, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::mapped;

    const NOW: u64 = 10_000_000_000;

    #[derive(Clone)]
    struct Fake {
        protocol: u32,
        ip: IpWords,
        socket6: bool,
        port: bool,
        device: bool,
        user: bool,
        netns: u64,
        heartbeat: u64,
        bypass: u64,
        pending: u64,
        listening: bool,
    }

    impl Connect for Fake {
        fn protocol(&self) -> u32 {
            self.protocol
        }
        fn ip(&self) -> IpWords {
            self.ip
        }
        fn is_socket6(&self) -> bool {
            self.socket6
        }
        fn is_intercepted(&self) -> bool {
            self.port
        }
        fn is_routed_apart(&self) -> bool {
            self.device
        }
        fn is_user_excluded(&self) -> bool {
            self.user
        }
        fn netns_cookie(&self) -> u64 {
            self.netns
        }
        fn now_ns(&self) -> u64 {
            NOW
        }
        fn heartbeat_ns(&self) -> u64 {
            self.heartbeat
        }
        fn bypass_until_ns(&self) -> u64 {
            self.bypass
        }
        fn pending(&self) -> u64 {
            self.pending
        }
        fn is_reachable(&self, _via4: bool, _port: u32) -> bool {
            self.listening
        }
    }

    fn remote() -> IpWords {
        mapped(u32::from_ne_bytes([10, 0, 0, 7]))
    }

    fn usual() -> (Workload, Fake) {
        let workload = Workload {
            netns_cookie: 3,
            listener4_port: 4000,
            listener6_port: 6000,
            pending_max: 8,
            ..Workload::default()
        };
        let fake = Fake {
            protocol: TCP,
            ip: remote(),
            socket6: false,
            port: true,
            device: false,
            user: false,
            netns: 3,
            heartbeat: NOW - 100_000_000,
            bypass: 0,
            pending: 0,
            listening: true,
        };
        (workload, fake)
    }

    #[test]
    fn a_connection_to_an_intercepted_port_is_redirected_in_its_own_family() {
        let (workload, fake) = usual();
        assert_eq!(decide(&workload, &fake), Ok(Redirect { via4: true, port: 4000 }));
        let mapped = Fake { socket6: true, ..fake.clone() };
        assert_eq!(decide(&workload, &mapped), Ok(Redirect { via4: true, port: 4000 }));
        let six = Fake { socket6: true, ip: [0x2001_0db8_u32.to_be(), 0, 0, 9], ..fake };
        assert_eq!(decide(&workload, &six), Ok(Redirect { via4: false, port: 6000 }));
    }

    #[test]
    fn each_reason_to_leave_a_connection_alone_has_its_counter() {
        let (workload, fake) = usual();
        let loopback = mapped(u32::from_ne_bytes([127, 0, 0, 1]));
        let flags = |flags| Workload { flags, ..workload };
        let cases: &[(Workload, Fake, Option<Counter>)] = &[
            (workload, Fake { protocol: 17, ..fake.clone() }, None),
            (flags(EXCLUDED), fake.clone(), Some(Counter::PassedExcluded)),
            (workload, Fake { port: false, ..fake.clone() }, Some(Counter::PassedPort)),
            (workload, Fake { ip: loopback, ..fake.clone() }, Some(Counter::PassedAddress)),
            (workload, Fake { device: true, ..fake.clone() }, Some(Counter::PassedDevice)),
            (workload, Fake { user: true, ..fake.clone() }, Some(Counter::PassedExcluded)),
            (workload, Fake { netns: 4, ..fake.clone() }, Some(Counter::PassedNetns)),
            (flags(PAUSED), fake.clone(), Some(Counter::PassedPaused)),
            (workload, Fake { heartbeat: 0, ..fake.clone() }, Some(Counter::PassedOff)),
            (workload, Fake { heartbeat: NOW - 500_000_001, ..fake.clone() }, Some(Counter::PassedStale)),
            (workload, Fake { bypass: NOW + 1, ..fake.clone() }, Some(Counter::PassedBypass)),
            (workload, Fake { pending: 8, ..fake.clone() }, Some(Counter::PassedPending)),
            (workload, Fake { listening: false, ..fake.clone() }, Some(Counter::PassedNoListener)),
        ];
        for (workload, fake, why) in cases {
            assert_eq!(decide(workload, fake), Err(*why));
        }
    }

    #[test]
    fn loopback_is_redirected_only_where_it_was_asked_for() {
        let (workload, fake) = usual();
        let loopback = Fake { ip: mapped(u32::from_ne_bytes([127, 0, 0, 1])), ..fake };
        assert!(decide(&workload, &loopback).is_err());
        assert!(decide(&Workload { flags: LOOPBACK, ..workload }, &loopback).is_ok());
    }

    #[test]
    fn without_an_ipv6_listener_ipv6_goes_direct() {
        let (workload, fake) = usual();
        let six = Fake { socket6: true, ip: [0x2001_0db8_u32.to_be(), 0, 0, 9], ..fake };
        let workload = Workload { listener6_port: 0, ..workload };
        assert_eq!(decide(&workload, &six), Err(Some(Counter::PassedNoListener)));
    }

    #[test]
    fn an_expired_bypass_is_over() {
        let (workload, fake) = usual();
        assert!(decide(&workload, &Fake { bypass: NOW, ..fake }).is_ok());
    }

    #[test]
    fn the_map_type_has_no_padding() {
        assert_eq!(core::mem::size_of::<Workload>(), 8 + 8 + 4 * 4 + 16 + 4 + 4);
    }
}
