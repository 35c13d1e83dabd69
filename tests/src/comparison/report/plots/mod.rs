//! The plots of a report, as SVG text.
//!
//! Which figures a plot shows is said here; `lines` and `bars` draw, `ink` gives each mode its colour, its marker and
//! its dashes, which are the same in all plots and differ from each other without any colour too.

mod axis;
mod bars;
mod ink;
mod lines;

use anyhow::Result;

use self::{
    axis::Axis,
    bars::{Bar, Panel},
    lines::{Chart, Line},
};
use super::{
    super::{
        figures::{Report, Row},
        plan::Mode,
    },
    find::{PARTS, short},
    numbers,
};

/// A plot with what stands around it.
#[derive(Clone, Debug)]
pub struct Plot {
    /// A word for links.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// How to read it, in a sentence.
    pub caption: String,
    /// The picture, a whole `<svg>` element.
    pub svg: String,
}

/// Cases by how many of a hundred requests are hits.
const HITS: [(&str, &str); 5] =
    [("hits-0", "0 %"), ("hits-50", "50 %"), ("base", "90 %"), ("hits-99", "99 %"), ("hits-100", "100 %")];

/// Cases whose latency is shown, the first that was run.
const LATENCY: [&str; 2] = ["base", "hits-100"];

/// Cases whose requests/s are shown.
const THROUGHPUT: [&str; 4] = ["one-hit", "one-miss", "hits-100", "base"];

/// Cases whose CPU is shown.
const CPU: [&str; 2] = ["base", "hits-100"];

/// Every plot for which the run has figures.
///
/// # Errors
/// If a plot cannot be drawn.
pub fn plots(report: &Report) -> Result<Vec<Plot>> {
    let all = [latency(report)?, throughput(report)?, cpu(report)?, hit_ratio(report)?, memory(report)?];
    Ok(all.into_iter().flatten().collect())
}

fn latency(report: &Report) -> Result<Option<Plot>> {
    let line = |row: &Row| {
        let known = row
            .open
            .percentiles
            .iter()
            .filter(|(p, series)| *p >= 50.0 && *p < 100.0 && series.median() > 0.0);
        let points = known.map(|(p, series)| (axis::nines(*p), series.median())).collect();
        Line { mode: row.mode, points, note: String::new() }
    };
    let lines =
        |case| rows(report, case).map(line).filter(|line| !line.points.is_empty()).collect::<Vec<_>>();
    let known = LATENCY.map(|case| (case, lines(case))).into_iter().find(|(_, lines)| !lines.is_empty());
    let Some((case, lines)) = known else { return Ok(None) };
    let chart = Chart { x: Axis::nines(), y: Axis::log("latency", values(&lines), numbers::latency), lines };
    Ok(Some(Plot {
        id: "latency",
        title: "Latency distribution",
        caption: format!(
            "So many of all requests were answered within this time ({}; both axes logarithmic, lower is better).",
            name(report, case)
        ),
        svg: lines::svg("Latency by percentile, a line for each mode", &[("", chart)])?,
    }))
}

fn hit_ratio(report: &Report) -> Result<Option<Plot>> {
    let lines = |percentile: f64| {
        let point = |mode, (at, (case, _)): (usize, &(&str, &str))| {
            let latency = report.row(case, mode).ok()?.latency(percentile)?.median();
            (latency > 0.0).then_some((at as f64, latency))
        };
        let points = |mode| HITS.iter().enumerate().filter_map(|it| point(mode, it)).collect::<Vec<_>>();
        let lines =
            report.measured_modes().map(|mode| Line { mode, points: points(mode), note: String::new() });
        lines.filter(|line| !line.points.is_empty()).collect::<Vec<_>>()
    };
    let (p50, p99) = (lines(50.0), lines(99.0));
    if p50.is_empty() || p99.is_empty() {
        return Ok(None);
    }
    let x = Axis::steps("requests that are hits", HITS.map(|(_, name)| name));
    let y = Axis::log("latency", values(&p50).chain(values(&p99)), numbers::latency);
    let chart = |lines| Chart { x: x.clone(), y: y.clone(), lines };
    let panels = [("p50", chart(p50)), ("p99", chart(p99))];
    Ok(Some(Plot {
        id: "hit-ratio",
        title: "Latency and hit ratio",
        caption: "What a larger share of hits does to the median (left) and to the 99th percentile (right) of 1 KB \
                  answers on 16 connections (latency logarithmic, shares not to scale)."
            .to_owned(),
        svg: lines::svg("Latency at p50 and p99 by hit ratio, a line for each mode", &panels)?,
    }))
}

