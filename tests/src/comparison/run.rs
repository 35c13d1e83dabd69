//! The measuring: every mode in turn, round after round, so that a machine that becomes slower does so for all of them.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::awake::Awake;
use super::cost::{self, Time};
use super::figures::{Cpu, Generator, Machine, MemoryRow, ModeNote, Report, Row, SCHEMA, Series, Settings};
use super::load::closed::{self, Closed};
use super::load::keys::{FILES, Keys};
use super::load::open::{self, Open};
use super::plan::{BASE, Case, Load, Mode, Profile};
use super::site::{self, Site};
use crate::process;

/// Worker threads of every proxy and cache, and of the origin, and of wrk.
const THREADS: u32 = 1;

/// How often each key is asked for before the first round: once to be stored, then until a hit of it is hot.
const WARMINGS: u32 = 5;

/// Characters of the reason why a row was not measured.
const REASON_MAX: usize = 200;

/// Memory that is left to the machine, bytes, where pods are added.
const MEMORY_LEFT: u64 = 2 << 30;

/// What a sidecar takes, bytes, where pods are added.
const SIDECAR_BYTES: u64 = 80 << 20;

/// What is not as equal as it looks.
const NOTES: [&str; 4] = [
    "Varnish has one thread for each connection, whatever it is told (thread_pools=1).",
    "Envoy's cache filter forwards to a cluster of known endpoints: with ORIGINAL_DST, as sidecars have it, version 1.40 \
     answers 503.",
    "Each Envoy keeps its own cache; Sidestep's workloads of one service account, nginx and Varnish share one.",
    "Sidestep has a thread for control beside its worker threads, which does no work for requests.",
];

/// What is measured.
#[derive(Debug)]
pub struct Options {
    /// How much.
    pub profile: Profile,
    /// Which modes, in which order.
    pub modes: Vec<Mode>,
    /// Rounds of each case, in place of what the profile has.
    pub rounds: Option<u32>,
    /// The generator of open loops.
    pub oha: PathBuf,
    /// What is measured, as the report names it.
    pub commit: String,
    /// When it is measured, as RFC 3339 writes it.
    pub date: String,
    /// Whether cores are kept from going to sleep.
    pub is_awake: bool,
    /// Set where it is to end early: what was started ends with it.
    pub interrupted: Arc<AtomicBool>,
}

/// A mode in its place, or why it is not.
struct Place {
    mode: Mode,
    site: Result<Site, String>,
}

/// Measures all of it; says what it does on standard error.
///
/// # Errors
/// If the machine does not let it: no root, no namespaces. A mode that fails is a row with the reason.
pub fn run(options: &Options) -> Result<Report> {
    let begun = Instant::now();
    let keep_awake = |is_asleep: bool| (options.is_awake && !is_asleep).then(Awake::cores).transpose();
    let awake = keep_awake(false)?;
    let how = awake.as_ref().map(|awake| awake.how().to_owned());
    let mut cases = options.profile.cases();
    cases.iter_mut().for_each(|case| case.rounds = options.rounds.unwrap_or(case.rounds));
    let mut progress = Progress::of(&cases, options, begun);
    let mut places: Vec<Place> = options
        .modes
        .iter()
        .map(|&mode| {
            progress.says(&format!("setting up: {}", mode.name()))?;
            Ok(Place { mode, site: set_up(mode, 1)? })
        })
        .collect::<Result<_>>()?;
    let generators = generators(&places, options, &mut progress)?;
    drop(awake);
    let (mut rows, mut notes) = (Vec::new(), NOTES.map(str::to_owned).to_vec());
    for case in &cases {
        let _awake = keep_awake(case.is_asleep)?;
        revive(case, &mut places, &mut notes)?;
        rows.extend(measured(case, &places, options, &mut progress)?);
    }
    let modes =
        places.iter().map(|place| ModeNote { mode: place.mode, skipped: place.site.as_ref().err().cloned() });
    let modes = modes.collect();
    drop(places);
    let _awake = keep_awake(false)?;
    let memory = memory(options, &mut progress)?;
    progress.ends();
    let (closed_s, open_s) = options.profile.seconds();
    Ok(Report {
        schema: SCHEMA,
        date: options.date.clone(),
        commit: options.commit.clone(),
        profile: options.profile.word().to_owned(),
        took_s: begun.elapsed().as_secs_f64().round(),
        machine: machine()?,
        settings: Settings {
            worker_threads: THREADS,
            origin_threads: 1,
            generator_threads: THREADS,
            closed_s: closed_s as f64,
            open_s: open_s as f64,
            components: site::components(),
            awake: how,
            notes,
        },
        modes,
        cases,
        rows,
        memory,
        generators,
    })
}

