//! Network namespaces: listeners and upstream sockets that are made inside a workload's own.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use tokio::sync::{mpsc, oneshot};

/// Bind and listen: as many waiting connections as the kernel allows (net.core.somaxconn bounds it again).
const BACKLOG: i32 = 4096;
/// Ports above Linux's default ephemeral range (net.ipv4.ip_local_port_range ends at 60999).
const APART: std::ops::RangeInclusive<u16> = 61_001..=65_535;
/// How many of them are tried.
const APART_TRIES: u32 = 32;
/// How many socket requests may wait for the maker; past it the caller waits.
const QUEUE: usize = 1024;

/// A network namespace that sockets can be made in.
#[derive(Clone, Debug)]
pub enum Netns {
    /// The daemon's own.
    Own,
    /// Another one, held open.
    Other(Arc<File>),
}

/// What enrolling a namespace found there.
#[derive(Debug)]
pub struct Listeners {
    /// Listens on 127.0.0.1.
    pub on4: TcpListener,
    /// Listens on `::1`, where the namespace has it.
    pub on6: Option<TcpListener>,
    /// The namespace's cookie (SO_NETNS_COOKIE).
    pub netns_cookie: u64,
    /// How many connections may wait to be accepted; the SYNs of further ones are dropped.
    pub backlog_max: u32,
    /// The address that the namespace's connections to the world come from.
    pub address4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub address6: Option<Ipv6Addr>,
    /// All addresses that the namespace has.
    pub addresses: Vec<IpAddr>,
}

impl Netns {
    /// Opens the namespace that a path like `/proc/<pid>/ns/net` or `/run/netns/<name>` stands for.
    ///
    /// # Errors
    /// A path that cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = File::open(path)?;
        let own = std::fs::metadata("/proc/self/ns/net")?;
        let it = file.metadata()?;
        let same = own.ino() == it.ino() && own.dev() == it.dev();
        Ok(if same { Self::Own } else { Self::Other(Arc::new(file)) })
    }

    /// Makes the listeners of a workload, on ports that the kernel chooses, and looks around.
    ///
    /// # Errors
    /// Where the namespace cannot be entered (CAP_SYS_ADMIN), or has no 127.0.0.1 (its `lo` is down).
    pub fn listen(&self) -> io::Result<Listeners> {
        self.run(listen_here)?
    }

    /// Runs `f` in a throw-away thread inside the namespace: the runtime's threads never change theirs.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let netns = self.clone();
        let thread = std::thread::Builder::new().name("netns".into()).spawn(move || {
            if let Self::Other(file) = &netns {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            }
            Ok(f())
        })?;
        thread.join().map_err(|_| io::Error::other("the namespace's thread panicked"))?
    }
}

fn listen_here() -> io::Result<Listeners> {
    let on4 = bind_apart(Ipv4Addr::LOCALHOST.into())?;
    let on6 = bind_apart(Ipv6Addr::LOCALHOST.into()).ok();
    let netns_cookie = netns_cookie(&on4)?;
    // A connected UDP socket sends nothing; the kernel only chooses the source address.
    let source = |any: SocketAddr, target: SocketAddr| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(target).ok()?;
        socket
            .local_addr()
            .ok()
            .map(|address| address.ip())
            .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let documentation4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let documentation6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    let address4 = match source((Ipv4Addr::UNSPECIFIED, 0).into(), documentation4).or_else(first_address4) {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    };
    let address6 = match source((Ipv6Addr::UNSPECIFIED, 0).into(), documentation6) {
        Some(IpAddr::V6(ip)) => Some(ip),
        _ => None,
    };
    let addresses = addresses();
    Ok(Listeners { on4, on6, netns_cookie, backlog_max: backlog_max(), address4, address6, addresses })
}

/// The first address of the namespace that is not loopback: for one without a default route.
fn first_address4() -> Option<IpAddr> {
    addresses().into_iter().find(|ip| ip.is_ipv4() && !ip.is_loopback())
}

/// The addresses of the namespace that the calling thread is in.
fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    addresses.collect()
}

/// Listens on a port that no application is likely to want: above the usual ephemeral ports, where services such as
/// gRPC's 50051 are. Where those are taken, on any.
fn bind_apart(ip: IpAddr) -> io::Result<TcpListener> {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new();
    for attempt in 0..APART_TRIES {
        let port = APART.start() + (random.hash_one(attempt) % u64::from(APART.end() - APART.start())) as u16;
        match bind((ip, port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    bind((ip, 0).into())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Clients reach it over loopback, which neither loses nor queues: what is accepted does not pay for a control that
    // measures and paces the way (BBR). Always there; where it may not be chosen the default serves as well.
    let _ = setsockopt(&listener, sockopt::TcpCongestion, &"reno".into());
    // std listens with a backlog of its own; listening again only changes it.
    // SAFETY: a valid listening socket.
    if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The listeners' backlog as the kernel bounds it in the namespace of the calling thread.
fn backlog_max() -> u32 {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let bound = somaxconn.and_then(|text| text.trim().parse().ok());
    bound.unwrap_or(BACKLOG.unsigned_abs()).min(BACKLOG.unsigned_abs())
}

/// SO_NETNS_COOKIE (Linux 5.14): the same number that the kernel programs see.
fn netns_cookie(socket: &impl AsRawFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let mut cookie = 0_u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to a u64 and to its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

type MakeRequest = (Arc<File>, bool, oneshot::Sender<io::Result<OwnedFd>>);

/// Makes upstream sockets inside workloads' namespaces: one thread that does nothing else, since entering a
/// namespace is cheap and a thread for each socket is not.
#[derive(Clone, Debug)]
pub struct SocketMaker {
    requests: mpsc::Sender<MakeRequest>,
}

impl SocketMaker {
    /// Starts the thread; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start() -> io::Result<Self> {
        let (requests, mut queue) = mpsc::channel::<MakeRequest>(QUEUE);
        std::thread::Builder::new().name("netns-sockets".into()).spawn(move || {
            while let Some((netns, v6, answer)) = queue.blocking_recv() {
                let made = setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| make(v6));
                // Nobody waits any more: the socket is closed by dropping it.
                let _ = answer.send(made);
            }
        })?;
        Ok(Self { requests })
    }

    /// Makes a TCP socket in a namespace, not yet connected.
    ///
    /// # Errors
    /// Those of setns(2) and socket(2).
    pub async fn socket(&self, netns: &Netns, v6: bool) -> io::Result<tokio::net::TcpSocket> {
        let fd = match netns {
            Netns::Own => make(v6)?,
            Netns::Other(file) => {
                let (answer, made) = oneshot::channel();
                let gone = |_| io::Error::other("the thread that makes sockets is gone");
                self.requests.send((file.clone(), v6, answer)).await.map_err(|_| gone(()))?;
                made.await.map_err(|_| gone(()))??
            }
        };
        // tokio takes an unconnected socket in the guise of a stream.
        Ok(tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(fd)))
    }
}

fn make(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

/// Closes a connection with a reset, as a peer that died would (SO_LINGER 0).
pub fn reset(stream: tokio::net::TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: a valid socket, a pointer to a linger and its size. Failure leaves an ordinary close.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    drop(stream);
}

/// Whether a connection that ought to be silent still is: no bytes, no end, no error.
pub fn is_quiet(stream: &tokio::net::TcpStream) -> bool {
    let mut byte = 0_u8;
    // SAFETY: a valid socket and a buffer of one byte; the call does not block and takes nothing out.
    let got = unsafe {
        libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    got < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}
