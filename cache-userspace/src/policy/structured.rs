//! Structured fields (RFC 9651) of a response, over all their lines; the parser is the `sfv` crate's.
//!
//! What a member means is left to `targeted`, `groups` and `no_vary_search`.

use std::borrow::Cow;

use sfv::{BareItem, Dictionary, FieldType, Item, List, ListEntry, Parser};

use crate::http1::Fields;

/// The field as a Dictionary (RFC 9651 §3.2); `None` where it is absent or fails to parse (§4.2: then it is ignored).
pub(super) fn dictionary(fields: &Fields, name: &str) -> Option<Dictionary> {
    parsed(fields, name)
}

/// The field as a List of Strings (RFC 9651 §3.1, §3.3.3), parameters left out; `None` where it is absent, fails to
/// parse, or has a member of another type.
pub(super) fn strings(fields: &Fields, name: &str) -> Option<Vec<String>> {
    let list: List = parsed(fields, name)?;
    list.into_iter()
        .map(|member| if let ListEntry::Item(item) = member { string(item) } else { None })
        .collect()
}

/// A String's characters; `None` for an Item of another type.
pub(super) fn string(item: Item) -> Option<String> {
    match item.bare_item {
        BareItem::String(string) => Some(string.into()),
        _ => None,
    }
}

fn parsed<T: FieldType>(fields: &Fields, name: &str) -> Option<T> {
    let mut lines = fields.values(name);
    let mut value = Cow::Borrowed(lines.next()?);
    // RFC 9651 §4.2: lines of a List or Dictionary are joined with a comma and a space.
    for line in lines {
        let joined = value.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line);
    }
    Parser::new(&value).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_lines_are_one_list_rfc9651_4_2() {
        let read = |lines: &[&str]| strings(&Fields::from_pairs(lines.iter().map(|line| ("X", line))), "x");
        let expected = |members: &[&str]| Some(members.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>());
        for (lines, expected) in [
            (&[r#""a", "b;c";p=1"#][..], expected(&["a", "b;c"])),
            (&[r#""a""#, r#""b""#], expected(&["a", "b"])),
            (&[r#" "\"\\" "#], expected(&["\"\\"])),
            (&[r#""a","a""#], expected(&["a", "a"])),
            (&[""], expected(&[])),
            (&[], None),
            (&[r#""a", b"#], None),
            (&[r#""a", 1"#], None),
            (&[r#"("a" "b")"#], None),
            (&[r#""a","#], None),
            (&[r#""a" "b""#], None),
            (&[r#""a"#], None),
            (&[r#""é""#], None),
            (&[r#""a""#, ""], None),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }
}
