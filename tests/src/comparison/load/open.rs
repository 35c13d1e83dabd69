//! The open loop: oha at a constant rate. The latency of a request counts from when it was due, so that a server that
//! stands still is not asked less for it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::keys::Keys;
use crate::comparison::plan::Load;
use crate::comparison::site::Site;
use crate::process;
use crate::scratch::Scratch;

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Requests that were answered in a second.
    pub per_second: f64,
    /// Latency in microseconds by percentile.
    pub percentiles: Vec<(f64, f64)>,
    /// Requests that failed or had another status.
    pub errors: u64,
}

/// An open loop of a load.
#[derive(Debug)]
pub struct Open {
    program: PathBuf,
    keys: Keys,
    load: Load,
    rate: f64,
    duration: Duration,
}

impl Open {
    /// A loop of so many requests a second, 0 for as many as can be.
    pub fn new(program: PathBuf, load: Load, prefix: &str, rate: f64, duration: Duration) -> Self {
        Self { program, keys: Keys::of(load, prefix), load, rate, duration }
    }

    /// Runs it in a client pod; `salt` is a word that no other run has.
    ///
    /// # Errors
    /// If oha fails or prints nothing that can be read.
    pub fn run(&self, site: &Site, pod: usize, salt: &str) -> Result<Run> {
        let scratch = Scratch::new()?;
        // Targets are drawn from the list: ten times as many make a second draw rare.
        let due = (self.rate.max(1000.0) * self.duration.as_secs_f64()) as usize;
        let url = format!("{}://{}", self.load.scheme(), site.addr_of(self.load));
        let mut urls = String::new();
        for (number, line) in self.keys.lines((10 * due).min(200_000), 1)?.lines().enumerate() {
            let unique = if line.ends_with("?u=") { format!("{salt}.{number}") } else { String::new() };
            urls.push_str(&format!("{url}{line}{unique}\n"));
        }
        scratch.write("urls", urls)?;
        let mut words = vec![
            self.program.display().to_string(),
            "--no-tui".to_owned(),
            "--insecure".to_owned(),
            "--output-format".to_owned(),
            "json".to_owned(),
            "-z".to_owned(),
            format!("{}ms", self.duration.as_millis()),
            "-c".to_owned(),
            self.load.connections.to_string(),
        ];
        if self.rate > 0.0 {
            words.extend(["-q".to_owned(), self.rate.to_string(), "--latency-correction".to_owned()]);
        }
        if self.load.is_new_connection {
            words.push("--disable-keepalive".to_owned());
        }
        words.extend(["--urls-from-file".to_owned(), scratch.file("urls").display().to_string()]);
        let output = process::run(&mut site.client(pod, words)?, self.duration + Duration::from_secs(60))?;
        let text = output.succeeded()?.text();
        read(&text).with_context(|| text.chars().take(2000).collect::<String>())
    }
}

/// Reads what oha prints.
fn read(text: &str) -> Result<Run> {
    let all: Value = serde_json::from_str(text)?;
    let percentiles = all["latencyPercentiles"].as_object().context("no percentiles")?;
    let mut found: Vec<(f64, f64)> = percentiles
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix('p')?.parse().ok()?, value.as_f64()? * 1e6)))
        .collect();
    found.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let count = |part: &str| {
        let all = all[part].as_object().into_iter().flatten();
        all.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect::<Vec<_>>()
    };
    let statuses = count("statusCodeDistribution");
    let wrong: u64 = statuses.iter().filter(|(status, _)| status != "200").map(|(_, count)| count).sum();
    // Those that the end cuts off are nobody's fault.
    let failed: u64 =
        count("errorDistribution").iter().filter(|(why, _)| !why.contains("deadline")).map(|(_, n)| n).sum();
    let per_second = all["summary"]["requestsPerSec"].as_f64().context("no rate")?;
    ensure!(!found.is_empty(), "no latency");
    Ok(Run { per_second, percentiles: found, errors: wrong + failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_oha_prints_is_read() -> Result<()> {
        let text = r#"{"summary": {"requestsPerSec": 999.5},
            "latencyPercentiles": {"p99.9": 0.002, "p50": 0.0001, "p99": null},
            "statusCodeDistribution": {"200": 1990, "503": 3},
            "errorDistribution": {"aborted due to deadline": 4, "connection closed": 2}}"#;
        let run = read(text)?;
        assert_eq!(run.percentiles.len(), 2);
        let (percentile, micros) = run.percentiles[0];
        assert!((percentile - 50.0).abs() < 1e-9 && (micros - 100.0).abs() < 1e-6);
        assert_eq!((run.errors, run.per_second), (5, 999.5));
        Ok(())
    }
}
