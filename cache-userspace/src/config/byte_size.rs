//! Sizes as people write them: `64MiB`, `1GB`, `4096`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(
    /// The number.
    pub u64,
);

/// Says what a size must look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    /// Not a number with one of the known units.
    #[error(
        "{0:?} is not a size: write bytes, or a whole number with KiB, MiB, GiB, KB, MB or GB, as in 64MiB"
    )]
    Malformed(String),
    /// Does not fit 64 bits.
    #[error("{0:?} is larger than any memory")]
    TooLarge(String),
}

const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ByteSizeError::Malformed(text.to_owned());
        let too_large = || ByteSizeError::TooLarge(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        if number.is_empty() {
            return Err(malformed());
        }
        let unit = unit.trim_start();
        let (_, factor) =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(malformed)?;
        // Only digits are left, so that nothing but its size can be wrong with it.
        let number: u64 = number.parse().map_err(|_| too_large())?;
        number.checked_mul(*factor).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
        let unit = whole.rev().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 64MiB")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        input.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("1KiB", 1024),
            ("64MiB", 64 << 20),
            ("2 GiB", 2 << 30),
            ("1KB", 1000),
            ("3mb", 3_000_000),
            (" 1GB ", 1_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "MiB", "-1", "1.5GiB", "64M", "64 apples", "0x10"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::Malformed(text.to_owned())));
        }
        for text in ["99999999999999999999", "18014398509481984KiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::TooLarge(text.to_owned())));
        }
    }

    #[test]
    fn a_size_is_printed_as_it_would_be_written() {
        for (bytes, text) in
            [(64 << 20, "64MiB"), (1 << 30, "1GiB"), (1500, "1500"), (0, "0"), (2048, "2KiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
