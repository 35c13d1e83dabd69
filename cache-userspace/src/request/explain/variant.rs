//! A stored response, as far as it explains what becomes of a request.

use std::time::Duration;

use super::{is_secret, shown, ttl, whole_seconds};
use crate::admin::explain::{Nominated, Variant};
use crate::http1::RequestHead;
use crate::policy::{Candidate, Now, Rules, Stored, date};

/// Says what is known of a stored response.
pub(super) fn explained(
    candidate: Candidate<'_>,
    request: &RequestHead,
    is_alive: bool,
    rules: &Rules,
    now: Now,
) -> Variant {
    let stored = candidate.stored;
    let source = stored.lifetime_source(rules, now);
    let whole = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    let first = |name| stored.fields.first(name).map(shown);
    Variant {
        status: stored.status,
        content_bytes: candidate.content_bytes,
        part: stored.part.map(|part| (part.first, part.last, part.complete)),
        is_alive: is_alive && stored.refused.is_none(),
        is_selected: stored.selection.matches(&request.fields),
        selected_by: stored.selection.nominated().map(nominated).collect(),
        stored_seconds_ago: now.boot.saturating_sub(stored.received).as_secs(),
        date: date::format(stored.date),
        age_seconds: stored.age(now).as_secs(),
        lifetime_seconds: stored.lifetime.as_secs(),
        lifetime_source: source.as_str().to_owned(),
        lifetime_words: source.in_words().to_owned(),
        ttl_seconds: ttl(stored, now),
        fresh_for_seconds: whole_seconds(stored.fresh_for(rules, now)),
        stale_while_revalidate_seconds: whole(stored.stale_while_revalidate.or(rules.stale_while_revalidate)),
        stale_if_error_seconds: whole(stored.stale_if_error.or(rules.stale_if_error)),
        etag: first("etag"),
        last_modified: first("last-modified"),
        flags: flags(stored),
    }
}

fn nominated((name, value): (&str, Option<&[u8]>)) -> Nominated {
    let is_hidden = value.is_some() && is_secret(name);
    Nominated { name: shown(name.as_bytes()), value: value.filter(|_| !is_hidden).map(shown), is_hidden }
}

fn flags(stored: &Stored) -> Vec<String> {
    let flags = [
        (stored.no_cache, "no-cache"),
        (stored.must_revalidate, "must-revalidate"),
        (stored.immutable, "immutable"),
        (stored.shared_with_authorization, "shared-with-authorization"),
        (stored.shared_with_cookies, "shared-with-cookies"),
    ];
    flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned()).collect()
}
