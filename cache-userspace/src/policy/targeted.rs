//! Targeted cache control (RFC 9213): response directives meant for this cache, as structured fields.
//!
//! Whether they replace Cache-Control and Expires (§2.2) or may only make this cache stricter is left to `control`.

use sfv::{BareItem, Dictionary, ListEntry};

use super::{
    cache_control::{CacheControl, DELTA_SECONDS_MAX, Delta},
    structured,
};
use crate::http1::Fields;

/// The target list: the fields that speak to this cache, the most specific first (RFC 9213 §2.2).
const TARGETS: [&str; 2] = ["sidestep-cache-control", "cdn-cache-control"];

/// What the targeted fields of a response say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targeted {
    /// There is none.
    Absent,
    /// There is one, but none that is valid and not empty: RFC 9213 §2.1 has them ignored.
    Unusable,
    /// The directives of the first one that is valid and not empty (RFC 9213 §2.2).
    Given(CacheControl),
}

/// Reads the targeted fields of a response.
pub fn targeted(fields: &Fields) -> Targeted {
    let mut found = Targeted::Absent;
    for name in TARGETS.iter().filter(|name| fields.contains(name)) {
        match structured::dictionary(fields, name) {
            Some(directives) if !directives.is_empty() => return Targeted::Given(read(&directives)),
            _ => found = Targeted::Unusable,
        }
    }
    found
}

/// RFC 9213 §2.1: values of a type that the directive does not have are not consumed. So a number that is none is
/// invalid, and what permits must be exactly true; what forbids counts whatever its value is.
fn read(directives: &Dictionary) -> CacheControl {
    let forbids = |name: &str| directives.contains_key(name);
    CacheControl {
        no_store: forbids("no-store"),
        no_cache: forbids("no-cache"),
        private: forbids("private"),
        public: is_true(directives, "public"),
        // It permits as well (RFC 9111 §3.5); for what it forbids its companion does.
        must_revalidate: is_true(directives, "must-revalidate"),
        proxy_revalidate: forbids("must-revalidate") || forbids("proxy-revalidate"),
        must_understand: forbids("must-understand"),
        // It lifts no-store (RFC 9111 §5.2.2.3), and forbids what is not understood: with another value it is neither.
        malformed: forbids("must-understand") && !is_true(directives, "must-understand"),
        immutable: is_true(directives, "immutable"),
        max_age: seconds(directives, "max-age"),
        s_maxage: seconds(directives, "s-maxage"),
        stale_while_revalidate: seconds(directives, "stale-while-revalidate"),
        stale_if_error: seconds(directives, "stale-if-error"),
        ..CacheControl::default()
    }
}

fn is_true(directives: &Dictionary, name: &str) -> bool {
    value(directives, name) == Some(&BareItem::Boolean(true))
}

fn seconds(directives: &Dictionary, name: &str) -> Delta {
    if !directives.contains_key(name) {
        return Delta::Absent;
    }
    let Some(BareItem::Integer(number)) = value(directives, name) else { return Delta::Invalid };
    // RFC 9111 §1.2.2: no sign, and no more than can be told apart.
    u64::try_from(*number).map_or(Delta::Invalid, |number| {
        Delta::Seconds(
            u32::try_from(number).map_or(DELTA_SECONDS_MAX, |number| number.min(DELTA_SECONDS_MAX)),
        )
    })
}

