//! Waiting for a condition: the only place of the tests that lets time pass.
//!
//! Every wait has a deadline and says what it was waiting for when the deadline is missed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a test waits for something that normally takes milliseconds, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

const STEP: Duration = Duration::from_millis(5);

/// Polls until the condition holds; an error naming `what` when it does not hold within the deadline.
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    poll(deadline, what, || condition().then_some(()))
}

/// Polls until a value is there and returns it; an error naming `what` when it is not there in time.
pub fn poll<T>(deadline: Duration, what: &str, mut value: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = value() {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain: {what}");
        }
        thread::sleep(STEP);
    }
}

/// Lets time pass, for what happens only after a time.
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// Polls until a number has not changed for `quiet`; returns it.
pub fn settled(deadline: Duration, quiet: Duration, what: &str, value: impl Fn() -> u64) -> Result<u64> {
    let mut last = (value(), Instant::now());
    poll(deadline, what, || {
        let now = value();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() >= quiet).then_some(now)
    })
}
