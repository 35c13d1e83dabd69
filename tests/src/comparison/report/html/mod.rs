//! `report.html`: one file that needs no other and no script, for a laptop and for paper.
//!
//! `tables` are its tables; here is everything around them. Every text of a report is escaped.

mod tables;

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    super::figures::Report,
    floor::floor,
    numbers,
    plots::{Plot, plots},
    summary::summary,
    unsuited::{Unsuited, unsuited},
};

const STYLE: &str = include_str!("style.css");

/// The page.
///
/// # Errors
/// If a plot cannot be drawn.
pub fn page(report: &Report) -> Result<String> {
    let plots = plots(report)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Sidestep compared, " (day(report)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Sidestep beside what people use today" }
                    p.summary { (summary(report)) }
                    (facts(report))
                }
                main {
                    (tables::targets(report))
                    @if let Some(text) = floor(report) { p { (text) } }
                    section #plots {
                        h2 { "At a glance" }
                        @for plot in &plots { (figure(plot)) }
                    }
                    (when_not(report))
                    (tables::cases(report))
                    (tables::memory(report))
                    (tables::generators(report))
                    (skipped(report))
                    (method(report))
                }
            }
        }
    };
    Ok(page.into_string())
}

fn day(report: &Report) -> &str {
    report.date.split('T').next().unwrap_or_default()
}

/// What was measured, where, when and with which settings.
fn facts(report: &Report) -> Markup {
    let (machine, settings) = (&report.machine, &report.settings);
    let facts = [
        ("Date", report.date.replace('T', " ").replace('Z', " UTC")),
        ("Commit", report.commit_name().to_owned()),
        ("Profile", format!("{}, {:.0} min", report.profile, report.took_s / 60.0)),
        (
            "Machine",
            format!(
                "{}, {} cores, {}",
                machine.processor,
                machine.cores,
                numbers::bytes(machine.memory_bytes as f64)
            ),
        ),
        ("Kernel", machine.kernel.clone()),
        (
            "Threads",
            format!(
                "{} of each proxy and cache, {} of the origin, {} of the generator",
                settings.worker_threads, settings.origin_threads, settings.generator_threads
            ),
        ),
        ("Cores", numbers::sleep(settings)),
        ("Rounds", format!("{} s closed loop, {} s open loop each", settings.closed_s, settings.open_s)),
    ];
    html! {
        dl.facts {
            @for (name, value) in &facts { div { dt { (name) } dd { (value) } } }
            div.wide { dt { "Programs" } dd { (numbers::programs(settings)) } }
            @if !settings.notes.is_empty() {
                div.wide { dt { "Not as equal as it looks" } dd { (settings.notes.join(" ")) } }
            }
        }
    }
}

fn figure(plot: &Plot) -> Markup {
    html! {
        figure id=(plot.id) {
            h3 { (plot.title) }
            (PreEscaped(&plot.svg))
            figcaption { (plot.caption) }
        }
    }
}

fn when_not(report: &Report) -> Markup {
    html! {
        section #when-not {
            h2 { "When not to use it" }
            @for item in unsuited(report) { (unsuited_item(&item)) }
        }
    }
}

fn unsuited_item(item: &Unsuited) -> Markup {
    let costs: Vec<_> = item.costs.iter().filter_map(|cost| cost.as_ref().ok()).collect();
    html! {
        div.unsuited {
            h3 { (item.title) }
            p { (item.text) }
            @if !costs.is_empty() { (tables::costs(&costs)) }
            @for why in item.costs.iter().filter_map(|cost| cost.as_ref().err()) {
                p.remark { "What that costs was not measured: " (why) }
            }
        }
    }
}

fn skipped(report: &Report) -> Markup {
    let skipped: Vec<_> =
        report.modes.iter().filter_map(|note| Some((note.mode, note.skipped.as_ref()?))).collect();
    html! {
        @if !skipped.is_empty() {
            section #skipped {
                h2 { "Skipped" }
                ul {
                    @for (mode, why) in skipped { li { strong { (mode.name()) } ": " (why) } }
                }
            }
        }
    }
}

