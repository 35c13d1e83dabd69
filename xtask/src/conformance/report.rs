//! One profile's run, as a table and as JSON: passed by kind and by area, then what did not pass and why.

use serde_json::{Value, json};

use super::{
    excuses::{Excuses, Verdict},
    suite::{Case, Kind, Outcome, Report},
};

/// Passed cases and all cases, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally([(usize, usize); Kind::ALL.len()]);

impl Tally {
    fn of<'a>(cases: impl Iterator<Item = &'a (Case, Outcome)> + Clone) -> Self {
        Self(Kind::ALL.map(|kind| {
            let of_kind = cases.clone().filter(|(case, _)| case.kind == kind);
            (of_kind.clone().filter(|(_, outcome)| *outcome == Outcome::Passed).count(), of_kind.count())
        }))
    }

    fn cells(&self) -> String {
        let cell = |(passed, all): (usize, usize)| match all {
            0 => format!("{:>13}", "-"),
            _ => format!("{:>13}", format!("{passed}/{all}")),
        };
        self.0.map(cell).concat()
    }

    fn to_json(self) -> Value {
        let of = |(kind, (passed, all)): (Kind, (usize, usize))| {
            (kind.as_str().to_owned(), json!({ "passed": passed, "all": all }))
        };
        Kind::ALL.into_iter().zip(self.0).map(of).collect::<serde_json::Map<_, _>>().into()
    }
}

/// A judged run of one profile.
pub(super) struct Judged {
    profile: String,
    report: Report,
    verdicts: Vec<Verdict>,
    unknown: Vec<String>,
}

impl Judged {
    /// Judges every case; `is_whole` unless single cases were asked for.
    pub(super) fn of(profile: &str, report: Report, excuses: &Excuses, is_whole: bool) -> Self {
        let verdicts = report.cases.iter().map(|(case, outcome)| excuses.judge(case, outcome)).collect();
        let unknown = if is_whole { excuses.unknown(&report.cases) } else { Vec::new() };
        let unknown = unknown.into_iter().map(str::to_owned).collect();
        Self { profile: profile.to_owned(), report, verdicts, unknown }
    }

    /// What nothing explains, a line each; empty if the run is as it must be.
    pub(super) fn unexplained(&self) -> Vec<String> {
        let cases = self.judged().filter(|(_, _, verdict)| **verdict == Verdict::Unexplained);
        let profile = &self.profile;
        let cases = cases.map(move |(case, outcome, _)| {
            format!("{profile}: {}: {outcome}; Cache-Status: {}", case.id, case.said.join(" / "))
        });
        let no_such = |id| format!("{profile}: {id}: listed, but the suite has no such case");
        let unknown = self.unknown.iter().map(no_such);
        cases.chain(unknown).collect()
    }

    /// One line: passed by kind.
    pub(super) fn summary(&self) -> String {
        let tally = Tally::of(self.report.cases.iter());
        let of = |(kind, (passed, all)): (Kind, (usize, usize))| format!("{passed}/{all} {}", kind.as_str());
        let kinds: Vec<String> = Kind::ALL.into_iter().zip(tally.0).map(of).collect();
        format!("{}: {}", self.profile, kinds.join(", "))
    }

    /// Prints the tables.
    pub(super) fn print(&self) {
        let heads = Kind::ALL.map(|kind| format!("{:>13}", kind.as_str())).concat();
        println!("\n{:<24}{heads}", format!("profile {}", self.profile));
        for (area, tally) in self.areas() {
            println!("  {area:<22}{}", tally.cells());
        }
        println!("  {:<22}{}", "all", Tally::of(self.report.cases.iter()).cells());
        let print = |title: &str, wanted: &dyn Fn(&Verdict) -> bool| {
            let lines: Vec<_> = self.judged().filter(|(_, _, verdict)| wanted(verdict)).collect();
            if !lines.is_empty() {
                println!("\n{title}");
            }
            for (case, outcome, verdict) in lines {
                println!("  {:<8} {:<50} {}", case.kind.as_str(), case.id, reason(outcome, verdict));
            }
        };
        for (list, title) in [
            ("superseded", "not passed: the edition of the suite contradicts the RFC"),
            ("refused", "not passed: optional, and refused"),
            ("stricter", "not passed: this profile is stricter than the RFC"),
        ] {
            print(title, &|verdict| matches!(verdict, Verdict::Excused(name, _) if *name == list));
        }
        print("checks answered no", &|verdict| *verdict == Verdict::No);
        print("passed although listed", &|verdict| *verdict == Verdict::PassedThoughListed);
        let unexplained = self.unexplained();
        if !unexplained.is_empty() {
            println!("\nUNEXPLAINED\n  {}", unexplained.join("\n  "));
        }
    }

