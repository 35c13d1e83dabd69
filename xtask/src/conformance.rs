//! The public cache test suite (npm package `http-cache-tests`) against this cache, in both profiles.
//!
//! One run is in `inside`, the suite's rules of counting in `suite`, our lists of what may end otherwise in `excuses`,
//! what is printed in `report`. The RFC wins over the suite, whose edition is older than RFC 9111.

mod excuses;
pub(crate) mod inside;
mod report;
mod suite;

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{checkout::Checkout, machine, setup, steps};
use excuses::Excuses;
use report::Judged;
use suite::Report;

/// The profiles, the RFC's own first.
const PROFILES: [&str; 2] = ["rfc9111", "safe"];

/// What to run, and how to say what came out.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this profile.
    #[arg(long, value_parser = PROFILES)]
    profile: Option<String>,
    /// Only this case; prints every request and answer of it.
    #[arg(long)]
    case: Option<String>,
    /// How to print the results.
    #[arg(short = 'o', long, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

/// Builds, runs the suite and prints what came out.
///
/// # Errors
/// If a required or optional case did not pass and no list says why, whatever it was lost to; or if the suite could not
/// be run.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(why) = machine::kernel_tests_refused() {
        bail!("the suite runs through real kernel hooks, which are not to be had here: {why}");
    }
    let checkout = Checkout::find()?;
    setup::install(&checkout, false)?;
    let suite = setup::install_conformance(&checkout)?;
    steps::run(checkout.cargo().args(["build", "--release"]))?;
    let profiles = PROFILES.into_iter().filter(|name| arguments.profile.as_deref().unwrap_or(name) == *name);
    let judged = profiles
        .map(|profile| judge(&checkout, &suite, profile, arguments.case.as_deref()))
        .collect::<Result<Vec<Judged>>>()?;
    if arguments.output == "json" {
        let all: Vec<Value> = judged.iter().map(Judged::to_json).collect();
        println!("{:#}", Value::Array(all));
    } else {
        judged.iter().for_each(Judged::print);
        println!("\n{}", summary(&judged));
    }
    match unexplained(&judged).len() {
        0 => Ok(()),
        cases => bail!("{cases} results are not as they must be, and no list says why"),
    }
}

/// Runs the suite with the binary that is there and returns one line.
///
/// # Errors
/// As [`run`]; the error names the cases.
pub(crate) fn check(checkout: &Checkout) -> Result<String> {
    if let Some(why) = machine::kernel_tests_refused() {
        return Ok(format!("SKIPPED: {why}"));
    }
    let suite = setup::install_conformance(checkout)?;
    let judged: Result<Vec<Judged>> =
        PROFILES.into_iter().map(|profile| judge(checkout, &suite, profile, None)).collect();
    let judged = judged?;
    let unexplained = unexplained(&judged);
    if !unexplained.is_empty() {
        bail!("{}; not explained:\n{}", summary(&judged), unexplained.join("\n"));
    }
    Ok(summary(&judged))
}

fn summary(judged: &[Judged]) -> String {
    judged.iter().map(Judged::summary).collect::<Vec<_>>().join("; ")
}

fn unexplained(judged: &[Judged]) -> Vec<String> {
    judged.iter().flat_map(Judged::unexplained).collect()
}

fn judge(checkout: &Checkout, suite: &Path, profile: &str, case: Option<&str>) -> Result<Judged> {
    let excuses = Excuses::read(&checkout.conformance(), profile == "safe")?;
    let folder = checkout.target.join("conformance");
    fs::create_dir_all(&folder)?;
    let inside = inside::Arguments {
        profile: profile.to_owned(),
        suite: suite.to_owned(),
        folder,
        case: case.map(str::to_owned),
    };
    // Results of an earlier run must not pass for those of this one.
    if inside.results().exists() {
        fs::remove_file(inside.results())?;
    }
    eprintln!("== http-cache-tests, profile {profile}: about 25 s");
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--fork", "--kill-child"]).arg(env::current_exe()?);
    unshare.args(["conformance-inside", "--profile", profile]);
    unshare.arg("--suite").arg(&inside.suite).arg("--folder").arg(&inside.folder);
    if let Some(case) = case {
        unshare.args(["--case", case]);
    }
    steps::run(&mut unshare)?;
    let results = fs::read_to_string(inside.results()).context("the suite's client wrote no results")?;
    Ok(Judged::of(profile, Report::parse(&results)?, &excuses, case.is_none()))
}
