//! What the project set out to reach, as ratios of one run, and whether this run reached it.

use std::fmt;

use super::{
    super::{
        figures::{Report, Row, Series},
        plan::Mode,
    },
    numbers,
};

/// What is asked of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ x {bound}"),
            Self::AtMost(bound) => write!(f, "≤ 1/{}", 1.0 / bound),
        }
    }
}

/// A target and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// What is divided by what.
    pub name: &'static str,
    /// What is asked of the ratio.
    pub asked: Asked,
    /// The ratio of the medians; none where it was not measured, or where ours is nothing.
    pub value: Option<f64>,
    /// The least and the greatest ratio of two rounds that followed each other, where each round has one.
    pub range: Option<(f64, f64)>,
    /// Whether the ratio is as asked; none where the run does not say.
    pub met: Option<bool>,
    /// Why there is no ratio; empty where there is one.
    pub why: String,
}

impl Target {
    /// The ratio as people read it, with its range; empty without one.
    pub fn measured(&self) -> String {
        let range =
            self.range.map(|(min, max)| format!(" ({}–{})", numbers::ratio(min), numbers::ratio(max)));
        self.value.map_or_else(String::new, |value| numbers::ratio_fine(value) + &range.unwrap_or_default())
    }

    /// `met`, `NOT met` or `not measured`.
    pub fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "NOT met",
            None => "not measured",
        }
    }
}

/// Which figure two modes are compared by.
#[derive(Clone, Copy)]
enum Figure {
    /// Requests in a second, ours ÷ theirs.
    PerSecond,
    /// What is added to a direct request's latency at this percentile, theirs ÷ ours.
    Added(f64),
    /// CPU for 1000 requests, everything on the path, ours ÷ theirs.
    Cpu,
    /// Memory with this number of pods, what is shared counted once, ours ÷ theirs.
    Memory(u32),
    /// The same as `ps` shows it, what is shared counted with each process.
    Resident(u32),
}

struct Wanted {
    name: &'static str,
    figure: Figure,
    case: &'static str,
    ours: Mode,
    theirs: Mode,
    asked: Asked,
}

