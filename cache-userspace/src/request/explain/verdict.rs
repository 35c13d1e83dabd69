//! What would become of a request, in words; the decision itself is `policy`'s.

use std::collections::BTreeSet;

use super::{is_secret, seconds, shown, ttl};
use crate::admin::explain::{Outcome, Verdict};
use crate::http1::Fields;
use crate::policy::{
    self, Candidate, Cause, Decision, Miss, Now, Profile, Reason, RequestView, Rules, StaleVerdict, Stored,
};

/// What becomes of a request whose connection does not come here, and why.
pub(super) fn direct(why: &str) -> Verdict {
    let words = format!("It would not come here. {why}");
    Verdict { outcome: Outcome::Direct, cache_status: String::new(), variant: None, words }
}

/// What becomes of a request that is not looked up.
pub(super) fn bypassed(reason: Reason) -> Verdict {
    let (fwd, word) = (reason.fwd(), reason.as_str());
    // One word is enough where both would be the same.
    let detail = if fwd == word { String::new() } else { format!("; detail={word}") };
    Verdict {
        outcome: Outcome::Bypass,
        cache_status: format!("fwd={fwd}{detail}"),
        variant: None,
        words: match reason {
            Reason::Off => reason.in_words().to_owned(),
            _ => format!("It would be forwarded without a look-up. {}", reason.in_words()),
        },
    }
}

/// What an answer needs to be stored.
pub(super) fn needs(rules: &Rules) -> &'static str {
    match rules.profile {
        Profile::Safe => {
            "To be stored, an answer must say how long it is fresh (s-maxage, max-age or Expires), or be explicitly \
             reusable (no-cache, must-revalidate or public) with an ETag or Last-Modified; it must not say no-store or \
             private; and where cookies are sent or set, it must say public or s-maxage."
        }
        Profile::Rfc9111 => {
            "To be stored, an answer must say how long it is fresh (s-maxage, max-age or Expires), or have an ETag or \
             Last-Modified with a status that is cacheable by itself or with public; it must not say no-store or \
             private (RFC 9111 §3)."
        }
    }
}

