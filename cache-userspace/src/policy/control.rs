//! What a response tells this cache (RFC 9111 §5.2.2): directives and the lifetime they give.
//!
//! The one place where Cache-Control, Expires, Pragma and the fields that are targeted at a cache (RFC 9213) meet.
//! What it leads to is left to `storing`.

use std::time::Duration;

use super::{
    Now, Profile, Rules,
    cache_control::{CacheControl, Delta},
    freshness::{self, DateValue},
    targeted::{Targeted, targeted},
};
use crate::http1::Fields;

/// What a response says to this cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    /// `no-store` (§5.2.2.5).
    pub(super) no_store: bool,
    /// `must-understand` (§5.2.2.3).
    pub(super) must_understand: bool,
    /// `private` (§5.2.2.7).
    pub(super) private: bool,
    /// `no-cache` (§5.2.2.4).
    pub(super) no_cache: bool,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: a shared cache must not give it stale (§5.2.2.2, §5.2.2.8,
    /// §5.2.2.10).
    pub(super) must_revalidate: bool,
    /// `immutable` (RFC 8246 §2).
    pub(super) immutable: bool,
    /// `public` (§5.2.2.9).
    pub(super) public: bool,
    /// Whether a shared cache may reuse the answer to an authorized request (§3.5).
    pub(super) shares: bool,
    /// Whether the origin server thought of shared caches when it allowed reuse: `public` or `s-maxage`.
    pub(super) is_for_everybody: bool,
    /// Whether there is doubt about what was meant.
    pub(super) malformed: bool,
    /// The explicit freshness lifetime, if there is one (§4.2.1).
    pub(super) explicit: Option<Duration>,
    /// Whether it says how long it is fresh, also where that does not count because not all agree.
    pub(super) has_lifetime: bool,
    /// Whether it says anything about when to reuse it.
    pub(super) is_explicit: bool,
    /// `stale-while-revalidate` (RFC 5861 §3); zero where the number cannot be read.
    pub(super) stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4); zero where the number cannot be read.
    pub(super) stale_if_error: Option<Duration>,
}

impl Control {
    /// Reads what the fields say under these rules.
    ///
    /// RFC 9213 §2.2: a targeted field takes the place of Cache-Control and Expires. In `safe` both must allow what is
    /// done, unless policy trusts it: it is addressed to caches that act for the origin server.
    pub(super) fn of(fields: &Fields, rules: &Rules, date: DateValue, received_at: Now) -> Self {
        let is_trusted = rules.profile == Profile::Rfc9111 || rules.trusts_cdn_cache_control;
        let general = || {
            let mut directives = CacheControl::of(fields);
            // §5.4 gives Pragma no meaning in responses; who sends it alone meant no-cache.
            directives.no_cache |= rules.profile == Profile::Safe
                && !fields.contains("cache-control")
                && is_pragma_no_cache(fields);
            Self::from(&directives, freshness::explicit(&directives, Some(fields), date, received_at))
        };
        match targeted(fields) {
            Targeted::Absent | Targeted::Unusable => general(),
            Targeted::Given(directives) => {
                let explicit = freshness::explicit(&directives, None, date, received_at);
                let targeted = Self::from(&directives, explicit);
                if is_trusted { targeted } else { general().and(&targeted) }
            }
        }
    }

    fn from(directives: &CacheControl, explicit: Option<Duration>) -> Self {
        let is_for_everybody = directives.public || matches!(directives.s_maxage, Delta::Seconds(_));
        let must_revalidate =
            directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage != Delta::Absent;
        Self {
            no_store: directives.no_store,
            must_understand: directives.must_understand,
            private: directives.private,
            no_cache: directives.no_cache,
            must_revalidate,
            immutable: directives.immutable,
            public: directives.public,
            shares: is_for_everybody || directives.must_revalidate,
            is_for_everybody,
            malformed: directives.malformed,
            explicit,
            has_lifetime: explicit.is_some(),
            is_explicit: explicit.is_some() || must_revalidate || directives.no_cache || directives.public,
            stale_while_revalidate: window(directives.stale_while_revalidate),
            stale_if_error: window(directives.stale_if_error),
        }
    }

