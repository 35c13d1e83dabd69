//! Named steps, each with its header and its time, and the table at the end.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How a step ended.
#[derive(Debug)]
enum Outcome {
    Passed(String),
    Failed(String),
    NotRun(String),
}

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, Outcome)>,
}

impl Steps {
    /// Runs one step under its header; its note goes into the table. Returns whether it passed.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<String>) -> bool {
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = match step() {
            Ok(note) => Outcome::Passed(note),
            Err(why) => {
                eprintln!("error: {why:#}");
                Outcome::Failed(format!("{why:#}"))
            }
        };
        let took = start.elapsed();
        println!("== {name}: {:.1} s", took.as_secs_f64());
        let passed = matches!(outcome, Outcome::Passed(_));
        self.done.push((name.to_owned(), took, outcome));
        passed
    }

    /// Runs a command as a step.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> bool {
        self.run(name, || run(command).map(|()| String::new()))
    }

    /// Notes a step that does not run, and why.
    pub(crate) fn not_run(&mut self, name: &str, why: &str) {
        println!("\n== {name}: not run: {why}");
        self.done.push((name.to_owned(), Duration::ZERO, Outcome::NotRun(why.to_owned())));
    }

    /// Prints the table of all steps.
    ///
    /// # Errors
    /// If a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!();
        let mut failed = Vec::new();
        for (name, took, outcome) in &self.done {
            let (verdict, note) = match outcome {
                Outcome::Passed(note) => ("ok", note.as_str()),
                Outcome::Failed(why) => {
                    failed.push(name.as_str());
                    ("FAILED", why.lines().next().unwrap_or_default())
                }
                Outcome::NotRun(why) => ("not run", why.as_str()),
            };
            println!("{name:<28} {verdict:<8} {:>7.1} s  {note}", took.as_secs_f64());
        }
        // Once more at the end, where who reads a long log begins.
        for (name, _, outcome) in &self.done {
            if let Outcome::Failed(why) = outcome {
                println!("\n{name} failed:\n{why}");
            }
        }
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// Runs a command with our output as its own.
///
/// # Errors
/// If it does not start or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{:?} did not start", command.get_program()))?;
    if !status.success() {
        bail!("`{}`: {status}", line(command));
    }
    Ok(())
}

/// Runs a command silently; what it said is in the error.
///
/// # Errors
/// If it does not start or does not succeed.
pub(crate) fn run_silently(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{:?} did not start", command.get_program()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("`{}`: {}\n{}", line(command), output.status, String::from_utf8_lossy(&said).trim_end());
    }
    Ok(())
}

/// Lines of what a failed test printed last that are shown again at the end.
const FAILURE_LINES: usize = 40;

/// Tests counted from what `cargo test` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestCount {
    /// Tests that ran and passed.
    pub(crate) passed: u64,
    /// Tests that ran and failed.
    pub(crate) failed: u64,
    /// Tests that did not run.
    pub(crate) ignored: u64,
    /// What failed tests printed, each from its header, in lines.
    failures: Vec<Vec<String>>,
    /// Whether such a test's lines are being read.
    is_within_failure: bool,
}

impl TestCount {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`, and what is printed of failed tests
    /// (where those that passed show nothing, as they do unless they are told to); other lines count nothing.
    fn add(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.failures.push(Vec::new());
            self.is_within_failure = true;
        } else if line == "failures:" {
            self.is_within_failure = false;
        }
        if let Some(failure) = self.failures.last_mut().filter(|_| self.is_within_failure) {
            if failure.len() > FAILURE_LINES {
                failure.remove(1);
            }
            failure.push(line.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split(' ').collect();
        for pair in words.windows(2) {
            let [number, what] = pair else { continue };
            let number = number.parse().unwrap_or(0);
            match what.trim_end_matches(';') {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Runs `cargo test …`, shows what it prints and counts the tests.
///
/// # Errors
/// If it does not start or a test fails.
pub(crate) fn run_tests(command: &mut Command) -> Result<TestCount> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo did not start")?;
    let mut count = TestCount::default();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        count.add(&line);
        println!("{line}");
    }
    let status = child.wait()?;
    if !status.success() {
        let failures: Vec<String> = count.failures.iter().map(|lines| lines.join("\n")).collect();
        let (passed, failed) = (count.passed, count.failed);
        bail!("{passed} passed, {failed} failed; `{}`: {status}\n{}", line(command), failures.join("\n"));
    }
    Ok(count)
}

fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_over_several_binaries() {
        let mut count = TestCount::default();
        count.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        count.add("test result: FAILED. 1 passed; 2 failed; 4 ignored; 0 measured; 0 filtered out");
        count.add("test a_test ... ok");
        assert_eq!(count, TestCount { passed: 4, failed: 2, ignored: 5, ..TestCount::default() });
    }

    #[test]
    fn what_failed_tests_printed_is_kept_and_only_the_end_of_it() {
        let mut count = TestCount::default();
        let says = |count: &mut TestCount, text: &str| text.lines().for_each(|line| count.add(line));
        says(&mut count, "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nleft: 1\n---- b stdout ----");
        (0..100).for_each(|number| count.add(&number.to_string()));
        says(&mut count, "\nfailures:\n    a\n    b\n\ntest result: FAILED. 1 passed; 2 failed; 0 ignored");
        assert_eq!(count.failed, 2);
        assert_eq!(count.failures[0], ["---- a stdout ----", "left: 1"]);
        assert_eq!(count.failures[1].len(), FAILURE_LINES + 1);
        assert_eq!(count.failures[1][..2], ["---- b stdout ----", "61"]);
        assert_eq!(count.failures[1].last().map(String::as_str), Some(""));
    }

    #[test]
    fn a_failed_step_fails_the_whole_and_the_others_still_run() {
        let mut steps = Steps::default();
        assert!(!steps.run("first", || bail!("broken")));
        assert!(steps.run("second", || Ok(String::new())));
        assert_eq!(steps.finish().unwrap_err().to_string(), "failed: first");
    }
}
