//! Destinations that are left alone for a while, and for how long: what a destination was seen to be decides.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::kernel::Kernel;
use crate::clock;
use crate::config::Limits;

/// How many destinations are remembered for doubling; past it all begin again at the first step.
const REMEMBERED_MAX: usize = 16_384;

/// Teaches the kernel to leave destinations alone.
pub struct Bypass {
    kernel: Option<Arc<Kernel>>,
    taught: Mutex<HashMap<(u64, SocketAddr), Taught>>,
    opaque_min: Duration,
    opaque_max: Duration,
    refused: Duration,
}

#[derive(Clone, Copy)]
struct Taught {
    lasts: Duration,
    ends: Duration,
}

impl Bypass {
    /// A ledger that writes to these programs; `None` for a daemon without kernel hooks (tests).
    pub fn new(kernel: Option<Arc<Kernel>>, limits: &Limits) -> Self {
        let (opaque_min, opaque_max) = (limits.bypass_min, limits.bypass_max);
        Self { kernel, taught: Mutex::default(), opaque_min, opaque_max, refused: limits.refused_bypass }
    }

    /// Leaves alone a destination that was seen not to speak HTTP/1: 60 s, doubling to 10 min; says for how long.
    pub fn opaque(&self, workload: u64, destination: SocketAddr) -> Duration {
        let now = clock::boot();
        let mut taught = self.taught.lock().unwrap_or_else(PoisonError::into_inner);
        let known = taught.get(&(workload, destination)).copied();
        let lasts = next_step(known, now, self.opaque_min, self.opaque_max);
        if taught.len() >= REMEMBERED_MAX {
            taught.retain(|_, known| known.ends + self.opaque_max > now);
            if taught.len() >= REMEMBERED_MAX {
                taught.clear();
            }
        }
        taught.insert((workload, destination), Taught { lasts, ends: now + lasts });
        drop(taught);
        self.write(workload, destination, now + lasts);
        lasts
    }

    /// How much longer a destination is left alone that was seen not to speak HTTP/1.
    pub fn left_alone_for(&self, workload: u64, destination: SocketAddr) -> Option<Duration> {
        let taught = self.taught.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = taught.get(&(workload, destination))?.ends;
        ends.checked_sub(clock::boot()).filter(|left| !left.is_zero())
    }

    /// Leaves alone a destination that could not be reached, for 2 s.
    pub fn unreachable(&self, workload: u64, destination: SocketAddr) {
        self.write(workload, destination, clock::boot() + self.refused);
    }

    fn write(&self, workload: u64, destination: SocketAddr, until: Duration) {
        let Some(kernel) = &self.kernel else { return };
        let until_ns = until.as_nanos() as u64;
        if let Err(error) = kernel.bypass_until(workload, destination.ip(), destination.port(), until_ns) {
            tracing::warn!(%error, %destination, "the kernel was not taught to leave a destination alone");
        }
    }
}

/// Doubles while a destination is found opaque again soon after its last time ended.
fn next_step(known: Option<Taught>, now: Duration, min: Duration, max: Duration) -> Duration {
    match known {
        Some(known) if now < known.ends + known.lasts => (known.lasts * 2).min(max),
        _ => min,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(60);
    const MAX: Duration = Duration::from_secs(600);

    #[test]
    fn the_time_doubles_to_ten_minutes_and_begins_again_after_quiet() {
        let mut now = Duration::from_secs(1000);
        let mut known = None;
        let mut steps = Vec::new();
        for _ in 0..6 {
            let lasts = next_step(known, now, MIN, MAX);
            steps.push(lasts.as_secs());
            known = Some(Taught { lasts, ends: now + lasts });
            now += lasts + Duration::from_secs(1);
        }
        assert_eq!(steps, [60, 120, 240, 480, 600, 600]);
        assert_eq!(next_step(known, now + Duration::from_secs(3600), MIN, MAX), MIN);
    }
}
