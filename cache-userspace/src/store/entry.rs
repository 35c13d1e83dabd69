//! A stored response and the variants of one key.
//!
//! Immutable: a change is a new entry. Whether an entry is alive is left to the purge log, whether it is fresh to
//! `policy`.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Identity,
    body::{Body, Piece},
    budget::Permit,
    purge::Place,
};
use crate::policy::Stored;

/// What a key costs in the store besides its bytes: table, ranking, variants, and the allocator's rounding of some ten
/// small blocks. Measured 2026-11-21 (bench `hot_path`): 1382 bytes in all where 1536 are counted, at 46 000 responses of
/// 100 bytes; what is left is for tables that have just doubled.
const KEY_OVERHEAD_BYTES: u64 = 512;

/// A stored response.
pub struct Entry {
    /// What `policy` keeps of it.
    pub stored: Stored,
    /// The head that the caller built.
    pub head: Bytes,
    /// The content. A segment counts against the store's budget until its last clone or slice is dropped.
    pub body: Vec<Bytes>,
    /// Bytes of the content.
    pub body_bytes: u64,
    /// Bytes of the budget that each segment keeps.
    held_bytes: Box<[u32]>,
    pub(super) identity: Identity,
    weight_bytes: u64,
    entries: Arc<AtomicU64>,
    _permit: Permit,
}

impl Entry {
    /// Bytes that every entry occupies besides its content.
    pub(super) const OVERHEAD_BYTES_MIN: u64 = size_of::<Self>() as u64 + KEY_OVERHEAD_BYTES;

    /// Bytes that an entry occupies besides its segments.
    pub(super) fn overhead(stored: &Stored, head: &Bytes, body: &Body, key: &[u8]) -> u64 {
        let places = (2 + stored.groups.len()) * size_of::<Place>();
        let own = head.len() + body.pieces.len() * size_of::<Piece>() + key.len() + places;
        own as u64 + stored.heap_bytes() + Self::OVERHEAD_BYTES_MIN
    }

    pub(super) fn new(
        stored: Stored,
        head: &Bytes,
        body: Body,
        identity: Identity,
        permit: Permit,
        entries: &Arc<AtomicU64>,
    ) -> Self {
        entries.fetch_add(1, Ordering::Relaxed);
        Self {
            stored,
            // The caller's buffer may be larger than what it shows.
            head: Bytes::copy_from_slice(head),
            weight_bytes: body.held_bytes() + permit.bytes(),
            body_bytes: body.bytes(),
            held_bytes: body.pieces.iter().map(|piece| piece.held_bytes).collect(),
            body: body.pieces.into_iter().map(|piece| piece.data).collect(),
            identity,
            entries: entries.clone(),
            _permit: permit,
        }
    }

    /// A part of its content, sharing its segments, to be stored with others: what concerns this entry concerns
    /// whatever is made of it.
    pub fn part(&self, range: Range<u64>) -> Body {
        self.whole().slice(range)
    }

    /// Its content, sharing its segments.
    pub(super) fn whole(&self) -> Body {
        let held_bytes = self.held_bytes.iter().copied();
        let pieces =
            self.body.iter().cloned().zip(held_bytes).map(|(data, held_bytes)| Piece { data, held_bytes });
        Body::from_pieces(pieces.collect(), self.body_bytes).since(self.identity.begun)
    }

    /// Where it stands in the purge log: whatever kills it is told to an [`Observer`](super::Observer) by one of them.
    pub fn purge_places(&self) -> &[Place] {
        &self.identity.places
    }

    /// Bytes that it holds of the budget.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stored responses of one key, the oldest first (RFC 9111 §4.1).
pub struct Variants {
    entries: Box<[Arc<Entry>]>,
}

impl Variants {
    /// The `old` ones and `new`, which takes the place of those that give way to it; the oldest give way until at
    /// most `max` remain and they weigh at most `bytes_max`. The new one always remains.
    pub(super) fn with<'a>(
        old: impl Iterator<Item = &'a Arc<Entry>>,
        new: &'a Arc<Entry>,
        max: usize,
        bytes_max: u64,
    ) -> Self {
        let others = old.filter(|entry| !entry.stored.gives_way_to(&new.stored));
        let mut entries: Vec<Arc<Entry>> = others.chain([new]).cloned().collect();
        let mut weight: u64 = entries.iter().map(|entry| entry.weight_bytes).sum();
        let mut surplus = 0;
        for entry in &entries {
            let left = entries.len() - surplus;
            if left <= 1 || (left <= max && weight <= bytes_max) {
                break;
            }
            weight -= entry.weight_bytes;
            surplus += 1;
        }
        entries.drain(..surplus);
        Self { entries: entries.into_boxed_slice() }
    }

    /// Bytes of the budget that they hold.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.weight_bytes).sum()
    }

    /// The entries, dead ones included.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }
}
