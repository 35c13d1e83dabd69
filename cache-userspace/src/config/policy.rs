//! What the operator allows beyond what responses say: the words of the policy language, for every destination alike.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::policy::{Rules, StaleAfter};

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

/// `auto`, a time, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After(pub Option<StaleAfter>);

/// A status code from 400 to 599 that does not depend on who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorStatus(pub u16);

impl PolicyConfig {
    /// The rules with what is allowed here; they stay what they are where nothing is said.
    pub fn apply(&self, rules: Rules) -> Rules {
        let late_after = self.stale_after.map_or(rules.late_after, |after| after.0);
        let negative = match self.negative.is_empty() {
            true => rules.negative,
            false => self.negative.iter().map(|(status, span)| (status.0, span.0)).collect(),
        };
        Rules {
            stale_while_revalidate: self
                .stale_while_revalidate
                .map(|span| span.0)
                .or(rules.stale_while_revalidate),
            stale_if_error: self.stale_if_error.map(|span| span.0).or(rules.stale_if_error),
            stale_after: late_after.is_some(),
            late_after,
            negative,
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

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(&humantime::format_duration(self.0))
    }
}

/// What the schema says of a time; the daemon reads more than it lets through.
const SPAN_PATTERN: &str = "^([0-9]{1,9}(ms|s|m|h|d) ?)+$";

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": SPAN_PATTERN })
    }
}

impl Serialize for After {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => output.serialize_str("never"),
            Some(StaleAfter::Auto) => output.serialize_str("auto"),
            Some(StaleAfter::Fixed(time)) => Span(time).serialize(output),
        }
    }
}

impl JsonSchema for After {
    fn schema_name() -> Cow<'static, str> {
        "After".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(auto|never)$|".to_owned() + SPAN_PATTERN })
    }
}

impl Serialize for ErrorStatus {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let read = |text: &str| match text {
            "auto" => Ok(Self(Some(StaleAfter::Auto))),
            "never" => Ok(Self(None)),
            text => duration(text).map(|time| Self(Some(StaleAfter::Fixed(time)))),
        };
        input.deserialize_str(Text { expected: "`auto`, `never` or a time such as 300ms", read })
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
