//! The daemon: starts what runs, enrols workloads, ends in good order. The only place that knows all the parts.

mod enrolment;
pub mod view;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path as FsPath;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::enrolment::Enrolled;
pub use self::enrolment::{Enrolment, Intercepted, Snapshots};
use crate::accept::gate::Budget;
use crate::accept::keeper::Keeper;
use crate::accept::netns::SocketMaker;
use crate::admin::{AdminServer, AdminState, Counters, ExposedServer, Position, Switches};
use crate::clock;
use crate::config::{Limits, PolicyConfig};
use crate::kube::index::PolicyState;
use crate::kube::report::Reports;
use crate::kube::watch::Health;
use crate::policy::{Profile, Rules};
use crate::redirect::acceleration::{self, Acceleration, AccelerationError};
use crate::redirect::bypass::Bypass;
use crate::redirect::cgroup::CgroupError;
use crate::redirect::heartbeat::{Beat, Heartbeat, Pulse};
use crate::redirect::hot::{HotLimits, HotSet};
use crate::redirect::kernel::{Kernel, KernelError};
use crate::request::{Parts, Path};
use crate::route::Routes;
use crate::store::{Store, StoreLimits};

/// How often idle upstream connections and forgotten original destinations are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// An original destination that nobody accepted for so long never will be.
const ORIGINAL_DST_MAX_AGE: Duration = Duration::from_secs(120);
/// Variants of one resource; the oldest gives way.
const VARIANTS_MAX: usize = 64;

/// What a daemon is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which reading of RFC 9111 decides.
    pub profile: Profile,
    /// Bytes that stored responses may take in memory.
    pub store_bytes: u64,
    /// Malformed requests get 400 instead of a relay.
    pub is_strict: bool,
    /// What is allowed beyond what responses say.
    pub policy: PolicyConfig,
    /// Users whose connections are left alone.
    pub excluded_users: Vec<u32>,
    /// When hits are given inside the kernel, and with how much memory.
    pub acceleration: acceleration::Wish,
    /// Bounds.
    pub limits: Limits,
}

/// What a daemon is to know of the cluster that its node belongs to.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The node's name.
    pub node: String,
    /// How the watches of the cluster are doing.
    pub health: Health,
    /// Where the cluster is told what becomes of pods.
    pub reports: Reports,
    /// How long a pod may be given what is stored after the mesh let it through (MESH.md S3).
    pub authorization_lease: Duration,
    /// How long nothing is stored of a service after a change (MESH.md S6).
    pub storing_pause: Duration,
}

