//! A content on its way into the store: copied into segments of exactly their size, each with its share of the budget.
//!
//! The share belongs to the segment itself, so that a client that still reads an evicted response counts. Who reads
//! along is left to `filled`.

use super::{
    Store,
    body::{Body, Piece},
    budget::Permit,
    filled::{Filled, HandOver, Shared},
};
use crate::policy::Reason;

/// Bytes of the largest segment.
pub const SEGMENT_BYTES_MAX: usize = 256 << 10;

/// Bytes of the first segment of a content whose length is not known; each further one is twice as large.
pub(super) const SEGMENT_BYTES_MIN: usize = 4 << 10;

/// What an allocation and its `Bytes` cost besides the bytes.
pub(super) const SEGMENT_OVERHEAD_BYTES: u64 = 128;

/// A content being collected. Its bytes return to the budget when it and all who read along are dropped; those who
/// read along learn from the drop of an unfinished one that it failed.
pub struct Fill {
    store: Store,
    owner: u64,
    expected_bytes: Option<u64>,
    body_bytes: u64,
    shared: Shared,
}

/// The segment that is being written: never beyond the capacity that was reserved.
pub(super) struct Open {
    pub(super) data: Vec<u8>,
    pub(super) permit: Permit,
}

impl Open {
    pub(super) fn room(&self) -> usize {
        self.data.capacity() - self.data.len()
    }

    pub(super) fn close(self) -> Piece {
        Piece::whole(self.data, self.permit)
    }
}

impl Fill {
    pub(super) fn new(store: Store, owner: u64, expected_bytes: Option<u64>) -> Self {
        Self { store, owner, expected_bytes, body_bytes: 0, shared: Shared::default() }
    }

    /// Copies the next bytes of the content, all of them or none; never keeps the caller's buffer.
    ///
    /// Refuses with `too-large` or `store-full`; the content can then still be handed on to those who read along,
    /// see [`Fill::hand_over`].
    pub fn append(&mut self, data: &[u8]) -> Result<(), Reason> {
        let total = self.body_bytes.saturating_add(data.len() as u64);
        if total > self.store.shared.limits.object_bytes_max {
            return Err(Reason::TooLarge);
        }
        let (mut room, mut segments) = self.shared.room();
        let mut opened = Vec::new();
        while room < data.len() {
            let open = self.open(room, data.len() - room, segments)?;
            room += open.room();
            segments += 1;
            opened.push(open);
        }
        self.shared.append(data, opened);
        self.body_bytes = total;
        Ok(())
    }

    /// Bytes collected so far.
    pub fn bytes(&self) -> u64 {
        self.body_bytes
    }

    /// What lets others read along.
    pub fn filled(&self) -> Filled {
        self.shared.filled()
    }

    /// Goes on without storing: those who read along get everything, nobody new does.
    pub fn hand_over(self) -> HandOver {
        HandOver::new(self.shared, self.expected_bytes, self.body_bytes)
    }

    /// Ends the content; one shorter or longer than was expected is `incomplete` (RFC 9111 §3.3).
    pub fn finish(self) -> Result<Body, Reason> {
        if self.expected_bytes.is_some_and(|expected| expected != self.body_bytes) {
            return Err(Reason::Incomplete);
        }
        Ok(Body::from_pieces(self.shared.complete(), self.body_bytes))
    }

    /// A further segment: `ahead` bytes have room already, `wanted` have not.
    fn open(&self, ahead: usize, wanted: usize, segments: usize) -> Result<Open, Reason> {
        let start = self.body_bytes + ahead as u64;
        let size = match self.expected_bytes.and_then(|expected| expected.checked_sub(start)) {
            Some(rest) if rest > 0 => usize::try_from(rest).unwrap_or(usize::MAX),
            _ => (SEGMENT_BYTES_MIN << segments.min(6)).max(wanted),
        };
        let size = size.min(SEGMENT_BYTES_MAX);
        let permit = self.store.reserve(self.owner, size as u64 + SEGMENT_OVERHEAD_BYTES)?;
        let mut data = Vec::new();
        // Out of memory is one more way to be full.
        data.try_reserve_exact(size).map_err(|_| Reason::StoreFull)?;
        Ok(Open { data, permit })
    }
}
