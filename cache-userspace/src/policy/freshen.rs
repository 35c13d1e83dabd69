//! What a 304 changes of what is stored (RFC 9111 §4.3.4, §3.2).
//!
//! Putting the new forms in place of the old ones is left to `store`; sending the answer to `respond`.

use std::time::Duration;

use super::{
    Eligibility, Now, RequestView, ResponseView, Rules, Stored,
    date::parse,
    decide::is_for,
    eligible,
    entity_tag::{entity_tag, is_weak, only, opaque},
    freshness::is_strong,
    kept::{bounded, is_of_other_content, kept, updated},
    storing::{Arrival, Purpose, is_authorized},
    validate::is_selected_by,
};

/// The variants that a 304 updates and their new forms (§4.3.4, §3.2). Empty: it is about nothing that is stored.
///
/// `request` is the client's, without the conditions of ours. A new form with `refused` answers this request only. A
/// variant that was validated for this request, but that the 304 must not update, comes back as it was.
pub fn freshen<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = &'a Stored> + Clone,
    response: &ResponseView<'_>,
    rules: &Rules,
    requested_at: Now,
    received_at: Now,
) -> Vec<(usize, Stored)> {
    // RFC 9111 §5.2.1.5: no part of such an answer may be stored.
    if response.status != 304 || eligible(request, rules) != Eligibility::Lookup {
        return Vec::new();
    }
    let selected: Vec<(usize, &Stored)> =
        variants.enumerate().filter(|(_, stored)| is_selected_by(stored, request)).collect();
    let candidates: Vec<(usize, &Stored)> =
        selected.iter().copied().filter(|(_, stored)| may_update(stored, request, rules)).collect();
    // The conditions of all that are selected may have been sent.
    let sole =
        if let ([_], [sole]) = (selected.as_slice(), candidates.as_slice()) { Some(*sole) } else { None };
    let arrival = Arrival::of(request, response.fields, rules, requested_at, received_at);
    let validator = Validator::of(response, received_at.wall);
    let is_about = |(_, stored): &(usize, &Stored)| !is_of_other_content(&stored.fields, response.fields);
    let mut identified = validator.identify(&candidates, sole);
    identified.retain(is_about);
    if let (true, false, Some((index, stored))) =
        (identified.is_empty(), is_conditional(request), sole.filter(is_about))
    {
        let new = arrival.update(stored, response);
        return match validator.of_sole(stored) {
            Sole::Updated => vec![(index, new)],
            Sole::Validated if new.refused.is_some() => vec![(index, new)],
            Sole::Validated => vec![(index, stored.clone())],
            Sole::Other => Vec::new(),
        };
    }
    identified.into_iter().map(|(index, stored)| (index, arrival.update(stored, response))).collect()
}

/// Whether the answer to this request may change the stored response: it could have been selected, were it fresh, and
/// may be given to such clients (§3.5).
pub(super) fn may_update(stored: &Stored, request: &RequestView<'_>, rules: &Rules) -> bool {
    is_selected_by(stored, request)
        // What arrives is not in that coding.
        && !stored.is_coded
        && is_for(request, stored, rules)
        && (stored.shared_with_authorization || !is_authorized(request))
}

impl Arrival<'_> {
    /// The stored response with the fields of the one that arrives (§3.2), judged anew.
    ///
    /// Where they no longer allow storing, it is good for this one answer (`refused`).
    pub(super) fn update(&self, stored: &Stored, response: &ResponseView<'_>) -> Stored {
        let fields = updated(&stored.fields, &kept(response.fields, self.date.earliest, false));
        let judged =
            bounded(&fields).and_then(|()| self.judge(stored.status, stored.part, &fields, Purpose::Update));
        match judged.and_then(|new| stored.selection.has_room_for(&new.selection).map(|()| new)) {
            // A new Vary adds to the fields that selected it; it never widens whom it is for.
            Ok(new) => Stored {
                selection: stored.selection.clone().and(new.selection),
                // What is stored for its own query only is not looked for by another.
                search: stored.search.as_ref().map(|search| Box::new(search.updated(&fields))),
                ..new
            },
            Err(reason) => Stored {
                fields,
                corrected_initial_age: self.age,
                received: self.received_at.boot,
                date: self.date.earliest,
                lifetime: Duration::ZERO,
                no_cache: true,
                refused: Some(reason),
                ..stored.clone()
            },
        }
    }
}

