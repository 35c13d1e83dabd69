//! A report as plain text for a terminal, at most [`WIDTH`] columns wide.

use std::fmt::Write as _;

use super::{
    super::figures::{Report, Row},
    find::{PERCENTILES, short},
    floor::floor,
    numbers,
    summary::summary,
    targets::{Target, targets},
};

/// Columns of a terminal that are used at most.
pub const WIDTH: usize = 120;

/// Spaces between two columns.
const GAP: usize = 2;

/// The whole report.
pub fn table(report: &Report) -> String {
    let mut out = opening(report);
    for case in &report.cases {
        let _ = writeln!(out, "\n{}: {} ({} rounds)", case.id, case.name, case.rounds);
        out += &case_table(report, &case.id);
    }
    out += &memory(report);
    out += &generators(report);
    out += &target_table(report);
    if let Some(text) = floor(report) {
        out += &format!("\n{}\n", numbers::wrap(&plain(&text), WIDTH).join("\n"));
    }
    out += &skipped(report);
    let summary = numbers::wrap(&plain(&summary(report)), WIDTH).join("\n");
    format!("{out}\n{summary}\n")
}

/// The targets alone, each met, NOT met, or not measured and why.
pub fn target_table(report: &Report) -> String {
    let head = ["target", "measured (round by round)", "asked", ""].map(str::to_owned).to_vec();
    let targets = targets(report);
    let line = |target: &Target| {
        vec![target.name.to_owned(), target.measured(), target.asked.to_string(), target.verdict().to_owned()]
    };
    let grid: Vec<_> = [head].into_iter().chain(targets.iter().map(line)).collect();
    let mut out = format!("\ntargets\n{}", aligned(&grid));
    for target in targets.iter().filter(|target| !target.why.is_empty()) {
        out += &remark(&format!("{}: {}", target.name, target.why));
    }
    out
}

fn opening(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    let text = format!(
        "{}, commit {}, {} profile, {:.0} s. {}, {}, {} cores, {} of memory. Worker threads: {} of each proxy and \
         cache, {} of the origin, {} of the generator. {}. Latency: open loop, from when a request was due. CPU: \
         milliseconds for 1000 requests; proxy: own code and kernel. Medians (min–max of the rounds). {} {}",
        report.date,
        report.commit_name(),
        report.profile,
        report.took_s,
        machine.kernel,
        machine.processor,
        machine.cores,
        numbers::bytes(machine.memory_bytes as f64),
        settings.worker_threads,
        settings.origin_threads,
        settings.generator_threads,
        numbers::programs(settings),
        numbers::sleep(settings),
        settings.notes.join(" "),
    );
    numbers::wrap(&plain(&text), WIDTH).join("\n") + "\n"
}

/// A line for each mode that did anything with the case, then what the figures do not say.
fn case_table(report: &Report, case: &str) -> String {
    let head = [
        "",
        "requests/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "CPU",
        "client",
        "proxy",
        "origin",
        "other",
        "saved",
    ];
    let mut grid = vec![head.map(str::to_owned).to_vec()];
    let mut remarks = report.remarks(case);
    for mode in report.measured_modes() {
        match report.row(case, mode) {
            Ok(row) => grid.push(line(row)),
            Err(why) => remarks.push(format!("not measured: {why}")),
        }
    }
    aligned(&grid) + &remarks.iter().map(|text| remark(text)).collect::<String>()
}

fn line(row: &Row) -> Vec<String> {
    let latency = |percentile| {
        row.latency(percentile).map_or_else(|| "–".to_owned(), |series| numbers::latency(series.median()))
    };
    let cpu = &row.cpu;
    let proxy = cpu.proxy_user.median() + cpu.proxy_kernel.median();
    let parts = [cpu.total.median(), cpu.client.median(), proxy, cpu.origin.median(), cpu.other.median()];
    [short(row.mode).to_owned(), numbers::count_with_spread(&row.closed.per_second)]
        .into_iter()
        .chain(PERCENTILES.map(latency))
        .chain(parts.map(numbers::cpu))
        .chain([row.saved().map_or_else(|| "–".to_owned(), numbers::percent)])
        .collect()
}

