//! Whose the other end of a connection is, where that end is in the same network namespace: asked of the kernel by
//! sock_diag(7), which tells the cgroup of every socket (Linux 5.8) without a look into anybody's files.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Of linux/netlink.h and linux/sock_diag.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Bytes of a message's head, of an `inet_diag_req_v2` and of an `inet_diag_msg`.
const HEAD: usize = 16;
const QUESTION: usize = 56;
const ANSWER: usize = 72;
/// States of connections: neither listening nor without a peer any more.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;
/// The kernel answers at once; more than that is a fault.
const PATIENCE_MS: i64 = 1000;

/// The cgroup id of the socket whose peer has this address, in the network namespace of the calling thread; `None` where there
/// is none.
///
/// # Errors
/// What the kernel answers: one without sock_diag refuses the socket.
pub(super) fn cgroup_of_peer(address: SocketAddr) -> io::Result<Option<u64>> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        if let Some(cgroup) = find(family, address)? {
            return Ok(Some(cgroup));
        }
    }
    Ok(None)
}

fn find(family: AddressFamily, address: SocketAddr) -> io::Result<Option<u64>> {
    let (kind, protocol) = (SockType::Raw, SockProtocol::NetlinkSockDiag);
    let netlink = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::milliseconds(PATIENCE_MS))?;
    send(netlink.as_raw_fd(), &question(family), MsgFlags::empty())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bytes = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        match look(buffer.get(..bytes).unwrap_or_default(), address)? {
            Look::Found(cgroup) => return Ok(Some(cgroup)),
            Look::Over => return Ok(None),
            Look::More => {}
        }
    }
}

/// All connections of a family.
fn question(family: AddressFamily) -> [u8; HEAD + QUESTION] {
    let mut bytes = [0; HEAD + QUESTION];
    let length = (HEAD + QUESTION) as u32;
    let parts: [&[u8]; 6] = [
        &length.to_ne_bytes(),
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &NLM_F_REQUEST_DUMP.to_ne_bytes(),
        &[0; 8],
        &[family as i32 as u8, libc::IPPROTO_TCP as u8, 0, 0],
        &CONNECTED.to_ne_bytes(),
    ];
    for (to, from) in bytes.iter_mut().zip(parts.concat()) {
        *to = from;
    }
    bytes
}

enum Look {
    Found(u64),
    More,
    Over,
}

/// Looks for the socket in some messages.
fn look(mut bytes: &[u8], address: SocketAddr) -> io::Result<Look> {
    while let Some(length) = number(bytes, 0, 4) {
        let message = bytes.get(..length).filter(|message| message.len() >= HEAD);
        let message = message.ok_or(io::ErrorKind::InvalidData)?;
        match number(message, 4, 2).map(|kind| kind as u16) {
            Some(NLMSG_DONE) => return Ok(Look::Over),
            Some(NLMSG_ERROR) => {
                let code = number(message, HEAD, 4).map_or(0, |code| code as u32 as i32);
                return Err(io::Error::from_raw_os_error(-code));
            }
            Some(SOCK_DIAG_BY_FAMILY) => {
                let body = message.get(HEAD..).unwrap_or_default();
                if remote(body) == Some((address.ip().to_canonical(), address.port())) {
                    return Ok(cgroup(body).map_or(Look::Over, Look::Found));
                }
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Look::More)
}

/// The peer of a socket, as an `inet_diag_msg` has it.
fn remote(body: &[u8]) -> Option<(IpAddr, u16)> {
    // Family, state, timer, retransmissions; then the ports, and both addresses in 16 bytes each.
    let port = u16::from_be_bytes(body.get(6..8)?.try_into().ok()?);
    let ip: [u8; 16] = body.get(24..40)?.try_into().ok()?;
    let ip = if i32::from(*body.first()?) == AddressFamily::Inet as i32 {
        IpAddr::V4(Ipv4Addr::from(*ip.first_chunk::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(ip)).to_canonical()
    };
    Some((ip, port))
}

/// The cgroup id among the attributes behind an `inet_diag_msg`.
fn cgroup(body: &[u8]) -> Option<u64> {
    let mut rest = body.get(ANSWER..)?;
    while let (Some(length), Some(kind)) = (number(rest, 0, 2), number(rest, 2, 2)) {
        let value = rest.get(4..length)?;
        if kind as u16 == INET_DIAG_CGROUP_ID {
            return Some(u64::from_ne_bytes(value.try_into().ok()?));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A number of two or four bytes, as this machine orders them.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(match size {
        2 => usize::from(u16::from_ne_bytes(bytes.try_into().ok()?)),
        _ => u32::from_ne_bytes(bytes.try_into().ok()?) as usize,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::redirect::cgroup::Cgroup;

    fn peer_of(near: &TcpStream) -> Option<u64> {
        cgroup_of_peer(near.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn the_other_end_of_a_connection_is_found_where_it_is_here_accepted_or_not() {
        let own = Cgroup::own().unwrap().id();
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let host = if address.starts_with('[') && address != "[::]:0" { "::1" } else { "127.0.0.1" };
            let near = TcpStream::connect((host, port)).unwrap();
            assert_eq!(peer_of(&near), Some(own), "{address}: not accepted yet");
            let far = listener.accept().unwrap().0;
            assert_eq!(peer_of(&near), Some(own), "{address}");
            drop(far);
        }
    }

    #[test]
    fn a_connection_that_ends_elsewhere_has_no_other_end_here() {
        assert_eq!(cgroup_of_peer("192.0.2.1:9".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn whatever_the_kernel_says_is_no_panic() {
        let address = "192.0.2.1:9".parse().unwrap();
        for length in [0, 1, 15, 16, 17, 88, 200, u32::MAX] {
            for kind in [NLMSG_ERROR, NLMSG_DONE, SOCK_DIAG_BY_FAMILY] {
                let mut bytes = [length.to_ne_bytes().to_vec(), kind.to_ne_bytes().to_vec()].concat();
                bytes.resize(120, 0xff);
                let _ = look(&bytes, address);
                for cut in 0..bytes.len() {
                    let _ = look(bytes.get(..cut).unwrap(), address);
                    let _ = (remote(bytes.get(..cut).unwrap()), cgroup(bytes.get(..cut).unwrap()));
                }
            }
        }
    }
}
