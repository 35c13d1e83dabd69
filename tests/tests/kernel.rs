//! Every reason for which the kernel programs leave a connection alone, each through the real hooks: the maps are
//! written here, a client connects, and either the origin or the stand-in for the daemon answers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cache_common::connection::ConnectionKey;
use cache_common::event::Counter;
use cache_common::redirect::{EXCLUDED, LOOPBACK, PAUSED, Workload};
use harness::cgroup::Cgroup;
use harness::origin::{Answer, Origin};
use harness::process;
use harness::wait::PATIENCE;
use sidestep::accept::netns::Netns;
use sidestep::clock;
use sidestep::redirect::cgroup::Cgroup as Enrolled;
use sidestep::redirect::hit_maps::HitSettings;
use sidestep::redirect::kernel::{Attachment, Kernel, ip, words};

/// Longer than any of these tests runs: the heartbeat is given once.
const LONG: Duration = Duration::from_secs(3600);

/// The programs on a cgroup of the test's own, a stand-in for the daemon's listener, and an origin.
struct Hooks {
    kernel: Kernel,
    cgroup: Cgroup,
    enrolled: Enrolled,
    workload: Workload,
    listener: TcpListener,
    origin: Origin,
    _attachment: Attachment,
}

impl Hooks {
    fn new() -> Result<Self> {
        let (kernel, cgroup) = (Kernel::load(&HitSettings::NONE, None)?, Cgroup::new()?);
        let enrolled = Enrolled::open(cgroup.path())?;
        let listeners = Netns::Own.listen()?;
        let workload = Workload {
            id: enrolled.id(),
            netns_cookie: listeners.netns_cookie,
            listener4_port: u32::from(listeners.on4.local_addr()?.port()),
            flags: LOOPBACK,
            pending_max: 8,
            ..Workload::default()
        };
        let origin = Origin::http(|_| Answer::ok("origin"))?;
        kernel.insert_workload(workload, &[], &[origin.port()])?;
        kernel.beat((clock::boot() + LONG).as_nanos() as u64)?;
        let attachment = kernel.attach(enrolled.dir())?;
        Ok(Self {
            kernel,
            cgroup,
            enrolled,
            workload,
            listener: listeners.on4,
            origin,
            _attachment: attachment,
        })
    }

    /// Changes what the kernel knows of the workload.
    fn with(&self, change: impl FnOnce(&mut Workload)) -> Result<()> {
        let mut workload = self.workload;
        change(&mut workload);
        Ok(self.kernel.update_workload(workload, &[])?)
    }

