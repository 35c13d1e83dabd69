//! A request that goes forward, with what was found for it: owned, so that it can go on without its client.

use std::sync::Arc;

use tokio::time::Instant;

use crate::http1::{Fields, RequestHead};
use crate::policy::{self, Candidate, Miss, Rules};
use crate::store::{Entry, Sequence, Store};

use super::{Connection, view};

/// What was found under a key at one moment: what is judged is what is served, also while a purge goes on.
pub(super) struct LookUp {
    /// Read before the look-up: what was purged since is not brought back by a validation of what was found.
    begun: Sequence,
    entries: Vec<Arc<Entry>>,
}

impl LookUp {
    pub(super) fn of(store: &Store, key: &[u8]) -> Self {
        let begun = store.begin();
        let variants = store.variants(key);
        let alive = variants.iter().flat_map(|v| v.iter()).filter(|entry| store.alive(entry));
        Self { begun, entries: alive.cloned().collect() }
    }

    pub(super) fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.entries.iter().map(|entry| candidate(entry))
    }

    /// The entry, unless it was purged meanwhile.
    pub(super) fn entry(&self, index: usize, store: &Store) -> Option<Arc<Entry>> {
        self.entries.get(index).filter(|entry| store.alive(entry)).cloned()
    }
}

pub(super) fn candidate(entry: &Entry) -> Candidate<'_> {
    Candidate { stored: &entry.stored, content_bytes: entry.body_bytes }
}

/// What a forward request is about, for those who might join it.
pub struct About {
    /// The leader's request fields.
    pub(super) fields: Fields,
    /// When it began, in the purge log.
    pub(super) begun: Sequence,
    /// When it began.
    pub(super) since: Instant,
}

/// A request that goes forward.
#[derive(Clone)]
pub(super) struct Ask {
    /// As the client sent it.
    pub(super) request: RequestHead,
    pub(super) connection: Arc<Connection>,
    pub(super) rules: Arc<Rules>,
    pub(super) key: Vec<u8>,
    pub(super) resource: Vec<u8>,
    pub(super) begun: Sequence,
    pub(super) miss: Miss,
    /// What is stored under the key and alive.
    pub(super) variants: Vec<Arc<Entry>>,
    /// Which of them would answer if it were fresh.
    pub(super) selected: Option<usize>,
    /// The fields that make it a validation, in place of the client's.
    pub(super) conditions: Option<Fields>,
}

impl Ask {
    pub(super) fn new(
        request: &RequestHead,
        connection: &Arc<Connection>,
        rules: &Arc<Rules>,
        key: &[u8],
        found: &LookUp,
        selected: Option<usize>,
        miss: Miss,
    ) -> Self {
        let stored = found.entries.iter().map(|entry| &entry.stored);
        let conditions =
            selected.and_then(|selected| policy::validation_fields(&view(request), stored, selected));
        Self {
            request: request.clone(),
            connection: connection.clone(),
            rules: rules.clone(),
            key: key.to_vec(),
            resource: connection.resource(request, &request.target),
            begun: found.begun,
            miss,
            variants: found.entries.clone(),
            selected,
            conditions,
        }
    }

    /// The stored response that would answer if it were fresh.
    pub(super) fn selected(&self) -> Option<&Arc<Entry>> {
        self.selected.and_then(|index| self.variants.get(index))
    }

    /// The request as it goes forward.
    pub(super) fn forwarded(&self) -> RequestHead {
        let mut request = self.request.clone();
        if let Some(conditions) = &self.conditions {
            request.fields = conditions.clone();
        }
        request
    }

    pub(super) fn is_get(&self) -> bool {
        &self.request.method[..] == b"GET"
    }

    /// Whether others may be served by its answer, and it by another's: not what asks for a part, for news, or for
    /// what only its own conditions tell.
    pub(super) fn may_share(&self) -> bool {
        let fields = &self.request.fields;
        let is_conditional = fields.contains("if-none-match") || fields.contains("if-modified-since");
        self.is_get()
            && self.miss != Miss::Request
            && !fields.contains("range")
            && (!is_conditional || self.conditions.is_some())
    }

    /// What others may know of it.
    pub(super) fn about(&self) -> About {
        About { fields: self.request.fields.clone(), begun: self.begun, since: Instant::now() }
    }

    /// Whether another request's answer can be expected to answer this one too: by what the stored variants vary on.
    pub(super) fn may_match(&self, others: &Fields) -> bool {
        let Some(newest) = self.variants.last() else { return true };
        newest.stored.selection.names().all(|name| {
            let (mut own, mut other) = (self.request.fields.values(name), others.values(name));
            own.by_ref().eq(other.by_ref())
        })
    }
}
