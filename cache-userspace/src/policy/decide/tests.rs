//! Which stored response answers a request, in tables with their clauses.

use super::*;
use crate::{
    http1::Fields,
    policy::{Part, ResponseView, store},
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
    decide(&request, candidates(variants), &rules(profile), now)
}

fn candidates(variants: &[Stored]) -> impl Iterator<Item = Candidate<'_>> {
    variants.iter().map(|stored| Candidate { stored, content_bytes: 10 })
}

fn reuse(index: usize, seconds: u64) -> Decision {
    Decision::Reuse { index, age: Duration::from_secs(seconds), revalidate: false }
}

fn validate(miss: Miss) -> Decision {
    Decision::Validate { index: 0, miss }
}

#[test]
fn a_response_is_fresh_while_its_lifetime_exceeds_its_age_rfc9111_4_2() {
    let variants = [stored(&[], &[("cache-control", "max-age=60"), ("age", "10")], STORED_AT)];
    let ask = |now| ask(&[], &variants, Profile::Safe, now);
    assert_eq!(ask(after(0)), reuse(0, 10));
    assert_eq!(ask(after(49)), reuse(0, 59));
    assert_eq!(ask(after(50)), validate(Miss::Stale));
    let clock_stepped = Now { wall: STORED_AT.wall + 3600, ..after(5) };
    assert_eq!(ask(clock_stepped), reuse(0, 15), "a step of the wall clock changes no freshness");
}

#[test]
fn nothing_is_reused_beyond_its_resident_time() {
    let variants = [stored(&[], &[("cache-control", "max-age=9999")], STORED_AT)];
    assert_eq!(ask(&[], &variants, Profile::Rfc9111, after(599)), reuse(0, 599));
    assert_eq!(ask(&[], &variants, Profile::Rfc9111, after(600)), validate(Miss::Stale));
}

#[test]
fn request_directives_only_ever_refuse_rfc9111_5_2_1() {
    let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
    let ten_later = |pair| ask(&[pair], &variants, Profile::Rfc9111, after(10));
    for (value, expected) in [
        ("max-age=10", reuse(0, 10)),
        ("max-age=9", validate(Miss::Request)),
        ("max-age=0", validate(Miss::Request)),
        ("max-age=x", validate(Miss::Request)),
        ("min-fresh=50", reuse(0, 10)),
        ("min-fresh=51", validate(Miss::Request)),
        ("NO-CACHE", validate(Miss::Request)),
        ("x=\"", Decision::Forward(Miss::Request)),
        ("max-stale=100", reuse(0, 10)),
        ("only-if-cached", reuse(0, 10)),
        ("only-if-cached, no-cache", Decision::Unsatisfiable),
    ] {
        assert_eq!(ten_later(("Cache-Control", value)), expected, "{value}");
    }
    assert_eq!(ten_later(("Pragma", "no-cache")), validate(Miss::Request));
    let both = [("pragma", "no-cache"), ("cache-control", "x")];
    assert_eq!(ask(&both, &variants, Profile::Safe, after(1)), reuse(0, 1), "§5.4: Cache-Control decides");
}

