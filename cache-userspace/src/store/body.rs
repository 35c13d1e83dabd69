//! A complete content: segments that each hold their share of the budget, and what can be made of those of others.
//!
//! Which parts belong together (RFC 9111 §3.4) is left to `policy`.

use std::ops::Range;

use bytes::Bytes;

use super::{
    budget::Permit,
    fill::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_OVERHEAD_BYTES},
    purge::Sequence,
};
use crate::policy::Reason;

/// A complete content. A segment counts against the store's budget until its last clone or slice is dropped.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub(super) pieces: Vec<Piece>,
    bytes: u64,
    /// When the forward of the oldest bytes in it began: a purge since then concerns the whole.
    began: Option<Sequence>,
}

/// A segment or a slice of one.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) data: Bytes,
    /// Bytes of the budget that it keeps, those of the whole segment.
    pub(super) held_bytes: u32,
}

/// A closed segment with its share of the budget.
struct Segment {
    data: Box<[u8]>,
    _permit: Permit,
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Piece {
    /// A whole segment; what the permit holds beyond it goes back.
    pub(super) fn whole(data: Vec<u8>, mut permit: Permit) -> Self {
        let data = data.into_boxed_slice();
        permit.shrink(data.len() as u64 + SEGMENT_OVERHEAD_BYTES);
        let held_bytes = u32::try_from(permit.bytes()).unwrap_or(u32::MAX);
        Self { data: Bytes::from_owner(Segment { data, _permit: permit }), held_bytes }
    }

    /// Whether it keeps more of the budget than it is worth, alone or because it is a crumb.
    fn is_wasteful(&self) -> bool {
        let held = self.held_bytes as usize;
        self.data.len() < SEGMENT_BYTES_MIN || self.data.len() * 2 < held
    }
}

impl Body {
    pub(super) fn from_pieces(pieces: Vec<Piece>, bytes: u64) -> Self {
        Self { pieces, bytes, began: None }
    }

    /// The bytes in this range, sharing their segments; what lies beyond the end is left out.
    pub fn slice(&self, range: Range<u64>) -> Self {
        let mut cut = Self { began: self.began, ..Self::default() };
        let mut start = 0_u64;
        for piece in &self.pieces {
            let end = start + piece.data.len() as u64;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                // Both lie within the piece, whose length is a usize.
                let data = piece.data.slice((from - start) as usize..(to - start) as usize);
                cut.bytes += data.len() as u64;
                cut.pieces.push(Piece { data, held_bytes: piece.held_bytes });
            }
            start = end;
        }
        cut
    }

    /// Puts another content after this one.
    pub fn append(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.began = [self.began, other.began].into_iter().flatten().min();
        self.pieces.extend(other.pieces);
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same, known to be as old as a forward that began then.
    pub(super) fn since(mut self, begun: Sequence) -> Self {
        self.began = Some(self.began.map_or(begun, |began| began.min(begun)));
        self
    }

    /// When the forward of its oldest bytes began, if that is before `begun`.
    pub(super) fn begun(&self, begun: Sequence) -> Sequence {
        self.began.map_or(begun, |began| began.min(begun))
    }

    /// Bytes of the budget that its segments keep; a segment that it holds twice counts twice.
    pub(super) fn held_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.held_bytes)).sum()
    }

    /// Copies neighbours that keep much more of the budget than they show into segments of their own, so that
    /// no series of small ranges costs many times its bytes.
    ///
    /// `reserve` takes bytes out of the budget; where it refuses, the slices stay as they are.
    pub(super) fn compact(&mut self, reserve: impl Fn(u64) -> Result<Permit, Reason>) {
        let mut together = 0;
        let runs = self.pieces.chunk_by(|left, right| {
            together = together.max(left.data.len()) + right.data.len();
            let joins = left.is_wasteful() && right.is_wasteful() && together <= SEGMENT_BYTES_MAX;
            together = if joins { together } else { 0 };
            joins
        });
        let mut pieces = Vec::new();
        for run in runs {
            match joined(run, &reserve) {
                Some(piece) => pieces.push(piece),
                None => pieces.extend_from_slice(run),
            }
        }
        self.pieces = pieces;
    }
}

/// One segment of these pieces, if that keeps less of the budget.
fn joined(run: &[Piece], reserve: impl Fn(u64) -> Result<Permit, Reason>) -> Option<Piece> {
    let bytes: usize = run.iter().map(|piece| piece.data.len()).sum();
    let own_bytes = bytes as u64 + SEGMENT_OVERHEAD_BYTES;
    let held_bytes: u64 = run.iter().map(|piece| u64::from(piece.held_bytes)).sum();
    if own_bytes >= held_bytes || !run.iter().all(Piece::is_wasteful) {
        return None;
    }
    let permit = reserve(own_bytes).ok()?;
    let mut data = Vec::new();
    data.try_reserve_exact(bytes).ok()?;
    run.iter().for_each(|piece| data.extend_from_slice(&piece.data));
    Some(Piece::whole(data, permit))
}
