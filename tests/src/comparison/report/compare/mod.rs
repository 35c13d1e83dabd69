//! The regression guard: what moved between two runs beyond their noise.
//!
//! Machines differ, and one machine from minute to minute: every round's figure but memory is divided by that of `direct`
//! in the same round of the same case. It moved if the ranges of its rounds, so divided, do not touch, and if its medians
//! are further apart than [`MOVED`] (p99: [`MOVED_P99`]).

use std::fmt::Write as _;

use super::{
    super::{
        figures::{Report, Row, Series},
        plan::{MODES, Mode},
    },
    numbers,
};

/// How far apart medians are that moved, of the old one.
pub const MOVED: f64 = 0.10;

/// The same of the 99th percentile, which a few late requests decide.
pub const MOVED_P99: f64 = 0.20;

/// With fewer rounds two ranges lie apart by chance: one time in three with two, one in ten with three, one in 126 with
/// five, one in 24 310 with nine.
const ROUNDS_MIN: usize = 3;

/// Latencies are compared where the open loops' rates are no further apart, by themselves or by what direct reaches.
const SAME_RATE: f64 = 0.25;

/// A figure that moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// The case's id, or `memory, 50 pods`.
    pub case: String,
    /// Which mode.
    pub mode: Mode,
    /// Such as `requests/s`, `p50`.
    pub figure: &'static str,
    /// The median of then, as a multiple of direct's in the same round; memory in bytes.
    pub old: f64,
    /// The median of now.
    pub new: f64,
    /// Whether it is better now.
    pub is_better: bool,
}

impl Moved {
    /// By how much of its old value, such as 0.2 and -0.2.
    pub fn change(&self) -> f64 {
        self.new / self.old - 1.0
    }
}

/// What became of everything that both runs might say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// What moved.
    pub moved: Vec<Moved>,
    /// How many figures did not.
    pub unmoved: usize,
    /// What cannot be compared, and why.
    pub not_compared: Vec<String>,
}

/// A figure of a row, with what counts as moved, and whether more of it is better.
struct Figure {
    name: &'static str,
    of: fn(&Row) -> Option<&Series>,
    moved: f64,
    more_is_better: bool,
    /// Whether it only means something at the same rate.
    is_latency: bool,
}

const FIGURES: [Figure; 4] = [
    Figure {
        name: "requests/s",
        of: |row| Some(&row.closed.per_second),
        moved: MOVED,
        more_is_better: true,
        is_latency: false,
    },
    Figure {
        name: "p50",
        of: |row| row.latency(50.0),
        moved: MOVED,
        more_is_better: false,
        is_latency: true,
    },
    Figure {
        name: "p99",
        of: |row| row.latency(99.0),
        moved: MOVED_P99,
        more_is_better: false,
        is_latency: true,
    },
    Figure {
        name: "CPU",
        of: |row| Some(&row.cpu.total),
        moved: MOVED,
        more_is_better: false,
        is_latency: false,
    },
];

/// Compares two runs.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let mut found = Comparison::default();
    if old.schema != new.schema {
        let why = format!("everything: the old report has schema {}, the new one {}", old.schema, new.schema);
        found.not_compared.push(why);
    } else if old.profile != new.profile {
        let why = format!("everything: the old run was {}, the new one {}", old.profile, new.profile);
        found.not_compared.push(why);
    } else {
        let is_direct_there = compare_mode(old, new, Mode::Direct, &mut found);
        for (mode, ..) in MODES.into_iter().filter(|(mode, ..)| *mode != Mode::Direct) {
            if !compare_mode(old, new, mode, &mut found) {
                continue;
            }
            compare_memory(old, new, mode, &mut found);
            let more = new.cases.iter().filter(|case| old.case(&case.id).is_none());
            for case in old.cases.iter().chain(more).filter(|_| is_direct_there) {
                compare_rows(old, new, (&case.id, mode), &mut found);
            }
        }
    }
    found
}

/// Whether both runs have this mode; says so where only one has.
fn compare_mode(old: &Report, new: &Report, mode: Mode, found: &mut Comparison) -> bool {
    let skipped = |report: &Report, which: &str| {
        let note = report.modes.iter().find(|note| note.mode == mode);
        let why = note.map_or(Some("not asked for"), |note| note.skipped.as_deref())?;
        let lost = if mode == Mode::Direct { ", by which all others are divided" } else { "" };
        Some(format!("{}{lost}: in the {which} run: {why}", mode.word()))
    };
    let (before, after) = (skipped(old, "old"), skipped(new, "new"));
    let is_there = before.is_none() && after.is_none();
    // What neither run has was not lost between them; without direct nothing else can be compared.
    if before.is_none() || after.is_none() || mode == Mode::Direct {
        found.not_compared.extend(before.or(after));
    }
    is_there
}

/// A case's rows of a mode and of direct, in one run.
fn pair<'a>(report: &'a Report, (case, mode): (&str, Mode), which: &str) -> Result<[&'a Row; 2], String> {
    let row = |mode| report.row(case, mode).map_err(|why| format!("in the {which} run: {why}"));
    Ok([row(mode)?, row(Mode::Direct)?])
}

