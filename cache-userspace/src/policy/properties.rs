//! What holds for every request and response, shown on random ones.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Candidate, Cause, Decision, Miss, Now, Profile, Reason, RequestView, ResponseView, Rules, StaleVerdict,
    Stored, cache_control::CacheControl, date, decide, eligible, freshen, key, named_targets, resource,
    stale, store, update_by_head, validation_fields,
};
use crate::http1::Fields;

type Pair = (String, String);

const WALL: i64 = 784_111_777;

/// The same word with some of its letters in the other case.
fn recased(word: &str, mask: u64) -> String {
    let flip = |(index, letter): (usize, char)| {
        if mask >> (index % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    };
    word.chars().enumerate().map(flip).collect()
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..200_u32).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i8>().prop_map(|n| n.to_string()),
        Just("\"60\"".to_owned()),
        Just("1.5".to_owned()),
        Just(String::new()),
    ]
}

fn directive() -> impl Strategy<Value = String> {
    let number = |name: &'static str| number().prop_map(move |n| format!("{name}={n}"));
    prop_oneof![
        4 => number("max-age"),
        2 => number("s-maxage"),
        1 => number("min-fresh"),
        1 => number("max-stale"),
        4 => prop::sample::select(vec![
            "public", "must-revalidate", "proxy-revalidate", "immutable", "no-transform", "must-understand",
            "x=\"a, b\"", "x=y", "only-if-cached", "x=\"", "", "stale-while-revalidate=60",
        ]).prop_map(str::to_owned),
    ]
}

fn date_text() -> impl Strategy<Value = String> {
    prop_oneof![
        (-200..200_i64).prop_map(|offset| date::format(WALL + offset)),
        any::<i64>().prop_map(date::format),
        "[ -~]{0,30}",
    ]
}

fn field() -> impl Strategy<Value = Pair> {
    let name = |name: &'static str| move |value: String| (name.to_owned(), value);
    prop_oneof![
        4 => prop::collection::vec(directive(), 0..4).prop_map(|d| d.join(", ")).prop_map(name("cache-control")),
        1 => date_text().prop_map(name("date")),
        1 => date_text().prop_map(name("expires")),
        1 => number().prop_map(name("age")),
        1 => "(accept|x-a|accept-language|, ){0,3}".prop_map(name("vary")),
        1 => prop::sample::select(vec!["x-a", "accept", "authorization", "set-cookie", "pragma", "etag"])
            .prop_map(|name| (name.to_owned(), "no-cache".to_owned())),
    ]
}

