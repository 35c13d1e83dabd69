//! A content on its way into the store: copied into segments of exactly their size, each with its share of the budget.
//!
//! The share belongs to the segment itself, so that a client that still reads an evicted response counts.

use bytes::Bytes;

use super::{Store, budget::Permit};
use crate::policy::Reason;

/// Bytes of the largest segment.
pub const SEGMENT_BYTES_MAX: usize = 256 << 10;

/// Bytes of the first segment of a content whose length is not known; each further one is twice as large.
const SEGMENT_BYTES_MIN: usize = 4 << 10;

/// What an allocation and its `Bytes` cost besides the bytes.
const SEGMENT_OVERHEAD_BYTES: u64 = 128;

/// A content being collected; its bytes return to the budget when it is dropped.
pub struct Fill {
    store: Store,
    expected_bytes: Option<u64>,
    segments: Vec<Bytes>,
    open: Option<Open>,
    body_bytes: u64,
    reserved_bytes: u64,
}

/// The segment that is being written: never beyond the capacity that was reserved.
struct Open {
    data: Vec<u8>,
    permit: Permit,
}

/// A closed segment with its share of the budget.
struct Segment {
    data: Box<[u8]>,
    _permit: Permit,
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// A complete content.
pub(super) struct Body {
    pub(super) segments: Vec<Bytes>,
    pub(super) bytes: u64,
    /// Bytes that the segments hold of the budget.
    pub(super) reserved_bytes: u64,
}

impl Fill {
    pub(super) fn new(store: Store, expected_bytes: Option<u64>) -> Self {
        Self { store, expected_bytes, segments: Vec::new(), open: None, body_bytes: 0, reserved_bytes: 0 }
    }

    /// Copies the next bytes of the content; never keeps the caller's buffer.
    ///
    /// Refuses with `too-large` or `store-full`; the fill is then of no more use.
    pub fn append(&mut self, mut data: &[u8]) -> Result<(), Reason> {
        let total = self.body_bytes.saturating_add(data.len() as u64);
        if total > self.store.shared.limits.object_bytes_max {
            return Err(Reason::TooLarge);
        }
        while !data.is_empty() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.open(data.len())?,
            };
            let room = open.data.capacity() - open.data.len();
            let (now, later) = data.split_at_checked(room).unwrap_or((data, &[]));
            open.data.extend_from_slice(now);
            self.body_bytes += now.len() as u64;
            data = later;
            if open.data.len() == open.data.capacity() {
                self.close(open);
            } else {
                self.open = Some(open);
            }
        }
        Ok(())
    }

    /// Bytes collected so far.
    pub fn bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Closes the last segment; a content shorter or longer than was expected is `incomplete` (RFC 9111 §3.3).
    pub(super) fn finish(mut self) -> Result<Body, Reason> {
        if self.expected_bytes.is_some_and(|expected| expected != self.body_bytes) {
            return Err(Reason::Incomplete);
        }
        if let Some(open) = self.open.take() {
            self.close(open);
        }
        let mut segments = std::mem::take(&mut self.segments);
        segments.shrink_to_fit();
        Ok(Body { segments, bytes: self.body_bytes, reserved_bytes: self.reserved_bytes })
    }

    fn open(&self, wanted: usize) -> Result<Open, Reason> {
        let size = match self.expected_bytes.and_then(|expected| expected.checked_sub(self.body_bytes)) {
            Some(rest) if rest > 0 => usize::try_from(rest).unwrap_or(usize::MAX),
            _ => (SEGMENT_BYTES_MIN << self.segments.len().min(6)).max(wanted),
        };
        let size = size.min(SEGMENT_BYTES_MAX);
        let permit = self.store.reserve(size as u64 + SEGMENT_OVERHEAD_BYTES)?;
        let mut data = Vec::new();
        // Out of memory is one more way to be full.
        data.try_reserve_exact(size).map_err(|_| Reason::StoreFull)?;
        Ok(Open { data, permit })
    }

    fn close(&mut self, open: Open) {
        let Open { data, mut permit } = open;
        let data = data.into_boxed_slice();
        permit.shrink(data.len() as u64 + SEGMENT_OVERHEAD_BYTES);
        self.reserved_bytes += permit.bytes();
        self.segments.push(Bytes::from_owner(Segment { data, _permit: permit }));
    }
}
