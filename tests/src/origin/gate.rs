//! A barrier between a test and its origin's answers.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Closed until the test opens it; clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open, a minute at most, so that a failed test leaves no thread behind for long.
    pub fn pass(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.0.1.wait_timeout_while(open, Duration::from_secs(60), |open| !*open);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}
