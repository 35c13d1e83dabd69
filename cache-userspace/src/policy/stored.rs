//! What is kept of a response besides its content, and its age (RFC 9111 §3.1, §4.2.3).
//!
//! Whether a response may be kept is left to `storing`, whether it may be used to `decide` and `stale`.

use std::time::Duration;

use super::{
    Now, Reason, Rules,
    entity_tag::{entity_tag, is_weak},
    no_vary_search::Search,
    range::{Span, Validators},
    vary::Selection,
};
use crate::http1::Fields;

/// What is kept of a response besides its content.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The status code.
    pub status: u16,
    /// The end-to-end fields as they are to be sent again, in their order and spelling: without hop-by-hop fields,
    /// what Connection nominated, the proxy fields (§3.1) and Age, which each reuse writes anew (§5.1); with a Date
    /// where the origin server sent none (RFC 9110 §6.6.1); without the Content-Range that `part` tells.
    pub fields: Fields,
    /// The request fields that selected it (§4.1).
    pub selection: Selection,
    /// The freshness lifetime (§4.2.1, §4.2.2); zero where there is none.
    pub lifetime: Duration,
    /// Whether the lifetime is a guess (§4.2.2).
    pub is_heuristic: bool,
    /// The age it had when it arrived (§4.2.3).
    pub corrected_initial_age: Duration,
    /// When it arrived or was last validated, on CLOCK_BOOTTIME.
    pub received: Duration,
    /// When it was made: Date in unix seconds, else the moment of reception.
    pub date: i64,
    /// Last-Modified in unix seconds, where it is one valid date (RFC 9110 §8.8.2).
    pub last_modified: Option<i64>,
    /// Whether it says that it may answer requests with Authorization (§3.5).
    pub shared_with_authorization: bool,
    /// Whether it says that it is for everybody (`public`, `s-maxage`), whatever cookies a request carries.
    pub shared_with_cookies: bool,
    /// Whether it must never be given stale: must-revalidate, proxy-revalidate or s-maxage (§5.2.2.2, §5.2.2.8,
    /// §5.2.2.10).
    pub must_revalidate: bool,
    /// Whether it must be validated before each use (§5.2.2.4).
    pub no_cache: bool,
    /// Whether its content never changes while it is fresh (RFC 8246 §2).
    pub immutable: bool,
    /// How long it says that it may be given stale while it is validated (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long it says that it may be given stale instead of an error (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// Which queries it answers (No-Vary-Search); `None`: only its own, byte by byte, which the key tells.
    pub search: Option<Box<Search>>,
    /// The groups that it belongs to (RFC 9875 §2), sorted, each once.
    pub groups: Box<[Box<str>]>,
    /// Which part of its representation it is; `None`: all of it (§3.3).
    pub part: Option<Part>,
    /// Whether its content is in a transfer coding that nobody here undoes: `fields` say in which, and only the close
    /// ends it (RFC 9112 §6.3). It answers only whoever asks for the whole and offers the same codings.
    pub is_coded: bool,
    /// Why it must not stay: it answers the request whose validation made it and nothing else. The caller removes the
    /// stored response that it was made of; whatever is left of it is never selected.
    pub refused: Option<Reason>,
}

/// Where a stored 206 stands in its representation (RFC 9110 §14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset of its first byte.
    pub first: u64,
    /// Offset of its last byte.
    pub last: u64,
    /// Bytes of the whole representation.
    pub complete: u64,
}

impl Part {
    /// Both ends of it.
    pub fn span(self) -> Span {
        Span { first: self.first, last: self.last }
    }
}

impl Stored {
    /// The current age (§4.2.3); resident time is counted on CLOCK_BOOTTIME.
    pub fn age(&self, now: Now) -> Duration {
        self.corrected_initial_age.saturating_add(self.resident(now))
    }

    /// How much longer it may be reused: zero as soon as its age reaches its lifetime (§4.2) or it has been here for
    /// [`Rules::resident_max`]; zero where each use wants a validation (§5.2.2.4).
    pub fn fresh_for(&self, rules: &Rules, now: Now) -> Duration {
        if self.no_cache {
            return Duration::ZERO;
        }
        let fresh = self.lifetime.saturating_sub(self.age(now));
        fresh.min(rules.resident_max.saturating_sub(self.resident(now)))
    }

    /// Whether it began to arrive after `other`, whose content only took longer: that is older news. A part does not
    /// keep out the whole that it is of.
    pub fn supersedes(&self, other: &Self) -> bool {
        let is_part_of_it = self.part.is_some()
            && self.entity_tag() == other.entity_tag()
            && self.last_modified == other.last_modified;
        self.received > other.received && other.gives_way_to(self) && !is_part_of_it
    }

    /// Its one entity tag, `W/` included (RFC 9110 §8.8.3).
    pub fn entity_tag(&self) -> Option<&[u8]> {
        entity_tag(&self.fields)
    }

    /// Its entity tag, if that is a strong validator (RFC 9110 §8.8.1).
    pub fn strong_entity_tag(&self) -> Option<&[u8]> {
        self.entity_tag().filter(|tag| !is_weak(tag))
    }

    /// Whether the origin server can be asked if it still holds (§4.3).
    pub fn has_validator(&self) -> bool {
        self.last_modified.is_some() || self.entity_tag().is_some()
    }

    /// What `If-Range` is compared with.
    pub fn validators(&self) -> Validators<'_> {
        Validators::of(&self.fields, self.date)
    }

    /// Bytes of the whole representation, where its own content has `content_bytes`.
    pub fn complete_bytes(&self, content_bytes: u64) -> u64 {
        self.part.map_or(content_bytes, |part| part.complete)
    }

    /// Bytes that it occupies on the heap, rounded up.
    pub fn heap_bytes(&self) -> u64 {
        // A line's offsets take 16 bytes and the vector that holds them may have grown to twice its length.
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        let groups: usize = self.groups.iter().map(|group| size_of::<Box<str>>() + group.len()).sum();
        let search = self.search.as_ref().map_or(0, |search| search.heap_bytes());
        (fields + groups) as u64 + self.selection.heap_bytes() + search
    }

    /// Whether it answers requests for this target, of those that share its key.
    pub fn is_of(&self, target: &[u8]) -> bool {
        self.search.as_ref().is_none_or(|search| search.answers(target))
    }

    /// Whether a newer response under the same key takes the place of this one: the same request fields selected
    /// both, and it answers the query that this one was for.
    pub fn gives_way_to(&self, newer: &Self) -> bool {
        self.selection == newer.selection
            && match (&self.search, &newer.search) {
                (None, None) => true,
                (Some(old), Some(new)) => new.covers(old),
                _ => false,
            }
    }

    /// How long ago it arrived or was last validated.
    pub(super) fn resident(&self, now: Now) -> Duration {
        now.boot.saturating_sub(self.received)
    }
}