fn method(report: &Report) -> Markup {
    html! {
        section #method {
            h2 { "How it was measured" }
            ul {
                li {
                    "One factor is changed at a time from a base: 1 KB, 16 connections, 90 % hits, one pod. All modes \
                     take their rounds of a case in turn, so that a slow minute of the machine meets all of them; a \
                     figure is the median of its rounds, beside it the least and the greatest."
                }
                li {
                    "Requests/s come from a closed loop: each connection sends its next request when it has the answer. \
                     Latency comes from an open loop: requests are due at a constant rate, and a request's latency \
                     counts from when it was due, so that one that waits behind a slow one is not forgotten."
                }
                li {
                    "CPU is counted during the closed loop, for everything on the path: the client, the proxy or cache \
                     (in its own code, and in the kernel for it), the origin, and what no process answers for \
                     (interrupts, kernel threads, whatever else ran). 1 ms for 1000 requests is 1 µs for each."
                }
                li {
                    "Memory is the proportional share (PSS) of every process between the pods and the origin, and the \
                     kernel memory of their maps."
                }
                li {
                    "Every proxy and every cache has " (report.settings.worker_threads) " worker threads. Client, proxy, \
                     origin and kernel share the machine's " (report.machine.cores) " cores: who takes more CPU has less \
                     left for the others, as on a full node."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::plan::{MODES, Mode},
            example,
        },
        *,
    };

    #[test]
    fn the_page_names_every_mode_and_needs_no_other_file() {
        let page = page(&example::report()).unwrap();
        for (_, _, name) in MODES {
            let name = name.replace('\'', "&#39;");
            assert!(page.contains(&name), "{name}");
        }
        assert_eq!(page.matches("<svg ").count(), 5);
        for outside in ["<script", "<link", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("@media print"));
    }

    #[test]
    fn a_figure_stands_in_its_table_with_what_its_rounds_span() {
        let mut report = example::report();
        let row = report.rows.iter_mut().find(|row| row.case == "base" && row.mode == Mode::Nginx).unwrap();
        row.closed.per_second.0 = vec![43_210.0, 39_870.0, 47_650.0];
        row.closed.errors = 7;
        let page = page(&report).unwrap();
        assert!(page.contains("<td class=\"number\">43.2 k<span class=\"range\">39.9–47.6</span></td>"));
        assert!(page.contains("nginx cache, addressed explicitly: 7 requests failed"));
    }

    #[test]
    fn whatever_a_report_says_is_text() {
        let hostile = "</p><script>alert(1)</script>&\"";
        let mut report = example::report();
        report
            .modes
            .iter_mut()
            .filter_map(|note| note.skipped.as_mut())
            .for_each(|why| *why = hostile.to_owned());
        report
            .rows
            .iter_mut()
            .filter_map(|row| row.skipped.as_mut())
            .for_each(|why| *why = hostile.to_owned());
        report
            .memory
            .iter_mut()
            .filter_map(|row| row.skipped.as_mut())
            .for_each(|why| *why = hostile.to_owned());
        report.cases.iter_mut().for_each(|case| (case.id, case.name) = (case.id.clone(), hostile.to_owned()));
        report.generators.iter_mut().for_each(|generator| generator.name = hostile.to_owned());
        report.settings.components.push((hostile.to_owned(), hostile.to_owned()));
        let machine = &mut report.machine;
        (machine.kernel, machine.processor) = (hostile.to_owned(), hostile.to_owned());
        (report.date, report.commit, report.profile) =
            (hostile.to_owned(), hostile.to_owned(), hostile.to_owned());
        let page = page(&report).unwrap();
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn the_page_is_there_for_a_run_that_found_nothing() {
        let mut report = example::report();
        (report.cases, report.rows, report.memory) = (Vec::new(), Vec::new(), Vec::new());
        (report.modes, report.generators) = (Vec::new(), Vec::new());
        assert!(page(&report).unwrap().contains("This run measured too little"));
    }
}
