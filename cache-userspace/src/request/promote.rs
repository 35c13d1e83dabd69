//! Which hits the kernel may give from the next time on: those of which nothing but the age changes, whoever asks again
//! in the same words.
//!
//! When in doubt, the daemon goes on to give them.

use cache_common::hot::{CHUNK_BYTES, CHUNKS_MAX};

use super::ask::candidate;
use super::lease::Claim;
use super::{Connection, Path, view};
use crate::clock;
use crate::http1::{Fields, Framing, Names, RequestHead, Version};
use crate::kube::index::Input;
use crate::policy::{self, Decision, Now, Rules};
use crate::redirect::hot::{Offer, Promotion, Refusal, Skipped};
use crate::respond::image::Image;
use crate::respond::{Persistence, Reused, StoredResponse};
use crate::route::Route;

/// Request fields that are for whoever looks at each request: directives, expectations, and what frames or stands for
/// content.
const FOR_EACH_REQUEST: Names = Names::of(&[
    "cache-control",
    "pragma",
    "expect",
    "transfer-encoding",
    "trailer",
    "proxy-connection",
    "proxy-authorization",
    "max-forwards",
]);

impl Path {
    /// Offers to the kernel what was just given from the store; returns whether the kernel gives it from now on.
    pub fn promote(
        &self,
        request: &RequestHead,
        connection: &Connection,
        response: &StoredResponse,
        persistence: Persistence,
    ) -> bool {
        let (Some(hot), Some(asker), Some(key)) = (&self.hot, &connection.asker, &response.key) else {
            return false;
        };
        let route = self.route(request, connection);
        let (rules, claim) = (&route.rules, Claim::of(request, &route, &connection.workload));
        if route.bypass.is_some() {
            return false;
        }
        let skipped = hot.skipped();
        let promotion = match refusal(request, response, persistence, skipped) {
            Some(refusal) => Promotion::Refused(refusal),
            None => {
                let entry = &response.entry;
                let now = clock::now();
                let leased_for = claim.left(connection, now.boot).unwrap_or_default();
                hot.offer(&Offer {
                    asker: *asker,
                    head: &request.raw,
                    key,
                    places: entry.purge_places(),
                    now_ns: now.boot.as_nanos() as u64,
                    age: entry.stored.age(now),
                    fresh_for: entry.stored.fresh_for(rules, now).min(leased_for),
                    image: &|| Image::of(response, CHUNKS_MAX * CHUNK_BYTES),
                    still: &|| {
                        self.is_still_allowed(request, connection, key, claim)?;
                        self.is_still_answer(request, response, key, (rules, skipped), now)
                    },
                })
            }
        };
        match promotion {
            Promotion::Promoted => self.counters.promoted.incr(),
            Promotion::Refused(refusal) => self.counters.reasons.not_promoted(refusal),
            Promotion::Seen | Promotion::Resident => {}
        }
        matches!(promotion, Promotion::Promoted | Promotion::Resident)
    }

    /// Whether the client may still have it, and it still counts.
    fn is_still_allowed(
        &self,
        request: &RequestHead,
        connection: &Connection,
        key: &[u8],
        claim: Claim,
    ) -> Result<(), Refusal> {
        let Route { service, bypass: None, .. } = self.route(request, connection) else {
            return Err(Refusal::Gone);
        };
        if let (Some(service), Some(hot)) = (service, &self.hot) {
            // Of another epoch it has another key.
            if connection.key(request, b"", Some(&service)) != key {
                return Err(Refusal::Gone);
            }
            let mut inputs = service.guard().inputs.iter();
            if inputs.any(|input| matches!(input, Input::Field(name) if hot.skipped().contains(name))) {
                return Err(Refusal::Vary);
            }
        }
        if claim.holds(connection) { Ok(()) } else { Err(Refusal::Lease) }
    }

    /// Whether a look-up would find the same now, whatever the skipped fields of the request are.
    fn is_still_answer(
        &self,
        request: &RequestHead,
        response: &StoredResponse,
        key: &[u8],
        (rules, skipped): (&Rules, &Skipped),
        now: Now,
    ) -> Result<(), Refusal> {
        let variants = self.store.peek(key).ok_or(Refusal::Gone)?;
        let alive: Vec<_> = variants.iter().filter(|entry| self.store.alive(entry)).collect();
        let candidates = alive.iter().map(|entry| candidate(entry));
        let chosen = match policy::decide(&view(request), candidates, rules, now) {
            Decision::Reuse { index, revalidate: false, .. } => alive.get(index),
            _ => None,
        };
        if !chosen.is_some_and(|entry| std::sync::Arc::ptr_eq(entry, &response.entry)) {
            return Err(Refusal::Gone);
        }
        // One of them might be the answer for other values of what is skipped (RFC 9111 §4.1).
        if variants.iter().any(|entry| varies_on(entry.stored.selection.names(), skipped)) {
            return Err(Refusal::Vary);
        }
        // RFC 9111 §4: the most recent one is to be given, and it may be stored for several queries by now.
        if self.searches.key(key, &request.target).is_some() {
            return Err(Refusal::Search);
        }
        Ok(())
    }
}

