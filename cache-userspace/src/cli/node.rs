//! `sidestep node`: the daemon of a node, here for a static list of cgroups.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use crate::accept::netns::Netns;
use crate::admin::Switches;
use crate::admin::switch::state_dir;
use crate::app::view::Failure;
use crate::app::{Daemon, Enrolment, Options, raise_descriptor_limit};
use crate::config::{Config, Limits, WorkloadConfig};
use crate::redirect::acceleration::Wish;
use crate::redirect::cgroup::{Cgroup, netns_path, oldest_process};
use crate::redirect::preflight::{Probe, Role, findings, first_obstacle};
use crate::redirect::reconcile::{Key, Keyed, Step, plan};

/// How often cgroups are looked for that come and go.
const RECONCILE: Duration = Duration::from_millis(500);

/// Runs the daemon of a node until it is told to end (SIGTERM, SIGINT).
#[derive(Debug, clap::Args)]
pub struct Node {
    /// Configuration file; read again on SIGHUP, where a faulty one changes nothing.
    #[arg(long, value_name = "FILE", env = "SIDESTEP_CONFIG")]
    config: Option<PathBuf>,
    /// Says more on stderr; twice for more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// A workload of the configuration that is there now.
struct Wanted<'a> {
    key: Key,
    config: &'a WorkloadConfig,
    cgroup: Cgroup,
    netns: Netns,
}

impl Keyed for Wanted<'_> {
    fn key(&self) -> &Key {
        &self.key
    }
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

    async fn serve(&self, mut config: Config) -> anyhow::Result<()> {
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
        let mut daemon = Daemon::start(options, switches)?;
        daemon.serve_admin(&config.admin)?;
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hup = signal(SignalKind::hangup())?;
        let mut ticks = tokio::time::interval(RECONCILE);
        let mut have: Vec<Key> = Vec::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => have = reconcile(&daemon, &config.workloads, &have),
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => match self.read() {
                    Ok(read) => {
                        end_changed(&daemon, &config.workloads, &read.workloads, &mut have);
                        config.workloads = read.workloads;
                        have = reconcile(&daemon, &config.workloads, &have);
                    }
                    Err(error) => tracing::error!("the configuration stays as it was: {error:#}"),
                },
            }
        }
        daemon.drain(patience).await;
        Ok(())
    }
}

/// Ends what is enrolled with other ports, say, than it is to have now, and forgets why others were not enrolled.
fn end_changed(daemon: &Daemon, before: &[WorkloadConfig], now: &[WorkloadConfig], have: &mut Vec<Key>) {
    for old in before.iter().filter(|old| !now.contains(old)) {
        daemon.forget_failure(&old.name);
        if have.iter().any(|key| key.name == old.name) {
            daemon.unenrol(&old.name);
            have.retain(|key| key.name != old.name);
        }
    }
}

/// Makes the enrolled workloads the configured ones that are there, and returns which are enrolled.
fn reconcile(daemon: &Daemon, configured: &[WorkloadConfig], have: &[Key]) -> Vec<Key> {
    let mut wanted: Vec<Wanted<'_>> = Vec::new();
    for config in configured {
        match find(config) {
            Ok(one) => wanted.push(one),
            Err(reason) => drop(daemon.failed(&config.name, failure(config, reason, true))),
        }
    }
    let mut now = have.to_vec();
    let steps: Vec<(Option<Key>, Option<Key>)> = plan(&wanted, have)
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
            now.retain(|key| *key != old);
        }
        let Some(new) = new else { continue };
        let Some(at) = wanted.iter().position(|one| one.key == new) else { continue };
        let Wanted { key, config, cgroup, netns } = wanted.swap_remove(at);
        let enrolment = Enrolment {
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            service_account: config.service_account.clone(),
            cgroup,
            netns,
            ports: config.ports.clone(),
            loopback: config.loopback,
        };
        match daemon.enrol(enrolment) {
            Ok(()) => now.push(key),
            Err(error) => {
                // Tried again and again, but said once.
                if daemon.failed(&config.name, failure(config, error.to_string(), false)) {
                    tracing::warn!(workload = config.name, %error, "not enrolled: it goes direct");
                }
            }
        }
    }
    now
}

fn find(config: &WorkloadConfig) -> Result<Wanted<'_>, String> {
    let cgroup = Cgroup::open(&config.cgroup).map_err(|error| error.to_string())?;
    let path = match &config.netns {
        Some(path) => path.clone(),
        None => netns_path(oldest_process(cgroup.path()).ok_or("no process in the cgroup yet")?),
    };
    let netns = Netns::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let key = Key { name: config.name.clone(), cgroup: cgroup.id(), netns: inode(&path)? };
    Ok(Wanted { key, config, cgroup, netns })
}

fn inode(path: &Path) -> Result<u64, String> {
    std::fs::metadata(path).map(|found| found.ino()).map_err(|error| format!("{}: {error}", path.display()))
}

fn failure(config: &WorkloadConfig, reason: String, is_pending: bool) -> Failure {
    Failure {
        namespace: config.namespace.clone(),
        service_account: config.service_account.clone(),
        cgroup: config.cgroup.clone(),
        is_pending,
        reason,
    }
}