/// What a 304 means for the only response that it can be about.
enum Sole {
    Updated,
    Validated,
    Other,
}

/// What a 304 names the representation by (RFC 9110 §8.8).
struct Validator<'a> {
    tag: Option<&'a [u8]>,
    last_modified: Option<i64>,
}

impl<'a> Validator<'a> {
    fn of(response: &'a ResponseView<'_>, wall: i64) -> Self {
        let last_modified = only(response.fields, "last-modified").and_then(|value| parse(value, wall));
        Self { tag: entity_tag(response.fields), last_modified }
    }

    /// The first match of §4.3.4.
    fn identify<'s>(
        &self,
        candidates: &[(usize, &'s Stored)],
        sole: Option<(usize, &'s Stored)>,
    ) -> Vec<(usize, &'s Stored)> {
        let matching = candidates.iter().copied();
        match (self.tag, self.last_modified) {
            (Some(tag), _) if !is_weak(tag) => {
                matching.filter(|(_, stored)| self.is_strongly_of(stored, tag)).collect()
            }
            (None, None) => sole.into_iter().filter(|(_, stored)| !stored.has_validator()).collect(),
            _ => matching
                .filter(|(_, stored)| self.is_weakly_of(stored))
                .max_by_key(|(_, stored)| (stored.date, stored.received))
                .into_iter()
                .collect(),
        }
    }

    /// What a 304 says that §4.3.4 does not identify, where it can only answer our own condition on the one response
    /// that we have: this one can be reused (§4.3.3).
    fn of_sole(&self, stored: &Stored) -> Sole {
        match (self.tag, self.last_modified) {
            // RFC 9110 §15.4.5: a 304 need not repeat Last-Modified, so nothing is missing that would identify it.
            (None, None) if stored.entity_tag().is_none() => Sole::Updated,
            // The tag that it should have repeated is missing.
            (None, None) => Sole::Validated,
            // Some servers weaken the tag of what they compress, but not that of a 304. §4.3.4: such a 304 MUST NOT
            // update; If-None-Match compares weakly (RFC 9110 §13.1.2).
            (Some(_), _) if self.is_weakly_of(stored) => Sole::Validated,
            _ => Sole::Other,
        }
    }

    fn is_strongly_of(&self, stored: &Stored, tag: &[u8]) -> bool {
        match stored.entity_tag() {
            Some(own) => own == tag,
            // RFC 9110 §8.8.2.2
            None => self
                .last_modified
                .is_some_and(|at| stored.last_modified == Some(at) && is_strong(at, stored.date)),
        }
    }

    fn is_weakly_of(&self, stored: &Stored) -> bool {
        match (self.tag, stored.entity_tag()) {
            (Some(tag), Some(own)) => opaque(tag) == opaque(own),
            _ => self.last_modified.is_some() && self.last_modified == stored.last_modified,
        }
    }
}

/// Whether tags of the client's own went along with ours: then a 304 may be about these. Its If-Modified-Since never
/// does (see `validate`).
fn is_conditional(request: &RequestView<'_>) -> bool {
    request.fields.contains("if-none-match")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Profile, Reason,
            sample::{Pairs, STORED_AT, after, fields, get, rules, stored},
        },
        *,
    };
    use crate::http1::Fields;

    const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");
    const TAG: (&str, &str) = ("etag", "\"a\"");
    const FRESH: (&str, &str) = ("cache-control", "max-age=60");
    const NONE: [usize; 0] = [];

    fn of(pairs: Pairs<'_>) -> Stored {
        stored(&[], &[&[FRESH], pairs].concat(), STORED_AT)
    }

    /// A 304 that arrives after 100 seconds.
    fn answered(
        profile: Profile,
        asked: Pairs<'_>,
        variants: &[Stored],
        answer: Pairs<'_>,
    ) -> Vec<(usize, Stored)> {
        let (asked, answer) = (fields(asked), Fields::from_pairs(answer.iter().copied()));
        let response = ResponseView { status: 304, fields: &answer, delimited_by_close: false };
        let at = after(100);
        freshen(&get(&asked), variants.iter(), &response, &rules(profile), at, at)
    }

