//! Why a request would or would not be answered from the store: the path's own look-up, without its effects, and what
//! is known around it.
//!
//! What would become of the request is put into words by `verdict`. Nothing is forwarded, no popularity is counted.

mod variant;
mod verdict;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ask::{LookUp, candidate};
use super::lease::Claim;
use super::{Connection, Path, authority, is_query, view};
use crate::admin::Position;
use crate::admin::explain::{
    Asked, BadQuestion, Explanation, Key, LastRefusal, PolicyInForce, Question, RulesInForce, Why,
};
use crate::clock;
use crate::http1::{Fields, Framing, RequestHead, Version};
use crate::identify::Workload;
use crate::policy::{self, Eligibility, KeyParts, Now, Reason, Rules, Stored};
use crate::route::{Route, Service};

/// Keys that one explanation lists.
const KEYS_MAX: usize = 64;
/// Stored keys that are looked at for one.
const KEYS_LOOKED_AT_MAX: usize = 1 << 20;
/// Pairs of a workload and a destination that are looked up for one.
const PAIRS_MAX: usize = 1 << 16;

/// A workload whose requests come here.
pub struct Asker {
    /// The workload.
    pub workload: Arc<Workload>,
    /// The ports whose connections are redirected, where ports decide about it.
    pub ports: Option<Vec<u16>>,
}

impl Asker {
    /// Whether a key is one of its requests, to some destination.
    fn has(&self, parts: &KeyParts<'_>) -> bool {
        let scope = Workload::identity_of(parts.partition).map(|(_, _, scope)| scope);
        let Workload { leases, netns_cookie, .. } = &*self.workload;
        self.workload.shares(parts.partition)
            && match leases {
                Some(_) => address(parts).is_none(),
                None => scope == Some(*netns_cookie),
            }
    }
}

/// No address: where only the workload matters.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The address that is a destination's identity; none where that is a service.
fn address(parts: &KeyParts<'_>) -> Option<SocketAddr> {
    std::str::from_utf8(parts.destination).ok().and_then(|text| text.parse().ok())
}

/// The keys that are known of a request.
struct Known {
    keys: Vec<Box<[u8]>>,
    is_complete: bool,
    notes: Vec<String>,
}

impl Path {
    /// Explains what would become of a request if one of `askers` sent it now; takes its time over a large store.
    ///
    /// # Errors
    /// `BadQuestion`.
    pub fn explain(&self, question: &Question, askers: &[Asker]) -> Result<Explanation, BadQuestion> {
        let asked = question.read()?;
        let request = head(question, &asked);
        let rules = &self.routes.find().rules;
        let refusal = refused(&request, rules);
        let switch = if self.routes.find().bypass.is_none() { Position::On } else { Position::Off };
        let known = self.known(&request, &asked, question, askers)?;
        let now = clock::now();
        let keys = known.keys.iter().filter_map(|key| {
            let parts = policy::key_parts(key)?;
            Some(self.key_explained(key, parts, &request, askers, now))
        });
        Ok(Explanation {
            url: question.url.clone(),
            method: question.method.clone(),
            switch,
            rules: in_force(rules),
            not_looked_up: refusal.map(why),
            keys: keys.collect(),
            is_complete: known.is_complete,
            notes: known.notes,
        })
    }

