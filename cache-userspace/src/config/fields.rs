//! Fields whose values have rules. They are checked inside the parser's own visit, which is what makes it name the
//! field and the line of the value.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::{PORTS_MAX, Span, WORKER_THREADS_MAX};
use crate::redirect::hot::Skipped;

struct NonEmpty;

impl de::Visitor<'_> for NonEmpty {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<String, E> {
        if name.is_empty() { Err(E::custom("must not be empty")) } else { Ok(name.to_owned()) }
    }
}

struct Absolute;

impl de::Visitor<'_> for Absolute {
    type Value = PathBuf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an absolute path")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<PathBuf, E> {
        let path = PathBuf::from(path);
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(E::custom(format_args!("{} is not an absolute path", path.display())))
        }
    }
}

struct Ports;

impl<'de> de::Visitor<'de> for Ports {
    type Value = Vec<u16>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ports")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u16>, A::Error> {
        let mut ports = Vec::new();
        while let Some(port) = list.next_element::<u16>()? {
            if port == 0 {
                return Err(de::Error::custom("a port is a number from 1 to 65535"));
            }
            if ports.len() == PORTS_MAX {
                return Err(de::Error::custom(format_args!("more than {PORTS_MAX} ports are named")));
            }
            ports.push(port);
        }
        if ports.is_empty() { Err(de::Error::custom("no port is named")) } else { Ok(ports) }
    }
}

struct Threads;

impl de::Visitor<'_> for Threads {
    type Value = Option<NonZeroUsize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from 1 to {WORKER_THREADS_MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        let number = usize::try_from(number).ok().filter(|number| *number <= WORKER_THREADS_MAX);
        let outside = || E::custom(format_args!("threads are a number from 1 to {WORKER_THREADS_MAX}"));
        number.and_then(NonZeroUsize::new).ok_or_else(outside).map(Some)
    }
}

/// Longest authorization lease: for so long nobody learns of what the mesh has decided meanwhile.
const LEASE_MAX: Duration = Duration::from_secs(60 * 60);

pub(super) fn lease<'de, D: Deserializer<'de>>(input: D) -> Result<Span, D::Error> {
    let span = Span::deserialize(input)?;
    match span.0 {
        time if time <= LEASE_MAX => Ok(span),
        _ => Err(de::Error::custom("an authorization lease lasts an hour at most")),
    }
}

pub(super) fn threads<'de, D: Deserializer<'de>>(input: D) -> Result<Option<NonZeroUsize>, D::Error> {
    input.deserialize_u64(Threads)
}

pub(super) fn non_empty<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    input.deserialize_str(NonEmpty)
}

pub(super) fn optional_non_empty<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    non_empty(input).map(Some)
}

pub(super) fn absolute<'de, D: Deserializer<'de>>(input: D) -> Result<PathBuf, D::Error> {
    input.deserialize_str(Absolute)
}

pub(super) fn optional_absolute<'de, D: Deserializer<'de>>(input: D) -> Result<Option<PathBuf>, D::Error> {
    absolute(input).map(Some)
}

struct SkippedNames;

impl<'de> de::Visitor<'de> for SkippedNames {
    type Value = Skipped;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of field names")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Skipped, A::Error> {
        let mut names: Vec<String> = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        Skipped::of(names.iter().map(String::as_str)).map_err(de::Error::custom)
    }
}

pub(super) fn skipped<'de, D: Deserializer<'de>>(input: D) -> Result<Skipped, D::Error> {
    input.deserialize_seq(SkippedNames)
}

pub(super) fn ports<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u16>, D::Error> {
    input.deserialize_seq(Ports)
}
