//! Everything at once for a long time: clients of two workloads on connections that are kept, renewed, reset, half-closed
//! and left idle, promotions and evictions in a small hot set, writes that purge, a daemon that is killed and started again
//! in the middle. Every answer is checked; memory must be flat at the end, and the kernel must not have warned.
//!
//! `cargo bench -p tests --bench hits_soak -- --seconds N`, 600 without; not part of the tests.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::exclusive::Exclusive;
use harness::hammer::{self, Kind, Record};
use harness::locate;
use harness::manners::{Manner, Tally};
use harness::node::{Node, Workload};
use harness::order::{self, Case};
use harness::origin::Origin;
use harness::process::Process;
use harness::wait::PATIENCE;

/// How long without `--seconds`.
const SECONDS: u64 = 600;

/// How long the clients of a round run.
const ROUND: Duration = Duration::from_secs(15);

/// Rounds at the beginning whose memory is not compared: everything is used for the first time.
const WARM_UP: usize = 2;

/// How much more memory the daemon may have at the end than after the warm-up, kB: an allocator's noise.
const DAEMON_NOISE_KB: u64 = 16 << 10;

/// The same of the kernel's own memory.
const KERNEL_NOISE_KB: u64 = 48 << 10;

/// A hot set and a store that are too small for what is asked for.
const CONFIGURATION: &str = "acceleration: hits\nhotBytes: 1MiB\nstoreBytes: 8MiB\n";

/// What of the machine's memory is looked at.
const KERNEL_MEMORY: [&str; 2] = ["SUnreclaim", "Percpu"];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = words.windows(2).find(|pair| pair[0] == "--seconds").map(|pair| pair[1].parse());
    let time = Duration::from_secs(seconds.transpose().context("--seconds")?.unwrap_or(SECONDS));
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root: kernel hooks");
    }
    let _turn = Exclusive::machine()?;
    let mut kernel_log = KernelLog::from_now()?;
    let origins = [hammer::origin::start()?, order::origin::ordinary()?];
    let ports: Vec<u16> = origins.iter().map(Origin::port).collect();
    let workloads =
        ["web", "jobs"].map(|name| Workload::local(name, &ports).map(|w| w.identity("soak", name)));
    let [web, jobs] = workloads;
    let mut node = Node::configured(CONFIGURATION, [web?, jobs?])?;

    let (began, mut rounds, mut is_killed) = (Instant::now(), Vec::new(), false);
    println!(
        "round | answers | by the kernel | promoted | enrolled | RSS kB | SUnreclaim + Percpu kB | available kB"
    );
    while began.elapsed() < time {
        // Not before memory was compared with something, and early enough to see it flat again.
        let is_kill = !is_killed && rounds.len() > WARM_UP && began.elapsed() * 2 > time;
        let round = Round::run(&mut node, &origins, is_kill)?;
        round.print(rounds.len() + 1, is_kill);
        rounds.push(round);
        is_killed |= is_kill;
        kernel_log.has_no_warning()?;
    }
    ensure!(is_killed, "too short for a kill and what follows: {} rounds", rounds.len());
    is_flat(&rounds)?;
    node.finish()?;
    kernel_log.has_no_warning()?;
    println!("{} rounds, every answer right, memory flat, no kernel warning", rounds.len());
    Ok(())
}

/// One round: what all clients got, and the memory when they are gone.
struct Round {
    answers: u64,
    by_kernel: u64,
    promoted: u64,
    enrolled: u64,
    daemon_kb: u64,
    kernel_kb: u64,
    available_kb: u64,
}

