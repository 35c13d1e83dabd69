//! A response on its way into the store while it streams to the client; whatever happens to one of the two, the
//! other is not held up.

use std::sync::Arc;

use bytes::Bytes;

use super::{Body, Entry, Fill, Filled, HandOver, Sequence, Store};
use crate::policy::{self, Part, Reason, Stored};

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

    /// Stores the complete response; `head` makes its head of the stored fields and the content's length. A part joins
    /// the part that is stored already, where both are of one representation (RFC 9111 §3.4).
    ///
    /// # Errors
    /// `purged`, `incomplete`, `store-full`; `superseded` where the whole is stored already, or something newer.
    pub fn finish(self, head: impl FnOnce(&Stored, u64) -> Bytes) -> Result<Arc<Entry>, Reason> {
        let Self { store, fill, stored, place } = self;
        let Some(part) = stored.part else {
            let head = head(&stored, fill.bytes());
            return store.insert(&place, stored, head, fill);
        };
        let mut body = fill.finish()?;
        if body.bytes() != part.span().bytes() {
            return Err(Reason::Incomplete);
        }
        let mut together = stored.completed();
        if together.part.is_none() {
            let head = head(&together, body.bytes());
            return store.insert_segments(&place, together, head, body);
        }
        let variants = store.variants(&place.key);
        let alive = || variants.iter().flat_map(|v| v.iter()).filter(|entry| store.alive(entry));
        let is_whole = |entry: &&Arc<Entry>| {
            entry.stored.part.is_none()
                && entry.stored.gives_way_to(&together)
                && entry.stored.entity_tag() == together.entity_tag()
        };
        if alive().any(|entry| is_whole(&entry)) {
            return Err(Reason::Superseded);
        }
        let fits = |both: &Stored| {
            let bytes = both.part.map_or(part.complete, |part| part.span().bytes());
            bytes <= store.shared.limits.object_bytes_max
        };
        // The newer part's groups may have been invalidated since the older one was sent.
        let join = |old: &Entry| {
            let both = policy::combined(&old.stored, &together).filter(fits)?;
            store.is_current_as(&place.resource, &both, old.identity.begun).then_some(both)
        };
        if let Some((old, combined)) = alive().find_map(|old| Some((old, join(old)?))) {
            body = joined(old, body, part);
            together = combined;
        }
        let head = head(&together, body.bytes());
        store.insert_segments(&place, together, head, body)
    }
}

/// The bytes of both parts, where they overlap those of the newer one.
fn joined(old: &Entry, new: Body, new_part: Part) -> Body {
    let Some(old_part) = old.stored.part else { return new };
    let before = new_part.first.saturating_sub(old_part.first);
    let after = (new_part.last + 1).saturating_sub(old_part.first);
    let mut body = old.part(0..before);
    body.append(new);
    body.append(old.part(after..old.body_bytes.max(after)));
    body
}
