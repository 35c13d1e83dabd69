//! A response on its way into the store while it streams to the client; whatever happens to one of the two, the
//! other is not held up.

use std::sync::Arc;

use bytes::Bytes;

use super::{Entry, Fill, Filled, HandOver, Sequence, Store};
use crate::policy::{Reason, Stored};

/// A response being recorded.
pub struct Recording {
    store: Store,
    fill: Fill,
    stored: Stored,
    place: Place,
}

/// Under which names a response is stored, whose it is, and when its forward began.
pub struct Place {
    /// The primary key.
    pub key: Vec<u8>,
    /// What an unsafe request would name: see [`Store::invalidate`].
    pub resource: Vec<u8>,
    /// When the forward began: see [`Store::begin`].
    pub begun: Sequence,
    /// Whose share of the store it takes: see [`Store::owner`].
    pub owner: u64,
}

impl Recording {
    /// Begins to record a response whose content has `expected_bytes`, if that is known.
    ///
    /// # Errors
    /// `too-large`, `admission`, `quota` or `store-full`.
    pub fn begin(
        store: &Store,
        place: Place,
        stored: Stored,
        expected_bytes: Option<u64>,
    ) -> Result<Self, Reason> {
        let fill = store.fill(place.owner, expected_bytes)?;
        store.admit(&place, expected_bytes)?;
        Ok(Self { store: store.clone(), fill, stored, place })
    }

    /// Appends content.
    ///
    /// # Errors
    /// `too-large` or `store-full`: none of it was taken, and the recording can only be dropped or handed over.
    pub fn append(&mut self, content: &[u8]) -> Result<(), Reason> {
        self.fill.append(content)
    }

    /// What lets others read along.
    pub fn filled(&self) -> Filled {
        self.fill.filled()
    }

    /// Goes on for those who read along, without storing.
    pub fn hand_over(self) -> HandOver {
        self.fill.hand_over()
    }

    /// Stores the complete response; `head` makes its head of the stored fields and the content's length.
    ///
    /// # Errors
    /// `purged`, `incomplete`, `store-full`.
    pub fn finish(self, head: impl FnOnce(&Stored, u64) -> Bytes) -> Result<Arc<Entry>, Reason> {
        let head = head(&self.stored, self.fill.bytes());
        self.store.insert(&self.place, self.stored, head, self.fill)
    }
}
