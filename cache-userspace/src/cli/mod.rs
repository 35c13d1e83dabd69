//! What is common to the subcommands; each has a file of its own.

pub mod check;
pub mod exec;
pub mod node;
pub mod status;
pub mod switch;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::admin::switch::state_dir;

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON value, for programs.
    Json,
}

/// Bounds the daemons that are asked.
const DAEMONS_MAX: usize = 256;

/// Prints `text`; a reader that went away is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print"),
    }
}

/// Lists the sockets of the daemons in the state directory, in order of their names; some may be dead.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .take(DAEMONS_MAX)
        .collect();
    found.sort();
    found
}

/// Returns where the daemon of an `exec` with this process id listens unless told otherwise.
pub fn exec_socket(pid: u32) -> PathBuf {
    state_dir().join(format!("exec-{pid}.sock"))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

/// Sends the log to stderr: as much as `SIDESTEP_LOG` says, else `quiet`, and more for each `-v`.
fn log_to_stderr(verbosity: u8, quiet: &str) {
    use tracing_subscriber::EnvFilter;
    let level = match verbosity {
        0 => quiet,
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("SIDESTEP_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("sidestep={level}")));
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter);
    // A second call, in tests, keeps the first one's log.
    let _ = log.try_init();
}
