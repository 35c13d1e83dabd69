//! What a hit inside the kernel gains, and what acceleration costs where it gains nothing.
//!
//! One run, everything in turn round after round, medians of the rounds: direct requests to nginx on loopback, hits of
//! the daemon, hits inside the kernel, and an Envoy sidecar as Istio wires it; then misses and 1 MB answers with and
//! without acceleration. Prints a table, or JSON with `-o json`; judging is left to the reader, for the machine may be busy.
//!
//! `costs [ROUNDS]` measures only what must not cost anything, with more rounds where the machine is noisy.
//! `SIDESTEP_TEST_ACCELERATION=off` runs it where kernel hits cannot be.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::acceleration;
use harness::exec::Exec;
use harness::locate;
use harness::nginx::Nginx;
use harness::process::Process;
use harness::sidecar::Sidecar;
use serde_json::{Value, json};

/// Rounds of what is to be gained.
const ROUNDS: usize = 5;

/// Rounds of what must not cost anything: small differences need more of them.
const COST_ROUNDS: usize = 21;

/// How long the blocking client is measured in a round.
const ROUND: Duration = Duration::from_millis(500);

/// Requests of a connection before it is measured.
const WARM_UP: usize = 200;

/// Connections that ask for the hot path first, and requests on each: enough to make it and its destination hot.
const HEATING: (usize, usize) = (4, 20);

/// How long one process may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A difference that is not one, where the run's own spread is smaller.
const SPREAD_MIN: f64 = 0.05;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Direct,
    /// Behind the cache with `off`.
    Daemon,
    /// A second series of the same, so that the run knows its own spread.
    DaemonAgain,
    /// Behind the cache with what is under test: hits inside the kernel where it gives them.
    Kernel,
    Sidecar,
}

/// What is asked for, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// One blocking connection; the content's length is checked.
    Blocking { path: &'static str, bytes: usize },
    /// wrk with one thread, for 1 KB.
    Wrk { connections: u32 },
}

/// One line of the table.
struct Row {
    name: &'static str,
    load: Load,
    place: Place,
    p50: Vec<f64>,
    per_second: Vec<f64>,
}

const KB: Load = Load::Blocking { path: "/1k", bytes: 1024 };
const KB_16: Load = Load::Blocking { path: "/16k", bytes: 16 << 10 };
const WRK_1: Load = Load::Wrk { connections: 1 };
const WRK_16: Load = Load::Wrk { connections: 16 };
const MISS: Load = Load::Blocking { path: "/n/1k", bytes: 1024 };
const MB: Load = Load::Blocking { path: "/1m", bytes: 1 << 20 };
const MB_MISS: Load = Load::Blocking { path: "/n/1m", bytes: 1 << 20 };

const GAINS: [(&str, Load); 4] = [
    ("1 KB, blocking", KB),
    ("16 KB, blocking", KB_16),
    ("1 KB, wrk, 1 connection", WRK_1),
    ("1 KB, wrk, 16", WRK_16),
];
const COSTS: [(&str, Load); 3] =
    [("1 KB, never stored", MISS), ("1 MB, a hit", MB), ("1 MB, never stored", MB_MISS)];

