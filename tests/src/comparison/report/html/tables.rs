//! The tables of the page.

use maud::{Markup, html};

use super::super::{
    super::{
        figures::{Report, Row, Series},
        plan::{Case, Mode},
    },
    find::{PARTS, PERCENTILES},
    numbers::{self, Spread},
    targets::{Target, targets as all_targets},
    unsuited::Cost,
};

/// Every target with its verdict.
pub(super) fn targets(report: &Report) -> Markup {
    html! {
        section #targets {
            h2 { "Targets" }
            table {
                thead { tr { th { "Target" } th.number { "Asked" } th.number { "Measured" } th { "Round by round" } th { "Verdict" } } }
                tbody { @for target in all_targets(report) { (target_row(&target)) } }
            }
        }
    }
}

fn target_row(target: &Target) -> Markup {
    let (class, sign) = match target.met {
        Some(true) => ("met", "✓"),
        Some(false) => ("missed", "✗"),
        None => ("unknown", "–"),
    };
    html! {
        tr class=(class) {
            td { (target.name) }
            td.number { (target.asked.to_string()) }
            td.number { strong { @if let Some(value) = target.value { (numbers::ratio_fine(value)) } } }
            td.range { @if let Some((min, max)) = target.range { (numbers::ratio(min)) " – " (numbers::ratio(max)) } }
            td.verdict { (sign) " " (target.verdict()) @if !target.why.is_empty() { span.why { (target.why) } } }
        }
    }
}

/// What modes cost under loads that they do not suit.
pub(super) fn costs(costs: &[&Cost]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "Against direct" }
                    th { "" }
                    th.number { "p50" }
                    th.number { "p99" }
                    th.number { "requests/s" }
                    th.number { "CPU" }
                }
            }
            tbody {
                @for cost in costs {
                    tr {
                        td { (cost.load) }
                        td { (cost.mode) }
                        td.number { (cost.p50) }
                        td.number { (cost.p99) }
                        td.number { (cost.per_second) }
                        td.number { (cost.cpu) }
                    }
                }
            }
        }
    }
}

/// A table for each case.
pub(super) fn cases(report: &Report) -> Markup {
    html! {
        section #cases {
            h2 { "Every load" }
            p.note {
                "Medians, below them the least and the greatest round. CPU is in milliseconds for 1000 requests. Saved \
                 are requests that the origin did not see."
            }
            @for case in &report.cases { (case_table(report, case)) }
        }
    }
}

fn case_table(report: &Report, case: &Case) -> Markup {
    let found: Vec<_> = report.measured_modes().map(|mode| report.row(&case.id, mode)).collect();
    let rows: Vec<&Row> = found.iter().filter_map(|row| row.as_ref().ok().copied()).collect();
    let missing = found.iter().filter_map(|row| row.as_ref().err()).map(|why| format!("Not measured: {why}"));
    let remarks: Vec<String> = report.remarks(&case.id).into_iter().chain(missing).collect();
    html! {
        div.case id=(format!("case-{}", case.id)) {
            h3 { (case.name) small { (case.id) ", " (case.rounds) " rounds" (due(&rows)) } }
            table.figures {
                thead {
                    tr {
                        th rowspan="2" { "" }
                        th.number rowspan="2" { "requests/s" }
                        th.group colspan=(PERCENTILES.len()) { "latency" }
                        th.group colspan=(PARTS.len() + 1) { "CPU" }
                        th.number rowspan="2" { "saved" }
                    }
                    tr {
                        @for percentile in PERCENTILES { th.number { "p" (percentile) } }
                        th.number { "all" }
                        @for part in ["client", "proxy", "its kernel", "origin", "other"] { th.number { (part) } }
                    }
                }
                tbody { @for row in rows { (figures(row)) } }
            }
            @for remark in remarks { p.remark { (remark) } }
        }
    }
}

