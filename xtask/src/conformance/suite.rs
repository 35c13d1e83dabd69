//! What the suite reported of a run, judged as its own published results are: a case counts as passed only if every
//! case it depends on passed as well.
//!
//! Whether a case that did not pass is excused is left to `excuses`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// How deep dependencies of dependencies go, at most.
const DEPENDENCY_DEPTH_MAX: usize = 16;

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A requirement of the specification, as the suite's edition reads it.
    Required,
    /// What a good cache does.
    Optimal,
    /// A question: neither answer is wrong.
    Check,
}

impl Kind {
    /// All of them, in the order in which they are printed.
    pub(super) const ALL: [Self; 3] = [Self::Required, Self::Optimal, Self::Check];

    /// The suite's word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optimal => "optimal",
            Self::Check => "check",
        }
    }
}

/// One case of the suite.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Case {
    /// Its name.
    pub(super) id: String,
    /// The group of cases it belongs to.
    pub(super) area: String,
    /// What it is about.
    pub(super) kind: Kind,
    /// Cases without which it says nothing.
    depends_on: Vec<String>,
    /// The Cache-Status of each answer (RFC 9211).
    #[serde(default)]
    pub(super) said: Vec<String>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As the suite wants it; with a check: yes.
    Passed,
    /// Otherwise, and what was seen.
    Failed(String),
    /// What it builds on did not come about; `retry`: a request reached the origin twice.
    SetUp(String),
    /// A case it depends on did not pass.
    Dependency(String),
    /// No answer in time.
    TimeOut(String),
    /// The connection broke, or the suite did not understand what it saw.
    Error(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(out, "passed"),
            Self::Failed(said) => write!(out, "{said}"),
            Self::SetUp(said) => write!(out, "lost to its set-up: {said}"),
            Self::Dependency(id) => write!(out, "lost to its dependency {id}"),
            Self::TimeOut(said) => write!(out, "lost to a time-out: {said}"),
            Self::Error(said) => write!(out, "error: {said}"),
        }
    }
}

/// What `client.mjs` wrote.
#[derive(Debug, Deserialize)]
struct Run {
    version: String,
    cases: Vec<Case>,
    results: BTreeMap<String, Given>,
}

/// The suite's own form: `true`, or the name and the message of what was thrown.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Given {
    Passed(bool),
    Thrown(String, String),
}

impl Given {
    fn outcome(self) -> Outcome {
        match self {
            Self::Passed(true) => Outcome::Passed,
            Self::Passed(false) => Outcome::Error("the suite says `false`".to_owned()),
            Self::Thrown(name, said) => match name.as_str() {
                "Assertion" => Outcome::Failed(said),
                "Setup" => Outcome::SetUp(said),
                _ if said.contains("timeout") => Outcome::TimeOut(said),
                _ => Outcome::Error(format!("{name}: {said}")),
            },
        }
    }
}

/// Every case of a run with its outcome, in the suite's order.
#[derive(Debug)]
pub(super) struct Report {
    /// The suite's version.
    pub(super) version: String,
    /// The cases.
    pub(super) cases: Vec<(Case, Outcome)>,
}

impl Report {
    /// Reads what the client wrote.
    ///
    /// # Errors
    /// If it is not of that form, or a case has no result.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let run: Run = serde_json::from_str(text).context("the suite's results cannot be read")?;
        ensure!(!run.cases.is_empty(), "the suite has no such case");
        let own: HashMap<String, Outcome> =
            run.results.into_iter().map(|(id, result)| (id, result.outcome())).collect();
        let dependencies: HashMap<&str, &[String]> =
            run.cases.iter().map(|case| (case.id.as_str(), case.depends_on.as_slice())).collect();
        let mut outcomes = Vec::with_capacity(run.cases.len());
        for case in &run.cases {
            outcomes.push(outcome(&case.id, &own, &dependencies, DEPENDENCY_DEPTH_MAX)?);
        }
        Ok(Self { version: run.version, cases: run.cases.into_iter().zip(outcomes).collect() })
    }
}

fn outcome(
    id: &str,
    own: &HashMap<String, Outcome>,
    dependencies: &HashMap<&str, &[String]>,
    depth: usize,
) -> Result<Outcome> {
    if depth == 0 {
        bail!("the suite's dependencies of {id} run in a circle");
    }
    for dependency in dependencies.get(id).copied().unwrap_or_default() {
        // A case that was asked for alone is judged alone.
        if dependencies.contains_key(dependency.as_str())
            && outcome(dependency, own, dependencies, depth - 1)? != Outcome::Passed
        {
            return Ok(Outcome::Dependency(dependency.clone()));
        }
    }
    own.get(id).cloned().with_context(|| format!("the suite gave no result for {id}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A case in the area `area` that depends on nothing.
    pub(crate) fn case(id: &str, kind: Kind) -> Case {
        Case { id: id.to_owned(), area: "area".to_owned(), kind, depends_on: vec![], said: vec![] }
    }

    fn outcomes(results: &str) -> Result<Vec<Outcome>> {
        let case = |id, on| format!(r#"{{"id":"{id}","area":"x","kind":"required","depends_on":[{on}]}}"#);
        let cases = [case("a", ""), case("b", "\"a\""), case("c", "\"b\"")].join(",");
        let text = format!(r#"{{"version":"1","cases":[{cases}],"results":{{{results}}}}}"#);
        Ok(Report::parse(&text)?.cases.into_iter().map(|(_, outcome)| outcome).collect())
    }

    #[test]
    fn a_case_counts_only_with_all_it_depends_on() {
        let failed = Outcome::Failed("x".to_owned());
        let all = outcomes(r#""a": ["Assertion", "x"], "b": true, "c": true"#).unwrap();
        assert_eq!(all, [failed, Outcome::Dependency("a".to_owned()), Outcome::Dependency("b".to_owned())]);
        assert_eq!(outcomes(r#""a": true, "b": true, "c": true"#).unwrap(), vec![Outcome::Passed; 3]);
    }

    #[test]
    fn what_was_thrown_tells_losses_from_failures() {
        let thrown = r#""a": true, "b": true, "c": "#;
        for (result, expected) in [
            (r#"["Setup", "retry"]"#, Outcome::SetUp("retry".to_owned())),
            (
                r#"["FetchError", "network timeout at: /"]"#,
                Outcome::TimeOut("network timeout at: /".to_owned()),
            ),
            (r#"["TypeError", "x"]"#, Outcome::Error("TypeError: x".to_owned())),
        ] {
            assert_eq!(outcomes(&format!("{thrown}{result}")).unwrap().last(), Some(&expected));
        }
    }

    #[test]
    fn a_case_without_a_result_is_an_error() {
        assert!(outcomes(r#""a": true, "b": true"#).unwrap_err().to_string().contains("no result for c"));
    }
}
