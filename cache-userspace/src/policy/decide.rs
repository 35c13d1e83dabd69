//! Whether a stored response answers a request (RFC 9111 §4), and the RFC 9211 word if none does.
//!
//! Which responses are stored under the request's key, and alive, is left to `store`; what may be given when the
//! origin server fails to `stale`.

use std::{cmp::Reverse, time::Duration};

use super::{
    Now, Profile, RequestView, Rules, Stored,
    cache_control::{CacheControl, Delta},
    control::is_pragma_no_cache,
    range::{self, Plan},
};

/// A stored response among which one is selected.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What is kept of it besides its content.
    pub stored: &'a Stored,
    /// Bytes of its content.
    pub content_bytes: u64,
}

/// What is to be done with a request that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The variant at `index` of those given answers it.
    Reuse {
        /// Position in the iterator of variants.
        index: usize,
        /// The response's current age (§4.2.3), to be sent in whole seconds as Age.
        age: Duration,
        /// Whether it is stale, within stale-while-revalidate (RFC 5861 §3): it is to be validated besides.
        revalidate: bool,
    },
    /// The variant at `index` of those given must be validated first (§4.3), or replaced where it has no validator.
    Validate {
        /// Position in the iterator of variants.
        index: usize,
        /// Why: [`Miss::Stale`] or [`Miss::Request`].
        miss: Miss,
    },
    /// It is forwarded.
    Forward(Miss),
    /// It is answered 504: the client wants no forwarding (§5.2.1.7).
    Unsatisfiable,
}

/// Why a request that was looked up is forwarded: the `fwd` words of RFC 9211 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nothing is stored for the target.
    Uri,
    /// Nothing of what is stored was selected by such request fields.
    Vary,
    /// The selected response is not fresh.
    Stale,
    /// The selected response is fresh, but the request does not accept it.
    Request,
    /// Only a part is stored, and not the one that the request asks for.
    Partial,
    /// What is stored would answer, but the origin has to say first that this client may have it (MESH.md S3).
    Lease,
}

impl Miss {
    /// Every one of them.
    pub const ALL: &[Self] = &[Self::Uri, Self::Vary, Self::Stale, Self::Request, Self::Partial, Self::Lease];

    /// The word of RFC 9211 §2.2.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri-miss",
            Self::Vary => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Partial => "partial",
            Self::Lease => "miss",
        }
    }

    /// What that word leaves out (RFC 9211 §2.8).
    pub fn detail(self) -> Option<&'static str> {
        (self == Self::Lease).then_some("lease")
    }
}

/// Selects among the variants stored under the request's key and judges the selected one (RFC 9111 §4).
///
/// `index` counts `variants` as given. What is reused holds the ranges that the request asks for. Allocates nothing
/// for a request without Range that is answered.
pub fn decide<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = Candidate<'a>>,
    rules: &Rules,
    now: Now,
) -> Decision {
    let directives = CacheControl::of(request.fields);
    match judge(request, &directives, variants, rules, now) {
        reuse @ Decision::Reuse { .. } => reuse,
        _ if directives.only_if_cached && !directives.malformed => Decision::Unsatisfiable,
        decision => decision,
    }
}

/// The same where nothing that is stored may be given unasked: it is validated first, for this reason.
///
/// §5.2.1.7: a client that wants no forwarding is answered 504.
pub fn asked_first(decision: Decision, request: &RequestView<'_>, miss: Miss) -> Decision {
    let Decision::Reuse { index, .. } = decision else { return decision };
    match CacheControl::of(request.fields).only_if_cached {
        true => Decision::Unsatisfiable,
        false => Decision::Validate { index, miss },
    }
}

