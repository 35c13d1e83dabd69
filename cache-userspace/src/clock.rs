//! The two clocks: resident time on `CLOCK_BOOTTIME`, dates on the wall.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::policy::Now;

/// Time since boot, sleep included: it never steps, and it is the clock the kernel programs use.
pub fn boot() -> Duration {
    // The clock exists since Linux 2.6.39 and the call has no other way to fail.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// This instant on both clocks.
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Now { boot: boot(), wall }
}
