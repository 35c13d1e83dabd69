//! Whether a stored response answers a request (RFC 9111 §4), and the RFC 9211 word if none does.
//!
//! Which responses are stored under the request's key, and alive, is left to `store`.

use std::{cmp::Reverse, time::Duration};

use super::{
    Now, Profile, RequestView, Rules,
    cache_control::{CacheControl, Delta},
    storing::{Stored, is_pragma_no_cache},
};

/// What is to be done with a request that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The variant at `index` of those given answers it.
    Reuse {
        /// Position in the iterator of variants.
        index: usize,
        /// The response's current age (§4.2.3), to be sent in whole seconds as Age.
        age: Duration,
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
}

impl Miss {
    /// The word of RFC 9211 §2.2.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri-miss",
            Self::Vary => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

/// Selects among the variants stored under the request's key and judges the selected one (RFC 9111 §4).
///
/// `index` of [`Decision::Reuse`] counts `variants` as given. Allocates nothing.
pub fn decide<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = &'a Stored>,
    rules: &Rules,
    now: Now,
) -> Decision {
    let directives = CacheControl::of(request.fields);
    match reusable(request, &directives, variants, rules, now) {
        Ok((index, age)) => Decision::Reuse { index, age },
        Err(_) if directives.only_if_cached && !directives.malformed => Decision::Unsatisfiable,
        Err(miss) => Decision::Forward(miss),
    }
}

fn reusable<'a>(
    request: &RequestView<'_>,
    directives: &CacheControl,
    variants: impl Iterator<Item = &'a Stored>,
    rules: &Rules,
    now: Now,
) -> Result<(usize, Duration), Miss> {
    let (index, stored) = select(request, variants)?;
    let fresh_for = stored.fresh_for(rules, now);
    // §4.2: fresh while the lifetime exceeds the age. max-stale (§5.2.1.2) is never obeyed: it would revive what a
    // shared cache must not serve.
    if fresh_for.is_zero() {
        return Err(Miss::Stale);
    }
    let age = stored.age(now);
    if accepts(request, directives, stored, age, fresh_for, rules) {
        Ok((index, age))
    } else {
        Err(Miss::Request)
    }
}

/// The newest by Date of the matching variants, the last received of equally new ones (§4, §4.1).
fn select<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = &'a Stored>,
) -> Result<(usize, &'a Stored), Miss> {
    let mut variants = variants.enumerate().peekable();
    if variants.peek().is_none() {
        return Err(Miss::Uri);
    }
    variants
        .filter(|(_, stored)| stored.selection.matches(request.fields))
        .min_by_key(|(_, stored)| Reverse((stored.date, stored.received)))
        .ok_or(Miss::Vary)
}

fn accepts(
    request: &RequestView<'_>,
    directives: &CacheControl,
    stored: &Stored,
    age: Duration,
    fresh_for: Duration,
    rules: &Rules,
) -> bool {
    // §4: only the methods that a stored GET answers.
    if !matches!(request.method, b"GET" | b"HEAD") || directives.malformed {
        return false;
    }
    // §5.2.1.4, and §5.4 for those who know no Cache-Control.
    if directives.no_cache
        || (!request.fields.contains("cache-control") && is_pragma_no_cache(request.fields))
    {
        return false;
    }
    // §3.5 speaks of answers to authorized requests; safe also wants permission to give one that was not.
    if rules.profile == Profile::Safe
        && request.fields.contains("authorization")
        && !stored.shared_with_authorization
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
