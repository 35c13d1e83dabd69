//! The README's comparison, as Markdown, and where in the README it stands.

use super::{
    super::{
        figures::{Report, Row},
        plan::Mode,
    },
    find::short,
    floor::floor,
    numbers,
    targets::targets,
    unsuited::{Cost, Unsuited, unsuited},
};

/// The line above the comparison.
pub const BEGIN: &str = "<!-- comparison: made by cargo xtask bench -->";

/// The line below it.
pub const END: &str = "<!-- end of comparison -->";

/// Columns of a line of the README.
const WIDTH: usize = 118;

/// The cases worth a table, and what they are about.
const CASES: [(&str, &str); 5] = [
    ("one-hit", "Hits, one at a time"),
    (
        "one-hit-asleep",
        "The same on a machine that is left as it is, where idle cores sleep and must be woken",
    ),
    ("hits-100", "Hits, sixteen at a time"),
    ("base", "One request in ten a miss"),
    ("one-miss", "Misses, one at a time"),
];

/// The comparison, without the lines around it.
pub fn section(report: &Report) -> String {
    let mut blocks = vec![opening(report)];
    blocks.extend(CASES.iter().filter_map(|(case, title)| case_table(report, case, title)));
    blocks.extend(memory(report));
    blocks.push(verdict(report));
    blocks.extend(floor(report).map(|text| paragraph(&text)));
    blocks.push(not_measured(report));
    blocks.push(when_not(report));
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n\n") + "\n"
}

/// The README with this section in the place of the old one; none where it lacks one of the two lines.
pub fn replace(readme: &str, section: &str) -> Option<String> {
    let (before, rest) = readme.split_once(&format!("{BEGIN}\n"))?;
    let at = if rest.starts_with(END) { 0 } else { rest.find(&format!("\n{END}"))? + 1 };
    let after = rest.get(at..)?;
    let section = section.trim_matches('\n');
    Some(format!("{before}{BEGIN}\n\n{section}\n\n{after}"))
}

fn opening(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    paragraph(&format!(
        "Side by side in one run (`cargo xtask bench`, {}, commit {}, {} profile; {} cores of {}, {}; {} worker threads \
         each), rounds of all modes in turn, medians. Requests/s are of a closed loop, with the least and the greatest \
         of the rounds; latency is of an open loop, counted from when a request was due; CPU is that of everything on \
         the path (client, kernel, proxy, origin) in milliseconds for 1000 requests; saved are requests that the origin \
         did not see. {}",
        report.date.split('T').next().unwrap_or_default(),
        report.commit_name(),
        report.profile,
        machine.cores,
        machine.processor,
        machine.kernel,
        settings.worker_threads,
        numbers::sleep(settings),
    ))
}

fn case_table(report: &Report, case: &str, title: &str) -> Option<String> {
    let name = &report.case(case)?.name;
    let rows: Vec<String> = report
        .measured_modes()
        .filter_map(|mode| report.row(case, mode).ok())
        .map(|row| row_cells(row).join(" | "))
        .map(|cells| format!("| {cells} |"))
        .collect();
    let remarks: String = report
        .remarks(case)
        .iter()
        .map(|remark| format!("\n\n{}", paragraph(&format!("{remark}."))))
        .collect();
    Some(format!(
        "{title} ({}):\n\n| | requests/s | p50 | p99 | p99.9 | CPU | saved |\n|---|---|---|---|---|---|---|\n{}{remarks}",
        plain(name),
        rows.join("\n")
    ))
}

fn row_cells(row: &Row) -> [String; 7] {
    let latency = |percentile| row.latency(percentile).map(|series| numbers::latency(series.median()));
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
    [
        short(row.mode).to_owned(),
        numbers::count_with_spread(&row.closed.per_second),
        or_dash(latency(50.0)),
        or_dash(latency(99.0)),
        or_dash(latency(99.9)),
        numbers::cpu(row.cpu.total.median()),
        or_dash(row.saved().map(numbers::percent)),
    ]
}

fn memory(report: &Report) -> Option<String> {
    let pods = report.pods();
    let last = pods.last()?;
    let head: String = pods.iter().map(|pods| format!(" {} |", numbers::pods(*pods))).collect();
    let row = |mode: Mode| {
        let bytes = |pods: &u32| Some(report.memory_row(*pods, mode).ok()?.bytes());
        // A mode with nothing between has no memory to speak of.
        pods.iter().filter_map(bytes).find(|bytes| *bytes > 0.0)?;
        let cells = pods.iter().map(|pods| bytes(pods).map_or("–".to_owned(), numbers::bytes));
        let more = report.memory_of_a_pod(mode).map_or("–".to_owned(), numbers::bytes);
        Some(format!("| {} | {} | {more} |", short(mode), cells.collect::<Vec<_>>().join(" | ")))
    };
    let rows: Vec<String> = report.measured_modes().filter_map(row).collect();
    Some(format!(
        "Memory of what stands between, kernel maps included, on a node with up to {last} pods:\n\n| |{head} a pod more \
         |\n|---|{}---|\n{}",
        "---|".repeat(pods.len()),
        rows.join("\n")
    ))
}

