//! The reading side of a content that is still being collected (RFC 9111 §4, collapsed requests), and the bounded way
//! on when the store refuses the rest of it.
//!
//! Readers share the closed segments; of the open one they copy what is there. A reader has a place of its own, so
//! that after a refusal everything is dropped that all of them have read. Nothing here waits: who appends or reads
//! tells the others, by means of the caller's.
//!
//! After a refusal, what was collected stays under the budget and at most [`HAND_OVER_BYTES_MAX`] beyond it wait for
//! the slowest reader: the writer then has to wait for it, as it would for its only client. A reader that does not
//! move must therefore be dropped by the caller after the time that it grants any client.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    body::Piece,
    fill::{Open, SEGMENT_OVERHEAD_BYTES},
};
use crate::policy::Reason;

/// Bytes that a content may hold outside the store's budget after the store refused the rest of it, the cost of each
/// allocation included.
pub const HAND_OVER_BYTES_MAX: usize = 256 << 10;

/// Bytes of the open segment that one read copies.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// What a reader finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes; never none.
    Data(Bytes),
    /// Nothing yet.
    Pending,
    /// The content is complete and read.
    End,
    /// What was collected is read, and the rest will not come.
    Failed,
}

/// Opens readers of a content that is being collected.
#[derive(Clone)]
pub struct Filled {
    state: Arc<Mutex<State>>,
}

/// Reads a content from its start while it is being collected.
pub struct Reader {
    filled: Filled,
    place: usize,
}

/// Hands a content on to its readers without storing it.
pub struct HandOver {
    shared: Shared,
    expected_bytes: Option<u64>,
    bytes: u64,
}

/// The writing side: tells the readers of its end.
#[derive(Default)]
pub(super) struct Shared {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    closed: VecDeque<Closed>,
    /// Bytes of the content that were closed, those included that were released.
    closed_bytes: u64,
    /// Bytes of the closed that are outside the budget.
    outside_bytes: usize,
    open: Option<Open>,
    /// Where each reader stands; a place that is free is used again.
    readers: Vec<Option<u64>>,
    is_handed_over: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Failed,
}

struct Closed {
    piece: Piece,
    /// Bytes of the content up to its end.
    end: u64,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn close(&mut self, piece: Piece) {
        self.closed_bytes += piece.data.len() as u64;
        self.outside_bytes += outside_bytes(&piece);
        self.closed.push_back(Closed { piece, end: self.closed_bytes });
    }

    fn read(&self, offset: u64, max: usize) -> Read {
        let index = self.closed.partition_point(|closed| closed.end <= offset);
        if let Some(Closed { piece, end }) = self.closed.get(index) {
            let data = &piece.data;
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX).min(data.len());
            let from = data.len() - left;
            return Read::Data(data.slice(from..from + left.min(max)));
        }
        let from = usize::try_from(offset.saturating_sub(self.closed_bytes)).unwrap_or(usize::MAX);
        let open = self.open.as_ref().and_then(|open| open.data.get(from..)).unwrap_or_default();
        let data = open.get(..open.len().min(max).min(COPIED_BYTES_MAX)).unwrap_or_default();
        match self.end {
            _ if !data.is_empty() => Read::Data(Bytes::copy_from_slice(data)),
            None => Read::Pending,
            Some(End::Complete) => Read::End,
            Some(End::Failed) => Read::Failed,
        }
    }

    /// Drops what every reader has read.
    fn release(&mut self) {
        let slowest = self.readers.iter().flatten().min().copied().unwrap_or(u64::MAX);
        while let Some(first) = self.closed.pop_front_if(|first| first.end <= slowest) {
            self.outside_bytes -= outside_bytes(&first.piece);
        }
    }
}

/// What a piece costs that holds nothing of the budget.
fn outside_bytes(piece: &Piece) -> usize {
    if piece.held_bytes == 0 { piece.data.len() + SEGMENT_OVERHEAD_BYTES as usize } else { 0 }
}

