//! `sidestep exec`: one command behind the cache, and afterwards everything as before.

mod signals;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use super::exec_socket;
use crate::accept::netns::Netns;
use crate::admin::switch::state_dir;
use crate::admin::{self, Figures, Switches};
use crate::app::{Daemon, Enrolment, Intercepted, Options, raise_descriptor_limit};
use crate::config::{ByteSize, HOT_BYTES, Limits, PolicyConfig};
use crate::policy::Profile;
use crate::redirect::acceleration::{Mode, Wish};
use crate::redirect::cgroup::{Cgroup, NAME_PREFIX, enter_on_spawn, sweep_stale};
use crate::redirect::hot::Skipped;
use crate::redirect::preflight::{Probe, Role, findings, first_obstacle};

/// How long the last answers of a command that has ended are waited for.
const SETTLE: Duration = Duration::from_millis(500);
/// Exit statuses of a shell for a command that cannot be run, and for one that is not found.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What a shell adds to the number of the signal that ended a command.
const SIGNALLED: i32 = 128;
/// Signals that are passed on to the command.
const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Runs one command behind the cache; needs root, and no cluster.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Port whose connections are redirected, loopback destinations included; repeat for more.
    #[arg(long = "port", value_name = "N", default_values_t = [80])]
    ports: Vec<u16>,
    /// Which reading of RFC 9111 decides: safe or rfc9111.
    #[arg(long, env = "SIDESTEP_PROFILE", default_value_t)]
    profile: Profile,
    /// When hits are given inside the kernel.
    #[arg(long, value_enum, env = "SIDESTEP_ACCELERATION", default_value_t)]
    acceleration: Mode,
    /// Answers every malformed request with 400 instead of relaying it.
    #[arg(long)]
    strict_http: bool,
    /// Memory that stored responses may take, for example 256MiB.
    #[arg(long, value_name = "SIZE", env = "SIDESTEP_STORE_BYTES", default_value = "256MiB")]
    store_bytes: ByteSize,
    /// Where the admin socket is to be [default: exec-<pid>.sock in the state directory].
    #[arg(long, value_name = "SOCK")]
    admin: Option<PathBuf>,
    /// Prints a summary to stderr at the end.
    #[arg(long)]
    summary: bool,
    /// Writes the summary to a file at the end, as one JSON object.
    #[arg(long, value_name = "FILE")]
    summary_json: Option<PathBuf>,
    /// Says on stderr what happens; twice for more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
}

