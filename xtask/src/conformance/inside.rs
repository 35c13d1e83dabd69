//! One run of the suite in a network namespace of its own: its origin on port 8000 of nothing but loopback, its client
//! under `sidestep exec`.
//!
//! What the client wrote is judged outside.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{checkout::Checkout, steps::run_silently};

/// Where the origin listens: the port of the suite's own scripts, free because the namespace is new.
const PORT: u16 = 8000;

/// How long the origin may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// How long one run may take, in seconds; it takes about 25.
const RUN_SECONDS_MAX: u32 = 180;

/// How long the client may take to end once it was told to, in seconds.
const END_SECONDS_MAX: u32 = 10;

/// What `timeout` exits with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// What is to be run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The profile of the cache.
    #[arg(long)]
    pub(super) profile: String,
    /// The folder of the suite.
    #[arg(long)]
    pub(super) suite: PathBuf,
    /// The folder for what is written: results, and what the origin said.
    #[arg(long)]
    pub(super) folder: PathBuf,
    /// One case only, every request and answer of which is printed.
    #[arg(long)]
    pub(super) case: Option<String>,
}

impl Arguments {
    /// The file that the client writes its results into.
    pub(super) fn results(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.profile))
    }

    /// The file that holds what the origin said.
    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}-origin.log", self.profile))
    }
}

/// Runs the suite once and leaves its results in the file; origin and client end with it.
///
/// # Errors
/// If the origin does not listen, or the client fails or takes too long.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    run_silently(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let _origin = Origin::start(arguments)?;
    let mut exec = Command::new("timeout");
    // Sidestep passes the signal on to the client and takes its own things down.
    exec.arg("--foreground").arg(format!("--kill-after={END_SECONDS_MAX}")).arg(RUN_SECONDS_MAX.to_string());
    exec.arg(Checkout::find()?.sidestep()).args(["exec", "--port", &PORT.to_string()]);
    exec.args(["--profile", &arguments.profile, "--", "node"]);
    exec.arg(Checkout::find()?.conformance().join("client.mjs")).arg(&arguments.suite);
    exec.arg(format!("http://{}:{PORT}", Ipv4Addr::LOCALHOST)).arg(arguments.results());
    let status = exec.args(&arguments.case).stdin(Stdio::null()).status().context("timeout did not start")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(TIMED_OUT) => bail!("the suite took more than {RUN_SECONDS_MAX} s"),
        _ => bail!("the suite's client under sidestep exec: {status}"),
    }
}

/// The suite's origin; it ends with this value.
struct Origin(Child);

impl Origin {
    fn start(arguments: &Arguments) -> Result<Self> {
        let log = File::create(arguments.log()).with_context(|| arguments.log().display().to_string())?;
        let mut node = Command::new("node");
        node.arg("server/server.mjs").current_dir(&arguments.suite).stdin(Stdio::null());
        // As npm passes the package's settings to its scripts.
        node.env("npm_config_protocol", "http").env("npm_config_port", PORT.to_string());
        node.env("npm_config_pidfile", arguments.folder.join(format!("{}-origin.pid", arguments.profile)));
        if arguments.case.is_none() {
            node.stdout(log);
        }
        let mut origin = Self(node.spawn().context("the suite's origin did not start")?);
        let deadline = Instant::now() + LISTENS_WITHIN;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_err() {
            if let Some(status) = origin.0.try_wait()? {
                bail!("the suite's origin ended: {status}; see {}", arguments.log().display());
            }
            if Instant::now() > deadline {
                bail!("the suite's origin does not listen on port {PORT}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(origin)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
