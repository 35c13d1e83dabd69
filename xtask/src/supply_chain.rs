//! What the workspace is built on, held against `deny.toml` by cargo-deny; and that each of those rules can be broken, with
//! a package as cargo describes it and a lie in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{checkout::Checkout, machine, steps};

/// What needs no database: that one is asked apart, because it may be out of reach.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// How long the database of advisories may take to arrive, in seconds: a network that drops packets would hold us up.
const FETCH_SECONDS: &str = "60";

/// A lie about a package: the name of what it breaks as cargo-deny calls it, the field, and what is put there.
const LIES: [(&str, &str, &str); 4] = [
    ("rejected", "license", "GPL-3.0-only"),
    ("source-not-allowed", "source", "registry+https://example.org/index"),
    (
        "source-not-allowed",
        "source",
        "git+https://example.org/package#0123456789abcdef0123456789abcdef01234567",
    ),
    ("wildcard", "dependencies", "*"),
];

/// The package that is lied about: one of the registry, and named by a package of ours.
const VICTIM: &str = "httparse";

/// The cargo-deny that `setup --tests` installed, or another one in the search path.
pub(crate) fn program(checkout: &Checkout) -> Option<PathBuf> {
    let own = checkout.tools().join("venv/bin/cargo-deny");
    if own.is_file() { Some(own) } else { machine::program_path("cargo-deny") }
}

/// Checks this checkout.
///
/// # Errors
/// As [`check`], or where there is no cargo-deny.
pub(crate) fn run() -> Result<()> {
    let checkout = Checkout::find()?;
    let deny =
        program(&checkout).context("cargo-deny is not here: `cargo xtask setup --tests` installs it")?;
    println!("{}", check(&checkout, &deny)?);
    Ok(())
}

/// Holds the workspace against the rules, and says what was not looked at.
///
/// # Errors
/// If a rule is broken, or one that a lie breaks is not noticed.
pub(crate) fn check(checkout: &Checkout, deny: &Path) -> Result<String> {
    let folder = checkout.target.join("supply-chain");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let metadata = metadata(checkout)?;
    let found = findings_of(checkout, deny, &folder, &metadata)?;
    if found.iter().any(|finding| finding.is_error) {
        // The same once more, in words.
        steps::run(in_words(checkout, deny).arg("check").args(CHECKS))?;
        bail!("cargo-deny found an error, and not again");
    }
    for (rule, field, value) in LIES {
        let found = findings_of(checkout, deny, &folder, &lie(&metadata, field, value)?)?;
        let is_noticed = found.iter().any(|finding| finding.is_error && finding.code == rule);
        ensure!(is_noticed, "a package with the {field} {value:?} breaks no rule `{rule}`: {found:?}");
    }
    let packages = metadata["packages"].as_array().map_or(0, Vec::len);
    let twice = found.iter().filter(|finding| finding.code == "duplicate").count();
    let advisories = check_advisories(checkout, deny)?;
    Ok(format!("{packages} packages, {twice} in several versions; {advisories}"))
}

/// Looks for known flaws and withdrawn versions, where the database of them can be fetched.
fn check_advisories(checkout: &Checkout, deny: &Path) -> Result<String> {
    let mut fetch = Command::new("timeout");
    fetch.arg(FETCH_SECONDS).arg(deny).args(["fetch", "db"]).current_dir(&checkout.root);
    if let Err(why) = steps::run_silently(fetch.env("GIT_TERMINAL_PROMPT", "0")) {
        eprintln!("{why:#}");
        return Ok("advisories NOT CHECKED: their database cannot be fetched".into());
    }
    steps::run(in_words(checkout, deny).args(["check", "--disable-fetch", "advisories"]))?;
    Ok("no advisory".into())
}

fn in_words(checkout: &Checkout, deny: &Path) -> Command {
    let mut command = Command::new(deny);
    command.current_dir(&checkout.root).args(["--locked", "--workspace"]);
    command
}

