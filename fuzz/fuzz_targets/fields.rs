//! Fields that the policy reads: no value of any of them panics, hangs, or is stored against what it says.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sidestep::http1::Fields;
use sidestep::policy::cache_control::CacheControl;
use sidestep::policy::groups::{GROUPS_MAX, groups, invalidated_groups};
use sidestep::policy::no_vary_search::{SearchRule, path_and_query};
use sidestep::policy::targeted::{Targeted, targeted};
use sidestep::policy::{
    Candidate, Cause, Decision, Eligibility, Now, Profile, RequestView, ResponseView, Rules, StaleVerdict, date,
    decide, eligible, freshen, is_not_modified, is_safe, named_targets, ranges, stale, store, validation_fields,
};

/// Every field that is read somewhere.
const NAMES: [&str; 36] = [
    "accept",
    "age",
    "authorization",
    "cache-control",
    "cache-group-invalidation",
    "cache-groups",
    "cdn-cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "no-vary-search",
    "pragma",
    "range",
    "set-cookie",
    "sidestep-cache-control",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "x-other",
];
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "QUERY", "get", ""];
const WALL: i64 = 784_111_777;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    method: u8,
    status: u16,
    is_safe: bool,
    delimited_by_close: bool,
    stay_ms: u32,
    step_s: i16,
    /// Lines: two targets, field lines of the request, an empty line, field lines of the response. A field line
    /// begins with the number of its name: text that the fuzzer can cut and join.
    text: &'a [u8],
}

/// The field lines up to an empty one, as `http1` hands them over: without white space around their values.
fn fields<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> Vec<(&'static str, &'a [u8])> {
    let lines = lines.take_while(|line| !line.is_empty()).filter(|line| !line.contains(&0));
    let named = |line: &'a [u8]| {
        let (name, value) = line.split_first()?;
        Some((NAMES[usize::from(*name) % NAMES.len()], value.trim_ascii()))
    };
    lines.filter_map(named).collect()
}

fuzz_target!(|input: Input| {
    let method = METHODS[usize::from(input.method) % METHODS.len()].as_bytes();
    let mut lines = input.text.split(|b| *b == b'\n');
    let (target, other_target) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    // Without exactly one Host nothing is looked up.
    let asked = Fields::from_pairs([("host", b"a".as_slice())].into_iter().chain(fields(&mut lines)));
    let answered = Fields::from_pairs(fields(&mut lines));
    values(&answered, method);
    queries(&SearchRule::of(&answered), path_and_query(target).1, path_and_query(other_target).1);

    let profile = if input.is_safe { Profile::Safe } else { Profile::Rfc9111 };
    let rules = Rules { profile, ..Rules::default() };
    let request = RequestView { method, target, fields: &asked };
    let response = ResponseView {
        status: input.status,
        fields: &answered,
        delimited_by_close: input.delimited_by_close,
    };
    if eligible(&request, &rules) != Eligibility::Lookup {
        return;
    }
    let received = Now { boot: Duration::from_secs(1000), wall: WALL };
    let Ok(stored) = store(&request, &response, &rules, received, received) else { return };
    // In rfc9111 a targeted field takes the place of Cache-Control (RFC 9213 §2.2).
    let is_replaced = !input.is_safe && matches!(targeted(&answered), Targeted::Given(_));
    assert!(!CacheControl::of(&asked).no_store && (is_replaced || !CacheControl::of(&answered).private));
    let stay = Duration::from_millis(input.stay_ms.into());
    let now = Now { boot: received.boot + stay, wall: WALL + i64::from(input.step_s) };
    let candidate = Candidate { stored: &stored, content_bytes: u64::from(input.stay_ms) };
    if let Decision::Reuse { age, revalidate, .. } =
        decide(&request, std::iter::once(candidate), &rules, now)
    {
        assert!(age >= stay && stay < rules.resident_max && (revalidate || age < stored.lifetime));
        assert!(!revalidate || !(stored.must_revalidate || stored.no_cache));
        let _ = (is_not_modified(&request, &stored, now.wall), ranges(&request, &stored, candidate.content_bytes));
    }
    for cause in [Cause::Disconnected, Cause::Error(503), Cause::Late] {
        if let StaleVerdict::Reuse { age } = stale(&request, &stored, &rules, now, cause) {
            assert!(age < stored.lifetime || !(stored.must_revalidate || stored.no_cache));
        }
    }
    let one = || std::iter::once(&stored);
    let _ = validation_fields(&request, one(), 0);
    let confirmation = ResponseView { status: 304, ..response };
    for (_, new) in freshen(&request, one(), &confirmation, &rules, received, now) {
        assert!(new.refused.is_none() || new.lifetime.is_zero() && new.no_cache);
    }
    let _ = named_targets(&request, b"a", &response);
});

/// What holds for each field alone.
fn values(answered: &Fields, method: &[u8]) {
    for (_, value) in answered.iter() {
        if let Some(moment) = date::parse(value, WALL).filter(|moment| *moment >= 0) {
            assert_eq!(date::parse(date::format(moment).as_bytes(), WALL), Some(moment));
        }
    }
    if let Targeted::Given(control) = targeted(answered) {
        assert!(!control.malformed);
    }
    if let Some(groups) = groups(answered) {
        assert!(groups.len() <= GROUPS_MAX && groups.is_sorted());
    }
    assert!(!is_safe(method) || invalidated_groups(method, answered).is_empty());
}

fn queries(rule: &SearchRule, a: &[u8], b: &[u8]) {
    assert!(rule.equivalent(a, a));
    assert_eq!(rule.equivalent(a, b), rule.equivalent(b, a));
}
