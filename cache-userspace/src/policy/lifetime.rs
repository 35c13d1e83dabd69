//! Where the freshness lifetime of a stored response came from (RFC 9111 §4.2.1, §4.2.2), for `explain`.
//!
//! Read off the fields that are kept, by the same functions that gave the lifetime; nothing is decided here.

use super::{
    Now, Profile, Rules, Stored,
    cache_control::{CacheControl, Delta},
    freshness::{self, DateValue},
    storing::negative,
    targeted::{Targeted, targeted},
};

/// What gave a stored response its freshness lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `s-maxage` (RFC 9111 §5.2.2.10).
    SMaxage,
    /// `max-age` (RFC 9111 §5.2.2.1).
    MaxAge,
    /// `Expires` and `Date` (RFC 9111 §5.3).
    Expires,
    /// A field targeted at this cache (RFC 9213).
    Targeted,
    /// The rules, for errors that say nothing.
    Rules,
    /// A guess from `Last-Modified` (RFC 9111 §4.2.2).
    Heuristic,
    /// A later answer to HEAD was about other content (RFC 9111 §4.3.5): there is none left.
    Outdated,
    /// Nothing.
    Unsaid,
}

impl LifetimeSource {
    /// The word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Targeted => "targeted",
            Self::Rules => "rules",
            Self::Heuristic => "heuristic",
            Self::Outdated => "outdated",
            Self::Unsaid => "unsaid",
        }
    }

    /// A few words for people, to come after the lifetime.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::SMaxage => "explicit, by s-maxage (RFC 9111 §5.2.2.10)",
            Self::MaxAge => "explicit, by max-age (RFC 9111 §5.2.2.1)",
            Self::Expires => "explicit, by Expires less Date (RFC 9111 §5.3)",
            Self::Targeted => "explicit, by a field targeted at this cache (RFC 9213 §2.2)",
            Self::Rules => "by the rules for errors that say nothing",
            Self::Heuristic => "heuristic, a tenth of the time since Last-Modified (RFC 9111 §4.2.2)",
            Self::Outdated => "none left: a HEAD was answered about other content (RFC 9111 §4.3.5)",
            Self::Unsaid => "none is said",
        }
    }
}

impl Stored {
    /// What gave it its lifetime; `now` decides the century of a two-digit year.
    pub fn lifetime_source(&self, rules: &Rules, now: Now) -> LifetimeSource {
        if self.is_heuristic {
            let by_rules = negative(rules, self.status).is_some();
            return if by_rules { LifetimeSource::Rules } else { LifetimeSource::Heuristic };
        }
        let date = DateValue::of(&self.fields, now);
        let directives = CacheControl::of(&self.fields);
        let general = freshness::explicit(&directives, Some(&self.fields), date, now);
        let from_general = match (directives.s_maxage, directives.max_age) {
            (Delta::Absent, Delta::Absent) => LifetimeSource::Expires,
            (Delta::Absent, _) => LifetimeSource::MaxAge,
            _ => LifetimeSource::SMaxage,
        };
        let is_trusted = rules.profile == Profile::Rfc9111 || rules.trusts_cdn_cache_control;
        let (given, source) = match targeted(&self.fields) {
            Targeted::Absent | Targeted::Unusable => (general, from_general),
            Targeted::Given(directives) => match freshness::explicit(&directives, None, date, now) {
                targeted if is_trusted => (targeted, LifetimeSource::Targeted),
                // Where it may only forbid, the shorter of the two counts, and neither without the other.
                Some(targeted) if general.is_some_and(|general| targeted < general) => {
                    (Some(targeted), LifetimeSource::Targeted)
                }
                targeted => (general.and(targeted).and(general), from_general),
            },
        };
        match given {
            None => LifetimeSource::Unsaid,
            Some(lifetime) if self.lifetime.is_zero() && !lifetime.is_zero() => LifetimeSource::Outdated,
            Some(_) => source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{Pairs, STORED_AT, fields, get, rules, stored},
        *,
    };
    use crate::policy::{ResponseView, store};

    #[test]
    fn what_gave_the_lifetime_is_named_rfc9111_4_2_1() {
        let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        let modified = ("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT");
        let rows: [(Pairs<'_>, LifetimeSource); 8] = [
            (&[("cache-control", "max-age=5, s-maxage=9"), expires], LifetimeSource::SMaxage),
            (&[("cache-control", "max-age=5"), expires], LifetimeSource::MaxAge),
            (&[expires], LifetimeSource::Expires),
            (&[modified], LifetimeSource::Heuristic),
            (&[("cache-control", "no-cache"), ("etag", "\"a\"")], LifetimeSource::Unsaid),
            (&[("cache-control", "max-age=5"), ("cdn-cache-control", "max-age=9")], LifetimeSource::Targeted),
            (&[("cache-control", "max-age=9"), ("cdn-cache-control", "max-age=9,")], LifetimeSource::MaxAge),
            (&[("cache-control", "max-age=0"), ("etag", "\"a\"")], LifetimeSource::MaxAge),
        ];
        for (pairs, expected) in rows {
            let source = stored(&[], pairs, STORED_AT).lifetime_source(&rules(Profile::Rfc9111), STORED_AT);
            assert_eq!(source, expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_field_that_is_not_trusted_is_named_where_it_shortens_the_lifetime() {
        let request = fields(&[]);
        for (general, targeted, expected) in [
            ("max-age=9", "max-age=5", LifetimeSource::Targeted),
            ("max-age=5", "max-age=9", LifetimeSource::MaxAge),
            ("max-age=5", "max-age=5", LifetimeSource::MaxAge),
            ("max-age=5, must-revalidate", "must-revalidate", LifetimeSource::Unsaid),
        ] {
            let pairs = [("cache-control", general), ("cdn-cache-control", targeted), ("etag", "\"a\"")];
            let answer = crate::http1::Fields::from_pairs(pairs);
            let answer = ResponseView { status: 200, fields: &answer, delimited_by_close: false };
            let safe = rules(Profile::Safe);
            let stored = store(&get(&request), &answer, &safe, STORED_AT, STORED_AT).unwrap();
            assert_eq!(stored.lifetime_source(&safe, STORED_AT), expected, "{general} {targeted}");
        }
    }

    #[test]
    fn rules_for_errors_and_what_a_head_outdated_are_told_apart() {
        let rules =
            Rules { negative: [(404, std::time::Duration::from_secs(9))].into(), ..rules(Profile::Safe) };
        let request = fields(&[]);
        let answer = crate::http1::Fields::default();
        let answer = ResponseView { status: 404, fields: &answer, delimited_by_close: false };
        let missing = store(&get(&request), &answer, &rules, STORED_AT, STORED_AT).unwrap();
        assert_eq!(missing.lifetime_source(&rules, STORED_AT), LifetimeSource::Rules);
        let fresh = stored(&[], &[("cache-control", "max-age=9")], STORED_AT);
        let outdated = Stored { lifetime: std::time::Duration::ZERO, no_cache: true, ..fresh };
        assert_eq!(outdated.lifetime_source(&rules, STORED_AT), LifetimeSource::Outdated);
    }
}
