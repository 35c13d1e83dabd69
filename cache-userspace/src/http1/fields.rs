//! Header and trailer fields as they stood on the wire: order, case and repeated lines kept.
//!
//! Pure data. Reading them off a socket is left to `head`, what they mean to `policy`.

use bytes::Bytes;

/// One field line: where its name and its value (without surrounding white space) stand in the raw bytes.
#[derive(Clone, Copy, Debug)]
struct Line {
    name: (u32, u32),
    value: (u32, u32),
}

/// The field lines of a head or of a trailer section, in the order they came (RFC 9110 §5.3).
#[derive(Clone, Debug, Default)]
pub struct Fields {
    raw: Bytes,
    lines: Vec<Line>,
    /// A bit for each length that names have, the last for longer ones: most names that are asked for are not there.
    lengths: u64,
}

/// The bit of a name's length.
const fn bit(length: usize) -> u64 {
    1 << if length < 63 { length } else { 63 }
}

/// Names of fields that others are compared with, without case (RFC 9110 §5.1). Most are told apart by their lengths.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    names: &'static [&'static str],
    lengths: u64,
}

impl Names {
    /// These names.
    pub const fn of(names: &'static [&'static str]) -> Self {
        let (mut lengths, mut rest) = (0, names);
        while let [name, others @ ..] = rest {
            lengths |= bit(name.len());
            rest = others;
        }
        Self { names, lengths }
    }

    /// Whether `name` is one of them.
    pub fn has(&self, name: &[u8]) -> bool {
        self.lengths & bit(name.len()) != 0
            && self.names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    }
}

/// The bits of all names.
fn lengths(lines: &[Line]) -> u64 {
    lines.iter().fold(0, |bits, line| bits | bit(line.name.1.abs_diff(line.name.0) as usize))
}

impl Fields {
    /// Takes the lines that a parser found in `raw`.
    ///
    /// A pair whose name or value is not a slice of `raw` is kept all the same, by copying everything once.
    pub fn from_parsed<'a>(raw: &Bytes, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Self {
        let base = raw.as_ptr() as usize;
        let within = |part: &[u8]| {
            let start = (part.as_ptr() as usize).wrapping_sub(base);
            let end = start.checked_add(part.len())?;
            (end <= raw.len() && end <= u32::MAX as usize).then_some((start as u32, end as u32))
        };
        let mut lines = Vec::with_capacity(pairs.size_hint().1.unwrap_or_default());
        for (name, value) in pairs.clone() {
            let (Some(name), Some(value)) = (within(name), within(value)) else {
                return Self::from_pairs(pairs);
            };
            lines.push(Line { name, value });
        }
        Self { raw: raw.clone(), lengths: lengths(&lines), lines }
    }

    /// Builds fields from names and values, by copying them.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let pairs: Vec<(N, V)> = pairs.into_iter().collect();
        Self::copied(&pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect::<Vec<_>>())
    }

    /// Copies lines into one allocation of exactly their size.
    pub fn copied(pairs: &[(&[u8], &[u8])]) -> Self {
        let mut raw = Vec::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len()).sum());
        let mut append = |part: &[u8]| {
            let start = raw.len() as u32;
            raw.extend_from_slice(part);
            (start, raw.len() as u32)
        };
        let line = |(name, value): &(&[u8], &[u8])| Line { name: append(name), value: append(value) };
        let lines: Vec<Line> = pairs.iter().map(line).collect();
        Self { raw: raw.into(), lengths: lengths(&lines), lines }
    }

    /// Every field line, in order, spelled as it came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone + '_ {
        self.lines.iter().map(|line| (self.part(line.name), self.part(line.value)))
    }

    /// The values of all lines of this name (compared without case, RFC 9110 §5.1), in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone + 'a {
        let lines = if self.lengths & bit(name.len()) == 0 { &[][..] } else { &self.lines };
        let is_named = move |line: &&Line| self.part(line.name).eq_ignore_ascii_case(name.as_bytes());
        lines.iter().filter(is_named).map(|line| self.part(line.value))
    }

    /// The value of the first line of this name.
    pub fn first<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Whether a line of this name is present.
    pub fn contains(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The members of a comma-separated list field over all its lines, trimmed, empty ones left out
    /// (RFC 9110 §5.6.1). Quoted strings are not understood: for lists of tokens only.
    pub fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.values(name)
            .flat_map(|value| value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|t| !t.is_empty())
    }

    /// How many field lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no field line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn part(&self, (start, end): (u32, u32)) -> &[u8] {
        self.raw.get(start as usize..end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_name_are_found_in_any_case_and_in_order() {
        let fields = Fields::from_pairs([("Vary", "a"), ("X", "1"), ("vARY", "b, c")]);
        assert_eq!(fields.values("vary").collect::<Vec<_>>(), [b"a".as_slice(), b"b, c"]);
        assert_eq!(fields.tokens("VARY").collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_name_is_one_of_others_whatever_its_case() {
        const LONG: &str = "x23456789-123456789-123456789-123456789-123456789-123456789-123456789";
        let names = Names::of(&["vary", "content-type", LONG]);
        assert!(names.has(b"Vary") && names.has(b"CONTENT-TYPE") && names.has(LONG.as_bytes()));
        assert!(!names.has(b"date") && !names.has(b"var") && !names.has(b"") && !names.has(&[b'x'; 64]));
        assert!(!Names::of(&[]).has(b""));
    }

    #[test]
    fn names_are_told_apart_by_more_than_their_lengths() {
        let long = "x".repeat(80);
        let fields = Fields::from_pairs([("Host", "a"), ("Vary", "b"), (&long, "c"), ("", "d")]);
        assert!(fields.contains("vary") && fields.contains(&long) && fields.contains(""));
        assert!(!fields.contains("date") && !fields.contains("hos") && !fields.contains(&"y".repeat(80)));
        assert!(!fields.contains(&"x".repeat(64)) && !Fields::default().contains(""));
    }

    #[test]
    fn parsed_lines_share_the_raw_bytes() {
        let raw = Bytes::from_static(b"Host: example\r\n");
        let fields = Fields::from_parsed(&raw, [(&raw[0..4], &raw[6..13])].into_iter());
        assert_eq!(fields.first("host"), Some(b"example".as_slice()));
    }
}
