//! Whether a response may be stored (RFC 9111 §3) and what is kept of it.
//!
//! Its content is left to `store`, its look-up to `decide`.

use std::time::Duration;

use super::{
    Eligibility, Now, Profile, Reason, RequestView, ResponseView, Rules,
    cache_control::{CacheControl, Delta},
    eligible, freshness,
    freshness::DateValue,
    kept::kept,
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
    /// where the origin server sent none (RFC 9110 §6.6.1).
    pub fields: Fields,
    /// The request fields that selected it (§4.1).
    pub selection: Selection,
    /// The freshness lifetime (§4.2.1).
    pub lifetime: Duration,
    /// The age it had when it arrived (§4.2.3).
    pub corrected_initial_age: Duration,
    /// When it arrived, on CLOCK_BOOTTIME.
    pub received: Duration,
    /// When it was made: Date in unix seconds, else the moment of reception.
    pub date: i64,
    /// Whether it says that it may answer requests with Authorization (§3.5).
    pub shared_with_authorization: bool,
    /// Whether it says that it is for everybody (`public`, `s-maxage`), whatever cookies a request carries.
    pub shared_with_cookies: bool,
}

impl Stored {
    /// The current age (§4.2.3); resident time is counted on CLOCK_BOOTTIME.
    pub fn age(&self, now: Now) -> Duration {
        self.corrected_initial_age.saturating_add(self.resident(now))
    }

    /// How much longer it may be reused: zero as soon as its age reaches its lifetime (§4.2) or it has been here for
    /// [`Rules::resident_max`].
    pub fn fresh_for(&self, rules: &Rules, now: Now) -> Duration {
        let fresh = self.lifetime.saturating_sub(self.age(now));
        fresh.min(rules.resident_max.saturating_sub(self.resident(now)))
    }

    /// Bytes that it occupies on the heap, rounded up.
    pub fn heap_bytes(&self) -> u64 {
        // A line's offsets take 16 bytes and the vector that holds them may have grown to twice its length.
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        fields as u64 + self.selection.heap_bytes()
    }

    fn resident(&self, now: Now) -> Duration {
        now.boot.saturating_sub(self.received)
    }
}

/// Judges a complete exchange and computes what is to be kept (RFC 9111 §3, §3.5, §4.2.1–§4.2.3).
///
/// The request is the one that was forwarded, as the client sent it.
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
    complete(response, rules)?;
    let fields = response.fields;
    let directives = CacheControl::of(fields);
    permitted(request, fields, &directives, rules.profile)?;
    let selection = Selection::of(fields, request.fields, rules.profile)?;
    let date = DateValue::of(fields, received_at);
    let lifetime = freshness::lifetime(&directives, fields, date, received_at)?;
    let corrected_initial_age = freshness::corrected_initial_age(fields, date, requested_at, received_at);
    if lifetime <= corrected_initial_age {
        return Err(Reason::Expired);
    }
    Ok(Stored {
        status: response.status,
        fields: kept(fields, date.earliest),
        selection,
        lifetime,
        corrected_initial_age,
        received: received_at.boot,
        date: date.earliest,
        shared_with_authorization: shares(&directives),
        shared_with_cookies: is_for_everybody(&directives),
    })
}

/// Whether the response is a whole representation whose status is understood (RFC 9111 §3, §3.3).
fn complete(response: &ResponseView<'_>, rules: &Rules) -> Result<(), Reason> {
    if response.status == 206 || response.fields.contains("content-range") {
        return Err(Reason::Partial);
    }
    if !matches!(response.status, 200 | 203 | 204 | 300 | 301 | 302 | 307 | 308 | 404 | 405 | 410 | 414 | 501)
    {
        return Err(Reason::Status);
    }
    if response.delimited_by_close && rules.profile == Profile::Safe {
        return Err(Reason::DelimitedByClose);
    }
    let too_large = |value: &[u8]| {
        let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok());
        length.is_some_and(|length| length > rules.object_bytes_max)
    };
    if response.fields.values("content-length").any(too_large) {
        return Err(Reason::TooLarge);
    }
    Ok(())
}