impl Round {
    /// Runs every client; kills the daemon in the middle where asked, and starts it again at the end.
    fn run(node: &mut Node, origins: &[Origin; 2], is_kill: bool) -> Result<Self> {
        let hammers = [
            (0, Kind::Hot, 4),
            (0, Kind::Versions, 3),
            (0, Kind::Short, 2),
            (0, Kind::Many(20), 2),
            (1, Kind::Many(3000), 3),
            (1, Kind::Own, 2),
            (1, Kind::Lasting, 2),
        ];
        let clients = hammers.map(|(workload, kind, connections)| {
            let (addr, ms) = (origins[0].addr(), ROUND.as_millis());
            start(node, workload, &format!("hammer {} {addr} {connections} {ms}", kind.word()))
        });
        let orders =
            [(Case::Pieces, 40), (Case::HotThenMiss, 300), (Case::SlowMiss, 60), (Case::HalfRead, 20)];
        let orders = orders.map(|(case, tries)| {
            start(node, 1, &format!("order {} {} 2 {tries}", case.word(), origins[1].addr()))
        });
        let manners = [Manner::Keep, Manner::HalfCloseAfter, Manner::Reset, Manner::Idle];
        let manners = manners
            .map(|manner| start(node, 0, &format!("manners {} {} 2 60", manner.word(), origins[1].addr())));
        if is_kill {
            harness::wait::pause(ROUND / 2);
            node.kill()?;
        }
        let mut round = Self {
            answers: 0,
            by_kernel: 0,
            promoted: 0,
            enrolled: 0,
            daemon_kb: 0,
            kernel_kb: 0,
            available_kb: 0,
        };
        for (client, (_, kind, _)) in clients.into_iter().zip(hammers) {
            let record = Record::read(&client?.finish(ROUND + 2 * PATIENCE)?.succeeded()?.text())?;
            record.all_right().with_context(|| format!("{kind:?}"))?;
            if !is_kill {
                record.no_errors().with_context(|| format!("{kind:?}"))?;
            }
            round.answers += record.answers(0, u64::MAX);
            round.by_kernel += record.by_kernel(0, u64::MAX);
        }
        for client in orders.into_iter().chain(manners) {
            let tally = Tally::read(&client?.finish(ROUND + 6 * PATIENCE)?.succeeded()?.text())?;
            // A connection that ends with its daemon is no wrong answer.
            ensure!(is_kill || tally.wrong.is_empty(), "{tally:?}");
        }
        if is_kill {
            node.restart()?;
        }
        let figures = node.figures()?;
        (round.promoted, round.enrolled) = (figures.figure("promoted")?, figures.figure("enrolled")?);
        ensure!(figures.figure("errors")? == 0 && figures.figure("answers_spoilt")? == 0, "{figures:?}");
        figures.balances()?;
        round.daemon_kb = node.process().memory_kb("VmRSS")?;
        round.kernel_kb = KERNEL_MEMORY.iter().map(|name| machine_kb(name)).sum::<Result<u64>>()?;
        round.available_kb = machine_kb("MemAvailable")?;
        Ok(round)
    }

    fn print(&self, number: usize, is_kill: bool) {
        let Self { answers, by_kernel, promoted, enrolled, daemon_kb, kernel_kb, available_kb } = self;
        let killed = if is_kill { " | killed and started again" } else { "" };
        println!(
            "{number} | {answers} | {by_kernel} | {promoted} | {enrolled} | {daemon_kb} | {kernel_kb} | {available_kb}{killed}"
        );
    }
}

/// Starts the probe in a workload.
fn start(node: &Node, workload: usize, words: &str) -> Result<Process> {
    let workload = node.workloads().get(workload).context("no workload")?;
    let probe = locate::probe()?.display().to_string();
    Process::start(&mut workload.command([probe.as_str()].into_iter().chain(words.split(' '))))
}

/// At the end there is no more memory in use than after the warm-up.
fn is_flat(rounds: &[Round]) -> Result<()> {
    let (early, late) = rounds.split_at(rounds.len().div_ceil(2));
    let early = early.get(WARM_UP..).unwrap_or_default();
    let most = |rounds: &[Round], kb: fn(&Round) -> u64| rounds.iter().map(kb).max().unwrap_or(0);
    for (name, kb, noise) in [
        ("the daemon", (|round| round.daemon_kb) as fn(&Round) -> u64, DAEMON_NOISE_KB),
        ("the kernel", |round| round.kernel_kb, KERNEL_NOISE_KB),
    ] {
        let (before, after) = (most(early, kb), late.last().map_or(0, kb));
        println!("{name}: at most {before} kB in the first half, {after} kB at the end");
        ensure!(after <= before + noise, "{name} grew from {before} to {after} kB");
    }
    Ok(())
}

/// A figure of /proc/meminfo in kB.
fn machine_kb(name: &str) -> Result<u64> {
    let all = fs::read_to_string("/proc/meminfo")?;
    let line = all.lines().find(|line| line.split(':').next() == Some(name)).context("no such figure")?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}

/// What the kernel says, from a moment on.
struct KernelLog(Option<File>);

impl KernelLog {
    fn from_now() -> Result<Self> {
        let log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        let Ok(mut log) = log else {
            println!("the kernel's log cannot be read here: its warnings are not looked for");
            return Ok(Self(None));
        };
        log.seek(SeekFrom::End(0))?;
        Ok(Self(Some(log)))
    }

    fn has_no_warning(&mut self) -> Result<()> {
        let Some(log) = &mut self.0 else { return Ok(()) };
        let mut record = vec![0; 8192];
        // Each read gives one record; an error says that there is none.
        while let Ok(count) = log.read(&mut record) {
            let said = String::from_utf8_lossy(&record[..count]).into_owned();
            let is_warning = ["WARNING:", "BUG:", "Oops", "refcount_t", "use-after-free", "rcu_sched"];
            ensure!(!is_warning.iter().any(|word| said.contains(word)), "the kernel says: {said}");
        }
        Ok(())
    }
}