/// At which rate requests of the open loop were due, if it was one for all.
fn due(rows: &[&Row]) -> String {
    let rates = || rows.iter().map(|row| row.open.rate);
    match (rates().reduce(f64::min), rates().reduce(f64::max)) {
        (Some(least), Some(most)) if least == most => format!(", {} requests/s due", numbers::count(least)),
        (Some(least), Some(most)) => {
            format!(", {} to {} requests/s due", numbers::count(least), numbers::count(most))
        }
        _ => String::new(),
    }
}

fn figures(row: &Row) -> Markup {
    html! {
        tr {
            th scope="row" { (row.mode.name()) }
            (cell(Some(&row.closed.per_second), numbers::count_spread))
            @for percentile in PERCENTILES { (cell(row.latency(percentile), numbers::latency_spread)) }
            (cell(Some(&row.cpu.total), numbers::cpu_spread))
            @for (_, part) in PARTS { td.number { (numbers::cpu(part(&row.cpu))) } }
            td.number { @if let Some(saved) = row.saved() { (numbers::percent(saved)) } @else { "–" } }
        }
    }
}

/// The median, and below it what the rounds span.
fn cell(series: Option<&Series>, text: fn(&Series) -> Spread) -> Markup {
    let (median, range) = series.map_or_else(|| text(&Series::default()), text);
    html! { td.number { (median) @if !range.is_empty() { span.range { (range) } } } }
}

/// Memory as pods grow in number.
pub(super) fn memory(report: &Report) -> Markup {
    let pods = report.pods();
    let most = pods.last().copied().unwrap_or_default();
    let mut remarks = Vec::new();
    for mode in report.measured_modes() {
        remarks.extend(pods.iter().filter_map(|pods| report.memory_row(*pods, mode).err()));
    }
    html! {
        @if !pods.is_empty() {
            section #memory-table {
                h2 { "Memory of the node" }
                table {
                    thead {
                        tr {
                            th { "" }
                            @for pods in &pods { th.number { (numbers::pods(*pods)) } }
                            th.number { "a pod more" }
                            th.number { "of it kernel maps" }
                            th.number { "as ps shows it, " (numbers::pods(most)) }
                            th.number { "requests/s, " (numbers::pods(most)) }
                            th.number { "CPU, " (numbers::pods(most)) }
                        }
                    }
                    tbody {
                        @for mode in report.measured_modes() { (memory_row(report, mode, &pods)) }
                    }
                }
                @for why in remarks { p.remark { "Not measured: " (why) } }
            }
        }
    }
}

fn memory_row(report: &Report, mode: Mode, pods: &[u32]) -> Markup {
    let most = pods.last().copied().unwrap_or_default();
    let bytes =
        |pods| report.memory_row(pods, mode).map_or("–".to_owned(), |row| numbers::bytes(row.bytes()));
    html! {
        tr {
            th scope="row" { (mode.name()) }
            @for pods in pods { td.number { (bytes(*pods)) } }
            td.number { (report.memory_of_a_pod(mode).map_or("–".to_owned(), numbers::bytes)) }
            @match report.memory_row(most, mode) {
                Ok(row) => {
                    td.number { (numbers::bytes(row.map_bytes as f64)) }
                    td.number { (numbers::bytes(row.resident())) }
                    (cell(Some(&row.per_second), numbers::count_spread))
                    (cell(Some(&row.cpu_total), numbers::cpu_spread))
                }
                Err(_) => { td.number { "–" } td.number { "–" } td.number { "–" } td.number { "–" } }
            }
        }
    }
}

/// What the load generators can do.
pub(super) fn generators(report: &Report) -> Markup {
    html! {
        @if !report.generators.is_empty() {
            section #generators {
                h2 { "Load generators" }
                p.note { "What each does where nothing holds it up: figures near these are the generator's, not the mode's." }
                table {
                    thead { tr { th { "Generator" } th.number { "requests/s" } } }
                    tbody {
                        @for generator in &report.generators {
                            tr { td { (generator.name) } (cell(Some(&generator.per_second), numbers::count_spread)) }
                        }
                    }
                }
            }
        }
    }
}