fn fields() -> impl Strategy<Value = Vec<Pair>> {
    (prop::collection::vec(field(), 0..6), any::<u64>()).prop_map(|(pairs, mask)| {
        pairs.into_iter().map(|(name, value)| (recased(&name, mask), value)).collect()
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    prop::sample::select(vec![Profile::Safe, Profile::Rfc9111])
}

fn moment() -> impl Strategy<Value = Now> {
    (0..1_000_000_u64, -300..300_i64)
        .prop_map(|(millis, offset)| Now { boot: Duration::from_millis(millis), wall: WALL + offset })
}

struct Exchange {
    profile: Profile,
    request: Vec<Pair>,
    response: Vec<Pair>,
    requested_at: Now,
    received_at: Now,
}

impl Exchange {
    fn rules(&self) -> Rules {
        Rules { profile: self.profile, ..Rules::default() }
    }

    fn store(&self) -> Result<Stored, Reason> {
        let request =
            Fields::from_pairs([("host".to_owned(), "a".to_owned())].iter().chain(&self.request).cloned());
        let response = Fields::from_pairs(self.response.iter().cloned());
        let request = RequestView { method: b"GET", target: b"/", fields: &request };
        let response = ResponseView { status: 200, fields: &response, delimited_by_close: false };
        store(&request, &response, &self.rules(), self.requested_at, self.received_at)
    }
}

fn candidates(stored: &Stored) -> impl Iterator<Item = Candidate<'_>> + Clone {
    [Candidate { stored, content_bytes: 10 }].into_iter()
}

/// A profile and a response field that forbids storing in it, in any case.
fn forbidden() -> impl Strategy<Value = (Profile, Pair)> {
    let control = |value: &'static str| (None, ("cache-control", value));
    let vary = |value: &'static str| (None, ("vary", value));
    let safe = |name, value| (Some(Profile::Safe), (name, value));
    let rows = vec![
        control("no-store"),
        control("private"),
        control("private=\"a, b\""),
        control("x=\"a, b\" , no-store"),
        vary("*"),
        vary("accept, *"),
        safe("vary", "cookie"),
        safe("vary", "x-a,authorization"),
    ];
    (prop::sample::select(rows), any::<u64>(), profile()).prop_map(
        |((only, (name, value)), mask, profile)| {
            (only.unwrap_or(profile), (recased(name, mask.rotate_left(7)), recased(value, mask)))
        },
    )
}

proptest! {
    #[test]
    fn what_is_forbidden_to_store_is_never_stored(
        (profile, pair) in forbidden(),
        request in fields(),
        mut response in fields(),
        at in 0..6_usize,
        now in moment(),
    ) {
        // RFC 9111 §5.2.2.3: in rfc9111 a status that is understood lifts no-store.
        let is_lifted = profile == Profile::Rfc9111
            && response.iter().any(|(_, value)| value.to_ascii_lowercase().contains("must-understand"));
        prop_assume!(!(is_lifted && pair.1.to_ascii_lowercase().contains("no-store")));
        // An unterminated quote before it would make the whole field malformed; that is refused as well.
        response.push(("cache-control".to_owned(), "public, s-maxage=1000".to_owned()));
        response.insert(at.min(response.len()), pair);
        let exchange = Exchange { profile, request, response, requested_at: now, received_at: now };
        prop_assert!(exchange.store().is_err());
    }

    #[test]
    fn a_request_that_forbids_storing_is_obeyed(
        mask in any::<u64>(), profile in profile(), mut request in fields(), response in fields(), now in moment(),
    ) {
        request.push((recased("cache-control", mask), recased("x=\"a\", no-store", mask)));
        let exchange = Exchange { profile, request, response, requested_at: now, received_at: now };
        prop_assert!(exchange.store().is_err());
    }

    #[test]
    fn authorized_answers_without_permission_and_cookies_in_safe_are_never_stored(
        mask in any::<u64>(), max_age in 1..1000_u32, now in moment(), cookie in any::<bool>(),
    ) {
        let control = ("Cache-Control".to_owned(), recased(&format!("max-age={max_age}, immutable"), mask));
        let mut exchange =
            Exchange { profile: Profile::Safe, request: vec![], response: vec![control], requested_at: now, received_at: now };
        prop_assert!(exchange.store().is_ok());
        if cookie {
            exchange.response.push((recased("set-cookie", mask), "a".to_owned()));
        } else {
            exchange.request.push((recased("authorization", mask), "a".to_owned()));
        }
        prop_assert!(exchange.store().is_err());
    }

    #[test]
    fn what_is_reused_is_never_older_than_its_lifetime_nor_than_its_stay(
        profile in profile(), request in fields(), response in fields(), second in fields(),
        requested_at in moment(), delay in 0..5000_u64, stay in 0..120_000_u64, step in any::<i32>(),
    ) {
        let received_at = Now { boot: requested_at.boot + Duration::from_millis(delay), ..requested_at };
        let exchange = Exchange { profile, request, response, requested_at, received_at };
        let now = Now {
            boot: received_at.boot + Duration::from_millis(stay),
            wall: received_at.wall + i64::from(step),
        };
        if let Ok(stored) = exchange.store() {
            let age = stored.age(now);
            prop_assert!(age >= Duration::from_millis(stay + delay), "no negative part in an age");
            let fields = Fields::from_pairs(second);
            let request = RequestView { method: b"GET", target: b"/", fields: &fields };
            let decision = decide(&request, candidates(&stored), &exchange.rules(), now);
            if let Decision::Reuse { index, age: told, revalidate: false } = decision {
                prop_assert_eq!((index, told), (0, age));
                prop_assert!(age < stored.lifetime);
                prop_assert!(Duration::from_millis(stay) < exchange.rules().resident_max);
            }
        }
    }

    #[test]
    fn a_response_is_reused_for_the_request_that_it_answered(
        profile in profile(), headers in prop::collection::vec(("(accept|x-a|x-b)", "[a-c, ]{0,4}"), 0..5),
        vary in "(accept|x-a|x-b)(, (accept|x-a|x-b)){0,2}", now in moment(),
    ) {
        let response = vec![("vary".to_owned(), vary), ("cache-control".to_owned(), "max-age=9".to_owned())];
        let request: Vec<Pair> = headers.into_iter().map(|(n, v)| (n, v.trim().to_owned())).collect();
        let exchange = Exchange { profile, request, response, requested_at: now, received_at: now };
        let stored = exchange.store().unwrap();
        let fields = Fields::from_pairs(exchange.request.iter().cloned());
        prop_assert!(stored.selection.matches(&fields));
    }

    #[test]
    fn parsing_arbitrary_bytes_never_panics(
        pairs in prop::collection::vec(
            (prop::sample::select(vec![
                "cache-control", "vary", "age", "date", "expires", "pragma", "connection", "host", "content-length",
                "etag", "last-modified", "if-none-match", "if-modified-since", "range", "if-range", "content-range",
                "location", "content-location", "cdn-cache-control",
            ]), prop::collection::vec(any::<u8>(), 0..60)), 0..8),
        status in any::<u16>(), target in prop::collection::vec(any::<u8>(), 0..20), wall in any::<i64>(),
        boots in any::<(u64, u64)>(), profile in profile(),
    ) {
        let fields = Fields::from_pairs(pairs);
        let request = RequestView { method: b"GET", target: &target, fields: &fields };
        let response = ResponseView { status, fields: &fields, delimited_by_close: false };
        let rules = Rules { profile, ..Rules::default() };
        let at = |seconds| Now { boot: Duration::from_secs(seconds), wall };
        let _ = CacheControl::of(&fields);
        let _ = eligible(&request, &rules);
        let _ = named_targets(&RequestView { method: b"POST", ..request }, &target, &response);
        let now = at(boots.0);
        for status in [status, 200, 206] {
            let response = ResponseView { status, ..response };
            let Ok(stored) = store(&request, &response, &rules, now, at(boots.1)) else { continue };
            let _ = decide(&request, candidates(&stored), &rules, now);
            let _ = stale(&request, &stored, &rules, now, Cause::Late);
            let _ = validation_fields(&request, [&stored].into_iter(), 0);
            let head = RequestView { method: b"HEAD", ..request };
            let _ = update_by_head(&head, candidates(&stored), &response, &rules, now, now);
            let not_modified = ResponseView { status: 304, ..response };
            let _ = freshen(&request, [&stored].into_iter(), &not_modified, &rules, now, now);
        }
    }

    #[test]
    fn nothing_that_a_304_forbids_is_reused_or_widened(
        (profile, pair) in forbidden(), first in fields(), tag in prop::sample::select(vec!["\"a\"", "W/\"a\""]),
        mut answer in fields(), at in 0..6_usize, now in moment(), later in 0..100_u64, x in "[ab]?",
    ) {
        let is_lifted = profile == Profile::Rfc9111
            && first.iter().chain(&answer).any(|(_, value)| value.to_ascii_lowercase().contains("must-understand"));
        prop_assume!(!(is_lifted && pair.1.to_ascii_lowercase().contains("no-store")));
        let mut response: Vec<Pair> = first.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("etag")).collect();
        response.push(("etag".to_owned(), tag.to_owned()));
        response.push(("cache-control".to_owned(), "max-age=50, public".to_owned()));
        let exchange = Exchange { profile, request: vec![("x-a".to_owned(), x)], response, requested_at: now, received_at: now };
        let Ok(stored) = exchange.store() else { return Ok(()) };
        answer.retain(|(name, _)| !name.eq_ignore_ascii_case("etag"));
        answer.push(("etag".to_owned(), tag.to_owned()));
        answer.push(("cache-control".to_owned(), "max-age=1000".to_owned()));
        answer.insert(at.min(answer.len()), pair);
        let asked = Fields::from_pairs([("host".to_owned(), "a".to_owned())].iter().chain(&exchange.request).cloned());
        let request = RequestView { method: b"GET", target: b"/", fields: &asked };
        let answer = Fields::from_pairs(answer);
        let response = ResponseView { status: 304, fields: &answer, delimited_by_close: false };
        let then = Now { boot: now.boot + Duration::from_secs(later), wall: now.wall };
        let rules = exchange.rules();
        for (_, new) in freshen(&request, [&stored].into_iter(), &response, &rules, then, then) {
            let decision = decide(&request, candidates(&new), &rules, then);
            prop_assert_eq!(decision, Decision::Forward(Miss::Uri));
            let verdict = stale(&request, &new, &rules, then, Cause::Disconnected);
            prop_assert!(!matches!(verdict, StaleVerdict::Reuse { .. }), "{:?}", verdict);
        }
    }

    #[test]
    fn what_a_304_freshens_is_selected_by_its_request_and_by_no_other_than_before(
        profile in profile(), vary in "(accept|x-a|x-b)(, (accept|x-a|x-b)){0,2}", new_vary in "(accept|x-a|x-b)",
        request in prop::collection::vec(("(accept|x-a|x-b)", "[a-c]{0,2}"), 0..4),
        other in prop::collection::vec(("(accept|x-a|x-b)", "[a-c]{0,2}"), 0..4), now in moment(),
    ) {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let response = vec![pair("vary", &vary), pair("cache-control", "max-age=9"), pair("etag", "\"a\"")];
        let exchange = Exchange { profile, request, response, requested_at: now, received_at: now };
        let stored = exchange.store().unwrap();
        let with_host = |pairs: &[Pair]| Fields::from_pairs([pair("host", "a")].iter().chain(pairs).cloned());
        let (asked, other) = (with_host(&exchange.request), with_host(&other));
        let request = RequestView { method: b"GET", target: b"/", fields: &asked };
        let answer = Fields::from_pairs([("etag", "\"a\""), ("vary", &new_vary)]);
        let response = ResponseView { status: 304, fields: &answer, delimited_by_close: false };
        let updated = freshen(&request, [&stored].into_iter(), &response, &exchange.rules(), now, now);
        prop_assert_eq!(updated.len(), 1);
        for (_, new) in updated {
            prop_assert!(new.selection.matches(&asked));
            prop_assert!(stored.selection.matches(&other) || !new.selection.matches(&other));
        }
    }

    #[test]
    fn what_must_be_revalidated_is_never_given_stale(
        profile in profile(), mut response in fields(), request in fields(), mask in any::<u64>(),
        word in prop::sample::select(vec!["must-revalidate", "proxy-revalidate", "s-maxage=0", "s-maxage=x", "no-cache"]),
        windows in prop::option::of(0..10_000_u64), now in moment(), stay in 0..120_000_u64,
        cause in prop::sample::select(vec![Cause::Disconnected, Cause::Late, Cause::Error(500), Cause::Error(503)]),
    ) {
        response.push(("cache-control".to_owned(), recased(word, mask)));
        response.push(("cache-control".to_owned(), "stale-if-error=9999, stale-while-revalidate=9999".to_owned()));
        response.push(("last-modified".to_owned(), date::format(WALL - 100)));
        let exchange = Exchange { profile, request: vec![], response, requested_at: now, received_at: now };
        let Ok(stored) = exchange.store() else { return Ok(()) };
        let window = windows.map(Duration::from_secs);
        let rules = Rules {
            stale_while_revalidate: window, stale_if_error: window, stale_after: true, ..exchange.rules()
        };
        let then = Now { boot: now.boot + Duration::from_millis(stay), wall: now.wall };
        let fields = Fields::from_pairs(request);
        let request = RequestView { method: b"GET", target: b"/", fields: &fields };
        if stored.fresh_for(&rules, then).is_zero() {
            let decision = decide(&request, candidates(&stored), &rules, then);
            prop_assert!(!matches!(decision, Decision::Reuse { .. }), "{:?}", decision);
            let verdict = stale(&request, &stored, &rules, then, cause);
            prop_assert!(!matches!(verdict, StaleVerdict::Reuse { .. }), "{:?}", verdict);
        }
    }

    #[test]
    fn the_order_of_a_requests_fields_decides_nothing(
        profile in profile(), vary in "(accept|x-a|x-b)(, (accept|x-a|x-b)){0,2}",
        request in prop::collection::vec(("(accept|x-a|x-b|cache-control|cookie)", "(max-age=[0-9]|no-cache|[a-c]{0,2})"), 0..5),
        now in moment(),
    ) {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let response = vec![pair("vary", &vary), pair("cache-control", "public, max-age=9"), pair("etag", "\"a\"")];
        let exchange = Exchange { profile, request, response, requested_at: now, received_at: now };
        let Ok(stored) = exchange.store() else { return Ok(()) };
        let decision = |pairs: &[Pair]| {
            let fields = Fields::from_pairs(pairs.iter().cloned());
            let request = RequestView { method: b"GET", target: b"/", fields: &fields };
            decide(&request, candidates(&stored), &exchange.rules(), now)
        };
        // Lines of one name keep their order (RFC 9110 §5.3).
        let mut sorted = exchange.request.clone();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        prop_assert_eq!(decision(&exchange.request), decision(&sorted));
    }

    #[test]
    fn a_date_that_is_written_is_read_as_the_same_moment(moment in 0..253_402_300_800_i64, wall in any::<i64>()) {
        prop_assert_eq!(date::parse(date::format(moment).as_bytes(), wall), Some(moment));
    }

    #[test]
    fn different_parts_are_different_keys(
        a in prop::array::uniform4("[a/]{0,3}"), b in prop::array::uniform4("[a/]{0,3}"),
    ) {
        let key_of = |parts: &[String; 4]| {
            let [partition, destination, authority, target] = parts.each_ref().map(|part| part.as_bytes());
            let (mut whole, mut shared) = (Vec::new(), Vec::new());
            key(partition, destination, authority, target, &mut whole);
            resource(destination, authority, target, &mut shared);
            (whole, shared)
        };
        prop_assert_eq!(key_of(&a).0 == key_of(&b).0, a == b);
        prop_assert_eq!(key_of(&a).1 == key_of(&b).1, a[1..] == b[1..]);
    }
}