    fn identified(asked: Pairs<'_>, variants: &[Stored], answer: Pairs<'_>) -> Vec<usize> {
        let answer = [&[("cache-control", "max-age=7")], answer].concat();
        let updated = answered(Profile::Rfc9111, asked, variants, &answer);
        updated.iter().filter(|(_, new)| new.lifetime.as_secs() == 7).map(|(index, _)| *index).collect()
    }

    #[test]
    fn a_304_updates_what_its_validator_identifies_rfc9111_4_3_4() {
        let client = ("if-none-match", "\"a\"");
        let same_second = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        type Row<'a> = (&'a str, Pairs<'a>, &'a [Stored], Pairs<'a>, &'a [usize]);
        let older =
            stored(&[], &[FRESH, ("etag", "W/\"a\""), ("date", "Sun, 06 Nov 1994 08:49:30 GMT")], STORED_AT);
        let rows: &[Row<'_>] = &[
            ("strong tag", &[client], &[of(&[TAG])], &[TAG], &[0]),
            (
                "strong tag: all that have it",
                &[],
                &[of(&[TAG]), of(&[("etag", "\"b\"")]), of(&[TAG])],
                &[TAG],
                &[0, 2],
            ),
            ("another strong tag: none", &[], &[of(&[TAG])], &[("etag", "\"b\"")], &[]),
            ("strong tag, weak stored: no update", &[], &[of(&[("etag", "W/\"a\"")])], &[TAG], &[]),
            (
                "strong tag decides before the date",
                &[],
                &[of(&[TAG, MODIFIED])],
                &[("etag", "\"b\""), MODIFIED],
                &[],
            ),
            ("strong date, tag is new", &[], &[of(&[MODIFIED])], &[TAG, MODIFIED], &[0]),
            ("weak date is no strong validator", &[], &[of(&[same_second])], &[TAG, same_second], &[]),
            ("weak tag: the newest", &[], &[of(&[TAG]), older.clone()], &[("etag", "W/\"a\"")], &[0]),
            ("weak tag: the newest", &[], &[older, of(&[TAG])], &[("etag", "W/\"a\"")], &[1]),
            ("another weak tag: none", &[], &[of(&[TAG])], &[("etag", "W/\"b\"")], &[]),
            ("date: the newest", &[], &[of(&[MODIFIED]), of(&[])], &[MODIFIED], &[0]),
            ("date, tag left out", &[client], &[of(&[TAG, MODIFIED])], &[MODIFIED], &[0]),
            ("another date: none", &[], &[of(&[MODIFIED])], &[same_second], &[]),
            ("none, one stored, without", &[client], &[of(&[])], &[], &[0]),
            ("none, one stored, only our condition", &[], &[of(&[MODIFIED])], &[], &[0]),
            ("none, one stored, its tag is missing", &[], &[of(&[TAG])], &[], &[]),
            ("none, one stored, the client's condition", &[client], &[of(&[TAG])], &[], &[]),
            ("none, two stored", &[], &[of(&[TAG]), of(&[TAG])], &[], &[]),
        ];
        for (why, asked, variants, answer, expected) in rows {
            assert_eq!(identified(asked, variants, answer), *expected, "{why}");
        }
    }

    #[test]
    fn only_what_could_have_been_selected_is_updated_rfc9111_4_3_4() {
        let other = stored(&[("x", "1")], &[FRESH, TAG, ("vary", "x")], STORED_AT);
        let refused = Stored { refused: Some(Reason::Private), ..of(&[TAG]) };
        assert_eq!(identified(&[("x", "2")], &[other.clone(), refused], &[TAG]), NONE);
        assert_eq!(identified(&[("x", "1")], &[other], &[TAG]), [0]);
        assert_eq!(identified(&[("authorization", "x")], &[of(&[TAG])], &[TAG]), NONE, "§3.5");
        assert_eq!(identified(&[("cache-control", "no-store")], &[of(&[TAG])], &[TAG]), NONE, "§5.2.1.5");
        assert!(answered(Profile::Safe, &[("cookie", "x")], &[of(&[TAG])], &[TAG]).is_empty());
    }

    #[test]
    fn a_304_that_names_no_tag_or_weakly_the_same_validates_without_updating_rfc9111_4_3_3() {
        for (tag, answer) in
            [("W/\"a\"", &[TAG, ("x", "1")][..]), ("W/\"a\"", &[("x", "1")]), ("\"a\"", &[("x", "1")])]
        {
            let updated = answered(Profile::Safe, &[], &[of(&[("etag", tag)])], answer);
            let [(0, same)] = updated.as_slice() else { panic!("{updated:?}") };
            assert!(!same.fields.contains("x") && same.received == STORED_AT.boot && same.refused.is_none());
            let forbids = [answer, &[("cache-control", "no-store")]].concat();
            let updated = answered(Profile::Safe, &[], &[of(&[("etag", tag)])], &forbids);
            assert_eq!(updated[0].1.refused, Some(Reason::ResponseNoStore));
            let client = [("if-none-match", "\"x\"")];
            assert!(answered(Profile::Safe, &client, &[of(&[("etag", tag)])], answer).is_empty());
        }
    }

    #[test]
    fn a_stored_head_does_not_grow_with_every_304() {
        let long = "x".repeat(40_000);
        for (value, times) in [("1", 600), (long.as_str(), 5)] {
            let mut old = of(&[TAG]);
            let refused = (0..times).find_map(|n| {
                let name = format!("x{n}");
                old = answered(Profile::Safe, &[], &[old.clone()], &[TAG, (&name, value)])[0].1.clone();
                old.refused
            });
            assert_eq!(refused, Some(Reason::TooLarge), "{times} fields of {} bytes", value.len());
        }
    }

    #[test]
    fn a_selection_does_not_grow_with_every_304() {
        let mut old = of(&[TAG]);
        for n in 0..64 {
            let vary = format!("x{n}");
            old = answered(Profile::Safe, &[], &[old], &[TAG, ("vary", &vary)])[0].1.clone();
            assert_eq!((old.selection.names().count(), old.refused), (n + 1, None));
        }
        let updated = answered(Profile::Safe, &[], &[old], &[TAG, ("vary", "x64")]);
        assert_eq!(updated[0].1.refused, Some(Reason::VaryStar));
    }

    #[test]
    fn a_304_about_other_bytes_freshens_nothing() {
        let variants = [of(&[TAG, ("content-encoding", "gzip")])];
        for pair in [("content-encoding", "br"), ("content-md5", "x"), ("repr-digest", "x")] {
            assert!(answered(Profile::Rfc9111, &[], &variants, &[TAG, pair]).is_empty(), "{pair:?}");
            assert!(answered(Profile::Rfc9111, &[], &variants, &[pair]).is_empty(), "{pair:?}");
        }
        assert_eq!(answered(Profile::Rfc9111, &[], &variants, &[TAG, ("content-length", "0")]).len(), 1);
    }

    #[test]
    fn lifetime_age_and_directives_are_those_of_the_304_rfc9111_4_3_4() {
        let variants = [of(&[TAG, ("x", "1"), ("y", "2")])];
        let answer = [
            TAG,
            ("cache-control", "max-age=30, must-revalidate, stale-if-error=5"),
            ("age", "3"),
            ("x", "3"),
            ("content-length", "0"),
        ];
        let updated = answered(Profile::Safe, &[], &variants, &answer);
        let [(0, new)] = updated.as_slice() else { panic!("{updated:?}") };
        assert_eq!((new.lifetime.as_secs(), new.age(after(100)).as_secs()), (30, 3));
        assert_eq!(new.stale_if_error, Some(Duration::from_secs(5)));
        assert!(new.must_revalidate && !new.no_cache);
        assert_eq!(new.received, after(100).boot);
        assert_eq!(new.fields.first("x"), Some(b"3".as_slice()));
        assert_eq!(new.fields.first("y"), Some(b"2".as_slice()));
        assert!(!new.fields.contains("content-length") && !new.fields.contains("age"));
        assert_eq!(new.fields.values("date").collect::<Vec<_>>(), [b"Sun, 06 Nov 1994 08:51:17 GMT"]);
    }

    #[test]
    fn what_the_304_leaves_out_stays_as_it_was_rfc9111_3_2() {
        let updated = answered(Profile::Safe, &[], &[of(&[TAG])], &[TAG]);
        assert_eq!(updated[0].1.lifetime.as_secs(), 60);
        let expired = stored(&[], &[TAG, ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")], STORED_AT);
        let updated = answered(Profile::Safe, &[], &[expired], &[TAG]);
        assert_eq!(updated[0].1.lifetime, Duration::ZERO, "Expires counts from the new Date");
    }

    #[test]
    fn a_304_that_forbids_storing_is_good_for_one_answer() {
        for (pair, reason) in [
            (("cache-control", "no-store"), Reason::ResponseNoStore),
            (("cache-control", "private, max-age=60"), Reason::Private),
            (("cache-control", "max-age=60, x=\""), Reason::Malformed),
            (("vary", "*"), Reason::VaryStar),
            (("vary", "cookie"), Reason::VaryCookie),
            (("set-cookie", "a=b"), Reason::SetCookie),
        ] {
            let updated = answered(Profile::Safe, &[], &[of(&[TAG])], &[TAG, pair]);
            let [(0, once)] = updated.as_slice() else { panic!("{updated:?}") };
            assert_eq!(once.refused, Some(reason), "{pair:?}");
            assert!(once.no_cache && once.lifetime.is_zero());
            assert_eq!(once.fields.first(pair.0), Some(pair.1.as_bytes()), "the client sees it");
        }
    }

    #[test]
    fn a_304_with_no_cache_makes_each_use_a_validation_rfc9111_5_2_2_4() {
        let updated =
            answered(Profile::Safe, &[], &[of(&[TAG])], &[TAG, ("cache-control", "max-age=60, no-cache")]);
        assert!(updated[0].1.no_cache && updated[0].1.refused.is_none());
        assert_eq!(updated[0].1.fresh_for(&rules(Profile::Safe), after(100)), Duration::ZERO);
    }

    #[test]
    fn a_new_vary_adds_to_what_selects_rfc9111_4_1() {
        let variants = [stored(&[("x", "1")], &[FRESH, TAG, ("vary", "x")], STORED_AT)];
        let updated = answered(Profile::Safe, &[("x", "1"), ("y", "2")], &variants, &[TAG, ("vary", "y")]);
        let selection = &updated[0].1.selection;
        assert_eq!(selection.names().collect::<Vec<_>>(), ["x", "y"]);
        assert!(selection.matches(&fields(&[("x", "1"), ("y", "2")])));
        assert!(!selection.matches(&fields(&[("x", "1")])) && !selection.matches(&fields(&[("y", "2")])));
    }

    #[test]
    fn the_groups_are_those_of_the_304_where_it_names_any_rfc9875_2() {
        let old = of(&[TAG, ("cache-groups", "\"x\"")]);
        for (answer, expected) in [(&[TAG][..], "x"), (&[TAG, ("cache-groups", "\"y\"")], "y")] {
            let updated = answered(Profile::Safe, &[], std::slice::from_ref(&old), answer);
            assert_eq!(*updated[0].1.groups, [Box::from(expected)], "{answer:?}");
        }
    }

    #[test]
    fn a_304_changes_the_rule_of_a_response_but_not_the_query_that_it_was_for_no_vary_search() {
        let any = of(&[TAG, ("no-vary-search", "params")]);
        for (old, answer, expected) in [
            (&any, &[TAG][..], [true, true, true]),
            (&any, &[TAG, ("no-vary-search", "params=(\"u\")")], [true, true, false]),
            (&any, &[TAG, ("no-vary-search", "params=?0")], [true, false, false]),
            // Stored under its own query, for which alone it is found.
            (&of(&[TAG]), &[TAG, ("no-vary-search", "params")], [true, true, true]),
        ] {
            let old = old.clone();
            let is_found_by_others = old.search.is_some();
            let new = &answered(Profile::Safe, &[], &[old], answer)[0].1;
            let answered = [b"/".as_slice(), b"/?u=1", b"/?a=1"].map(|target| new.is_of(target));
            assert_eq!((answered, new.search.is_some()), (expected, is_found_by_others), "{answer:?}");
        }
    }

    #[test]
    fn other_answers_than_304_freshen_nothing() {
        let (asked, answer) = (fields(&[]), Fields::from_pairs([TAG, FRESH]));
        let variants = [of(&[TAG])];
        for status in [200, 206, 404, 412] {
            let response = ResponseView { status, fields: &answer, delimited_by_close: false };
            let at = after(1);
            let updated = freshen(&get(&asked), variants.iter(), &response, &rules(Profile::Rfc9111), at, at);
            assert!(updated.is_empty(), "{status}");
        }
    }
}