/// What the response's directives and the request's credentials allow a shared cache.
fn permitted(
    request: &RequestView<'_>,
    fields: &Fields,
    directives: &CacheControl,
    profile: Profile,
) -> Result<(), Reason> {
    // §5.2.2.3: must-understand could lift no-store; not doing so is always allowed.
    if directives.no_store {
        return Err(Reason::ResponseNoStore);
    }
    if directives.private {
        return Err(Reason::Private);
    }
    // §5.2.2.4: every reuse would have to be validated.
    if directives.no_cache {
        return Err(Reason::ResponseNoCache);
    }
    if directives.malformed {
        return Err(Reason::Malformed);
    }
    let safe = profile == Profile::Safe;
    // §5.4 gives Pragma no meaning in responses; who sends it alone meant no-cache.
    if safe && !fields.contains("cache-control") && is_pragma_no_cache(fields) {
        return Err(Reason::ResponseNoCache);
    }
    // §3.5
    let authorized =
        request.fields.contains("authorization") || request.fields.contains("proxy-authorization");
    if authorized && !shares(directives) {
        return Err(Reason::Authorization);
    }
    // §7.3 leaves it to the origin server; safe wants to see that it thought of it.
    if safe && has_set_cookie(fields) && !is_for_everybody(directives) {
        return Err(Reason::SetCookie);
    }
    // Applications answer by cookie and forget Vary; behind a gateway that would be one user's page for another.
    if safe && request.fields.contains("cookie") && !is_for_everybody(directives) {
        return Err(Reason::Cookie);
    }
    Ok(())
}

/// RFC 9111 §3.5: what allows a shared cache to reuse the answer to an authorized request.
fn shares(directives: &CacheControl) -> bool {
    directives.must_revalidate || is_for_everybody(directives)
}

/// Whether the origin server thought of shared caches when it allowed reuse.
fn is_for_everybody(directives: &CacheControl) -> bool {
    directives.public || has_s_maxage(directives)
}

fn has_s_maxage(directives: &CacheControl) -> bool {
    matches!(directives.s_maxage, Delta::Seconds(_))
}

fn has_set_cookie(fields: &Fields) -> bool {
    fields.contains("set-cookie") || fields.contains("set-cookie2")
}

/// Whether `Pragma` says `no-cache` (RFC 9111 §5.4).
pub(super) fn is_pragma_no_cache(fields: &Fields) -> bool {
    fields.tokens("pragma").any(|member| member.eq_ignore_ascii_case(b"no-cache"))
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
                &[("cache-control", "must-understand, no-store, max-age=9")],
                Some(R::ResponseNoStore),
                Some(R::ResponseNoStore),
            ),
            (&[("cache-control", "max-age=60, Private")], Some(R::Private), Some(R::Private)),
            (&[("cache-control", "s-maxage=60, private=\"x\"")], Some(R::Private), Some(R::Private)),
            (
                &[("cache-control", "max-age=60, no-cache")],
                Some(R::ResponseNoCache),
                Some(R::ResponseNoCache),
            ),
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
        ];
        for (fields, safe, rfc9111) in rows {
            assert_eq!(judge(Profile::Safe, &[], 200, fields).err(), *safe, "safe {fields:?}");
            assert_eq!(judge(Profile::Rfc9111, &[], 200, fields).err(), *rfc9111, "rfc9111 {fields:?}");
        }
    }

    #[test]
    fn only_whole_understood_responses_are_stored_rfc9111_3() {
        let fresh = [("cache-control", "public, max-age=60")];
        for status in [200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501] {
            assert!(judge(Profile::Safe, &[], status, &fresh).is_ok(), "{status}");
        }
        for status in [100, 101, 199, 201, 206, 299, 303, 304, 400, 401, 403, 500, 502, 503, 504, 599, 999, 0]
        {
            assert!(judge(Profile::Rfc9111, &[], status, &fresh).is_err(), "{status}");
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