/// A site that has proved to be what its mode says.
fn set_up(mode: Mode, clients: u8) -> Result<Result<Site, String>> {
    let site = Site::new(mode, clients, &FILES, THREADS).context(mode.name())?;
    Ok(site.and_then(|site| match site.check() {
        Ok(()) => Ok(site),
        Err(error) => Err(format!("is not what it should be: {error:#}")),
    }))
}

/// Starts anew what no longer answers, and says so: a cache that ended in one case says nothing of the next.
fn revive(case: &Case, places: &mut [Place], notes: &mut Vec<String>) -> Result<()> {
    for place in places {
        if let Err(error) = place.site.as_ref().map_or(Ok(()), Site::answers) {
            let (name, why) = (place.mode.name(), in_short(&error));
            notes.push(format!("{name} had to be started anew before \u{201c}{}\u{201d}: {why}.", case.name));
            place.site = set_up(place.mode, 1)?;
        }
    }
    Ok(())
}

/// The first two lines of what went wrong: a program may say the same for each request.
fn in_short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
    lines.join("; ").chars().take(REASON_MAX).collect()
}

/// All modes with one case.
fn measured(case: &Case, places: &[Place], options: &Options, progress: &mut Progress) -> Result<Vec<Row>> {
    let places: Vec<&Place> = places.iter().filter(|place| case.load.fits(place.mode)).collect();
    let mut rows: Vec<Row> = places.iter().map(|place| row(case, place)).collect();
    for (place, row) in places.iter().zip(&mut rows) {
        if let Ok(site) = &place.site
            && place.mode.caches()
            && !case.load.is_encrypted
        {
            progress.says(&format!("{}: warming {}", case.name, place.mode.name()))?;
            row.skipped = warm(site, case.load).err().map(|error| in_short(&error));
        }
    }
    let time = Duration::from_secs(options.profile.seconds().0);
    let prefix = |place: &Place| place.site.as_ref().map_or("", Site::prefix);
    let loops = places.iter().map(|place| Closed::new(case.load, prefix(place), THREADS, time));
    let loops: Vec<Closed> = loops.collect::<Result<_>>()?;
    for round in 0..case.rounds {
        for ((place, closed), row) in places.iter().zip(&loops).zip(&mut rows) {
            progress.step(&format!(
                "{}, round {} of {}: {}",
                case.name,
                round + 1,
                case.rounds,
                place.mode.name()
            ))?;
            let Ok(site) = &place.site else { continue };
            if row.skipped.is_some() {
                continue;
            }
            if let Err(error) = one(case, site, closed, options, round, row) {
                row.skipped = Some(in_short(&error));
            }
        }
    }
    Ok(rows)
}

fn row(case: &Case, place: &Place) -> Row {
    let skipped = place.site.as_ref().err().cloned();
    let mut row = Row { case: case.id.clone(), mode: place.mode, skipped, ..Row::default() };
    row.open.rate = case.load.rate();
    row
}

/// One round of one mode.
fn one(
    case: &Case,
    site: &Site,
    closed: &Closed,
    options: &Options,
    round: u32,
    row: &mut Row,
) -> Result<()> {
    let salt = format!("{}.{round}", case.id);
    let open_s = options.profile.seconds().1;
    let before = Costs::now(&[site])?;
    let run = closed.finish(closed.start(site, 0, &salt)?)?;
    let cost = Costs::now(&[site])?.since(&before);
    row.closed.per_second.0.push(run.per_second);
    row.closed.errors += run.errors;
    cost.told(run.requests, &mut row.cpu);
    row.origin_requests.0.push(cost.origin_requests / run.requests as f64 * 1000.0);

    let open = Open::new(
        options.oha.clone(),
        case.load,
        site.prefix(),
        case.load.rate(),
        Duration::from_secs(open_s),
    );
    let run = open.run(site, 0, &format!("{salt}.open"))?;
    row.open.per_second.0.push(run.per_second);
    row.open.errors += run.errors;
    told(&run, &mut row.open.percentiles);
    Ok(())
}

fn told(run: &open::Run, percentiles: &mut Vec<(f64, Series)>) {
    for (percentile, micros) in &run.percentiles {
        match percentiles.iter_mut().find(|(known, _)| known == percentile) {
            Some((_, series)) => series.0.push(*micros),
            None => percentiles.push((*percentile, Series(vec![*micros]))),
        }
    }
}