/// A directive's value without its parameters (RFC 9213 §2.1: ignored); `None` also for an Inner List.
fn value<'a>(directives: &'a Dictionary, name: &str) -> Option<&'a BareItem> {
    match directives.get(name)? {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Targeted {
        targeted(&Fields::from_pairs(pairs.iter().copied()))
    }

    fn of_cdn(value: &str) -> Targeted {
        read(&[("CDN-Cache-Control", value)])
    }

    fn given(value: &str) -> CacheControl {
        match of_cdn(value) {
            Targeted::Given(directives) => directives,
            other => panic!("{value}: {other:?}"),
        }
    }

    fn max_age(seconds: u32) -> Targeted {
        Targeted::Given(CacheControl { max_age: Delta::Seconds(seconds), ..CacheControl::default() })
    }

    #[test]
    fn the_first_valid_field_of_the_target_list_counts_rfc9213_2_2() {
        let (ours, cdns) = ("Sidestep-Cache-Control", "CDN-Cache-Control");
        for (pairs, expected) in [
            (&[][..], Targeted::Absent),
            (&[("Cache-Control", "max-age=1")], Targeted::Absent),
            (&[("Other-Cache-Control", "max-age=1")], Targeted::Absent),
            (&[(cdns, "max-age=2")], max_age(2)),
            (&[(cdns, "max-age=2"), (ours, "max-age=3")], max_age(3)),
            (&[(ours, ""), (cdns, "max-age=2")], max_age(2)),
            (&[(ours, "max-age=3,"), (cdns, "max-age=2")], max_age(2)),
            (&[(ours, "&"), (cdns, "")], Targeted::Unusable),
            (&[(cdns, "no-store=?0x"), ("cache-control", "max-age=1")], Targeted::Unusable),
        ] {
            assert_eq!(read(pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_field_that_is_no_dictionary_is_ignored_rfc9213_2_1() {
        for value in [
            "",
            " ",
            "max-age=60,",
            "Max-Age=60",
            "NO-STORE",
            "max-age=60 no-store",
            "max-age=",
            "a=\"",
            "max-age=60s",
            "=1",
        ] {
            assert_eq!(of_cdn(value), Targeted::Unusable, "{value}");
        }
    }

    #[test]
    fn directives_are_read_by_their_types_rfc9213_2_1() {
        for (value, expected) in [
            ("max-age=60", Delta::Seconds(60)),
            ("max-age=060", Delta::Seconds(60)),
            ("max-age=60;x=1;y", Delta::Seconds(60)),
            ("max-age=60;x=\"no-store, private\"", Delta::Seconds(60)),
            // RFC 9651 §3.2: of members with the same key the last counts.
            ("max-age=1, max-age=60", Delta::Seconds(60)),
            ("max-age=999999999999999", Delta::Seconds(DELTA_SECONDS_MAX)),
            ("max-age=4294967297", Delta::Seconds(DELTA_SECONDS_MAX)),
            ("max-age=\"60\"", Delta::Invalid),
            ("max-age=60.5", Delta::Invalid),
            ("max-age=-60", Delta::Invalid),
            ("max-age=a60", Delta::Invalid),
            ("max-age=(60)", Delta::Invalid),
            ("max-age", Delta::Invalid),
            ("none", Delta::Absent),
        ] {
            assert_eq!(given(value).max_age, expected, "{value}");
        }
        assert_eq!(given("s-maxage=7").s_maxage, Delta::Seconds(7));
        assert!(given("public").public && given("public;x").public);
        for value in ["public=?0", "public=1", "public=\"a\"", "public=()"] {
            assert!(!given(value).public, "{value}");
        }
    }

    #[test]
    fn what_forbids_counts_whatever_its_value_is() {
        for value in ["", "=?0", "=\"set-cookie\"", "=1", "=token", "=(a b)"] {
            let read =
                given(&format!("no-store{value}, no-cache{value}, private{value}, must-revalidate{value}"));
            assert!(read.no_store && read.no_cache && read.private && read.proxy_revalidate, "{value}");
            assert_eq!(read.must_revalidate, value.is_empty(), "it permits: {value}");
        }
    }

    #[test]
    fn unknown_directives_are_ignored_and_lines_are_one_dictionary() {
        let pairs =
            [("cdn-cache-control", "x=\"no-store\", y=(private)"), ("CDN-Cache-Control", "max-age=5")];
        assert_eq!(read(&pairs), max_age(5));
    }
}
