//! Whether a response may be stored (RFC 9111 §3) and what is kept of it.
//!
//! Its content is left to `store`, its look-up to `decide`.

use std::time::Duration;

use super::{
    Eligibility, Now, Part, Profile, Reason, RequestView, ResponseView, Rules, Stored,
    control::{Control, window},
    eligible,
    entity_tag::{entity_tag, is_weak},
    freshness::{self, DateValue},
    kept::kept,
    range, status,
    vary::Selection,
};
use crate::http1::Fields;

/// Judges a complete exchange and computes what is to be kept (RFC 9111 §3, §3.5, §4.2.1–§4.2.3).
///
/// The request is the one that was forwarded, as the client sent it. Where the result has a `part`, the content must
/// have exactly its bytes.
pub fn store(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    rules: &Rules,
    requested_at: Now,
    received_at: Now,
) -> Result<Stored, Reason> {
    if request.method != b"GET" {
        return Err(Reason::Method);
    }
    // RFC 9111 §5.2.1.5, and: what may not be looked up has no business in the store.
    if let Eligibility::Bypass(reason) = eligible(request, rules) {
        return Err(reason);
    }
    let arrival = Arrival::of(request, response.fields, rules, requested_at, received_at);
    let part = arrival.part(response)?;
    complete(request, response, part, rules)?;
    arrival.judge(response.status, part, response.fields, Purpose::New)
}

/// What an arriving response is judged for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be stored: it must be of use there.
    New,
    /// To update what is stored.
    Update,
}

/// A response that arrives: who asked for it, when, and how old it is.
pub(super) struct Arrival<'a> {
    pub(super) request: &'a RequestView<'a>,
    pub(super) rules: &'a Rules,
    pub(super) date: DateValue,
    pub(super) age: Duration,
    pub(super) received_at: Now,
}

impl<'a> Arrival<'a> {
    /// Reads Date and Age off the fields as they arrived (§4.2.3).
    pub(super) fn of(
        request: &'a RequestView<'a>,
        fields: &Fields,
        rules: &'a Rules,
        requested_at: Now,
        received_at: Now,
    ) -> Self {
        let date = DateValue::of(fields, received_at);
        let age = freshness::corrected_initial_age(fields, date, requested_at, received_at);
        Self { request, rules, date, age, received_at }
    }

    /// Judges a stored response to be: of the fields that arrived, or of those that they updated.
    pub(super) fn judge(
        &self,
        status: u16,
        part: Option<Part>,
        fields: &Fields,
        purpose: Purpose,
    ) -> Result<Stored, Reason> {
        let control = Control::of(fields, self.rules, self.date, self.received_at);
        self.permitted(status, fields, &control)?;
        let selection = Selection::of(fields, self.request.fields, self.rules.profile)?;
        let last_modified = freshness::last_modified(fields, self.received_at.wall);
        let guess = || self.guess(status, &control, last_modified);
        let lifetime = control.explicit.or_else(|| self.negative(status)).or_else(guess);
        if purpose == Purpose::New {
            let has_validator = last_modified.is_some() || entity_tag(fields).is_some();
            self.useful(status, &control, lifetime, has_validator)?;
        }
        Ok(Stored {
            status,
            fields: kept(fields, self.date.earliest),
            selection,
            lifetime: lifetime.unwrap_or_default(),
            is_heuristic: control.explicit.is_none() && lifetime.is_some(),
            corrected_initial_age: self.age,
            received: self.received_at.boot,
            date: self.date.earliest,
            last_modified,
            shared_with_authorization: control.shares(),
            shared_with_cookies: control.is_for_everybody(),
            must_revalidate: control.must_revalidate(),
            no_cache: control.directives.no_cache,
            immutable: control.directives.immutable,
            stale_while_revalidate: window(control.directives.stale_while_revalidate),
            stale_if_error: window(control.directives.stale_if_error),
            part,
            refused: None,
        })
    }

    /// The lifetime that policy gives to errors that say nothing about freshness.
    fn negative(&self, status: u16) -> Option<Duration> {
        negative(self.rules, status)
    }

