//! What anything between a client and the origin costs at least, as a bare relay shows it, and what that leaves to win.

use super::super::{
    figures::{Report, Row},
    plan::Mode,
};
use super::numbers;

/// A sentence about what a bare relay adds; none where it was not measured.
pub(super) fn floor(report: &Report) -> Option<String> {
    let row = |mode| report.row("one-miss", mode).ok();
    let of = |figure: fn(&Row) -> Option<f64>| {
        let added = |mode| Some(figure(row(mode)?)? - figure(row(Mode::Direct)?)?);
        let [relay, sidecar, ours] = [Mode::Relay, Mode::Sidecar, Mode::SidestepOff].map(added);
        Some((relay?, sidecar?, ours?)).filter(|(relay, ..)| *relay > 0.0)
    };
    let (relay, sidecar, ours) = of(|row| Some(row.latency(50.0)?.median()))?;
    let (relay_cpu, sidecar_cpu, ours_cpu) = of(|row| Some(row.cpu.total.median()))?;
    Some(format!(
        "What is between must at least read and write: a program that does only that, in one thread, adds {} at p50 to \
         a request and {} ms of CPU to 1000; the sidecar adds {} and {} ms, {} and {} of that, a miss of Sidestep {} \
         and {} ms, {} and {}. No way through a process can gain more than the sidecar's multiples.",
        numbers::latency(relay),
        numbers::cpu(relay_cpu),
        numbers::latency(sidecar),
        numbers::cpu(sidecar_cpu),
        numbers::ratio_fine(sidecar / relay),
        numbers::ratio_fine(sidecar_cpu / relay_cpu),
        numbers::latency(ours),
        numbers::cpu(ours_cpu),
        numbers::ratio_fine(ours / relay),
        numbers::ratio_fine(ours_cpu / relay_cpu),
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    #[test]
    fn what_a_relay_adds_is_set_beside_what_others_add() {
        let mut report = example::report();
        let text = floor(&report).unwrap();
        assert!(text.contains("adds 15.0 µs") && text.contains("the sidecar adds 144 µs"), "{text}");
        report.modes.retain(|note| note.mode != Mode::Relay);
        assert_eq!(floor(&report), None);
    }
}
