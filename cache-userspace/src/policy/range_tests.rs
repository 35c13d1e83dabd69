//! Tables of what `range` makes of a request, each with its clause, and what holds for every input.

use proptest::prelude::*;

use super::*;
use crate::policy::freshness::STRONG_AFTER_S;

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const MODIFIED_S: i64 = 784_111_777;

fn span(first: u64, last: u64) -> Span {
    Span { first, last }
}

fn one(first: u64, last: u64) -> Plan {
    Plan::One(span(first, last))
}

fn many(spans: &[(u64, u64)]) -> Plan {
    Plan::Many(spans.iter().map(|(first, last)| span(*first, *last)).collect())
}

fn planned(pairs: &[(&str, &str)], complete: u64) -> Plan {
    let stored = Validators {
        etag: Some(b"\"a\""),
        last_modified: Some(MODIFIED.as_bytes()),
        date: MODIFIED_S + STRONG_AFTER_S,
    };
    plan(&Fields::from_pairs(pairs.iter().copied()), b"GET", &stored, complete, None)
}

#[test]
fn one_range_is_read_as_written_rfc9110_14_1_2() {
    for (range, complete, expected) in [
        ("bytes=0-0", 10, one(0, 0)),
        ("bytes=0-4", 10, one(0, 4)),
        ("bytes=4-", 10, one(4, 9)),
        ("bytes=0-", 10, one(0, 9)),
        // The last position may be after the end, however far.
        ("bytes=4-10", 10, one(4, 9)),
        ("bytes=4-99999999999999999999999999", 10, one(4, 9)),
        // A suffix, which may be longer than what there is.
        ("bytes=-1", 10, one(9, 9)),
        ("bytes=-10", 10, one(0, 9)),
        ("bytes=-11", 10, one(0, 9)),
        ("bytes=-99999999999999999999999999", 10, one(0, 9)),
        ("bytes=0000-0004", 10, one(0, 4)),
        ("bytes=0-", u64::MAX, one(0, u64::MAX - 1)),
        // §14.1: units are compared without case.
        ("BYTES=0-4", 10, one(0, 4)),
        // §5.6.1: empty members of a list are nothing.
        ("bytes=,0-4 ,, ", 10, one(0, 4)),
        ("bytes= ,0-4", 10, one(0, 4)),
        // §15.3.7.2: one that can be satisfied remains.
        ("bytes=0-4,20-30", 10, one(0, 4)),
        ("bytes=-0,0-4", 10, one(0, 4)),
    ] {
        assert_eq!(planned(&[("Range", range)], complete), expected, "{range}");
    }
}

#[test]
fn several_ranges_are_answered_in_the_order_asked_for_rfc9110_15_3_7_2() {
    for (range, expected) in [
        ("bytes=0-1,3-4", many(&[(0, 1), (3, 4)])),
        ("bytes=-1, 0-0\t,5-6", many(&[(9, 9), (0, 0), (5, 6)])),
        ("bytes=0-1,2-", many(&[(0, 1), (2, 9)])),
    ] {
        assert_eq!(planned(&[("rAnGe", range)], 10), expected, "{range}");
    }
}

#[test]
fn what_is_no_range_of_bytes_is_ignored_rfc9110_14_2() {
    for range in [
        // A unit that is not understood.
        "items=0-4",
        "none",
        "=0-4",
        " bytes=0-4",
        "bytes =0-4",
        // An invalid ranges-specifier.
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes= 0-4",
        "bytes=-",
        "bytes=--1",
        "bytes=4",
        "bytes=4-3",
        "bytes=0-4;5-6",
        "bytes=0 - 4",
        "bytes=0x0-4",
        "bytes=+0-4",
        "bytes=0-4-5",
        "bytes=0-4,x",
        "bytes=0-4,9-8",
        "bytes=0-4,bytes=6-7",
        "bytes:0-4",
    ] {
        assert_eq!(planned(&[("Range", range)], 10), Plan::Whole, "{range}");
    }
    assert_eq!(planned(&[], 10), Plan::Whole);
}

