//! A plausible report for tests: all modes and cases, one mode and one row skipped, the same on every call.

use super::super::{
    figures::{
        Closed, Cpu, Generator, Machine, MemoryRow, ModeNote, Open, Report, Row, SCHEMA, Series, Settings,
    },
    plan::{Case, MODES, Mode, Profile},
};

/// Why Varnish was not measured.
pub(super) const NO_VARNISH: &str = "varnishd is not installed (apt-get install varnish)";

/// Why both sidecars were not measured with 50 pods.
pub(super) const NO_ROOM: &str = "100 Envoys need more memory than this machine has";

const ROUNDS: u32 = 5;

/// How a mode behaves: microseconds and CPU microseconds (client, own code, kernel, origin, other) of a request.
struct Manner {
    hit: Option<(f64, [f64; 5])>,
    miss: (f64, [f64; 5]),
    /// Memory of the node, and for each pod more, bytes.
    memory: (f64, f64),
    map_bytes: u64,
}

fn manner(mode: Mode) -> Manner {
    let of = |hit, miss, memory, map_bytes| Manner { hit, miss, memory, map_bytes };
    let sidecar = (167.0, [16.0, 52.0, 31.0, 17.0, 6.0]);
    let sidestep = (51.0, [15.0, 12.0, 20.0, 16.0, 4.0]);
    let maps = 16 << 20;
    match mode {
        Mode::Direct => of(None, (32.0, [14.0, 0.0, 0.0, 16.0, 2.0]), (0.0, 0.0), 0),
        Mode::Relay => of(None, (46.0, [14.0, 3.0, 12.0, 16.0, 3.0]), (1e6, 1e6), 0),
        Mode::Sidecar => of(None, sidecar, (1e6, 38e6), 0),
        Mode::SidecarBoth => of(None, (305.0, [17.0, 105.0, 64.0, 18.0, 9.0]), (2e6, 76e6), 0),
        Mode::EnvoyCache => of(Some((96.0, [15.0, 48.0, 15.0, 0.0, 4.0])), sidecar, (1e6, 40e6), 0),
        Mode::Nginx => of(
            Some((39.0, [14.0, 9.0, 12.0, 0.0, 2.0])),
            (74.0, [15.0, 20.0, 26.0, 16.0, 4.0]),
            (22e6, 0.0),
            0,
        ),
        Mode::Varnish => of(
            Some((35.0, [14.0, 10.0, 11.0, 0.0, 2.0])),
            (81.0, [15.0, 28.0, 25.0, 16.0, 4.0]),
            (95e6, 0.0),
            0,
        ),
        Mode::SidestepMiss => of(None, (54.0, [15.0, 13.0, 21.0, 16.0, 4.0]), (31e6, 0.09e6), maps),
        Mode::SidestepOff => of(Some((24.0, [13.0, 3.0, 6.0, 0.0, 1.0])), sidestep, (31e6, 0.09e6), maps),
        Mode::Sidestep => of(Some((1.6, [1.9, 0.0, 0.0, 0.0, 0.1])), sidestep, (32e6, 0.1e6), maps),
    }
}

/// Those of a full run but for what is relayed.
fn cases() -> Vec<Case> {
    let cases = Profile::Full.cases().into_iter().filter(|case| case.id != "relayed" && !case.is_asleep);
    cases.map(|case| Case { rounds: ROUNDS, ..case }).collect()
}

/// The report.
pub(super) fn report() -> Report {
    let cases = cases();
    let modes = MODES.map(|(mode, ..)| mode);
    let measured = modes.into_iter().filter(|mode| *mode != Mode::Relay);
    let skipped = |mode| (mode == Mode::Varnish).then(|| NO_VARNISH.to_owned());
    Report {
        schema: SCHEMA,
        date: "2026-11-23T17:04:05Z".to_owned(),
        commit: "0890206df68e".to_owned(),
        profile: "full".to_owned(),
        took_s: 2715.0,
        machine: Machine {
            kernel: "Linux 6.18.4".to_owned(),
            processor: "Example CPU at 2.8 GHz".to_owned(),
            cores: 2,
            memory_bytes: 8_320_000_000,
        },
        settings: settings(),
        modes: modes.map(|mode| ModeNote { mode, skipped: skipped(mode) }).to_vec(),
        rows: cases
            .iter()
            .flat_map(|case| {
                modes
                    .into_iter()
                    .filter(|mode| case.load.fits(*mode))
                    .map(|mode| row(case, mode, skipped(mode)))
            })
            .collect(),
        memory: [1, 10, 50]
            .iter()
            .flat_map(|pods| measured.clone().map(|mode| memory(*pods, mode, skipped(mode))))
            .collect(),
        generators: vec![
            Generator {
                name: "wrk against nginx, 16 connections".to_owned(),
                per_second: series(118_000.0, 3),
            },
            Generator { name: "open loop against nginx".to_owned(), per_second: series(61_000.0, 4) },
        ],
        cases,
    }
}

