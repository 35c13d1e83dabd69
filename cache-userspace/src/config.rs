//! The configuration of a node: parsed once into types, refused with the line and the field where it is wrong.
//!
//! Applying it is left to `app` and `cli::node`.

mod byte_size;
mod fields;
mod kubernetes;
mod limits;
mod policy;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

pub use byte_size::{ByteSize, ByteSizeError};
pub use kubernetes::KubernetesConfig;
pub use limits::Limits;
pub use policy::{After, ErrorStatus, PolicyConfig, Span};

use crate::policy::Profile;
use crate::redirect::acceleration::Mode;
use crate::redirect::hot::Skipped;

/// Where a node's daemon listens for its administrator unless told otherwise.
pub const ADMIN_SOCKET: &str = "/run/sidestep/admin.sock";
/// The environment variable that names the state directory.
pub const STATE_DIR_ENV: &str = "SIDESTEP_STATE_DIR";
/// Where switches and admin sockets are unless told otherwise.
pub const STATE_DIR: &str = "/run/sidestep";
/// Kernel memory for responses that are given there unless told otherwise.
pub const HOT_BYTES: ByteSize = ByteSize(16 << 20);
/// Bounds the ports of one workload: the kernel looks at each of them in turn.
pub const PORTS_MAX: usize = 64;
/// Bounds the threads that serve connections.
pub const WORKER_THREADS_MAX: usize = 1024;
/// Bounds the bytes of a configuration file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a node's daemon is to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Which reading of RFC 9111 decides.
    pub profile: Profile,
    /// Bytes that stored responses may take in memory.
    pub store_bytes: ByteSize,
    /// Path of the admin socket.
    #[serde(deserialize_with = "fields::absolute")]
    pub admin: PathBuf,
    /// Where figures and health are told by TCP (`/metrics`, `/healthz`); nowhere by default.
    pub metrics: Option<SocketAddr>,
    /// Whether every malformed request is answered with 400 instead of being relayed.
    pub strict_http: bool,
    /// Threads that serve connections, 1 to 1024; one for each core by default.
    #[serde(deserialize_with = "fields::threads")]
    pub worker_threads: Option<NonZeroUsize>,
    /// When hits are given inside the kernel.
    pub acceleration: Mode,
    /// Kernel memory for responses that are given there, bytes; at least 512 KiB and at most 2 GiB are taken.
    pub hot_bytes: ByteSize,
    /// Fields that do not tell one request from another there, instead of those of tracers.
    #[serde(deserialize_with = "fields::skipped")]
    pub skipped_fields: Skipped,
    /// What is allowed beyond what responses say.
    pub policy: PolicyConfig,
    /// User ids whose connections are never redirected: the mesh proxies of Istio and Linkerd by default.
    pub excluded_uids: Vec<u32>,
    /// The workloads to enrol.
    pub workloads: Vec<WorkloadConfig>,
    /// The cluster whose labels say which of this node's pods are enrolled too.
    pub kubernetes: Option<KubernetesConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            store_bytes: ByteSize(256 << 20),
            admin: PathBuf::from(ADMIN_SOCKET),
            metrics: None,
            strict_http: false,
            worker_threads: None,
            acceleration: Mode::default(),
            hot_bytes: HOT_BYTES,
            skipped_fields: Skipped::default(),
            policy: PolicyConfig::default(),
            excluded_uids: vec![1337, 2102],
            workloads: Vec::new(),
            kubernetes: None,
        }
    }
}

