//! Workloads come and go: their listeners, what the kernel knows of them, and the order in which both end.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cache_common::redirect::{BY_DESTINATION, LOOPBACK, PAUSED, Workload as KernelWorkload};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{AppError, Daemon, Shared, lock, view};
use crate::accept::gate::Gate;
use crate::accept::keeper::Kept;
use crate::accept::netns::Netns;
use crate::accept::{Acceptor, Taken};
use crate::clock;
use crate::identify::Workload;
use crate::identify::lease::Leases;
use crate::identify::sidecar::Unproven;
use crate::kube::index::{PodRef, Snapshot};
use crate::kube::report::Report;
use crate::redirect::cgroup::Cgroup;
use crate::redirect::kernel::{Attachment, Kernel, words};

/// What the cluster says, as it changes.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// A workload to be enrolled.
#[derive(Debug)]
pub struct Enrolment {
    /// Its name, unique on the node.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// Where its processes are.
    pub cgroup: Cgroup,
    /// Where those are whose connections are redirected: cgroups in that one; `None`: all of it.
    pub members: Option<Vec<Cgroup>>,
    /// Where its sockets are.
    pub netns: Netns,
    /// What of its connections is redirected.
    pub intercepted: Intercepted,
}

/// Which connections of a workload are redirected.
#[derive(Clone, Debug)]
pub enum Intercepted {
    /// Those to ports.
    Ports {
        /// The ports.
        ports: Vec<u16>,
        /// Whether loopback destinations are redirected too.
        loopback: bool,
    },
    /// Those to HTTP services of the cluster, from a network namespace that has one of these addresses.
    Services {
        /// The pod.
        pod: PodRef,
        /// The pod's addresses.
        own: Vec<IpAddr>,
    },
}

impl Intercepted {
    fn ports(&self) -> &[u16] {
        match self {
            Self::Ports { ports, .. } => ports,
            Self::Services { .. } => &[],
        }
    }

    /// The pod whose connections they are, in a cluster.
    pub fn pod(&self) -> Option<&PodRef> {
        match self {
            Self::Ports { .. } => None,
            Self::Services { pod, .. } => Some(pod),
        }
    }

    /// The ports, where they alone decide.
    pub(super) fn named_ports(&self) -> Option<Vec<u16>> {
        match self {
            Self::Ports { ports, .. } => Some(ports.clone()),
            Self::Services { .. } => None,
        }
    }

    fn flags(&self) -> u32 {
        match self {
            Self::Ports { loopback: true, .. } => LOOPBACK,
            Self::Ports { loopback: false, .. } => 0,
            Self::Services { .. } => BY_DESTINATION,
        }
    }
}

/// A workload that is served.
pub(super) struct Enrolled {
    pub(super) workload: Arc<Workload>,
    pub(super) cgroup: Cgroup,
    pub(super) members: Vec<Cgroup>,
    pub(super) intercepted: Intercepted,
    pub(super) attachment: Option<Attachment>,
    pub(super) accepting: Vec<JoinHandle<()>>,
    pub(super) kept: Vec<Kept>,
    pub(super) gate: Arc<Gate>,
    pub(super) taken: Arc<Taken>,
}

impl Daemon {
    /// Makes a workload's new connections come here.
    ///
    /// # Errors
    /// `AppError`; the workload then goes direct, as before.
    pub fn enrol(&self, enrolment: Enrolment) -> Result<(), AppError> {
        let (name, pod) = (enrolment.name.clone(), enrolment.intercepted.pod().cloned());
        let _one = lock(&self.shared.changing);
        self.try_enrol(enrolment)?;
        let before = lock(&self.shared.failures).remove(&name);
        let after_failure = before.is_some_and(|before| before.was_told);
        self.shared.report(pod.as_ref(), Report::Served { after_failure });
        Ok(())
    }

