//! Freshness lifetime and initial age of a response (RFC 9111 §4.2.1, §4.2.3).
//!
//! Computed once when a response is stored; `decide` only adds resident time. Which directives count is left to
//! `control`, whether a heuristic may be used to `storing`.

use std::time::Duration;

use super::{
    Now,
    cache_control::{CacheControl, DELTA_SECONDS_MAX, Delta, delta_seconds},
    date,
    entity_tag::only,
};
use crate::http1::Fields;

/// The fraction of the time since Last-Modified that is assumed to be fresh: one tenth (RFC 9111 §4.2.2).
const HEURISTIC_DIVISOR: u64 = 10;

/// How much older than Date a Last-Modified is that counts as a strong validator, in seconds.
pub(super) const STRONG_AFTER_S: i64 = 60;

/// The longest that is assumed.
const HEURISTIC_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the lines of `Date` say, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateValue {
    /// The earliest: counts for age and for which response is newer.
    pub(super) earliest: i64,
    /// The latest: counts for the distance to `Expires`.
    pub(super) latest: i64,
}

impl DateValue {
    /// Reads all lines; without a valid one, the moment of reception (RFC 9110 §6.6.1).
    ///
    /// Lines that differ leave doubt, so each use takes the one that makes the response older.
    pub(super) fn of(fields: &Fields, received_at: Now) -> Self {
        let dates = || fields.values("date").filter_map(|value| date::parse(value, received_at.wall));
        Self {
            earliest: dates().min().unwrap_or(received_at.wall),
            latest: dates().max().unwrap_or(received_at.wall),
        }
    }
}

/// The explicit freshness lifetime for a shared cache: s-maxage, else max-age, else Expires minus Date
/// (RFC 9111 §4.2.1); `expires` are the fields whose Expires counts. `None` where none of the three is there.
///
/// Invalid or contradicting values are stale ones: a lifetime of zero.
pub(super) fn explicit(
    directives: &CacheControl,
    expires: Option<&Fields>,
    date: DateValue,
    received_at: Now,
) -> Option<Duration> {
    let seconds = match (directives.s_maxage, directives.max_age) {
        (Delta::Seconds(seconds), _) | (Delta::Absent, Delta::Seconds(seconds)) => u64::from(seconds),
        (Delta::Invalid, _) | (Delta::Absent, Delta::Invalid) => 0,
        (Delta::Absent, Delta::Absent) => {
            let mut lines = expires?.values("expires");
            let first = lines.next()?;
            // RFC 9111 §5.3: an invalid Expires, "0" above all, is in the past. §4.2.1: so are two that differ.
            match date::parse(first, received_at.wall) {
                Some(expires) if lines.all(|line| line == first) => {
                    u64::try_from(expires.saturating_sub(date.latest)).unwrap_or(0)
                }
                _ => 0,
            }
        }
    };
    Some(Duration::from_secs(seconds.min(u64::from(DELTA_SECONDS_MAX))))
}

/// The lifetime that is assumed where none is said: a tenth of the time since Last-Modified, at most 24 hours
/// (RFC 9111 §4.2.2). `None` without Last-Modified.
pub(super) fn heuristic(last_modified: Option<i64>, date: DateValue) -> Option<Duration> {
    let unchanged_for = u64::try_from(date.earliest.saturating_sub(last_modified?)).unwrap_or(0);
    Some(Duration::from_secs(unchanged_for / HEURISTIC_DIVISOR).min(HEURISTIC_MAX))
}

/// Whether Last-Modified is a strong validator: so much older than Date that no second change in the same second and no
/// other clock can have hidden behind it (RFC 9110 §8.8.2.2).
pub(super) fn is_strong(last_modified: i64, date: i64) -> bool {
    date.saturating_sub(last_modified) >= STRONG_AFTER_S
}

/// Last-Modified in unix seconds, where it is one valid date (RFC 9110 §8.8.2).
pub(super) fn last_modified(fields: &Fields, wall: i64) -> Option<i64> {
    date::parse(only(fields, "last-modified")?, wall)
}

/// The age that a response had when it arrived: corrected_initial_age, in the conservative of the two ways of
/// RFC 9111 §4.2.3.
pub(super) fn corrected_initial_age(
    fields: &Fields,
    date: DateValue,
    requested_at: Now,
    received_at: Now,
) -> Duration {
    let apparent_age = u64::try_from(received_at.wall.saturating_sub(date.earliest)).unwrap_or(0);
    let response_delay = received_at.boot.saturating_sub(requested_at.boot);
    let corrected_age_value = Duration::from_secs(age_value(fields)).saturating_add(response_delay);
    Duration::from_secs(apparent_age).max(corrected_age_value)
}

