//! Bytes as hexadecimal text, for messages between a test and its agent.

use anyhow::{Context, Result, ensure};

/// Two lower-case digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

/// The bytes of such text; an error where it is not such text.
pub fn decode(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "an odd number of hexadecimal digits");
    let digit = |byte: u8| char::from(byte).to_digit(16).context("not a hexadecimal digit");
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Ok(u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?)?))
        .collect()
}