fn compare_rows(old: &Report, new: &Report, what: (&str, Mode), found: &mut Comparison) {
    let (case, mode) = what;
    let mut not_compared = |figure: &str, why: String| {
        found.not_compared.push(format!("{case}, {}{figure}: {why}", mode.word()))
    };
    let (before, after) = match (pair(old, what, "old"), pair(new, what, "new")) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(_), Err(_)) => return,
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => return not_compared("", why),
    };
    if old.case(case).map(|case| case.load) != new.case(case).map(|case| case.load) {
        return not_compared("", "its load is another".to_owned());
    }
    let is_same_rate = is_same_rate(before, after);
    if !is_same_rate {
        not_compared(", latency", format!("due were {} and {}/s", before[0].open.rate, after[0].open.rate));
    }
    for figure in FIGURES.iter().filter(|figure| is_same_rate || !figure.is_latency) {
        match (normalised(before, figure), normalised(after, figure)) {
            (Ok(before), Ok(after)) => match moved(&before, &after, figure.moved) {
                false => found.unmoved += 1,
                true => found.moved.push(Moved {
                    case: case.to_owned(),
                    mode,
                    figure: figure.name,
                    old: before.median(),
                    new: after.median(),
                    is_better: (after.median() > before.median()) == figure.more_is_better,
                }),
            },
            (Err(why), _) | (_, Err(why)) => {
                found.not_compared.push(format!("{case}, {}, {}: {why}", mode.word(), figure.name));
            }
        }
    }
}

fn is_same_rate(before: [&Row; 2], after: [&Row; 2]) -> bool {
    let near = |before: f64, after: f64| (after / before - 1.0).abs() <= SAME_RATE;
    let part = |[row, direct]: [&Row; 2]| row.open.rate / direct.closed.per_second.median();
    near(before[0].open.rate, after[0].open.rate) || near(part(before), part(after))
}

/// A mode's rounds, each divided by direct's of the same round.
fn normalised([row, direct]: [&Row; 2], figure: &Figure) -> Result<Series, String> {
    let series = |row| (figure.of)(row).ok_or_else(|| "a run has no value".to_owned());
    let (rounds, units) = (series(row)?, series(direct)?);
    if rounds.0.len() < ROUNDS_MIN {
        return Err(format!(
            "a run has {} rounds, and {ROUNDS_MIN} are needed to know its noise",
            rounds.0.len()
        ));
    }
    if rounds.0.len() != units.0.len() {
        return Err(format!("a run has {} rounds of it and {} of direct", rounds.0.len(), units.0.len()));
    }
    if rounds.0.iter().chain(&units.0).any(|value| *value <= 0.0) {
        return Err("a run has nothing but zero in a round".to_owned());
    }
    Ok(Series(rounds.0.iter().zip(&units.0).map(|(value, unit)| value / unit).collect()))
}

fn moved(before: &Series, after: &Series, least: f64) -> bool {
    let is_apart = before.max() < after.min() || after.max() < before.min();
    is_apart && (after.median() / before.median() - 1.0).abs() > least
}

fn compare_memory(old: &Report, new: &Report, mode: Mode, found: &mut Comparison) {
    let mut pods = [old.pods(), new.pods()].concat();
    pods.sort_unstable();
    pods.dedup();
    for pods in pods {
        let case = format!("memory, {pods} pods");
        match (old.memory_row(pods, mode), new.memory_row(pods, mode)) {
            (Ok(before), Ok(after)) => {
                let (before, after) = (before.bytes(), after.bytes());
                if (after - before).abs() <= before * MOVED {
                    found.unmoved += 1;
                } else {
                    let is_better = after < before;
                    found.moved.push(Moved {
                        case,
                        mode,
                        figure: "bytes",
                        old: before,
                        new: after,
                        is_better,
                    });
                }
            }
            (Err(why), Ok(_)) => found.not_compared.push(format!("{case}: in the old run: {why}")),
            (Ok(_), Err(why)) => found.not_compared.push(format!("{case}: in the new run: {why}")),
            (Err(_), Err(_)) => {}
        }
    }
}

/// A comparison as lines for a terminal, the worse first.
pub fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    let mut moved: Vec<&Moved> = comparison.moved.iter().collect();
    moved.sort_by_key(|moved| moved.is_better);
    for moved in moved {
        let shown =
            |value| if moved.figure == "bytes" { numbers::bytes(value) } else { numbers::significant(value) };
        let word = if moved.is_better { "better" } else { "WORSE" };
        let _ = writeln!(
            out,
            "{word:<7} {:<18} {:<14} {:<11} {:>9} -> {:<9} {:+.0} %",
            moved.case,
            moved.mode.word(),
            moved.figure,
            shown(moved.old),
            shown(moved.new),
            moved.change() * 100.0
        );
    }
    let worse = comparison.moved.iter().filter(|moved| !moved.is_better).count();
    let _ = writeln!(
        out,
        "worse: {worse}, better: {}, within noise: {} (multiples of direct's, round by round; moved: ranges apart, \
         and medians by over {:.0} %, p99 {:.0} %)",
        comparison.moved.len() - worse,
        comparison.unmoved,
        MOVED * 100.0,
        MOVED_P99 * 100.0
    );
    for why in &comparison.not_compared {
        let _ = writeln!(out, "not compared: {}", why.replace(char::is_control, " "));
    }
    out
}

#[cfg(test)]
mod tests;
