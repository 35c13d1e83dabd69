//! When a stale response may be given (RFC 9111 §4.2.4, RFC 5861).
//!
//! How long an origin server may take before it is late is left to the caller. Nothing is given beyond
//! [`Rules::resident_max`] without contact to the destination: who answers at its address by then is not known.

use std::time::Duration;

use super::{
    Now, Profile, RequestView, Rules, Stored,
    cache_control::CacheControl,
    decide::{accepts, is_for},
};

/// What kept the origin server's answer from coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It cannot be reached, or broke off before its answer (RFC 9111 §4.2.4: disconnected).
    Disconnected,
    /// It answered with this status: 500, 502, 503 or 504 are errors in the sense of RFC 5861 §4, others are answers.
    Error(u16),
    /// It has not answered yet.
    Late,
}

/// What may be done with a stored response instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleVerdict {
    /// It answers the request.
    Reuse {
        /// Its current age (§4.2.3), to be sent in whole seconds as Age.
        age: Duration,
    },
    /// It must not be given stale, and that is an error of ours: 504 (§5.2.2.2).
    GatewayTimeout,
    /// The client sees what it would have seen without us.
    Pass,
}

/// Judges the stored response that was selected for a request whose forward failed or is late (§4.2.4).
pub fn stale(
    request: &RequestView<'_>,
    stored: &Stored,
    rules: &Rules,
    now: Now,
    cause: Cause,
) -> StaleVerdict {
    let (age, fresh_for) = (stored.age(now), stored.fresh_for(rules, now));
    let directives = CacheControl::of(request.fields);
    let is_acceptable = stored.refused.is_none()
        && is_for(request, stored, rules)
        && accepts(request, &directives, age, fresh_for);
    // Not where only its stay here is over: then nothing is known of it, and nothing is forbidden.
    let is_stale = stored.no_cache || age >= stored.lifetime;
    if is_stale && stored.is_never_stale() {
        // §5.2.2.2, §5.2.2.8, §5.2.2.10: "MUST NOT reuse"; only without any answer is there an error to be made.
        return match cause {
            Cause::Disconnected => StaleVerdict::GatewayTimeout,
            Cause::Error(_) | Cause::Late => StaleVerdict::Pass,
        };
    }
    let is_allowed = !fresh_for.is_zero() || stored.may_be_stale(rules, now, cause);
    if is_acceptable && is_allowed { StaleVerdict::Reuse { age } } else { StaleVerdict::Pass }
}

impl Stored {
    /// Whether it may be given at once and validated afterwards (RFC 5861 §3).
    pub(super) fn may_be_revalidated_behind(&self, rules: &Rules, now: Now) -> bool {
        let window = self.stale_while_revalidate.or(rules.stale_while_revalidate);
        !self.is_never_stale() && self.is_stale_within(window, rules, now)
    }

    fn may_be_stale(&self, rules: &Rules, now: Now, cause: Cause) -> bool {
        let if_error = self.is_stale_within(self.stale_if_error.or(rules.stale_if_error), rules, now);
        match cause {
            // §4.2.4 allows it; safe wants it said.
            Cause::Disconnected => {
                if_error || (rules.profile == Profile::Rfc9111 && self.is_known_here(rules, now))
            }
            // RFC 5861 §4
            Cause::Error(500 | 502 | 503 | 504) => if_error,
            Cause::Error(_) => false,
            Cause::Late => {
                let by_policy = rules.stale_after && self.is_known_here(rules, now);
                if_error || by_policy || self.may_be_revalidated_behind(rules, now)
            }
        }
    }

    /// Whether the response forbids to be given stale, whatever others allow (§4.2.4).
    fn is_never_stale(&self) -> bool {
        self.must_revalidate || self.no_cache
    }

    /// Whether it became stale less than so long ago.
    fn is_stale_within(&self, window: Option<Duration>, rules: &Rules, now: Now) -> bool {
        let stale_for = self.age(now).saturating_sub(self.lifetime);
        window.is_some_and(|window| stale_for < window) && self.is_known_here(rules, now)
    }

    fn is_known_here(&self, rules: &Rules, now: Now) -> bool {
        self.resident(now) < rules.resident_max
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{Pairs, STORED_AT, after, fields, get, rules, stored},
        *,
    };
    use Cause::{Disconnected, Error, Late};
    use StaleVerdict::{GatewayTimeout, Pass};

    const TAG: (&str, &str) = ("etag", "\"a\"");

    fn response(control: &str) -> Stored {
        stored(&[], &[("cache-control", control), TAG], STORED_AT)
    }

    fn judge(asked: Pairs<'_>, control: &str, rules: &Rules, seconds: u64, cause: Cause) -> StaleVerdict {
        let fields = fields(asked);
        stale(&get(&fields), &response(control), rules, after(seconds), cause)
    }

