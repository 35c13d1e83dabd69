//! `sidestep node`: the daemon of a node, for a static list of cgroups and for the pods of a cluster.

mod candidates;
mod handover;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use self::candidates::Candidates;
use crate::admin::Switches;
use crate::admin::server::BindError;
use crate::admin::switch::state_dir;
use crate::app::{Daemon, Membership, Options, Snapshots, raise_descriptor_limit};
use crate::config::{Config, KubernetesConfig, Limits, WorkloadConfig};
use crate::kube;
use crate::kube::index::{Settings, Snapshot};
use crate::kube::place::Places;
use crate::kube::report::Reports;
use crate::kube::watch::Health;
use crate::redirect::acceleration::Wish;
use crate::redirect::preflight::{Probe, Role, findings, first_obstacle};
use crate::redirect::reconcile::{Key, Step, plan};

/// How often cgroups are looked for that come and go.
const RECONCILE: Duration = Duration::from_millis(500);
/// How often pods are looked for again that are enrolled, while the cluster says nothing new of them.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How long what is open in a retired daemon may take once it is told to end: a little less than a pod is given.
const RETIRED_PATIENCE: Duration = Duration::from_secs(50);

/// Runs the daemon of a node until it is told to end (SIGTERM, SIGINT).
#[derive(Debug, clap::Args)]
pub struct Node {
    /// Configuration file; read again on SIGHUP, where a faulty one changes nothing.
    #[arg(long, value_name = "FILE", env = "SIDESTEP_CONFIG")]
    config: Option<PathBuf>,
    /// Asks a daemon that serves this node already to let this one serve instead; serves again where it is gone.
    #[arg(long, env = "SIDESTEP_TAKE_OVER")]
    take_over: bool,
    /// Says more on stderr; twice for more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Node {
    /// Runs until the end.
    ///
    /// # Errors
    /// One sentence where the daemon cannot be set up.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        super::log_to_stderr(self.verbose, "info");
        let config = self.read()?;
        if let Some(obstacle) = first_obstacle(&findings(&Probe::gather(None)), Role::Node) {
            bail!("{} ({})", obstacle.says, obstacle.advice);
        }
        raise_descriptor_limit();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = config.worker_threads {
            runtime.worker_threads(threads.get());
        }
        let runtime = runtime.enable_all().build()?;
        runtime.block_on(self.serve(config))?;
        Ok(ExitCode::SUCCESS)
    }

    fn read(&self) -> anyhow::Result<Config> {
        Ok(self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default())
    }

    /// Serves, and goes on serving where who took over is gone.
    async fn serve(&self, mut config: Config) -> anyhow::Result<()> {
        let end = End { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? };
        let mut signals = Signals { end, hup: signal(SignalKind::hangup())? };
        if self.take_over {
            handover::take_over(&config.admin).await?;
        }
        let (mut daemon, mut has_retired) = (None, false);
        loop {
            let ended = self.serve_until(&mut config, &mut signals).await;
            let is_taken = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(BindError::Taken(_)));
            match ended {
                Ok(Ended::Told) => return Ok(()),
                Ok(Ended::Retired(retired)) => {
                    tracing::info!("another process serves: what is open here goes on until it ends");
                    (daemon, has_retired) = (Some(retired), true);
                }
                // It was only slow to begin.
                Err(error) if has_retired && is_taken(&error) => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = handover::abandoned(&config.admin) => {}
                () = signals.end.told() => {
                    if let Some(mut retired) = daemon {
                        // Whose answers are under way get them.
                        retired.drain(RETIRED_PATIENCE).await;
                    }
                    return Ok(());
                }
            }
            tracing::warn!("who took over is gone: this process serves again");
            daemon = None;
        }
    }

    async fn serve_until(&self, config: &mut Config, signals: &mut Signals) -> anyhow::Result<Ended> {
        let switches = Switches::new(&state_dir(), &config.admin);
        let options = Options {
            profile: config.profile,
            store_bytes: config.store_bytes.0,
            is_strict: config.strict_http,
            excluded_users: config.excluded_uids.clone(),
            policy: config.policy.clone(),
            acceleration: Wish {
                mode: config.acceleration,
                bytes: config.hot_bytes.0,
                skipped: config.skipped_fields.clone(),
            },
            limits: Limits::default(),
        };
        let patience = options.limits.drain_timeout;
        let kubernetes = config.kubernetes.clone().or_else(KubernetesConfig::inferred);
        let mut cluster = match &kubernetes {
            Some(kubernetes) => Some(Cluster::join(kubernetes).await?),
            None => None,
        };
        let mut daemon = Daemon::start(options, switches)?;
        if let Some(cluster) = &cluster {
            daemon.join(cluster.membership.clone());
            daemon.runs_along(daemon.follow(cluster.snapshots.clone()));
        }
        let handover = Arc::new(Notify::new());
        daemon.serve_admin(&config.admin, config.metrics, Some(handover.clone()))?;
        let mut ticks = tokio::time::interval(RECONCILE);
        let mut enrolled = EnrolledSet::default();
        let mut looked: Option<Instant> = None;
        loop {
            let mut is_due = true;
            tokio::select! {
                _ = ticks.tick() => {
                    let is_old = looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN);
                    is_due = is_old || !config.workloads.is_empty() || enrolled.is_restless;
                }
                () = news(&mut cluster) => is_due = cluster.as_mut().is_some_and(|cluster| cluster.take_up(&daemon)),
                () = signals.end.told() => break,
                () = handover.notified() => {
                    daemon.retire().await;
                    return Ok(Ended::Retired(Box::new(daemon)));
                }
                _ = signals.hup.recv() => match self.read() {
                    Ok(read) => {
                        enrolled.end_changed(&daemon, &config.workloads, &read.workloads);
                        config.workloads = read.workloads;
                    }
                    Err(error) => tracing::error!("the configuration stays as it was: {error:#}"),
                },
            }
            if !is_due {
                continue;
            }
            looked = Some(Instant::now());
            let mut candidates = Candidates::default();
            candidates.add_configured(&config.workloads);
            if let Some(cluster) = &cluster {
                cluster.offer(&mut candidates);
            }
            enrolled.reconcile(&daemon, candidates);
        }
        daemon.drain(patience).await;
        Ok(Ended::Told)
    }
}