/// What is measured, and where.
struct Bench {
    own: PathBuf,
    nginx: Nginx,
    sidecar: Sidecar,
    tested: String,
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["client", port, path, bytes] = words.as_slice() {
        return client(port.parse()?, path, bytes.parse()?);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root: kernel hooks and network namespaces");
    }
    let files = [("1k", 1 << 10), ("16k", 16 << 10), ("1m", 1 << 20)].map(|(name, n)| (name, vec![b'x'; n]));
    let (Some(nginx), Some(sidecar)) = (Nginx::measured(&files)?, Sidecar::before(&files)?) else {
        bail!("needs nginx and Envoy: cargo xtask setup --tests, and SIDESTEP_TOOLS");
    };
    let bench = Bench { own: std::env::current_exe()?, nginx, sidecar, tested: acceleration::tested() };
    let (gain_rounds, cost_rounds) = match words.as_slice() {
        ["costs", rounds, ..] if rounds.parse::<usize>().is_ok() => (0, rounds.parse()?),
        ["costs", ..] => (0, COST_ROUNDS),
        _ => (ROUNDS, COST_ROUNDS),
    };
    let places = [Place::Direct, Place::Daemon, Place::Kernel, Place::Sidecar];
    let gains = bench.rounds(&GAINS, &places, gain_rounds)?;
    let costs = bench.rounds(&COSTS, &[Place::Daemon, Place::Kernel, Place::DaemonAgain], cost_rounds)?;
    eprintln!();
    let gained = if gain_rounds > 0 { gained(&gains) } else { Vec::new() };
    let verdicts: Vec<Verdict> = gained.into_iter().chain(costs.chunks(3).map(cost)).collect();
    if words.windows(2).any(|pair| pair == ["-o", "json"]) {
        println!("{}", bench.json(&gains, &costs, &verdicts));
    } else {
        bench.table(&gains, &costs, &verdicts);
    }
    Ok(())
}

