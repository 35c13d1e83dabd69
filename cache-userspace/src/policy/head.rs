//! What the answer to a HEAD changes of the stored GETs (RFC 9111 §4.3.5).
//!
//! Putting the new forms in place of the old ones is left to `store`.

use std::time::Duration;

use super::{
    Candidate, Eligibility, Now, Profile, RequestView, ResponseView, Rules, Stored, eligible,
    entity_tag::only,
    freshen::may_update,
    kept::is_of_other_content,
    storing::{Arrival, length},
};

/// The variants that a 200 to HEAD concerns and their new forms (§4.3.5): updated (§3.2) where it is about the same
/// content, else to be validated before each use, with a lifetime of zero.
///
/// `safe` updates only what a validator identifies, and leaves alone what nothing is said about.
pub fn update_by_head<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = Candidate<'a>> + Clone,
    response: &ResponseView<'_>,
    rules: &Rules,
    requested_at: Now,
    received_at: Now,
) -> Vec<(usize, Stored)> {
    if request.method != b"HEAD" || response.status != 200 || eligible(request, rules) != Eligibility::Lookup
    {
        return Vec::new();
    }
    let arrival = Arrival::of(request, response.fields, rules, requested_at, received_at);
    let updated = |(index, candidate): (usize, Candidate<'_>)| {
        let stored = candidate.stored;
        if !may_update(stored, request, rules) {
            return None;
        }
        let form = match compare(candidate, response) {
            Comparison::Other => outdated(stored),
            Comparison::Unknown if rules.profile == Profile::Safe => return None,
            Comparison::Same | Comparison::Unknown => {
                let new = arrival.update(stored, response);
                // Nobody is answered with it, so that nothing of it is wanted.
                if new.refused.is_some() { outdated(stored) } else { new }
            }
        };
        Some((index, form))
    };
    variants.enumerate().filter_map(updated).collect()
}

/// What a HEAD says of the content that is stored.
enum Comparison {
    Same,
    Other,
    Unknown,
}

fn compare(candidate: Candidate<'_>, response: &ResponseView<'_>) -> Comparison {
    let stored = candidate.stored;
    let complete = stored.complete_bytes(candidate.content_bytes);
    let has_other_length =
        response.fields.values("content-length").any(|value| length(value) != Some(complete));
    let is_other =
        |name| response.fields.contains(name) && only(response.fields, name) != only(&stored.fields, name);
    // 206: a part is stored as if of a 200 (§3.3).
    if !matches!(stored.status, 200 | 206)
        || has_other_length
        || is_of_other_content(&stored.fields, response.fields)
        || is_other("etag")
        || is_other("last-modified")
    {
        return Comparison::Other;
    }
    let is_identified = response.fields.contains("etag") || response.fields.contains("last-modified");
    if is_identified { Comparison::Same } else { Comparison::Unknown }
}

