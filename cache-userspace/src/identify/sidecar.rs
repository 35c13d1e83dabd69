//! Notices a proxy in a pod that nobody told us of.
//!
//! A mesh's proxy that takes a pod's connections takes ours too, as it must; if its own came here again, a request would
//! go round for ever. Proxies are known by the names of their containers; this is for those that are not. A connection of
//! ours that ends in the pod itself, at a process in the pod's cgroup, has met one.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use crate::accept::netns::Netns;
use crate::redirect::cgroup::has_socket;

/// Destinations that are remembered to be reached without a proxy; more are looked at again each time.
const PROVEN_MAX: usize = 4096;
/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// A pod of which it is not known whether an unknown proxy is in it.
pub struct Unproven {
    cgroup: PathBuf,
    proven: Mutex<HashSet<SocketAddr>>,
    alarm: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Unproven {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Unproven").field("cgroup", &self.cgroup).finish_non_exhaustive()
    }
}

impl Unproven {
    /// A pod with this cgroup; `alarm` makes its connections go direct before it returns.
    pub fn new(cgroup: PathBuf, alarm: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { cgroup, proven: Mutex::default(), alarm }
    }

    /// Looks whether a connection of ours to `destination`, which has the address `local`, ends at a process of the pod;
    /// raises the alarm if so. To be asked before anything is sent on it.
    pub async fn prove(&self, netns: &Netns, destination: SocketAddr, local: SocketAddr) {
        // A pod that asks itself.
        if destination.ip() == local.ip() {
            return;
        }
        let is_proven = |proven: &HashSet<SocketAddr>| proven.contains(&destination);
        if is_proven(&self.proven.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let (netns, cgroup) = (netns.clone(), self.cgroup.clone());
        let looked = tokio::task::spawn_blocking(move || ends_within(&netns, &cgroup, local)).await;
        match looked {
            Ok(Ok(true)) => (self.alarm)(),
            Ok(Ok(false)) => {
                let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
                if proven.len() < PROVEN_MAX {
                    proven.insert(destination);
                }
            }
            // It is looked at again.
            Ok(Err(error)) => tracing::debug!(%error, "cannot look who answers in a pod"),
            Err(error) => tracing::debug!(%error, "cannot look who answers in a pod"),
        }
    }
}

fn ends_within(netns: &Netns, cgroup: &Path, local: SocketAddr) -> io::Result<bool> {
    let owner = netns.run(move || sockets().map(|sockets| peer(&sockets, local)))??;
    Ok(owner.is_some_and(|inode| has_socket(cgroup, inode)))
}

/// A line of `/proc/net/tcp`.
struct Socket {
    local_port: u16,
    remote: (IpAddr, u16),
    is_listening: bool,
    /// 0 while nobody has accepted it.
    inode: u64,
}

/// The TCP sockets of the calling thread's namespace.
fn sockets() -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(socket)),
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn socket(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    Some(Socket {
        local_port: endpoint(local)?.1,
        remote: endpoint(remote)?,
        is_listening: state == LISTENS,
        inode: words.nth(5)?.parse().ok()?,
    })
}

/// The inode of the socket whose peer has this address; of one that nobody has accepted yet, that which will.
fn peer(sockets: &[Socket], address: SocketAddr) -> Option<u64> {
    let address = (address.ip().to_canonical(), address.port());
    let far = sockets.iter().find(|socket| socket.remote == address && !socket.is_listening)?;
    let listener =
        || sockets.iter().find(|socket| socket.is_listening && socket.local_port == far.local_port);
    if far.inode != 0 { Some(far.inode) } else { listener().map(|listener| listener.inode) }
}

/// An address and port as the kernel writes them: words of four bytes in its own order, in hexadecimal digits.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn peer_of(near: &TcpStream) -> Option<u64> {
        peer(&sockets().unwrap(), near.local_addr().unwrap())
    }

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let link = link.to_string_lossy().into_owned();
        link.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    }

    #[test]
    fn the_other_end_of_a_connection_is_found_where_it_is_here_accepted_or_not() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert_eq!(peer_of(&near), Some(inode(&listener)), "not accepted yet");
            let far = listener.accept().unwrap().0;
            assert_eq!(peer_of(&near), Some(inode(&far)));
        }
    }

    #[test]
    fn a_socket_that_serves_both_families_is_found_by_the_mapped_address() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let near = TcpStream::connect(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
        let far = listener.accept().unwrap().0;
        assert_eq!(peer_of(&near), Some(inode(&far)));
    }

    #[test]
    fn a_connection_that_ends_elsewhere_has_no_other_end_here() {
        assert_eq!(peer(&sockets().unwrap(), "192.0.2.1:9".parse().unwrap()), None);
    }
}