    fn try_enrol(&self, enrolment: Enrolment) -> Result<(), AppError> {
        let Enrolment { name, namespace, service_account, cgroup, members, netns, intercepted } = enrolment;
        let shared = &self.shared;
        // Where our own place cannot be seen we might be inside: serving ourselves would never end.
        if Cgroup::own()?.path().starts_with(cgroup.path()) {
            return Err(AppError::OwnCgroup(name));
        }
        let listeners = netns.listen().map_err(AppError::Listen)?;
        if let Intercepted::Services { own, .. } = &intercepted
            && !own.iter().any(|ip| listeners.addresses.contains(ip))
        {
            return Err(AppError::OtherNetns);
        }
        let port_of =
            |listener: &std::net::TcpListener| listener.local_addr().map(|address| u32::from(address.port()));
        // Wraps after four thousand million enrolments.
        let epoch = shared.enrolments.fetch_add(1, Ordering::Relaxed) + 1;
        let id = cgroup.id();
        let kernel_workload = KernelWorkload {
            id,
            netns_cookie: listeners.netns_cookie,
            listener4_port: port_of(&listeners.on4).map_err(AppError::Listen)?,
            listener6_port: listeners
                .on6
                .as_ref()
                .map(port_of)
                .transpose()
                .map_err(AppError::Listen)?
                .unwrap_or(0),
            flags: intercepted.flags(),
            pending_max: shared.path.limits.original_dst_pending_max.min(listeners.backlog_max),
            address4: listeners.address4.map_or(0, |ip| u32::from_ne_bytes(ip.octets())),
            address6: listeners.address6.map_or([0; 4], |ip| words(ip.into())),
            epoch,
        };
        let members = members.unwrap_or_default();
        let member_ids: Vec<u64> = members.iter().map(Cgroup::id).collect();
        let place = (netns, listeners.netns_cookie);
        let mut workload = Workload::new(name.clone(), [namespace, service_account], id, place, epoch);
        if let Intercepted::Services { .. } = &intercepted {
            let lasts = lock(&shared.cluster).as_ref().map(|cluster| cluster.authorization_lease);
            workload.leases = Some(Leases::new(lasts.unwrap_or_default()));
        }
        if matches!(intercepted, Intercepted::Services { .. }) && members.is_empty() {
            let (shared, name) = (Arc::downgrade(shared), name.clone());
            let alarm = move || {
                if let Some(shared) = shared.upgrade() {
                    shared.leave_alone(&name, epoch);
                }
            };
            workload.unproven = Some(Unproven::new(cgroup.path().to_owned(), Box::new(alarm)));
        }
        let workload = Arc::new(workload);
        let taken = Arc::new(Taken::new(shared.taken.clone()));
        let gate = Arc::new(Gate::new(
            shared.budget.clone(),
            shared.path.limits.connections_per_workload_max,
            pause(shared.kernel.clone(), kernel_workload, member_ids.clone()),
        ));
        let acceptor = Arc::new(Acceptor {
            workload: workload.clone(),
            kernel: shared.kernel.clone(),
            path: shared.path.clone(),
            gate: gate.clone(),
            taken: taken.clone(),
        });
        if let Some(hot) = &shared.path.hot {
            hot.add_workload(id, epoch);
        }
        let kept = [Some(&listeners.on4), listeners.on6.as_ref()].into_iter().flatten();
        let kept = kept.map(|listener| shared.keeper.keep(listener)).collect::<Result<_, _>>();
        let kept = kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "listeners are not kept: a kill may refuse connections");
            Vec::new()
        });
        let listeners = [Some(listeners.on4), listeners.on6].into_iter().flatten();
        let listeners: Vec<_> =
            listeners.map(TcpListener::from_std).collect::<Result<_, _>>().map_err(AppError::Listen)?;
        let accept = |listener| tokio::spawn(acceptor.clone().run(listener));
        let accepting = listeners.into_iter().map(accept).collect();
        let mut enrolled = Enrolled {
            workload,
            cgroup,
            members,
            intercepted,
            attachment: None,
            accepting,
            kept,
            gate,
            taken,
        };
        shared.path.counters.workloads_served.incr();
        let attached = shared
            .kernel
            .insert_workload(kernel_workload, &member_ids, enrolled.intercepted.ports())
            .and_then(|()| shared.kernel.attach(enrolled.cgroup.dir()));
        match attached {
            Ok(attachment) => enrolled.attachment = Some(attachment),
            Err(error) => {
                shared.end(enrolled);
                return Err(error.into());
            }
        }
        tracing::info!(workload = name, cgroup = %enrolled.cgroup.path().display(), "enrolled");
        lock(&shared.enrolled).insert(name, enrolled);
        Ok(())
    }

    /// Remembers why a workload is not enrolled, for listings; says whether that is news.
    pub fn failed(&self, name: &str, failure: view::Failure) -> bool {
        self.shared.failed(name, failure)
    }

    /// Forgets why a workload that nobody wants any more was not enrolled.
    pub fn forget_failure(&self, name: &str) {
        let gone = lock(&self.shared.failures).remove(name);
        self.shared.report(gone.as_ref().and_then(|gone| gone.pod.as_ref()), Report::Unwanted);
    }

    /// Publishes what the cluster says as long as the result runs: news are not to wait while pods are enrolled.
    pub fn follow(&self, mut snapshots: Snapshots) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move {
            while snapshots.changed().await.is_ok() {
                shared.publish_latest(&snapshots);
            }
        }
    }

    /// Publishes what the cluster says now, if anything, before it is returned.
    pub fn publish_latest(&self, snapshots: &Snapshots) -> Option<Arc<Snapshot>> {
        self.shared.publish_latest(snapshots)
    }

    /// Lets a workload's new connections go direct; those that are open end with their next answer.
    pub fn unenrol(&self, name: &str) {
        let gone = self.end(name);
        // Also what was left alone after it had been enrolled.
        self.forget_failure(name);
        self.shared.report(gone.as_ref(), Report::Unwanted);
    }

    /// The same, of which the cluster is told nothing; returns the pod that it was.
    pub(super) fn end(&self, name: &str) -> Option<PodRef> {
        let _one = lock(&self.shared.changing);
        let gone = {
            let mut all = lock(&self.shared.enrolled);
            // Before a listing says so.
            if let Some(attachment) = all.get_mut(name).and_then(|enrolled| enrolled.attachment.as_mut()) {
                attachment.end_redirection();
            }
            all.remove(name)
        };
        let gone = gone?;
        tracing::info!(workload = name, "no longer enrolled");
        let pod = gone.intercepted.pod().cloned();
        self.shared.end(gone);
        pod
    }
}