#[test]
fn ranges_are_for_get_and_for_content_rfc9110_14_2() {
    let request = Fields::from_pairs([("Range", "bytes=0-4")]);
    for method in ["HEAD", "POST", "QUERY", "get", ""] {
        let planned = plan(&request, method.as_bytes(), &Validators::default(), 10, None);
        assert_eq!(planned, Plan::Whole, "{method}");
    }
    for range in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
        assert_eq!(planned(&[("Range", range)], 0), Plan::Whole, "{range}");
    }
}

#[test]
fn what_cannot_be_satisfied_is_the_origins_to_answer_rfc9110_15_5_17() {
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-", "bytes=10-,20-21"] {
        assert_eq!(planned(&[("Range", range)], 10), Plan::Forward, "{range}");
    }
    assert_eq!(planned(&[("Range", "bytes=0-1"), ("range", "bytes=2-3")], 10), Plan::Forward);
}

#[test]
fn overlapping_and_too_many_ranges_are_forwarded_rfc9110_17_15() {
    for range in ["bytes=0-4,4-5", "bytes=0-,-1", "bytes=3-4,0-9", "bytes=0-0,0-0"] {
        assert_eq!(planned(&[("Range", range)], 10), Plan::Forward, "{range}");
    }
    let ranges = |count: usize| {
        let specs: Vec<String> = (0..count).map(|n| format!("{}-{}", n * 3, n * 3 + 1)).collect();
        planned(&[("Range", &format!("bytes={}", specs.join(",")))], 1000)
    };
    assert!(matches!(ranges(RANGES_MAX), Plan::Many(spans) if spans.len() == RANGES_MAX));
    assert_eq!(ranges(RANGES_MAX + 1), Plan::Forward);
    // Those that cannot be satisfied count as well.
    let range = format!("bytes=0-1{}", ",99-".repeat(RANGES_MAX));
    assert_eq!(planned(&[("Range", &range)], 10), Plan::Forward);
}

#[test]
fn if_range_is_a_strong_comparison_rfc9110_13_1_5() {
    for (condition, expected) in [
        ("\"a\"", one(0, 4)),
        (MODIFIED, one(0, 4)),
        ("\"b\"", Plan::Whole),
        ("W/\"a\"", Plan::Whole),
        ("a", Plan::Whole),
        ("\"a", Plan::Whole),
        ("\"a\", \"b\"", Plan::Whole),
        ("*", Plan::Whole),
        ("", Plan::Whole),
        // Exactly the same date, neither later nor in another form.
        ("Sun, 06 Nov 1994 08:49:38 GMT", Plan::Whole),
        ("Sun Nov  6 08:49:37 1994", Plan::Whole),
    ] {
        let pairs = [("Range", "bytes=0-4"), ("If-Range", condition)];
        assert_eq!(planned(&pairs, 10), expected, "{condition}");
    }
    let twice = [("Range", "bytes=0-4"), ("If-Range", "\"a\""), ("if-range", "\"a\"")];
    assert_eq!(planned(&twice, 10), Plan::Whole);
    // A false condition makes even a Range that leaves doubt be ignored.
    let doubtful = [("Range", "bytes=0-1"), ("Range", "bytes=2-3"), ("If-Range", "\"b\"")];
    assert_eq!(planned(&doubtful, 10), Plan::Whole);
    // Without Range it says nothing.
    assert_eq!(planned(&[("If-Range", "\"a\"")], 10), Plan::Whole);
}

