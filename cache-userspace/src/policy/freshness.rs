//! Freshness lifetime and initial age of a response (RFC 9111 §4.2.1, §4.2.3).
//!
//! Computed once when a response is stored; `decide` only adds resident time. No heuristics: a response without
//! explicit freshness is refused by `storing`.

use std::time::Duration;

use super::{
    Now, Reason,
    cache_control::{CacheControl, DELTA_SECONDS_MAX, Delta, delta_seconds},
    date,
};
use crate::http1::Fields;

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

/// The freshness lifetime of a shared cache: s-maxage, else max-age, else Expires minus Date (RFC 9111 §4.2.1).
///
/// Invalid or contradicting values are stale ones: a lifetime of zero. None of the three is `no-freshness`.
pub(super) fn lifetime(
    directives: &CacheControl,
    fields: &Fields,
    date: DateValue,
    received_at: Now,
) -> Result<Duration, Reason> {
    let seconds = match (directives.s_maxage, directives.max_age) {
        (Delta::Seconds(seconds), _) | (Delta::Absent, Delta::Seconds(seconds)) => u64::from(seconds),
        (Delta::Invalid, _) | (Delta::Absent, Delta::Invalid) => 0,
        (Delta::Absent, Delta::Absent) => {
            let mut lines = fields.values("expires");
            let first = lines.next().ok_or(Reason::NoFreshness)?;
            // RFC 9111 §5.3: an invalid Expires, "0" above all, is in the past. §4.2.1: so are two that differ.
            match date::parse(first, received_at.wall) {
                Some(expires) if lines.all(|line| line == first) => {
                    u64::try_from(expires.saturating_sub(date.latest)).unwrap_or(0)
                }
                _ => 0,
            }
        }
    };
    Ok(Duration::from_secs(seconds.min(u64::from(DELTA_SECONDS_MAX))))
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

    fn seconds(pairs: &[(&str, &str)]) -> Result<u64, Reason> {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let date = DateValue::of(&fields, RECEIVED);
        lifetime(&CacheControl::of(&fields), &fields, date, RECEIVED).map(|lifetime| lifetime.as_secs())
    }

    fn age(pairs: &[(&str, &str)], delay: u64) -> u64 {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let requested = Now { boot: RECEIVED.boot - Duration::from_secs(delay), wall: 0 };
        corrected_initial_age(&fields, DateValue::of(&fields, RECEIVED), requested, RECEIVED).as_secs()
    }

    #[test]
    fn lifetime_is_s_maxage_then_max_age_then_expires_rfc9111_4_2_1() {
        let expires = ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(seconds(&[("cache-control", "max-age=5, s-maxage=9"), expires]), Ok(9));
        assert_eq!(seconds(&[("cache-control", "max-age=5"), expires]), Ok(5));
        assert_eq!(seconds(&[("date", DATE), expires]), Ok(60));
        assert_eq!(seconds(&[expires]), Ok(60), "without Date: since reception");
        assert_eq!(seconds(&[("cache-control", "public")]), Err(Reason::NoFreshness));
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
            assert_eq!(seconds(pairs), Ok(0), "{pairs:?}");
        }
        assert_eq!(seconds(&[("expires", later), ("expires", later)]), Ok(3600));
        assert_eq!(seconds(&[("expires", "Fri, 31 Dec 9999 23:59:59 GMT")]), Ok(1 << 31));
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