    /// The keys that are stored, or of which something else is known, and those that are the only ones possible.
    fn known(
        &self,
        request: &RequestHead,
        asked: &Asked,
        question: &Question,
        askers: &[Asker],
    ) -> Result<Known, BadQuestion> {
        let askers = some_of(askers, question.workload.as_deref())?;
        // What a workload stored that is no longer enrolled is listed too, unless one is named.
        let is_asked_for =
            |parts: &KeyParts<'_>| question.workload.is_none() || askers.iter().any(|asker| asker.has(parts));
        let services = self.routes.services();
        let epochs: HashMap<&[u8], u64> =
            services.by_address.values().map(|service| (&service.identity[..], service.epoch)).collect();
        // What was stored of a service before it changed no longer counts.
        let is_current = |parts: &KeyParts<'_>| {
            let scope = Workload::identity_of(parts.partition).map(|(_, _, scope)| scope);
            address(parts).is_some() || scope == epochs.get(parts.destination).copied()
        };
        let destination = asked.destination.map(|at| match services.by_address.get(&at) {
            Some(service) => vec![at.to_string().into_bytes(), service.identity.to_vec()],
            None => vec![at.to_string().into_bytes()],
        });
        let mut wanted = Vec::new();
        policy::key(b"", b"", authority(request), &request.target, &mut wanted);
        let wanted = policy::key_parts(&wanted);
        let is_wanted = |key: &[u8]| {
            policy::key_parts(key).zip(wanted).is_some_and(|(parts, wanted)| {
                let wanted_target = match parts.more {
                    [] => wanted.target,
                    _ => policy::no_vary_search::path_and_query(wanted.target).0,
                };
                parts.authority == wanted.authority
                    && parts.target == wanted_target
                    && destination.as_ref().is_none_or(|own| own.iter().any(|own| parts.destination == own))
                    && is_asked_for(&parts)
                    && is_current(&parts)
                    && self.asked_by(key, request).is_some()
            })
        };
        let (found, mut is_complete) = self.store.keys(KEYS_LOOKED_AT_MAX, KEYS_MAX, is_wanted);
        let found: BTreeSet<_> = found.iter().filter_map(|key| self.asked_by(key, request)).collect();
        let mut keys: Vec<_> = found.into_iter().collect();
        let pairs = self.pairs(request, asked, &askers);
        is_complete &= pairs.len() < PAIRS_MAX;
        let boot = clock::boot();
        for key in &pairs {
            if keys.contains(key) || !(self.uncacheable.recall(key, boot).is_some() || self.flies(key)) {
                continue;
            }
            if keys.len() >= KEYS_MAX {
                is_complete = false;
                break;
            }
            keys.push(key.clone());
        }
        let mut notes = Vec::new();
        if keys.is_empty() {
            match pairs.len() {
                1 => keys.extend(pairs),
                0 => notes.push(unknown(&askers)),
                many => notes.push(format!(
                    "Nothing is stored or remembered of it, for any of {many} pairs of an identity and a destination; \
                     name one with --workload and --destination."
                )),
            }
        }
        Ok(Known { keys, is_complete, notes })
    }

    /// The key of the request where it finds what stands under `key`: the same, or that of an answer to other queries.
    fn asked_by(&self, key: &[u8], request: &RequestHead) -> Option<Box<[u8]>> {
        let parts = policy::key_parts(key)?;
        let more = parts.more;
        // The key of a QUERY tells its content too, of which nothing is known here.
        if is_query(request) || parts.is_of_query() {
            return None;
        }
        if more.is_empty() {
            return Some(key.into());
        }
        let path = key.get(..key.len() - more.len())?;
        let own = [path, policy::no_vary_search::path_and_query(&request.target).1].concat();
        (self.searches.key(&own, &request.target)? == key).then(|| own.into_boxed_slice())
    }

    /// The keys of the request for each workload and each destination that it may mean, each once.
    fn pairs(&self, request: &RequestHead, asked: &Asked, askers: &[&Asker]) -> BTreeSet<Box<[u8]>> {
        let seen = if asked.destination.is_some() { Vec::new() } else { self.lateness.destinations() };
        let mut keys = BTreeSet::new();
        for asker in askers {
            let is_own = |(netns, address): &&(u64, SocketAddr)| {
                *netns == asker.workload.netns_cookie && address.port() == asked.port
            };
            let destinations =
                asked.destination.into_iter().chain(seen.iter().filter(is_own).map(|(_, address)| *address));
            for destination in destinations.take(PAIRS_MAX - keys.len()) {
                let connection = Connection::new(asker.workload.clone(), destination, None, 0);
                let route = self.route(request, &connection);
                // A pod's connections to no service do not come here.
                if asker.workload.leases.is_none() || route.service.is_some() {
                    keys.insert(connection.key(request, b"", route.service.as_deref()).into_boxed_slice());
                }
            }
        }
        keys
    }

    fn flies(&self, key: &[u8]) -> bool {
        self.flights.under(key) > 0
    }

    fn key_explained(
        &self,
        key: &[u8],
        parts: KeyParts<'_>,
        request: &RequestHead,
        askers: &[Asker],
        now: Now,
    ) -> Key {
        let same: Vec<&Asker> = askers.iter().filter(|asker| asker.has(&parts)).collect();
        let identity = Workload::identity_of(parts.partition);
        let (namespace, service_account, scope) = identity.unwrap_or_default();
        let services = self.routes.services();
        let mut addresses = services.by_address.iter();
        let of_service = addresses.find(|(_, service)| *service.identity == *parts.destination);
        let (netns_cookie, epoch) = if of_service.is_some() { (0, Some(scope)) } else { (scope, None) };
        let route = match (of_service, same.first()) {
            (Some((at, _)), Some(asker)) => {
                self.route(request, &Connection::new(asker.workload.clone(), *at, None, 0))
            }
            (Some((at, _)), None) => self.routes.find_service(at, &namespace),
            (None, _) => self.routes.find(),
        };
        let rules = &route.rules;
        let unlooked = route.bypass.or_else(|| refused(request, rules)).map(verdict::bypassed);
        let search_key = if is_query(request) { None } else { self.searches.key(key, &request.target) };
        let others = search_key.as_ref().and_then(|key| self.store.variants(key));
        let stored = [self.store.variants(key), others];
        let all: Vec<_> = stored.iter().flatten().flat_map(|variants| variants.iter()).collect();
        let found = LookUp::of(&self.store, key, search_key, &request.target);
        let judged = || {
            let alive: Vec<_> = found.candidates().collect();
            let number = |index: usize| {
                let stored: &Stored = alive.get(index)?.stored;
                Some(all.iter().position(|entry| std::ptr::eq(&entry.stored, stored))? + 1)
            };
            verdict::judged(&view(request), &alive, rules, now, number)
        };
        let refusal =
            self.uncacheable.recall(key, now.boot).filter(|refusal| refusal.reason != Reason::ForOne);
        let last_refusal = refusal.map(|refusal| LastRefusal {
            reason: refusal.reason.as_str().to_owned(),
            words: refusal.reason.in_words().to_owned(),
            seconds_ago: refusal.ago.as_secs(),
        });
        let mut notes = self.detours(parts, &same);
        let direct = match notes.first() {
            Some(why) if notes.len() == same.len() => Some(verdict::direct(why)),
            _ => None,
        };
        notes.extend(self.unleased(request, &route, &same));
        if same.is_empty() {
            notes.push("No workload of this identity is enrolled any more.".to_owned());
        }
        if all.iter().any(|entry| !self.store.alive(entry)) {
            notes.push(
                "Some of what was stored is dead by a purge or an unsafe request (RFC 9111 §4.4).".to_owned(),
            );
        }
        if all.is_empty() && last_refusal.is_none() && unlooked.is_none() && direct.is_none() {
            notes.push(verdict::needs(rules).to_owned());
        }
        Key {
            namespace,
            service_account,
            netns_cookie,
            epoch,
            policy: route.service.as_deref().and_then(|service| policy_in_force(service, rules)),
            workloads: same.iter().map(|asker| asker.workload.name.clone()).collect(),
            destination: shown(parts.destination),
            authority: shown(parts.authority),
            target: shown(parts.target),
            verdict: direct.or(unlooked).unwrap_or_else(judged),
            variants: all
                .iter()
                .map(|entry| {
                    variant::explained(candidate(entry), request, self.store.alive(entry), rules, now)
                })
                .collect(),
            last_refusal,
            forwards_under_way: self.flights.under(key),
            notes,
        }
    }

    /// Which of these pods have to be let through by the mesh before they are given what is stored.
    fn unleased(&self, request: &RequestHead, route: &Route, askers: &[&Asker]) -> Option<String> {
        route.service.as_deref()?;
        let now = clock::boot();
        let mut names = askers.iter().filter_map(|asker| {
            let connection = Connection::new(asker.workload.clone(), UNKNOWN, None, 0);
            let claim = Claim::of(request, route, &asker.workload);
            claim.left(&connection, now).is_none().then_some(asker.workload.name.as_str())
        });
        let first = names.next()?;
        let all = names.fold(first.to_owned(), |all, name| format!("{all}, {name}"));
        Some(format!(
            "Not yet given to {all}, nor any more: the mesh must first let a request of its own through (authorizationLease)."
        ))
    }

    /// Why the connections of these workloads to the key's destination go direct, a sentence for each that does.
    fn detours(&self, parts: KeyParts<'_>, askers: &[&Asker]) -> Vec<String> {
        let Some(address) = address(&parts) else { return Vec::new() };
        let detour = |asker: &&Asker| {
            let (name, port) = (&asker.workload.name, address.port());
            if asker.ports.as_ref().is_some_and(|ports| !ports.contains(&port)) {
                return Some(format!(
                    "Connections of {name} to port {port} go direct: it is not intercepted."
                ));
            }
            let left = seconds(self.bypass.left_alone_for(asker.workload.id, address)?);
            Some(format!(
                "Connections of {name} to {address} go direct for another {left}: it was seen not to speak HTTP/1."
            ))
        };
        askers.iter().filter_map(detour).collect()
    }
}

