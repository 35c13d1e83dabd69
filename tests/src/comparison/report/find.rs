//! Finds figures in a report, and says why where they are not there.

use super::super::{
    figures::{Cpu, MemoryRow, Report, Row, Series},
    plan::{Case, Mode},
};

/// What of the requests due was answered where a mode keeps up with an open loop, at least.
const KEPT_UP: f64 = 0.98;

/// The percentiles of a table.
pub(super) const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// A part of the CPU that a request takes: its name, its word in a narrow table, and where it is.
pub(super) type Part = (&'static str, fn(&Cpu) -> f64);

/// The parts of the CPU on the path, from the client to the origin; their sum is about the total.
pub(super) const PARTS: [Part; 5] = [
    ("client", |cpu| cpu.client.median()),
    ("proxy or cache, own code", |cpu| cpu.proxy_user.median()),
    ("proxy or cache, in the kernel", |cpu| cpu.proxy_kernel.median()),
    ("origin", |cpu| cpu.origin.median()),
    ("interrupts, kernel threads, others", |cpu| cpu.other.median()),
];

/// A mode's name where there is little room.
pub(super) fn short(mode: Mode) -> &'static str {
    match mode {
        Mode::Direct => "direct",
        Mode::Relay => "a bare relay",
        Mode::Sidecar => "Envoy sidecar",
        Mode::SidecarBoth => "Envoy, both sides",
        Mode::EnvoyCache => "Envoy cache filter",
        Mode::Nginx => "nginx cache",
        Mode::Varnish => "Varnish",
        Mode::SidestepMiss => "Sidestep, unstorable",
        Mode::SidestepOff => "Sidestep, daemon",
        Mode::Sidestep => "Sidestep, kernel",
    }
}

impl Report {
    /// The case of this id.
    pub(super) fn case(&self, id: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.id == id)
    }

    /// What a mode did with a case, or why that is not known.
    pub(super) fn row(&self, case: &str, mode: Mode) -> Result<&Row, String> {
        self.measured(mode)?;
        if self.case(case).is_none() {
            return Err(format!("the case {case} was not run"));
        }
        let row = self.rows.iter().find(|row| row.case == case && row.mode == mode);
        let row = row.ok_or_else(|| format!("{} has no row for {case}", mode.word()))?;
        row.skipped.as_ref().map_or(Ok(row), |why| Err(format!("{} with {case}: {why}", mode.word())))
    }

    /// Memory of a mode with so many pods, or why that is not known.
    pub(super) fn memory_row(&self, pods: u32, mode: Mode) -> Result<&MemoryRow, String> {
        self.measured(mode)?;
        let row = self.memory.iter().find(|row| row.pods == pods && row.mode == mode);
        let row =
            row.ok_or_else(|| format!("memory of {} with {pods} pods was not measured", mode.word()))?;
        row.skipped.as_ref().map_or(Ok(row), |why| Err(format!("{} with {pods} pods: {why}", mode.word())))
    }

    /// The commit, or that nobody knows it.
    pub(super) fn commit_name(&self) -> &str {
        if self.commit.is_empty() { "unknown" } else { &self.commit }
    }

    /// The numbers of pods with which memory was measured, the least first.
    pub(super) fn pods(&self) -> Vec<u32> {
        let mut pods: Vec<u32> = self.memory.iter().map(|row| row.pods).collect();
        pods.sort_unstable();
        pods.dedup();
        pods
    }

    /// What each further pod takes, between the fewest and the most that were measured, bytes.
    pub(super) fn memory_of_a_pod(&self, mode: Mode) -> Option<f64> {
        let measured = || self.memory.iter().filter(|row| row.mode == mode && row.skipped.is_none());
        let fewest = measured().min_by_key(|row| row.pods)?;
        let most = measured().max_by_key(|row| row.pods)?;
        let pods = most.pods.checked_sub(fewest.pods).filter(|pods| *pods > 0)?;
        Some((most.bytes() - fewest.bytes()) / f64::from(pods))
    }

    /// The modes that were measured, in their order.
    pub(super) fn measured_modes(&self) -> impl Iterator<Item = Mode> {
        self.modes.iter().filter(|note| note.skipped.is_none()).map(|note| note.mode)
    }

    /// What of a case its figures do not say: errors, and where a mode could not keep up with the open loop.
    pub(super) fn remarks(&self, case: &str) -> Vec<String> {
        let rows = self.rows.iter().filter(|row| row.case == case && row.skipped.is_none());
        rows.flat_map(|row| {
            let errors = row.closed.errors + row.open.errors;
            let failed = (errors > 0).then(|| format!("{}: {errors} requests failed", row.mode.name()));
            let late = (!row.kept_up()).then(|| {
                format!(
                    "{}: answered {:.0} of {:.0} requests due in a second, so its latency grows with the run's length",
                    row.mode.name(),
                    row.open.per_second.median(),
                    row.open.rate
                )
            });
            failed.into_iter().chain(late)
        })
        .collect()
    }

    fn measured(&self, mode: Mode) -> Result<(), String> {
        let note = self.modes.iter().find(|note| note.mode == mode);
        let note = note.ok_or_else(|| format!("{} was not asked for", mode.word()))?;
        note.skipped.as_ref().map_or(Ok(()), |why| Err(format!("{}: {why}", mode.word())))
    }
}

