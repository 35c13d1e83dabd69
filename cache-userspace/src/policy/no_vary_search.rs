//! `No-Vary-Search` (draft-ietf-httpbis-no-vary-search): which parts of a query do not select a response.
//!
//! Finding the stored responses that differ in their query only, and comparing everything else of the URLs, is left to
//! the caller. Whatever the field leaves in doubt, the whole query counts.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use sfv::{BareItem, Item, ListEntry};

use super::structured;
use crate::http1::Fields;

/// The most parameter names that a rule remembers.
pub const NAMES_MAX: usize = 64;
/// The most bytes that these names have together.
pub const NAMES_BYTES_MAX: usize = 2048;

/// A parameter of a query, decoded: its name and its value.
type Parameter<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Which parts of a query count; by default everything does, byte by byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchRule {
    counting: Counting,
    is_order_free: bool,
}

/// The parameters that count; names are decoded and sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Counting {
    AllBut(Box<[Box<[u8]>]>),
    Only(Box<[Box<[u8]>]>),
}

impl Default for Counting {
    fn default() -> Self {
        Self::AllBut(Box::default())
    }
}

impl SearchRule {
    /// Reads a response's field; the default where it is absent, invalid, contradicts itself or names too much.
    pub fn of(response: &Fields) -> Self {
        Self::read(response).unwrap_or_default()
    }

    fn read(response: &Fields) -> Option<Self> {
        let mut members = structured::dictionary(response, "no-vary-search")?;
        let is_order_free = match members.swap_remove("key-order") {
            None => false,
            Some(member) => boolean(&member)?,
        };
        let counting = match (members.swap_remove("params"), members.swap_remove("except")) {
            (None, None) => Counting::default(),
            (Some(ListEntry::InnerList(list)), None) => Counting::AllBut(names(list.items)?),
            (Some(params), except) => match (boolean(&params)?, except) {
                (false, None) => Counting::default(),
                (true, None) => Counting::Only(Box::default()),
                (true, Some(ListEntry::InnerList(list))) => Counting::Only(names(list.items)?),
                _ => return None,
            },
            (None, Some(_)) => return None,
        };
        Some(Self { counting, is_order_free })
    }

    /// Whether two queries, as [`path_and_query`] gives them, select the same response.
    ///
    /// Parameters are compared as the bytes that they decode to: stricter than the draft, for which bytes that are no
    /// UTF-8 are all alike.
    pub fn equivalent(&self, a: &[u8], b: &[u8]) -> bool {
        if a == b {
            return true;
        }
        if *self == Self::default() {
            return false;
        }
        self.counting(a) == self.counting(b)
    }

    /// One form of all queries that are equivalent under a rule that is not the default.
    pub fn canonical(&self, query: &[u8]) -> Vec<u8> {
        let mut form = Vec::with_capacity(query.len() + 16);
        for part in self.counting(query).iter().flat_map(|(name, value)| [name, value]) {
            form.extend_from_slice(&(part.len() as u64).to_be_bytes());
            form.extend_from_slice(part);
        }
        form
    }

    /// The parameters that count, in the order in which they do.
    fn counting<'a>(&self, query: &'a [u8]) -> Vec<Parameter<'a>> {
        let mut pairs: Vec<_> = pairs(query).filter(|(name, _)| self.counts(name)).collect();
        if self.is_order_free {
            // A stable sort: the order of values of one name counts.
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        pairs
    }

    /// Bytes of memory behind the rule.
    pub fn heap_bytes(&self) -> u64 {
        let (Counting::AllBut(names) | Counting::Only(names)) = &self.counting;
        names.iter().map(|name| (size_of::<Box<[u8]>>() + name.len()) as u64).sum()
    }

    fn counts(&self, name: &[u8]) -> bool {
        let is_among = |names: &[Box<[u8]>]| names.binary_search_by(|other| (**other).cmp(name)).is_ok();
        match &self.counting {
            Counting::AllBut(names) => !is_among(names),
            Counting::Only(names) => is_among(names),
        }
    }
}