fn some_of<'a>(askers: &'a [Asker], name: Option<&str>) -> Result<Vec<&'a Asker>, BadQuestion> {
    let some: Vec<&Asker> =
        askers.iter().filter(|asker| name.is_none_or(|name| asker.workload.name == name)).collect();
    match name {
        Some(name) if some.is_empty() => {
            let mut names: Vec<&str> = askers.iter().map(|asker| asker.workload.name.as_str()).collect();
            names.sort_unstable();
            let enrolled = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(BadQuestion::Workload { name: name.to_owned(), enrolled })
        }
        _ => Ok(some),
    }
}

fn unknown(askers: &[&Asker]) -> String {
    if askers.is_empty() {
        return "No workload is enrolled: whatever is requested goes direct.".to_owned();
    }
    "Nothing is stored of it, and no answer from its host is known; name its address with --destination."
        .to_owned()
}

/// The request as a client would send it.
fn head(question: &Question, asked: &Asked) -> RequestHead {
    let own = |(name, value): &(String, String)| (name.clone(), value.clone().trim_ascii().to_owned());
    let fields: Vec<(String, String)> = question.fields.iter().map(own).collect();
    let has_host = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = (!has_host).then(|| ("Host".to_owned(), asked.authority.clone()));
    RequestHead {
        method: Bytes::from(question.method.clone()),
        target: Bytes::from(asked.target.clone()),
        version: Version::Http11,
        fields: Fields::from_pairs(host.into_iter().chain(fields)),
        framing: Framing::Empty,
        raw: Bytes::new(),
    }
}

