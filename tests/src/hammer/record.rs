//! When answers came, from where, and what went wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::response::Response;

/// A moment of the record, nanoseconds.
const SLOT: u64 = 10_000_000;

/// How many answers came in one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answers {
    /// From the kernel.
    kernel: u64,
    /// From the daemon.
    daemon: u64,
    /// From the origin, past the daemon.
    direct: u64,
}

/// What came of all connections.
#[derive(Clone, Debug, Default)]
pub struct Record {
    slots: BTreeMap<u64, Answers>,
    /// How connections ended that did not end as they should, each with its time by [`crate::load::clock`].
    pub ends: Vec<(u64, String)>,
    /// Answers that were not what they had to be.
    pub wrong: Vec<String>,
}

impl Record {
    pub(super) fn answered(&mut self, at: u64, response: &Response) {
        let answers = self.slots.entry(at / SLOT).or_default();
        match (response.is_by_kernel(), response.passed_through_cache()) {
            (true, _) => answers.kernel += 1,
            (false, true) => answers.daemon += 1,
            (false, false) => answers.direct += 1,
        }
    }

    pub(super) fn ended(&mut self, at: u64, why: &str) {
        self.ends.push((at, why.to_owned()));
    }

    pub(super) fn add(&mut self, other: Self) {
        for (slot, more) in other.slots {
            let answers = self.slots.entry(slot).or_default();
            answers.kernel += more.kernel;
            answers.daemon += more.daemon;
            answers.direct += more.direct;
        }
        self.ends.extend(other.ends);
        self.wrong.extend(other.wrong);
    }

    pub(super) fn to_json(&self) -> Value {
        let slots: Vec<Value> =
            self.slots.iter().map(|(slot, a)| json!([slot, a.kernel, a.daemon, a.direct])).collect();
        json!({"slots": slots, "ends": self.ends, "wrong": self.wrong})
    }

    /// Reads what the probe printed.
    pub fn read(text: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(text.trim()).with_context(|| text.to_owned())?;
        let list = |name: &str| all[name].as_array().with_context(|| format!("no {name}"));
        let slot = |item: &Value| {
            let number = |n: usize| item[n].as_u64();
            Some((number(0)?, Answers { kernel: number(1)?, daemon: number(2)?, direct: number(3)? }))
        };
        let end = |item: &Value| Some((item[0].as_u64()?, item[1].as_str()?.to_owned()));
        Ok(Self {
            slots: list("slots")?.iter().map(slot).collect::<Option<_>>().context("no slot")?,
            ends: list("ends")?.iter().map(end).collect::<Option<_>>().context("no end")?,
            wrong: list("wrong")?.iter().map(ToString::to_string).collect(),
        })
    }

    /// Checks that nothing was wrong.
    pub fn all_right(&self) -> Result<()> {
        ensure!(self.wrong.is_empty(), "{:?}", self.wrong);
        Ok(())
    }

    /// Checks that no connection ended otherwise than it should.
    pub fn no_errors(&self) -> Result<()> {
        ensure!(self.ends.is_empty(), "{} connections failed: {:?}", self.ends.len(), self.ends.first());
        Ok(())
    }

    fn sum(&self, from: u64, until: u64, number: impl Fn(&Answers) -> u64) -> u64 {
        self.slots.range(from / SLOT..until / SLOT).map(|(_, answers)| number(answers)).sum()
    }

    /// Answers of the kernel from a moment until another one.
    pub fn by_kernel(&self, from: u64, until: u64) -> u64 {
        self.sum(from, until, |answers| answers.kernel)
    }

    /// All answers from a moment until another one.
    pub fn answers(&self, from: u64, until: u64) -> u64 {
        self.sum(from, until, |answers| answers.kernel + answers.daemon + answers.direct)
    }

    /// Answers that came past the daemon, from a moment until another one.
    pub fn direct(&self, from: u64, until: u64) -> u64 {
        self.sum(from, until, |answers| answers.direct)
    }

    /// How long after a moment the last answer of the kernel came that came before another one; nothing where none did.
    pub fn last_by_kernel(&self, from: u64, until: u64) -> Option<Duration> {
        let slots = self.slots.range(from / SLOT..until / SLOT);
        let last = slots.rev().find(|(_, answers)| answers.kernel > 0)?;
        Some(Duration::from_nanos((last.0 * SLOT).saturating_sub(from)))
    }
}
