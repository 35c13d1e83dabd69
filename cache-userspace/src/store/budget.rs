//! The byte budget: a semaphore that covers what is stored, what is evicted but still in use, and what is in flight.
//!
//! Whether to evict or to give up when it is used up is left to the store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes that may be in use together.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    max: u64,
}

/// Bytes taken out of a budget; they return when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of which nothing is used.
    pub(super) fn new(max: u64) -> Self {
        Self { used: AtomicU64::new(0), max }
    }

    /// Takes bytes, or nothing at all if there are not enough.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        // Relaxed: the counter guards no other memory, and read-modify-writes of one atomic never lose each other.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.max)
            })
            .ok()?;
        Some(Permit { budget: self.clone(), bytes })
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns what exceeds `bytes`.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.budget.used.fetch_sub(excess, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_return_with_their_permit_and_never_exceed_the_budget() {
        let budget = Arc::new(Budget::new(10));
        let mut six = budget.reserve(6).unwrap();
        assert!(budget.reserve(5).is_none() && budget.reserve(u64::MAX).is_none());
        six.shrink(2);
        assert_eq!((budget.used(), six.bytes()), (2, 2));
        let eight = budget.reserve(8).unwrap();
        drop((six, eight));
        assert_eq!(budget.used(), 0);
    }
}
