//! Bodies of any size that nobody has to hold: a block of noise repeated, made and checked as it streams.
//!
//! The block's length is prime, so that a chunk lost or doubled anywhere shifts everything after it.

use std::io::{self, Write};
use std::sync::OnceLock;

const BLOCK: usize = 1_000_003;

fn block() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut step = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut bytes: Vec<u8> = (0..BLOCK.div_ceil(8)).flat_map(|_| step()).collect();
        bytes.truncate(BLOCK);
        bytes
    })
}

/// The next piece of the pattern from `offset` on: not empty, at most `most` bytes.
pub fn piece(offset: u64, most: usize) -> &'static [u8] {
    let start = (offset % BLOCK as u64) as usize;
    let end = BLOCK.min(start.saturating_add(most));
    &block()[start..end]
}

/// The first `length` bytes of the pattern as one buffer.
pub fn bytes(length: u64) -> Vec<u8> {
    let mut all = Vec::new();
    // A vector takes every write.
    let _ = write_to(&mut all, length, None, |_| {});
    all
}

/// Writes `length` bytes of the pattern, as chunks of `chunk` bytes where given; reports what was written.
pub fn write_to(
    out: &mut impl Write,
    length: u64,
    chunk: Option<usize>,
    mut written: impl FnMut(u64),
) -> io::Result<()> {
    let mut offset = 0;
    while offset < length {
        let most = usize::try_from(length - offset).unwrap_or(usize::MAX).min(chunk.unwrap_or(256 * 1024));
        let part = piece(offset, most);
        if chunk.is_some() {
            write!(out, "{:x}\r\n", part.len())?;
        }
        out.write_all(part)?;
        if chunk.is_some() {
            out.write_all(b"\r\n")?;
        }
        offset += part.len() as u64;
        written(part.len() as u64);
    }
    Ok(())
}

/// Compares a stream with the pattern.
#[derive(Debug, Default)]
pub struct Verifier {
    length: u64,
    first_wrong: Option<u64>,
}

impl Verifier {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = piece(self.length, bytes.len());
            let (now, rest) = bytes.split_at(expected.len());
            if self.first_wrong.is_none() && now != expected {
                let ahead = now.iter().zip(expected).take_while(|(got, want)| got == want).count();
                self.first_wrong = Some(self.length + ahead as u64);
            }
            self.length += now.len() as u64;
            bytes = rest;
        }
    }

    /// Bytes taken so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Offset of the first byte that differs from the pattern, if any does.
    pub fn first_wrong(&self) -> Option<u64> {
        self.first_wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_the_pattern_is_recognised_however_it_is_cut() {
        let all = bytes(2_500_000);
        let mut verifier = Verifier::default();
        for part in all.chunks(77_777) {
            verifier.feed(part);
        }
        assert_eq!((verifier.length(), verifier.first_wrong()), (2_500_000, None));
    }

    #[test]
    fn a_lost_block_is_noticed() {
        let all = bytes(300_000);
        let mut verifier = Verifier::default();
        verifier.feed(&all[..65_536]);
        verifier.feed(&all[131_072..]);
        assert_eq!(verifier.first_wrong(), Some(65_536));
    }
}
