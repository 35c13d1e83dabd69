//! The administrator's way in: counters, the switch, and HTTP on a unix socket.
//!
//! What the figures mean is said in `counters`; who raises them is the stage that sees the event.

pub mod client;
pub mod counters;
pub mod explain;
mod exposed;
pub mod reasons;
#[cfg(test)]
pub(crate) mod scratch;
pub mod server;
pub mod switch;

pub use counters::{Counters, Figures, Outcome};
pub use exposed::ExposedServer;
pub use server::{AdminServer, AdminState, DaemonView};
pub use switch::{Subject, Switch, Switches};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::redirect::acceleration::Mode;
use crate::redirect::selftest::Finding;

/// Whether redirection is on, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Connections are redirected.
    On,
    /// Connections go direct.
    Off,
}

impl Position {
    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// How far the enrolment of a workload has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnrolmentState {
    /// Its connections are redirected.
    Enrolled,
    /// Its cgroup or network namespace is not there yet.
    Pending,
    /// It cannot be enrolled; the reason says why.
    Failed,
}

/// One workload as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its unique name.
    pub name: String,
    /// The namespace of its partition.
    pub namespace: String,
    /// The service account of its partition.
    pub service_account: String,
    /// How far its enrolment has come.
    pub state: EnrolmentState,
    /// Why it is not enrolled; empty where it is.
    #[serde(default)]
    pub reason: String,
    /// Its cgroup directory.
    pub cgroup: PathBuf,
    /// The kernel programs that are attached to its cgroup.
    #[serde(default)]
    pub hooks: Vec<String>,
    /// Requests of its that the kernel answered.
    #[serde(default)]
    pub kernel_hits: u64,
}

/// The store as the status shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Bytes taken by stored responses, those on their way in and out included.
    pub bytes: u64,
    /// Bytes that they may take.
    pub bytes_max: u64,
    /// Stored responses.
    pub entries: u64,
}

/// Hits inside the kernel as the status shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccelerationStatus {
    /// What was asked for: auto, hits or off.
    pub mode: Mode,
    /// Whether hits are given inside the kernel now: this kernel is fit for it, and nothing is switched off.
    pub state: Position,
    /// Why, in one sentence.
    pub reason: String,
    /// The switch of `sidestep off --acceleration`, as the kernel follows it now.
    pub switch: Position,
    /// The file that keeps it off, where one does.
    #[serde(default)]
    pub switched_off_by: Option<PathBuf>,
    /// In what it is known to differ from plain TCP on this kernel, a sentence each.
    #[serde(default)]
    pub deviations: Vec<String>,
    /// Responses that the kernel can give.
    pub residents: u64,
    /// Memory that they take, bytes.
    pub bytes: u64,
    /// Memory that they may take, bytes.
    pub bytes_max: u64,
    /// What the self-test found, part by part; empty where it did not run.
    #[serde(default)]
    pub self_test: Vec<Finding>,
}

/// The watch of one kind of the cluster's objects as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchStatus {
    /// The kind, such as `Pod`.
    pub kind: String,
    /// Whether its objects were all read once.
    pub is_synced: bool,
    /// Why the API server does not tell of them now; the last that was read stays.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// The cluster that a node belongs to as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The name of the node.
    pub node: String,
    /// What is watched.
    pub watches: Vec<WatchStatus>,
    /// Addresses and ports that are known to be HTTP services.
    pub destinations: u64,
    /// What has become of each CachePolicy.
    #[serde(default)]
    pub policies: Vec<PolicyStatus>,
}

/// A CachePolicy as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What has become of each of its targets, a sentence each.
    pub targets: Vec<String>,
    /// Whether it holds for all of them.
    pub holds: bool,
    /// Why it cannot be read: nothing of its namespace's services is given from the cache then.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// What `GET /v1/status` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The daemon's process id.
    pub pid: u32,
    /// The daemon's version.
    pub version: String,
    /// What the kernel follows now, not merely what was asked for.
    pub switch: Position,
    /// The file that keeps it off, where one does.
    #[serde(default)]
    pub switched_off_by: Option<PathBuf>,
    /// Hits inside the kernel; an older daemon says nothing of them.
    #[serde(default)]
    pub acceleration: Option<AccelerationStatus>,
    /// The cluster that the node belongs to, where it belongs to one.
    #[serde(default)]
    pub cluster: Option<ClusterStatus>,
    /// Every workload that is wanted.
    pub workloads: Vec<WorkloadStatus>,
    /// Every counter by its name; a newer daemon may have more of them.
    pub counters: BTreeMap<String, u64>,
    /// The same by reason, those that are not zero: by the name of the counter, then by the word of `Cache-Status`.
    #[serde(default)]
    pub reasons: BTreeMap<String, BTreeMap<String, u64>>,
    /// The store.
    pub store: StoreStatus,
}

/// What `PUT /v1/switch` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchRequest {
    /// The position that is asked for.
    pub state: Position,
    /// Of what; of redirection where nothing is said.
    #[serde(default, skip_serializing_if = "Subject::is_redirection")]
    pub subject: Subject,
}

/// What `PUT /v1/switch` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwitchAnswer {
    /// What the kernel follows at the moment of the answer.
    pub state: Position,
    /// The file that keeps it off, where one does.
    #[serde(default)]
    pub switched_off_by: Option<PathBuf>,
}