impl Shared {
    /// Who comes second publishes what is latest by then: nothing older ever follows.
    fn publish_latest(&self, snapshots: &Snapshots) -> Option<Arc<Snapshot>> {
        // Held first, and by nobody who holds another lock.
        let mut policies = lock(&self.policies);
        let snapshot = snapshots.borrow().clone()?;
        self.publish_services(&snapshot);
        // Said once it is so.
        policies.clone_from(&snapshot.policies);
        Some(snapshot)
    }

    /// Makes these the services of the cluster: what is stored of others, or of what they were before, no longer counts, and
    /// the connections of pods to them are redirected.
    fn publish_services(&self, snapshot: &Snapshot) {
        let pause = lock(&self.cluster).as_ref().map_or(Duration::ZERO, |cluster| cluster.storing_pause);
        // First: what is promoted looks at it last, and a connection that is redirected must find its service.
        let outdated = self.path.routes.publish(snapshot, clock::boot(), pause);
        if let (Some(hot), false) = (&self.path.hot, outdated.is_empty()) {
            let outdated: HashSet<_> =
                outdated.iter().map(|at| (words(at.ip()), u32::from(at.port()))).collect();
            hot.remove_destinations(|ip, port| outdated.contains(&(*ip, port)));
        }
        self.intercept(snapshot.destinations.keys().copied().collect());
    }

    fn intercept(&self, destinations: HashSet<SocketAddr>) {
        let mut before = lock(&self.destinations);
        if *before == destinations {
            return;
        }
        let refused = self.kernel.replace_destinations(&before, &destinations);
        *before = destinations;
        if !refused.is_empty() {
            let count = refused.len();
            tracing::warn!(count, "the kernel's table of services is full: connections to so many go direct");
            // They are offered again with the next news.
            for address in refused {
                before.remove(&address);
            }
        }
    }

