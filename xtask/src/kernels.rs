//! The tests through real kernel hooks on Debian's older kernels, which boot in an emulated machine: the same binaries
//! and the same eBPF object as on this one.
//!
//! `setup` gets the kernels, `image` makes the root filesystem, `boot` runs the machine, `console` reads what it says.

mod boot;
mod console;
mod image;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::{
    checkout::Checkout,
    setup::{self, Kernel, SERIES},
    steps,
};
use console::Console;

/// A test binary that runs in each kernel.
struct Run {
    /// What its tests show there.
    subject: &'static str,
    /// Its name: a file of `tests/tests`.
    binary: &'static str,
    /// Parts of the names of those of its tests that run; all of them if there are none.
    tests: &'static [&'static str],
}

/// What runs, in this order. Nothing but the package `tests`, busybox and `sidestep` itself is installed there.
const RUNS: [Run; 8] = [
    Run { subject: "check", binary: "commands", tests: &["check_says_for_each_requirement"] },
    Run { subject: "load, attach", binary: "hooks", tests: &[] },
    Run {
        subject: "redirect",
        binary: "addresses",
        tests: &["getpeername_is", "ipv6_connections_are_cached", "v4_mapped_connections_are_cached"],
    },
    Run {
        subject: "fail-open",
        binary: "failopen",
        tests: &[
            "after_kill_9",
            "a_node_that_was_killed",
            "a_stopped_daemon",
            "when_the_daemon_ends_cleanly",
        ],
    },
    Run {
        subject: "caching",
        binary: "caching",
        tests: &[
            "the_second_request",
            "what_is_fresh_for_a_second",
            "age_counts_on",
            "invalidates_what_is_stored",
        ],
    },
    Run { subject: "acceleration", binary: "acceleration", tests: &["this_kernel_is_fit"] },
    Run { subject: "hits", binary: "hits", tests: &[] },
    // Each condition that keeps the order is left out by at least one of these. The others take long, or need what the
    // machine has not (tc), or, for pairs of hot and miss, a client that always reads within 20 ms.
    Run {
        subject: "order",
        binary: "hits_order",
        tests: &[
            "waits_for_a_slow_miss",
            "that_lies_unread",
            "into_the_receive_buffer",
            "requests_in_pieces",
            "a_body_that_was_waited_for",
            "the_same_port",
            "pairs_of_miss_and_hot",
            "a_client_that_never_reads",
        ],
    },
];

/// What to boot, and how to say what came out.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the kernel of this series.
    #[arg(long, value_parser = SERIES)]
    kernel: Option<String>,
    /// How to print the results.
    #[arg(short = 'o', long, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

/// What came of one kernel.
struct Booted<'a> {
    kernel: &'a Kernel,
    seconds: f64,
    console: Console,
    faults: Vec<String>,
    /// What was wrong at a first boot, where tests alone failed there: emulated, on a busy machine, time is not what it is.
    before: Vec<String>,
}

/// Builds, boots each kernel and prints what came out.
///
/// # Errors
/// If a test did not pass, a kernel complained, or the kernels could not be had.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let checkout = Checkout::find()?;
    setup::install(&checkout, false)?;
    let series: Vec<&str> = SERIES
        .into_iter()
        .filter(|series| arguments.kernel.as_deref().is_none_or(|only| only == *series))
        .collect();
    let kernels = setup::install_kernels(&checkout, &series)?;
    steps::run(checkout.cargo().args(["build", "--release"]))?;
    steps::run(&mut checkout.build_with_faults())?;
    let booted = boot_all(&checkout, &kernels)?;
    if arguments.output == "json" {
        println!("{:#}", Value::from_iter(booted.iter().map(Booted::to_json)));
    } else {
        booted.iter().for_each(Booted::print);
    }
    verdict(&booted, &checkout.kernels()).map(drop)
}

/// Runs the tests with the binaries that are there, if kernels can be had, and returns one line.
///
/// # Errors
/// If a test did not pass or a kernel complained; the error says which.
pub(crate) fn check(checkout: &Checkout) -> Result<String> {
    let kernels = match setup::install_kernels(checkout, &SERIES) {
        Ok(kernels) => kernels,
        Err(why) => return Ok(format!("SKIPPED: {}", format!("{why:#}").lines().next().unwrap_or_default())),
    };
    verdict(&boot_all(checkout, &kernels)?, &checkout.kernels())
}

