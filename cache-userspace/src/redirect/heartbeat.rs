//! The daemon's sign of life: a thread of raised priority that tells the kernel every 100 ms that connections may be
//! sent here, and that requests may be answered there. It stops where the runtime that serves them stops, or where the
//! switch is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::kernel::Kernel;
use crate::clock;

/// How often the heart beats.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// How long the runtime may be silent before connections go direct. Long: a busy node must not flip to direct.
const RUNTIME_SILENCE_MAX: Duration = Duration::from_secs(5);

/// Real-time priority: the lowest, which is above every ordinary thread.
const PRIORITY: i32 = 1;

/// The runtime's own sign of life, given by a task of it.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// Says that the runtime runs tasks now.
    pub fn beat(&self) {
        self.0.store(clock::boot().as_millis() as u64, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let silence = (clock::boot().as_millis() as u64).saturating_sub(self.0.load(Ordering::Relaxed));
        silence < RUNTIME_SILENCE_MAX.as_millis() as u64
    }
}

/// What the kernel may do until the next beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Send new connections here.
    pub redirects: bool,
    /// Answer requests.
    pub hits: bool,
}

/// The running thread; it stops, hits end and new connections go direct, when this is dropped.
pub struct Heartbeat {
    stop: Arc<AtomicBool>,
    kernel: Arc<Kernel>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts the thread. `each_beat` runs in it and says what the kernel may do (the switch); `took_effect` is told
    /// what it follows from then on.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        kernel: Arc<Kernel>,
        pulse: Arc<Pulse>,
        each_beat: impl Fn() -> Beat + Send + 'static,
        took_effect: impl Fn(Beat) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        pulse.beat();
        let beating = kernel.clone();
        let beat = move || {
            let says = each_beat();
            let now = if pulse.is_alive() { clock::boot().as_nanos() as u64 } else { 0 };
            let time = |may: bool| if may { now } else { 0 };
            match beating.beat_for_hits(time(says.hits)).and_then(|()| beating.beat(time(says.redirects))) {
                Ok(()) => took_effect(says),
                Err(error) => tracing::error!(%error, "no heartbeat: new connections go direct"),
            }
        };
        // The first one before anybody can connect.
        beat();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            raise_priority();
            while !stopped.load(Ordering::Relaxed) {
                beat();
                std::thread::park_timeout(INTERVAL);
            }
        })?;
        Ok(Self { stop, kernel, thread: Some(thread) })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread was reported by the panic hook already.
            let _ = thread.join();
        }
        // Hits first: what comes from now on is to be seen by whoever drains.
        let _ = self.kernel.beat_for_hits(0);
        let _ = self.kernel.beat(0);
    }
}

/// Without CAP_SYS_NICE the thread runs like any other; on a busy node connections may then go direct.
fn raise_priority() {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: a valid pointer for the duration of the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &parameter) };
    if result != 0 {
        // SAFETY: no pointers; 0 is the calling thread.
        let niced = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
        let error = std::io::Error::last_os_error();
        if niced != 0 {
            tracing::warn!(%error, "the heartbeat has no raised priority: a busy node may send connections direct");
        }
    }
}