    /// The heuristic lifetime (§4.2.2), where it may be used: never in `safe`.
    fn guess(&self, status: u16, control: &Control, last_modified: Option<i64>) -> Option<Duration> {
        let is_allowed = self.rules.profile == Profile::Rfc9111
            && (status::is_heuristically_cacheable(status) || control.directives.public);
        is_allowed.then(|| freshness::heuristic(last_modified, self.date)).flatten()
    }

    /// What the response's directives and the request's credentials allow a shared cache.
    fn permitted(&self, status: u16, fields: &Fields, control: &Control) -> Result<(), Reason> {
        let directives = &control.directives;
        let safe = self.rules.profile == Profile::Safe;
        // §5.2.2.3: who understands the status ignores no-store beside must-understand; not doing so is always allowed.
        let must_understand = directives.must_understand && !safe;
        if directives.no_store && !(must_understand && status::is_understood(status)) {
            return Err(Reason::ResponseNoStore);
        }
        // §3
        if directives.must_understand && !status::is_understood(status) {
            return Err(Reason::Status);
        }
        if directives.private {
            return Err(Reason::Private);
        }
        if directives.malformed {
            return Err(Reason::Malformed);
        }
        // §3.5
        if is_authorized(self.request) && !control.shares() {
            return Err(Reason::Authorization);
        }
        // §7.3 leaves it to the origin server; safe wants to see that it thought of it.
        if safe && has_set_cookie(fields) && !control.is_for_everybody() {
            return Err(Reason::SetCookie);
        }
        // Applications answer by cookie and forget Vary; behind a gateway that would be one user's page for another.
        if safe && self.request.fields.contains("cookie") && !control.is_for_everybody() {
            return Err(Reason::Cookie);
        }
        Ok(())
    }

    /// Whether it could ever be used: fresh now, or later by validation (§3, last condition; §4.3).
    fn useful(
        &self,
        status: u16,
        control: &Control,
        lifetime: Option<Duration>,
        has_validator: bool,
    ) -> Result<(), Reason> {
        let Some(lifetime) = lifetime else {
            // §3: neither explicit freshness, nor public, nor a status that is cacheable without. In safe a response
            // that says nothing at all about caching is left alone: its validator may be one for several users.
            let is_allowed = if self.rules.profile == Profile::Safe {
                control.is_explicit
            } else {
                control.directives.public || status::is_heuristically_cacheable(status)
            };
            return if is_allowed && has_validator { Ok(()) } else { Err(Reason::NoFreshness) };
        };
        match has_validator {
            true => Ok(()),
            false if control.directives.no_cache => Err(Reason::ResponseNoCache),
            false if lifetime <= self.age => Err(Reason::Expired),
            false => Ok(()),
        }
    }

    /// The part that a 206 is (§3.3): of known complete length and with a strong validator, so that it can be told
    /// what it is a part of (§3.4).
    fn part(&self, response: &ResponseView<'_>) -> Result<Option<Part>, Reason> {
        let mut lines = response.fields.values("content-range");
        let (line, other) = (lines.next(), lines.next());
        if response.status != 206 {
            return if line.is_none() { Ok(None) } else { Err(Reason::Partial) };
        }
        let range = line.filter(|_| other.is_none()).and_then(range::content_range).ok_or(Reason::Partial)?;
        let complete = range.complete.ok_or(Reason::Partial)?;
        if !self.request.fields.contains("range") || !self.has_strong_validator(response.fields) {
            return Err(Reason::Partial);
        }
        let part = Part { first: range.span.first, last: range.span.last, complete };
        let mut lengths = response.fields.values("content-length").map(length);
        if lengths.any(|bytes| bytes != Some(part.span().bytes())) {
            return Err(Reason::Partial);
        }
        Ok(Some(part))
    }

    /// RFC 9110 §8.8.1, §8.8.2.2
    fn has_strong_validator(&self, fields: &Fields) -> bool {
        let modified = freshness::last_modified(fields, self.received_at.wall);
        match entity_tag(fields) {
            Some(tag) => !is_weak(tag),
            None => modified.is_some_and(|modified| freshness::is_strong(modified, self.date.earliest)),
        }
    }
}

