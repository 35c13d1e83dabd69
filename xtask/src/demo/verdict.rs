//! Whether what the clients saw, what the origin counted and what Sidestep says of itself agree. Pure.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::inside::{AnsweredBy, Exchange};

/// The fields of `--summary-json` that the demo compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) connections_redirected: u64,
    pub(super) requests: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) revalidated: u64,
    pub(super) stale: u64,
    pub(super) collapsed: u64,
    pub(super) uncacheable: u64,
    pub(super) errors: u64,
    pub(super) bytes_from_cache: u64,
    pub(super) bytes_from_origin: u64,
}

impl Summary {
    /// Reads a summary file.
    ///
    /// # Errors
    /// If it is not JSON or lacks a field.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let summary: Value = serde_json::from_str(text).context("the summary is not JSON")?;
        let field = |name: &str| {
            summary.get(name).and_then(Value::as_u64).with_context(|| format!("the summary lacks {name}"))
        };
        Ok(Self {
            connections_redirected: field("connections_redirected")?,
            requests: field("requests")?,
            hits: field("hits")?,
            misses: field("misses")?,
            revalidated: field("revalidated")?,
            stale: field("stale")?,
            collapsed: field("collapsed")?,
            uncacheable: field("uncacheable")?,
            errors: field("errors")?,
            bytes_from_cache: field("bytes_from_cache")?,
            bytes_from_origin: field("bytes_from_origin")?,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections redirected, {} requests = {} hits + {} misses + {} others, {} errors; {} bytes from the cache, {} from the origin",
            self.connections_redirected,
            self.requests,
            self.hits,
            self.misses,
            self.revalidated + self.stale + self.collapsed + self.uncacheable,
            self.errors,
            self.bytes_from_cache,
            self.bytes_from_origin,
        )
    }
}

/// Compares the three; returns the number of hits.
///
/// # Errors
/// The first disagreement, as a sentence.
pub(super) fn check(exchanges: &[Exchange], origin_requests: u64, summary: &Summary) -> Result<u64> {
    for (index, exchange) in exchanges.iter().enumerate() {
        let Exchange { client, target, status, cache_status, .. } = exchange;
        ensure!(exchange.identical, "{client} got other bytes for {target} than the origin sends");
        ensure!(*status == 200, "{client} got status {status} for {target}");
        let first = exchanges.iter().position(|other| other.client == *client) == Some(index);
        let expected = if first { AnsweredBy::Origin } else { AnsweredBy::Cache };
        if exchange.answered_by() != expected {
            let which = if first { "first" } else { "second" };
            bail!(
                "{client}'s {which} request should be answered by the {expected}, but Cache-Status is {cache_status:?}"
            );
        }
    }
    let count = |who| exchanges.iter().filter(|exchange| exchange.answered_by() == who).count() as u64;
    let (hits, forwarded, all) =
        (count(AnsweredBy::Cache), count(AnsweredBy::Origin), exchanges.len() as u64);
    let Summary { requests, revalidated, stale, collapsed, misses, uncacheable, errors, .. } = *summary;

    ensure!(
        origin_requests == forwarded,
        "{forwarded} answers came from the origin, which counted {origin_requests} requests"
    );
    ensure!(requests == all, "the clients sent {all} requests, the summary says {requests}");
    ensure!(summary.hits == hits, "the clients saw {hits} hits, the summary says {}", summary.hits);
    let to_origin = misses + revalidated + uncacheable;
    ensure!(
        to_origin == origin_requests,
        "the summary has {to_origin} requests for the origin, which counted {origin_requests}"
    );
    let sum = summary.hits + stale + collapsed + to_origin + errors;
    ensure!(sum == requests, "the summary's kinds add up to {sum}, not to its {requests} requests");
    ensure!(errors == 0, "the summary has {errors} errors");
    ensure!(summary.connections_redirected > 0, "no connection was redirected");
    Ok(hits)
}

#[cfg(test)]
mod tests {
    use super::{super::inside::tests::exchange, *};

    const MISS: &str = "sidestep; fwd=uri-miss; stored";
    const HIT: &str = "sidestep; hit; ttl=60";

    fn agreed() -> Summary {
        Summary { connections_redirected: 2, requests: 2, hits: 1, misses: 1, ..Summary::default() }
    }

    #[test]
    fn three_accounts_that_agree_pass() {
        let exchanges = [exchange("curl", MISS), exchange("curl", HIT)];
        assert_eq!(check(&exchanges, 1, &agreed()).unwrap(), 1);
    }

    #[test]
    fn each_disagreement_is_named() {
        let good = [exchange("curl", MISS), exchange("curl", HIT)];
        let wrong = |exchanges: &[Exchange], origin, summary: Summary| {
            check(exchanges, origin, &summary).unwrap_err().to_string()
        };
        assert!(wrong(&good, 2, agreed()).contains("which counted 2"));
        assert!(wrong(&good, 1, Summary { hits: 0, ..agreed() }).contains("the summary says 0"));
        assert!(wrong(&good, 1, Summary { misses: 0, errors: 1, ..agreed() }).contains("for the origin"));
        assert!(wrong(&good, 1, Summary { stale: 1, ..agreed() }).contains("add up to 3"));
        assert!(wrong(&[exchange("curl", MISS), exchange("curl", MISS)], 2, agreed()).contains("second"));
        assert!(wrong(&[exchange("curl", HIT)], 1, agreed()).contains("first"));
        let other = Exchange { identical: false, ..exchange("curl", MISS) };
        assert!(wrong(&[other], 1, agreed()).contains("other bytes"));
    }

    #[test]
    fn a_summary_without_a_field_is_refused() {
        assert!(Summary::parse("{\"requests\": 1}").unwrap_err().to_string().contains("lacks"));
    }
}