/// The Age field: its first list member, none if that is no non-negative integer (RFC 9111 §5.1).
fn age_value(fields: &Fields) -> u64 {
    fields.tokens("age").next().and_then(delta_seconds).map_or(0, u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: Now = Now { boot: Duration::from_secs(1000), wall: 784_111_777 };
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn seconds(pairs: &[(&str, &str)]) -> Option<u64> {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let date = DateValue::of(&fields, RECEIVED);
        let explicit = explicit(&CacheControl::of(&fields), Some(&fields), date, RECEIVED);
        explicit.map(|lifetime| lifetime.as_secs())
    }

    fn age(pairs: &[(&str, &str)], delay: u64) -> u64 {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let requested = Now { boot: RECEIVED.boot - Duration::from_secs(delay), wall: 0 };
        corrected_initial_age(&fields, DateValue::of(&fields, RECEIVED), requested, RECEIVED).as_secs()
    }

    #[test]
    fn lifetime_is_s_maxage_then_max_age_then_expires_rfc9111_4_2_1() {
        let expires = ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(seconds(&[("cache-control", "max-age=5, s-maxage=9"), expires]), Some(9));
        assert_eq!(seconds(&[("cache-control", "max-age=5"), expires]), Some(5));
        assert_eq!(seconds(&[("date", DATE), expires]), Some(60));
        assert_eq!(seconds(&[expires]), Some(60), "without Date: since reception");
        assert_eq!(seconds(&[("cache-control", "public")]), None);
    }

    #[test]
    fn doubtful_freshness_is_staleness_rfc9111_4_2_1() {
        let later = "Sun, 06 Nov 1994 09:49:37 GMT";
        for pairs in [
            &[("cache-control", "s-maxage=x, max-age=60")][..],
            &[("cache-control", "max-age=x"), ("expires", later)],
            &[("expires", "0")],
            &[("expires", "")],
            &[("expires", later), ("expires", "0")],
            &[("expires", DATE), ("date", later)],
            &[("expires", later), ("date", DATE), ("date", "Sun, 06 Nov 1994 10:49:37 GMT")],
        ] {
            assert_eq!(seconds(pairs), Some(0), "{pairs:?}");
        }
        assert_eq!(seconds(&[("expires", later), ("expires", later)]), Some(3600));
        assert_eq!(seconds(&[("expires", "Fri, 31 Dec 9999 23:59:59 GMT")]), Some(1 << 31));
    }

    #[test]
    fn a_tenth_of_the_time_since_last_modified_is_assumed_rfc9111_4_2_2() {
        for (modified, expected) in [
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(6)),
            ("Sun, 06 Nov 1994 08:49:32 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:38 GMT", Some(0)),
            ("Fri, 06 Nov 1970 08:49:37 GMT", Some(24 * 3600)),
            ("yesterday", None),
        ] {
            let fields = Fields::from_pairs([("date", DATE), ("last-modified", modified)]);
            let date = DateValue::of(&fields, RECEIVED);
            let assumed = heuristic(last_modified(&fields, RECEIVED.wall), date);
            assert_eq!(assumed.map(|lifetime| lifetime.as_secs()), expected, "{modified}");
        }
    }

    #[test]
    fn age_is_the_first_member_and_ignored_if_invalid_rfc9111_5_1() {
        for (value, expected) in [
            ("7", 7),
            ("7, 9", 7),
            ("x, 9", 0),
            ("-7", 0),
            ("7.5", 0),
            ("\"7\"", 0),
            ("7;a", 0),
            ("", 0),
            ("99999999999999999999", 1 << 31),
        ] {
            assert_eq!(age(&[("age", value), ("date", DATE)], 0), expected, "{value}");
        }
        assert_eq!(age(&[("age", "3"), ("age", "900")], 0), 3);
    }

    #[test]
    fn initial_age_is_the_greater_of_apparent_and_corrected_rfc9111_4_2_3() {
        let ten_ago = ("date", "Sun, 06 Nov 1994 08:49:27 GMT");
        assert_eq!(age(&[ten_ago], 2), 10);
        assert_eq!(age(&[ten_ago, ("age", "20")], 2), 22);
        assert_eq!(
            age(&[("date", "Sun, 06 Nov 1994 09:49:37 GMT")], 2),
            2,
            "a Date ahead is no negative age"
        );
        assert_eq!(age(&[ten_ago, ("date", DATE)], 0), 10, "of two dates, the older");
    }
}
