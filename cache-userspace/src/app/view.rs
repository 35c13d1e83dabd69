//! What listings show of a running daemon.

use std::path::PathBuf;
use std::sync::Arc;

use cache_common::event::Counter as KernelCounter;
use cache_common::hot::CHUNK_BYTES;

use super::{Membership, Shared, lock};
use crate::admin::explain::{BadQuestion, Explanation, Question};
use crate::admin::{
    AccelerationStatus, ClusterStatus, Counters, DaemonView, EnrolmentState, PolicyStatus, Position,
    StoreStatus, WatchStatus, WorkloadStatus,
};
use crate::kube::index::{PodRef, PolicyState, TargetState};
use crate::redirect::acceleration::Acceleration;
use crate::redirect::kernel::Attachment;
use crate::request::explain::Asker;

/// Why a wanted workload is not enrolled.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The pod that it is, in a cluster.
    pub pod: Option<PodRef>,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// Where its processes are to be.
    pub cgroup: PathBuf,
    /// Whether it is merely not there yet.
    pub is_pending: bool,
    /// Whether the cluster was told that it is not served.
    pub was_told: bool,
    /// One sentence.
    pub reason: String,
}

fn policy_status(state: &PolicyState) -> PolicyStatus {
    let PolicyState { policy, targets, trouble } = state;
    PolicyStatus {
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        targets: targets.iter().map(|(target, state)| format!("{target}: {state}")).collect(),
        holds: trouble.is_none() && targets.iter().all(|(_, state)| *state == TargetState::Holds),
        trouble: trouble.clone(),
    }
}

pub(super) struct View(pub(super) Arc<Shared>);

