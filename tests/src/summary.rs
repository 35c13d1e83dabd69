//! The figures that Sidestep gives about a run, from `--summary-json` or the admin socket.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The kinds of outcome whose sum is the number of requests.
const OUTCOMES: [&str; 7] = ["hits", "stale", "revalidated", "collapsed", "misses", "uncacheable", "errors"];

/// The outcomes for which the origin was asked.
const FORWARDED: [&str; 3] = ["misses", "revalidated", "uncacheable"];

/// Figures by name.
#[derive(Clone)]
pub struct Summary(Value);

impl fmt::Debug for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

impl Summary {
    /// Takes the JSON object of the figures.
    pub fn new(value: Value) -> Result<Self> {
        ensure!(value.is_object(), "the figures are no object: {value}");
        Ok(Self(value))
    }

    /// One figure; an error where it is missing.
    pub fn figure(&self, name: &str) -> Result<u64> {
        self.0[name].as_u64().with_context(|| format!("no figure {name} in {}", self.0))
    }

    /// The sum of the requests that the origin must have seen.
    pub fn forwarded(&self) -> Result<u64> {
        FORWARDED.iter().map(|name| self.figure(name)).sum()
    }

    /// Checks that every request has exactly one outcome, and that kernel hits are among the hits.
    pub fn balances(&self) -> Result<()> {
        let sum: u64 = OUTCOMES.iter().map(|name| self.figure(name)).sum::<Result<u64>>()?;
        ensure!(sum == self.figure("requests")?, "outcomes add up to {sum}: {}", self.0);
        ensure!(
            self.figure("kernel_hits")? <= self.figure("hits")?,
            "more kernel hits than hits: {}",
            self.0
        );
        Ok(())
    }
}
