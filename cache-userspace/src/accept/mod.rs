//! Accepts redirected connections: which workload they are from is known by the listener, where they were meant to
//! go by the kernel's map.

pub mod netns;
pub mod sniff;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_common::connection::{ConnectionKey, is_loopback};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identify::Workload;
use crate::redirect::kernel::{Kernel, ip, words};
use crate::request::{Connection, Path};

/// How long accepting pauses where the process has no descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// The accepting side of one workload.
pub struct Acceptor {
    /// Who connects here.
    pub workload: Arc<Workload>,
    /// Where their original destinations are.
    pub kernel: Arc<Kernel>,
    /// What serves them.
    pub path: Arc<Path>,
    /// Places for open connections.
    pub places: Arc<Semaphore>,
    /// How many original destinations were taken out, ever: for the kernel's quota.
    pub taken: Arc<AtomicU64>,
    /// Pauses the redirection of new connections, or resumes it.
    pub pause: Box<dyn Fn(bool) + Send + Sync>,
}

/// Tells connections of this process apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Acceptor {
    /// Accepts until the task is ended.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            let place = self.place().await;
            match listener.accept().await {
                Ok((stream, peer)) => self.accepted(stream, peer, place),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, workload = self.workload.name, "cannot accept: new connections go direct");
                    (self.pause)(true);
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    (self.pause)(false);
                }
            }
        }
    }

    /// A place for one more connection; while there is none, new connections go direct.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        self.path.counters.connections_over_limit.incr();
        (self.pause)(true);
        let place = self.places.clone().acquire_owned().await.ok();
        (self.pause)(false);
        place
    }

    fn accepted(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Option<OwnedSemaphorePermit>) {
        let Some(connection) = self.identify(&stream, peer) else {
            // Nobody was redirected here: a stranger found the port, or the map was full.
            self.path.counters.original_dst_missing.incr();
            return netns::reset(stream);
        };
        let path = self.path.clone();
        path.counters.connections_open.incr();
        tokio::spawn(async move {
            let counters = path.counters.clone();
            // Without it small answers wait for acknowledgements; failing is harmless.
            let _ = stream.set_nodelay(true);
            sniff::serve(stream, path, connection).await;
            counters.connections_open.decr();
            drop(place);
        });
    }

    fn identify(&self, stream: &TcpStream, peer: SocketAddr) -> Option<Connection> {
        let local = stream.local_addr().ok()?;
        let key = ConnectionKey {
            netns_cookie: self.workload.netns_cookie,
            client_ip: words(peer.ip()),
            listener_ip: words(local.ip()),
            client_port: u32::from(peer.port()),
            listener_port: u32::from(local.port()),
        };
        let original = self.kernel.take_original_dst(&key)?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        if original.workload != self.workload.id {
            return None;
        }
        let destination = destination(&original);
        Some(Connection {
            partition: self.workload.partition(),
            workload: self.workload.clone(),
            destination,
            source: source(peer.ip()),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        })
    }
}

fn destination(original: &cache_common::connection::OriginalDst) -> SocketAddr {
    let address = ip(original.ip);
    // Linux takes the unspecified address for loopback in connect(); the upstream socket does the same.
    let address = match address {
        _ if !is_loopback(&original.ip) => address,
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    SocketAddr::new(address, original.port as u16)
}

/// The address that the application bound its socket to, where it is not the one the redirect gave it.
fn source(peer: IpAddr) -> Option<IpAddr> {
    (peer != IpAddr::V4(Ipv4Addr::LOCALHOST) && peer != IpAddr::V6(Ipv6Addr::LOCALHOST)).then_some(peer)
}

/// Whether the error is about the connection that was to be accepted, not about us (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(libc::EPROTO)
}
