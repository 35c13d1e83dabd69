//! Splits Rust source into its code and its comments, line by line. No grammar: only what hides text.

/// The same number of lines twice: once without comments and literals, once with nothing but comments.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The code; literals are emptied, comments are gone.
    pub(super) code: Vec<String>,
    /// The comments.
    pub(super) comments: Vec<String>,
}

impl Source {
    /// Splits a source text.
    pub(super) fn of(text: &str) -> Self {
        let mut source = Self { code: vec![String::new()], comments: vec![String::new()] };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (length, kind) = piece(rest);
            let (piece, after) = rest.split_at(length.max(first.len_utf8()));
            source.add(piece, kind);
            // A letter or digit belongs to the word before it: `br"…"` is a literal, `abr"…"` is not Rust.
            rest = after;
        }
        source
    }

    fn add(&mut self, piece: &str, kind: Kind) {
        for (number, part) in piece.split('\n').enumerate() {
            if number > 0 {
                self.code.push(String::new());
                self.comments.push(String::new());
            }
            let lines = match kind {
                Kind::Code => &mut self.code,
                Kind::Comment => &mut self.comments,
                Kind::Literal => continue,
            };
            if let Some(line) = lines.last_mut() {
                line.push_str(part);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// How long the piece at the start of `rest` is, and what it is.
fn piece(rest: &str) -> (usize, Kind) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Kind::Comment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Kind::Comment);
    }
    if let Some(length) = raw_string(rest) {
        return (length, Kind::Literal);
    }
    if rest.starts_with('"') {
        return (quoted(rest, '"'), Kind::Literal);
    }
    if rest.starts_with('\'') && is_character(rest) {
        return (quoted(rest, '\''), Kind::Literal);
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (word.max(1), Kind::Code)
}

fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and their like.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or(rest.strip_prefix("cr")).or(rest.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let inside = after.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(rest.len() - inside.len() + length)
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Whether a quote begins a character, not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut inside = rest.chars().skip(1);
    inside.next() == Some('\\') || inside.next() == Some('\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_not_code() {
        let source = Source::of("let a = \"// no\"; // yes\nlet b = r#\"un\"safe\"#; /* x /* y */\nz */ c");
        assert_eq!(source.code, ["let a = ; ", "let b = ; ", " c"]);
        assert_eq!(source.comments, ["// yes", "/* x /* y */", "z */"]);
    }

    #[test]
    fn a_lifetime_is_not_a_character() {
        let source = Source::of("fn a<'a>(b: &'a u8) -> char { '\\'' } // c");
        assert_eq!(source.code, ["fn a<'a>(b: &'a u8) -> char {  } "]);
        assert_eq!(source.comments, ["// c"]);
    }

    #[test]
    fn a_quote_in_a_character_opens_no_string() {
        assert_eq!(Source::of("m('\"', x) // y").code, ["m(, x) "]);
    }

    #[test]
    fn lines_stay_where_they_were() {
        let text = "a\n\"b\nc\"\n// d\n\ne";
        let source = Source::of(text);
        assert_eq!(source.code.len(), text.lines().count());
        assert_eq!(source.comments[3], "// d");
    }
}