impl Filled {
    /// A reader at the start of the content; none if the store has refused the content or the content has failed.
    pub fn reader(&self) -> Option<Reader> {
        let mut state = lock(&self.state);
        if state.is_handed_over || state.end == Some(End::Failed) {
            return None;
        }
        let place = state.readers.iter().position(Option::is_none).unwrap_or(state.readers.len());
        match state.readers.get_mut(place) {
            Some(free) => *free = Some(0),
            None => state.readers.push(Some(0)),
        }
        Some(Reader { filled: self.clone(), place })
    }
}

impl Reader {
    /// Takes the next bytes, at most `max` (and at most 64 KiB where they must be copied).
    ///
    /// After a hand-over each read may make room for the writer.
    pub fn read(&mut self, max: usize) -> Read {
        let mut state = lock(&self.filled.state);
        let offset = state.readers.get(self.place).copied().flatten().unwrap_or_default();
        let read = state.read(offset, max.max(1));
        if let Read::Data(data) = &read {
            if let Some(place) = state.readers.get_mut(self.place) {
                *place = Some(offset + data.len() as u64);
            }
            if state.is_handed_over {
                state.release();
            }
        }
        read
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.filled.state);
        if let Some(place) = state.readers.get_mut(self.place) {
            *place = None;
        }
        if state.is_handed_over {
            state.release();
        }
    }
}

impl HandOver {
    pub(super) fn new(shared: Shared, expected_bytes: Option<u64>, bytes: u64) -> Self {
        let mut state = lock(&shared.state);
        if let Some(open) = state.open.take() {
            state.close(open.close());
        }
        state.is_handed_over = true;
        state.release();
        drop(state);
        Self { shared, expected_bytes, bytes }
    }

    /// Copies as many of the next bytes as there is room for, possibly none, and says how many; the rest is to be
    /// offered again after a reader has read or left.
    pub fn append(&mut self, data: &[u8]) -> usize {
        let mut state = lock(&self.shared.state);
        let taken = if state.readers.iter().any(Option::is_some) {
            let room =
                HAND_OVER_BYTES_MAX.saturating_sub(state.outside_bytes + SEGMENT_OVERHEAD_BYTES as usize);
            let now = data.get(..data.len().min(room)).unwrap_or_default();
            if !now.is_empty() {
                state.close(Piece { data: Bytes::copy_from_slice(now), held_bytes: 0 });
            }
            now.len()
        } else {
            data.len()
        };
        self.bytes += taken as u64;
        taken
    }

    /// Whether nobody reads any more.
    pub fn is_abandoned(&self) -> bool {
        lock(&self.shared.state).readers.iter().all(Option::is_none)
    }

    /// Ends the content; one shorter or longer than was expected is `incomplete` and fails for its readers (RFC 9112
    /// §8).
    pub fn finish(self) -> Result<(), Reason> {
        if self.expected_bytes.is_some_and(|expected| expected != self.bytes) {
            return Err(Reason::Incomplete);
        }
        lock(&self.shared.state).end = Some(End::Complete);
        Ok(())
    }
}

impl Shared {
    /// The room in the open segment, and how many segments there are.
    pub(super) fn room(&self) -> (usize, usize) {
        let state = lock(&self.state);
        let open = state.open.as_ref();
        (open.map_or(0, Open::room), state.closed.len() + usize::from(open.is_some()))
    }

    /// Copies bytes into the open segment and then into these.
    pub(super) fn append(&self, mut data: &[u8], opened: Vec<Open>) {
        let mut state = lock(&self.state);
        let mut opened = opened.into_iter();
        while !data.is_empty() {
            let Some(mut open) = state.open.take().or_else(|| opened.next()) else { break };
            let (now, later) = data.split_at_checked(open.room()).unwrap_or((data, &[]));
            open.data.extend_from_slice(now);
            data = later;
            if open.room() == 0 {
                state.close(open.close());
            } else {
                state.open = Some(open);
            }
        }
    }

    pub(super) fn filled(&self) -> Filled {
        Filled { state: self.state.clone() }
    }

    /// Ends the content; its segments stay with those who still read.
    pub(super) fn complete(self) -> Vec<Piece> {
        let mut state = lock(&self.state);
        if let Some(open) = state.open.take() {
            state.close(open.close());
        }
        state.end = Some(End::Complete);
        state.closed.iter().map(|closed| closed.piece.clone()).collect()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&self.state).end.get_or_insert(End::Failed);
    }
}
