//! Whether a stored response answers a request (RFC 9111 §4), and the RFC 9211 word if none does.
//!
//! Which responses are stored under the request's key, and alive, is left to `store`.

use std::{cmp::Reverse, time::Duration};

use super::{
    Now, Profile, RequestView, Rules,
    cache_control::{CacheControl, Delta},
    storing::{Stored, is_pragma_no_cache},
};

/// What is to be done with a request that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The variant at `index` of those given answers it.
    Reuse {
        /// Position in the iterator of variants.
        index: usize,
        /// The response's current age (§4.2.3), to be sent in whole seconds as Age.
        age: Duration,
    },
    /// It is forwarded.
    Forward(Miss),
    /// It is answered 504: the client wants no forwarding (§5.2.1.7).
    Unsatisfiable,
}

/// Why a request that was looked up is forwarded: the `fwd` words of RFC 9211 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nothing is stored for the target.
    Uri,
    /// Nothing of what is stored was selected by such request fields.
    Vary,
    /// The selected response is not fresh.
    Stale,
    /// The selected response is fresh, but the request does not accept it.
    Request,
}

impl Miss {
    /// The word of RFC 9211 §2.2.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri-miss",
            Self::Vary => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

/// Selects among the variants stored under the request's key and judges the selected one (RFC 9111 §4).
///
/// `index` of [`Decision::Reuse`] counts `variants` as given. Allocates nothing.
pub fn decide<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = &'a Stored>,
    rules: &Rules,
    now: Now,
) -> Decision {
    let directives = CacheControl::of(request.fields);
    match reusable(request, &directives, variants, rules, now) {
        Ok((index, age)) => Decision::Reuse { index, age },
        Err(_) if directives.only_if_cached && !directives.malformed => Decision::Unsatisfiable,
        Err(miss) => Decision::Forward(miss),
    }
}

fn reusable<'a>(
    request: &RequestView<'_>,
    directives: &CacheControl,
    variants: impl Iterator<Item = &'a Stored>,
    rules: &Rules,
    now: Now,
) -> Result<(usize, Duration), Miss> {
    let (index, stored) = select(request, variants)?;
    let fresh_for = stored.fresh_for(rules, now);
    // §4.2: fresh while the lifetime exceeds the age. max-stale (§5.2.1.2) is never obeyed: it would revive what a
    // shared cache must not serve.
    if fresh_for.is_zero() {
        return Err(Miss::Stale);
    }
    let age = stored.age(now);
    if accepts(request, directives, stored, age, fresh_for, rules) {
        Ok((index, age))
    } else {
        Err(Miss::Request)
    }
}

/// The newest by Date of the matching variants, the last received of equally new ones (§4, §4.1).
fn select<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = &'a Stored>,
) -> Result<(usize, &'a Stored), Miss> {
    let mut variants = variants.enumerate().peekable();
    if variants.peek().is_none() {
        return Err(Miss::Uri);
    }
    variants
        .filter(|(_, stored)| stored.selection.matches(request.fields))
        .min_by_key(|(_, stored)| Reverse((stored.date, stored.received)))
        .ok_or(Miss::Vary)
}