fn boot_all<'a>(checkout: &Checkout, kernels: &'a [Kernel]) -> Result<Vec<Booted<'a>>> {
    let root = image::build(checkout, &RUNS)?;
    // One after the other: some tests measure how soon the daemon is sidestepped.
    let boot = |kernel: &'a Kernel| {
        eprintln!("\n== Linux {}: about 2 min", kernel.release);
        let start = Instant::now();
        let boot = || -> Result<(Console, Vec<String>)> {
            let console = boot::boot(&kernel.image, &root, &log(&checkout.kernels(), kernel))?;
            let faults = console.faults(&kernel.release, &RUNS);
            Ok((console, faults))
        };
        let (mut console, mut faults) = boot()?;
        let mut before = Vec::new();
        if !faults.is_empty() && console.is_kernel_well() {
            eprintln!("\n== once more, for tests failed: {}", faults.join("; "));
            before = faults;
            (console, faults) = boot()?;
        }
        Ok(Booted { kernel, seconds: start.elapsed().as_secs_f64(), console, faults, before })
    };
    kernels.iter().map(boot).collect()
}

fn log(folder: &Path, kernel: &Kernel) -> PathBuf {
    folder.join(format!("console-{}.log", kernel.release))
}

/// One line about all kernels; an error that names every fault and the console's log if there are any.
fn verdict(booted: &[Booted<'_>], folder: &Path) -> Result<String> {
    let faults: Vec<String> =
        booted.iter().filter(|booted| !booted.faults.is_empty()).map(|booted| booted.words(folder)).collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let passed = |booted: &Booted<'_>| {
        let again = if booted.before.is_empty() { "" } else { " at the second boot" };
        let failed = booted.before.iter().map(|fault| format!("; at the first: {fault}")).collect::<String>();
        format!("Linux {}: {} passed{again}{failed}", booted.kernel.release, booted.tests().count())
    };
    Ok(booted.iter().map(passed).collect::<Vec<_>>().join("; "))
}

impl Booted<'_> {
    /// Every test with the subject and the binary that it belongs to, the name of the test, and its result.
    fn tests(&self) -> impl Iterator<Item = (&Run, &console::Test)> {
        RUNS.iter().flat_map(|run| self.console.tests(run.binary).iter().map(move |test| (run, test)))
    }

    fn words(&self, folder: &Path) -> String {
        let faults = self.faults.join("; ");
        format!("Linux {}: {faults} (see {})", self.kernel.release, log(folder, self.kernel).display())
    }

    fn print(&self) {
        println!("\n{:<28} {:<14} {:<8} test", "kernel", "subject", "result");
        let release = &self.kernel.release;
        for (Run { subject, binary, .. }, test) in self.tests() {
            println!("{release:<28} {subject:<14} {:<8} {binary}::{}", test.result, test.name);
        }
        let verdict = if self.faults.is_empty() { "ok" } else { "FAILED" };
        println!("{release:<28} {:<14} {verdict:<8} {:.1} s", "all", self.seconds);
        self.faults.iter().for_each(|fault| println!("  {fault}"));
    }

    fn to_json(&self) -> Value {
        let test = |(run, test): (&Run, &console::Test)| {
            let Run { subject, binary, .. } = run;
            json!({ "subject": subject, "binary": binary, "test": test.name, "result": test.result })
        };
        json!({
            "kernel": self.kernel.release, "ok": self.faults.is_empty(), "seconds": self.seconds,
            "tests": Value::from_iter(self.tests().map(test)), "faults": self.faults,
            "faultsOfFirstBoot": self.before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_binary_runs_once_and_its_words_are_plain_to_a_shell() {
        let plain = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        for (index, run) in RUNS.iter().enumerate() {
            assert!(plain(run.binary) && run.tests.iter().all(|test| plain(test)), "{}", run.binary);
            assert!(RUNS[..index].iter().all(|other| other.binary != run.binary), "{} twice", run.binary);
        }
    }

    #[test]
    fn what_a_kernel_did_wrong_is_said_with_the_place_of_its_console() {
        let kernel = Kernel { release: "6.1".to_owned(), image: "k".into() };
        let booted = |faults: &[&str]| Booted {
            kernel: &kernel,
            seconds: 1.0,
            console: Console::default(),
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
            before: Vec::new(),
        };
        let folder = Path::new("f");
        assert_eq!(verdict(&[booted(&[])], folder).ok(), Some("Linux 6.1: 0 passed".to_owned()));
        let twice = Booted { before: vec!["a".to_owned()], ..booted(&[]) };
        let said = "Linux 6.1: 0 passed at the second boot; at the first: a";
        assert_eq!(verdict(&[twice], folder).ok().as_deref(), Some(said));
        let said = verdict(&[booted(&["a", "b"])], folder).err().map(|why| why.to_string());
        assert_eq!(said.as_deref(), Some("Linux 6.1: a; b (see f/console-6.1.log)"));
        assert_eq!(booted(&["a"]).to_json()["ok"], json!(false));
    }
}
