//! Whether a response may be stored (RFC 9111 §3) and what is kept of it.
//!
//! Its content is left to `store`, its look-up to `decide`.

use std::time::Duration;

use super::{
    Eligibility, Now, Part, Profile, Reason, RequestView, ResponseView, Rules, Stored,
    control::Control,
    eligible,
    entity_tag::{entity_tag, is_weak},
    freshness::{self, DateValue},
    groups::groups,
    kept::kept,
    no_vary_search::Search,
    range, status,
    vary::Selection,
};
use crate::http1::Fields;

/// Judges a complete exchange and computes what is to be kept (RFC 9111 §3, §3.5, §4.2.1–§4.2.3).
///
/// The request is the one that was forwarded, as the client sent it. Where the result has a `part`, the content must
/// have exactly its bytes.
pub fn store(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    rules: &Rules,
    requested_at: Now,
    received_at: Now,
) -> Result<Stored, Reason> {
    if !stores(request.method) {
        return Err(Reason::Method);
    }
    // RFC 9111 §5.2.1.5, and: what may not be looked up has no business in the store.
    if let Eligibility::Bypass(reason) = eligible(request, rules) {
        return Err(reason);
    }
    let arrival = Arrival::of(request, response.fields, rules, requested_at, received_at);
    let part = arrival.part(response)?;
    complete(request, response, part, rules)?;
    let stored = arrival.judge(response.status, part, response.fields, Purpose::New)?;
    Ok(if response.fields.contains("transfer-encoding") && response.delimited_by_close {
        coded(stored, request, response)
    } else {
        stored
    })
}

/// What is kept of a response whose transfer coding stays: without it the content would be another.
fn coded(stored: Stored, request: &RequestView<'_>, response: &ResponseView<'_>) -> Stored {
    let codings = response.fields.values("transfer-encoding").map(|value| (&b"Transfer-Encoding"[..], value));
    let fields = Fields::from_pairs(stored.fields.iter().chain(codings));
    // RFC 9110 §10.1.4: TE says which codings the client takes.
    let selection = stored.selection.and(Selection::by("te", request.fields));
    Stored { fields, selection, is_coded: true, ..stored }
}

/// Whether responses to this method are stored (RFC 9110 §9.2.3, RFC 10008 §2.7).
pub fn stores(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"QUERY")
}

/// What an arriving response is judged for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be stored: it must be of use there.
    New,
    /// To update what is stored.
    Update,
}

/// A response that arrives: who asked for it, when, and how old it is.
pub(super) struct Arrival<'a> {
    pub(super) request: &'a RequestView<'a>,
    pub(super) rules: &'a Rules,
    pub(super) date: DateValue,
    pub(super) age: Duration,
    pub(super) received_at: Now,
}

impl<'a> Arrival<'a> {
    /// Reads Date and Age off the fields as they arrived (§4.2.3).
    pub(super) fn of(
        request: &'a RequestView<'a>,
        fields: &Fields,
        rules: &'a Rules,
        requested_at: Now,
        received_at: Now,
    ) -> Self {
        let date = DateValue::of(fields, received_at);
        let age = freshness::corrected_initial_age(fields, date, requested_at, received_at);
        Self { request, rules, date, age, received_at }
    }

    /// Judges a stored response to be: of the fields that arrived, or of those that they updated.
    pub(super) fn judge(
        &self,
        status: u16,
        part: Option<Part>,
        fields: &Fields,
        purpose: Purpose,
    ) -> Result<Stored, Reason> {
        let control = Control::of(fields, self.rules, self.date, self.received_at);
        self.permitted(status, fields, &control)?;
        let selection = Selection::of(fields, self.request.fields, self.rules.profile)?;
        let groups = groups(fields).ok_or(Reason::Groups)?;
        let last_modified = freshness::last_modified(fields, self.received_at.wall);
        let guess = || self.guess(status, &control, last_modified);
        let negative = || self.negative(status).filter(|_| !control.has_lifetime);
        let lifetime = control.explicit.or_else(negative).or_else(guess);
        if purpose == Purpose::New {
            let has_validator = last_modified.is_some() || entity_tag(fields).is_some();
            self.useful(status, &control, lifetime, has_validator)?;
        }
        Ok(Stored {
            status,
            fields: kept(fields, self.date.earliest, part.is_some()),
            selection,
            lifetime: lifetime.unwrap_or_default(),
            is_heuristic: control.explicit.is_none() && lifetime.is_some(),
            corrected_initial_age: self.age,
            received: self.received_at.boot,
            date: self.date.earliest,
            last_modified,
            shared_with_authorization: control.shares,
            shared_with_cookies: control.is_for_everybody,
            must_revalidate: control.must_revalidate,
            no_cache: control.no_cache,
            immutable: control.immutable,
            stale_while_revalidate: control.stale_while_revalidate,
            stale_if_error: control.stale_if_error,
            search: self.search(fields).map(Box::new),
            groups: groups.into_iter().map(String::into_boxed_str).collect(),
            part,
            is_coded: false,
            refused: None,
        })
    }

    /// Which other targets it answers; with QUERY none, since the key tells more than the target.
    fn search(&self, fields: &Fields) -> Option<Search> {
        let is_query = self.request.method == b"QUERY";
        if is_query { None } else { Search::of(fields, self.request.target) }
    }

    /// The lifetime that policy gives to errors that say nothing about freshness.
    fn negative(&self, status: u16) -> Option<Duration> {
        negative(self.rules, status)
    }

    /// The heuristic lifetime (§4.2.2), where it may be used: never in `safe`.
    fn guess(&self, status: u16, control: &Control, last_modified: Option<i64>) -> Option<Duration> {
        let is_allowed = self.rules.profile == Profile::Rfc9111
            && (status::is_heuristically_cacheable(status) || control.public);
        is_allowed.then(|| freshness::heuristic(last_modified, self.date)).flatten()
    }