impl Bench {
    /// Measures every load at every place, in turn.
    fn rounds(&self, loads: &[(&'static str, Load)], places: &[Place], rounds: usize) -> Result<Vec<Row>> {
        let row = |name, load, place| Row { name, load, place, p50: Vec::new(), per_second: Vec::new() };
        let rows = loads.iter().flat_map(|(name, load)| places.iter().map(|place| row(*name, *load, *place)));
        let mut rows: Vec<Row> = rows.collect();
        for round in 1..=rounds {
            for row in &mut rows {
                eprint!("\rround {round} of {rounds}: {}, {:<40}", row.name, row.place.words());
                let (p50, per_second) = self.measure(row.load, row.place).context(row.name)?;
                row.p50.push(p50);
                row.per_second.push(per_second);
            }
        }
        Ok(rows)
    }

    /// Runs a load at a place; returns its p50 in microseconds (0 of wrk) and its requests in a second.
    fn measure(&self, load: Load, place: Place) -> Result<(f64, f64)> {
        let port = if place == Place::Sidecar { self.sidecar.port() } else { self.nginx.port() };
        let words = self.words(load, port)?;
        let text = match place {
            Place::Direct => Process::of_words(words)?.finish(PATIENCE)?.succeeded()?.text(),
            Place::Sidecar => {
                let words = self.sidecar.enter().into_iter().chain(words);
                Process::of_words(words)?.finish(PATIENCE)?.succeeded()?.text()
            }
            Place::Daemon | Place::DaemonAgain => self.behind(acceleration::OFF, load, words)?,
            Place::Kernel => self.behind(&self.tested, load, words)?,
        };
        figures(&text).with_context(|| text)
    }

    fn words(&self, load: Load, port: u16) -> Result<Vec<OsString>> {
        match load {
            Load::Blocking { path, bytes } => {
                let client =
                    ["client".into(), port.to_string().into(), path.into(), bytes.to_string().into()];
                Ok([self.own.clone().into()].into_iter().chain(client).collect())
            }
            Load::Wrk { connections } => {
                let wrk = locate::on_path("wrk").context("needs wrk")?;
                // The first run is not measured: its connections are older than what becomes hot.
                let script = format!(
                    "{0} -t1 -c{connections} -d1s http://127.0.0.1:{port}/1k >/dev/null && \
                     {0} -t1 -c{connections} -d1s http://127.0.0.1:{port}/1k",
                    wrk.display()
                );
                Ok(vec!["sh".into(), "-c".into(), script.into()])
            }
        }
    }

    fn behind(&self, mode: &str, load: Load, words: Vec<OsString>) -> Result<String> {
        let exec = Exec::port(self.nginx.port())?.flag(acceleration::FLAG).flag(mode);
        let outcome = exec.run(words)?;
        let (kernel_hits, hits) = (outcome.figure("kernel_hits")?, outcome.figure("hits")?);
        let hot = matches!(load, KB | KB_16 | Load::Wrk { .. });
        let demanded = hot && acceleration::is_demanded(mode);
        ensure!(!demanded || kernel_hits * 10 >= hits * 9, "{kernel_hits} of {hits} hits inside the kernel");
        Ok(outcome.output.succeeded()?.text())
    }

    fn title(&self) -> String {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!("Linux {}, {cores} cores, --acceleration {}", kernel.trim(), self.tested)
    }

    fn table(&self, gains: &[Row], costs: &[Row], verdicts: &[Verdict]) {
        let rounds = |rows: &[Row]| rows.first().map_or(0, |row| row.per_second.len());
        println!(
            "{}; medians of rounds in turn ({}, {}), loopback, keep-alive",
            self.title(),
            rounds(gains),
            rounds(costs)
        );
        println!("{:<26}{:<24}{:>12}{:>14}", "", "", "p50", "per second");
        for row in gains.iter().chain(costs).filter(|row| !row.p50.is_empty()) {
            let p50 = if row.is_wrk() { String::new() } else { format!("{:.1} µs", median(&row.p50)) };
            let place = row.place.words();
            println!("{:<26}{place:<24}{p50:>12}{:>14.0}", row.name, median(&row.per_second));
        }
        println!();
        for verdict in verdicts {
            let met = if verdict.met { "met" } else { "NOT met" };
            println!("{:<52}{:>9}   {:<36}{met}", verdict.name, verdict.value, verdict.asked);
        }
    }

    fn json(&self, gains: &[Row], costs: &[Row], verdicts: &[Verdict]) -> Value {
        let rows = gains.iter().chain(costs).map(|row| {
            let p50 = (!row.is_wrk()).then(|| median(&row.p50));
            json!({"name": row.name, "place": row.place.words(), "p50_us": p50,
                   "per_second": median(&row.per_second), "rounds": row.per_second.len()})
        });
        let rows: Vec<Value> = rows.collect();
        let verdict = |v: &Verdict| json!({"name": v.name, "value": v.value, "asked": v.asked, "met": v.met});
        let verdicts: Vec<Value> = verdicts.iter().map(verdict).collect();
        json!({"machine": self.title(), "rows": rows, "verdicts": verdicts})
    }
}

impl Place {
    fn words(self) -> &'static str {
        match self {
            Self::Direct => "direct to nginx",
            Self::Daemon => "daemon, off",
            Self::DaemonAgain => "daemon, off, again",
            Self::Kernel => "accelerated",
            Self::Sidecar => "Envoy sidecar",
        }
    }
}

impl Row {
    fn is_wrk(&self) -> bool {
        matches!(self.load, Load::Wrk { .. })
    }
}

/// A figure, and what was asked for.
struct Verdict {
    name: String,
    value: String,
    asked: String,
    met: bool,
}

fn gained(rows: &[Row]) -> Vec<Verdict> {
    let find = |load: Load, place: Place| rows.iter().find(|row| row.load == load && row.place == place);
    let p50 = |load, place| find(load, place).map_or(0.0, |row| median(&row.p50));
    let per_second = |load, place| find(load, place).map_or(0.0, |row| median(&row.per_second));
    let faster = |load| p50(load, Place::Direct) / p50(load, Place::Kernel);
    let more = |load| per_second(load, Place::Kernel) / per_second(load, Place::Sidecar);
    let asked = [
        ("p50 of 1 KB: direct against a kernel hit", faster(KB), 6.0),
        ("p50 of 16 KB: direct against a kernel hit", faster(KB_16), 3.0),
        ("requests/s of 1 KB: against the sidecar", more(KB), 50.0),
        ("wrk, 1 connection: against the sidecar", more(WRK_1), 20.0),
        ("wrk, 16 connections: against the sidecar", more(WRK_16), 12.0),
    ];
    let verdict = |(name, value, least): (&str, f64, f64)| Verdict {
        name: name.to_owned(),
        value: format!("x {value:.1}"),
        asked: format!("at least x {least}"),
        met: value >= least,
    };
    asked.map(verdict).into()
}

/// Compares the three series of a load whose hits are not the kernel's to give.
fn cost(rows: &[Row]) -> Verdict {
    let series =
        |place| rows.iter().filter(move |row| row.place == place).flat_map(|row| row.p50.iter().copied());
    let of = |place| median(&series(place).collect::<Vec<_>>());
    let off: Vec<f64> = series(Place::Daemon).chain(series(Place::DaemonAgain)).collect();
    let (added, spread) =
        (of(Place::Kernel) / median(&off) - 1.0, of(Place::Daemon) / of(Place::DaemonAgain) - 1.0);
    let most = spread.abs().max(SPREAD_MIN);
    Verdict {
        name: format!("p50 of {}: added by acceleration", rows.first().map_or("", |row| row.name)),
        value: format!("{:+.1} %", added * 100.0),
        asked: format!("at most {:.1} % (A/A {:+.1} %)", most * 100.0, spread * 100.0),
        met: added <= most,
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The p50 and the requests in a second, from what the client or wrk printed.
fn figures(text: &str) -> Result<(f64, f64)> {
    let wrk = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    if let Some(per_second) = wrk {
        ensure!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "errors");
        return Ok((0.0, per_second.trim().parse()?));
    }
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().context("no figure")?.context("not a figure");
    Ok((next()?, next()?))
}

/// Heats the destination, then asks for one path over and over; prints the p50 in µs and the requests in a second.
fn client(port: u16, path: &str, bytes: usize) -> Result<()> {
    let hot = if bytes <= 16 << 10 && !path.starts_with("/n/") { (path, bytes) } else { ("/1k", 1024) };
    for _ in 0..HEATING.0 {
        let mut heating = Client::open(port)?;
        for _ in 0..HEATING.1 {
            heating.get(hot.0, hot.1)?;
        }
    }
    let mut client = Client::open(port)?;
    for _ in 0..WARM_UP.min((64 << 20) / bytes) {
        client.get(path, bytes)?;
    }
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < ROUND {
        times.push(client.get(path, bytes)?.as_nanos() as f64 / 1000.0);
    }
    println!("{} {}", median(&times), times.len() as f64 * 1e6 / times.iter().sum::<f64>());
    Ok(())
}

/// A blocking client on one connection, made anew where an answer says that it ends.
struct Client {
    port: u16,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { port, stream, buffer: vec![0; (1 << 20) + (64 << 10)] })
    }

