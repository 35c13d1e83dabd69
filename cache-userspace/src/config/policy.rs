//! What the operator allows beyond what responses say: the words of the policy language, for every destination alike.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::forward::StaleAfter;
use crate::policy::Rules;

/// Rules that responses are silent about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// How long after its lifetime a response that says nothing of it may be given while it is validated (RFC 5861 §3).
    pub stale_while_revalidate: Option<Span>,
    /// How long after its lifetime a response that says nothing of it may be given instead of an error (RFC 5861 §4).
    pub stale_if_error: Option<Span>,
    /// After how long a late answer gives way to a stored one that may be given stale; never by default.
    pub stale_after: Option<After>,
    /// The lifetime of errors (4xx, 5xx) that say nothing about freshness, by status code.
    pub negative: BTreeMap<ErrorStatus, Span>,
}

/// A time as people write it: `30s`, `5m`, `300ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// `auto`, or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After(pub StaleAfter);

/// A status code from 400 to 599 that does not depend on who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorStatus(pub u16);

impl PolicyConfig {
    /// The rules with what is allowed here.
    pub fn apply(&self, rules: Rules) -> Rules {
        Rules {
            stale_while_revalidate: self.stale_while_revalidate.map(|span| span.0),
            stale_if_error: self.stale_if_error.map(|span| span.0),
            stale_after: self.stale_after.is_some(),
            negative: self.negative.iter().map(|(status, span)| (status.0, span.0)).collect(),
            ..rules
        }
    }
}

struct Text<T> {
    expected: &'static str,
    read: fn(&str) -> Result<T, String>,
}

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.read)(&number.to_string()).map_err(E::custom)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is no time such as 30s, 5m or 300ms: {error}"))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text =
            Text { expected: "a time such as 30s, 5m or 300ms", read: |text| duration(text).map(Self) };
        input.deserialize_str(text)
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let read = |text: &str| match text {
            "auto" => Ok(Self(StaleAfter::Auto)),
            text => duration(text).map(|time| Self(StaleAfter::Fixed(time))),
        };
        input.deserialize_str(Text { expected: "`auto` or a time such as 300ms", read })
    }
}

impl<'de> Deserialize<'de> for ErrorStatus {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let read = |text: &str| match text.parse() {
            Ok(401 | 403 | 407) => Err(format!("`{text}` depends on who asks: it is not kept for others")),
            Ok(status @ 400..=599) => Ok(Self(status)),
            _ => Err(format!("`{text}` is no status code from 400 to 599")),
        };
        input.deserialize_any(Text { expected: "a status code from 400 to 599", read })
    }
}