    /// What the response's directives and the request's credentials allow a shared cache.
    fn permitted(&self, status: u16, fields: &Fields, control: &Control) -> Result<(), Reason> {
        let safe = self.rules.profile == Profile::Safe;
        // §5.2.2.3: who understands the status ignores no-store beside must-understand; not doing so is always allowed.
        let must_understand = control.must_understand && !safe;
        if control.no_store && !(must_understand && status::is_understood(status)) {
            return Err(Reason::ResponseNoStore);
        }
        // §3
        if control.must_understand && !status::is_understood(status) {
            return Err(Reason::Status);
        }
        if control.private {
            return Err(Reason::Private);
        }
        if control.malformed {
            return Err(Reason::Malformed);
        }
        // §3.5
        if is_authorized(self.request) && !control.shares {
            return Err(Reason::Authorization);
        }
        // §7.3 leaves it to the origin server; safe wants to see that it thought of it.
        if safe && has_set_cookie(fields) && !control.is_for_everybody {
            return Err(Reason::SetCookie);
        }
        // Applications answer by cookie and forget Vary; behind a gateway that would be one user's page for another.
        if safe && self.request.fields.contains("cookie") && !control.is_for_everybody {
            return Err(Reason::Cookie);
        }
        Ok(())
    }

    /// Whether it could ever be used: fresh now, or later by validation (§3, last condition; §4.3).
    fn useful(
        &self,
        status: u16,
        control: &Control,
        lifetime: Option<Duration>,
        has_validator: bool,
    ) -> Result<(), Reason> {
        let Some(lifetime) = lifetime else {
            // §3: neither explicit freshness, nor public, nor a status that is cacheable without. In safe a response
            // that says nothing at all about caching is left alone: its validator may be one for several users.
            let is_allowed = if self.rules.profile == Profile::Safe {
                control.is_explicit
            } else {
                control.public || status::is_heuristically_cacheable(status)
            };
            return if is_allowed && has_validator { Ok(()) } else { Err(Reason::NoFreshness) };
        };
        match has_validator {
            true => Ok(()),
            false if control.no_cache => Err(Reason::ResponseNoCache),
            false if lifetime <= self.age => Err(Reason::Expired),
            false => Ok(()),
        }
    }

    /// The part that a 206 is (§3.3): of known complete length and with a strong validator, so that it can be told
    /// what it is a part of (§3.4). With other status codes Content-Range has no meaning (RFC 9110 §14.4).
    fn part(&self, response: &ResponseView<'_>) -> Result<Option<Part>, Reason> {
        let mut lines = response.fields.values("content-range");
        let (line, other) = (lines.next(), lines.next());
        let is_for_range = self.request.fields.contains("range");
        if response.status != 206 {
            // Whoever asked for a range and gets this may mean a part all the same.
            return if is_for_range && line.is_some() { Err(Reason::Partial) } else { Ok(None) };
        }
        let range = line.filter(|_| other.is_none()).and_then(range::content_range).ok_or(Reason::Partial)?;
        let complete = range.complete.ok_or(Reason::Partial)?;
        if !is_for_range || !self.has_strong_validator(response.fields) {
            return Err(Reason::Partial);
        }
        let part = Part { first: range.span.first, last: range.span.last, complete };
        let mut lengths = response.fields.values("content-length").map(length);
        if lengths.any(|bytes| bytes != Some(part.span().bytes())) {
            return Err(Reason::Partial);
        }
        Ok(Some(part))
    }

    /// RFC 9110 §8.8.1, §8.8.2.2
    fn has_strong_validator(&self, fields: &Fields) -> bool {
        let modified = freshness::last_modified(fields, self.received_at.wall);
        match entity_tag(fields) {
            Some(tag) => !is_weak(tag),
            None => modified.is_some_and(|modified| freshness::is_strong(modified, self.date.earliest)),
        }
    }
}

/// Whether the response is one whose status and framing allow storing (RFC 9111 §3, §3.3).
fn complete(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    part: Option<Part>,
    rules: &Rules,
) -> Result<(), Reason> {
    if part.is_none() && !status::is_storable(response.status) {
        return Err(Reason::Status);
    }
    if part.is_some() && response.fields.contains("transfer-encoding") && response.delimited_by_close {
        return Err(Reason::Partial);
    }
    // An error may be about the range, which is no part of the key.
    if part.is_none() && response.status != 200 && request.fields.contains("range") {
        return Err(Reason::Status);
    }
    if response.delimited_by_close && rules.profile == Profile::Safe {
        return Err(Reason::DelimitedByClose);
    }
    let is_too_large = |value: &[u8]| length(value).is_some_and(|bytes| bytes > rules.object_bytes_max);
    if response.fields.values("content-length").any(is_too_large) {
        return Err(Reason::TooLarge);
    }
    Ok(())
}

pub(super) fn negative(rules: &Rules, status: u16) -> Option<Duration> {
    let is_error = (400..600).contains(&status);
    rules.negative.iter().find(|(of, _)| is_error && *of == status).map(|(_, lifetime)| *lifetime)
}

/// Whether the request was authorized, by the origin server's means or a proxy's (RFC 9110 §11).
pub(super) fn is_authorized(request: &RequestView<'_>) -> bool {
    request.fields.contains("authorization") || request.fields.contains("proxy-authorization")
}

fn has_set_cookie(fields: &Fields) -> bool {
    fields.contains("set-cookie") || fields.contains("set-cookie2")
}

pub(super) fn length(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok())
}

#[cfg(test)]
mod tests;