fn memory(report: &Report) -> Result<Option<Plot>> {
    let pods = report.pods();
    let most = pods.last().copied().map_or(0.0, f64::from);
    let line = |mode| {
        let point = |pods: &u32| Some((f64::from(*pods), report.memory_row(*pods, mode).ok()?.bytes()));
        let points: Vec<_> = pods.iter().filter_map(point).filter(|(_, bytes)| *bytes > 0.0).collect();
        let note = points.last().map_or_else(String::new, |(at, bytes)| {
            let fewer = if *at < most { format!(" at {at}") } else { String::new() };
            numbers::bytes(*bytes) + &fewer
        });
        Line { mode, points, note }
    };
    let lines: Vec<Line> = report.measured_modes().map(line).filter(|line| !line.points.is_empty()).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let x = Axis::log_at("pods on the node", &pods);
    let chart = Chart { x, y: Axis::log("memory of the node", values(&lines), numbers::bytes), lines };
    Ok(Some(Plot {
        id: "memory",
        title: "Memory and number of pods",
        caption: "Proportional memory of everything between the pods and the origin, kernel maps included (both axes \
                  logarithmic; beside each name what the most pods took)."
            .to_owned(),
        svg: lines::svg("Memory of the node by number of pods, a line for each mode", &[("", chart)])?,
    }))
}

fn throughput(report: &Report) -> Result<Option<Plot>> {
    let bar = |row: &Row| {
        let series = &row.closed.per_second;
        Bar {
            label: short(row.mode),
            parts: vec![(ink::ink(row.mode).colour, series.median())],
            range: Some((series.min(), series.max())),
            text: numbers::count(series.median()),
        }
    };
    let panels = panels(report, &THROUGHPUT, &bar);
    if panels.is_empty() {
        return Ok(None);
    }
    Ok(Some(Plot {
        id: "throughput",
        title: "Requests per second",
        caption: "Medians of the closed loop; the thin line spans the least and the greatest round (each panel has a \
                  scale of its own)."
            .to_owned(),
        svg: bars::svg("Requests per second, a bar for each mode", "requests/s", &[], &panels)?,
    }))
}

fn cpu(report: &Report) -> Result<Option<Plot>> {
    let bar = |row: &Row| {
        let part = |((_, of), colour): (&super::find::Part, _)| (colour, of(&row.cpu) * 1e3);
        Bar {
            label: short(row.mode),
            parts: PARTS.iter().zip(ink::PARTS).map(part).collect(),
            range: None,
            text: format!("{} ms", numbers::cpu(row.cpu.total.median())),
        }
    };
    let panels = panels(report, &CPU, &bar);
    if panels.is_empty() {
        return Ok(None);
    }
    let legend: Vec<_> = PARTS.iter().zip(ink::PARTS).map(|((name, _), colour)| (*name, colour)).collect();
    Ok(Some(Plot {
        id: "cpu",
        title: "CPU per request",
        caption: "Milliseconds of CPU for 1000 requests of everything on the path, by who spent them (each panel has a \
                  scale of its own)."
            .to_owned(),
        svg: bars::svg("CPU for 1000 requests by part, a bar for each mode", "CPU, ms for 1000 requests", &legend, &panels)?,
    }))
}