fn outdated(stored: &Stored) -> Stored {
    Stored { lifetime: Duration::ZERO, no_cache: true, ..stored.clone() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{Pairs, STORED_AT, after, fields, rules, stored},
        *,
    };
    use crate::http1::Fields;

    const TAG: (&str, &str) = ("etag", "\"a\"");
    const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");

    fn answered(
        profile: Profile,
        asked: Pairs<'_>,
        stored: &Stored,
        status: u16,
        answer: Pairs<'_>,
    ) -> Option<Stored> {
        let asked = fields(asked);
        let answer = Fields::from_pairs([("cache-control", "max-age=7")].iter().chain(answer).copied());
        let request = RequestView { method: b"HEAD", target: b"/", fields: &asked };
        let response = ResponseView { status, fields: &answer, delimited_by_close: false };
        let candidates = [Candidate { stored, content_bytes: 5 }].into_iter();
        let updated =
            update_by_head(&request, candidates, &response, &rules(profile), after(100), after(100));
        updated.into_iter().next().map(|(_, new)| new)
    }

    #[test]
    fn a_head_updates_the_same_content_and_outdates_other_content_rfc9111_4_3_5() {
        let of =
            |pairs: Pairs<'_>| stored(&[], &[&[("cache-control", "max-age=60")], pairs].concat(), STORED_AT);
        // stored, HEAD, lifetime and no-cache in safe, in rfc9111
        type Row<'a> = (Pairs<'a>, Pairs<'a>, Option<(u64, bool)>, Option<(u64, bool)>);
        let (updated, outdated) = (Some((7, false)), Some((0, true)));
        let rows: &[Row<'_>] = &[
            (&[TAG], &[TAG, ("content-length", "5")], updated, updated),
            (&[TAG, MODIFIED], &[MODIFIED], updated, updated),
            (&[MODIFIED], &[MODIFIED], updated, updated),
            (&[], &[], None, updated),
            (&[TAG], &[("content-length", "5")], None, updated),
            (&[TAG], &[TAG, ("content-length", "6")], outdated, outdated),
            (&[TAG], &[("content-length", "x")], outdated, outdated),
            (&[TAG], &[("etag", "\"b\"")], outdated, outdated),
            (&[TAG], &[("etag", "W/\"a\"")], outdated, outdated),
            (&[], &[TAG], outdated, outdated),
            (
                &[TAG, MODIFIED],
                &[TAG, ("last-modified", "Sun, 06 Nov 1994 08:00:01 GMT")],
                outdated,
                outdated,
            ),
            (&[TAG], &[TAG, ("content-encoding", "br")], outdated, outdated),
            (&[TAG], &[TAG, ("cache-control", "no-store")], outdated, outdated),
            (&[TAG], &[TAG, ("vary", "*")], outdated, outdated),
            (&[TAG], &[TAG, ("set-cookie", "a=b")], outdated, updated),
        ];
        for (pairs, answer, safe, rfc9111) in rows {
            for (profile, expected) in [(Profile::Safe, safe), (Profile::Rfc9111, rfc9111)] {
                let new = answered(profile, &[], &of(pairs), 200, answer);
                let seen = new.map(|new| (new.lifetime.as_secs(), new.no_cache));
                assert_eq!(seen, *expected, "{profile} {pairs:?} {answer:?}");
            }
        }
        for status in [204, 206, 304, 404, 410, 500] {
            assert!(answered(Profile::Rfc9111, &[], &of(&[TAG]), status, &[TAG]).is_none(), "{status}");
        }
        assert!(
            answered(Profile::Safe, &[("authorization", "x")], &of(&[TAG]), 200, &[TAG]).is_none(),
            "§3.5"
        );
        let missing = Stored { status: 404, ..of(&[TAG]) };
        assert!(answered(Profile::Safe, &[], &missing, 200, &[TAG]).unwrap().no_cache);
    }

    #[test]
    fn what_is_outdated_keeps_nothing_of_the_head() {
        let old = stored(&[], &[("cache-control", "max-age=60"), TAG], STORED_AT);
        let new = answered(Profile::Safe, &[], &old, 200, &[("etag", "\"b\""), ("x", "1")]).unwrap();
        assert!(!new.fields.contains("x") && new.refused.is_none());
        assert_eq!(new.fresh_for(&rules(Profile::Safe), after(1)), Duration::ZERO);
    }

    #[test]
    fn the_length_of_a_part_is_that_of_its_representation_rfc9111_3_3() {
        let part = crate::policy::Part { first: 0, last: 4, complete: 100 };
        let whole = stored(&[], &[("cache-control", "max-age=60"), TAG], STORED_AT);
        let stored = Stored { status: 206, part: Some(part), ..whole };
        let judge =
            |length| answered(Profile::Safe, &[], &stored, 200, &[TAG, ("content-length", length)]).unwrap();
        let new = judge("100");
        assert_eq!((new.status, new.part, new.no_cache), (206, Some(part), false));
        assert!(judge("5").no_cache);
    }
}