/// Asks for every key as often as it takes.
fn warm(site: &Site, load: Load) -> Result<()> {
    let keys = Keys::of(load, site.prefix());
    let all = keys.target(0).replace("k=0", &format!("k=[0-{}]", keys.count() - 1));
    let url = format!("http://{}{all}", site.addr());
    for _ in 0..WARMINGS {
        let words = ["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", &url];
        process::run(&mut site.client(0, words)?, Duration::from_secs(120))?.succeeded()?;
    }
    Ok(())
}

/// What has been spent so far, seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    client: Time,
    proxy: Time,
    origin: Time,
    unclaimed: f64,
    origin_requests: f64,
}

impl Costs {
    fn now(sites: &[&Site]) -> Result<Self> {
        let mut costs = Self { unclaimed: cost::unclaimed()?, ..Self::default() };
        let add = |to: &mut Time, more: Time| {
            to.user += more.user;
            to.kernel += more.kernel;
        };
        for site in sites {
            add(&mut costs.client, Time::of(site.client_cgroups())?);
            add(&mut costs.proxy, Time::of(site.proxy_cgroups())?);
            add(&mut costs.origin, Time::of([site.origin_cgroup()])?);
            costs.origin_requests += site.origin_requests()? as f64;
        }
        Ok(costs)
    }

    fn since(self, before: &Self) -> Self {
        Self {
            client: self.client - before.client,
            proxy: self.proxy - before.proxy,
            origin: self.origin - before.origin,
            unclaimed: self.unclaimed - before.unclaimed,
            origin_requests: self.origin_requests - before.origin_requests,
        }
    }

    fn told(&self, requests: u64, cpu: &mut Cpu) {
        let known = self.client.total() + self.proxy.total() + self.origin.total();
        let of = |seconds: f64| seconds / requests.max(1) as f64 * 1000.0;
        cpu.client.0.push(of(self.client.total()));
        cpu.proxy_user.0.push(of(self.proxy.user));
        cpu.proxy_kernel.0.push(of(self.proxy.kernel));
        cpu.origin.0.push(of(self.origin.total()));
        cpu.other.0.push(of(self.unclaimed));
        cpu.total.0.push(of(known + self.unclaimed));
    }
}

/// What the generators do where nothing holds them up, and whether another thread would do more.
fn generators(places: &[Place], options: &Options, progress: &mut Progress) -> Result<Vec<Generator>> {
    let find =
        |mode| places.iter().find(|place| place.mode == mode).and_then(|place| place.site.as_ref().ok());
    let (closed_s, open_s) = options.profile.seconds();
    let load = Load { hits: 100, ..BASE };
    let mut found = Vec::new();
    for (mode, name, threads) in [
        (Mode::Sidestep, "wrk, 1 thread, answered inside its own send()", 1),
        (Mode::Direct, "wrk, 1 thread, direct", 1),
        (Mode::Direct, "wrk, 2 threads, direct", 2),
    ] {
        let Some(site) = find(mode) else { continue };
        progress.says(name)?;
        warm(site, load)?;
        let closed = Closed::new(load, site.prefix(), threads, Duration::from_secs(closed_s))?;
        let run = |n: u32| closed.finish(closed.start(site, 0, &format!("generator.{n}"))?);
        let rates: Vec<f64> = (0..3).map(|n| Ok(run(n)?.per_second)).collect::<Result<_>>()?;
        found.push(Generator { name: name.to_owned(), per_second: Series(rates) });
    }
    if let Some(site) = find(Mode::Sidestep) {
        let name = "oha, as fast as it can, answered inside its own send()";
        progress.says(name)?;
        let open = Open::new(options.oha.clone(), load, site.prefix(), 0.0, Duration::from_secs(open_s));
        let rates: Vec<f64> =
            (0..3).map(|n| Ok(open.run(site, 0, &n.to_string())?.per_second)).collect::<Result<_>>()?;
        found.push(Generator { name: name.to_owned(), per_second: Series(rates) });
    }
    Ok(found)
}

