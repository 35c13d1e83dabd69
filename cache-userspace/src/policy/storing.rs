//! Whether a response may be stored (RFC 9111 §3) and what is kept of it.
//!
//! Its content is left to `store`, its look-up to `decide`.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Eligibility, Now, Profile, Reason, RequestView, ResponseView, Rules, cache_control::CacheControl, date,
    eligible, freshness, freshness::DateValue, vary::Selection,
};
use crate::http1::Fields;

/// What is kept of a response besides its content.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The status code.
    pub status: u16,
    /// The end-to-end fields as they are to be sent again, in their order and spelling: without hop-by-hop fields,
    /// what Connection nominated, the proxy fields (§3.1) and Age, which each reuse writes anew (§5.1); with a Date
    /// where the origin server sent none (RFC 9110 §6.6.1).
    pub fields: Fields,
    /// The request fields that selected it (§4.1).
    pub selection: Selection,
    /// The freshness lifetime (§4.2.1).
    pub lifetime: Duration,
    /// The age it had when it arrived (§4.2.3).
    pub corrected_initial_age: Duration,
    /// When it arrived, on CLOCK_BOOTTIME.
    pub received: Duration,
    /// When it was made: Date in unix seconds, else the moment of reception.
    pub date: i64,
    /// Whether it says that it may answer requests with Authorization (§3.5).
    pub shared_with_authorization: bool,
}

impl Stored {
    /// The current age (§4.2.3); resident time is counted on CLOCK_BOOTTIME.
    pub fn age(&self, now: Now) -> Duration {
        self.corrected_initial_age.saturating_add(self.resident(now))
    }

    /// How much longer it may be reused: zero as soon as its age reaches its lifetime (§4.2) or it has been here for
    /// [`Rules::resident_max`].
    pub fn fresh_for(&self, rules: &Rules, now: Now) -> Duration {
        let fresh = self.lifetime.saturating_sub(self.age(now));
        fresh.min(rules.resident_max.saturating_sub(self.resident(now)))
    }

    /// Bytes that it occupies on the heap, rounded up.
    pub fn heap_bytes(&self) -> u64 {
        // A line's offsets take 16 bytes and the vector that holds them may have grown to twice its length.
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        fields as u64 + self.selection.heap_bytes()
    }

    fn resident(&self, now: Now) -> Duration {
        now.boot.saturating_sub(self.received)
    }
}

/// Judges a complete exchange and computes what is to be kept (RFC 9111 §3, §3.5, §4.2.1–§4.2.3).
///
/// The request is the one that was forwarded, as the client sent it.
pub fn store(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    rules: &Rules,
    requested_at: Now,
    received_at: Now,
) -> Result<Stored, Reason> {
    if request.method != b"GET" {
        return Err(Reason::Method);
    }
    // RFC 9111 §5.2.1.5, and: what may not be looked up has no business in the store.
    if let Eligibility::Bypass(reason) = eligible(request, rules) {
        return Err(reason);
    }
    complete(response, rules)?;
    let fields = response.fields;
    let directives = CacheControl::of(fields);
    permitted(request, fields, &directives, rules.profile)?;
    let selection = Selection::of(fields, request.fields, rules.profile)?;
    let date = DateValue::of(fields, received_at);
    let lifetime = freshness::lifetime(&directives, fields, date, received_at)?;
    let corrected_initial_age = freshness::corrected_initial_age(fields, date, requested_at, received_at);
    if lifetime <= corrected_initial_age {
        return Err(Reason::Expired);
    }
    Ok(Stored {
        status: response.status,
        fields: kept(fields, date.earliest),
        selection,
        lifetime,
        corrected_initial_age,
        received: received_at.boot,
        date: date.earliest,
        shared_with_authorization: shares(&directives),
    })
}

