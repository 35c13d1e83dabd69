//! What a run of the comparison found: the fields of `report.json`, whose `schema` is counted up with each change that a
//! reader of the last one would misread.

use serde::{Deserialize, Serialize};

use super::plan::{Case, Mode};

/// The version of `report.json` that is written here.
pub const SCHEMA: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it ended, UTC, as RFC 3339 writes it.
    pub date: String,
    /// The commit that was measured, with `+` behind it where files were changed; empty where nobody knows.
    pub commit: String,
    /// `full` or `quick`.
    pub profile: String,
    /// How long the run took, seconds.
    pub took_s: f64,
    /// Where it ran.
    pub machine: Machine,
    /// What all modes have in common.
    pub settings: Settings,
    /// Every mode that was asked for, in the order in which they were measured.
    pub modes: Vec<ModeNote>,
    /// Every case.
    pub cases: Vec<Case>,
    /// One for each case and mode.
    pub rows: Vec<Row>,
    /// Memory as pods grow in number.
    pub memory: Vec<MemoryRow>,
    /// What the load generators do where nothing holds them up.
    pub generators: Vec<Generator>,
}

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Such as `Linux 6.18.4`.
    pub kernel: String,
    /// The processor's model.
    pub processor: String,
    /// Its cores, as the system counts them.
    pub cores: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

/// What all modes have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Worker threads of every proxy and cache.
    pub worker_threads: u32,
    /// Worker threads of the origin.
    pub origin_threads: u32,
    /// Threads of the closed-loop generator.
    pub generator_threads: u32,
    /// How long a closed loop is measured in a round, seconds.
    pub closed_s: f64,
    /// How long an open loop is measured in a round, seconds.
    pub open_s: f64,
    /// Each program and its version.
    pub components: Vec<(String, String)>,
    /// What kept idle cores from going to sleep; none where nothing did.
    #[serde(default)]
    pub awake: Option<String>,
    /// What is not as equal as it looks, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A mode of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeNote {
    /// Which.
    pub mode: Mode,
    /// Why it was not measured, if it was not.
    pub skipped: Option<String>,
}

/// One value of each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// The median; 0 of nothing.
    pub fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => 0.0,
            n if n % 2 == 1 => values[n / 2],
            n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
        }
    }

    /// The least; 0 of nothing.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().reduce(f64::min).unwrap_or_default()
    }

    /// The greatest; 0 of nothing.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().reduce(f64::max).unwrap_or_default()
    }
}

/// What a mode did with a case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// [`Case::id`].
    pub case: String,
    /// Which mode.
    pub mode: Mode,
    /// Why nothing was measured, if nothing was.
    pub skipped: Option<String>,
    /// The closed loop: the next request follows its answer.
    pub closed: Closed,
    /// The open loop: requests are due at a constant rate, and their latency counts from when they were due.
    pub open: Open,
    /// CPU of the closed loop, seconds for 1000 requests.
    pub cpu: Cpu,
    /// Requests of 1000 that the origin had to answer, in the closed loop.
    pub origin_requests: Series,
}

/// Figures of a closed loop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Requests in a second.
    pub per_second: Series,
    /// Requests that failed or had another status, of all rounds.
    pub errors: u64,
}

/// Figures of an open loop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Requests that were due in a second.
    pub rate: f64,
    /// Requests that were answered in a second.
    pub per_second: Series,
    /// Latency by percentile (50.0, 90.0, 99.0, 99.9 and some between), microseconds.
    pub percentiles: Vec<(f64, Series)>,
    /// Requests that failed or had another status, of all rounds.
    pub errors: u64,
}

/// CPU for 1000 requests, seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Of the client, with what the kernel does in its calls.
    pub client: Series,
    /// Of whatever stands between: proxies and caches, on either side, in their own code.
    pub proxy_user: Series,
    /// The same, in the kernel.
    pub proxy_kernel: Series,
    /// Of the origin, with what the kernel does in its calls.
    pub origin: Series,
    /// What the kernel did on nobody's behalf: interrupts and its own threads.
    pub other: Series,
    /// All of it.
    pub total: Series,
}

/// Memory of a mode with so many pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Pods on the node.
    pub pods: u32,
    /// Which mode.
    pub mode: Mode,
    /// Why nothing was measured, if nothing was.
    pub skipped: Option<String>,
    /// Proportional share (PSS) of memory of everything between, the whole node, bytes: what many share is counted once.
    pub node_bytes: u64,
    /// The same as `ps` shows it (RSS), bytes: what many share is counted with each of them.
    pub resident_bytes: u64,
    /// Kernel memory of its maps, bytes; 0 where it has none.
    pub map_bytes: u64,
    /// Requests in a second of all pods together, one connection each.
    pub per_second: Series,
    /// CPU for 1000 requests of all of it, seconds.
    pub cpu_total: Series,
}

/// A load generator where nothing holds it up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Which, and against what.
    pub name: String,
    /// Requests in a second, at most.
    pub per_second: Series,
}