/// Whether the response is one whose status and framing allow storing (RFC 9111 §3, §3.3).
fn complete(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    part: Option<Part>,
    rules: &Rules,
) -> Result<(), Reason> {
    let is_allowed = match rules.profile {
        Profile::Safe => status::is_common(response.status) || negative(rules, response.status).is_some(),
        Profile::Rfc9111 => true,
    };
    if part.is_none() && !(status::is_storable(response.status) && is_allowed) {
        return Err(Reason::Status);
    }
    // An error may be about the range, which is no part of the key.
    if part.is_none() && response.status != 200 && request.fields.contains("range") {
        return Err(Reason::Status);
    }
    if response.delimited_by_close && rules.profile == Profile::Safe {
        return Err(Reason::DelimitedByClose);
    }
    let is_too_large = |value: &[u8]| length(value).is_some_and(|bytes| bytes > rules.object_bytes_max);
    if response.fields.values("content-length").any(is_too_large) {
        return Err(Reason::TooLarge);
    }
    Ok(())
}

fn negative(rules: &Rules, status: u16) -> Option<Duration> {
    let is_error = (400..600).contains(&status);
    rules.negative.iter().find(|(of, _)| is_error && *of == status).map(|(_, lifetime)| *lifetime)
}

/// Whether the request was authorized, by the origin server's means or a proxy's (RFC 9110 §11).
pub(super) fn is_authorized(request: &RequestView<'_>) -> bool {
    request.fields.contains("authorization") || request.fields.contains("proxy-authorization")
}

fn has_set_cookie(fields: &Fields) -> bool {
    fields.contains("set-cookie") || fields.contains("set-cookie2")
}