fn verdict(report: &Report) -> String {
    let targets = targets(report);
    let of = |met| targets.iter().filter(move |target| target.met == met);
    let mut blocks = vec![format!("Of {} targets this run meets {}.", targets.len(), of(Some(true)).count())];
    let missed = of(Some(false))
        .map(|target| format!("- {}: {}, asked {}", target.name, target.measured(), target.asked));
    let missed: Vec<String> = missed.collect();
    if !missed.is_empty() {
        blocks.push(format!("Missed:\n\n{}", missed.join("\n")));
    }
    let unknown: Vec<&str> = of(None).map(|target| target.name).collect();
    if !unknown.is_empty() {
        blocks.push(paragraph(&format!("Not measured: {}.", unknown.join("; "))));
    }
    blocks.join("\n\n")
}

fn not_measured(report: &Report) -> String {
    let skipped = report.modes.iter().filter_map(|note| Some((note.mode, note.skipped.as_ref()?)));
    let lines: Vec<String> =
        skipped.map(|(mode, why)| paragraph(&format!("{} was skipped: {why}.", mode.name()))).collect();
    lines.join("\n\n")
}

fn when_not(report: &Report) -> String {
    let item = |item: &Unsuited| {
        let cost = |cost: &Result<Cost, String>| match cost {
            Ok(cost) => cost.to_string(),
            Err(why) => format!("not measured ({why})"),
        };
        let costs: Vec<String> = item.costs.iter().map(cost).collect();
        let text = format!("- {}. {} Against direct: {}.", item.title, item.text, costs.join("; "));
        numbers::wrap(&plain(&text), WIDTH).join("\n  ")
    };
    let items: Vec<String> = unsuited(report).iter().map(item).collect();
    format!("**When not to use it:**\n\n{}", items.join("\n"))
}

fn paragraph(text: &str) -> String {
    numbers::wrap(&plain(text), WIDTH).join("\n")
}

/// Text that Markdown takes for text.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '|' | '*' | '[' | ']' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    #[test]
    fn the_rest_of_the_readme_stays_as_it_is() {
        let readme = format!("# A\n\nbefore\n\n{BEGIN}\nold | text\n{END}\n\nafter\n");
        let replaced = replace(&readme, "new\n").unwrap();
        assert_eq!(replaced, format!("# A\n\nbefore\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"));
        assert_eq!(replace(&replaced, "new\n").unwrap(), replaced);
        assert_eq!(
            replace(&format!("{BEGIN}\n{END}\n"), "new").unwrap(),
            format!("{BEGIN}\n\nnew\n\n{END}\n")
        );
    }

    #[test]
    fn a_readme_without_the_lines_is_not_touched() {
        assert_eq!(replace("# A\n", "new"), None);
        assert_eq!(replace(&format!("{BEGIN}\nold"), "new"), None);
        assert_eq!(replace(&format!("{END}\n{BEGIN}\nold"), "new"), None);
    }

    #[test]
    fn the_section_has_its_tables_and_no_line_that_ends_it() {
        let section = section(&example::report());
        for (case, title) in CASES.into_iter().filter(|(case, _)| !case.ends_with("-asleep")) {
            assert!(section.contains(title), "{case}");
        }
        assert!(section.contains("| | 1 pod | 10 pods | 50 pods | a pod more |"), "{section}");
        assert!(section.contains("When not to use it") && section.contains("Varnish"));
        assert!(!section.contains(END) && !section.contains(BEGIN));
        let text = |line: &&str| !line.starts_with('|') && line.chars().count() > WIDTH + 2;
        assert_eq!(section.lines().find(text), None);
    }

    #[test]
    fn a_missed_target_is_named_with_its_figure() {
        let mut report = example::report();
        report.memory.iter_mut().filter(|row| row.mode == Mode::Sidestep).for_each(|row| row.node_bytes *= 3);
        let section = section(&report).replace('\n', " ");
        assert!(
            section.contains("Missed:")
                && section.contains("- Memory with 50 pods ÷ sidecars, shared once: 1/"),
            "{section}"
        );
    }

    #[test]
    fn a_reason_is_text_whatever_it_says() {
        let mut report = example::report();
        let hostile = format!("a | b\n{END}\n<script>*x*");
        report
            .modes
            .iter_mut()
            .filter_map(|note| note.skipped.as_mut())
            .for_each(|why| *why = hostile.clone());
        let section = section(&report);
        assert!(section.contains("a \\| b &lt;!-- end of comparison --> &lt;script>\\*x\\*"), "{section}");
        let readme = replace(&format!("{BEGIN}\n{END}\nafter\n"), &section).unwrap();
        assert_eq!(replace(&readme, "new"), Some(format!("{BEGIN}\n\nnew\n\n{END}\nafter\n")));
    }
}