fn accepts(
    request: &RequestView<'_>,
    directives: &CacheControl,
    stored: &Stored,
    age: Duration,
    fresh_for: Duration,
    rules: &Rules,
) -> bool {
    // §4: only the methods that a stored GET answers.
    if !matches!(request.method, b"GET" | b"HEAD") || directives.malformed {
        return false;
    }
    // §5.2.1.4, and §5.4 for those who know no Cache-Control.
    if directives.no_cache
        || (!request.fields.contains("cache-control") && is_pragma_no_cache(request.fields))
    {
        return false;
    }
    // §3.5 speaks of answers to authorized requests; safe also wants permission to give one that was not.
    if rules.profile == Profile::Safe
        && request.fields.contains("authorization")
        && !stored.shared_with_authorization
    {
        return false;
    }
    if rules.profile == Profile::Safe && request.fields.contains("cookie") && !stored.shared_with_cookies {
        return false;
    }
    // §5.2.1.1
    let young = match directives.max_age {
        Delta::Absent => true,
        Delta::Seconds(seconds) => age <= Duration::from_secs(u64::from(seconds)),
        Delta::Invalid => false,
    };
    // §5.2.1.3
    let lasting = match directives.min_fresh {
        Delta::Absent => true,
        Delta::Seconds(seconds) => fresh_for >= Duration::from_secs(u64::from(seconds)),
        Delta::Invalid => false,
    };
    young && lasting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http1::Fields,
        policy::{ResponseView, store},
    };

    const STORED_AT: Now = Now { boot: Duration::from_secs(1000), wall: 784_111_777 };

    fn after(seconds: u64) -> Now {
        Now { boot: STORED_AT.boot + Duration::from_secs(seconds), ..STORED_AT }
    }

    fn rules(profile: Profile) -> Rules {
        Rules { profile, resident_max: Duration::from_secs(600), ..Rules::default() }
    }

    fn stored(request: &[(&str, &str)], response: &[(&str, &str)], at: Now) -> Stored {
        let request = Fields::from_pairs([("host", "a")].iter().chain(request).copied());
        let response = Fields::from_pairs(response.iter().copied());
        let request = RequestView { method: b"GET", target: b"/", fields: &request };
        let response = ResponseView { status: 200, fields: &response, delimited_by_close: false };
        store(&request, &response, &rules(Profile::Rfc9111), at, at).unwrap()
    }

    fn ask(pairs: &[(&str, &str)], variants: &[Stored], profile: Profile, now: Now) -> Decision {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let request = RequestView { method: b"GET", target: b"/", fields: &fields };
        decide(&request, variants.iter(), &rules(profile), now)
    }

    fn reuse(index: usize, seconds: u64) -> Decision {
        Decision::Reuse { index, age: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_response_is_fresh_while_its_lifetime_exceeds_its_age_rfc9111_4_2() {
        let variants = [stored(&[], &[("cache-control", "max-age=60"), ("age", "10")], STORED_AT)];
        let ask = |now| ask(&[], &variants, Profile::Safe, now);
        assert_eq!(ask(after(0)), reuse(0, 10));
        assert_eq!(ask(after(49)), reuse(0, 59));
        assert_eq!(ask(after(50)), Decision::Forward(Miss::Stale));
        let clock_stepped = Now { wall: STORED_AT.wall + 3600, ..after(5) };
        assert_eq!(ask(clock_stepped), reuse(0, 15), "a step of the wall clock changes no freshness");
    }

    #[test]
    fn nothing_is_reused_beyond_its_resident_time() {
        let variants = [stored(&[], &[("cache-control", "max-age=9999")], STORED_AT)];
        assert_eq!(ask(&[], &variants, Profile::Rfc9111, after(599)), reuse(0, 599));
        assert_eq!(ask(&[], &variants, Profile::Rfc9111, after(600)), Decision::Forward(Miss::Stale));
    }

    #[test]
    fn request_directives_only_ever_refuse_rfc9111_5_2_1() {
        let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
        let ten_later = |pair| ask(&[pair], &variants, Profile::Rfc9111, after(10));
        for (value, expected) in [
            ("max-age=10", reuse(0, 10)),
            ("max-age=9", Decision::Forward(Miss::Request)),
            ("max-age=0", Decision::Forward(Miss::Request)),
            ("max-age=x", Decision::Forward(Miss::Request)),
            ("min-fresh=50", reuse(0, 10)),
            ("min-fresh=51", Decision::Forward(Miss::Request)),
            ("NO-CACHE", Decision::Forward(Miss::Request)),
            ("x=\"", Decision::Forward(Miss::Request)),
            ("max-stale=100", reuse(0, 10)),
            ("only-if-cached", reuse(0, 10)),
            ("only-if-cached, no-cache", Decision::Unsatisfiable),
        ] {
            assert_eq!(ten_later(("Cache-Control", value)), expected, "{value}");
        }
        assert_eq!(ten_later(("Pragma", "no-cache")), Decision::Forward(Miss::Request));
        let both = [("pragma", "no-cache"), ("cache-control", "x")];
        assert_eq!(
            ask(&both, &variants, Profile::Safe, after(1)),
            reuse(0, 1),
            "§5.4: Cache-Control decides"
        );
    }

    #[test]
    fn max_stale_revives_nothing_rfc9111_5_2_1_2() {
        let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
        for value in ["max-stale", "max-stale=1000"] {
            let asked = ask(&[("cache-control", value)], &variants, Profile::Rfc9111, after(61));
            assert_eq!(asked, Decision::Forward(Miss::Stale));
        }
    }

    #[test]
    fn only_if_cached_without_a_usable_response_is_unsatisfiable_rfc9111_5_2_1_7() {
        let only = [("cache-control", "only-if-cached")];
        assert_eq!(ask(&only, &[], Profile::Safe, after(0)), Decision::Unsatisfiable);
        let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
        assert_eq!(ask(&only, &variants, Profile::Safe, after(60)), Decision::Unsatisfiable);
    }

    #[test]
    fn the_newest_matching_variant_is_selected_rfc9111_4_1() {
        let fresh = ("cache-control", "max-age=600");
        let variant = |value, date| {
            stored(&[("accept", value)], &[fresh, ("vary", "Accept"), ("date", date)], STORED_AT)
        };
        let variants = [
            variant("a", "Sun, 06 Nov 1994 08:49:30 GMT"),
            variant("b", "Sun, 06 Nov 1994 08:49:36 GMT"),
            stored(&[], &[fresh, ("date", "Sun, 06 Nov 1994 08:49:31 GMT")], STORED_AT),
        ];
        let ask = |value| ask(&[("accept", value)], &variants, Profile::Safe, after(0));
        assert_eq!(ask("b"), reuse(1, 1));
        assert_eq!(ask("a"), reuse(2, 6), "a newer one without Vary matches everything");
        assert_eq!(ask("c"), reuse(2, 6));
        let asked = self::ask(&[], &variants[..2], Profile::Safe, after(0));
        assert_eq!(asked, Decision::Forward(Miss::Vary));
    }

    #[test]
    fn of_equally_new_variants_the_last_received_is_selected() {
        let fields = [("cache-control", "max-age=600"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        let variants = [stored(&[], &fields, after(5)), stored(&[], &fields, after(1))];
        assert_eq!(ask(&[], &variants, Profile::Safe, after(6)), reuse(0, 1));
    }

    #[test]
    fn authorized_requests_want_permission_in_safe_rfc9111_3_5() {
        let private = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
        let public = [stored(&[], &[("cache-control", "public, max-age=60")], STORED_AT)];
        let authorized = [("Authorization", "x")];
        let ask = |variants, profile| ask(&authorized, variants, profile, after(0));
        assert_eq!(ask(&private, Profile::Safe), Decision::Forward(Miss::Request));
        assert_eq!(ask(&public, Profile::Safe), reuse(0, 0));
        assert_eq!(ask(&private, Profile::Rfc9111), reuse(0, 0));
    }

    #[test]
    fn requests_with_cookies_want_permission_in_safe() {
        let plain = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
        let public = [stored(&[], &[("cache-control", "public, max-age=60")], STORED_AT)];
        let ask = |variants, profile| ask(&[("Cookie", "a=b")], variants, profile, after(0));
        assert_eq!(ask(&plain, Profile::Safe), Decision::Forward(Miss::Request));
        assert_eq!(ask(&public, Profile::Safe), reuse(0, 0));
        assert_eq!(ask(&plain, Profile::Rfc9111), reuse(0, 0));
    }

    #[test]
    fn only_get_and_head_are_answered_from_a_stored_get_rfc9111_4() {
        let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
        let fields = Fields::default();
        for (method, expected) in [("HEAD", reuse(0, 0)), ("POST", Decision::Forward(Miss::Request))] {
            let request = RequestView { method: method.as_bytes(), target: b"/", fields: &fields };
            assert_eq!(decide(&request, variants.iter(), &rules(Profile::Safe), STORED_AT), expected);
        }
    }
}