impl DaemonView for View {
    fn workloads(&self) -> Vec<WorkloadStatus> {
        let enrolled = lock(&self.0.enrolled);
        let hot = self.0.path.hot.as_ref().map(|hot| hot.figures().workloads).unwrap_or_default();
        let kernel_hits = |id| hot.iter().find(|(of, _)| *of == id).map_or(0, |(_, account)| account.hits);
        let served = enrolled.values().map(|one| WorkloadStatus {
            name: one.workload.name.clone(),
            namespace: one.workload.namespace.clone(),
            service_account: one.workload.service_account.clone(),
            state: EnrolmentState::Enrolled,
            reason: String::new(),
            cgroup: one.cgroup.path().to_owned(),
            hooks: one.attachment.iter().flat_map(Attachment::hooks).map(str::to_owned).collect(),
            kernel_hits: kernel_hits(one.workload.id),
        });
        let failures = lock(&self.0.failures);
        let failed = failures.iter().map(|(name, failure)| WorkloadStatus {
            name: name.clone(),
            namespace: failure.namespace.clone(),
            service_account: failure.service_account.clone(),
            state: if failure.is_pending { EnrolmentState::Pending } else { EnrolmentState::Failed },
            reason: failure.reason.clone(),
            cgroup: failure.cgroup.clone(),
            hooks: Vec::new(),
            kernel_hits: 0,
        });
        let mut all: Vec<WorkloadStatus> = served.chain(failed).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn store(&self) -> StoreStatus {
        let store = &self.0.path.store;
        StoreStatus { bytes: store.bytes(), bytes_max: store.bytes_max(), entries: store.entries() }
    }

    fn acceleration(&self) -> Option<AccelerationStatus> {
        let Acceleration { mode, is_on, reason, findings, settings, .. } = &self.0.acceleration;
        let (residents, bytes) = self.0.kernel.hits().residents();
        Some(AccelerationStatus {
            mode: *mode,
            state: if *is_on { Position::On } else { Position::Off },
            reason: reason.clone(),
            switch: Position::Off,
            switched_off_by: None,
            deviations: self.0.acceleration.deviations().map(str::to_owned).collect(),
            residents,
            bytes,
            bytes_max: if *is_on { u64::from(settings.chunks) * CHUNK_BYTES as u64 } else { 0 },
            self_test: findings.clone(),
        })
    }

    fn cluster(&self) -> Option<ClusterStatus> {
        // One lock at a time: who publishes holds that of the policies, and asks for the cluster.
        let policies = lock(&self.0.policies).iter().map(policy_status).collect();
        let destinations = lock(&self.0.destinations).len() as u64;
        let cluster = lock(&self.0.cluster);
        let Membership { node, health, .. } = cluster.as_ref()?;
        let watches = health.kinds().into_iter().map(|(kind, watched)| WatchStatus {
            kind: kind.names().1.to_owned(),
            is_synced: watched.is_synced,
            trouble: watched.trouble,
        });
        Some(ClusterStatus { node: node.clone(), watches: watches.collect(), destinations, policies })
    }

    fn explain(&self, question: &Question) -> Result<Explanation, BadQuestion> {
        let askers: Vec<Asker> = lock(&self.0.enrolled)
            .values()
            .map(|one| Asker { workload: one.workload.clone(), ports: one.intercepted.named_ports() })
            .collect();
        self.0.path.explain(question, &askers)
    }

    fn fold_kernel_counters(&self, _counters: &Counters) {
        self.0.fold_kernel_counters();
    }
}

impl Shared {
    /// Copies what the kernel programs have counted into the daemon's figures.
    pub(super) fn fold_kernel_counters(&self) {
        let counters = &self.path.counters;
        if let Some(cluster) = &*lock(&self.cluster) {
            counters.reports_dropped.follow(cluster.reports.dropped());
        }
        let mut passed = 0;
        for counter in KernelCounter::ALL {
            let value = self.kernel.count(*counter);
            let figure = match counter {
                KernelCounter::Redirected => &counters.connections_redirected,
                KernelCounter::OriginalDstFull => &counters.original_dst_full,
                // Ports that nobody asked to intercept are none of ours.
                KernelCounter::PassedPort => continue,
                KernelCounter::PassedExcluded => &counters.passed_excluded,
                KernelCounter::PassedAddress => &counters.passed_address,
                KernelCounter::PassedDevice => &counters.passed_device,
                KernelCounter::PassedNetns => &counters.passed_netns,
                KernelCounter::PassedPaused => &counters.passed_paused,
                KernelCounter::PassedStale => &counters.passed_stale,
                KernelCounter::PassedOff => &counters.passed_off,
                KernelCounter::PassedBypass => &counters.passed_bypass,
                KernelCounter::PassedPending => &counters.passed_pending,
                KernelCounter::PassedNoListener => &counters.passed_no_listener,
                KernelCounter::PassedStorage => &counters.passed_storage,
                KernelCounter::KernelHits => &counters.kernel_hits,
                KernelCounter::KernelBytes => &counters.kernel_bytes,
                KernelCounter::Enrolled => &counters.enrolled,
                KernelCounter::EnrolRefusedMptcp => &counters.enrol_refused_mptcp,
                KernelCounter::EnrolRefusedData => &counters.enrol_refused_data,
                KernelCounter::EnrolRefusedFull => &counters.enrol_refused_full,
                KernelCounter::LeftAtHalfClose => &counters.left_at_half_close,
                KernelCounter::UnansweredNoHead => &counters.unanswered_no_head,
                KernelCounter::UnansweredTooLong => &counters.unanswered_too_long,
                KernelCounter::UnansweredStale => &counters.unanswered_stale,
                KernelCounter::UnansweredNoHits => &counters.unanswered_no_hits,
                KernelCounter::UnansweredSampled => &counters.unanswered_sampled,
                KernelCounter::UnansweredOutstanding => &counters.unanswered_outstanding,
                KernelCounter::UnansweredUnread => &counters.unanswered_unread,
                KernelCounter::UnansweredCold => &counters.unanswered_cold,
                KernelCounter::UnansweredExpired => &counters.unanswered_expired,
                KernelCounter::UnansweredOther => &counters.unanswered_other,
                KernelCounter::UnansweredNoMemory => &counters.unanswered_no_memory,
                KernelCounter::AnswersSpoilt => &counters.answers_spoilt,
                KernelCounter::Pipelining => &counters.pipelining,
                KernelCounter::Splicing => &counters.splicing,
                KernelCounter::LeftToWait => &counters.left_to_wait,
            };
            figure.follow(value);
            if counter.name().starts_with("passed_") {
                passed += value;
            }
        }
        counters.connections_passed.follow(passed);
    }
}
