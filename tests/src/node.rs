//! `sidestep node` with a static list of workloads, and agents that run in them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt::Write as _, process};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::exec::STATE_DIR;
use crate::netns::Pod;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::summary::Summary;
use crate::{acceleration, admin, locate, wait};

/// A cgroup, with a pod's network namespace or the machine's own, in which agents run.
#[derive(Debug)]
pub struct Workload {
    name: String,
    namespace: String,
    service_account: String,
    cgroup: Cgroup,
    pod: Option<Pod>,
    ports: Vec<u16>,
}

impl Workload {
    /// A workload in the machine's own network namespace, loopback destinations included.
    pub fn local(name: &str, ports: &[u16]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            service_account: "default".to_owned(),
            cgroup: Cgroup::new()?,
            pod: None,
            ports: ports.to_owned(),
        })
    }

    /// A workload in a pod's network namespace.
    pub fn of_pod(name: &str, pod: Pod, ports: &[u16]) -> Result<Self> {
        Ok(Self { pod: Some(pod), ..Self::local(name, ports)? })
    }

    /// Gives it an identity other than `default/default`.
    pub fn identity(mut self, namespace: &str, service_account: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        service_account.clone_into(&mut self.service_account);
        self
    }

    /// Its pod, if it has one.
    pub fn pod(&self) -> Option<&Pod> {
        self.pod.as_ref()
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// A command that will run in it.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut all = self.cgroup.enter();
        if let Some(pod) = &self.pod {
            all.extend(pod.enter());
        }
        all.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        let mut all = all.into_iter();
        let mut command = Command::new(all.next().unwrap_or_default());
        command.args(all);
        command
    }

    /// Starts an agent in it.
    pub fn agent(&self) -> Result<Agent> {
        let probe = locate::probe()?;
        Agent::over(Process::start(&mut self.command([probe.as_os_str(), OsStr::new("agent")]))?)
    }

    fn yaml(&self, out: &mut String) -> Result<()> {
        let netns = match &self.pod {
            Some(pod) => pod.path(),
            None => PathBuf::from(format!("/proc/{}/ns/net", process::id())),
        };
        writeln!(out, "  - name: {}\n    namespace: {}", self.name, self.namespace)?;
        writeln!(out, "    serviceAccount: {}", self.service_account)?;
        writeln!(out, "    cgroup: {}\n    netns: {}", self.cgroup.path().display(), netns.display())?;
        writeln!(out, "    ports: {:?}\n    loopback: {}", self.ports, self.pod.is_none())?;
        Ok(())
    }
}

/// A running node, with its workloads, which end with it.
#[derive(Debug)]
pub struct Node {
    process: Process,
    scratch: Scratch,
    workloads: Vec<Workload>,
    binary: PathBuf,
    prefix: Vec<String>,
}

impl Node {
    /// Starts a node for these workloads and waits until every one is enrolled.
    pub fn start(workloads: impl Into<Vec<Workload>>) -> Result<Self> {
        Self::configured("", workloads)
    }

    /// The same, with further lines of configuration.
    pub fn configured(lines: &str, workloads: impl Into<Vec<Workload>>) -> Result<Self> {
        let mut node = Self::start_some(lines, workloads)?;
        node.all_enrolled()?;
        Ok(node)
    }

    /// Starts a node through another command, such as setpriv, and waits until every workload is enrolled.
    pub fn behind(prefix: &[&str], workloads: impl Into<Vec<Workload>>) -> Result<Self> {
        Self::configured_behind("", prefix, workloads)
    }

    /// The same, with further lines of configuration.
    pub fn configured_behind(
        lines: &str,
        prefix: &[&str],
        workloads: impl Into<Vec<Workload>>,
    ) -> Result<Self> {
        let mut node = Self::start_through(&locate::sidestep()?, prefix, lines, workloads)?;
        node.all_enrolled()?;
        Ok(node)
    }

    /// Starts a node of the binary with faults, which leaves out these conditions.
    pub fn with_faults(binary: &Path, faults: u32, workloads: impl Into<Vec<Workload>>) -> Result<Self> {
        let faults = format!("{}={faults}", acceleration::FAULTS);
        let mut node = Self::start_through(binary, &["env", &faults], "", workloads)?;
        node.all_enrolled()?;
        Ok(node)
    }

    /// Starts a node and waits until each workload is enrolled or known not to be.
    pub fn start_some(lines: &str, workloads: impl Into<Vec<Workload>>) -> Result<Self> {
        Self::start_through(&locate::sidestep()?, &[], lines, workloads)
    }

    fn start_through(
        binary: &Path,
        prefix: &[&str],
        lines: &str,
        workloads: impl Into<Vec<Workload>>,
    ) -> Result<Self> {
        let prefix: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        let (scratch, workloads) = (Scratch::new()?, workloads.into());
        let mut yaml = format!("admin: {}\n{lines}workloads:\n", scratch.file("admin.sock").display());
        for workload in &workloads {
            workload.yaml(&mut yaml)?;
        }
        scratch.write("node.yaml", yaml)?;
        let process = spawn(binary, &scratch, &prefix)?;
        let binary = binary.to_owned();
        let mut node = Self { process, scratch, workloads, binary, prefix };
        node.ready()?;
        Ok(node)
    }