impl Row {
    /// Latency at a percentile of the open loop, microseconds.
    pub(super) fn latency(&self, percentile: f64) -> Option<&Series> {
        let found = self.open.percentiles.iter().find(|(known, _)| (known - percentile).abs() < 1e-6);
        found.map(|(_, series)| series).filter(|series| !series.0.is_empty())
    }

    /// Requests of a hundred that the origin did not see.
    pub(super) fn saved(&self) -> Option<f64> {
        (!self.origin_requests.0.is_empty()).then(|| 100.0 - self.origin_requests.median() / 10.0)
    }

    /// Whether requests of the open loop were answered as fast as they were due.
    pub(super) fn kept_up(&self) -> bool {
        self.open.per_second.0.is_empty() || self.open.per_second.median() >= self.open.rate * KEPT_UP
    }
}

impl MemoryRow {
    /// Memory of programs and of maps, bytes.
    pub(super) fn bytes(&self) -> f64 {
        // Memory of a node is far below 2^53 bytes.
        (self.node_bytes + self.map_bytes) as f64
    }

    /// The same with what programs share counted for each of them, bytes.
    pub(super) fn resident(&self) -> f64 {
        (self.resident_bytes + self.map_bytes) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    #[test]
    fn what_is_missing_is_missing_for_a_reason() {
        let report = example::report();
        assert!(report.row("base", Mode::Nginx).is_ok());
        assert_eq!(
            report.row("base", Mode::Varnish).unwrap_err(),
            format!("varnish: {}", example::NO_VARNISH)
        );
        assert_eq!(report.row("pods-3", Mode::Nginx).unwrap_err(), "the case pods-3 was not run");
        assert!(report.row("connections-128", Mode::SidecarBoth).unwrap_err().contains(example::NO_ROOM));
        assert!(report.memory_row(51, Mode::Nginx).unwrap_err().contains("51 pods"));

        let mut fewer = report;
        fewer.modes.retain(|note| note.mode != Mode::Nginx);
        assert_eq!(fewer.row("base", Mode::Nginx).unwrap_err(), "nginx was not asked for");
    }

    #[test]
    fn errors_and_lateness_are_remarked() {
        let mut report = example::report();
        assert_eq!(report.remarks("base"), [""; 0]);
        let row = report.rows.iter_mut().find(|row| row.case == "base" && row.mode == Mode::Sidecar).unwrap();
        row.closed.errors = 3;
        row.open.per_second = Series(vec![row.open.rate * 0.9]);
        let remarks = report.remarks("base").join("\n");
        assert!(remarks.contains("Envoy sidecar: 3 requests failed"), "{remarks}");
        assert!(remarks.contains("requests due in a second"), "{remarks}");
    }

    #[test]
    fn what_the_origin_did_not_see_was_saved() {
        let report = example::report();
        assert_eq!(report.row("base", Mode::Direct).unwrap().saved(), Some(0.0));
        assert_eq!(report.row("base", Mode::SidestepOff).unwrap().saved(), Some(90.0));
    }
}
