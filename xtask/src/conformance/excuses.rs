//! Why a case may end otherwise than the suite wants it: three lists, read from `tests/fixtures/conformance`.
//!
//! A line of a list is `case | clause | why`; `#` begins a comment.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result, bail};

use super::suite::{Case, Kind, Outcome};

/// Required cases that contradict RFC 9111.
const SUPERSEDED: &str = "superseded.txt";
/// Optional behaviour that this cache refuses.
const REFUSED: &str = "refused.txt";
/// Where the profile `safe` is stricter than the RFC.
const STRICTER: &str = "stricter.txt";

/// A reason of ours: what it rests on, and the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excuse {
    /// The clause of an RFC, or of the design.
    pub(super) clause: String,
    /// Why.
    pub(super) why: String,
}

/// The lists, as far as they hold for one profile.
#[derive(Debug, Default)]
pub(super) struct Excuses {
    superseded: HashMap<String, Excuse>,
    refused: HashMap<String, Excuse>,
    stricter: HashMap<String, Excuse>,
}

/// What a case means for the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passed.
    Passed,
    /// It passed although a list says that it does not.
    PassedThoughListed,
    /// It did not pass, and the list named says why.
    Excused(&'static str, Excuse),
    /// A check was answered no.
    No,
    /// It did not pass, and nothing says why.
    Unexplained,
}

impl Excuses {
    /// Reads the lists that hold for a profile.
    ///
    /// # Errors
    /// If a list cannot be read, or names a case twice.
    pub(super) fn read(folder: &Path, is_safe: bool) -> Result<Self> {
        let list = |name| {
            let path = folder.join(name);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            parse(&text).with_context(|| path.display().to_string())
        };
        let stricter = if is_safe { list(STRICTER)? } else { HashMap::new() };
        Ok(Self { superseded: list(SUPERSEDED)?, refused: list(REFUSED)?, stricter })
    }

    /// Judges one case.
    pub(super) fn judge(&self, case: &Case, outcome: &Outcome) -> Verdict {
        let lists =
            [("superseded", &self.superseded), ("refused", &self.refused), ("stricter", &self.stricter)];
        let listed = lists.iter().find_map(|(name, list)| Some((*name, list.get(&case.id)?)));
        match (outcome, listed) {
            (Outcome::Passed, None) => Verdict::Passed,
            (Outcome::Passed, Some(_)) => Verdict::PassedThoughListed,
            // Nothing excuses that a client waits for ever.
            (Outcome::TimeOut(_), _) => Verdict::Unexplained,
            (_, Some((name, excuse))) => Verdict::Excused(name, excuse.clone()),
            (_, None) if case.kind == Kind::Check => Verdict::No,
            (_, None) => Verdict::Unexplained,
        }
    }

    /// Listed cases that the suite does not have.
    pub(super) fn unknown<'a>(&'a self, cases: &[(Case, Outcome)]) -> Vec<&'a str> {
        let lists = [&self.superseded, &self.refused, &self.stricter];
        let ids = lists.into_iter().flat_map(|list| list.keys());
        let mut unknown: Vec<&str> =
            ids.map(String::as_str).filter(|id| !cases.iter().any(|(case, _)| case.id == *id)).collect();
        unknown.sort_unstable();
        unknown
    }
}

fn parse(text: &str) -> Result<HashMap<String, Excuse>> {
    let mut list = HashMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let parts: Vec<&str> = line.splitn(3, '|').map(str::trim).collect();
        let [id, clause, why] = parts[..] else { bail!("not `case | clause | why`: {line}") };
        if clause.is_empty() || why.is_empty() {
            bail!("no clause or no reason: {line}");
        }
        let excuse = Excuse { clause: clause.to_owned(), why: why.to_owned() };
        if list.insert(id.to_owned(), excuse).is_some() {
            bail!("listed twice: {id}");
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::super::suite::tests::case;
    use super::*;

    fn excuses() -> Excuses {
        let superseded = parse("# a comment\n\nold | RFC 9111 §5.1 | It is ignored.\n").unwrap();
        Excuses { superseded, ..Excuses::default() }
    }

    #[test]
    fn whatever_does_not_pass_needs_a_reason_except_checks() {
        let failed = Outcome::Failed("x".to_owned());
        let excuse = Excuse { clause: "RFC 9111 §5.1".to_owned(), why: "It is ignored.".to_owned() };
        for (id, kind, outcome, expected) in [
            ("new", Kind::Required, Outcome::Passed, Verdict::Passed),
            ("new", Kind::Required, failed.clone(), Verdict::Unexplained),
            ("new", Kind::Optimal, failed.clone(), Verdict::Unexplained),
            ("new", Kind::Optimal, Outcome::Dependency("x".to_owned()), Verdict::Unexplained),
            ("new", Kind::Check, failed.clone(), Verdict::No),
            ("new", Kind::Check, Outcome::TimeOut(String::new()), Verdict::Unexplained),
            ("old", Kind::Required, failed, Verdict::Excused("superseded", excuse)),
            ("old", Kind::Required, Outcome::TimeOut(String::new()), Verdict::Unexplained),
            ("old", Kind::Required, Outcome::Passed, Verdict::PassedThoughListed),
        ] {
            assert_eq!(excuses().judge(&case(id, kind), &outcome), expected, "{id} {kind:?} {outcome}");
        }
    }

    #[test]
    fn a_line_without_a_reason_and_a_case_listed_twice_are_errors() {
        for text in ["a | b", "a | | c", "a | b |", "a | b | c\na | b | d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_listed_case_that_the_suite_does_not_have_is_named() {
        let cases = [(case("new", Kind::Check), Outcome::Passed)];
        assert_eq!(excuses().unknown(&cases), ["old"]);
    }

    #[test]
    fn the_lists_of_this_checkout_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/conformance");
        let safe = Excuses::read(&folder, true).unwrap();
        assert_eq!(safe.superseded.len(), 25);
        let lists = [&safe.superseded, &safe.refused, &safe.stricter];
        let ids: usize = lists.iter().map(|list| list.len()).sum();
        let different: std::collections::HashSet<&String> =
            lists.iter().flat_map(|list| list.keys()).collect();
        assert_eq!(different.len(), ids, "a case stands in one list only");
    }
}
