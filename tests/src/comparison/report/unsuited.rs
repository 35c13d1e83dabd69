//! When not to use Sidestep: what it costs where it gains nothing, with this run's figures.

use std::fmt;

use super::{
    super::{
        figures::{Report, Row},
        plan::Mode,
    },
    find::short,
    numbers,
};

/// The case of connections whose bytes are relayed unread, in a run that has it.
const RELAYED: &str = "relayed";

/// A workload that is better off without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuited {
    /// Such as `Nothing is cacheable`.
    pub title: &'static str,
    /// Why, in a sentence.
    pub text: &'static str,
    /// What that costs under some loads, or why that is not known.
    pub costs: Vec<Result<Cost, String>>,
}

/// What a mode costs under a load, against a direct connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The load, in words.
    pub load: String,
    /// The mode, in words.
    pub mode: &'static str,
    /// Latency added at the median; empty where it was not measured.
    pub p50: String,
    /// Latency added at the 99th percentile; empty where it was not measured.
    pub p99: String,
    /// Requests in a second, as a multiple of direct's.
    pub per_second: String,
    /// CPU for a request, as a multiple of direct's.
    pub cpu: String,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.load, self.mode)?;
        for (name, added) in [("p50", &self.p50), ("p99", &self.p99)].iter().filter(|(_, it)| !it.is_empty())
        {
            write!(f, "{name} {added}, ")?;
        }
        write!(f, "{} the requests/s, {} the CPU", self.per_second, self.cpu)
    }
}

/// Such workloads, each with its figures.
pub fn unsuited(report: &Report) -> Vec<Unsuited> {
    let of = |title, text, costs: &[(&str, Mode)]| {
        let costs = costs.iter().map(|(case, mode)| cost(report, case, *mode)).collect();
        Unsuited { title, text, costs }
    };
    vec![
        of(
            "Nothing is cacheable",
            "Every request is forwarded, pays for the way through the daemon, and gains nothing.",
            &[
                ("one-miss", Mode::SidestepOff),
                ("hits-0", Mode::SidestepOff),
                ("one-miss", Mode::SidestepMiss),
                ("hits-0", Mode::SidestepMiss),
            ],
        ),
        of(
            "Large bodies, each of its own",
            "Bodies that nobody asks for again are copied through the daemon, and push out what somebody would.",
            &[("size-256k", Mode::SidestepMiss), ("size-1m", Mode::SidestepMiss)],
        ),
        of(
            "TLS from the application",
            "What the application encrypts itself is relayed unread until the kernel learns to leave that destination \
             alone, and is never cached.",
            &[(RELAYED, Mode::SidestepOff)],
        ),
        of(
            "A connection for each request",
            "A connection that carries one small request pays for being accepted by the daemon first.",
            &[("new-connection", Mode::SidestepMiss)],
        ),
    ]
}

fn cost(report: &Report, case: &str, mode: Mode) -> Result<Cost, String> {
    let (row, direct) = (report.row(case, mode)?, report.row(case, Mode::Direct)?);
    let added = |percentile| {
        let of = |row: &Row| Some(row.latency(percentile)?.median());
        of(row).zip(of(direct)).map_or_else(String::new, |(with, without)| numbers::added(with - without))
    };
    let times = |of: fn(&Row) -> f64| numbers::ratio(of(row) / of(direct));
    Ok(Cost {
        load: load(report, case, mode),
        mode: short(mode),
        p50: added(50.0),
        p99: added(99.0),
        per_second: times(|row| row.closed.per_second.median()),
        cpu: times(|row| row.cpu.total.median()),
    })
}

/// The case's name, without its hits where nothing can be one.
fn load(report: &Report, case: &str, mode: Mode) -> String {
    let Some(case) = report.case(case) else { return case.to_owned() };
    let hits = format!(", {} % hits", case.load.hits);
    if mode == Mode::SidestepMiss { case.name.replace(&hits, "") } else { case.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::figures::Series, example},
        *,
    };

    #[test]
    fn each_comes_with_figures_against_direct() {
        let mut report = example::report();
        for (mode, value) in [(Mode::Direct, 30.0), (Mode::SidestepOff, 48.8)] {
            let row = report.rows.iter_mut().find(|row| row.case == "one-miss" && row.mode == mode).unwrap();
            row.open.percentiles = vec![(50.0, Series(vec![value]))];
            row.closed.per_second = Series(vec![1e6 / value]);
            row.cpu.total = Series(vec![value]);
        }
        let cost = unsuited(&report)[0].costs[0].clone().unwrap();
        assert_eq!(
            cost.to_string(),
            "1 KB, 1 connection, 0 % hits (Sidestep, daemon): p50 +18.8 µs, 1/1.6 the requests/s, x 1.6 the CPU"
        );
    }

    #[test]
    fn no_hits_are_named_where_nothing_can_be_one() {
        let large = unsuited(&example::report())[1].costs[1].clone().unwrap();
        assert_eq!(large.load, "1 MB, 16 connections");
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let report = example::report();
        let of = |report: &Report, at: usize| unsuited(report)[at].costs[0].clone();
        assert_eq!(of(&report, 2), Err("the case relayed was not run".to_owned()));
        let mut fewer = report;
        fewer.cases.clear();
        assert_eq!(of(&fewer, 0), Err("the case one-miss was not run".to_owned()));
    }
}
