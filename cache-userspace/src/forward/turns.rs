//! How many requests a destination gets from us at a time: more wait for their turn, and for no longer than a
//! deadline. Then they go all the same, since the workload would have sent them without us.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A destination as its network namespace (by cookie) knows it.
pub type Destination = (u64, SocketAddr);

/// The turns of all destinations.
pub struct Turns {
    by_destination: Mutex<HashMap<Destination, Arc<Semaphore>>>,
    requests_max: usize,
    wait_max: Duration,
}

/// A turn; the next one's begins when it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    destination: Destination,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// At most `requests_max` at a time for each destination; who waited for `wait_max` goes.
    pub fn new(requests_max: usize, wait_max: Duration) -> Self {
        Self { by_destination: Mutex::default(), requests_max, wait_max }
    }

    /// Waits for a turn; `None` where the wait was in vain.
    pub async fn take(self: &Arc<Self>, destination: Destination) -> Option<Turn> {
        let semaphore = self
            .lock()
            .entry(destination)
            .or_insert_with(|| Arc::new(Semaphore::new(self.requests_max)))
            .clone();
        // Made before the wait, so that whoever gives up waiting forgets the destination too.
        let mut turn = Turn { turns: self.clone(), destination, permit: None };
        turn.permit = match semaphore.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => timeout(self.wait_max, semaphore.acquire_owned()).await.ok()?.ok(),
        };
        turn.permit.is_some().then_some(turn)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Destination, Arc<Semaphore>>> {
        self.by_destination.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut by_destination = self.turns.lock();
        drop(self.permit.take());
        // Nobody else holds, waits for or is about to take one: who does has a clone, taken under this lock.
        if by_destination.get(&self.destination).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            by_destination.remove(&self.destination);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(port: u16) -> Destination {
        (1, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_waits_for_a_turn_and_not_beyond_its_deadline() {
        let turns = Arc::new(Turns::new(2, Duration::from_secs(1)));
        let first = turns.take(destination(1)).await.unwrap();
        let _second = turns.take(destination(1)).await.unwrap();
        let _elsewhere = turns.take(destination(2)).await.unwrap();
        let begin = tokio::time::Instant::now();
        assert!(turns.take(destination(1)).await.is_none());
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(destination(1)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_without_requests_is_forgotten() {
        let turns = Arc::new(Turns::new(1, Duration::from_secs(1)));
        let turn = turns.take(destination(1)).await;
        assert!(turns.take(destination(1)).await.is_none());
        assert_eq!(turns.lock().len(), 1);
        drop(turn);
        assert!(turns.lock().is_empty());
    }
}