    /// Writes other ports for every workload into the configuration and has it read again.
    pub fn intercept(&self, ports: &[u16]) -> Result<()> {
        let yaml = std::fs::read_to_string(self.scratch.file("node.yaml"))?;
        let line = |line: &str| match line.trim_start().starts_with("ports:") {
            true => format!("    ports: {ports:?}\n"),
            false => format!("{line}\n"),
        };
        self.scratch.write("node.yaml", yaml.lines().map(line).collect::<String>())?;
        self.process.signal(nix::sys::signal::Signal::SIGHUP)
    }

    /// The daemon's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The admin socket.
    pub fn admin(&self) -> PathBuf {
        self.scratch.file("admin.sock")
    }

    /// What the admin socket says at `/v1/status`.
    pub fn status(&self) -> Result<Value> {
        admin::get(&self.admin(), "/v1/status")
    }

    /// The figures so far.
    pub fn figures(&self) -> Result<Summary> {
        Summary::new(self.status()?["counters"].clone())
    }

    /// One figure so far.
    pub fn figure(&self, name: &str) -> Result<u64> {
        self.figures()?.figure(name)
    }

    /// Waits until a figure is at least this much.
    pub fn reaches(&self, name: &str, least: u64) -> Result<()> {
        let what = format!("{name} >= {least}");
        wait::wait_until(wait::PATIENCE, &what, || self.figure(name).is_ok_and(|figure| figure >= least))
    }

    /// Kills it with SIGKILL and waits until it is dead.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after it was killed, with the same configuration.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.binary, &self.scratch, &self.prefix)?;
        self.all_enrolled()
    }

    /// Starts another process for the same workloads that takes over, and waits until it serves; returns the one before.
    pub fn take_over(&mut self) -> Result<Process> {
        let mut prefix = self.prefix.clone();
        prefix.extend(["env".to_owned(), "SIDESTEP_TAKE_OVER=true".to_owned()]);
        let new = spawn(&self.binary, &self.scratch, &prefix)?;
        let before = std::mem::replace(&mut self.process, new);
        self.is_served_by(self.process.pid())?;
        self.all_enrolled()?;
        Ok(before)
    }

    /// Waits until this process answers at the admin socket.
    pub fn is_served_by(&self, pid: i32) -> Result<()> {
        wait::wait_until(wait::PATIENCE, "another process that serves", || {
            self.status().is_ok_and(|status| status["pid"] == pid)
        })
        .with_context(|| self.process.errors_so_far())
    }

    /// Its workloads, in the order in which they were given.
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// Asks it to end with SIGTERM, waits for a clean end, and gives back the workloads, which go on.
    pub fn finish(self) -> Result<Vec<Workload>> {
        self.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.process.finish(wait::PATIENCE)?.succeeded()?;
        Ok(self.workloads)
    }

    fn ready(&mut self) -> Result<Value> {
        let admin = self.admin();
        let (process, wanted) = (&mut self.process, self.workloads.len());
        let status = wait::poll(wait::PATIENCE, "every workload enrolled", || {
            match admin::get(&admin, "/v1/status") {
                Ok(status) if settled(&status, wanted) => Some(Ok(status)),
                _ if !process.running() => Some(Err(anyhow!("the node ended"))),
                _ => None,
            }
        });
        let status = status.and_then(|inner| inner);
        status.with_context(|| format!("stderr of the node: {}", self.process.errors_so_far()))
    }

    fn all_enrolled(&mut self) -> Result<()> {
        let status = self.ready()?;
        ensure!(states(&status).all(|state| state == Some("enrolled")), "not enrolled: {status}");
        Ok(())
    }
}

fn spawn(binary: &Path, scratch: &Scratch, prefix: &[String]) -> Result<Process> {
    let mut words = prefix.iter().map(OsStr::new).chain([binary.as_os_str()]);
    let mut command = Command::new(words.next().context("no command")?);
    command.args(words);
    command.args([OsStr::new("node"), OsStr::new("--config"), scratch.file("node.yaml").as_os_str()]);
    command.env(STATE_DIR, scratch.file("state"));
    Process::start(&mut command)
}

fn states(status: &Value) -> impl Iterator<Item = Option<&str>> {
    status["workloads"].as_array().into_iter().flatten().map(|workload| workload["state"].as_str())
}

/// Whether all workloads are known, so many, and none is on its way to another state.
fn settled(status: &Value, wanted: usize) -> bool {
    states(status).count() == wanted
        && states(status).all(|state| matches!(state, Some("enrolled" | "refused" | "failed")))
}

/// Runs `sidestep` with the given words and this admin socket.
pub fn command(words: &[&str], socket: Option<&Path>) -> Result<crate::process::Output> {
    let mut all: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    if let Some(socket) = socket {
        all.extend([OsStr::new("--admin"), socket.as_os_str()]);
    }
    crate::exec::sidestep(all)
}