/// Why a request is not looked up by these rules.
fn refused(request: &RequestHead, rules: &Rules) -> Option<Reason> {
    match policy::eligible(&view(request), rules) {
        Eligibility::Lookup => None,
        Eligibility::Bypass(reason) => Some(reason),
    }
}

fn why(reason: Reason) -> Why {
    Why { reason: reason.as_str().to_owned(), words: reason.in_words().to_owned() }
}

fn policy_in_force(service: &Service, rules: &Rules) -> Option<PolicyInForce> {
    let policy = service.policy()?;
    Some(PolicyInForce { name: format!("{}/{}", service.namespace(), policy.name), rules: in_force(rules) })
}

fn in_force(rules: &Rules) -> RulesInForce {
    let whole = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    RulesInForce {
        profile: rules.profile.to_string(),
        resident_seconds_max: rules.resident_max.as_secs(),
        object_bytes_max: rules.object_bytes_max,
        stale_while_revalidate_seconds: whole(rules.stale_while_revalidate),
        stale_if_error_seconds: whole(rules.stale_if_error),
        stale_after: rules.stale_after,
        negative_seconds: rules
            .negative
            .iter()
            .map(|(status, lifetime)| (*status, lifetime.as_secs()))
            .collect(),
    }
}

/// Whole seconds, the begun one included: zero only where nothing is left.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn seconds(duration: Duration) -> String {
    format!("{} s", whole_seconds(duration))
}

/// Lifetime less age, as Cache-Status tells it (RFC 9211 §2.3).
fn ttl(stored: &Stored, now: Now) -> i64 {
    let signed = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    signed(stored.lifetime).saturating_sub(signed(stored.age(now)))
}

/// Bytes of a value that is shown; the rest is cut.
const SHOWN_BYTES_MAX: usize = 512;

/// Bytes of the network as text that no terminal takes for commands.
fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    let mut text = String::new();
    for character in String::from_utf8_lossy(cut).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// Words that tell that a field's value is a secret.
const SECRETS: [&str; 10] =
    ["auth", "cookie", "token", "secret", "key", "session", "password", "credential", "csrf", "signature"];

/// Whether the value of a field may be a secret, by the field's name.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_a_command_to_a_terminal() {
        assert_eq!(shown(b"de\x1b[31m\n"), "de\\u{1b}[31m\\n");
        assert_eq!(shown("\u{9b}é".as_bytes()), "\\u{9b}é");
        assert_eq!(shown(b"\xff"), "\u{fffd}");
        assert_eq!(shown(&[b'a'; 600]).chars().count(), SHOWN_BYTES_MAX + 1);
    }

    #[test]
    fn secrets_are_told_by_the_names_of_their_fields() {
        for name in ["Authorization", "proxy-authorization", "cookie", "X-Api-Key", "x-auth-token", "X-CSRF"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["accept", "accept-language", "origin", "user-agent", "x-tenant", "save-data"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