/// What becomes of a request that is looked up; `number` tells which of those that are listed the one at an index of
/// `alive` is.
pub(super) fn judged(
    request: &RequestView<'_>,
    alive: &[Candidate<'_>],
    rules: &Rules,
    now: Now,
    number: impl Fn(usize) -> Option<usize>,
) -> Verdict {
    let decision = policy::decide(request, alive.iter().copied(), rules, now);
    let at = |index: usize| alive.get(index).map(|candidate| candidate.stored);
    match decision {
        Decision::Reuse { index, revalidate, .. } => {
            let words = at(index).map(|stored| reused(request, stored, rules, now, revalidate));
            let ttl = at(index).map_or(0, |stored| ttl(stored, now));
            let (outcome, cache_status) = if revalidate {
                (Outcome::StaleWhileRevalidate, format!("hit; ttl={ttl}; detail=stale-while-revalidate"))
            } else {
                (Outcome::Hit, "hit".to_owned())
            };
            Verdict { outcome, cache_status, variant: number(index), words: words.unwrap_or_default() }
        }
        Decision::Validate { index, miss } => {
            let variants = alive.iter().map(|candidate| candidate.stored);
            let can_ask = policy::validation_fields(request, variants, index).is_some();
            let words = at(index).map(|stored| validated(request, stored, rules, now, miss, can_ask));
            Verdict {
                outcome: if can_ask { Outcome::Validate } else { Outcome::Forward },
                cache_status: format!("fwd={}", miss.as_str()),
                variant: number(index),
                words: words.unwrap_or_default(),
            }
        }
        Decision::Forward(miss) => Verdict {
            outcome: Outcome::Forward,
            cache_status: format!("fwd={}", miss.as_str()),
            variant: None,
            words: format!("It would be forwarded: {}.", forwarded(request, alive, rules, miss)),
        },
        Decision::Unsatisfiable => Verdict {
            outcome: Outcome::GatewayTimeout,
            cache_status: "detail=only-if-cached".to_owned(),
            variant: None,
            words:
                "It would be answered 504: it says only-if-cached, and nothing that is stored may answer it \
                    (RFC 9111 §5.2.1.7)."
                    .to_owned(),
        },
    }
}

fn reused(request: &RequestView<'_>, stored: &Stored, rules: &Rules, now: Now, revalidate: bool) -> String {
    let mut words = if revalidate {
        format!(
            "It would be answered from the store at once, and the origin asked besides: {}, within \
             stale-while-revalidate (RFC 5861 §3).",
            stale_since(stored, now)
        )
    } else {
        let left = stored.fresh_for(rules, now);
        format!("It would be answered from the store: fresh for another {}.", seconds(left))
    };
    if policy::is_not_modified(request, stored, now.wall) {
        words.push_str(" With 304: the client has it already (RFC 9111 §4.3.2).");
    }
    words
}

fn validated(
    request: &RequestView<'_>,
    stored: &Stored,
    rules: &Rules,
    now: Now,
    miss: Miss,
    can_ask: bool,
) -> String {
    let because = if miss == Miss::Request {
        let left = seconds(stored.fresh_for(rules, now));
        let wishes: Vec<String> = ["cache-control", "pragma"]
            .into_iter()
            .flat_map(|name| {
                request.fields.values(name).map(move |value| format!("{name}: {}", shown(value)))
            })
            .collect();
        format!("what is stored is fresh for another {left}, but the request says {}", wishes.join(", "))
    } else if stored.no_cache {
        "what is stored must be validated before each use, by no-cache (RFC 9111 §5.2.2.4)".to_owned()
    } else if stored.age(now) >= stored.lifetime {
        stale_since(stored, now)
    } else {
        let most = seconds(rules.resident_max);
        format!("what is stored is here for {most}, longer than which nothing is used unasked")
    };
    let what = if can_ask { "validated with the origin" } else { "forwarded, without a validator to send" };
    let failing = match policy::stale(request, stored, rules, now, Cause::Disconnected) {
        StaleVerdict::Reuse { .. } => "it is given all the same",
        StaleVerdict::GatewayTimeout => "the client gets 504 (RFC 9111 §5.2.2.2)",
        StaleVerdict::Pass => "the client sees what it would have seen without a cache",
    };
    format!("It would be {what}: {because}. If the origin cannot be reached, {failing}.")
}

fn stale_since(stored: &Stored, now: Now) -> String {
    let since = stored.age(now).saturating_sub(stored.lifetime);
    format!("what is stored became stale {} s ago", since.as_secs())
}

fn forwarded(request: &RequestView<'_>, alive: &[Candidate<'_>], rules: &Rules, miss: Miss) -> String {
    let has_credentials = request.fields.contains("authorization") || request.fields.contains("cookie");
    match miss {
        Miss::Uri => "nothing is stored under this key".to_owned(),
        Miss::Lease => "the mesh must first let a request of this pod through".to_owned(),
        Miss::Vary => format!("no stored variant was selected by {}", selecting(request, alive)),
        Miss::Partial => "only a part is stored, and not the one that the request asks for".to_owned(),
        Miss::Stale => "what is stored is stale".to_owned(),
        Miss::Request if has_credentials && rules.profile == Profile::Safe => {
            "what is stored does not say that it is for requests with credentials (public, s-maxage; for \
             Authorization also must-revalidate)"
                .to_owned()
        }
        Miss::Request if request.fields.contains("range") => {
            "what is stored cannot answer this Range (RFC 9110 §14)".to_owned()
        }
        Miss::Request => "its Cache-Control cannot be read with certainty".to_owned(),
    }
}

/// The request's values of the fields by which the stored variants differ from it.
fn selecting(request: &RequestView<'_>, alive: &[Candidate<'_>]) -> String {
    let nominated = alive.iter().flat_map(|candidate| candidate.stored.selection.nominated());
    let differing = nominated.filter(|(name, value)| joined(request.fields, name).as_deref() != *value);
    let names: BTreeSet<&str> = differing.map(|(name, _)| name).collect();
    let words = names.into_iter().map(|name| match joined(request.fields, name) {
        None => format!("the absence of {name}"),
        Some(_) if is_secret(name) => format!("this {name}"),
        Some(value) => format!("{name}: {}", shown(&value)),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn joined(fields: &Fields, name: &str) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = fields.values(name).collect();
    (!lines.is_empty()).then(|| lines.join(b", ".as_slice()))
}