#[test]
fn weak_and_missing_validators_make_no_condition_true_rfc9110_8_8_2_2() {
    let planned = |stored: &[(&str, &str)], date: i64, condition: &str| {
        let stored = Fields::from_pairs(stored.iter().copied());
        let request = Fields::from_pairs([("Range", "bytes=0-4"), ("If-Range", condition)]);
        plan(&request, b"GET", &Validators::of(&stored, date), 10, None)
    };
    let modified = [("Last-Modified", MODIFIED)];
    let (late, early) = (MODIFIED_S + STRONG_AFTER_S, MODIFIED_S + STRONG_AFTER_S - 1);
    for (stored, date, condition, expected) in [
        (&[("ETag", "\"a\"")][..], late, "\"a\"", one(0, 4)),
        (&[("ETag", "W/\"a\"")], late, "\"a\"", Plan::Whole),
        (&[("ETag", "W/\"a\"")], late, "W/\"a\"", Plan::Whole),
        (&[("ETag", "\"a\""), ("ETag", "\"a\"")], late, "\"a\"", Plan::Whole),
        (&[("ETag", "a")], late, "a", Plan::Whole),
        (&[], late, "\"a\"", Plan::Whole),
        (&[], late, MODIFIED, Plan::Whole),
        (&modified, late, MODIFIED, one(0, 4)),
        (&modified, early, MODIFIED, Plan::Whole),
        (&modified, i64::MIN, MODIFIED, Plan::Whole),
        (&[("Last-Modified", "yesterday")], late, "yesterday", Plan::Whole),
        (&[modified[0], modified[0]], late, MODIFIED, Plan::Whole),
    ] {
        assert_eq!(planned(stored, date, condition), expected, "{stored:?} {condition}");
    }
}

#[test]
fn a_stored_part_answers_only_what_it_holds_rfc9111_3_3() {
    let planned = |range: Option<&str>, method: &str, part: Span| {
        let request = Fields::from_pairs(range.map(|range| ("Range", range)));
        plan(&request, method.as_bytes(), &Validators::default(), 10, Some(part))
    };
    for (range, part, expected) in [
        (Some("bytes=4-9"), span(4, 9), one(4, 9)),
        (Some("bytes=6-8"), span(4, 9), one(6, 8)),
        (Some("bytes=6-"), span(4, 9), one(6, 9)),
        (Some("bytes=-1"), span(4, 9), one(9, 9)),
        (Some("bytes=4-5,8-9"), span(4, 9), many(&[(4, 5), (8, 9)])),
        (Some("bytes=3-5"), span(4, 9), Plan::Forward),
        (Some("bytes=5-6"), span(0, 5), Plan::Forward),
        (Some("bytes=-1"), span(0, 5), Plan::Forward),
        (Some("bytes=0-1,8-9"), span(4, 9), Plan::Forward),
        (Some("bytes=99-"), span(0, 9), Plan::Forward),
        (Some("items=0-1"), span(4, 9), Plan::Forward),
        (None, span(4, 9), Plan::Forward),
        (None, span(0, 8), Plan::Forward),
        (None, span(0, 9), Plan::Whole),
        (None, span(0, u64::MAX), Plan::Forward),
    ] {
        assert_eq!(planned(range, "GET", part), expected, "{range:?} {part:?}");
    }
    assert_eq!(planned(Some("bytes=4-9"), "HEAD", span(4, 9)), Plan::Forward);
}

#[test]
fn a_content_range_is_read_strictly_rfc9110_14_4() {
    for (value, expected) in [
        ("bytes 0-4/10", Some((0, 4, Some(10)))),
        ("bytes 4-9/10", Some((4, 9, Some(10)))),
        ("bytes 4-9/*", Some((4, 9, None))),
        ("Bytes 0-0/1", Some((0, 0, Some(1)))),
        ("bytes */10", None),
        ("bytes 4-10/10", None),
        ("bytes 5-4/10", None),
        ("bytes 0-4", None),
        ("bytes 0-4/", None),
        ("bytes 0-/10", None),
        ("bytes -4/10", None),
        ("bytes /10", None),
        ("bytes  0-4/10", None),
        ("bytes 0 - 4/10", None),
        ("bytes 0-4 /10", None),
        ("bytes 0-4/10 ", None),
        ("bytes=0-4/10", None),
        ("bytes: 0-4/10", None),
        ("items 0-4/10", None),
        ("bytes 0/4-10", None),
        ("bytes 0-4/-1", None),
        ("bytes 0-4/10, bytes 5-9/10", None),
        ("bytes 0-18446744073709551615/*", None),
        ("bytes 0-18446744073709551616/*", None),
        ("bytes 0-4/99999999999999999999", None),
        ("bytes 0-18446744073709551613/18446744073709551614", Some((0, u64::MAX - 2, Some(u64::MAX - 1)))),
        ("", None),
    ] {
        let expected =
            expected.map(|(first, last, complete)| ContentRange { span: span(first, last), complete });
        assert_eq!(content_range(value.as_bytes()), expected, "{value}");
    }
}