    /// Ends an enrolment for good: a proxy that nobody told us of takes the pod's connections, and its own came here.
    fn leave_alone(&self, name: &str, epoch: u32) {
        let _one = lock(&self.changing);
        let mut all = lock(&self.enrolled);
        if all.get(name).is_none_or(|enrolled| enrolled.workload.epoch != epoch) {
            return;
        }
        let Some(enrolled) = all.remove(name) else { return };
        drop(all);
        let reason = "a proxy in it takes its connections, and none of its containers is known to be one \
                      (kubernetes.proxyContainers): it goes direct";
        tracing::warn!(workload = name, reason, "left alone");
        let failure = view::Failure {
            pod: enrolled.intercepted.pod().cloned(),
            namespace: enrolled.workload.namespace.clone(),
            service_account: enrolled.workload.service_account.clone(),
            cgroup: enrolled.cgroup.path().to_owned(),
            is_pending: false,
            was_told: false,
            reason: reason.to_owned(),
        };
        self.failed(name, failure);
        self.end(enrolled);
    }

    /// Remembers why a workload is not enrolled; says whether that is news, which the cluster is told of then.
    fn failed(&self, name: &str, failure: view::Failure) -> bool {
        let (pod, reason, is_pending) = (failure.pod.clone(), failure.reason.clone(), failure.is_pending);
        let mut failures = lock(&self.failures);
        let before = failures.get(name).filter(|before| before.pod == pod);
        let is_news = before.is_none_or(|before| before.reason != reason);
        let was_told = before.is_some_and(|before| before.was_told) || !is_pending;
        failures.insert(name.to_owned(), view::Failure { was_told, ..failure });
        drop(failures);
        if is_news && !is_pending {
            self.path.counters.enrolment_failures.incr();
            self.report(pod.as_ref(), Report::NotServed(reason));
        }
        is_news
    }

    /// Tells the cluster what has become of a pod.
    fn report(&self, pod: Option<&PodRef>, report: Report) {
        let cluster = lock(&self.cluster);
        if let (Some(pod), Some(membership)) = (pod, &*cluster) {
            membership.reports.tell(pod, report);
        }
    }

    /// Detaches first: a connection is redirected until then, and must find a listener.
    pub(super) fn end(&self, mut enrolled: Enrolled) {
        self.path.counters.workloads_served.decr();
        let mut attachment = enrolled.attachment.take();
        if let Some(attachment) = &mut attachment {
            attachment.end_redirection();
        }
        let id = enrolled.workload.id;
        enrolled.workload.end();
        // Before the kernel forgets the workload: an acceptor at its limits would make it known again.
        enrolled.gate.end();
        let members: Vec<u64> = enrolled.members.iter().map(Cgroup::id).collect();
        self.kernel.remove_workload(id, &members, enrolled.intercepted.ports());
        if let Some(hot) = &self.path.hot {
            hot.remove_workload(id);
        }
        self.path.pool.forget_workload(id);
        let (accepting, kept) = (std::mem::take(&mut enrolled.accepting), std::mem::take(&mut enrolled.kept));
        // What was redirected a moment ago is still in the listener's queue.
        let end = async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(attachment);
            drop(kept);
            accepting.iter().for_each(JoinHandle::abort);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(end)),
            Err(_) => tracing::debug!("no runtime: listeners end with the process"),
        }
    }
}

/// What an acceptor calls at its limits: new connections go direct, or come here again.
fn pause(kernel: Arc<Kernel>, usual: KernelWorkload, members: Vec<u64>) -> Box<dyn Fn(bool) + Send + Sync> {
    Box::new(move |is_paused| {
        let flags = if is_paused { usual.flags | PAUSED } else { usual.flags };
        if let Err(error) = kernel.update_workload(KernelWorkload { flags, ..usual }, &members) {
            tracing::warn!(%error, "the kernel was not told about a limit");
        }
    })
}