    /// Connects once from inside the cgroup, before it as `prefix` says, and tells who answered.
    fn asks(&self, prefix: &[&str]) -> Result<String> {
        let mut words = self.cgroup.enter().into_iter();
        let mut command = Command::new(words.next().context("no program")?);
        let url = format!("http://127.0.0.1:{}/", self.origin.port());
        command.args(words).args(prefix).args(["curl", "-s", "--max-time", "5", &url]);
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        std::thread::scope(|scope| {
            let (done, is_done) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                while is_done
                    .recv_timeout(Duration::from_millis(2))
                    .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    if let Ok((stream, _)) = listener.accept() {
                        // A client that gave up is told by its own output.
                        let _ = answer(stream);
                    }
                }
            });
            let output = process::run(&mut command, PATIENCE);
            drop(done);
            Ok(output?.succeeded()?.text())
        })
    }

    fn goes_direct(&self, why: Counter, prefix: &[&str]) -> Result<()> {
        let before = (self.kernel.count(why), self.kernel.count(Counter::Redirected));
        let answered = self.asks(prefix)?;
        let after = (self.kernel.count(why), self.kernel.count(Counter::Redirected));
        ensure!(answered == "origin", "{why:?}: {answered} answered");
        ensure!(after == (before.0 + 1, before.1), "{why:?}: counted {before:?} and then {after:?}");
        Ok(())
    }

    fn is_redirected(&self) -> Result<()> {
        let answered = self.asks(&[])?;
        ensure!(answered == "stand-in", "{answered} answered");
        Ok(())
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = [0; 4096];
    ensure!(stream.read(&mut head)? > 0, "nothing was asked");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nstand-in")?;
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn each_reason_sends_a_connection_direct_and_is_counted() -> Result<()> {
    let hooks = Hooks::new()?;
    let id = hooks.enrolled.id();
    hooks.is_redirected()?;

    hooks.with(|workload| workload.flags = LOOPBACK | PAUSED)?;
    hooks.goes_direct(Counter::PassedPaused, &[])?;
    hooks.with(|workload| workload.flags = EXCLUDED)?;
    hooks.goes_direct(Counter::PassedExcluded, &[])?;
    hooks.with(|workload| workload.flags = 0)?;
    hooks.goes_direct(Counter::PassedAddress, &[])?;
    hooks.with(|workload| workload.netns_cookie += 1)?;
    hooks.goes_direct(Counter::PassedNetns, &[])?;
    hooks.with(|workload| workload.listener4_port = 1)?;
    hooks.goes_direct(Counter::PassedNoListener, &[])?;
    hooks.with(|workload| workload.pending_max = 0)?;
    hooks.goes_direct(Counter::PassedPending, &[])?;
    hooks.with(|_| {})?;
    hooks.is_redirected()?;

    hooks.kernel.exclude_user(1337)?;
    hooks.goes_direct(Counter::PassedExcluded, &["setpriv", "--reuid=1337", "--clear-groups"])?;
    hooks.kernel.beat(1)?;
    hooks.goes_direct(Counter::PassedStale, &[])?;
    hooks.kernel.beat(0)?;
    hooks.goes_direct(Counter::PassedOff, &[])?;
    hooks.kernel.beat((clock::boot() + LONG).as_nanos() as u64)?;
    let until = (clock::boot() + LONG).as_nanos() as u64;
    hooks.kernel.bypass_until(id, "127.0.0.1".parse()?, hooks.origin.port(), until)?;
    hooks.goes_direct(Counter::PassedBypass, &[])?;
    hooks.kernel.bypass_until(id, "127.0.0.1".parse()?, hooks.origin.port(), 1)?;
    hooks.is_redirected()
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn connections_that_nobody_accepts_use_up_their_quota_and_are_swept() -> Result<()> {
    let hooks = Hooks::new()?;
    let id = hooks.enrolled.id();
    let quota = u64::from(hooks.workload.pending_max);

    // The stand-in answers and takes nothing out of the map.
    for _ in 0..quota {
        hooks.is_redirected()?;
    }
    hooks.goes_direct(Counter::PassedPending, &[])?;
    let swept = hooks.kernel.sweep_original_dst(u64::MAX);
    ensure!(swept.len() as u64 == quota && swept.iter().all(|workload| *workload == id), "{swept:?}");
    hooks.kernel.publish_taken(id, quota)?;

    hooks.is_redirected()
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_port_that_connects_again_uses_up_its_quota_once() -> Result<()> {
    let hooks = Hooks::new()?;
    // Resets its connection each time, so that the same port is free at once and nobody had to accept.
    let script = "import socket, struct, sys
own = 0
for _ in range(40):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.bind(('127.0.0.1', own))
    own = s.getsockname()[1]
    s.connect(('127.0.0.1', int(sys.argv[1])))
    s.close()";
    let mut words = hooks.cgroup.enter().into_iter();
    let mut command = Command::new(words.next().context("no program")?);
    command.args(words).args(["python3", "-c", script, &hooks.origin.port().to_string()]);

    process::run(&mut command, PATIENCE)?.succeeded()?;

    let redirected = hooks.kernel.count(Counter::Redirected);
    ensure!(redirected == 40, "{redirected} of 40 redirected");
    ensure!(hooks.kernel.sweep_original_dst(u64::MAX).len() == 1);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_original_destination_is_known_once_by_both_ends_addresses() -> Result<()> {
    let hooks = Hooks::new()?;
    let url = format!("http://127.0.0.1:{}/", hooks.origin.port());
    let mut cgroup_words = hooks.cgroup.enter().into_iter();
    let mut command = Command::new(cgroup_words.next().context("no program")?);
    command.args(cgroup_words).args(["curl", "-s", "--max-time", "5", &url]);
    let client = process::Process::start(&mut command)?;
    hooks.listener.set_nonblocking(false)?;
    let (stream, peer) = hooks.listener.accept()?;
    let local = stream.local_addr()?;
    let key = ConnectionKey {
        netns_cookie: hooks.workload.netns_cookie,
        client_ip: words(peer.ip()),
        listener_ip: words(local.ip()),
        client_port: u32::from(peer.port()),
        listener_port: u32::from(local.port()),
    };

    let original = hooks.kernel.take_original_dst(&key).context("no original destination")?;
    let again = hooks.kernel.take_original_dst(&key);
    answer(stream)?;

    ensure!(ip(original.ip).to_string() == "127.0.0.1" && original.port == u32::from(hooks.origin.port()));
    ensure!(original.workload == hooks.enrolled.id() && again.is_none());
    ensure!(client.finish(PATIENCE)?.succeeded()?.text() == "stand-in");
    Ok(())
}