/// Why a daemon did not start or a workload was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel refused, or is not fit for what was demanded.
    #[error(transparent)]
    Acceleration(#[from] AccelerationError),
    /// A cgroup could not be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Listeners could not be made in the workload's network namespace.
    #[error("cannot listen in the workload's network namespace: {0}")]
    Listen(#[source] io::Error),
    /// The network namespace is not the pod's: its processes were in another one for a moment.
    #[error("the network namespace of its processes has none of the pod's addresses")]
    OtherNetns,
    /// The process that keeps listeners could not be started.
    #[error("cannot start the process that keeps listeners: {0}")]
    Keeper(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The daemon itself is in the workload's cgroup: it would be sent its own connections.
    #[error("the daemon itself is in the cgroup of workload {0}: start it elsewhere")]
    OwnCgroup(String),
}

/// What the daemon's parts share.
struct Shared {
    kernel: Arc<Kernel>,
    /// Has the listeners too.
    keeper: Arc<Keeper>,
    path: Arc<Path>,
    switches: Switches,
    acceleration: Acceleration,
    enrolled: Mutex<HashMap<String, Enrolled>>,
    /// Held while a workload comes or goes: half of one is not another's.
    changing: Mutex<()>,
    budget: Arc<Budget>,
    /// Original destinations taken out, all of them together.
    taken: Arc<AtomicU64>,
    /// How many enrolments there ever were.
    enrolments: AtomicU32,
    failures: Mutex<HashMap<String, view::Failure>>,
    /// The cluster that the node belongs to.
    cluster: Mutex<Option<Membership>>,
    /// What has become of each policy of the cluster: what holds already.
    policies: Mutex<Vec<PolicyState>>,
    /// What is intercepted for workloads of a cluster.
    destinations: Mutex<HashSet<SocketAddr>>,
}

/// A running daemon. Dropped, it detaches everything; connections that are open go on while the runtime lives.
pub struct Daemon {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    /// What ends when another process serves.
    along: Vec<JoinHandle<()>>,
    admin: Option<JoinHandle<()>>,
    exposed: Option<JoinHandle<()>>,
    // Dropped first among the fields below: new connections go direct before anything else ends.
    heartbeat: Option<Heartbeat>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is replaced as a whole; a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Loads the programs and starts what runs beside the connections; needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel refuses; where a thread cannot be started.
    pub fn start(options: Options, switches: Switches) -> Result<Self, AppError> {
        let Options { profile, store_bytes, is_strict, policy, excluded_users, acceleration, limits } =
            options;
        // First: it is to have no copy of the kernel's programs.
        let keeper = Keeper::start().map_err(AppError::Keeper)?;
        let skipped = acceleration.skipped.clone();
        let (kernel, acceleration) = acceleration::load(&acceleration)?;
        acceleration.log();
        let kernel = Arc::new(kernel);
        let hot = acceleration.is_on.then(|| {
            let limits = HotLimits {
                chunks: acceleration.settings.chunks,
                response_bytes_max: acceleration.response_bytes_max,
                ..HotLimits::default()
            };
            Arc::new(HotSet::new(kernel.clone(), skipped, acceleration.settings.seeds, limits))
        });
        for user in excluded_users {
            kernel.exclude_user(user)?;
        }
        let counters = Arc::new(Counters::default());
        // One response may take half of the store: larger ones would push everything else out.
        let object_bytes_max = store_bytes / 2;
        let sockets = SocketMaker::start().map_err(AppError::Thread)?;
        let rules = Rules { profile, object_bytes_max, ..Rules::default() };
        let parts = Parts {
            routes: Routes::new(policy.apply(rules), switches.redirection.clone()),
            store: Store::new(StoreLimits {
                bytes_max: store_bytes,
                object_bytes_max,
                variants_max: VARIANTS_MAX,
                namespace_bytes_max: store_bytes / 2,
            }),
            sockets,
            bypass: Bypass::new(Some(kernel.clone()), &limits),
            hot: hot.clone(),
            counters,
            is_strict,
        };
        if let Some(hot) = &hot {
            parts.store.observe(hot.clone());
        }
        let path = Arc::new(Path::new(parts, limits));
        let shared = Arc::new(Shared {
            kernel: kernel.clone(),
            keeper,
            path,
            switches,
            acceleration,
            enrolled: Mutex::default(),
            changing: Mutex::default(),
            budget: Arc::new(Budget::new(descriptors_max())),
            taken: Arc::default(),
            enrolments: AtomicU32::default(),
            failures: Mutex::default(),
            cluster: Mutex::default(),
            policies: Mutex::default(),
            destinations: Mutex::default(),
        });
        let pulse = Arc::new(Pulse::default());
        let mut tasks =
            vec![tokio::spawn(give_pulse(pulse.clone())), tokio::spawn(keep_house(shared.clone()))];
        tasks.extend(hot.map(|hot| tokio::spawn(hot.keep_settling())));
        let (beating, effect) = (shared.clone(), shared.clone());
        let heartbeat = Heartbeat::start(
            kernel,
            pulse,
            move || {
                beating.publish_taken();
                let is_on = beating.switches.redirection.poll();
                let is_accelerated = beating.switches.acceleration.poll();
                Beat { redirects: is_on, hits: is_on && is_accelerated && beating.acceleration.is_on }
            },
            move |beat| {
                let Switches { redirection, acceleration } = &effect.switches;
                redirection.took_effect(beat.redirects);
                if let Some(hot) = &effect.path.hot {
                    hot.switch(beat.hits);
                }
                // Where there are no hits anyhow, the switch has its effect at once.
                let has_effect = beat.redirects && effect.acceleration.is_on;
                let is_accelerated =
                    if has_effect { beat.hits } else { acceleration.wanted() == Position::On };
                acceleration.took_effect(is_accelerated);
            },
        )
        .map_err(AppError::Thread)?;
        Ok(Self { shared, tasks, along: Vec::new(), admin: None, exposed: None, heartbeat: Some(heartbeat) })
    }

    /// Serves the admin API on a unix socket, and figures at a TCP address where there is one; `handover` is told where
    /// another process is to serve instead.
    ///
    /// # Errors
    /// What is in the way of the socket or the address.
    pub fn serve_admin(
        &mut self,
        socket: &FsPath,
        metrics: Option<SocketAddr>,
        handover: Option<Arc<Notify>>,
    ) -> anyhow::Result<()> {
        let state = Arc::new(AdminState {
            counters: self.shared.path.counters.clone(),
            switches: self.shared.switches.clone(),
            view: Box::new(view::View(self.shared.clone())),
            handover,
        });
        let connections_max = self.shared.path.limits.admin_connections_max;
        let server = AdminServer::bind(socket, state.clone(), connections_max)?;
        if let Some(at) = metrics {
            let exposed = ExposedServer::bind(at, state, connections_max)
                .with_context(|| format!("metrics cannot be told at {at}"))?;
            self.exposed = Some(tokio::spawn(exposed.run()));
        }
        self.admin = Some(tokio::spawn(server.run()));
        Ok(())
    }

    /// Says which node of a cluster this is, before any of its pods is enrolled.
    pub fn join(&self, membership: Membership) {
        *lock(&self.shared.cluster) = Some(membership);
    }

    /// Runs something until the daemon retires.
    pub fn runs_along(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.along.push(tokio::spawn(task));
    }

    /// The figures, the kernel's included.
    pub fn figures(&self) -> crate::admin::Figures {
        self.shared.fold_kernel_counters();
        self.shared.path.counters.figures()
    }

    /// Sends every new connection direct, and lets go of the admin socket: another process may serve. Those that are open
    /// end with their next answer, which is still the daemon's.
    pub async fn retire(&mut self) {
        drop(self.heartbeat.take());
        self.shared.path.routes.end();
        self.along.drain(..).for_each(|task| task.abort());
        if let Some(cluster) = &*lock(&self.shared.cluster) {
            cluster.reports.end();
        }
        let names: Vec<String> = lock(&self.shared.enrolled).keys().cloned().collect();
        for name in names {
            // Another process may have told of the pods already.
            self.end(&name);
        }
        self.shared.path.store.clear();
        // The socket last: once its file is gone, another process needs all of it.
        for task in [self.exposed.take(), self.admin.take()].into_iter().flatten() {
            task.abort();
            let _ = task.await;
        }
    }

    /// The same, and waits, up to `patience`, for the open connections to end.
    pub async fn drain(&mut self, patience: Duration) {
        self.retire().await;
        let open = || self.shared.path.counters.connections_open.value();
        let waiting = || self.shared.kernel.begun().saturating_sub(self.shared.taken.load(Ordering::Relaxed));
        let ended = async {
            while open() > 0 || waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!(open = open(), "connections were still open at the end");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.heartbeat.take());
        for task in self
            .tasks
            .drain(..)
            .chain(self.along.drain(..))
            .chain(self.admin.take())
            .chain(self.exposed.take())
        {
            task.abort();
        }
        for (_, enrolled) in lock(&self.shared.enrolled).drain() {
            self.shared.end(enrolled);
        }
    }
}

impl Shared {
    /// Tells the kernel how many original destinations were taken out, so that its quotas stay true.
    fn publish_taken(&self) {
        for enrolled in lock(&self.enrolled).values() {
            self.publish(enrolled.workload.id, enrolled.taken.own());
        }
        self.publish(0, self.taken.load(Ordering::Relaxed));
    }

    fn publish(&self, workload: u64, taken: u64) {
        if let Err(error) = self.kernel.publish_taken(workload, taken) {
            tracing::warn!(%error, "quotas of waiting connections are not up to date");
        }
    }

    /// Takes out original destinations, and records, of connections that never arrived.
    fn sweep(&self) {
        let before = clock::boot().saturating_sub(ORIGINAL_DST_MAX_AGE).as_nanos() as u64;
        if let Some(hot) = &self.path.hot {
            hot.sweep(before);
        }
        let swept = self.kernel.sweep_original_dst(before);
        let enrolled = lock(&self.enrolled);
        for workload in swept {
            match enrolled.values().find(|enrolled| enrolled.workload.id == workload) {
                Some(enrolled) => enrolled.taken.add(),
                None => drop(self.taken.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }
}

async fn give_pulse(pulse: Arc<Pulse>) {
    let mut ticks = tokio::time::interval(crate::redirect::heartbeat::INTERVAL);
    loop {
        ticks.tick().await;
        pulse.beat();
    }
}

async fn keep_house(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    let mut count = 0_u64;
    loop {
        ticks.tick().await;
        shared.path.pool.reap();
        lock(&shared.enrolled).values().for_each(|enrolled| enrolled.gate.review());
        if let Some(hot) = &shared.path.hot {
            for key in hot.tick(clock::boot().as_nanos() as u64) {
                // What the kernel gives is asked for: it stays stored too.
                let _asked = shared.path.store.variants(&key);
            }
        }
        count += 1;
        if count.is_multiple_of(30) {
            let shared = shared.clone();
            // Walks over whole maps.
            drop(tokio::task::spawn_blocking(move || shared.sweep()));
        }
    }
}

/// How many files the process may have open once the limit is raised.
fn descriptors_max() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| usize::try_from(hard).unwrap_or(usize::MAX))
}

/// Raises the limit of open files to what we may: each redirected connection takes up to two. Children inherit it.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