/// Which queries besides its own a stored response answers.
#[derive(Clone, Debug)]
pub struct Search {
    rule: SearchRule,
    query: Box<[u8]>,
}

impl Search {
    /// What a response to a request for this target says; `None` where the whole query counts.
    pub fn of(response: &Fields, target: &[u8]) -> Option<Self> {
        let rule = SearchRule::of(response);
        (rule != SearchRule::default()).then(|| Self { rule, query: path_and_query(target).1.into() })
    }

    /// The same response after an update of its fields (RFC 9111 §3.2).
    pub(super) fn updated(&self, fields: &Fields) -> Self {
        Self { rule: SearchRule::of(fields), query: self.query.clone() }
    }

    /// Its rule.
    pub fn rule(&self) -> &SearchRule {
        &self.rule
    }

    /// Whether it answers a request for a target of the same path.
    pub fn answers(&self, target: &[u8]) -> bool {
        self.rule.equivalent(&self.query, path_and_query(target).1)
    }

    /// Whether it answers what the other, older one was stored for.
    pub(super) fn covers(&self, older: &Self) -> bool {
        self.rule.equivalent(&self.query, &older.query)
    }

    /// Bytes of memory behind it, itself included.
    pub(super) fn heap_bytes(&self) -> u64 {
        (size_of::<Self>() + self.query.len()) as u64 + self.rule.heap_bytes()
    }
}

/// Splits a request target into its path and its query; the query begins with its question mark, and is empty without.
pub fn path_and_query(target: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    target.split_at_checked(end).unwrap_or((target, &[]))
}

fn boolean(member: &ListEntry) -> Option<bool> {
    match member {
        ListEntry::Item(Item { bare_item: BareItem::Boolean(value), .. }) => Some(*value),
        _ => None,
    }
}

/// The names of an Inner List of Strings, decoded; `None` where one is no String, or where they are too many.
fn names(items: Vec<Item>) -> Option<Box<[Box<[u8]>]>> {
    let decode = |item| structured::string(item).map(|name| decoded(name.as_bytes()).into());
    let mut names = items.into_iter().map(decode).collect::<Option<Vec<Box<[u8]>>>>()?;
    names.sort_unstable();
    names.dedup();
    let bytes: usize = names.iter().map(|name| name.len()).sum();
    (names.len() <= NAMES_MAX && bytes <= NAMES_BYTES_MAX).then(|| names.into())
}

/// The names and values of a query (URL standard, application/x-www-form-urlencoded parsing).
fn pairs(query: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    let query = query.strip_prefix(b"?").unwrap_or(query);
    query.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(equals).unwrap_or((pair, &[]));
        (decoded(name), decoded(value.get(1..).unwrap_or_default()))
    })
}

