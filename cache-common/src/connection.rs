//! Names of connections and what is remembered of them between `connect()` and the daemon's `accept()`.

/// An IP address as four 32-bit words in network byte order, IPv4 mapped into `::ffff:0:0/96`.
pub type IpWords = [u32; 4];

/// The address a workload asked for, before its connection was sent to the node's cache.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalDst {
    /// Destination address.
    pub ip: IpWords,
    /// Destination port.
    pub port: u32,
    /// `AF_INET` or `AF_INET6` of the connecting socket; a v4-mapped destination on an IPv6 socket is `AF_INET6`.
    pub family: u32,
    /// Cgroup id of the workload the connecting process belongs to.
    pub workload: u64,
    /// Cookie of the network namespace the socket lives in.
    pub netns_cookie: u64,
    /// When `connect()` was called, nanoseconds of `CLOCK_BOOTTIME`.
    pub begun_at_ns: u64,
    /// Cookie of the connecting socket: no other socket has it until the next boot.
    pub cookie: u64,
    /// `Workload::epoch`.
    pub epoch: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Names a redirected connection the same way on both of its ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// Cookie of the network namespace of both ends: loopback addresses repeat in each.
    pub netns_cookie: u64,
    /// The client's address, as its socket really has it.
    pub client_ip: IpWords,
    /// The listener's address.
    pub listener_ip: IpWords,
    /// The client's port.
    pub client_port: u32,
    /// The listener's port.
    pub listener_port: u32,
}

/// A destination that is left alone for a while, for one workload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BypassKey {
    /// Cgroup id of the workload.
    pub workload: u64,
    /// Destination address.
    pub ip: IpWords,
    /// Destination port.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A port of a workload whose connections are redirected.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Cgroup id of the workload.
    pub workload: u64,
    /// Destination port.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A destination that is an HTTP service of the cluster.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationKey {
    /// Destination address.
    pub ip: IpWords,
    /// Destination port.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Maps an IPv4 address (network byte order) into the IPv6 space.
#[inline(always)]
pub const fn mapped(ip4: u32) -> IpWords {
    [0, 0, 0xffff_u32.to_be(), ip4]
}

/// Whether the words hold an IPv4 address mapped into IPv6.
#[inline(always)]
pub const fn is_mapped(ip: &IpWords) -> bool {
    ip[0] == 0 && ip[1] == 0 && ip[2] == 0xffff_u32.to_be()
}

/// Whether a connection to the address stays on this host by definition: 127.0.0.0/8, `::1`, and the
/// unspecified addresses, which Linux takes for loopback in `connect()`.
#[inline(always)]
pub const fn is_loopback(ip: &IpWords) -> bool {
    if is_mapped(ip) {
        let first = u32::from_be(ip[3]) >> 24;
        return first == 127 || ip[3] == 0;
    }
    ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && (ip[3] == 1_u32.to_be() || ip[3] == 0)
}

/// Whether the address is IPv6 link-local (fe80::/10), which means nothing without its interface.
#[inline(always)]
pub const fn is_link_local6(ip: &IpWords) -> bool {
    u32::from_be(ip[0]) & 0xffc0_0000 == 0xfe80_0000
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: #[repr(C)], integers only, no padding (see the test below): every bit pattern is a value.
    unsafe impl aya::Pod for super::OriginalDst {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ConnectionKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::BypassKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PortKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::DestinationKey {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::size_of;

    #[test]
    fn map_types_have_no_padding() {
        assert_eq!(size_of::<OriginalDst>(), 16 + 4 + 4 + 8 * 4 + 4 + 4);
        assert_eq!(size_of::<ConnectionKey>(), 8 + 16 + 16 + 4 + 4);
        assert_eq!(size_of::<BypassKey>(), 8 + 16 + 4 + 4);
        assert_eq!(size_of::<PortKey>(), 8 + 4 + 4);
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        let v4 = |a: u8, b: u8, c: u8, d: u8| mapped(u32::from_ne_bytes([a, b, c, d]));
        assert!(
            is_loopback(&v4(127, 0, 0, 1)) && is_loopback(&v4(127, 9, 9, 9)) && is_loopback(&v4(0, 0, 0, 0))
        );
        assert!(!is_loopback(&v4(10, 0, 0, 1)) && !is_loopback(&v4(128, 0, 0, 1)));
        assert!(is_loopback(&[0, 0, 0, 1_u32.to_be()]) && is_loopback(&[0; 4]));
        assert!(!is_loopback(&[0x2001_0db8_u32.to_be(), 0, 0, 1_u32.to_be()]));
    }

    #[test]
    fn link_local_is_fe80_to_febf() {
        assert!(is_link_local6(&[0xfe80_0000_u32.to_be(), 0, 0, 0]));
        assert!(is_link_local6(&[0xfebf_ffff_u32.to_be(), 0, 0, 0]));
        assert!(!is_link_local6(&[0xfec0_0000_u32.to_be(), 0, 0, 0]));
    }
}
