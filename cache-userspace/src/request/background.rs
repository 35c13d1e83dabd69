//! What goes on without a client: fills that outlive theirs, validations nobody waits for. Bounded in number.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::admin::Counters;

/// Starts what goes on without a client.
pub struct Background {
    places: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Background {
    /// At most `tasks_max` at a time.
    pub fn new(tasks_max: usize, counters: Arc<Counters>) -> Self {
        Self { places: Arc::new(Semaphore::new(tasks_max)), counters }
    }

    /// Goes on with `work`, unless there is too much of it: then it is counted and given back.
    pub fn run<W: Future<Output = ()> + Send + 'static>(&self, work: W) -> Option<W> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.counters.background_full.incr();
            return Some(work);
        };
        tokio::spawn(async move {
            work.await;
            drop(place);
        });
        None
    }
}
