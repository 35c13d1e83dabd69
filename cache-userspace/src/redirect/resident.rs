//! One resident response as it lies in kernel memory: written before anybody can find it, never afterwards.
//!
//! Which response that is, and in which chunks, is left to `hot`.

use cache_common::hot::{
    AGE_DIGITS, Asker, CELLS_MAX, CHUNK_BYTES, CHUNKS_MAX, HEADER_BYTES, HotHeader, response_at,
    response_bytes_max,
};

use super::hit_maps::Memory;

/// A response and the head that it answers.
#[derive(Clone, Copy, Debug)]
pub struct Resident<'a> {
    /// Whose it is.
    pub asker: Asker,
    /// The head's cells.
    pub cells: &'a [u64],
    /// The whole response, with `AGE_DIGITS` digits for its age.
    pub response: &'a [u8],
    /// Where those are.
    pub age_at: usize,
    /// Bytes of its content.
    pub content_bytes: usize,
    /// From when on it is not to be given any more, nanoseconds of `CLOCK_BOOTTIME`.
    pub expires_at_ns: u64,
    /// When its age was zero, on the same clock; wraps where that was before the clock began.
    pub born_at_ns: u64,
}

impl Resident<'_> {
    /// How many chunks it takes; `None` where it does not fit.
    pub fn chunks(&self) -> Option<usize> {
        let fits = !self.response.is_empty()
            && self.cells.len() <= CELLS_MAX
            && self.response.len() <= response_bytes_max(self.cells.len())
            // The kernel writes the digits in what it has copied first.
            && self.age_at + AGE_DIGITS <= self.response.len().min(CHUNK_BYTES);
        let bytes = response_at(self.cells.len()) + self.response.len();
        fits.then(|| bytes.div_ceil(CHUNK_BYTES)).filter(|count| *count <= CHUNKS_MAX)
    }

    /// Writes it into chunks, as many as it takes, that nobody can find.
    pub fn write(&self, memory: &Memory, chunks: &[u32], sequence: u64) {
        let Some(first) = chunks.first().copied() else { return };
        let at = response_at(self.cells.len());
        let mut header = HotHeader {
            sequence,
            asker: self.asker,
            expires_at_ns: self.expires_at_ns,
            born_at_ns: self.born_at_ns,
            cells: self.cells.len() as u32,
            response_at: at as u32,
            response_bytes: self.response.len() as u32,
            age_at: self.age_at as u32,
            content_bytes: self.content_bytes as u32,
            reserved: 0,
            chunks: [0; CHUNKS_MAX],
            hits: 0,
            padding: [0; 3],
        };
        for (slot, chunk) in header.chunks.iter_mut().zip(chunks) {
            *slot = *chunk;
        }
        memory.write(first, 0, header.as_bytes());
        let cells: Vec<u8> = self.cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
        memory.write(first, HEADER_BYTES, &cells);
        let (begin, rest) = self.response.split_at(self.response.len().min(CHUNK_BYTES - at));
        memory.write(first, at, begin);
        for (chunk, piece) in chunks.iter().skip(1).zip(rest.chunks(CHUNK_BYTES)) {
            memory.write(*chunk, 0, piece);
        }
    }
}