/// One workload of a node without a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadConfig {
    /// Its name, unique in the file.
    #[serde(deserialize_with = "fields::non_empty")]
    pub name: String,
    /// The namespace of its partition.
    #[serde(default = "default_name", deserialize_with = "fields::non_empty")]
    pub namespace: String,
    /// The service account of its partition.
    #[serde(default = "default_name", deserialize_with = "fields::non_empty")]
    pub service_account: String,
    /// Absolute path of its cgroup v2 directory.
    #[serde(deserialize_with = "fields::absolute")]
    pub cgroup: PathBuf,
    /// Absolute path of its network namespace; by default that of the cgroup's oldest process.
    #[serde(default, deserialize_with = "fields::optional_absolute")]
    pub netns: Option<PathBuf>,
    /// Destination ports to intercept, 1 to 64 of them.
    #[serde(deserialize_with = "fields::ports")]
    pub ports: Vec<u16>,
    /// Whether loopback destinations are intercepted too.
    #[serde(default)]
    pub loopback: bool,
}

/// Says what is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is larger than `FILE_BYTES_MAX`.
    #[error("the configuration {0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The text is not what a configuration looks like; the sentence names field and line.
    #[error("the configuration is not valid: {0}")]
    Invalid(String),
    /// Two workloads share what must be unique.
    #[error("the configuration is not valid: workloads[{index}].{field}: {value:?} is already used{}", at(*.line))]
    Duplicate {
        /// Which workload, from 0.
        index: usize,
        /// Which field of it.
        field: &'static str,
        /// The value that is there twice.
        value: String,
        /// The line of the second one, where it was found.
        line: Option<usize>,
    },
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(" at line {line}")).unwrap_or_default()
}

impl Config {
    /// Reads and parses a file of at most 1 MiB.
    ///
    /// # Errors
    /// `Read`, `TooLarge`, or what `parse` says.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        Self::parse(&fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Parses YAML; an empty text is a configuration without workloads.
    ///
    /// # Errors
    /// `Invalid` with field, line and column; `Duplicate` where names or cgroups repeat.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let parsed: Result<Option<Self>, _> = serde_yaml_ng::from_str(text);
        let config = parsed.map_err(|error| invalid(text, &error))?.unwrap_or_default();
        config.unique(text, "name", |one| one.name.clone())?;
        config.unique(text, "cgroup", |one| one.cgroup.display().to_string())?;
        Ok(config)
    }

    fn unique(
        &self,
        text: &str,
        field: &'static str,
        value: impl Fn(&WorkloadConfig) -> String,
    ) -> Result<(), ConfigError> {
        let mut seen = HashMap::new();
        for (index, one) in self.workloads.iter().enumerate() {
            let value = value(one);
            if seen.insert(value.clone(), index).is_some() {
                let line = lines_spelling(text, field, Some(&value)).nth(1);
                return Err(ConfigError::Duplicate { index, field, value, line });
            }
        }
        Ok(())
    }
}

/// The parser places an unknown field at the beginning of the mapping around it, or nowhere; its own line is better.
fn invalid(text: &str, error: &serde_yaml_ng::Error) -> ConfigError {
    let says = error.to_string();
    let unknown = says.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
    let own_line = unknown.and_then(|(field, _)| lines_spelling(text, field, None).next());
    let (message, place) = says.split_once(" at line ").unwrap_or((&says, ""));
    ConfigError::Invalid(match own_line {
        Some(line) => format!("{message}{}", at(Some(line))),
        None if place.is_empty() => format!("{message}{}", at(error.location().map(|place| place.line()))),
        None => says,
    })
}

/// The parser keeps no positions, so the lines that spell out the field, and the value, are looked for.
fn lines_spelling<'a>(
    text: &'a str,
    field: &'a str,
    value: Option<&'a str>,
) -> impl Iterator<Item = usize> + 'a {
    let spells = move |line: &str| {
        let line = line.trim_start_matches([' ', '-']);
        let rest = line.strip_prefix(field).and_then(|rest| rest.strip_prefix(':'));
        let bare = rest.and_then(|rest| rest.split(" #").next()).map(str::trim);
        bare.is_some_and(|bare| value.is_none_or(|value| bare.trim_matches(['"', '\'']) == value))
    };
    (1..).zip(text.lines()).filter(move |(_, line)| spells(line)).map(|(number, _)| number)
}

fn default_name() -> String {
    "default".to_owned()
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
