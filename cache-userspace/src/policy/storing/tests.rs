//! Which responses are stored, in tables with their clauses.

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
        (&[("CACHE-CONTROL", "Max-Age=60, NO-STORE")], Some(R::ResponseNoStore), Some(R::ResponseNoStore)),
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
        (&[("cache-control", "max-age=60, no-cache")], Some(R::ResponseNoCache), Some(R::ResponseNoCache)),
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
        (&[("cache-control", FRESH), ("content-range", "bytes 0-0/1")], None, None),
        (&[("cache-control", FRESH), ("content-length", "999999999")], Some(R::TooLarge), Some(R::TooLarge)),
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
    for profile in [Profile::Safe, Profile::Rfc9111] {
        for status in [200, 201, 203, 204, 299, 300, 301, 303, 308, 400, 403, 404, 410, 499, 500, 503, 599] {
            assert!(judge(profile, &[], status, &fresh).is_ok(), "{status}");
        }
        for status in [0, 100, 101, 199, 304, 412, 416, 429, 600, 999] {
            assert_eq!(judge(profile, &[], status, &fresh).err(), Some(Reason::Status), "{status}");
        }
    }
}

#[test]
fn a_status_that_must_be_understood_is_or_is_not_stored_rfc9111_5_2_2_3() {
    let control = |status, value| judge(Profile::Rfc9111, &[], status, &[("cache-control", value)]).err();
    assert_eq!(control(200, "max-age=60, must-understand, no-store"), None);
    assert_eq!(control(599, "max-age=60, must-understand"), Some(Reason::Status));
    assert_eq!(control(599, "max-age=60, must-understand, no-store"), Some(Reason::ResponseNoStore));
    assert_eq!(control(200, "max-age=60, must-understand, private"), Some(Reason::Private));
    for unclear in ["max-age=9, must-understand=0, no-store", "max-age=9, must-understand;x, no-store"] {
        assert!(control(200, unclear).is_some(), "{unclear}");
    }
    let targeted = |value| judge(Profile::Rfc9111, &[], 200, &[("cdn-cache-control", value)]).err();
    assert_eq!(targeted("max-age=60, must-understand, no-store"), None);
    for unclear in ["max-age=9, must-understand=?0, no-store", "max-age=9, no-store, must-understand=1"] {
        assert!(targeted(unclear).is_some(), "{unclear}");
    }
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
    assert_eq!(judge(500, &[]), Err(Reason::NoFreshness));
    assert_eq!(judge(200, &[]), Err(Reason::NoFreshness));
    for control in ["max-age=0", "max-age=1"] {
        let judged = judge(404, &[("cdn-cache-control", control)]);
        assert_eq!(judged, Err(Reason::NoFreshness), "it does say something: {control}");
    }
    assert_eq!(judge(404, &[("cdn-cache-control", "public")]), Ok(7));
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
    let whole = super::tests::judge(Profile::Safe, &[range], 200, &[fresh, of]);
    assert_eq!(whole.err(), Some(Reason::Partial));
    let whole = super::tests::judge(Profile::Safe, &[], 200, &[fresh, of]).unwrap();
    assert!(whole.fields.contains("content-range"), "§14.4: without meaning, so kept");
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
    assert_eq!(kept("max-age=60, immutable=1, stale-while-revalidate=3"), (false, seconds(3), None, false));
    assert_eq!(kept("max-age=60, Stale-If-Error=\"4\""), (false, None, seconds(4), false));
    assert_eq!(kept("max-age=60, stale-if-error=x"), (false, None, seconds(0), false));
    for value in ["max-age=60, must-revalidate", "max-age=60, PROXY-revalidate=x", "s-maxage=60"] {
        assert!(kept(value).0, "{value}");
    }
}

#[test]
fn answers_to_requests_with_cookies_are_stored_in_safe_only_for_everybody() {
    let judge = |profile, value| judge(profile, &[("Cookie", "x")], 200, &[("cache-control", value)]).err();
    assert_eq!(judge(Profile::Safe, "max-age=9"), Some(Reason::Cookie));
    assert_eq!(judge(Profile::Safe, "max-age=9, public"), None);
    assert_eq!(judge(Profile::Safe, "s-maxage=9"), None);
    assert_eq!(judge(Profile::Rfc9111, "max-age=9"), None);
}

#[test]
fn authorized_answers_are_stored_only_with_permission_rfc9111_3_5() {
    for profile in [Profile::Safe, Profile::Rfc9111] {
        let judge = |value| judge(profile, &[("AUTHORIZATION", "x")], 200, &[("cache-control", value)]).err();
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

#[test]
fn the_groups_of_a_response_are_kept_or_it_is_not_stored_rfc9875_2() {
    let of = |groups: &str| {
        judge(Profile::Safe, &[], 200, &[("cache-control", "max-age=60"), ("cache-groups", groups)])
            .map(|stored| stored.groups.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let many: Vec<String> = (0..65).map(|n| format!("\"{n}\"")).collect();
    assert_eq!(of("\"b\", \"a\", \"b\"").unwrap(), ["a", "b"]);
    assert_eq!(of("a").unwrap(), [""; 0], "no List of Strings");
    assert_eq!(of(&many.join(", ")).err(), Some(Reason::Groups));
}

#[test]
fn answers_to_query_are_stored_for_their_own_target_only_rfc10008_2_7() {
    let own =
        Fields::from_pairs([("host", "a"), ("content-type", "application/sql"), ("content-length", "9")]);
    let fields = Fields::from_pairs([("cache-control", "max-age=60"), ("no-vary-search", "params")]);
    let response = ResponseView { status: 200, fields: &fields, delimited_by_close: false };
    for (method, pairs, expected) in [
        ("GET", &Fields::from_pairs([("host", "a")]), Ok(true)),
        ("QUERY", &own, Ok(false)),
        ("POST", &own, Err(Reason::Method)),
        ("GET", &own, Err(Reason::Content)),
    ] {
        let request = RequestView { method: method.as_bytes(), target: b"/?a", fields: pairs };
        let stored = store(&request, &response, &Rules::default(), RECEIVED, RECEIVED);
        assert_eq!(stored.map(|stored| stored.search.is_some()), expected, "{method}");
    }
}
