//! Upstream connections: dialled inside the workload's namespace, kept for a short while, never shared between
//! workloads.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use crate::accept::netns::{Netns, SocketMaker, is_quiet};
use crate::admin::Counters;
use crate::clock;
use crate::config::Limits;

/// Which connections may serve which requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The workload's cgroup id.
    pub workload: u64,
    /// The original destination.
    pub destination: SocketAddr,
    /// The address the application bound its socket to, where it did.
    pub source: Option<IpAddr>,
}

/// One upstream connection.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub stream: TcpStream,
    /// Bytes read and not yet understood.
    pub buffer: BytesMut,
    /// When it was made, since boot: whom it leads to was decided then.
    pub dialled_at: Duration,
    /// Whether it was idle before, so that its other end may have closed it.
    pub is_reused: bool,
    /// Whether a login is bound to it, so that it must serve one client only.
    pub is_pinned: bool,
    /// Whether its last answer had no content and announced some, as to HEAD: an origin that sends it all the same,
    /// a moment later, must spoil no other client's answer and nothing that is stored.
    pub is_doubtful: bool,
}

/// What a request wants a connection for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A request that may be sent twice, and whose answer may be stored.
    Read,
    /// HEAD: the same, and its answer is not stored.
    Head,
    /// A request that must be sent once.
    Write,
}

struct Idle {
    upstream: Upstream,
    /// The downstream connection it served last.
    owner: u64,
    since: Duration,
}

/// Idle connections and the means to make new ones.
pub struct Pool {
    idle: Mutex<HashMap<PoolKey, Vec<Idle>>>,
    sockets: SocketMaker,
    idle_max: Duration,
    login_idle_max: Duration,
    idle_per_destination_max: usize,
    connect_timeout: Duration,
    counters: Arc<Counters>,
}

impl Pool {
    /// An empty pool.
    pub fn new(sockets: SocketMaker, limits: &Limits, counters: Arc<Counters>) -> Self {
        Self {
            idle: Mutex::default(),
            sockets,
            idle_max: limits.upstream_idle,
            login_idle_max: limits.upstream_login_idle,
            idle_per_destination_max: limits.upstream_idle_per_destination_max,
            connect_timeout: limits.connect_timeout,
            counters,
        }
    }

    /// An idle connection for this request, if a fresh one would not be safer.
    ///
    /// A connection may have been closed by the origin a moment ago. A request that may be sent twice takes any; one
    /// that may not takes only the connection that served the same client last: that risk the client has by itself.
    ///
    /// One made before `not_before`, since boot, is given up unless a login is bound to it: whom it leads to, and whether
    /// it would still be let through, may have been decided anew.
    pub fn take(
        &self,
        key: &PoolKey,
        owner: u64,
        purpose: Purpose,
        not_before: Duration,
    ) -> Option<Upstream> {
        let now = clock::boot();
        let mut idle = self.lock();
        let connections = idle.get_mut(key)?;
        loop {
            let of = |wanted: &dyn Fn(&Idle) -> bool| connections.iter().rposition(wanted);
            let login = || of(&|i| i.owner == owner && i.upstream.is_pinned);
            let own = || of(&|i| i.owner == owner && !i.upstream.is_doubtful);
            let own_doubtful = || of(&|i| i.owner == owner && i.upstream.is_doubtful);
            let any = || of(&|i| !i.upstream.is_pinned && !i.upstream.is_doubtful);
            let found = match purpose {
                Purpose::Read => login().or_else(own).or_else(any),
                // First the one that earlier requests of this kind have spoilt for others.
                Purpose::Head => login().or_else(own_doubtful).or_else(own).or_else(any),
                Purpose::Write => login().or_else(own).or_else(own_doubtful),
            };
            let mut found = connections.swap_remove(found?);
            let is_young = found.upstream.dialled_at >= not_before || found.upstream.is_pinned;
            let is_fresh = is_young && self.is_fresh(&found, now);
            if is_fresh && found.upstream.buffer.is_empty() && is_quiet(&found.upstream.stream) {
                found.upstream.is_reused = true;
                return Some(found.upstream);
            }
        }
    }

    /// Keeps a connection whose last answer is complete, or that was not used yet.
    pub fn put(&self, key: PoolKey, owner: u64, mut upstream: Upstream) {
        // An idle connection keeps no buffer: thousands of them would add up.
        if upstream.buffer.is_empty() {
            upstream.buffer = BytesMut::new();
        }
        let mut idle = self.lock();
        let connections = idle.entry(key).or_default();
        if connections.len() >= self.idle_per_destination_max {
            connections.remove(0);
        }
        connections.push(Idle { upstream, owner, since: clock::boot() });
    }

    /// Makes a new connection: an unmarked socket in the workload's namespace, to the original destination.
    ///
    /// # Errors
    /// Those of connect(2), and `TimedOut` a little after the kernel itself would have given up.
    pub async fn dial(&self, netns: &Netns, key: &PoolKey) -> io::Result<Upstream> {
        let is_v6 = key.destination.is_ipv6();
        let socket = match self.sockets.socket(netns, is_v6).await {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                // A connection in use is worth more than idle ones.
                self.close_idle();
                self.sockets.socket(netns, is_v6).await?
            }
            made => made?,
        };
        if let Some(source) = key.source {
            socket.bind((source, 0).into())?;
        }
        let connecting = tokio::time::timeout(self.connect_timeout, socket.connect(key.destination));
        let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        self.counters.upstream_connections.incr();
        Ok(Upstream {
            stream,
            buffer: BytesMut::new(),
            dialled_at: clock::boot(),
            is_reused: false,
            is_pinned: false,
            is_doubtful: false,
        })
    }

    /// Closes what was idle for too long.
    pub fn reap(&self) {
        let now = clock::boot();
        self.lock().retain(|_, connections| {
            connections.retain(|idle| self.is_fresh(idle, now));
            !connections.is_empty()
        });
    }

    /// Closes every idle connection: the process has no descriptors left.
    pub fn close_idle(&self) {
        self.lock().clear();
    }

    /// A login is worth waiting longer for: without its connection the client would have to log in again.
    fn is_fresh(&self, idle: &Idle, now: Duration) -> bool {
        let max = if idle.upstream.is_pinned { self.login_idle_max } else { self.idle_max };
        now.saturating_sub(idle.since) < max
    }

    /// Closes the idle connections of a workload that is gone.
    pub fn forget_workload(&self, workload: u64) {
        self.lock().retain(|key, _| key.workload != workload);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PoolKey, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
