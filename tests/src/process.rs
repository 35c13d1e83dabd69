//! A child process in a process group of its own, with its output kept and everything of it gone at the end.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait;

/// What a process wrote and how it ended.
#[derive(Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, less the lines already taken by [`Process::line`].
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl fmt::Debug for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, output {:?}, errors {:?}", self.status, self.text(), self.errors())
    }
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The output itself where the process succeeded; otherwise an error that shows what it said.
    pub fn succeeded(self) -> Result<Self> {
        ensure!(self.status.success(), "{}\n{}{}", self.status, self.text(), self.errors());
        Ok(self)
    }
}

/// Makes a command start with default signal dispositions: whoever runs the tests may ignore some (nohup, a
/// background job of a shell), which every child inherits.
fn with_default_signals(command: &mut Command) {
    let reset = || {
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGCHLD] {
            // SAFETY: the default disposition runs no code of ours.
            unsafe { signal::signal(signal, signal::SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only calls signal(2): no allocation, no lock.
    unsafe { command.pre_exec(reset) };
}

/// A running child; its whole process group is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    stdout: Collected,
    stderr: Collected,
    ended: bool,
}

impl Process {
    /// Starts the command with pipes for all three streams.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        with_default_signals(command);
        let mut child =
            command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let stdout = Collected::from(child.stdout.take().context("no stdout")?);
        let stderr = Collected::from(child.stderr.take().context("no stderr")?);
        Ok(Self { child, pid, stdout, stderr, ended: false })
    }

    /// Starts a program and its arguments.
    pub fn of_words<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut words = words.into_iter();
        let program = words.next().context("no program")?;
        Self::start(Command::new(program).args(words))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its standard input, to be written to or closed; nothing the second time.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(self.pid, signal).with_context(|| format!("{signal} to {}", self.pid))
    }

    /// Kills it alone, not what it started, and waits until it is dead.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// The next line of its standard output.
    pub fn line(&self, timeout: Duration) -> Result<String> {
        match self.stdout.line(timeout) {
            Some(line) => Ok(line),
            None => bail!("no line of output within {timeout:?}; stderr: {}", self.errors_so_far()),
        }
    }

    /// What it wrote to standard error until now.
    pub fn errors_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Closes its standard input, waits for its end and for the end of its output.
    pub fn finish(mut self, deadline: Duration) -> Result<Output> {
        self.child.stdin.take();
        let child = &mut self.child;
        let status = wait::poll(deadline, "the end of a process", || child.try_wait().ok().flatten());
        let status = status.with_context(|| format!("stderr: {}", self.errors_so_far()))?;
        let (stdout, stderr) = (self.stdout.finish(deadline)?, self.stderr.finish(deadline)?);
        self.ended = true;
        Ok(Output { status, stdout, stderr })
    }

    /// A figure in kB of `/proc/<pid>/status`, such as `VmHWM`, the greatest resident size it ever had.
    pub fn memory_kb(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&path).context(path)?;
        let line = status.lines().find(|line| line.starts_with(name)).context("no such figure")?;
        Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            // The group's id is the child's, and it is not used again while any member lives.
            let _ = signal::killpg(self.pid, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, within a deadline.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Output> {
    Process::start(command)?.finish(deadline)
}

/// Runs a command with this standard input and waits for its end.
pub fn run_with(command: &mut Command, input: &str, deadline: Duration) -> Result<Output> {
    use std::io::Write;
    let mut process = Process::start(command)?;
    process.take_stdin().context("no stdin")?.write_all(input.as_bytes())?;
    process.finish(deadline)
}

/// Runs a system's program and returns its output; an error where it fails.
pub fn call<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    input: &str,
) -> Result<Output> {
    let output = run_with(Command::new(program).args(args), input, wait::PATIENCE)?;
    output.succeeded().with_context(|| program.to_owned())
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    ended: bool,
}

/// A stream that a thread reads to its end.
#[derive(Debug)]
struct Collected {
    shared: Arc<(Mutex<Buffer>, Condvar)>,
    _thread: JoinHandle<()>,
}

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Buffer::default()), Condvar::new()));
        let kept = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let n = stream.read(&mut chunk).unwrap_or(0);
                let (buffer, changed) = &*kept;
                let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                buffer.bytes.extend_from_slice(&chunk[..n]);
                buffer.ended |= n == 0;
                changed.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        Self { shared, _thread: thread }
    }

    /// Waits until `ready` yields something or the time is over.
    fn when<T>(&self, timeout: Duration, mut ready: impl FnMut(&mut Buffer) -> Option<T>) -> Option<T> {
        let end = Instant::now() + timeout;
        let (buffer, changed) = &*self.shared;
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = ready(&mut buffer) {
                return Some(value);
            }
            let left = end.checked_duration_since(Instant::now())?;
            (buffer, _) = changed.wait_timeout(buffer, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn line(&self, timeout: Duration) -> Option<String> {
        self.when(timeout, |buffer| {
            let Some(at) = buffer.bytes.iter().position(|&byte| byte == b'\n') else {
                // No line will ever come.
                return buffer.ended.then_some(None);
            };
            let line: Vec<u8> = buffer.bytes.drain(..=at).collect();
            Some(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
        })
        .flatten()
    }

    fn so_far(&self) -> Vec<u8> {
        let buffer = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.bytes.clone()
    }

    fn finish(&self, timeout: Duration) -> Result<Vec<u8>> {
        self.when(timeout, |buffer| buffer.ended.then(|| std::mem::take(&mut buffer.bytes)))
            .context("output still open: something the process started is still running")
    }
}
