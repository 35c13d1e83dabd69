//! A shell behind the cache: several programs, one after the other or beside each other, under one daemon.
//!
//! What a program prints goes to files, so that nothing it says is taken for the shell's own word.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::acceleration::Share;
use crate::exec::{Exec, Outcome, Running};
use crate::scratch::Scratch;
use crate::summary::Summary;
use crate::{admin, wait};

/// How long one program may take.
const PROGRAM: Duration = Duration::from_secs(120);

/// A shell that is running behind the cache.
#[derive(Debug)]
pub struct Shell {
    running: Running,
    orders: ChildStdin,
    scratch: Scratch,
    programs: u32,
    background: Vec<u32>,
}

impl Shell {
    /// Starts the shell.
    pub fn behind(exec: Exec) -> Result<Self> {
        let mut running = exec.start(["sh"])?;
        let orders = running.process.take_stdin().context("no stdin")?;
        Ok(Self { running, orders, scratch: Scratch::new()?, programs: 0, background: Vec::new() })
    }

    /// Runs a program to its end and returns its output; an error where it fails.
    pub fn run<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) -> Result<String> {
        let status = self.finished(words)?;
        ensure!(status == "0", "status {status}: {}", self.printed("errors"));
        Ok(self.printed("out"))
    }

    /// Runs a program to its end and returns its exit status, as the shell names it.
    pub fn finished<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) -> Result<String> {
        let command = self.command(words);
        self.order(&command, "; echo status $?")?;
        self.word("status")
    }

    /// Starts a program that goes on beside the shell until [`Self::kill`] or the end; returns its process id.
    pub fn start<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) -> Result<u32> {
        let command = self.command(words);
        self.order(&command, " & echo started $!")?;
        let pid = self.word("started")?.parse()?;
        self.background.push(pid);
        Ok(pid)
    }

    /// Kills a program that was started, and waits until it is gone.
    pub fn kill(&mut self, pid: u32) -> Result<()> {
        self.background.retain(|other| *other != pid);
        self.order(OsStr::new(&format!("kill -9 {pid}; wait {pid} 2>/dev/null")), "; echo gone $?")?;
        self.word("gone").map(drop)
    }

    /// What the last program has printed so far to `out` or `errors`.
    pub fn printed(&self, stream: &str) -> String {
        let bytes = fs::read(self.stream(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file that holds what the last program printed to `out` or `errors`.
    pub fn stream(&self, stream: &str) -> PathBuf {
        self.scratch.file(&format!("{}.{stream}", self.programs))
    }

    /// The daemon's figures so far.
    pub fn figures(&self) -> Result<Summary> {
        Summary::new(self.status()?["counters"].clone())
    }

    /// The hits since `before`, once there are at least `least`: those of the kernel may be read at intervals.
    pub fn hits_since(&self, before: &Summary, least: u64) -> Result<Share> {
        wait::poll(wait::PATIENCE, &format!("{least} hits"), || {
            let share = self.figures().and_then(|now| Share::between(before, &now)).ok()?;
            (share.hits >= least).then_some(share)
        })
        .with_context(|| format!("{:?}", self.figures()))
    }

    /// What the admin socket says at `/v1/status`.
    pub fn status(&self) -> Result<Value> {
        admin::get(self.admin()?, "/v1/status")
    }

    fn admin(&self) -> Result<&Path> {
        self.running.admin().context("no admin socket")
    }

    /// Ends what still runs, then the shell; returns the summary.
    pub fn finish(mut self) -> Result<Outcome> {
        while let Some(pid) = self.background.last().copied() {
            self.kill(pid)?;
        }
        drop(self.orders);
        self.running.finish()
    }

    fn command<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) -> OsString {
        self.programs += 1;
        let mut line = OsString::new();
        for word in words {
            line.push(quoted(word.as_ref()));
            line.push(" ");
        }
        line.push("</dev/null >");
        line.push(quoted(self.stream("out").as_os_str()));
        line.push(" 2>");
        line.push(quoted(self.stream("errors").as_os_str()));
        line
    }

    fn order(&mut self, command: &OsStr, end: &str) -> Result<()> {
        self.orders.write_all(command.as_encoded_bytes())?;
        writeln!(self.orders, "{end}").context("the shell is gone")
    }

    fn word(&self, expected: &str) -> Result<String> {
        let line = self.running.process.line(PROGRAM).with_context(|| self.printed("errors"))?;
        let word = line.strip_prefix(expected).with_context(|| format!("the shell said {line:?}"))?;
        Ok(word.trim().to_owned())
    }
}

/// A word that the shell takes as it is: none of the paths and addresses of the tests holds a quote.
fn quoted(word: &OsStr) -> OsString {
    let mut all = OsString::from("'");
    all.push(word);
    all.push("'");
    all
}
