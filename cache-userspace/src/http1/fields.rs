//! Header and trailer fields as they stood on the wire: order, case and repeated lines kept.
//!
//! Pure data. Reading them off a socket is left to `head`, what they mean to `policy`.

use bytes::{Bytes, BytesMut};

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
        let lines: Option<Vec<Line>> = pairs
            .clone()
            .map(|(name, value)| Some(Line { name: within(name)?, value: within(value)? }))
            .collect();
        match lines {
            Some(lines) => Self { raw: raw.clone(), lines },
            None => Self::from_pairs(pairs),
        }
    }

    /// Builds fields from names and values, by copying them.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut raw = BytesMut::new();
        let mut lines = Vec::new();
        let mut append = |part: &[u8]| {
            let start = raw.len() as u32;
            raw.extend_from_slice(part);
            (start, raw.len() as u32)
        };
        for (name, value) in pairs {
            lines.push(Line { name: append(name.as_ref()), value: append(value.as_ref()) });
        }
        Self { raw: raw.freeze(), lines }
    }

    /// Every field line, in order, spelled as it came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone + '_ {
        self.lines.iter().map(|line| (self.part(line.name), self.part(line.value)))
    }

    /// The values of all lines of this name (compared without case, RFC 9110 §5.1), in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone + 'a {
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
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
    fn parsed_lines_share_the_raw_bytes() {
        let raw = Bytes::from_static(b"Host: example\r\n");
        let fields = Fields::from_parsed(&raw, [(&raw[0..4], &raw[6..13])].into_iter());
        assert_eq!(fields.first("host"), Some(b"example".as_slice()));
    }
}