/// Percent-decodes; `+` is a blank.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let text: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&text).collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(value: &str) -> SearchRule {
        SearchRule::of(&Fields::from_pairs([("No-Vary-Search", value)]))
    }

    fn all_but(names: &[&str]) -> Counting {
        Counting::AllBut(names.iter().map(|name| name.as_bytes().into()).collect())
    }

    fn only(names: &[&str]) -> Counting {
        Counting::Only(names.iter().map(|name| name.as_bytes().into()).collect())
    }

    #[test]
    fn rules_are_read_by_the_algorithm_of_the_draft() {
        for (value, counting, is_order_free) in [
            ("key-order", all_but(&[]), true),
            ("params", only(&[]), false),
            ("params=?1;x=1", only(&[]), false),
            ("params=(\"b\" \"a\" \"b\")", all_but(&["a", "b"]), false),
            ("params, except=(\"x\")", only(&["x"]), false),
            ("except=(\"x\"), key-order, params", only(&["x"]), true),
            ("key-order=?1, params=(\"a\")", all_but(&["a"]), true),
            // Names are decoded like those of a query.
            ("params=(\"%C3%A9+%E6%B0%97\")", all_but(&["é 気"]), false),
            // Other members are for the future to give a meaning.
            ("key-order, future=1", all_but(&[]), true),
        ] {
            assert_eq!(rule(value), SearchRule { counting, is_order_free }, "{value}");
        }
    }

    #[test]
    fn what_is_invalid_makes_everything_count() {
        for value in [
            "",
            "unknown-key",
            "key-order=?0",
            "params=?0",
            "params=()",
            "key-order=\"not a boolean\"",
            "key-order=1",
            "params=\"not a boolean or inner list\"",
            "params=(not-a-string)",
            "params=(\"a\"), except=(\"x\")",
            "params=(), except=()",
            "params=?0, except=(\"x\")",
            "params, except=(not-a-string)",
            "params, except=\"not an inner list\"",
            "params, except=?1",
            "except=(\"x\")",
            "except=()",
            "key-order, except=()",
            "params=(\"a\"), key-order=2",
            "params,",
            "Params",
            "params=(\"é\")",
        ] {
            assert_eq!(rule(value), SearchRule::default(), "{value}");
        }
        assert_eq!(SearchRule::of(&Fields::default()), SearchRule::default());
    }

    #[test]
    fn rules_are_bounded() {
        let list = |count: usize, length: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("\"{n:0length$}\"")).collect();
            rule(&format!("params=({})", names.join(" ")))
        };
        let (largest, too_many) = (list(NAMES_MAX, NAMES_BYTES_MAX / NAMES_MAX), list(NAMES_MAX + 1, 2));
        assert_ne!(largest, SearchRule::default());
        assert!(largest.heap_bytes() <= (NAMES_BYTES_MAX + NAMES_MAX * size_of::<Box<[u8]>>()) as u64);
        assert_eq!(too_many, SearchRule::default());
        assert_eq!(list(1, NAMES_BYTES_MAX + 1), SearchRule::default());
    }

    #[test]
    fn without_a_rule_queries_are_compared_byte_by_byte() {
        let rule = SearchRule::default();
        assert!(rule.equivalent(b"?a=1", b"?a=1"));
        for (a, b) in
            [("", "?"), ("?a=b&&&c", "?a=b&c="), ("?a=%41", "?a=A"), ("?a&b", "?b&a"), ("?%61", "?a")]
        {
            assert!(!rule.equivalent(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
    }

    #[test]
    fn queries_are_equivalent_by_the_algorithm_of_the_draft() {
        for (value, a, b, expected) in [
            // With any rule they are parsed.
            ("key-order", "", "?", true),
            ("key-order", "?a=x", "?%61=%78", true),
            ("key-order", "?a=x&&&&", "?a=x", true),
            ("key-order", "?a=", "?a", true),
            ("key-order", "?a=%20", "?a=+", true),
            ("key-order", "?a=é", "?a=%C3%A9", true),
            ("key-order", "?a=%2B", "?a=+", false),
            ("key-order", "?a=1%262", "?a=1&2", false),
            ("key-order", "?a=%zz", "?a=%zz&", true),
            ("key-order", "?=", "?", false),
            ("key-order", "??a", "?a", false),
            // The draft calls these alike; this cache does not.
            ("key-order", "?a=%f6", "?a=%ef%bf%bd", false),
            ("key-order", "?a=%f6", "?a=%f7", false),
            // Order of names, not of values.
            ("key-order", "?a=1&b=2", "?b=2&a=1", true),
            ("key-order", "?a=1&a=2", "?a=2&a=1", false),
            ("key-order", "?a=1&b=0&a=2", "?b=0&a=1&a=2", true),
            ("key-order", "?a=1", "?a=1&a=1", false),
            ("key-order", "?a=1", "?A=1", false),
            // Names that do not count.
            ("params=(\"utm\")", "?id=1&utm=x", "?id=1", true),
            ("params=(\"utm\")", "?utm=y&id=1&utm", "?id=1", true),
            ("params=(\"utm\")", "?id=1", "?id=2", false),
            ("params=(\"utm\")", "?id=1&Utm=x", "?id=1", false),
            ("params=(\"utm\")", "?a=1&b=2", "?b=2&a=1", false),
            ("params=(\"utm\"), key-order", "?a=1&utm&b=2", "?b=2&a=1", true),
            ("params=(\"a b\")", "?a%20b=1", "?a+b=2", true),
            ("params=(\"a%26b\")", "?a%26b=1", "", true),
            ("params=(\"a%26b\")", "?a&b=1", "", false),
            ("params", "?a=1", "", true),
            ("params", "?a=1", "?b=2&c", true),
            // Only some names that count.
            ("params, except=(\"id\")", "?id=1&x=2", "?y&id=1", true),
            ("params, except=(\"id\")", "?id=1", "?id=2", false),
            ("params, except=(\"id\")", "?id=1", "?", false),
            ("params, except=(\"a\" \"b\")", "?a&b", "?b&a", false),
            ("params, except=(\"a\" \"b\"), key-order", "?a&b", "?b&c&a", true),
        ] {
            let rule = rule(value);
            assert_eq!(rule.equivalent(a.as_bytes(), b.as_bytes()), expected, "{value}: {a} {b}");
            assert_eq!(rule.equivalent(b.as_bytes(), a.as_bytes()), expected, "{value}: {b} {a}");
        }
    }

    #[test]
    fn a_stored_response_answers_the_queries_that_its_own_rule_allows() {
        let fields = |value: &str| Fields::from_pairs([("no-vary-search", value)]);
        let search = Search::of(&fields("params=(\"utm\")"), b"/p?id=1&utm=a").unwrap();
        for (target, expected) in
            [("/p?id=1", true), ("/p?utm=b&id=1", true), ("/p?id=2", false), ("/p", false)]
        {
            assert_eq!(search.answers(target.as_bytes()), expected, "{target}");
        }
        assert!(Search::of(&Fields::default(), b"/p?id=1").is_none());
        assert!(Search::of(&fields("params=?0"), b"/p?id=1").is_none());
        let updated = search.updated(&fields("params=?0"));
        assert!(updated.answers(b"/p?id=1&utm=a") && !updated.answers(b"/p?id=1"), "by now all of it counts");
    }

    #[test]
    fn a_target_is_split_at_its_first_question_mark() {
        for (target, path, query) in [
            ("/a?b=c", "/a", "?b=c"),
            ("/a", "/a", ""),
            ("/a?", "/a", "?"),
            ("/a??b?", "/a", "??b?"),
            ("http://h/p?q", "http://h/p", "?q"),
            ("", "", ""),
        ] {
            assert_eq!(path_and_query(target.as_bytes()), (path.as_bytes(), query.as_bytes()), "{target}");
        }
    }

    fn any_rule() -> impl Strategy<Value = SearchRule> {
        let names = || "(\"[a-c%]{0,3}\" ?){0,3}";
        prop_oneof![
            Just(SearchRule::default()),
            (names(), any::<bool>()).prop_map(|(names, order)| {
                rule(&format!("params=({}), key-order=?{}", names.trim(), u8::from(order)))
            }),
            (names(), any::<bool>()).prop_map(|(names, order)| {
                rule(&format!("params, except=({}), key-order=?{}", names.trim(), u8::from(order)))
            }),
        ]
    }

    proptest! {
        #[test]
        fn equivalence_is_an_equivalence(
            rule in any_rule(), queries in prop::array::uniform3("(\\?([a-c%1+]{0,2}=?[a-b]?&?){0,4})?"),
        ) {
            let [a, b, c] = queries.each_ref().map(|query| query.as_bytes());
            prop_assert!(rule.equivalent(a, a));
            prop_assert_eq!(rule.equivalent(a, b), rule.equivalent(b, a));
            prop_assert!(!(rule.equivalent(a, b) && rule.equivalent(b, c)) || rule.equivalent(a, c));
            let is_one_form = rule.canonical(a) == rule.canonical(b);
            prop_assert!(rule == SearchRule::default() || rule.equivalent(a, b) == is_one_form);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            value in prop::collection::vec(any::<u8>(), 0..60),
            a in prop::collection::vec(any::<u8>(), 0..40), b in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let read = SearchRule::of(&Fields::from_pairs([("no-vary-search", &value)]));
            for rule in [read, rule("key-order"), rule("params=(\"a\")")] {
                let _ = rule.equivalent(path_and_query(&a).1, &b);
            }
        }
    }
}
