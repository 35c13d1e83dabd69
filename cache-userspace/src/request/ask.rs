//! A request that goes forward, with what was found for it: owned, so that it can go on without its client.

use std::sync::Arc;

use tokio::time::Instant;

use crate::http1::{Fields, RequestHead};
use crate::policy::{self, Candidate, Miss, Rules};
use crate::store::{Entry, Sequence, Store};

use super::content::Content;
use super::lease::Claim;
use super::{Connection, is_query, view};
use crate::route::Service;

/// What was found under a key at one moment: what is judged is what is served, also while a purge goes on.
pub(super) struct LookUp<'k> {
    /// Read before the look-up: what was purged since is not brought back by a validation of what was found.
    begun: Sequence,
    entries: Vec<Arc<Entry>>,
    key: &'k [u8],
    search_key: Option<Vec<u8>>,
}

impl<'k> LookUp<'k> {
    /// What is stored under the key of a target, and under the key of those that answer other queries as well.
    pub(super) fn of(store: &Store, key: &'k [u8], search_key: Option<Vec<u8>>, target: &[u8]) -> Self {
        let begun = store.begin();
        let (exact, others) = (store.variants(key), search_key.as_ref().and_then(|key| store.variants(key)));
        let variants = exact.iter().chain(&others).flat_map(|variants| variants.iter());
        let alive = variants.filter(|entry| entry.stored.is_of(target) && store.alive(entry));
        Self { begun, entries: alive.cloned().collect(), key, search_key }
    }

    /// Whether responses that answer several queries were looked for too.
    pub(super) fn has_searched(&self) -> bool {
        self.search_key.is_some()
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
    /// Whose it is.
    pub(super) workload: u64,
}

/// A request that goes forward.
#[derive(Clone)]
pub(super) struct Ask {
    /// As the client sent it.
    pub(super) request: RequestHead,
    /// What it has of content, all of it.
    pub(super) content: Content,
    pub(super) connection: Arc<Connection>,
    pub(super) rules: Arc<Rules>,
    pub(super) service: Option<Arc<Service>>,
    pub(super) claim: Claim,
    pub(super) key: Vec<u8>,
    /// Where those of the variants stand that answer other queries as well.
    pub(super) search_key: Option<Vec<u8>>,
    pub(super) resource: Vec<u8>,
    pub(super) begun: Sequence,
    pub(super) miss: Miss,
    /// What is stored for the target and alive.
    pub(super) variants: Vec<Arc<Entry>>,
    /// Which of them would answer if it were fresh.
    pub(super) selected: Option<usize>,
    /// The fields that make it a validation, in place of the client's.
    pub(super) conditions: Option<Fields>,
}

impl Ask {
    pub(super) fn new(
        request: &RequestHead,
        content: &Content,
        (connection, rules, service, claim): (&Arc<Connection>, &Arc<Rules>, Option<&Arc<Service>>, Claim),
        found: &LookUp<'_>,
        selected: Option<usize>,
        miss: Miss,
    ) -> Self {
        let stored = found.entries.iter().map(|entry| &entry.stored);
        let conditions =
            selected.and_then(|selected| policy::validation_fields(&view(request), stored, selected));
        Self {
            request: request.clone(),
            content: content.clone(),
            connection: connection.clone(),
            rules: rules.clone(),
            service: service.cloned(),
            claim,
            key: found.key.to_vec(),
            search_key: found.search_key.clone(),
            resource: connection.resource(request, &request.target, service.map(Arc::as_ref)),
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

    /// Whether its answer may be stored.
    pub(super) fn stores(&self) -> bool {
        policy::stores(&self.request.method)
    }

    /// Whether an answer of this status means that the origin does not understand conditions of ours: RFC 9110 §13.1.2
    /// has 412 for If-None-Match with methods that it does not know.
    pub(super) fn is_misunderstood(&self, status: u16) -> bool {
        status == 412 && is_query(&self.request) && self.conditions.is_some()
    }

    /// Whether others may be served by its answer, and it by another's: not what asks for a part, for news, or for
    /// what only its own conditions tell.
    pub(super) fn may_share(&self) -> bool {
        let fields = &self.request.fields;
        let is_conditional = fields.contains("if-none-match") || fields.contains("if-modified-since");
        self.stores()
            && self.miss != Miss::Request
            && !fields.contains("range")
            && (!is_conditional || self.conditions.is_some())
    }

    /// What others may know of it.
    pub(super) fn about(&self) -> About {
        let workload = self.connection.workload.id;
        About { fields: self.request.fields.clone(), begun: self.begun, since: Instant::now(), workload }
    }

    /// Whether what the origin gives, or gave, to another request may answer this one now: the client has the right to it.
    pub(super) fn may_be_given(&self) -> bool {
        self.claim.holds(&self.connection)
    }

    /// Whether it may wait for the answer to another request.
    pub(super) fn may_join(&self, about: &About) -> bool {
        about.workload == self.connection.workload.id || self.may_be_given()
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
