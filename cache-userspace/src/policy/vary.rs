//! The `Vary` field: which request fields selected a stored response, and whether a new request matches them
//! (RFC 9111 §4.1).
//!
//! Values are compared as sent, lines of one name joined; no field's own syntax is normalised, so that two requests
//! never match by our guess.

use std::collections::BTreeSet;

use super::{Profile, Reason};
use crate::http1::{Fields, scan::is_token};

/// Field names that one response may nominate: a look-up compares each with every variant. More are as good as `*`.
const NOMINATED_MAX: usize = 64;

/// The request fields that a response nominated, with the values of the request it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Sorted by lower-cased name, each once.
    nominated: Box<[Nominated]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Nominated {
    name: Box<str>,
    /// None: the field was absent, which only matches its absence.
    value: Option<Box<[u8]>>,
}

impl Selection {
    /// Reads all lines of the response's `Vary` and keeps the nominated fields of `request`.
    ///
    /// Refuses `*` in any member, more than [`NOMINATED_MAX`] names, a member that is no field name and, in `safe`, Cookie and Authorization. In `safe`,
    /// encoded content varies by Accept-Encoding even if the origin server forgets to say so (nginx does by default):
    /// a client that did not ask for it could not read it.
    pub fn of(response: &Fields, request: &Fields, profile: Profile) -> Result<Self, Reason> {
        let mut names = Vec::new();
        for member in response.tokens("vary") {
            // RFC 9111 §4.1: a member "*" never matches.
            if member.contains(&b'*') {
                return Err(Reason::VaryStar);
            }
            let Some(name) = std::str::from_utf8(member).ok().filter(|m| m.bytes().all(is_token)) else {
                return Err(Reason::Malformed);
            };
            names.push(name.to_ascii_lowercase());
        }
        let is_encoded = |coding: &[u8]| !coding.eq_ignore_ascii_case(b"identity");
        if profile == Profile::Safe && response.tokens("content-encoding").any(is_encoded) {
            names.push("accept-encoding".to_owned());
        }
        names.sort_unstable();
        names.dedup();
        if names.len() > NOMINATED_MAX {
            return Err(Reason::VaryStar);
        }
        if profile == Profile::Safe && names.iter().any(|n| n == "cookie" || n == "authorization") {
            return Err(Reason::VaryCookie);
        }
        let nominated = names
            .into_iter()
            .map(|name| Nominated { value: joined(request, &name), name: name.into_boxed_str() });
        Ok(Self { nominated: nominated.collect() })
    }

    /// Whether every nominated field of `request` has the value of the original request (RFC 9111 §4.1).
    pub fn matches(&self, request: &Fields) -> bool {
        self.nominated.iter().all(|field| field.matches(request))
    }

    /// Nominates one field (lower-cased) of `request`, whatever the response says.
    pub(super) fn by(name: &str, request: &Fields) -> Self {
        Self { nominated: Box::new([Nominated { value: joined(request, name), name: name.into() }]) }
    }

    /// What matches both: a stored response that was selected by one and says by now that it is selected by the other.
    ///
    /// Where both nominate a field, the value is the one of `self`.
    pub fn and(self, other: Self) -> Self {
        let is_new = |field: &Nominated| !self.nominated.iter().any(|old| old.name == field.name);
        let new: Vec<Nominated> = other.nominated.iter().filter(|field| is_new(field)).cloned().collect();
        if new.is_empty() {
            return self;
        }
        let mut nominated: Vec<Nominated> = self.nominated.into_vec();
        nominated.extend(new);
        nominated.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Self { nominated: nominated.into_boxed_slice() }
    }

    /// Refuses (`vary-star`) if both together nominate more than [`NOMINATED_MAX`] names, so that no series of updates
    /// makes a selection grow for ever.
    pub(super) fn has_room_for(&self, other: &Self) -> Result<(), Reason> {
        let both = self.names().chain(other.names()).collect::<BTreeSet<_>>();
        if both.len() > NOMINATED_MAX { Err(Reason::VaryStar) } else { Ok(()) }
    }

    /// The names that were nominated, lower-cased and sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nominated.iter().map(|field| field.name.as_ref())
    }

    /// The names that were nominated with the values that selected; `None`: the field was absent.
    pub fn nominated(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.nominated.iter().map(|field| (field.name.as_ref(), field.value.as_deref()))
    }

    /// Bytes that the selection occupies on the heap.
    pub fn heap_bytes(&self) -> u64 {
        let of = |field: &Nominated| {
            size_of::<Nominated>() + field.name.len() + field.value.as_deref().map_or(0, <[u8]>::len)
        };
        self.nominated.iter().map(of).sum::<usize>() as u64
    }
}

