//! What is common to the subcommands; each has a file of its own.

pub mod check;
pub mod exec;
pub mod explain;
pub mod node;
pub mod status;
pub mod switch;

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

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

/// The socket that was named, else the one of the daemon that is meant.
fn daemon(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    named.map_or_else(|| only_daemon(&state_dir()), Ok)
}

/// The node's daemon goes first; else there must be exactly one that lives.
fn only_daemon(dir: &Path) -> anyhow::Result<PathBuf> {
    let mut alive: Vec<PathBuf> =
        sockets(dir).into_iter().filter(|socket| UnixStream::connect(socket).is_ok()).collect();
    if let Some(node) = alive.iter().find(|socket| socket.ends_with("admin.sock")) {
        return Ok(node.clone());
    }
    match (alive.pop(), alive.as_slice()) {
        (Some(only), []) => Ok(only),
        (None, _) => {
            bail!("no daemon runs here: none answers in {}; name its socket with --admin", dir.display())
        }
        (Some(last), others) => {
            let names: Vec<_> = others.iter().chain([&last]).map(|path| path.display().to_string()).collect();
            bail!("{} daemons run here; name one with --admin: {}", names.len(), names.join(", "))
        }
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::admin::scratch::Scratch;

    #[test]
    fn the_nodes_daemon_goes_first_and_dead_sockets_do_not_count() {
        let dir = Scratch::new();
        assert!(only_daemon(dir.path()).unwrap_err().to_string().starts_with("no daemon runs here"));

        drop(UnixListener::bind(dir.path().join("exec-1.sock")).unwrap());
        assert!(only_daemon(dir.path()).is_err());

        let _one = UnixListener::bind(dir.path().join("exec-2.sock")).unwrap();
        assert_eq!(only_daemon(dir.path()).unwrap(), dir.path().join("exec-2.sock"));

        let _two = UnixListener::bind(dir.path().join("exec-3.sock")).unwrap();
        assert!(only_daemon(dir.path()).unwrap_err().to_string().starts_with("2 daemons run here"));

        let _node = UnixListener::bind(dir.path().join("admin.sock")).unwrap();
        assert_eq!(only_daemon(dir.path()).unwrap(), dir.path().join("admin.sock"));
    }
}
