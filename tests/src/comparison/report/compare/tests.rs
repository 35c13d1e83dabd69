//! What counts as moved, what does not, and what is not compared.

use super::{super::example, *};

fn row<'a>(report: &'a mut Report, case: &str, mode: Mode) -> &'a mut Row {
    report.rows.iter_mut().find(|row| row.case == case && row.mode == mode).unwrap()
}

/// A report in which direct does the same in every round.
fn level() -> Report {
    let mut report = example::report();
    for row in report.rows.iter_mut().filter(|row| row.mode == Mode::Direct && row.skipped.is_none()) {
        let flat = |series: &mut Series| series.0 = vec![series.median(); series.0.len()];
        flat(&mut row.closed.per_second);
        flat(&mut row.cpu.total);
        row.open.percentiles.iter_mut().for_each(|(_, series)| flat(series));
    }
    report
}

fn times(series: &mut Series, factor: f64) {
    series.0.iter_mut().for_each(|value| *value *= factor);
}

#[test]
fn the_same_run_moved_nowhere() {
    let report = example::report();
    let comparison = compare(&report, &report);
    assert_eq!((&*comparison.moved, &*comparison.not_compared), (&[][..], &[][..]));
    // 13 cases of 7 modes and two of the relay, four figures each, and three memories of each mode; one row of either
    // is skipped.
    assert_eq!(comparison.unmoved, (13 * 7 + 2 - 1) * 4 + 3 * 7 - 1);
}

#[test]
fn what_moved_is_found_with_its_direction_and_nothing_else_is() {
    let (old, mut new) = (example::report(), example::report());
    times(&mut row(&mut new, "base", Mode::SidestepOff).closed.per_second, 0.8);
    times(&mut row(&mut new, "one-hit", Mode::Sidestep).cpu.total, 0.8);
    let comparison = compare(&old, &new);
    let found: Vec<_> =
        comparison.moved.iter().map(|it| (it.case.as_str(), it.mode, it.figure, it.is_better)).collect();
    assert_eq!(
        found,
        [("base", Mode::SidestepOff, "requests/s", false), ("one-hit", Mode::Sidestep, "CPU", true)]
    );
    assert!((comparison.moved[0].change() + 0.2).abs() < 1e-9);
    let text = text(&comparison);
    assert!(text.starts_with("WORSE   base"), "{text}");
    assert!(text.contains("-20 %") && text.contains("worse: 1, better: 1, within noise: "), "{text}");
}

#[test]
fn a_slower_machine_moved_nothing() {
    let (old, mut new) = (example::report(), example::report());
    for row in new.rows.iter_mut().filter(|row| row.skipped.is_none()) {
        times(&mut row.closed.per_second, 0.4);
        times(&mut row.cpu.total, 2.5);
        row.open.percentiles.iter_mut().for_each(|(_, series)| times(series, 2.5));
    }
    assert_eq!(compare(&old, &new).moved, []);
}

#[test]
fn ranges_that_touch_did_not_move() {
    let (old, mut new) = (level(), level());
    let before = old.row("base", Mode::Sidestep).unwrap().closed.per_second.clone();
    let after = &mut row(&mut new, "base", Mode::Sidestep).closed.per_second;
    times(after, 1.5);
    after.0[0] = before.max();
    assert_eq!(compare(&old, &new).moved, []);
    row(&mut new, "base", Mode::Sidestep).closed.per_second.0[0] = before.max() * 1.01;
    assert_eq!(compare(&old, &new).moved.len(), 1);
}

#[test]
fn a_machine_that_is_slower_for_a_round_moved_nothing() {
    let (old, mut new) = (example::report(), example::report());
    for row in new.rows.iter_mut().filter(|row| row.skipped.is_none() && row.case == "base") {
        row.closed.per_second.0.iter_mut().skip(1).for_each(|value| *value *= 0.3);
        row.cpu.total.0.iter_mut().skip(1).for_each(|value| *value *= 3.0);
    }
    assert_eq!(compare(&old, &new).moved, []);
}

#[test]
fn a_small_step_is_not_worth_a_word_even_out_of_range() {
    let (old, mut new) = (level(), level());
    let set = |new: &mut Report, factor: f64| {
        let of = |p| old.row("base", Mode::Nginx).unwrap().latency(p).unwrap();
        row(new, "base", Mode::Nginx).open.percentiles =
            [50.0, 99.0].map(|p| (p, Series(vec![of(p).median() * factor; of(p).0.len()]))).to_vec();
        compare(&old, new).moved.iter().map(|moved| moved.figure).collect::<Vec<_>>()
    };
    assert_eq!(set(&mut new, 1.09), [""; 0]);
    assert_eq!(set(&mut new, 1.15), ["p50"]);
    assert_eq!(set(&mut new, 1.25), ["p50", "p99"]);
}

#[test]
fn memory_moves_by_more_than_a_tenth() {
    let (old, mut new) = (example::report(), example::report());
    let row = new.memory.iter_mut().find(|row| row.pods == 50 && row.mode == Mode::Sidecar).unwrap();
    row.node_bytes += row.node_bytes / 5;
    let moved = compare(&old, &new).moved;
    assert_eq!((moved.len(), moved[0].case.as_str(), moved[0].is_better), (1, "memory, 50 pods", false));
}

#[test]
fn what_cannot_be_compared_is_named_once_with_its_reason() {
    let (old, mut new) = (example::report(), example::report());
    new.modes.iter_mut().find(|note| note.mode == Mode::Nginx).unwrap().skipped = Some("gone\n".to_owned());
    row(&mut new, "base", Mode::Sidecar).closed.per_second = Series(vec![1.0, 2.0]);
    row(&mut new, "hits-50", Mode::Sidecar).open.rate *= 2.0;
    new.cases.iter_mut().find(|case| case.id == "hits-99").unwrap().load.bytes = 7;
    let not_compared = compare(&old, &new).not_compared;
    let has = |start: &str| not_compared.iter().filter(|why| why.starts_with(start)).count();
    assert_eq!(has("nginx: in the new run: gone"), 1);
    assert_eq!(has("base, sidecar, requests/s: a run has 2 rounds"), 1);
    assert_eq!(has("hits-50, sidecar, latency: due were 2000 and 4000/s"), 1);
    // Direct and Varnish are no rows of their own here, nginx is named above.
    assert_eq!(has("hits-99, "), 6);
    assert_eq!(not_compared.len(), 9);
}

#[test]
fn without_direct_nothing_but_memory_is_compared() {
    let (old, mut new) = (example::report(), example::report());
    new.modes.iter_mut().find(|note| note.mode == Mode::Direct).unwrap().skipped = Some("gone".to_owned());
    let comparison = compare(&old, &new);
    assert_eq!(comparison.not_compared, ["direct, by which all others are divided: in the new run: gone"]);
    assert_eq!(comparison.unmoved, 3 * 7 - 1);
}

#[test]
fn another_profile_or_schema_is_not_compared() {
    let (old, mut new) = (example::report(), example::report());
    new.profile = "quick".to_owned();
    assert_eq!(compare(&old, &new).not_compared, ["everything: the old run was full, the new one quick"]);
    new.schema += 1;
    let comparison = compare(&old, &new);
    assert!(comparison.not_compared[0].contains("schema 1, the new one 2"));
    assert_eq!((comparison.moved.len(), comparison.unmoved), (0, 0));
}
