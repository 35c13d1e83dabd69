//! Figures by reason, in the words of `Cache-Status`: why requests were forwarded, and answers not stored
//! or left to the daemon.
//!
//! As many as there are words, whatever clients send.

use super::counters::Counter;
use crate::policy::{Miss, Reason};
use crate::redirect::hot::Refusal;

/// How often each reason counted.
#[derive(Debug)]
pub struct Reasons {
    forwarded: [Counter; Miss::ALL.len()],
    bypassed: [Counter; Reason::ALL.len()],
    not_stored: [Counter; Reason::ALL.len()],
    not_promoted: [Counter; Refusal::ALL.len()],
}

/// One figure of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonFigure {
    /// The family's name.
    pub name: &'static str,
    /// What the family counts.
    pub help: &'static str,
    /// The word.
    pub reason: &'static str,
    /// How often.
    pub value: u64,
}

impl Default for Reasons {
    fn default() -> Self {
        Self {
            forwarded: std::array::from_fn(|_| Counter::default()),
            bypassed: std::array::from_fn(|_| Counter::default()),
            not_stored: std::array::from_fn(|_| Counter::default()),
            not_promoted: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Reasons {
    /// Counts a request that was looked up and went forward.
    pub fn forwarded(&self, miss: Miss) {
        let place = Miss::ALL.iter().position(|other| *other == miss);
        incr(place.and_then(|place| self.forwarded.get(place)));
    }

    /// Counts a request that was not looked up.
    pub fn bypassed(&self, reason: Reason) {
        incr(self.bypassed.get(usize::from(reason.code())));
    }

    /// Counts a response that was not stored.
    pub fn not_stored(&self, reason: Reason) {
        incr(self.not_stored.get(usize::from(reason.code())));
    }

    /// Counts a hit that the kernel does not give the next time.
    pub fn not_promoted(&self, refusal: Refusal) {
        incr(self.not_promoted.get(refusal as usize));
    }

    /// Those that are not zero, family by family.
    pub fn figures(&self) -> Vec<ReasonFigure> {
        let forwarded = Miss::ALL.iter().zip(&self.forwarded).map(|(miss, counter)| ReasonFigure {
            name: "forwarded_by_reason",
            help: "Requests that went forward after a look-up, by the fwd word of RFC 9211, or its detail.",
            reason: miss.detail().unwrap_or(miss.as_str()),
            value: counter.value(),
        });
        let by = |name, help, counters: &'static [Reason], values: &[Counter]| {
            let figure = move |(reason, counter): (&Reason, &Counter)| ReasonFigure {
                name,
                help,
                reason: reason.as_str(),
                value: counter.value(),
            };
            counters.iter().zip(values).map(figure).collect::<Vec<_>>()
        };
        let bypassed = by(
            "bypassed_by_reason",
            "Requests that were not looked up, by reason.",
            Reason::ALL,
            &self.bypassed,
        );
        let not_stored = by(
            "not_stored_by_reason",
            "Responses that might have been stored and were not, by reason.",
            Reason::ALL,
            &self.not_stored,
        );
        let not_promoted =
            Refusal::ALL.iter().zip(&self.not_promoted).map(|(refusal, counter)| ReasonFigure {
                name: "not_promoted_by_reason",
                help: "Hits that the kernel does not give the next time, by reason.",
                reason: refusal.as_str(),
                value: counter.value(),
            });
        forwarded
            .chain(bypassed)
            .chain(not_stored)
            .chain(not_promoted)
            .filter(|figure| figure.value > 0)
            .collect()
    }
}

fn incr(counter: Option<&Counter>) {
    if let Some(counter) = counter {
        counter.incr();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_counts_for_itself() {
        let reasons = Reasons::default();
        assert!(reasons.figures().is_empty());
        for miss in Miss::ALL {
            reasons.forwarded(*miss);
        }
        for reason in Reason::ALL {
            reasons.bypassed(*reason);
            reasons.not_stored(*reason);
            reasons.not_stored(*reason);
        }
        Refusal::ALL.iter().for_each(|refusal| reasons.not_promoted(*refusal));
        let figures = reasons.figures();
        assert_eq!(figures.len(), Miss::ALL.len() + 2 * Reason::ALL.len() + Refusal::ALL.len());
        let of =
            |name, reason| figures.iter().find(|f| f.name == name && f.reason == reason).map(|f| f.value);
        assert_eq!(of("forwarded_by_reason", "vary-miss"), Some(1));
        assert_eq!(of("bypassed_by_reason", "health-path"), Some(1));
        assert_eq!(of("not_stored_by_reason", "private"), Some(2));
        assert_eq!(of("not_promoted_by_reason", "vary-skipped"), Some(1));
    }
}