const fn wanted(
    name: &'static str,
    (figure, case): (Figure, &'static str),
    (ours, theirs): (Mode, Mode),
    asked: Asked,
) -> Wanted {
    Wanted { name, figure, case, ours, theirs, asked }
}

const KERNEL: (Mode, Mode) = (Mode::Sidestep, Mode::Sidecar);
const DAEMON: (Mode, Mode) = (Mode::SidestepOff, Mode::Sidecar);
const UNSTORABLE: (Mode, Mode) = (Mode::SidestepMiss, Mode::Sidecar);
const AGAINST_ENVOY_CACHE: (Mode, Mode) = (Mode::SidestepOff, Mode::EnvoyCache);
const AGAINST_NGINX: (Mode, Mode) = (Mode::SidestepOff, Mode::Nginx);
const AGAINST_VARNISH: (Mode, Mode) = (Mode::SidestepOff, Mode::Varnish);

use Asked::{AtLeast, AtMost};
use Figure::{Added, Cpu, Memory, PerSecond, Resident};

const WANTED: [Wanted; 18] = [
    wanted("Latency added to a miss, p50: sidecar ÷ ours", (Added(50.0), "one-miss"), DAEMON, AtLeast(4.0)),
    wanted("Latency added to a miss, p99: sidecar ÷ ours", (Added(99.0), "one-miss"), DAEMON, AtLeast(3.0)),
    wanted("Latency added, nothing storable, p50", (Added(50.0), "one-miss"), UNSTORABLE, AtLeast(4.0)),
    wanted("Latency added, nothing storable, p99", (Added(99.0), "one-miss"), UNSTORABLE, AtLeast(3.0)),
    wanted(
        "Hits/s of the daemon ÷ Envoy's cache, 1 connection",
        (PerSecond, "one-hit"),
        AGAINST_ENVOY_CACHE,
        AtLeast(3.5),
    ),
    wanted(
        "Hits/s of the daemon ÷ Envoy's cache, 16 connections",
        (PerSecond, "hits-100"),
        AGAINST_ENVOY_CACHE,
        AtLeast(4.0),
    ),
    wanted("Hits/s of the daemon ÷ nginx, 1 connection", (PerSecond, "one-hit"), AGAINST_NGINX, AtLeast(1.3)),
    wanted(
        "Hits/s of the daemon ÷ nginx, 16 connections",
        (PerSecond, "hits-100"),
        AGAINST_NGINX,
        AtLeast(2.0),
    ),
    wanted(
        "Hits/s of the daemon ÷ Varnish, 1 connection",
        (PerSecond, "one-hit"),
        AGAINST_VARNISH,
        AtLeast(1.3),
    ),
    wanted(
        "Hits/s of the daemon ÷ Varnish, 16 connections",
        (PerSecond, "hits-100"),
        AGAINST_VARNISH,
        AtLeast(2.0),
    ),
    wanted("Hits/s in the kernel ÷ sidecar, 1 connection", (PerSecond, "one-hit"), KERNEL, AtLeast(20.0)),
    wanted("Hits/s in the kernel ÷ sidecar, 16 connections", (PerSecond, "hits-100"), KERNEL, AtLeast(12.0)),
    wanted("CPU of a hit of the daemon ÷ sidecar", (Cpu, "hits-100"), DAEMON, AtMost(0.25)),
    wanted("CPU of a hit in the kernel ÷ sidecar", (Cpu, "hits-100"), KERNEL, AtMost(0.05)),
    wanted("CPU of a miss ÷ sidecar, 1 connection", (Cpu, "one-miss"), DAEMON, AtMost(0.5)),
    wanted("CPU of a miss ÷ sidecar, 16 connections", (Cpu, "hits-0"), DAEMON, AtMost(0.5)),
    wanted("Memory with 50 pods ÷ sidecars, as ps shows it", (Resident(50), ""), KERNEL, AtMost(1.0 / 30.0)),
    wanted("Memory with 50 pods ÷ sidecars, shared once", (Memory(50), ""), KERNEL, AtMost(1.0 / 30.0)),
];

/// Every target with what this run says of it.
pub fn targets(report: &Report) -> Vec<Target> {
    WANTED.iter().map(|wanted| judged(report, wanted)).collect()
}

fn judged(report: &Report, wanted: &Wanted) -> Target {
    let Wanted { name, asked, .. } = *wanted;
    let target = Target { name, asked, value: None, range: None, met: None, why: String::new() };
    match values(report, wanted) {
        Err(why) => Target { why, ..target },
        Ok((over, under)) if under.median <= 0.0 => match wanted.figure {
            Added(_) if over.median > 0.0 => {
                Target { met: Some(true), why: "ours added nothing measurable".to_owned(), ..target }
            }
            Added(_) => Target { why: "neither added anything measurable".to_owned(), ..target },
            _ => Target { why: "what is divided by is nothing".to_owned(), ..target },
        },
        Ok((over, under)) => {
            let value = over.median / under.median;
            let met = match asked {
                AtLeast(bound) => value >= bound,
                AtMost(bound) => value <= bound,
            };
            Target { value: Some(value), range: range(&over.rounds, &under.rounds), met: Some(met), ..target }
        }
    }
}

/// A figure of a mode: of all rounds, and of each.
struct Value {
    median: f64,
    rounds: Vec<f64>,
}

impl Value {
    fn of(series: &Series) -> Result<Self, String> {
        if series.0.is_empty() {
            return Err("no round gave a value".to_owned());
        }
        Ok(Self { median: series.median(), rounds: series.0.clone() })
    }
}

/// What is divided, and by what.
fn values(report: &Report, wanted: &Wanted) -> Result<(Value, Value), String> {
    let of = |mode| value(report, wanted, mode);
    let (ours, theirs) = (of(wanted.ours)?, of(wanted.theirs)?);
    Ok(if matches!(wanted.figure, Added(_)) { (theirs, ours) } else { (ours, theirs) })
}

fn value(report: &Report, wanted: &Wanted, mode: Mode) -> Result<Value, String> {
    let row = || report.row(wanted.case, mode);
    match wanted.figure {
        PerSecond => Value::of(&row()?.closed.per_second),
        Cpu => Value::of(&row()?.cpu.total),
        Resident(pods) => Ok(Value { median: report.memory_row(pods, mode)?.resident(), rounds: Vec::new() }),
        Memory(pods) => Ok(Value { median: report.memory_row(pods, mode)?.bytes(), rounds: Vec::new() }),
        Added(percentile) => {
            let latency = |row: &Row| {
                let missing = || format!("{} has no p{percentile}", mode.word());
                row.latency(percentile).ok_or_else(missing).and_then(Value::of)
            };
            let (with, without) = (latency(row()?)?, latency(report.row(wanted.case, Mode::Direct)?)?);
            let is_paired = with.rounds.len() == without.rounds.len();
            let pairs = with.rounds.iter().zip(&without.rounds).filter(|_| is_paired);
            Ok(Value {
                median: with.median - without.median,
                rounds: pairs.map(|(with, without)| with - without).collect(),
            })
        }
    }
}

/// The least and the greatest ratio of two rounds in turn; none where not every round has one.
fn range(over: &[f64], under: &[f64]) -> Option<(f64, f64)> {
    if over.len() != under.len() || under.iter().any(|value| *value <= 0.0) {
        return None;
    }
    let ratios = || over.iter().zip(under).map(|(over, under)| over / under);
    Some((ratios().reduce(f64::min)?, ratios().reduce(f64::max)?))
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    fn found(report: &Report, name: &str) -> Target {
        targets(report).into_iter().find(|target| target.name.starts_with(name)).unwrap()
    }

    fn row<'a>(report: &'a mut Report, case: &str, mode: Mode) -> &'a mut Row {
        report.rows.iter_mut().find(|row| row.case == case && row.mode == mode).unwrap()
    }

    #[test]
    fn a_ratio_as_asked_is_met_and_one_short_of_it_is_not() {
        let mut report = example::report();
        for (value, met) in [(20.0, true), (19.9, false)] {
            row(&mut report, "one-hit", Mode::Sidecar).closed.per_second = Series(vec![1000.0]);
            row(&mut report, "one-hit", Mode::Sidestep).closed.per_second = Series(vec![1000.0 * value]);
            let target = found(&report, "Hits/s in the kernel ÷ sidecar, 1 ");
            assert_eq!((target.value, target.met), (Some(value), Some(met)));
        }
        for (value, met) in [(0.05, true), (0.051, false)] {
            row(&mut report, "hits-100", Mode::Sidecar).cpu.total = Series(vec![1.0]);
            row(&mut report, "hits-100", Mode::Sidestep).cpu.total = Series(vec![value]);
            let target = found(&report, "CPU of a hit in the kernel");
            assert_eq!((target.value, target.met), (Some(value), Some(met)));
        }
    }

    #[test]
    fn what_a_miss_adds_is_counted_from_direct() {
        let mut report = example::report();
        let p50 = |report: &mut Report, mode, values: [f64; 3]| {
            row(report, "one-miss", mode).open.percentiles = vec![(50.0, Series(values.to_vec()))];
        };
        p50(&mut report, Mode::Direct, [30.0, 31.0, 32.0]);
        p50(&mut report, Mode::Sidecar, [130.0, 131.0, 132.0]);
        p50(&mut report, Mode::SidestepOff, [50.0, 51.0, 57.0]);
        let target = found(&report, "Latency added to a miss, p50");
        assert_eq!((target.value, target.range, target.met), (Some(5.0), Some((4.0, 5.0)), Some(true)));
        assert_eq!(found(&report, "Latency added to a miss, p99").met, None);

        p50(&mut report, Mode::SidestepOff, [29.0, 30.0, 31.0]);
        let target = found(&report, "Latency added to a miss, p50");
        assert_eq!((target.value, target.met), (None, Some(true)));
        p50(&mut report, Mode::Sidecar, [29.0, 30.0, 31.0]);
        assert_eq!(found(&report, "Latency added to a miss, p50").met, None);
    }

    #[test]
    fn memory_counts_programs_and_maps() {
        let mut report = example::report();
        for (mode, node, maps) in [(Mode::Sidecar, 3000, 0), (Mode::Sidestep, 60, 39)] {
            let row = report.memory.iter_mut().find(|row| row.pods == 50 && row.mode == mode).unwrap();
            (row.node_bytes, row.resident_bytes, row.map_bytes) = (node, node * 2, maps);
        }
        let target = found(&report, "Memory with 50 pods ÷ sidecars, as ps");
        assert_eq!(target.value, Some(159.0 / 6000.0));
        let target = found(&report, "Memory with 50 pods ÷ sidecars, shared");
        assert_eq!((target.value, target.met), (Some(0.033), Some(true)));
        assert_eq!((target.measured().as_str(), target.asked.to_string().as_str()), ("1/30.3", "≤ 1/30"));
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let mut report = example::report();
        let target = found(&report, "Hits/s of the daemon ÷ Varnish");
        assert_eq!((target.met, target.verdict()), (None, "not measured"));
        assert!(target.why.contains(example::NO_VARNISH));

        report.cases.retain(|case| case.id != "one-hit");
        assert_eq!(found(&report, "Hits/s in the kernel ÷ sidecar, 1 ").why, "the case one-hit was not run");
        report.memory.clear();
        assert!(found(&report, "Memory").why.contains("50 pods was not measured"));
        row(&mut report, "hits-100", Mode::Sidecar).cpu.total = Series::default();
        assert_eq!(found(&report, "CPU of a hit of the daemon").why, "no round gave a value");
    }
}
