//! Keeps the machine's cores from going to sleep while it is measured.
//!
//! To wake a virtual core takes its host tens of microseconds, more than most of what is compared here, and each way of
//! reaching the origin wakes another number of cores. Where the kernel can, idle cores poll before they sleep (haltpoll):
//! whoever wakes them only writes to memory. Elsewhere threads that run where nobody else wants to (SCHED_IDLE) keep them
//! awake; to interrupt those costs something too, and what wakes more often pays it more often.

use std::fs;
use std::hint;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Which governor decides how a core idles.
const GOVERNOR: &str = "/sys/devices/system/cpu/cpuidle/current_governor";

/// How long an idle core polls at most before it sleeps, and from how long on it learns, both nanoseconds.
const POLL: [&str; 2] = [
    "/sys/module/haltpoll/parameters/guest_halt_poll_ns",
    "/sys/module/haltpoll/parameters/guest_halt_poll_grow_start",
];

/// Longer than what is due next in any open loop here, nanoseconds.
const POLL_NS: &str = "20000000";

/// Cores that stay awake until this is dropped.
#[derive(Debug)]
pub struct Awake {
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// The settings as they were.
    Polling(Vec<(&'static str, String)>),
    Busy {
        _threads: Threads,
    },
}

impl Awake {
    /// Keeps every core awake.
    ///
    /// # Errors
    /// If the system neither lets idle cores poll nor threads run as SCHED_IDLE.
    pub fn cores() -> Result<Self> {
        if fs::read_to_string(GOVERNOR).is_ok_and(|name| name.trim() == "haltpoll")
            && let Some(before) = poll()
        {
            return Ok(Self { kept: Kept::Polling(before) });
        }
        Ok(Self { kept: Kept::Busy { _threads: Threads::start()? } })
    }

    /// How, in few words.
    pub fn how(&self) -> &'static str {
        match self.kept {
            Kept::Polling(_) => "they poll, haltpoll",
            Kept::Busy { .. } => "by threads that run where nobody else does, SCHED_IDLE",
        }
    }
}

/// Lets idle cores poll; returns the settings as they were, or none where they could not be changed.
fn poll() -> Option<Vec<(&'static str, String)>> {
    let before: Vec<_> =
        POLL.iter().map(|path| Some((*path, fs::read_to_string(path).ok()?))).collect::<Option<_>>()?;
    if POLL.iter().all(|path| fs::write(path, POLL_NS).is_ok()) {
        return Some(before);
    }
    restore(&before);
    None
}

fn restore(settings: &[(&'static str, String)]) {
    for (path, value) in settings {
        if let Err(error) = fs::write(path, value.trim()) {
            eprintln!("{path} stays changed, it was {}: {error}", value.trim());
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        if let Kept::Polling(before) = &self.kept {
            restore(before);
        }
    }
}

/// A thread for each core, until this is dropped.
#[derive(Debug)]
struct Threads {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start() -> Result<Self> {
        let mut awake = Self { ended: Arc::default(), threads: Vec::new() };
        for core in 0..thread::available_parallelism()?.get() {
            let ended = Arc::clone(&awake.ended);
            let (tell, told) = std::sync::mpsc::channel();
            awake.threads.push(thread::spawn(move || {
                let ready = below_everybody(core);
                let runs = ready.is_ok();
                let _ = tell.send(ready);
                while runs && !ended.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            }));
            told.recv().map_err(|_| anyhow!("a thread ended"))??;
        }
        Ok(awake)
    }
}

/// Lets the calling thread run on one core, and only where nobody else wants to.
fn below_everybody(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    // SAFETY: an integer, valid as zero.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the calling thread, and a parameter that lives through the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