#[test]
fn max_stale_revives_nothing_rfc9111_5_2_1_2() {
    let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
    for value in ["max-stale", "max-stale=1000"] {
        let asked = ask(&[("cache-control", value)], &variants, Profile::Rfc9111, after(61));
        assert_eq!(asked, validate(Miss::Stale));
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
fn what_is_not_to_be_reused_is_to_be_validated_rfc9111_4_3() {
    const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");
    let miss = Decision::Forward;
    // response, further field, seconds later, request directive, decision
    for (control, validator, later, asked, expected) in [
        ("max-age=60", ("etag", "\"a\""), 59, "", reuse(0, 59)),
        ("max-age=60", ("etag", "\"a\""), 60, "", validate(Miss::Stale)),
        ("max-age=60", ("etag", "W/\"a\""), 60, "", validate(Miss::Stale)),
        ("max-age=60", MODIFIED, 60, "", validate(Miss::Stale)),
        ("max-age=60", ("etag", "a"), 60, "", validate(Miss::Stale)),
        ("max-age=60", ("last-modified", "x"), 60, "", validate(Miss::Stale)),
        ("max-age=60", ("x", "y"), 60, "", validate(Miss::Stale)),
        ("max-age=60", MODIFIED, 1, "no-cache", validate(Miss::Request)),
        ("max-age=60, immutable", MODIFIED, 1, "max-age=0", validate(Miss::Request)),
        ("max-age=60", MODIFIED, 1, "min-fresh=60", validate(Miss::Request)),
        ("max-age=60", MODIFIED, 1, "no-cache, only-if-cached", Decision::Unsatisfiable),
        ("max-age=60", MODIFIED, 60, "only-if-cached", Decision::Unsatisfiable),
        ("max-age=60", MODIFIED, 1, "x=\"", miss(Miss::Request)),
        ("max-age=60, no-cache", MODIFIED, 1, "", validate(Miss::Stale)),
        ("max-age=0", MODIFIED, 0, "", validate(Miss::Stale)),
        ("max-age=9999", MODIFIED, 600, "", validate(Miss::Stale)),
    ] {
        let variants = [stored(&[], &[("cache-control", control), validator], STORED_AT)];
        let fields = [("cache-control", asked)];
        let request = if asked.is_empty() { &[] } else { &fields[..] };
        for profile in [Profile::Safe, Profile::Rfc9111] {
            let decision = ask(request, &variants, profile, after(later));
            assert_eq!(decision, expected, "{control}, {validator:?}, {later} s, {asked}");
        }
    }
}

#[test]
fn a_stale_response_is_reused_while_it_is_validated_where_allowed_rfc5861_3() {
    let behind = |seconds| Decision::Reuse { index: 0, age: Duration::from_secs(seconds), revalidate: true };
    let stale = validate(Miss::Stale);
    // response, seconds later, request directive, the policy's own window, decision
    for (control, later, asked, policy, expected) in [
        ("max-age=60, stale-while-revalidate=30", 59, "x", None, reuse(0, 59)),
        ("max-age=60, stale-while-revalidate=30", 60, "x", None, behind(60)),
        ("max-age=60, stale-while-revalidate=30", 89, "x", None, behind(89)),
        ("max-age=60, stale-while-revalidate=30", 90, "x", None, stale),
        ("max-age=60, stale-while-revalidate=30", 89, "only-if-cached", None, behind(89)),
        ("max-age=60, stale-while-revalidate=30", 89, "max-age=88", None, stale),
        ("max-age=60, stale-while-revalidate=30", 89, "min-fresh=1", None, stale),
        ("max-age=60, stale-while-revalidate=30", 89, "no-cache", None, stale),
        ("max-age=60, stale-while-revalidate=x", 60, "x", Some(30), stale),
        ("max-age=60, stale-while-revalidate=0", 60, "x", Some(30), stale),
        ("max-age=60", 89, "x", Some(30), behind(89)),
        ("max-age=60", 89, "x", None, stale),
        ("max-age=60, must-revalidate, stale-while-revalidate=30", 60, "x", Some(30), stale),
        ("s-maxage=60, stale-while-revalidate=30", 60, "x", Some(30), stale),
        ("max-age=60, stale-while-revalidate=9999", 599, "x", None, behind(599)),
        ("max-age=60, stale-while-revalidate=9999", 600, "x", None, stale),
    ] {
        let variants = [stored(&[], &[("cache-control", control)], STORED_AT)];
        let fields = Fields::from_pairs([("cache-control", asked)]);
        let request = RequestView { method: b"GET", target: b"/", fields: &fields };
        let stale_while_revalidate = policy.map(Duration::from_secs);
        let rules = Rules { stale_while_revalidate, ..rules(Profile::Safe) };
        let decision = decide(&request, candidates(&variants), &rules, after(later));
        assert_eq!(decision, expected, "{control}, {later} s, {asked}, {policy:?}");
    }
}

#[test]
fn what_may_not_be_given_to_authorized_requests_is_not_selected_for_them_in_safe_rfc9111_3_5() {
    let of = |control| [stored(&[], &[("cache-control", control), ("etag", "\"a\"")], STORED_AT)];
    let ask = |variants: &[Stored], profile| ask(&[("Authorization", "x")], variants, profile, after(60));
    for profile in [Profile::Safe, Profile::Rfc9111] {
        assert_eq!(ask(&of("max-age=60, public"), profile), validate(Miss::Stale));
    }
    assert_eq!(ask(&of("max-age=60"), Profile::Rfc9111), validate(Miss::Stale));
    assert_eq!(ask(&of("max-age=60"), Profile::Safe), Decision::Forward(Miss::Request));
}

#[test]
fn what_was_good_for_one_answer_is_never_selected() {
    let good = stored(&[], &[("cache-control", "max-age=60"), ("etag", "\"a\"")], STORED_AT);
    let refused = Stored { refused: Some(crate::policy::Reason::Private), ..good };
    assert_eq!(ask(&[], &[refused], Profile::Rfc9111, after(1)), Decision::Forward(Miss::Uri));
}

#[test]
fn a_part_answers_only_what_it_holds_rfc9111_3_3() {
    let whole = stored(&[], &[("cache-control", "max-age=60"), ("etag", "\"a\"")], STORED_AT);
    let part = Part { first: 10, last: 19, complete: 100 };
    let part = [Stored { status: 206, part: Some(part), ..whole.clone() }];
    let ask = |pairs: &[(&str, &str)], later| ask(pairs, &part, Profile::Safe, after(later));
    for (range, expected) in [
        ("bytes=10-19", reuse(0, 1)),
        ("bytes=11-12, 14-15", reuse(0, 1)),
        ("bytes=10-20", Decision::Forward(Miss::Partial)),
        ("bytes=-5", Decision::Forward(Miss::Partial)),
        ("lines=1-2", Decision::Forward(Miss::Partial)),
    ] {
        assert_eq!(ask(&[("Range", range)], 1), expected, "{range}");
    }
    assert_eq!(ask(&[("Range", "bytes=10-11")], 60), validate(Miss::Stale));
    assert_eq!(ask(&[], 1), Decision::Forward(Miss::Partial));
    assert_eq!(ask(&[("range", "bytes=10-11"), ("if-range", "\"b\"")], 1), Decision::Forward(Miss::Partial));
    let fields = Fields::from_pairs([("range", "bytes=10-11")]);
    let head = RequestView { method: b"HEAD", target: b"/", fields: &fields };
    let decided = decide(&head, candidates(&part), &rules(Profile::Safe), after(1));
    assert_eq!(decided, Decision::Forward(Miss::Partial));
    let both = [whole, part[0].clone()];
    assert_eq!(self::ask(&[], &both, Profile::Safe, after(1)), reuse(0, 1));
}

#[test]
fn ranges_that_the_origin_must_judge_are_forwarded_rfc9110_15_5_17() {
    let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
    for (range, expected) in [
        ("bytes=0-1", reuse(0, 1)),
        ("bytes=-1", reuse(0, 1)),
        ("bytes=9-", reuse(0, 1)),
        ("lines=1-2", reuse(0, 1)),
        ("bytes=10-", Decision::Forward(Miss::Request)),
        ("bytes=0-5,3-8", Decision::Forward(Miss::Request)),
    ] {
        assert_eq!(ask(&[("Range", range)], &variants, Profile::Safe, after(1)), expected, "{range}");
    }
    let missing = [Stored { status: 404, ..variants[0].clone() }];
    let asked = ask(&[("Range", "bytes=10-")], &missing, Profile::Safe, after(1));
    assert_eq!(asked, reuse(0, 1), "RFC 9110 §14.2: of a 200 only");
}

#[test]
fn the_newest_matching_variant_is_selected_rfc9111_4_1() {
    let fresh = ("cache-control", "max-age=600");
    let variant =
        |value, date| stored(&[("accept", value)], &[fresh, ("vary", "Accept"), ("date", date)], STORED_AT);
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
fn only_methods_that_read_are_answered_from_what_is_stored_under_their_key_rfc9111_4() {
    let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
    let fields = Fields::default();
    for (method, expected) in [
        ("HEAD", reuse(0, 0)),
        ("QUERY", reuse(0, 0)),
        ("OPTIONS", Decision::Forward(Miss::Request)),
        ("POST", Decision::Forward(Miss::Request)),
    ] {
        let request = RequestView { method: method.as_bytes(), target: b"/", fields: &fields };
        assert_eq!(decide(&request, candidates(&variants), &rules(Profile::Safe), STORED_AT), expected);
    }
}

#[test]
fn a_response_answers_only_the_queries_that_its_rule_allows_no_vary_search() {
    let fields = Fields::from_pairs([("no-vary-search", "params=(\"u\")")]);
    let of = |target: &[u8]| {
        let search = crate::policy::Search::of(&fields, target).map(Box::new);
        Stored { search, ..stored(&[], &[("cache-control", "max-age=60")], STORED_AT) }
    };
    let variants = [of(b"/?a=1&u=1"), of(b"/?a=2"), of(b"/?a=3")];
    let own = Fields::default();
    for (target, expected) in [
        ("/?a=1&u=1", reuse(0, 0)),
        ("/?u=2&a=1", reuse(0, 0)),
        ("/?a=2&u=2", reuse(1, 0)),
        ("/?a=4", Decision::Forward(Miss::Uri)),
        ("/", Decision::Forward(Miss::Uri)),
    ] {
        let request = RequestView { method: b"GET", target: target.as_bytes(), fields: &own };
        let decision = decide(&request, candidates(&variants), &rules(Profile::Safe), STORED_AT);
        assert_eq!(decision, expected, "{target}");
    }
}

#[test]
fn what_may_not_be_given_unasked_is_validated_first_or_not_given_rfc9111_5_2_1_7() {
    let variants = [stored(&[], &[("cache-control", "max-age=60")], STORED_AT)];
    let asked = |pairs: &[(&str, &str)]| {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let request = RequestView { method: b"GET", target: b"/", fields: &fields };
        let decision = ask(pairs, &variants, Profile::Rfc9111, after(1));
        asked_first(decision, &request, Miss::Lease)
    };
    assert_eq!(asked(&[]), Decision::Validate { index: 0, miss: Miss::Lease });
    assert_eq!(asked(&[("cache-control", "only-if-cached")]), Decision::Unsatisfiable);
    // What is forwarded anyway is forwarded for its own reason.
    assert_eq!(asked(&[("cache-control", "no-cache")]), Decision::Validate { index: 0, miss: Miss::Request });
}