fn metadata(checkout: &Checkout) -> Result<Value> {
    let words = ["metadata", "--locked", "--all-features", "--format-version", "1"];
    let output = checkout.cargo().args(words).output().context("cargo did not start")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// What cargo would say if a package were otherwise; a dependency is named in the packages that have it.
fn lie(metadata: &Value, field: &str, value: &str) -> Result<Value> {
    let mut metadata = metadata.clone();
    let packages = metadata["packages"].as_array_mut().context("cargo named no packages")?;
    let mut lies = 0;
    for package in packages {
        if package["name"] == VICTIM && field != "dependencies" {
            package[field] = json!(value);
            lies += 1;
        }
        for dependency in package["dependencies"].as_array_mut().into_iter().flatten() {
            if dependency["name"] == VICTIM && field == "dependencies" {
                dependency["req"] = json!(value);
                lies += 1;
            }
        }
    }
    ensure!(lies > 0, "no package {VICTIM}");
    Ok(metadata)
}

/// Something that cargo-deny found.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    is_error: bool,
    code: String,
    message: String,
}

/// What cargo-deny finds in what cargo said, or is made to have said.
fn findings_of(checkout: &Checkout, deny: &Path, folder: &Path, metadata: &Value) -> Result<Vec<Finding>> {
    let file = folder.join("metadata.json");
    fs::write(&file, metadata.to_string()).with_context(|| file.display().to_string())?;
    let mut command = in_words(checkout, deny);
    command.args(["--format", "json", "--metadata-path"]).arg(&file);
    command.args(["check", "--hide-inclusion-graph"]).args(CHECKS);
    let output = command.output().with_context(|| format!("{} did not start", deny.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let found = findings(&String::from_utf8_lossy(&text))?;
    let is_refused = found.iter().any(|finding| finding.is_error);
    ensure!(output.status.success() != is_refused, "{}: {found:?}", output.status);
    Ok(found)
}

/// The findings in what cargo-deny prints: a JSON value a line, the sum of them last.
fn findings(text: &str) -> Result<Vec<Finding>> {
    let (mut found, mut is_whole) = (Vec::new(), false);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let fields = &value["fields"];
        let word = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        match value["type"].as_str() {
            Some("diagnostic") => found.push(Finding {
                is_error: fields["severity"] == "error",
                code: word("code"),
                message: word("message"),
            }),
            Some("summary") => is_whole = true,
            _ => ensure!(fields["level"] != "ERROR", "{}", word("message")),
        }
    }
    ensure!(is_whole, "cargo-deny did not end its report: {text}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Value {
        json!({ "packages": [
            { "name": "ours", "license": "MIT", "source": null, "dependencies": [{ "name": VICTIM, "req": "^1" }] },
            { "name": VICTIM, "license": "MIT", "source": "registry", "dependencies": [] },
        ]})
    }

    #[test]
    fn a_lie_changes_one_field_of_one_package() {
        let told = lie(&said(), "license", "GPL-3.0-only").unwrap();
        assert_eq!(told["packages"][1]["license"], "GPL-3.0-only");
        assert_eq!(told["packages"][0], said()["packages"][0]);

        let told = lie(&said(), "dependencies", "*").unwrap();
        assert_eq!(told["packages"][0]["dependencies"][0]["req"], "*");
        assert_eq!(told["packages"][1], said()["packages"][1]);
    }

    #[test]
    fn a_lie_about_a_package_that_is_not_there_is_an_error() {
        assert!(lie(&json!({ "packages": [] }), "license", "MIT").is_err());
    }

    #[test]
    fn findings_are_read_and_a_report_without_its_end_is_an_error() {
        let finding =
            r#"{"type":"diagnostic","fields":{"code":"rejected","severity":"error","message":"no"}}"#;
        let end = r#"{"type":"summary","fields":{}}"#;
        let expected = [Finding { is_error: true, code: "rejected".into(), message: "no".into() }];
        assert_eq!(findings(&format!("{finding}\n{end}\n\n")).unwrap(), expected);
        assert!(findings(finding).is_err());
        let log = r#"{"type":"log","fields":{"level":"ERROR","message":"no such file"}}"#;
        assert_eq!(findings(&format!("{log}\n{end}")).unwrap_err().to_string(), "no such file");
    }
}
