//! Parts of one representation become a greater part, or the whole (RFC 9111 §3.4, RFC 9110 §15.3.7.3).
//!
//! Putting their bytes together is left to `store`.

use super::{Part, Stored, range::joined};
use crate::http1::{Fields, Names};

/// Fields that say something of a part's content which is not true of both (RFC 9110 §8.6, RFC 9530 §2).
const OF_A_PART: Names = Names::of(&["content-length", "content-digest", "content-md5"]);

/// What a stored part and a newer one are together: the newer one's metadata (§3.4) with the span of both.
///
/// `None`: they share no strong validator, were selected by different requests, or leave a gap.
pub fn combined(old: &Stored, new: &Stored) -> Option<Stored> {
    let (old_part, new_part) = (old.part?, new.part?);
    let is_same = match (old.strong_entity_tag(), new.strong_entity_tag()) {
        (Some(old), Some(new)) => old == new,
        // RFC 9110 §8.8.2.2: only dates that are strong let a part be stored.
        (None, None) => {
            old.entity_tag().is_none() && new.entity_tag().is_none() && old.last_modified == new.last_modified
        }
        _ => false,
    };
    if !is_same || old.refused.is_some() || !old.gives_way_to(new) || old_part.complete != new_part.complete {
        return None;
    }
    let span = joined(old_part.span(), new_part.span())?;
    let part = Part { first: span.first, last: span.last, complete: new_part.complete };
    let fields = new.fields.iter().filter(|(name, _)| !OF_A_PART.has(name));
    Some(Stored { fields: Fields::from_pairs(fields), part: Some(part), ..new.clone() }.completed())
}

impl Stored {
    /// The same; as a 200 if it is a part that holds everything (RFC 9110 §15.3.7.3).
    pub fn completed(self) -> Self {
        let is_whole = self.part.is_some_and(|part| part.span().bytes() == part.complete);
        if is_whole { Self { status: 200, part: None, ..self } } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Now, Reason, RequestView, ResponseView, Rules, store};

    const NOW: Now = Now { boot: std::time::Duration::from_secs(1000), wall: 784_111_777 };

    fn part(range: &str, validator: (&str, &str), accept: &str) -> Stored {
        let request = Fields::from_pairs([("host", "a"), ("range", "bytes=0-"), ("accept", accept)]);
        let request = RequestView { method: b"GET", target: b"/", fields: &request };
        let content_range = format!("bytes {range}");
        let fields = [
            ("cache-control", "max-age=60"),
            ("vary", "accept"),
            ("content-range", content_range.as_str()),
            validator,
        ];
        let fields = Fields::from_pairs(fields);
        let response = ResponseView { status: 206, fields: &fields, delimited_by_close: false };
        store(&request, &response, &Rules::default(), NOW, NOW).unwrap()
    }

    #[test]
    fn parts_of_one_representation_are_joined_rfc9111_3_4() {
        let etag = |tag: &'static str| ("etag", tag);
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");
        let first = part("0-4/10", etag("\"a\""), "x");
        let join = |new: Stored| combined(&first, &new).map(|both| (both.status, both.part));
        let span = |first, last| Some(Part { first, last, complete: 10 });
        assert_eq!(join(part("5-9/10", etag("\"a\""), "x")), Some((200, None)), "touching, whole");
        assert_eq!(join(part("3-7/10", etag("\"a\""), "x")), Some((206, span(0, 7))), "overlapping");
        assert_eq!(join(part("6-9/10", etag("\"a\""), "x")), None, "a gap");
        assert_eq!(join(part("5-9/10", etag("\"b\""), "x")), None, "another representation");
        assert_eq!(join(part("5-9/10", etag("\"a\""), "y")), None, "another variant");
        assert_eq!(join(part("5-9/11", etag("\"a\""), "x")), None, "another length");
        assert_eq!(join(part("5-9/10", modified, "x")), None, "another kind of validator");
        let (one, other) = (part("5-9/10", modified, "x"), part("0-5/10", modified, "x"));
        assert_eq!(combined(&one, &other).map(|both| both.part), Some(None));
        let refused = Stored { refused: Some(Reason::ResponseNoStore), ..first.clone() };
        assert!(combined(&refused, &part("5-9/10", etag("\"a\""), "x")).is_none(), "it must not stay");
    }

    #[test]
    fn what_is_said_of_a_part_s_content_is_not_said_of_both_rfc9530_2() {
        let of_content = |stored: &Stored| {
            ["content-length", "content-digest", "content-md5"].map(|name| stored.fields.contains(name))
        };
        let with = |stored: Stored| {
            let own =
                [("Content-Length", "5"), ("Content-Digest", "sha-256=:AA==:"), ("content-MD5", "AA==")];
            let own = own.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            Stored { fields: Fields::from_pairs(stored.fields.iter().chain(own)), ..stored.clone() }
        };
        let [one, other] = ["0-4/10", "5-9/10"].map(|range| with(part(range, ("etag", "\"a\""), "x")));
        assert_eq!(of_content(&one), [true; 3]);
        assert_eq!(combined(&one, &other).map(|both| of_content(&both)), Some([false; 3]));
    }
}