#[test]
fn parts_are_joined_where_they_touch_or_overlap_rfc9110_15_3_7_3() {
    for (a, b, expected) in [
        ((0, 4), (5, 9), Some((0, 9))),
        ((0, 5), (5, 9), Some((0, 9))),
        ((0, 9), (3, 4), Some((0, 9))),
        ((0, 4), (0, 4), Some((0, 4))),
        ((0, 4), (6, 9), None),
        ((0, u64::MAX), (u64::MAX, u64::MAX), Some((0, u64::MAX))),
    ] {
        let (a, b) = (span(a.0, a.1), span(b.0, b.1));
        let expected = expected.map(|(first, last)| span(first, last));
        assert_eq!((joined(a, b), joined(b, a)), (expected, expected), "{a:?} {b:?}");
    }
}

/// Specs near a length, so that most of them mean something.
fn range_value() -> impl Strategy<Value = String> {
    let spec = prop_oneof![
        (0..40_u64, 0..40_u64).prop_map(|(first, length)| format!("{first}-{}", first + length)),
        (0..40_u64).prop_map(|first| format!("{first}-")),
        (0..40_u64).prop_map(|length| format!("-{length}")),
        "[0-9, -]{0,6}",
    ];
    prop_oneof![
        8 => prop::collection::vec(spec, 0..20).prop_map(|specs| format!("bytes={}", specs.join(","))),
        1 => "[ -~]{0,30}",
    ]
}

proptest! {
    #[test]
    fn planned_spans_are_stored_and_disjoint(
        range in range_value(), complete in 0..50_u64, part in prop::option::of((0..50_u64, 0..50_u64)),
    ) {
        let part = part.map(|(first, length)| span(first.min(complete), complete.min(first + length)));
        let request = Fields::from_pairs([("Range", &range)]);
        let spans = match plan(&request, b"GET", &Validators::default(), complete, part) {
            Plan::Whole | Plan::Forward => vec![],
            Plan::One(span) => vec![span],
            Plan::Many(spans) => {
                prop_assert!((2..=RANGES_MAX).contains(&spans.len()));
                spans
            }
        };
        for (index, span) in spans.iter().enumerate() {
            prop_assert!(span.first <= span.last && span.last < complete);
            prop_assert!(part.is_none_or(|part| part.holds(*span)));
            prop_assert!(spans.iter().skip(index + 1).all(|other| !other.overlaps(*span)));
        }
    }

    #[test]
    fn planned_spans_come_in_the_order_asked_for(starts in prop::collection::vec(0..1000_u64, 1..RANGES_MAX)) {
        let specs: Vec<String> = starts.iter().map(|first| format!("{first}-{first}")).collect();
        let request = Fields::from_pairs([("Range", format!("bytes={}", specs.join(", ")))]);
        if let Plan::Many(spans) = plan(&request, b"GET", &Validators::default(), 1000, None) {
            prop_assert_eq!(spans.iter().map(|span| span.first).collect::<Vec<_>>(), starts);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        range in prop::collection::vec(any::<u8>(), 0..60), condition in prop::collection::vec(any::<u8>(), 0..40),
        complete in any::<u64>(), part in any::<(u64, u64)>(), date in any::<i64>(),
    ) {
        let stored = Validators { etag: Some(&condition), last_modified: Some(&condition), date };
        let request = Fields::from_pairs([("range", &range), ("if-range", &condition)]);
        let part = Some(span(part.0, part.1));
        let _ = plan(&request, b"GET", &stored, complete, part);
        let _ = content_range(&range);
    }

    #[test]
    fn a_content_range_that_is_read_is_valid(value in "bytes [0-9]{0,20}-[0-9]{0,20}/([0-9]{0,20}|\\*)") {
        if let Some(ContentRange { span, complete }) = content_range(value.as_bytes()) {
            prop_assert!(span.first <= span.last && complete.is_none_or(|complete| span.last < complete));
            prop_assert!(span.bytes() > 0);
        }
    }
}
