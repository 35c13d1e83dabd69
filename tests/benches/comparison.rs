//! `cargo xtask bench`: Sidestep beside what people use today. Measures, prints tables, writes `report.json` and
//! `report.html`; or compares two reports.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use clap::Parser;
use harness::comparison::figures::Report;
use harness::comparison::plan::{MODES, Mode, Profile};
use harness::comparison::report::{self, compare, html, readme, table};
use harness::comparison::run::{self, Options};
use harness::exclusive::Exclusive;
use harness::locate;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Measures Sidestep beside sidecars and caches, in network namespaces of its own (root needed).
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Arguments {
    /// Only what the targets need: a few minutes instead of an hour.
    #[arg(long)]
    quick: bool,
    /// Modes, in the order in which they are measured; all of them by default.
    #[arg(long, value_delimiter = ',', value_parser = mode, value_name = "MODE,…")]
    modes: Vec<Mode>,
    /// Measures the modes in the opposite order.
    #[arg(long)]
    reverse: bool,
    /// Measures each case so many times, in turn with the other modes: two runs are told apart the better.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,
    /// Lets idle cores sleep, as they do on a machine with little to do: in a virtual one waking them is most of what is
    /// measured then.
    #[arg(long)]
    sleepy: bool,
    /// Where report.json and report.html are written.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Says what moved beyond noise since this report; fails if anything became worse.
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Takes this report instead of measuring.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Writes the README's section about it anew.
    #[arg(long)]
    readme: bool,
    /// Prints the report as JSON instead of tables.
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    output: Option<String>,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn mode(word: &str) -> Result<Mode> {
    let known = || MODES.map(|(_, word, _)| word).join(", ");
    Mode::of(word).with_context(|| format!("no such mode; known are {}", known()))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // cargo runs a bench in the folder of its package; paths are meant where the command was given.
    if let Some(folder) = env::var_os("SIDESTEP_BENCH_FROM") {
        env::set_current_dir(folder)?;
    }
    // Before an hour is spent on a report that cannot be compared.
    let old = arguments.compare.as_deref().map(read).transpose()?;
    let new = match &arguments.report {
        Some(path) => read(path)?,
        None => arguments.measure()?,
    };
    if arguments.output.is_some() {
        println!("{}", report::json(&new)?);
    } else {
        print!("{}", table::table(&new));
    }
    if arguments.readme {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
        let text = fs::read_to_string(path).context("README.md")?;
        let text = readme::replace(&text, &readme::section(&new)).context("README.md has no place for it")?;
        fs::write(path, text)?;
        eprintln!("wrote README.md");
    }
    let Some(old) = old else { return Ok(()) };
    let comparison = compare::compare(&old, &new);
    eprint!("{}", compare::text(&comparison));
    if comparison.moved.iter().any(|moved| !moved.is_better) {
        bail!("something became worse");
    }
    Ok(())
}

/// Now, UTC.
fn date() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    report::read(&text).with_context(|| path.display().to_string())
}

impl Arguments {
    fn measure(&self) -> Result<Report> {
        if !nix::unistd::geteuid().is_root() {
            bail!("needs root: kernel hooks and network namespaces");
        }
        let _alone = Exclusive::machine()?;
        let mut modes = match self.modes.is_empty() {
            true => MODES.map(|(mode, ..)| mode).to_vec(),
            false => self.modes.clone(),
        };
        if self.reverse {
            modes.reverse();
        }
        let oha = locate::oha().context("needs oha: cargo xtask bench installs it")?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let profile = if self.quick { Profile::Quick } else { Profile::Full };
        let options = Options {
            profile,
            modes,
            rounds: self.rounds,
            oha,
            commit: run::commit(),
            date: date(),
            is_awake: !self.sleepy,
            interrupted,
        };
        let new = run::run(&options)?;
        fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        for (name, text) in [("report.json", report::json(&new)?), ("report.html", html::page(&new)?)] {
            let path = self.out.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            eprintln!("wrote {}", path.display());
        }
        Ok(new)
    }
}
