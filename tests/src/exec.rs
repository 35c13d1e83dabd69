//! `sidestep exec`: one command behind the cache, with its output and the summary.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::locate;
use crate::netns::Pod;
use crate::process::{Output, Process};
use crate::scratch::Scratch;
use crate::summary::Summary;
use crate::wait::PATIENCE;

/// How long a whole command may take.
const RUN: Duration = Duration::from_secs(90);

/// The environment variable that names the directory in which daemons keep what outlives them.
pub const STATE_DIR: &str = "SIDESTEP_STATE_DIR";

/// A command line of `sidestep exec` in the making.
#[derive(Debug)]
pub struct Exec {
    flags: Vec<OsString>,
    before: Vec<OsString>,
    program: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    scratch: Scratch,
    admin: Option<PathBuf>,
    state: PathBuf,
}

/// What a command behind the cache did, and the summary of it.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status and output of `sidestep exec`, which are the command's.
    pub output: Output,
    summary: Option<Summary>,
}

impl Outcome {
    /// The summary; an error where none was written.
    pub fn summary(&self) -> Result<&Summary> {
        self.summary.as_ref().with_context(|| format!("no summary; stderr: {}", self.output.errors()))
    }

    /// One figure of the summary.
    pub fn figure(&self, name: &str) -> Result<u64> {
        self.summary()?.figure(name)
    }
}

impl Exec {
    /// A command line with an admin socket, a summary file and a state directory of its own.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let (admin, state) = (Some(scratch.file("admin.sock")), scratch.file("state"));
        let (flags, before, program, env) = Default::default();
        Ok(Self { flags, before, program, env, scratch, admin, state })
    }

    /// The usual one: intercepts this port.
    pub fn port(port: u16) -> Result<Self> {
        Ok(Self::new()?.flag("--port").flag(port.to_string()))
    }

    /// Adds a flag or its value.
    pub fn flag(mut self, flag: impl AsRef<OsStr>) -> Self {
        self.flags.push(flag.as_ref().to_owned());
        self
    }

    /// Runs another binary than the one under test.
    pub fn program(self, path: &Path) -> Self {
        Self { program: Some(path.to_owned()), ..self }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Names no admin socket.
    pub fn without_admin(mut self) -> Self {
        self.admin = None;
        self
    }

    /// Shares a state directory with other daemons.
    pub fn state(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.state);
        self
    }

    /// Runs `sidestep exec` itself behind this program and its arguments.
    pub fn behind<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.before.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Runs `sidestep exec` itself in a pod's network namespace.
    pub fn within(self, pod: &Pod) -> Self {
        self.behind(pod.enter())
    }

    /// Runs `sidestep exec` itself in a cgroup.
    pub fn under(self, cgroup: &Cgroup) -> Self {
        self.behind(cgroup.enter())
    }

    /// The admin socket that it will serve.
    pub fn admin(&self) -> Option<&Path> {
        self.admin.as_deref()
    }

    fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut all = self.before.clone();
        all.push(self.program.clone().map_or_else(locate::sidestep, Ok)?.into());
        all.push("exec".into());
        all.extend_from_slice(&self.flags);
        all.extend(["--summary-json".into(), self.scratch.file("summary.json").into()]);
        if let Some(admin) = &self.admin {
            all.extend(["--admin".into(), admin.into()]);
        }
        all.push("--".into());
        all.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        let mut all = all.into_iter();
        let mut command = Command::new(all.next().context("no command")?);
        command.args(all).env(STATE_DIR, &self.state).envs(self.env.iter().cloned());
        Ok(command)
    }

    /// Starts a command behind the cache.
    pub fn start<S: AsRef<OsStr>>(self, words: impl IntoIterator<Item = S>) -> Result<Running> {
        let process = Process::start(&mut self.command(words)?)?;
        Ok(Running { process, exec: self })
    }

    /// Runs a command behind the cache to its end.
    pub fn run<S: AsRef<OsStr>>(self, words: impl IntoIterator<Item = S>) -> Result<Outcome> {
        self.start(words)?.finish()
    }

    /// Starts an agent behind the cache.
    pub fn agent(self) -> Result<Client> {
        let probe = locate::probe()?;
        let Running { process, exec } = self.start([probe.as_os_str(), OsStr::new("agent")])?;
        Ok(Client { agent: Agent::over(process)?, exec })
    }
}

/// A command that is running behind the cache.
#[derive(Debug)]
pub struct Running {
    /// `sidestep exec` itself.
    pub process: Process,
    exec: Exec,
}

impl Running {
    /// The admin socket.
    pub fn admin(&self) -> Option<&Path> {
        self.exec.admin()
    }

    /// Closes its standard input and waits for its end.
    pub fn finish(self) -> Result<Outcome> {
        outcome(self.process, &self.exec)
    }
}

/// An agent behind `sidestep exec`.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    exec: Exec,
}

impl Client {
    /// Lets the agent end and waits for `sidestep exec`.
    pub fn finish(self) -> Result<Outcome> {
        outcome(self.agent.dismiss(), &self.exec)
    }

    /// The admin socket.
    pub fn admin(&self) -> Option<&Path> {
        self.exec.admin()
    }
}

impl Deref for Client {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

fn outcome(process: Process, exec: &Exec) -> Result<Outcome> {
    let output = process.finish(RUN)?;
    let summary = match fs::read_to_string(exec.scratch.file("summary.json")) {
        Ok(text) => Some(Summary::new(serde_json::from_str(&text).context("the summary")?)?),
        Err(_) => None,
    };
    Ok(Outcome { output, summary })
}

/// Runs `sidestep` with any other arguments to its end.
pub fn sidestep<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Output> {
    crate::process::run(Command::new(locate::sidestep()?).args(args), PATIENCE)
}
