//! What a command line calls each of several things: a word each, from one table.

use anyhow::{Context, Result};

/// Each thing with its word.
pub(crate) type Words<T> = [(T, &'static str)];

/// The word of a thing; empty where the table has none.
pub(crate) fn word<T: PartialEq>(words: &Words<T>, of: &T) -> &'static str {
    words.iter().find(|(one, _)| one == of).map_or("", |(_, word)| word)
}

/// The thing of a word.
pub(crate) fn named<T: Copy>(words: &Words<T>, word: &str) -> Result<T> {
    let found = words.iter().find(|(_, known)| *known == word).map(|(one, _)| *one);
    found.with_context(|| format!("nothing is called {word}"))
}