fn memory(report: &Report) -> String {
    let pods = report.pods();
    if pods.is_empty() {
        return String::new();
    }
    let head = [String::new()].into_iter().chain(pods.iter().map(|pods| numbers::pods(*pods)));
    let last = pods.last().copied().unwrap_or_default();
    let more = ["a pod more", "of it maps", "as ps", "requests/s", "CPU"].map(str::to_owned);
    let mut grid = vec![head.chain(more).collect::<Vec<_>>()];
    let mut remarks = Vec::new();
    for mode in report.measured_modes() {
        let rows: Vec<_> = pods.iter().map(|pods| report.memory_row(*pods, mode)).collect();
        remarks.extend(
            rows.iter().filter_map(|row| row.as_ref().err()).map(|why| format!("not measured: {why}")),
        );
        let bytes =
            rows.iter().map(|row| row.as_ref().map_or("–".to_owned(), |row| numbers::bytes(row.bytes())));
        let growth = report.memory_of_a_pod(mode).map_or("–".to_owned(), numbers::bytes);
        let most = report.memory_row(last, mode);
        let of_most = most.map_or_else(
            |_| ["–"; 4].map(str::to_owned),
            |row| {
                [
                    numbers::bytes(row.map_bytes as f64),
                    numbers::bytes(row.resident()),
                    numbers::count_with_spread(&row.per_second),
                    numbers::cpu(row.cpu_total.median()),
                ]
            },
        );
        grid.push([short(mode).to_owned()].into_iter().chain(bytes).chain([growth]).chain(of_most).collect());
    }
    let title = format!(
        "\nmemory of what stands between, what is shared counted once; with {last} pods: maps, as ps shows it, requests/s, CPU\n"
    );
    title + &aligned(&grid) + &remarks.iter().map(|text| remark(text)).collect::<String>()
}

fn generators(report: &Report) -> String {
    let mut out = String::from("\nload generators, with nothing in their way\n");
    let line = |name: &str, rate| vec![plain(name), rate];
    let rates = report.generators.iter().map(|it| line(&it.name, numbers::count_with_spread(&it.per_second)));
    out += &aligned(&[line("", "requests/s".to_owned())].into_iter().chain(rates).collect::<Vec<_>>());
    out
}

fn skipped(report: &Report) -> String {
    let skipped = report.modes.iter().filter_map(|note| Some((note.mode, note.skipped.as_ref()?)));
    let lines: String = skipped.map(|(mode, why)| remark(&format!("{}: {why}", mode.name()))).collect();
    if lines.is_empty() { lines } else { format!("\nskipped\n{lines}") }
}

/// A text below a table, indented and wrapped.
fn remark(text: &str) -> String {
    numbers::wrap(&plain(text), WIDTH - 4).iter().map(|line| format!("    {line}\n")).collect()
}

/// Without what would move the terminal's cursor.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Lines whose first column is flush left and whose others are flush right.
fn aligned(grid: &[Vec<String>]) -> String {
    let columns = grid.iter().map(Vec::len).max().unwrap_or_default();
    let length = |cell: Option<&String>| cell.map_or(0, |cell| cell.chars().count());
    let width = |column: usize| grid.iter().map(|line| length(line.get(column))).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in grid {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}", width = width + GAP),
        });
        out += cells.collect::<String>().trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::plan::Mode, example},
        *,
    };

    #[test]
    fn every_measured_mode_has_a_line_in_every_case() {
        let report = example::report();
        let text = table(&report);
        let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("Envoy sidecar "), report.cases.len() + 1);
        assert_eq!(lines("Envoy, both sides "), report.cases.len());
        assert_eq!(lines("Varnish  "), 0);
        assert!(text.contains(&format!("Varnish, addressed explicitly: {}", example::NO_VARNISH)));
        assert!(text.contains(example::NO_ROOM));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut report = example::report();
        report.modes[1].skipped = Some("long ".repeat(60) + "\u{1b}[2J");
        let text = table(&report);
        let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(widest.chars().count() <= WIDTH, "{widest}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn figures_are_medians_with_their_range_and_unit() {
        let mut report = example::report();
        let row = report.rows.iter_mut().find(|row| row.case == "base" && row.mode == Mode::Nginx).unwrap();
        row.closed.per_second.0 = vec![41_000.0, 39_500.0, 47_000.0];
        row.cpu.total.0 = vec![0.0352];
        let text = case_table(&report, "base");
        let line = text.lines().find(|line| line.starts_with("nginx")).unwrap();
        assert!(line.contains("41.0 k (39.5–47.0)") && line.contains("  35.2  "), "{line}");
        assert!(line.ends_with("90 %"), "{line}");
    }

    #[test]
    fn targets_end_in_their_verdict() {
        let mut report = example::report();
        report.memory.iter_mut().filter(|row| row.mode == Mode::Sidestep).for_each(|row| row.node_bytes *= 3);
        let text = target_table(&report);
        let verdict = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(verdict("Memory with 50 pods ÷ sidecars, shared").ends_with("NOT met"));
        assert!(verdict("Hits/s in the kernel ÷ sidecar, 1 ").ends_with("  met"));
        assert!(verdict("Hits/s of the daemon ÷ Varnish, 1 ").ends_with("not measured"));
        assert!(text.contains(example::NO_VARNISH));
    }
}