/// What a person, or an operator, says to the process.
struct Signals {
    end: End,
    /// Reads the configuration again.
    hup: Signal,
}

/// What ends the process.
struct End {
    term: Signal,
    int: Signal,
}

impl End {
    /// Waits until it is told to.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Why serving ended.
enum Ended {
    /// The process was told to end, and has.
    Told,
    /// Another one serves; connections that were open are still here.
    Retired(Box<Daemon>),
}

/// The cluster that this node belongs to.
struct Cluster {
    membership: Membership,
    cgroup_root: Option<PathBuf>,
    snapshots: Snapshots,
    /// What was last taken up of them.
    taken_up: Arc<Snapshot>,
}

impl Cluster {
    /// Begins to watch it; the API server need not be there yet.
    async fn join(config: &KubernetesConfig) -> anyhow::Result<Self> {
        let client = kube::watch::client(config.kubeconfig.as_deref()).await;
        let client = client.context("the cluster's API server cannot be asked")?;
        let settings = Settings {
            excluded_namespaces: config.never_served(),
            proxy_containers: config.proxy_containers.clone(),
            names: config.names(),
        };
        let (publish, snapshots) = watch::channel(None);
        let (node, health) = (config.node()?, Health::default());
        let reports = Reports::start(client.clone(), node.clone(), config.annotate_pods);
        tokio::spawn(kube::watch::run(client, node.clone(), settings, health.clone(), publish));
        Ok(Self {
            membership: Membership {
                node,
                health,
                reports,
                authorization_lease: config.authorization_lease.0,
                storing_pause: config.storing_pause.0,
            },
            cgroup_root: config.cgroup_root.clone(),
            snapshots,
            taken_up: Arc::default(),
        })
    }