    /// The same as JSON.
    pub(super) fn to_json(&self) -> Value {
        let areas: serde_json::Map<String, Value> =
            self.areas().into_iter().map(|(area, tally)| (area, tally.to_json())).collect();
        let not_passed = self.judged().filter(|(_, outcome, _)| **outcome != Outcome::Passed);
        let not_passed: Vec<Value> = not_passed
            .map(|(case, outcome, verdict)| {
                let (list, clause, why) = match verdict {
                    Verdict::Excused(list, excuse) => (Some(list), Some(&excuse.clause), Some(&excuse.why)),
                    _ => (None, None, None),
                };
                json!({
                    "case": case.id, "area": case.area, "kind": case.kind, "outcome": outcome.to_string(),
                    "cache_status": case.said,
                    "list": list, "clause": clause, "why": why, "unexplained": *verdict == Verdict::Unexplained,
                })
            })
            .collect();
        json!({
            "profile": self.profile, "suite": self.report.version,
            "kinds": Tally::of(self.report.cases.iter()).to_json(), "areas": areas,
            "not_passed": not_passed, "unexplained": self.unexplained(),
        })
    }

    fn judged(&self) -> impl Iterator<Item = (&Case, &Outcome, &Verdict)> {
        let cases = self.report.cases.iter().zip(&self.verdicts);
        cases.map(|((case, outcome), verdict)| (case, outcome, verdict))
    }

    /// The areas in the suite's order.
    fn areas(&self) -> Vec<(String, Tally)> {
        let mut names: Vec<&str> = self.report.cases.iter().map(|(case, _)| case.area.as_str()).collect();
        names.dedup();
        let of = |name: &str| Tally::of(self.report.cases.iter().filter(move |(case, _)| case.area == name));
        names.into_iter().map(|name| (name.to_owned(), of(name))).collect()
    }
}

fn reason(outcome: &Outcome, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Excused(_, excuse) => format!("{}: {}", excuse.clause, excuse.why),
        _ => outcome.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::tests::case;
    use super::*;

    fn judged() -> Judged {
        let cases = vec![
            (case("a", Kind::Required), Outcome::Passed),
            (case("b", Kind::Required), Outcome::Failed("Response 2 comes from cache".to_owned())),
            (case("c", Kind::Check), Outcome::Failed("no".to_owned())),
        ];
        let report = Report { version: "1".to_owned(), cases };
        Judged::of("safe", report, &Excuses::default(), true)
    }

    #[test]
    fn passed_cases_are_counted_by_kind_and_the_rest_is_named() {
        assert_eq!(judged().summary(), "safe: 1/2 required, 0/0 optimal, 0/1 check");
        assert_eq!(judged().unexplained(), ["safe: b: Response 2 comes from cache; Cache-Status: "]);
    }

    #[test]
    fn the_json_form_says_the_same() {
        let json = judged().to_json();
        assert_eq!(json["kinds"]["required"], json!({ "passed": 1, "all": 2 }));
        assert_eq!(json["areas"]["area"]["check"], json!({ "passed": 0, "all": 1 }));
        assert_eq!(json["not_passed"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["not_passed"][0]["unexplained"], json!(true));
        assert_eq!(json["unexplained"].as_array().map(Vec::len), Some(1));
    }
}