fn varies_on<'a>(mut names: impl Iterator<Item = &'a str>, skipped: &Skipped) -> bool {
    names.any(|name| skipped.contains(name))
}

/// Why the kernel may not give this response to a head like this one.
fn refusal(
    request: &RequestHead,
    response: &StoredResponse,
    persistence: Persistence,
    skipped: &Skipped,
) -> Option<Refusal> {
    let stored = &response.entry.stored;
    if let Some(refusal) = of_request(request) {
        Some(refusal)
    } else if persistence != Persistence::Stays || !has_plain_connection(&request.fields) {
        Some(Refusal::Connection)
    } else if response.reused != Reused::Hit {
        Some(Refusal::Stale)
    } else if stored.is_coded {
        Some(Refusal::Coded)
    } else if stored.search.is_some() {
        Some(Refusal::Search)
    } else if varies_on(stored.selection.names(), skipped) {
        Some(Refusal::Vary)
    } else {
        None
    }
}

fn of_request(request: &RequestHead) -> Option<Refusal> {
    if !matches!(&request.method[..], b"GET" | b"HEAD") {
        return Some(Refusal::Method);
    }
    if request.version != Version::Http11 {
        return Some(Refusal::Version);
    }
    // Java's HttpClient says of a GET that it has no content.
    if !matches!(request.framing, Framing::Empty | Framing::Length(0)) {
        return Some(Refusal::Content);
    }
    // An offer of h2c (Java's HttpClient makes it each time) is never taken: RFC 9110 §7.8, a server MAY ignore it.
    let wants_other = request.fields.tokens("upgrade").any(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"));
    (wants_other || request.fields.iter().any(|(name, _)| FOR_EACH_REQUEST.has(name)))
        .then_some(Refusal::Field)
}

/// Whether the connection has no options but those that leave everything as it is in HTTP/1.1.
fn has_plain_connection(fields: &Fields) -> bool {
    const PLAIN: [&[u8]; 4] = [b"keep-alive", b"te", b"upgrade", b"http2-settings"];
    fields.tokens("connection").all(|option| PLAIN.iter().any(|plain| option.eq_ignore_ascii_case(plain)))
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::http1::head::Parsed;

    fn request(lines: &str) -> RequestHead {
        let mut bytes = BytesMut::from(format!("{lines}\r\n").as_str());
        match RequestHead::take(&mut bytes, &mut 0, 8192) {
            Parsed::Complete(head) => head,
            other => panic!("{lines}: {other:?}"),
        }
    }

    #[test]
    fn only_plain_requests_are_given_by_the_kernel() {
        let plain = "GET /a HTTP/1.1\r\nHost: a\r\n";
        for lines in [
            plain.to_owned(),
            "HEAD /a HTTP/1.1\r\nHost: a\r\n".to_owned(),
            format!("{plain}Connection: Keep-Alive\r\nKeep-Alive: 300\r\n"),
            format!("{plain}Connection: TE\r\nTE: trailers\r\n"),
            format!("{plain}If-None-Match: \"a\"\r\nAuthorization: x\r\nCookie: a=b\r\n"),
            format!("{plain}Range: bytes=0-1\r\n"),
            format!("{plain}Content-Length: 0\r\n"),
            format!("{plain}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n"),
        ] {
            let request = request(&lines);
            assert_eq!(of_request(&request), None, "{lines}");
            assert!(has_plain_connection(&request.fields), "{lines}");
        }
        for (lines, expected) in [
            ("QUERY /a HTTP/1.1\r\nHost: a\r\n".to_owned(), Refusal::Method),
            ("GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n".to_owned(), Refusal::Version),
            (format!("{plain}Content-Length: 3\r\n"), Refusal::Content),
            (format!("{plain}Transfer-Encoding: chunked\r\n"), Refusal::Content),
            (format!("{plain}Cache-Control: max-stale\r\n"), Refusal::Field),
            (format!("{plain}PRAGMA: x\r\n"), Refusal::Field),
            (format!("{plain}Expect: 100-continue\r\n"), Refusal::Field),
            (format!("{plain}Upgrade: websocket\r\n"), Refusal::Field),
            (format!("{plain}Upgrade: h2c, websocket\r\n"), Refusal::Field),
        ] {
            assert_eq!(of_request(&request(&lines)), Some(expected), "{lines}");
        }
        for option in ["close", "keep-alive, X-Mine", "X-Mine"] {
            let request = request(&format!("{plain}Connection: {option}\r\n"));
            assert!(!has_plain_connection(&request.fields), "{option}");
        }
        assert_eq!(Bytes::from(request(plain).raw.to_vec()), format!("{plain}\r\n"));
    }
}