    /// Makes its services those that are intercepted; says whether it says something else of the pods.
    fn take_up(&mut self, daemon: &Daemon) -> bool {
        self.snapshots.borrow_and_update();
        // Whose services are not known must not be enrolled.
        let Some(snapshot) = daemon.publish_latest(&self.snapshots) else { return false };
        let is_other = snapshot.pods != self.taken_up.pods;
        self.taken_up = snapshot;
        is_other
    }

    /// Offers its pods.
    fn offer(&self, candidates: &mut Candidates) {
        match Places::find(self.cgroup_root.as_deref()) {
            Ok(places) => candidates.add_pods(&self.taken_up, &places),
            Err(error) => tracing::warn!(%error, "no pod can be found"),
        }
    }
}

/// Waits for news of the cluster.
async fn news(cluster: &mut Option<Cluster>) {
    let is_news = match cluster {
        Some(cluster) => cluster.snapshots.changed().await.is_ok(),
        None => false,
    };
    if !is_news {
        // Nobody watches, or no more: what was read last stays.
        std::future::pending().await
    }
}

/// What is enrolled, and what was said about the rest.
#[derive(Default)]
struct EnrolledSet {
    keys: Vec<Key>,
    failed: HashSet<String>,
    /// Whether something may be there in a moment.
    is_restless: bool,
}

impl EnrolledSet {
    /// Ends what is enrolled with other ports, say, than it is to have now.
    fn end_changed(&mut self, daemon: &Daemon, before: &[WorkloadConfig], now: &[WorkloadConfig]) {
        for old in before.iter().filter(|old| !now.contains(old)) {
            if self.keys.iter().any(|key| key.name == old.name) {
                daemon.unenrol(&old.name);
                self.keys.retain(|key| key.name != old.name);
            }
        }
    }

    /// Makes the enrolled workloads the wanted ones that are there.
    fn reconcile(&mut self, daemon: &Daemon, candidates: Candidates) {
        let Candidates { mut found, mut failures } = candidates;
        let mut is_restless = failures.values().any(|failure| failure.is_pending);
        let steps: Vec<(Option<Key>, Option<Key>)> = plan(&found, &self.keys)
            .into_iter()
            .map(|step| match step {
                Step::Drop(old) => (Some(old.clone()), None),
                Step::Replace { old, new } => (Some(old.clone()), Some(new.key.clone())),
                Step::Enrol(new) => (None, Some(new.key.clone())),
            })
            .collect();
        for (old, new) in steps {
            if let Some(old) = old {
                daemon.unenrol(&old.name);
                self.keys.retain(|key| *key != old);
            }
            let Some(new) = new else { continue };
            let Some(at) = found.iter().position(|one| one.key == new) else { continue };
            let candidate = found.swap_remove(at);
            let mut failure = candidate.failure(String::new());
            match daemon.enrol(candidate.enrolment) {
                Ok(()) => self.keys.push(new),
                Err(error) => {
                    is_restless = true;
                    failure.reason = error.to_string();
                    failures.insert(new.name, failure);
                }
            }
        }
        let gone: Vec<String> =
            self.failed.iter().filter(|name| !failures.contains_key(*name)).cloned().collect();
        for name in gone {
            daemon.forget_failure(&name);
            self.failed.remove(&name);
        }
        for (name, failure) in failures {
            let (is_pending, reason) = (failure.is_pending, failure.reason.clone());
            // Tried again and again, but said once.
            if daemon.failed(&name, failure) && !is_pending {
                tracing::warn!(workload = name, reason, "not enrolled: it goes direct");
            }
            self.failed.insert(name);
        }
        self.is_restless = is_restless;
    }
}
