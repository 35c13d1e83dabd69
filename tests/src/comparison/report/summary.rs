//! The run in two sentences: what hits gain, and what it costs.

use super::{
    super::{
        figures::{Report, Row},
        plan::Mode,
    },
    numbers,
    targets::targets,
};

/// The pods of the sentence about memory.
const PODS: u32 = 50;

/// Two sentences with what of the main ratios this run has.
pub(super) fn summary(report: &Report) -> String {
    let per_second = |case, ours, theirs| {
        let of =
            |mode| Some(report.row(case, mode).ok()?.closed.per_second.median()).filter(|value| *value > 0.0);
        Some(numbers::times(of(ours)? / of(theirs)?))
    };
    let kernel = ["one-hit", "hits-100"].map(|case| per_second(case, Mode::Sidestep, Mode::Sidecar));
    let kernel = match kernel {
        [Some(one), Some(many)] => {
            Some(format!("{one} the requests/s of an Envoy sidecar ({many} at 16 connections)"))
        }
        [Some(ratio), None] | [None, Some(ratio)] => {
            Some(format!("{ratio} the requests/s of an Envoy sidecar"))
        }
        [None, None] => None,
    };
    let kernel = kernel.map(|ratio| format!("hits inside the kernel reach {ratio}"));
    let daemon = per_second("one-hit", Mode::SidestepOff, Mode::EnvoyCache)
        .map(|ratio| format!("hits of the daemon {ratio} those of Envoy's own cache filter"));

    let targets = targets(report);
    let known = targets.iter().filter(|target| target.met.is_some()).count();
    let met = targets.iter().filter(|target| target.met == Some(true)).count();
    let count = (known > 0).then(|| format!("{met} of the {known} targets that were measured are met"));
    let gains = sentence([kernel, daemon]);
    let costs = sentence([miss(report), memory(report), count]);
    let both: Vec<String> = gains.into_iter().chain(costs).collect();
    if both.is_empty() { "This run measured too little for a summary.".to_owned() } else { both.join(" ") }
}

fn miss(report: &Report) -> Option<String> {
    let p50 =
        |mode| report.row("one-miss", mode).ok().and_then(|row: &Row| Some(row.latency(50.0)?.median()));
    let direct = p50(Mode::Direct)?;
    let (ours, theirs) = (p50(Mode::SidestepOff)? - direct, p50(Mode::Sidecar)? - direct);
    Some(format!("a miss adds {} at p50, the sidecar {}", numbers::latency(ours), numbers::latency(theirs)))
}

fn memory(report: &Report) -> Option<String> {
    let bytes = |mode| Some(report.memory_row(PODS, mode).ok()?.bytes());
    let (ours, theirs) = (numbers::bytes(bytes(Mode::Sidestep)?), numbers::bytes(bytes(Mode::Sidecar)?));
    Some(format!("with {PODS} pods the node's cache takes {ours} where sidecars take {theirs}"))
}

/// What there is, joined and with a capital letter.
fn sentence<const N: usize>(parts: [Option<String>; N]) -> Option<String> {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let text = match parts.as_slice() {
        [] => return None,
        [first, .., last] if parts.len() > 2 => {
            format!("{first}; {}; {last}", parts.get(1..parts.len() - 1)?.join("; "))
        }
        parts => parts.join(", "),
    };
    let mut letters = text.chars();
    let first = letters.next()?.to_uppercase();
    Some(format!("{first}{}.", letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    #[test]
    fn the_main_ratios_are_in_two_sentences() {
        let text = summary(&example::report());
        for part in [
            "Hits inside the kernel reach 104 times the requests/s of an Envoy sidecar (61 times",
            "at 16 connections",
            "; with 50 pods the node's cache takes ",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(text.matches(". ").count(), 1, "{text}");
        assert!(text.ends_with(" targets that were measured are met."), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let mut report = example::report();
        report.cases.retain(|case| case.id != "one-hit");
        report.memory.clear();
        let text = summary(&report);
        assert!(
            !text.contains("16 connections") && !text.contains("50 pods") && text.contains("A miss adds"),
            "{text}"
        );
        report.cases.clear();
        assert_eq!(summary(&report), "This run measured too little for a summary.");
    }
}
