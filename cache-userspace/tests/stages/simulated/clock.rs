//! Virtual time beside real sockets.
//!
//! A paused clock of tokio jumps to the next timer whenever the runtime has nothing to do, which it has not while
//! bytes are on their way through the kernel. It does not jump while a blocking task runs: one is held for as long as
//! the clock is to stand still. Only the test moves it then.

use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

use super::PATIENCE;

/// How often the task yields so that every other task and the sockets have had their turn.
const TURNS: usize = 100;
/// How far the clock moves at a time, at first.
const STEP_MIN: Duration = Duration::from_millis(10);

/// A clock that moves only when it is told to, for as long as this lives.
pub(crate) struct StillClock {
    /// Dropping it ends the blocking task.
    _held: mpsc::Sender<()>,
}

impl StillClock {
    /// Stops the clock.
    pub(crate) fn begin() -> Self {
        tokio::time::pause();
        let (held, released) = mpsc::channel::<()>();
        // Past the patience of the test the clock runs on its own, so that waits in vain end.
        tokio::task::spawn_blocking(move || released.recv_timeout(PATIENCE));
        Self { _held: held }
    }

    /// Lets time pass in steps.
    pub(crate) async fn pass(&self, time: Duration) {
        settled().await;
        for _ in 0..10 {
            tokio::time::advance(time / 10).await;
            settled().await;
        }
    }

    /// Lets time pass until the condition holds, and returns how much it was: at most a fiftieth too much.
    pub(crate) async fn pass_until(&self, condition: impl Fn() -> bool) -> Duration {
        let begin = Instant::now();
        settled().await;
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(3600), "an hour passed in vain");
            tokio::time::advance(STEP_MIN.max(begin.elapsed() / 50)).await;
            settled().await;
        }
        begin.elapsed()
    }
}

/// Gives every other task its turns, until they wait for something.
pub(crate) async fn settled() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}
