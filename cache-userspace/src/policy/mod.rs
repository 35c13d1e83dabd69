//! RFC 9111 as a pure function of a request, a response, stored responses, rules and the time.
//!
//! No sockets, clock, environment or randomness: `now` is an argument. Keeping what was judged storable is left to
//! `store`, sending it to `respond`, framing and the removal of hop-by-hop fields on the wire to `http1`. Where the
//! RFC leaves a choice, the reading that forwards is taken.

mod answer;
pub mod cache_control;
mod combine;
mod conditional;
mod control;
pub mod date;
mod decide;
mod eligible;
mod entity_tag;
mod freshen;
mod freshness;
pub mod groups;
mod head;
mod invalidation;
mod kept;
mod key;
mod lifetime;
mod mesh_reply;
pub mod no_vary_search;
#[cfg(test)]
mod properties;
pub mod range;
mod reason;
#[cfg(test)]
mod sample;
mod stale;
mod status;
mod stored;
mod storing;
mod structured;
pub mod targeted;
mod targets;
mod validate;
pub mod vary;

use std::{fmt, str::FromStr, time::Duration};

pub use answer::{names_what_client_has, ranges};
pub use combine::combined;
pub use conditional::{is_kept_in_not_modified, is_not_modified};
pub use decide::{Candidate, Decision, Miss, asked_first, decide};
pub use eligible::{Eligibility, eligible};
pub use freshen::freshen;
pub use groups::invalidated_groups;
pub use head::update_by_head;
pub use invalidation::{invalidates, is_safe};
pub use key::{KeyParts, group, key, parts as key_parts, query_key, resource, search_key, searches};
pub use lifetime::LifetimeSource;
pub use mesh_reply::is_mesh_reply;
pub use no_vary_search::Search;
pub use reason::Reason;
pub use stale::{Cause, StaleVerdict, stale};
pub use stored::{Part, Stored};
pub use storing::{store, stores};
pub use targets::named_targets;
pub use validate::validation_fields;

use crate::http1::Fields;

/// How far the cache goes where the RFC lets it choose.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Stricter than the RFC wherever applications are known to be careless: the default.
    #[default]
    Safe,
    /// Exactly RFC 9111.
    Rfc9111,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(word: &str) -> Result<Self, UnknownProfile> {
        match word {
            "safe" => Ok(Self::Safe),
            "rfc9111" => Ok(Self::Rfc9111),
            _ => Err(UnknownProfile(word.to_owned())),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safe => "safe",
            Self::Rfc9111 => "rfc9111",
        })
    }
}

/// When a stored response is given instead of an answer that does not come (`staleAfter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleAfter {
    /// So long after the request went forward.
    Fixed(Duration),
    /// The greatest of three times the median, one and a half times the 99th percentile, and 50 ms.
    Auto,
}

/// Says that a word names no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a profile; known are `safe` and `rfc9111`")]
pub struct UnknownProfile(String);

/// What the operator decided for a route; by default what the responses say decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How strict the cache is.
    pub profile: Profile,
    /// Longest time that a response stays usable here, whatever its freshness lifetime: addresses are recycled, so a
    /// destination that is only known as ip:port and authority must not be trusted for longer.
    pub resident_max: Duration,
    /// Largest content of a response that is stored, in bytes.
    pub object_bytes_max: u64,
    /// How long after its lifetime a response that says nothing of it may be given while it is validated (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long after its lifetime a response that says nothing of it may be given instead of an error (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// Whether a stale response may be given when the origin server is late.
    pub stale_after: bool,
    /// When it is late; never where nothing is said. Judging that is the caller's business.
    pub late_after: Option<StaleAfter>,
    /// The lifetime of errors (4xx, 5xx) that say nothing about freshness, by status code.
    pub negative: Box<[(u16, Duration)]>,
    /// Whether CDN-Cache-Control (RFC 9213) may also permit in `safe`: only where the destination is a Service of this
    /// cluster and a policy names it.
    pub trusts_cdn_cache_control: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            profile: Profile::Safe,
            resident_max: Duration::from_secs(60),
            object_bytes_max: 16 << 20,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_after: false,
            late_after: None,
            negative: Box::default(),
            trusts_cdn_cache_control: false,
        }
    }
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME: counts resident time, so that a step of the wall clock changes no freshness.
    pub boot: Duration,
    /// Seconds since 1970-01-01 00:00:00 UTC: only compared with `Date` and `Expires`.
    pub wall: i64,
}

/// A request as the client sent it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The method, case kept (RFC 9110 §9.1).
    pub method: &'a [u8],
    /// The target in origin-form (RFC 9112 §3.2.1).
    pub target: &'a [u8],
    /// The header fields.
    pub fields: &'a Fields,
}

/// The head of a final response as the origin server sent it.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub fields: &'a Fields,
    /// Whether only the end of the connection ends the content (RFC 9112 §6.3, last rule), so that a truncated
    /// response looks complete.
    pub delimited_by_close: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_it_is_printed() {
        for profile in [Profile::Safe, Profile::Rfc9111] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("Safe".parse::<Profile>().is_err());
    }
}