fn judge<'a>(
    request: &RequestView<'_>,
    directives: &CacheControl,
    variants: impl Iterator<Item = Candidate<'a>>,
    rules: &Rules,
    now: Now,
) -> Decision {
    let (index, candidate) = match select(request, variants) {
        Ok(selected) => selected,
        Err(miss) => return Decision::Forward(miss),
    };
    let stored = candidate.stored;
    // §4: only the methods that a stored response under their key answers.
    let is_answerable = matches!(request.method, b"GET" | b"HEAD" | b"QUERY")
        && !directives.malformed
        && is_for(request, stored, rules)
        && holds(request, candidate);
    if !is_answerable {
        return Decision::Forward(Miss::Request);
    }
    let (age, fresh_for) = (stored.age(now), stored.fresh_for(rules, now));
    let accepted = accepts(request, directives, age, fresh_for);
    // §4.2: fresh while the lifetime exceeds the age. max-stale (§5.2.1.2) is never obeyed: it would revive what a
    // shared cache must not serve.
    let is_fresh = !fresh_for.is_zero();
    if accepted && (is_fresh || stored.may_be_revalidated_behind(rules, now)) {
        return Decision::Reuse { index, age, revalidate: !is_fresh };
    }
    // `immutable` (RFC 8246 §2) changes nothing here: a request that wants a validation is the signal from the client
    // at which a proxy validates all the same.
    let miss = if is_fresh { Miss::Request } else { Miss::Stale };
    Decision::Validate { index, miss }
}

/// The newest by Date of the matching variants, the last received of equally new ones (§4, §4.1, No-Vary-Search).
fn select<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = Candidate<'a>>,
) -> Result<(usize, Candidate<'a>), Miss> {
    let mut miss = Miss::Uri;
    let mut could_answer = |candidate: &Candidate<'_>| {
        if candidate.stored.refused.is_some() || !candidate.stored.is_of(request.target) {
            return false;
        }
        let is_match = candidate.stored.selection.matches(request.fields);
        // §3.3: a part only answers a request for what it holds.
        let is_whole = candidate.stored.part.is_none();
        miss = match miss {
            _ if is_match => Miss::Partial,
            Miss::Uri => Miss::Vary,
            miss => miss,
        };
        is_match && (is_whole || holds(request, *candidate))
    };
    let selected = variants
        .enumerate()
        .filter(|(_, candidate)| could_answer(candidate))
        .min_by_key(|(_, candidate)| Reverse((candidate.stored.date, candidate.stored.received)));
    selected.ok_or(miss)
}

/// Whether the content of the candidate is enough for the ranges that the request asks for, if any (§3.3).
fn holds(request: &RequestView<'_>, candidate: Candidate<'_>) -> bool {
    let Candidate { stored, content_bytes } = candidate;
    if stored.is_coded {
        return request.method == b"GET" && !request.fields.contains("range");
    }
    // RFC 9110 §14.2: a range is a part of what would have been 200.
    if stored.part.is_none() && (stored.status != 200 || !request.fields.contains("range")) {
        return true;
    }
    let part = stored.part.map(|part| part.span());
    let complete = stored.complete_bytes(content_bytes);
    range::plan(request.fields, request.method, &stored.validators(), complete, part) != Plan::Forward
}

/// Whether a response may be given to somebody who authorizes himself or sends cookies.
///
/// §3.5 speaks of answers to authorized requests; `safe` also wants permission to give one that was not.
pub(super) fn is_for(request: &RequestView<'_>, stored: &Stored, rules: &Rules) -> bool {
    rules.profile != Profile::Safe
        || ((stored.shared_with_authorization || !request.fields.contains("authorization"))
            && (stored.shared_with_cookies || !request.fields.contains("cookie")))
}

/// Whether the request's directives accept a response of this age without validation (§5.2.1, §5.4).
pub(super) fn accepts(
    request: &RequestView<'_>,
    directives: &CacheControl,
    age: Duration,
    fresh_for: Duration,
) -> bool {
    // §5.2.1.4, and §5.4 for those who know no Cache-Control.
    if directives.no_cache
        || directives.malformed
        || (!request.fields.contains("cache-control") && is_pragma_no_cache(request.fields))
    {
        return false;
    }
    // §5.2.1.1
    let young = match directives.max_age {
        Delta::Absent => true,
        Delta::Seconds(seconds) => age <= Duration::from_secs(u64::from(seconds)),
        Delta::Invalid => false,
    };
    // §5.2.1.3
    let lasting = match directives.min_fresh {
        Delta::Absent => true,
        Delta::Seconds(seconds) => fresh_for >= Duration::from_secs(u64::from(seconds)),
        Delta::Invalid => false,
    };
    young && lasting
}

#[cfg(test)]
mod tests;