fn panels(report: &Report, cases: &[&str], bar: &dyn Fn(&Row) -> Bar) -> Vec<Panel> {
    let panel =
        |case: &&str| Panel { title: name(report, case), bars: rows(report, case).map(bar).collect() };
    cases.iter().map(panel).filter(|panel| !panel.bars.is_empty()).collect()
}

fn rows<'a>(report: &'a Report, case: &str) -> impl Iterator<Item = &'a Row> {
    report.measured_modes().filter_map(move |mode: Mode| report.row(case, mode).ok())
}

fn name(report: &Report, case: &str) -> String {
    report.case(case).map_or_else(String::new, |case| case.name.clone())
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y))
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    /// The texts of a plot, which must be XML.
    fn texts(plot: &Plot) -> Vec<String> {
        let document =
            roxmltree::Document::parse(&plot.svg).unwrap_or_else(|why| panic!("{}: {why}", plot.id));
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        texts.filter_map(|node| node.text()).map(|text| text.trim().to_owned()).collect()
    }

    #[test]
    fn every_plot_is_xml_and_names_every_mode_it_shows() {
        let report = example::report();
        let plots = plots(&report).unwrap();
        assert_eq!(
            plots.iter().map(|plot| plot.id).collect::<Vec<_>>(),
            ["latency", "throughput", "cpu", "hit-ratio", "memory"]
        );
        for plot in &plots {
            let texts = texts(plot);
            // Nothing stands between where a request goes direct, so that has no memory; the relay has no hits.
            let is_shown = |mode: &Mode| match plot.id {
                "memory" => !matches!(mode, Mode::Direct | Mode::Relay),
                "throughput" | "hit-ratio" => true,
                _ => *mode != Mode::Relay,
            };
            for mode in report.measured_modes().filter(is_shown) {
                assert!(texts.iter().any(|text| text.starts_with(short(mode))), "{}: {texts:?}", plot.id);
            }
            assert!(!texts.iter().any(|text| text.starts_with("Varnish")), "{}", plot.id);
        }
    }

    #[test]
    fn no_two_texts_of_a_plot_stand_on_each_other() {
        for plot in plots(&example::report()).unwrap() {
            let document = roxmltree::Document::parse(&plot.svg).unwrap();
            let at = |node: roxmltree::Node<'_, '_>, name: &str| {
                node.attribute(name).unwrap().parse::<f64>().unwrap()
            };
            let labels: Vec<_> = document
                .descendants()
                .filter(|node| node.has_tag_name("text") && node.attribute("text-anchor") == Some("start"))
                .map(|node| (at(node, "x"), at(node, "y"), at(node, "font-size")))
                .collect();
            for (index, (x, y, size)) in labels.iter().enumerate() {
                let near = |(other_x, other_y, _): &&(f64, f64, f64)| {
                    (x - other_x).abs() < 1.0 && (y - other_y).abs() < *size
                };
                assert_eq!(labels[index + 1..].iter().find(near), None, "{} at {x}, {y}", plot.id);
            }
        }
    }

    #[test]
    fn a_run_without_figures_has_no_plots() {
        let mut report = example::report();
        (report.cases, report.rows, report.memory) = (Vec::new(), Vec::new(), Vec::new());
        assert_eq!(plots(&report).unwrap().len(), 0);
    }

    #[test]
    fn one_mode_and_one_value_are_drawn_too() {
        let mut report = example::report();
        report.rows.retain(|row| row.mode == Mode::Nginx);
        report.memory.retain(|row| row.mode == Mode::Nginx && row.pods == 1);
        let plots = plots(&report).unwrap();
        assert_eq!(plots.len(), 5);
        plots.iter().for_each(|plot| assert!(!plot.svg.contains("NaN") && !texts(plot).is_empty()));
    }

    #[test]
    fn a_case_s_name_is_text_whatever_it_says() {
        let mut report = example::report();
        report.cases.iter_mut().for_each(|case| case.name = "<b>&".to_owned());
        assert!(plots(&report).unwrap().iter().any(|plot| texts(plot).contains(&"<b>&".to_owned())));
    }
}
