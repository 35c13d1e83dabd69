//! Accepts redirected connections: which workload they are from is known by the listener, where they were meant to
//! go by the kernel's map.

pub mod gate;
pub mod keeper;
pub mod netns;
pub mod sniff;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_common::connection::{ConnectionKey, is_loopback};
use cache_common::hot::Asker;
use tokio::net::{TcpListener, TcpStream};

use self::gate::{Gate, Place};
use crate::admin::Counters;
use crate::identify::Workload;
use crate::redirect::enrolled::Enrolled;
use crate::redirect::hot::HotSet;
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
    /// Says when there are too many.
    pub gate: Arc<Gate>,
    /// How many original destinations were taken out.
    pub taken: Arc<Taken>,
}

/// How many original destinations of a workload were taken out, ever: for the kernel's quota.
#[derive(Debug)]
pub struct Taken {
    own: AtomicU64,
    all: Arc<AtomicU64>,
}

impl Taken {
    /// None yet of a workload; `all` counts for every workload together, those that are gone included.
    pub fn new(all: Arc<AtomicU64>) -> Self {
        Self { own: AtomicU64::new(0), all }
    }

    /// One more.
    pub fn add(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    /// Those of this workload.
    pub fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }
}

/// One open connection: counted and with its place taken for as long as this lives, however it ends.
struct Open {
    counters: Arc<Counters>,
    _place: Place,
}

impl Open {
    fn new(counters: Arc<Counters>, place: Place) -> Self {
        counters.connections_open.incr();
        Self { counters, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.connections_open.decr();
    }
}

/// Tells connections of this process apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Acceptor {
    /// Accepts until the task is ended.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.accepted(stream, peer),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, workload = self.workload.name, "cannot accept: new connections go direct");
                    self.gate.exhausted();
                    // What is idle gives its descriptors to those who wait.
                    self.path.pool.close_idle();
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    fn accepted(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(connection) = self.identify(&stream, peer) else {
            // Nobody was redirected here: a stranger found the port, or the map was full.
            self.path.counters.original_dst_missing.incr();
            return netns::reset(stream);
        };
        let path = self.path.clone();
        let (place, is_over) = self.gate.enter();
        if is_over {
            path.counters.connections_over_limit.incr();
        }
        let open = Open::new(path.counters.clone(), place);
        tokio::spawn(async move {
            let _open = open;
            // Without it small answers wait for acknowledgements; failing is harmless.
            let _ = stream.set_nodelay(true);
            sniff::serve(stream, path, connection).await;
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
        self.taken.add();
        if original.workload != self.workload.id {
            return None;
        }
        let destination = destination(&original);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection::new(self.workload.clone(), destination, source(peer.ip()), id);
        connection.asker = Some(Asker::of(&original));
        let enrolled = Enrolled::find(self.kernel.clone(), original.cookie);
        // Where others to this destination are enrolled and this one is not, there is a reason that stays.
        let (asker, begun_at_ns) = (Asker::of(&original), original.begun_at_ns);
        let is_refused = |hot: &Arc<HotSet>| enrolled.is_none() && hot.enrolled_at(&asker, begun_at_ns);
        let may_be_enrolled = enrolled.is_none() && !self.path.hot.as_ref().is_some_and(is_refused);
        Some(connection.with_enrolled(enrolled, may_be_enrolled))
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