/// Memory and throughput of so many pods on the node, one connection each, all hits.
fn memory(options: &Options, progress: &mut Progress) -> Result<Vec<MemoryRow>> {
    let mut rows = Vec::new();
    for &pods in options.profile.pods() {
        for &mode in &options.modes {
            progress.step(&format!("{pods} pods: {}", mode.name()))?;
            let mut row = MemoryRow { pods: pods.into(), mode, ..MemoryRow::default() };
            let room = machine_figure("MemAvailable")?.saturating_sub(MEMORY_LEFT);
            row.skipped = if !mode.is_per_pod() {
                Some("one for the node or the origin, whatever the number of pods".to_owned())
            } else if mode == Mode::Sidecar && u64::from(pods) * SIDECAR_BYTES > room {
                Some(format!("{pods} sidecars do not fit into {} MB", room >> 20))
            } else {
                match grown(options, mode, pods, &mut row) {
                    Ok(skipped) => skipped,
                    Err(error) => Some(format!("{error:#}")),
                }
            };
            rows.push(row);
        }
    }
    Ok(rows)
}

fn grown(options: &Options, mode: Mode, pods: u8, row: &mut MemoryRow) -> Result<Option<String>> {
    let site = match Site::new(mode, pods, &FILES, THREADS)? {
        Ok(site) => site,
        Err(why) => return Ok(Some(why)),
    };
    // Few keys: what is stored is not what a proxy takes.
    let load = Load { hits: 100, connections: 1, keys: 10, ..BASE };
    let closed = Closed::new(load, site.prefix(), 1, Duration::from_secs(options.profile.seconds().0))?;
    // The first is for caches to fill; its connections are older than what becomes hot.
    for round in 0..4 {
        let before = Costs::now(&[&site])?;
        let all: Vec<_> = (0..pods)
            .map(|pod| closed.start(&site, usize::from(pod), &format!("pods.{round}")))
            .collect::<Result<_>>()?;
        let runs: Vec<closed::Run> = all.into_iter().map(|wrk| closed.finish(wrk)).collect::<Result<_>>()?;
        let cost = Costs::now(&[&site])?.since(&before);
        if let Some(run) = runs.iter().find(|run| run.errors > 0) {
            bail!("{} errors of {} requests", run.errors, run.requests);
        }
        if round > 0 {
            let mut cpu = Cpu::default();
            cost.told(runs.iter().map(|run| run.requests).sum(), &mut cpu);
            row.per_second.0.push(runs.iter().map(|run| run.per_second).sum());
            row.cpu_total.0.extend(cpu.total.0);
        }
    }
    let memory = site.memory()?;
    (row.node_bytes, row.resident_bytes, row.map_bytes) =
        (memory.node_bytes, memory.resident_bytes, memory.map_bytes);
    Ok(None)
}

fn machine() -> Result<Machine> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    Ok(Machine {
        kernel: format!("Linux {}", kernel.trim()),
        processor: model.unwrap_or("unknown").trim().to_owned(),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u32),
        memory_bytes: machine_figure("MemTotal")?,
    })
}

/// A figure of `/proc/meminfo`, bytes.
fn machine_figure(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with(name)).context("no such figure")?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse::<u64>()? << 10)
}

/// The commit of a checkout, with `+` behind it where files were changed; empty where git does not know.
pub fn commit() -> String {
    let git = |words: &[&str]| {
        let output = process::run(Command::new("git").args(words), Duration::from_secs(10)).ok()?;
        Some(output.succeeded().ok()?.text().trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return String::new() };
    let is_changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|list| !list.is_empty());
    if is_changed { format!("{commit}+") } else { commit }
}

/// How far it has come, on one line of standard error.
struct Progress {
    steps: usize,
    done: usize,
    begun: Instant,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    fn of(cases: &[Case], options: &Options, begun: Instant) -> Self {
        let rounds: usize = cases.iter().map(|case| case.rounds as usize).sum();
        Self {
            steps: (rounds + options.profile.pods().len()) * options.modes.len(),
            done: 0,
            begun,
            interrupted: Arc::clone(&options.interrupted),
        }
    }

    fn step(&mut self, what: &str) -> Result<()> {
        self.done += 1;
        self.says(what)
    }

    fn says(&self, what: &str) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        let left = match self.done {
            0 => String::new(),
            done => format!(", about {:.0} left", minutes / done as f64 * (self.steps - done) as f64),
        };
        let line = format!("[{}/{}, {minutes:.1} min{left}] {what}", self.done, self.steps);
        let line: String = line.chars().take(110).collect();
        // On a terminal in place; in a file, a line each.
        let end = if std::io::stderr().is_terminal() { '\r' } else { '\n' };
        let _ = write!(std::io::stderr(), "{line:<110}{end}");
        Ok(())
    }

    fn ends(&self) {
        if std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "{:<110}\r", "");
        }
    }
}