    /// What both allow, as long as both allow it.
    fn and(&self, other: &Self) -> Self {
        let shorter = |a: Option<Duration>, b: Option<Duration>| Some(a?.min(b?));
        let window = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(shorter(a, b).unwrap_or_default()),
        };
        Self {
            no_store: self.no_store || other.no_store,
            must_understand: self.must_understand || other.must_understand,
            private: self.private || other.private,
            no_cache: self.no_cache || other.no_cache,
            must_revalidate: self.must_revalidate || other.must_revalidate,
            immutable: self.immutable && other.immutable,
            public: self.public && other.public,
            shares: self.shares && other.shares,
            is_for_everybody: self.is_for_everybody && other.is_for_everybody,
            malformed: self.malformed || other.malformed,
            explicit: shorter(self.explicit, other.explicit),
            has_lifetime: self.has_lifetime || other.has_lifetime,
            is_explicit: self.is_explicit && other.is_explicit,
            stale_while_revalidate: window(self.stale_while_revalidate, other.stale_while_revalidate),
            stale_if_error: window(self.stale_if_error, other.stale_if_error),
        }
    }
}

fn window(delta: Delta) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{Pairs, STORED_AT},
        *,
    };

    fn of(profile: Profile, trusts_cdn_cache_control: bool, pairs: Pairs<'_>) -> Control {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let rules = Rules { profile, trusts_cdn_cache_control, ..Rules::default() };
        Control::of(&fields, &rules, DateValue::of(&fields, STORED_AT), STORED_AT)
    }

    #[test]
    fn a_targeted_field_replaces_the_others_where_it_is_trusted_rfc9213_2_2() {
        let expires = ("expires", "Sun, 06 Nov 1994 09:49:37 GMT");
        let seconds = |pairs: Pairs<'_>| {
            let whole = of(Profile::Rfc9111, false, pairs);
            assert_eq!(of(Profile::Safe, true, pairs), whole, "{pairs:?}");
            whole.explicit.map(|lifetime| lifetime.as_secs())
        };
        let general = ("cache-control", "max-age=1");
        assert_eq!(seconds(&[general, ("cdn-cache-control", "max-age=9")]), Some(9));
        assert_eq!(seconds(&[general, ("cdn-cache-control", "s-maxage=9, max-age=3")]), Some(9));
        assert_eq!(seconds(&[expires, ("cdn-cache-control", "public")]), None);
        assert_eq!(seconds(&[general, ("cdn-cache-control", "max-age=9,")]), Some(1), "§2.1: ignored");
        let control = |value| {
            of(Profile::Rfc9111, false, &[("cache-control", "no-store"), ("cdn-cache-control", value)])
        };
        assert!(!control("max-age=9").no_store && control("no-store").no_store);
        assert!(control("max-age=9, proxy-revalidate").must_revalidate);
        assert_eq!(control("max-age=9, stale-if-error=3").stale_if_error, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_targeted_field_can_only_forbid_where_it_is_not_trusted() {
        let of = |general, targeted| {
            of(Profile::Safe, false, &[("cache-control", general), ("cdn-cache-control", targeted)])
        };
        let seconds = |general, targeted| of(general, targeted).explicit.map(|lifetime| lifetime.as_secs());
        assert_eq!(seconds("max-age=9", "max-age=5"), Some(5));
        assert_eq!(seconds("max-age=5", "max-age=9"), Some(5));
        assert_eq!(seconds("max-age=5", "public"), None);
        assert_eq!(seconds("public", "max-age=5"), None);
        for (general, targeted) in
            [("no-store, private, no-cache", "max-age=9"), ("max-age=9", "no-store, private, no-cache")]
        {
            let both = of(general, targeted);
            assert!(both.no_store && both.private && both.no_cache, "{general} {targeted}");
        }
        let both = of("max-age=9, public, stale-if-error=3", "max-age=9, must-revalidate");
        assert!(!both.public && !both.is_for_everybody && both.shares && both.must_revalidate);
        assert_eq!(both.stale_if_error, Some(Duration::ZERO));
        assert_eq!(
            of("max-age=9, stale-if-error=3", "max-age=9, stale-if-error=2").stale_if_error,
            Some(Duration::from_secs(2))
        );
        assert_eq!(of("max-age=9", "max-age=9").stale_if_error, None);
    }
}