fn settings() -> Settings {
    let component = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    Settings {
        worker_threads: 2,
        origin_threads: 1,
        generator_threads: 1,
        closed_s: 3.0,
        open_s: 5.0,
        awake: Some("threads".to_owned()),
        notes: vec!["A note.".to_owned()],
        components: vec![
            component("Envoy", "1.36.2"),
            component("nginx", "1.22.1"),
            component("Varnish", "not installed"),
            component("wrk", "4.1.0"),
        ],
    }
}

fn row(case: &Case, mode: Mode, skipped: Option<String>) -> Row {
    let no_room = mode == Mode::SidecarBoth && case.id == "connections-128";
    let skipped = skipped.or_else(|| no_room.then(|| NO_ROOM.to_owned()));
    let mut row = Row {
        case: case.id.clone(),
        mode,
        skipped,
        closed: Closed::default(),
        open: Open::default(),
        cpu: Cpu::default(),
        origin_requests: Series::default(),
    };
    if row.skipped.is_some() {
        return row;
    }
    let Manner { hit, miss, .. } = manner(mode);
    let hits = if hit.is_some() { f64::from(case.load.hits) / 100.0 } else { 0.0 };
    let hit = hit.unwrap_or(miss);
    let size = 1.0 + case.load.bytes as f64 / 40_000.0 + if case.load.is_new_connection { 2.0 } else { 0.0 };
    let seed = mode as u64 * 31 + case.id.len() as u64 + u64::from(case.load.hits);

    let part = |at: usize| 1e-3 * size * (hits * hit.1[at] + (1.0 - hits) * miss.1[at]);
    let total: f64 = (0..5).map(part).sum();
    let mean = size * (hits * hit.0 + (1.0 - hits) * miss.0);
    let connections = f64::from(case.load.connections);
    let per_second = (connections * 1e6 / mean).min(2.0e3 / total);
    row.closed.per_second = series(per_second, seed);
    row.open.rate = 2000.0;
    row.open.per_second = series(2000.0, 0);
    row.open.percentiles = [50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9]
        .map(|p| (p, series(size * quantile(p / 100.0, hits, hit.0, miss.0), seed + p as u64)))
        .to_vec();
    row.cpu = Cpu {
        client: series(part(0), seed),
        proxy_user: series(part(1), seed),
        proxy_kernel: series(part(2), seed),
        origin: series(part(3), seed),
        other: series(part(4), seed),
        total: series(total, seed),
    };
    row.origin_requests = Series(vec![round(1000.0 * (1.0 - hits)); ROUNDS as usize]);
    row
}

/// Latency at a part of all requests, of which hits are the faster ones.
fn quantile(part: f64, hits: f64, hit: f64, miss: f64) -> f64 {
    let tail = |within: f64| 1.0 + 0.08 * (-(1.0 - within).ln()).powf(1.7);
    if part < hits {
        hit * tail(part / hits * 0.98)
    } else {
        miss * tail((part - hits) / (1.0 - hits).max(1e-9))
    }
}

fn memory(pods: u32, mode: Mode, skipped: Option<String>) -> MemoryRow {
    let no_room = mode == Mode::SidecarBoth && pods == 50;
    let skipped = skipped.or_else(|| no_room.then(|| NO_ROOM.to_owned()));
    let Manner { memory, map_bytes, hit, miss, .. } = manner(mode);
    let is_measured = skipped.is_none();
    let cpu: f64 = hit.unwrap_or(miss).1.iter().sum::<f64>() * 1e-3;
    MemoryRow {
        pods,
        mode,
        skipped,
        node_bytes: if is_measured { (memory.0 + f64::from(pods) * memory.1) as u64 } else { 0 },
        resident_bytes: if is_measured { (memory.0 + f64::from(pods) * memory.1 * 2.5) as u64 } else { 0 },
        map_bytes: if is_measured { map_bytes } else { 0 },
        per_second: if is_measured { series(1.9e3 / cpu, 7) } else { Series::default() },
        cpu_total: if is_measured { series(cpu, 8) } else { Series::default() },
    }
}

/// Five rounds around a median, up to 3 % apart.
fn series(median: f64, seed: u64) -> Series {
    let apart = [-0.021, 0.013, 0.0, -0.008, 0.029];
    let turned = (0..ROUNDS as usize).map(|round| apart[(round + seed as usize) % apart.len()]);
    Series(turned.map(|part| round(median * (1.0 + part))).collect())
}

/// As many decimal places as JSON keeps exactly.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