/// Whether the response is a whole representation whose status is understood (RFC 9111 §3, §3.3).
fn complete(response: &ResponseView<'_>, rules: &Rules) -> Result<(), Reason> {
    if response.status == 206 || response.fields.contains("content-range") {
        return Err(Reason::Partial);
    }
    if !matches!(response.status, 200 | 203 | 204 | 300 | 301 | 302 | 307 | 308 | 404 | 405 | 410 | 414 | 501)
    {
        return Err(Reason::Status);
    }
    if response.delimited_by_close && rules.profile == Profile::Safe {
        return Err(Reason::DelimitedByClose);
    }
    let too_large = |value: &[u8]| {
        let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok());
        length.is_some_and(|length| length > rules.object_bytes_max)
    };
    if response.fields.values("content-length").any(too_large) {
        return Err(Reason::TooLarge);
    }
    Ok(())
}

/// What the response's directives and the request's credentials allow a shared cache.
fn permitted(
    request: &RequestView<'_>,
    fields: &Fields,
    directives: &CacheControl,
    profile: Profile,
) -> Result<(), Reason> {
    // §5.2.2.3: must-understand could lift no-store; not doing so is always allowed.
    if directives.no_store {
        return Err(Reason::ResponseNoStore);
    }
    if directives.private {
        return Err(Reason::Private);
    }
    // §5.2.2.4: every reuse would have to be validated.
    if directives.no_cache {
        return Err(Reason::ResponseNoCache);
    }
    if directives.malformed {
        return Err(Reason::Malformed);
    }
    let safe = profile == Profile::Safe;
    // §5.4 gives Pragma no meaning in responses; who sends it alone meant no-cache.
    if safe && !fields.contains("cache-control") && is_pragma_no_cache(fields) {
        return Err(Reason::ResponseNoCache);
    }
    // §3.5
    let authorized =
        request.fields.contains("authorization") || request.fields.contains("proxy-authorization");
    if authorized && !shares(directives) {
        return Err(Reason::Authorization);
    }
    // §7.3 leaves it to the origin server; safe wants to see that it thought of it.
    if safe && has_set_cookie(fields) && !(directives.public || has_s_maxage(directives)) {
        return Err(Reason::SetCookie);
    }
    Ok(())
}

/// RFC 9111 §3.5: what allows a shared cache to reuse the answer to an authorized request.
fn shares(directives: &CacheControl) -> bool {
    directives.public || directives.must_revalidate || has_s_maxage(directives)
}

fn has_s_maxage(directives: &CacheControl) -> bool {
    matches!(directives.s_maxage, super::cache_control::Delta::Seconds(_))
}

fn has_set_cookie(fields: &Fields) -> bool {
    fields.contains("set-cookie") || fields.contains("set-cookie2")
}

/// Whether `Pragma` says `no-cache` (RFC 9111 §5.4).
pub(super) fn is_pragma_no_cache(fields: &Fields) -> bool {
    fields.tokens("pragma").any(|member| member.eq_ignore_ascii_case(b"no-cache"))
}

/// Fields that are never stored: hop-by-hop (RFC 9110 §7.6.1), for a proxy (RFC 9111 §3.1), and Age.
const NEVER_KEPT: [&str; 12] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "http2-settings",
    "age",
];

/// Copies what is kept into one allocation of exactly its size, so that nothing of the wire's buffer is pinned.
fn kept(fields: &Fields, date: i64) -> Fields {
    let nominated = |name: &[u8]| fields.tokens("connection").any(|option| option.eq_ignore_ascii_case(name));
    let is_kept = |name: &[u8]| {
        !NEVER_KEPT.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes())) && !nominated(name)
    };
    let date = (!fields.contains("date") || nominated(b"date")).then(|| date::format(date));
    let date = date.as_deref().map(|date| (b"Date".as_slice(), date.as_bytes()));
    let pairs = fields.iter().filter(|(name, _)| is_kept(name)).chain(date);
    let mut raw = Vec::with_capacity(pairs.clone().map(|(name, value)| name.len() + value.len()).sum());
    let mut ends = Vec::with_capacity(pairs.clone().count());
    for (name, value) in pairs {
        let start = raw.len();
        raw.extend_from_slice(name);
        let middle = raw.len();
        raw.extend_from_slice(value);
        ends.push((start, middle, raw.len()));
    }
    let raw = Bytes::from(raw);
    let part = |start, end| raw.get(start..end).unwrap_or_default();
    Fields::from_parsed(
        &raw,
        ends.iter().map(|&(start, middle, end)| (part(start, middle), part(middle, end))),
    )
}