    /// One request and its whole answer, a head and `bytes` bytes; returns how long that took.
    ///
    /// What the client itself has to do for it is kept small: it would weigh as much as a kernel hit.
    fn get(&mut self, path: &str, bytes: usize) -> Result<Duration> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n");
        let asked = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        while !is_whole(&self.buffer[..filled], bytes) {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(read > 0, "the connection ended");
            filled += read;
        }
        let took = asked.elapsed();
        let head = &self.buffer[..filled - bytes];
        ensure!(head.starts_with(b"HTTP/1.1 200 "), "another answer");
        if ends_connection(head) {
            *self = Self::open(self.port)?;
        }
        Ok(took)
    }
}

/// Whether the last `bytes` bytes follow the end of a head; no content measured here holds one.
fn is_whole(filled: &[u8], bytes: usize) -> bool {
    filled.len().checked_sub(bytes).is_some_and(|head| filled[..head].ends_with(b"\r\n\r\n"))
}

/// Whether the head says so; a line is looked at only where it begins as Connection does.
fn ends_connection(head: &[u8]) -> bool {
    let mut lines =
        head.split(|byte| *byte == b'\n').filter(|line| matches!(line.first(), Some(b'C' | b'c')));
    lines.any(|line| line.trim_ascii_end().eq_ignore_ascii_case(b"connection: close"))
}