impl Exec {
    /// Runs the command; the exit code is the command's own, 128 + n for one that signal n ended.
    ///
    /// # Errors
    /// One sentence where the cache cannot be set up; the command was not started then.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        super::log_to_stderr(self.verbose, "error");
        let probe = Probe::gather(None);
        if let Some(obstacle) = first_obstacle(&findings(&probe), Role::Exec) {
            bail!("{} ({})", obstacle.says, obstacle.advice);
        }
        if let Some(file) = &self.summary_json {
            std::fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let parent = Cgroup::own()?;
        sweep_stale(&parent);
        // The last thing that may fail without being undone below.
        let cgroup = Cgroup::create_child(&parent, &format!("{NAME_PREFIX}{}", std::process::id()))?;
        let result = runtime.block_on(self.serve(&cgroup));
        // What the command left running goes on, directly.
        if let Err(error) = cgroup.move_all_to(&parent).and_then(|()| cgroup.remove()) {
            tracing::warn!(%error, "a cgroup is left behind; the next start removes it");
        }
        let (status, figures) = result?;
        if self.summary {
            eprint!("{}", figures.summary_text());
        }
        if let Some(file) = &self.summary_json {
            std::fs::write(file, figures.summary_json())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(ExitCode::from(status))
    }

    async fn serve(&self, cgroup: &Cgroup) -> anyhow::Result<(u8, Figures)> {
        let state_dir = state_dir();
        admin::server::sweep_stale(&state_dir);
        let default_socket = exec_socket(std::process::id());
        let socket = self.admin.as_ref().unwrap_or(&default_socket);
        let switches = Switches::new(&state_dir, socket);
        if self.admin.is_none() {
            // Process ids recur; what was said to an earlier one is not meant for us.
            switches.forget();
        }
        let options = Options {
            profile: self.profile,
            store_bytes: self.store_bytes.0,
            is_strict: self.strict_http,
            excluded_users: Vec::new(),
            acceleration: Wish { mode: self.acceleration, bytes: HOT_BYTES.0, skipped: Skipped::default() },
            policy: PolicyConfig::default(),
            limits: Limits::default(),
        };
        let patience = options.limits.drain_timeout;
        let mut daemon = Daemon::start(options, switches.clone())?;
        match (daemon.serve_admin(socket, None, None), &self.admin) {
            (Err(error), Some(_)) => return Err(error),
            (Err(error), None) => tracing::warn!(%error, "no admin socket"),
            (Ok(()), _) => {}
        }
        daemon.enrol(Enrolment {
            name: "exec".into(),
            namespace: "default".into(),
            service_account: "default".into(),
            cgroup: Cgroup::open(cgroup.path())?,
            members: None,
            netns: Netns::Own,
            intercepted: Intercepted::Ports { ports: self.ports.clone(), loopback: true },
        })?;
        let status = self.run_command(cgroup).await;
        let is_deserted = cgroup.procs().is_ok_and(|pids| pids.is_empty());
        daemon.drain(if is_deserted { SETTLE } else { patience }).await;
        if self.admin.is_none() {
            switches.forget();
        }
        Ok((status?, daemon.figures()))
    }

    /// Starts the command inside the cgroup and waits for it, passing signals on.
    async fn run_command(&self, cgroup: &Cgroup) -> anyhow::Result<u8> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments);
        enter_on_spawn(&mut command, cgroup)?;
        signals::reap_although_ignored(&mut command);
        // A signal that is ignored already (nohup, a shell's background job) stays so, for the command too.
        let heeded = FORWARDED.into_iter().filter(|signal| !signals::is_ignored(*signal));
        // Before the child exists, so that no signal falls between.
        let mut signals = SignalsInfo::<WithOrigin>::new(heeded).context("cannot watch for signals")?;
        let mut child = match tokio::process::Command::from(command).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("sidestep: cannot run {}: {error}", program.display());
                return Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE });
            }
        };
        // After the command has started: it keeps the limits it was given.
        raise_descriptor_limit();
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(nix::unistd::Pid::from_raw);
        let handle = signals.handle();
        let forwarding = std::thread::Builder::new().name("signals".into()).spawn(move || {
            for origin in &mut signals {
                // The terminal signals the whole process group: the command has it already.
                if origin.cause == Cause::Kernel {
                    continue;
                }
                if let (Some(pid), Ok(signal)) = (pid, nix::sys::signal::Signal::try_from(origin.signal)) {
                    // It may have ended meanwhile.
                    let _ = nix::sys::signal::kill(pid, signal);
                }
            }
        });
        let status = child.wait().await.context("cannot wait for the command")?;
        handle.close();
        drop(forwarding);
        Ok(exit_code(status))
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        exec: Exec,
    }

    #[test]
    fn the_contract_of_the_command_line_is_kept() {
        let cli = Cli::parse_from([
            "exec",
            "--port",
            "8080",
            "--port",
            "81",
            "--profile",
            "rfc9111",
            "--acceleration",
            "off",
            "--strict-http",
            "--store-bytes",
            "64MiB",
            "--admin",
            "/tmp/a.sock",
            "--summary",
            "--summary-json",
            "/tmp/s",
            "--",
            "curl",
            "-s",
        ]);
        assert_eq!(cli.exec.ports, [8080, 81]);
        assert_eq!(cli.exec.acceleration, Mode::Off);
        assert_eq!(cli.exec.profile, Profile::Rfc9111);
        assert_eq!(cli.exec.store_bytes, ByteSize(64 << 20));
        assert_eq!(cli.exec.command, ["curl", "-s"]);
    }

    #[test]
    fn exec_and_node_store_the_same_by_default() {
        let cli = Cli::parse_from(["exec", "--", "true"]);
        assert_eq!(cli.exec.ports, [80]);
        assert_eq!(cli.exec.store_bytes, Config::default().store_bytes);
    }

    #[test]
    fn a_signal_that_ended_the_command_is_told_as_a_shell_does() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
