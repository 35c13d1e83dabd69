//! Keeps the machine's cores from going to sleep while it is measured.
//!
//! To wake a virtual core takes its host tens of microseconds, more than most of what is compared here, and each way of
//! reaching the origin wakes another number of cores. Threads that run only where nobody else wants to (SCHED_IDLE) keep
//! them awake; whatever else wakes up runs at once.

use std::hint;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Cores that stay awake until this is dropped.
#[derive(Debug)]
pub struct Awake {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Keeps every core awake.
    ///
    /// # Errors
    /// If the system does not let threads run as SCHED_IDLE.
    pub fn cores() -> Result<Self> {
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

impl Drop for Awake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