pub(super) fn length(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: Now = Now { boot: Duration::from_secs(1000), wall: 784_111_777 };

    fn judge(
        profile: Profile,
        request: &[(&str, &str)],
        status: u16,
        response: &[(&str, &str)],
    ) -> Result<Stored, Reason> {
        let request = Fields::from_pairs([("host", "a")].iter().chain(request).copied());
        let fields = Fields::from_pairs(response.iter().copied());
        let request = RequestView { method: b"GET", target: b"/", fields: &request };
        let response = ResponseView { status, fields: &fields, delimited_by_close: false };
        store(&request, &response, &Rules { profile, ..Rules::default() }, RECEIVED, RECEIVED)
    }

    #[test]
    fn responses_are_stored_or_refused_by_their_clause() {
        use Reason as R;
        const FRESH: &str = "max-age=60";
        const TAG: (&str, &str) = ("etag", "\"a\"");
        const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<Reason>, Option<Reason>);
        // response fields; refused in safe; refused in rfc9111
        let rows: &[Row<'_>] = &[
            (&[("cache-control", FRESH)], None, None),
            (
                &[("CACHE-CONTROL", "Max-Age=60, NO-STORE")],
                Some(R::ResponseNoStore),
                Some(R::ResponseNoStore),
            ),
            (
                &[("cache-control", FRESH), ("Cache-Control", "no-store")],
                Some(R::ResponseNoStore),
                Some(R::ResponseNoStore),
            ),
            (
                // §5.2.2.3
                &[("cache-control", "must-understand, no-store, max-age=9")],
                Some(R::ResponseNoStore),
                None,
            ),
            (&[("cache-control", "max-age=60, Private")], Some(R::Private), Some(R::Private)),
            (&[("cache-control", "s-maxage=60, private=\"x\"")], Some(R::Private), Some(R::Private)),
            (
                &[("cache-control", "max-age=60, no-cache")],
                Some(R::ResponseNoCache),
                Some(R::ResponseNoCache),
            ),
            (&[("cache-control", "max-age=60, no-cache"), TAG], None, None),
            (&[("cache-control", "no-cache"), MODIFIED], None, None),
            (&[("cache-control", "max-age=0"), TAG], None, None),
            (&[("cache-control", "max-age=60"), ("age", "60"), MODIFIED], None, None),
            (&[("expires", "0"), TAG], None, None),
            (&[("expires", "0"), ("etag", "a")], Some(R::Expired), Some(R::Expired)),
            (&[("cache-control", "public"), TAG], None, None),
            (&[TAG], Some(R::NoFreshness), None),
            (&[MODIFIED], Some(R::NoFreshness), None),
            (&[("cache-control", "no-store"), TAG], Some(R::ResponseNoStore), Some(R::ResponseNoStore)),
            (&[("cache-control", "max-age=60, x=\"")], Some(R::Malformed), Some(R::Malformed)),
            (&[("cache-control", "public")], Some(R::NoFreshness), Some(R::NoFreshness)),
            (&[], Some(R::NoFreshness), Some(R::NoFreshness)),
            (&[("cache-control", "max-age=0")], Some(R::Expired), Some(R::Expired)),
            (&[("cache-control", "max-age=-1")], Some(R::Expired), Some(R::Expired)),
            (&[("cache-control", "max-age=60"), ("age", "60")], Some(R::Expired), Some(R::Expired)),
            (&[("expires", "0")], Some(R::Expired), Some(R::Expired)),
            (&[("cache-control", FRESH), ("vary", "a, *")], Some(R::VaryStar), Some(R::VaryStar)),
            (&[("cache-control", FRESH), ("vary", "Cookie")], Some(R::VaryCookie), None),
            (&[("cache-control", FRESH), ("vary", "a, authorization")], Some(R::VaryCookie), None),
            (&[("cache-control", FRESH), ("set-cookie", "a=b")], Some(R::SetCookie), None),
            (&[("cache-control", "public, max-age=60"), ("set-cookie", "a=b")], None, None),
            (&[("cache-control", "s-maxage=60"), ("set-cookie", "a=b")], None, None),
            (
                &[("cache-control", FRESH), ("content-range", "bytes 0-0/1")],
                Some(R::Partial),
                Some(R::Partial),
            ),
            (
                &[("cache-control", FRESH), ("content-length", "999999999")],
                Some(R::TooLarge),
                Some(R::TooLarge),
            ),
            (
                &[("pragma", "no-cache"), ("expires", "Sun, 06 Nov 1994 09:49:37 GMT")],
                Some(R::ResponseNoCache),
                None,
            ),
            (&[("pragma", "no-cache"), TAG], None, None),
        ];
        for (fields, safe, rfc9111) in rows {
            assert_eq!(judge(Profile::Safe, &[], 200, fields).err(), *safe, "safe {fields:?}");
            assert_eq!(judge(Profile::Rfc9111, &[], 200, fields).err(), *rfc9111, "rfc9111 {fields:?}");
        }
    }

    #[test]
    fn final_responses_with_explicit_freshness_are_stored_by_status_rfc9111_3() {
        let fresh = [("cache-control", "public, max-age=60")];
        for status in [200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501] {
            assert!(judge(Profile::Safe, &[], status, &fresh).is_ok(), "{status}");
        }
        for status in [201, 299, 303, 400, 403, 499, 500, 502, 503, 504, 599] {
            assert_eq!(judge(Profile::Safe, &[], status, &fresh).err(), Some(Reason::Status), "{status}");
            assert!(judge(Profile::Rfc9111, &[], status, &fresh).is_ok(), "{status}");
        }
        for status in [0, 100, 101, 199, 304, 412, 416, 429, 600, 999] {
            assert_eq!(judge(Profile::Rfc9111, &[], status, &fresh).err(), Some(Reason::Status), "{status}");
        }
    }

    #[test]
    fn a_status_that_must_be_understood_is_or_is_not_stored_rfc9111_5_2_2_3() {
        let control = |status, value| judge(Profile::Rfc9111, &[], status, &[("cache-control", value)]).err();
        assert_eq!(control(200, "max-age=60, must-understand, no-store"), None);
        assert_eq!(control(599, "max-age=60, must-understand"), Some(Reason::Status));
        assert_eq!(control(599, "max-age=60, must-understand, no-store"), Some(Reason::ResponseNoStore));
        assert_eq!(control(200, "max-age=60, must-understand, private"), Some(Reason::Private));
    }

    #[test]
    fn heuristics_are_used_only_where_allowed_rfc9111_4_2_2() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:39:37 GMT");
        let lifetime = |profile, status, pairs: &[(&str, &str)]| {
            let stored = judge(profile, &[], status, pairs).ok()?;
            Some((stored.lifetime.as_secs(), stored.is_heuristic))
        };
        for (status, pairs, expected) in [
            (200, &[date, modified][..], Some((60, true))),
            (404, &[date, modified], Some((60, true))),
            (302, &[date, modified], None),
            (599, &[date, modified], None),
            (599, &[date, modified, ("cache-control", "public")], Some((60, true))),
            (200, &[date, modified, ("cache-control", "max-age=5")], Some((5, false))),
            (200, &[date, modified, ("expires", "x")], Some((0, false))),
            (200, &[date], None),
        ] {
            assert_eq!(lifetime(Profile::Rfc9111, status, pairs), expected, "{status} {pairs:?}");
        }
        let public = [date, modified, ("cache-control", "public")];
        assert_eq!(lifetime(Profile::Safe, 200, &public), Some((0, false)), "only to be validated");
    }

    #[test]
    fn errors_are_stored_as_long_as_policy_says() {
        let request = Fields::from_pairs([("host", "a")]);
        let request = RequestView { method: b"GET", target: b"/", fields: &request };
        let judge = |status, pairs: &[(&str, &str)]| {
            let negative: Box<[_]> = [200, 404, 429, 503].map(|of| (of, Duration::from_secs(7))).into();
            let rules = Rules { negative, ..Rules::default() };
            let fields = Fields::from_pairs(pairs.iter().copied());
            let response = ResponseView { status, fields: &fields, delimited_by_close: false };
            store(&request, &response, &rules, RECEIVED, RECEIVED).map(|stored| stored.lifetime.as_secs())
        };
        assert_eq!(judge(404, &[]), Ok(7));
        assert_eq!(judge(503, &[]), Ok(7));
        assert_eq!(judge(503, &[("cache-control", "max-age=9")]), Ok(9));
        assert_eq!(judge(404, &[("cache-control", "no-store")]), Err(Reason::ResponseNoStore));
        assert_eq!(judge(404, &[("cache-control", "private")]), Err(Reason::Private));
        assert_eq!(judge(429, &[]), Err(Reason::Status), "RFC 6585 §4");
        assert_eq!(judge(500, &[]), Err(Reason::Status));
        assert_eq!(judge(200, &[]), Err(Reason::NoFreshness));
    }

    #[test]
    fn a_part_is_stored_if_all_is_known_about_it_rfc9111_3_3() {
        let range = ("range", "bytes=0-4");
        let of = ("content-range", "bytes 0-4/10");
        let (fresh, tag) = (("cache-control", "max-age=60"), ("etag", "\"a\""));
        let judge = |request: &[(&str, &str)], pairs: &[(&str, &str)]| {
            judge(Profile::Safe, request, 206, pairs).map(|stored| stored.part)
        };
        let part = Ok(Some(Part { first: 0, last: 4, complete: 10 }));
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");
        let just_now = ("last-modified", "Sun, 06 Nov 1994 08:49:00 GMT");
        assert_eq!(judge(&[range], &[fresh, tag, of, ("content-length", "5")]), part);
        assert_eq!(judge(&[range], &[fresh, tag, of]), part);
        assert_eq!(judge(&[range], &[fresh, modified, of]), part);
        for (request, pairs) in [
            (&[][..], &[fresh, tag, of][..]),
            (&[range], &[fresh, tag]),
            (&[range], &[fresh, tag, of, of]),
            (&[range], &[fresh, tag, of, ("content-length", "6")]),
            (&[range], &[fresh, tag, ("content-range", "bytes 0-4/*")]),
            (&[range], &[fresh, tag, ("content-range", "lines 0-4/10")]),
            (&[range], &[fresh, of]),
            (&[range], &[fresh, of, just_now]),
            (&[range], &[fresh, ("etag", "W/\"a\""), of]),
        ] {
            assert_eq!(judge(request, pairs), Err(Reason::Partial), "{request:?} {pairs:?}");
        }
        assert_eq!(judge(&[range], &[of, tag, ("cache-control", "private")]), Err(Reason::Private));
    }

    #[test]
    fn an_error_that_answers_a_range_is_not_stored_for_others() {
        let judge = |status| {
            judge(Profile::Rfc9111, &[("range", "bytes=0-1")], status, &[("cache-control", "max-age=9")])
        };
        assert!(judge(200).is_ok());
        for status in [400, 404, 416] {
            assert_eq!(judge(status).err(), Some(Reason::Status), "{status}");
        }
    }

    #[test]
    fn what_a_response_says_about_staleness_is_kept_rfc5861() {
        let kept = |value| {
            let stored = judge(Profile::Safe, &[], 200, &[("cache-control", value)]).unwrap();
            (stored.must_revalidate, stored.stale_while_revalidate, stored.stale_if_error, stored.immutable)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(kept("max-age=60"), (false, None, None, false));
        assert_eq!(kept("max-age=60, immutable"), (false, None, None, true));
        assert_eq!(
            kept("max-age=60, immutable=1, stale-while-revalidate=3"),
            (false, seconds(3), None, false)
        );
        assert_eq!(kept("max-age=60, Stale-If-Error=\"4\""), (false, None, seconds(4), false));
        assert_eq!(kept("max-age=60, stale-if-error=x"), (false, None, seconds(0), false));
        for value in ["max-age=60, must-revalidate", "max-age=60, PROXY-revalidate=x", "s-maxage=60"] {
            assert!(kept(value).0, "{value}");
        }
    }

    #[test]
    fn answers_to_requests_with_cookies_are_stored_in_safe_only_for_everybody() {
        let judge =
            |profile, value| judge(profile, &[("Cookie", "x")], 200, &[("cache-control", value)]).err();
        assert_eq!(judge(Profile::Safe, "max-age=9"), Some(Reason::Cookie));
        assert_eq!(judge(Profile::Safe, "max-age=9, public"), None);
        assert_eq!(judge(Profile::Safe, "s-maxage=9"), None);
        assert_eq!(judge(Profile::Rfc9111, "max-age=9"), None);
    }

    #[test]
    fn authorized_answers_are_stored_only_with_permission_rfc9111_3_5() {
        for profile in [Profile::Safe, Profile::Rfc9111] {
            let judge =
                |value| judge(profile, &[("AUTHORIZATION", "x")], 200, &[("cache-control", value)]).err();
            for permission in ["public, max-age=9", "s-maxage=9", "must-revalidate, max-age=9"] {
                assert_eq!(judge(permission), None, "{permission}");
            }
            assert_eq!(judge("max-age=9"), Some(Reason::Authorization));
            assert_eq!(judge("max-age=9, proxy-revalidate"), Some(Reason::Authorization));
            assert_eq!(judge("s-maxage=x, max-age=9"), Some(Reason::Authorization));
        }
    }

    #[test]
    fn the_request_may_forbid_storing_rfc9111_5_2_1_5() {
        let fresh = [("cache-control", "public, max-age=60")];
        let refused = judge(Profile::Rfc9111, &[("cache-control", "No-Store")], 200, &fresh);
        assert_eq!(refused.err(), Some(Reason::RequestNoStore));
        let fields = Fields::from_pairs([("host", "a")]);
        let answer = Fields::from_pairs(fresh);
        for method in ["HEAD", "POST", "get"] {
            let request = RequestView { method: method.as_bytes(), target: b"/", fields: &fields };
            let response = ResponseView { status: 200, fields: &answer, delimited_by_close: false };
            let judged = store(&request, &response, &Rules::default(), RECEIVED, RECEIVED);
            assert_eq!(judged.err(), Some(Reason::Method), "{method}");
        }
    }

    #[test]
    fn a_content_that_only_the_close_ends_is_not_trusted_in_safe() {
        let request = Fields::from_pairs([("host", "a")]);
        let request = RequestView { method: b"GET", target: b"/", fields: &request };
        let fields = Fields::from_pairs([("cache-control", "max-age=60")]);
        let response = ResponseView { status: 200, fields: &fields, delimited_by_close: true };
        let judge = |profile| {
            store(&request, &response, &Rules { profile, ..Rules::default() }, RECEIVED, RECEIVED).err()
        };
        assert_eq!(judge(Profile::Safe), Some(Reason::DelimitedByClose));
        assert_eq!(judge(Profile::Rfc9111), None);
    }
}
