//! What could be enrolled now: the workloads of the configuration, and the pods of the cluster.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::accept::netns::Netns;
use crate::app::view::Failure;
use crate::app::{Enrolment, Intercepted};
use crate::config::WorkloadConfig;
use crate::kube::index::{PodState, Snapshot, WantedPod};
use crate::kube::place::{Nowhere, Place, Places};
use crate::redirect::cgroup::{Cgroup, netns_path, oldest_process};
use crate::redirect::reconcile::{Key, Keyed};

/// A workload that is wanted and there.
pub(super) struct Candidate {
    pub(super) key: Key,
    pub(super) enrolment: Enrolment,
}

impl Keyed for Candidate {
    fn key(&self) -> &Key {
        &self.key
    }
}

impl Candidate {
    /// What a listing says where it could not be enrolled.
    pub(super) fn failure(&self, reason: String) -> Failure {
        let Enrolment { namespace, service_account, cgroup, intercepted, .. } = &self.enrolment;
        Failure {
            pod: intercepted.pod().cloned(),
            namespace: namespace.clone(),
            service_account: service_account.clone(),
            cgroup: cgroup.path().to_owned(),
            is_pending: false,
            was_told: false,
            reason,
        }
    }
}

/// What could be enrolled, and why the rest could not.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) found: Vec<Candidate>,
    pub(super) failures: HashMap<String, Failure>,
}

impl Candidates {
    /// Adds the workloads of a configuration.
    pub(super) fn add_configured(&mut self, workloads: &[WorkloadConfig]) {
        for config in workloads {
            match configured(config) {
                Ok(candidate) => self.found.push(candidate),
                Err(reason) => {
                    let failure = Failure {
                        pod: None,
                        namespace: config.namespace.clone(),
                        service_account: config.service_account.clone(),
                        cgroup: config.cgroup.clone(),
                        is_pending: true,
                        was_told: false,
                        reason,
                    };
                    self.failures.insert(config.name.clone(), failure);
                }
            }
        }
    }

    /// Adds the pods of the cluster.
    pub(super) fn add_pods(&mut self, snapshot: &Snapshot, places: &Places) {
        let mut taken = HashSet::new();
        // An annotation may name the cgroup of another pod, whose own name of it counts more.
        let mut states: Vec<&PodState> = snapshot.pods.iter().collect();
        states.sort_by_key(|state| matches!(state, PodState::Wanted(one) if one.cgroup_uid != one.pod.uid));
        for state in states {
            let (pod, service_account, is_pending, reason) = match state {
                PodState::Wanted(one) => {
                    let place = places.place(one).and_then(|place| {
                        let is_first = taken.insert(place.cgroup.id());
                        if is_first { Ok(place) } else { Err(Nowhere::Taken) }
                    });
                    let why = match place {
                        Ok(place) => {
                            self.found.push(of_pod(one, place));
                            continue;
                        }
                        Err(why) => why,
                    };
                    (&one.pod, &one.service_account, why.is_pending(), why.to_string())
                }
                PodState::LeftAlone { pod, service_account, why } => {
                    (pod, service_account, why.is_pending(), why.to_string())
                }
            };
            let failure = Failure {
                pod: Some(pod.clone()),
                namespace: pod.namespace.clone(),
                service_account: service_account.clone(),
                cgroup: PathBuf::new(),
                is_pending,
                was_told: false,
                reason,
            };
            self.failures.insert(pod.title(), failure);
        }
    }
}

fn configured(config: &WorkloadConfig) -> Result<Candidate, String> {
    let cgroup = Cgroup::open(&config.cgroup).map_err(|error| error.to_string())?;
    let path = match &config.netns {
        Some(path) => path.clone(),
        None => netns_path(oldest_process(cgroup.path()).ok_or("no process in the cgroup yet")?),
    };
    let netns = Netns::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let key =
        Key { name: config.name.clone(), cgroup: cgroup.id(), members: Vec::new(), netns: inode(&path)? };
    let enrolment = Enrolment {
        name: config.name.clone(),
        namespace: config.namespace.clone(),
        service_account: config.service_account.clone(),
        cgroup,
        members: None,
        netns,
        intercepted: Intercepted::Ports { ports: config.ports.clone(), loopback: config.loopback },
    };
    Ok(Candidate { key, enrolment })
}

fn of_pod(wanted: &WantedPod, place: Place) -> Candidate {
    let WantedPod { pod, service_account, ips, .. } = wanted;
    let Place { cgroup, members, netns, netns_inode } = place;
    let ids = members.iter().flatten().map(Cgroup::id).collect();
    let key = Key { name: pod.title(), cgroup: cgroup.id(), members: ids, netns: netns_inode };
    let enrolment = Enrolment {
        name: pod.title(),
        namespace: pod.namespace.clone(),
        service_account: service_account.clone(),
        cgroup,
        members,
        netns,
        intercepted: Intercepted::Services { pod: pod.clone(), own: ips.clone() },
    };
    Candidate { key, enrolment }
}

fn inode(path: &Path) -> Result<u64, String> {
    std::fs::metadata(path).map(|found| found.ino()).map_err(|error| format!("{}: {error}", path.display()))
}