    fn reuse(seconds: u64) -> StaleVerdict {
        StaleVerdict::Reuse { age: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_stale_response_is_given_only_where_it_is_allowed_rfc9111_4_2_4_rfc5861() {
        let (safe, whole) = (rules(Profile::Safe), rules(Profile::Rfc9111));
        let late = Rules { stale_after: true, ..safe.clone() };
        let errors = Rules { stale_if_error: Some(Duration::from_secs(30)), ..safe.clone() };
        let behind = Rules { stale_while_revalidate: Some(Duration::from_secs(30)), ..safe.clone() };
        for (control, rules, seconds, cause, expected) in [
            ("max-age=60", &safe, 61, Disconnected, Pass),
            ("max-age=60", &safe, 61, Error(503), Pass),
            ("max-age=60", &safe, 61, Late, Pass),
            ("max-age=60", &whole, 61, Disconnected, reuse(61)),
            ("max-age=60", &whole, 5999, Disconnected, reuse(5999)),
            ("max-age=60", &whole, 6000, Disconnected, Pass),
            ("max-age=60", &whole, 61, Error(503), Pass),
            ("max-age=60", &whole, 61, Late, Pass),
            ("max-age=60, stale-if-error=30", &safe, 89, Disconnected, reuse(89)),
            ("max-age=60, stale-if-error=30", &safe, 90, Disconnected, Pass),
            ("max-age=60, stale-if-error=30", &safe, 89, Error(500), reuse(89)),
            ("max-age=60, stale-if-error=30", &safe, 89, Error(502), reuse(89)),
            ("max-age=60, stale-if-error=30", &safe, 89, Error(504), reuse(89)),
            ("max-age=60, stale-if-error=30", &safe, 89, Error(501), Pass),
            ("max-age=60, stale-if-error=30", &safe, 89, Error(404), Pass),
            ("max-age=60, stale-if-error=30", &safe, 90, Error(500), Pass),
            ("max-age=60, stale-if-error=30", &safe, 89, Late, reuse(89)),
            ("max-age=60, stale-while-revalidate=30", &safe, 89, Late, reuse(89)),
            ("max-age=60, stale-while-revalidate=30", &safe, 90, Late, Pass),
            ("max-age=60, stale-while-revalidate=30", &safe, 89, Error(503), Pass),
            ("max-age=60", &errors, 89, Error(503), reuse(89)),
            ("max-age=60", &errors, 90, Error(503), Pass),
            ("max-age=60, stale-if-error=0", &errors, 61, Error(503), Pass),
            ("max-age=60", &behind, 89, Late, reuse(89)),
            ("max-age=60", &late, 5999, Late, reuse(5999)),
            ("max-age=60", &late, 6000, Late, Pass),
            ("max-age=60", &late, 61, Disconnected, Pass),
        ] {
            assert_eq!(
                judge(&[], control, rules, seconds, cause),
                expected,
                "{control}, {seconds}, {cause:?}"
            );
        }
    }

    #[test]
    fn what_forbids_staleness_is_obeyed_whatever_allows_it_rfc9111_5_2_2_2() {
        let all = |profile| Rules {
            stale_while_revalidate: Some(Duration::from_secs(300)),
            stale_if_error: Some(Duration::from_secs(300)),
            stale_after: true,
            ..rules(profile)
        };
        for control in [
            "max-age=60, must-revalidate, stale-if-error=99, stale-while-revalidate=99",
            "max-age=60, Proxy-Revalidate, stale-if-error=99, stale-while-revalidate=99",
            "s-maxage=60, stale-if-error=99, stale-while-revalidate=99",
            "max-age=60, s-maxage=x",
            "max-age=60, no-cache, stale-if-error=99",
            "max-age=60, no-cache=\"set-cookie\"",
        ] {
            for rules in [all(Profile::Safe), all(Profile::Rfc9111)] {
                let judge = |cause| judge(&[], control, &rules, 61, cause);
                assert_eq!(judge(Disconnected), GatewayTimeout, "{control}");
                assert_eq!(judge(Error(503)), Pass, "{control}");
                assert_eq!(judge(Late), Pass, "{control}");
                assert!(!response(control).may_be_revalidated_behind(&rules, after(61)), "{control}");
            }
        }
    }

    #[test]
    fn what_the_request_wants_is_obeyed_rfc9111_5_2_1() {
        let control = "max-age=60, stale-if-error=99";
        for (pair, expected) in [
            (("cache-control", "no-cache"), Pass),
            (("cache-control", "max-age=60"), Pass),
            (("cache-control", "max-age=61"), reuse(61)),
            (("cache-control", "min-fresh=1"), Pass),
            (("cache-control", "x=\""), Pass),
            (("pragma", "no-cache"), Pass),
            (("cookie", "a=b"), Pass),
            (("authorization", "x"), Pass),
            (("cache-control", "stale-if-error=0"), reuse(61)),
        ] {
            assert_eq!(
                judge(&[pair], control, &rules(Profile::Safe), 61, Disconnected),
                expected,
                "{pair:?}"
            );
        }
        let allowed = judge(
            &[("cache-control", "stale-if-error=99")],
            "max-age=60",
            &rules(Profile::Safe),
            61,
            Disconnected,
        );
        assert_eq!(allowed, Pass, "a client cannot allow what is not its own");
    }

    #[test]
    fn a_fresh_response_that_the_client_wanted_validated_is_not_forced_on_it() {
        let safe = rules(Profile::Safe);
        let asked = [("cache-control", "no-cache")];
        assert_eq!(judge(&asked, "max-age=60, must-revalidate", &safe, 1, Disconnected), Pass);
        assert_eq!(judge(&[], "max-age=60, must-revalidate", &safe, 1, Disconnected), reuse(1));
        let stayed_too_long = judge(&[], "max-age=9999, must-revalidate", &safe, 6000, Disconnected);
        assert_eq!(stayed_too_long, Pass);
    }
}