impl Nominated {
    /// Compares without joining: look-ups allocate nothing.
    fn matches(&self, request: &Fields) -> bool {
        let mut lines = request.values(&self.name);
        let (mut rest, first) = match (self.value.as_deref(), lines.next()) {
            (None, None) => return true,
            (Some(value), Some(first)) => (value, first),
            _ => return false,
        };
        match rest.strip_prefix(first) {
            Some(after) => rest = after,
            None => return false,
        }
        for line in lines {
            match rest.strip_prefix(b", ").and_then(|after| after.strip_prefix(line)) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

/// The lines of a name as one value (RFC 9110 §5.3).
fn joined(fields: &Fields, name: &str) -> Option<Box<[u8]>> {
    let lines: Vec<&[u8]> = fields.values(name).collect();
    (!lines.is_empty()).then(|| lines.join(b", ".as_slice()).into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(vary: &[&str], request: &[(&str, &str)]) -> Result<Selection, Reason> {
        let response = Fields::from_pairs(vary.iter().map(|line| ("Vary", line)));
        Selection::of(&response, &Fields::from_pairs(request.iter().copied()), Profile::Safe)
    }

    #[test]
    fn every_nominated_field_of_every_line_must_match_rfc9111_4_1() {
        let stored =
            selection(&["Accept, X-A", "x-b"], &[("accept", "a"), ("x-a", "1"), ("X-B", "2")]).unwrap();
        let matches = |pairs: &[(&str, &str)]| stored.matches(&Fields::from_pairs(pairs.iter().copied()));
        assert!(matches(&[("X-B", "2"), ("X-A", "1"), ("Accept", "a"), ("other", "x")]));
        assert!(!matches(&[("X-B", "3"), ("X-A", "1"), ("Accept", "a")]));
        assert!(!matches(&[("X-A", "1"), ("Accept", "a")]));
        assert!(!matches(&[("X-B", "2"), ("X-B", "2"), ("X-A", "1"), ("Accept", "a")]));
    }

    #[test]
    fn an_absent_field_matches_only_its_absence_rfc9111_4_1() {
        let stored = selection(&["X-A"], &[]).unwrap();
        assert!(stored.matches(&Fields::default()));
        assert!(!stored.matches(&Fields::from_pairs([("x-a", "")])));
        let stored = selection(&["X-A"], &[("x-a", "")]).unwrap();
        assert!(!stored.matches(&Fields::default()));
    }

    #[test]
    fn lines_of_one_name_match_their_joined_form_rfc9110_5_3() {
        let stored = selection(&["X-A"], &[("x-a", "1"), ("x-a", "2")]).unwrap();
        assert!(stored.matches(&Fields::from_pairs([("X-A", "1, 2")])));
        assert!(stored.matches(&Fields::from_pairs([("X-A", "1"), ("X-A", "2")])));
        assert!(!stored.matches(&Fields::from_pairs([("X-A", "2"), ("X-A", "1")])));
        assert!(!stored.matches(&Fields::from_pairs([("X-A", "1")])));
    }

    #[test]
    fn a_star_anywhere_is_refused_rfc9111_4_1() {
        for vary in [&["*"][..], &["Accept", "*"], &["Accept, *, X"], &["Accept, *;x"]] {
            assert_eq!(selection(vary, &[]), Err(Reason::VaryStar), "{vary:?}");
        }
        assert_eq!(selection(&["a b"], &[]), Err(Reason::Malformed));
    }

    #[test]
    fn more_names_than_are_compared_are_as_good_as_a_star() {
        let names = |count| (0..count).map(|n| format!("x{n}")).collect::<Vec<_>>().join(",");
        assert!(selection(&[&names(64)], &[]).is_ok());
        assert_eq!(selection(&[&names(65)], &[]), Err(Reason::VaryStar));
        let many = selection(&[&names(64)], &[]).unwrap();
        assert_eq!(many.has_room_for(&selection(&["X0, x63"], &[]).unwrap()), Ok(()));
        assert_eq!(many.has_room_for(&selection(&["x64"], &[]).unwrap()), Err(Reason::VaryStar));
    }

    #[test]
    fn identity_fields_are_refused_in_safe_and_obeyed_in_rfc9111() {
        let response = Fields::from_pairs([("vary", "COOKIE")]);
        let request = Fields::from_pairs([("cookie", "a=1")]);
        assert_eq!(Selection::of(&response, &request, Profile::Safe), Err(Reason::VaryCookie));
        let stored = Selection::of(&response, &request, Profile::Rfc9111).unwrap();
        assert!(stored.matches(&request));
        assert!(!stored.matches(&Fields::from_pairs([("cookie", "a=2")])));
    }

    #[test]
    fn encoded_content_varies_by_accept_encoding_in_safe() {
        let request = Fields::from_pairs([("accept-encoding", "gzip")]);
        let of = |encoding, profile| {
            Selection::of(&Fields::from_pairs([("Content-Encoding", encoding)]), &request, profile).unwrap()
        };
        let encoded = of("GZip", Profile::Safe);
        assert!(encoded.matches(&request) && !encoded.matches(&Fields::default()));
        for selection in [of("identity", Profile::Safe), of("gzip", Profile::Rfc9111)] {
            assert!(selection.matches(&Fields::default()));
        }
    }

    #[test]
    fn two_selections_together_want_both() {
        let request = [("a", "1"), ("b", "2"), ("c", "3")];
        let both = selection(&["b, c"], &request).unwrap().and(selection(&["a, b"], &request).unwrap());
        assert_eq!(both, selection(&["a, b, c"], &request).unwrap());
        let same = selection(&["a"], &request).unwrap();
        assert_eq!(same.clone().and(Selection::default()), same);
        assert_eq!(Selection::default().and(same.clone()), same);
    }

    #[test]
    fn the_order_and_case_of_nominated_names_do_not_make_another_selection() {
        let request = [("a", "1"), ("b", "2")];
        assert_eq!(selection(&["A, b"], &request), selection(&["B", "a", "A"], &request));
    }
}
