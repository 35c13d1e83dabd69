//! What a response tells this cache: the directives that count and the lifetime they give (RFC 9111 §4.2.1).
//!
//! The one place where Cache-Control, Expires, Pragma and the fields that are targeted at a cache (RFC 9213) meet.

use std::time::Duration;

use super::{
    Now, Profile, Rules,
    cache_control::{CacheControl, Delta},
    freshness::{self, DateValue},
};
use crate::http1::Fields;

/// The directives of a response for this cache.
pub(super) struct Control {
    /// Directives, of whichever field they are.
    pub(super) directives: CacheControl,
    /// The explicit freshness lifetime, if there is one.
    pub(super) explicit: Option<Duration>,
    /// Whether the response says anything about caching at all.
    pub(super) is_explicit: bool,
}

impl Control {
    /// Reads what the fields say under these rules.
    pub(super) fn of(fields: &Fields, rules: &Rules, date: DateValue, received_at: Now) -> Self {
        let mut directives = CacheControl::of(fields);
        // §5.4 gives Pragma no meaning in responses; who sends it alone meant no-cache.
        if rules.profile == Profile::Safe && !fields.contains("cache-control") && is_pragma_no_cache(fields) {
            directives.no_cache = true;
        }
        let explicit = freshness::explicit(&directives, Some(fields), date, received_at);
        let is_explicit = explicit.is_some()
            || directives.no_cache
            || directives.public
            || directives.must_revalidate
            || directives.proxy_revalidate;
        Self { directives, explicit, is_explicit }
    }

    /// RFC 9111 §3.5: what allows a shared cache to reuse the answer to an authorized request.
    pub(super) fn shares(&self) -> bool {
        self.directives.must_revalidate || self.is_for_everybody()
    }

    /// Whether the origin server thought of shared caches when it allowed reuse.
    pub(super) fn is_for_everybody(&self) -> bool {
        self.directives.public || matches!(self.directives.s_maxage, Delta::Seconds(_))
    }

    /// Whether it must not be given stale by a shared cache (RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10).
    pub(super) fn must_revalidate(&self) -> bool {
        let directives = &self.directives;
        directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage != Delta::Absent
    }
}

/// How long after its lifetime a response says that it may be given; a number that cannot be read is zero.
pub(super) fn window(delta: Delta) -> Option<Duration> {
    match delta {
        Delta::Absent => None,
        Delta::Invalid => Some(Duration::ZERO),
        Delta::Seconds(seconds) => Some(Duration::from_secs(u64::from(seconds))),
    }
}

/// Whether `Pragma` says `no-cache` (RFC 9111 §5.4).
pub(super) fn is_pragma_no_cache(fields: &Fields) -> bool {
    fields.tokens("pragma").any(|member| member.eq_ignore_ascii_case(b"no-cache"))
}
