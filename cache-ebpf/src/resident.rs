//! Resident responses: finding the one of a head.
//!
//! What is in the index is never written by the daemon, and its chunks are used again only after every program that
//! could have found them has ended; the number of a publication tells at the end that it was not taken back meanwhile.
//! Giving it is left to `give`.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::programs::SkMsgContext;
use cache_common::event::Counter;
use cache_common::faults;
use cache_common::hot::{Asker, CELLS_AT, CELLS_MAX, CHUNK_WORDS, HotHeader, HotSlot};

use crate::head::walk;
use crate::maps::{HOT_CHUNKS, HOT_INDEX, SCRATCH, Scratch, add, count_many};
use crate::order::is_left_out;

/// A piece of the memory of resident responses.
pub type Chunk = [u64; CHUNK_WORDS];

/// A response that answers the head.
#[derive(Clone, Copy)]
pub struct Resident {
    pub(crate) first: *const Chunk,
    pub(crate) sequence: u64,
}

/// A field of the header of an entry, read once.
macro_rules! header {
    ($chunk:expr, $($field:tt)+) => {{
        let header: *const cache_common::hot::HotHeader = $chunk.cast();
        // SAFETY: the chunk is larger than a header; volatile, since the daemon may write what is not in use.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!((*header).$($field)+)) }
    }};
}

pub(crate) use header;

impl Resident {
    /// How many bytes it has, its head included.
    #[inline(always)]
    pub fn bytes(&self) -> u32 {
        header!(self.first, response_bytes)
    }
}

/// The resident response to a head of `size` bytes.
#[inline(always)]
pub fn find(ctx: &SkMsgContext, size: usize, asker: &Asker, now: u64) -> Result<Resident, Counter> {
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(Counter::UnansweredNoMemory)?;
    // A program of this CPU that this one has interrupted is still reading its own cells there.
    let found = match enter(scratch) {
        1 => look_up(ctx, size, asker, scratch),
        _ => Err(Counter::UnansweredOther),
    };
    leave(scratch);
    let resident = found?;
    let expires_at = header!(resident.first, expires_at_ns);
    if !is_left_out(faults::EXPIRED) && now >= expires_at {
        return Err(Counter::UnansweredExpired);
    }
    Ok(resident)
}

#[inline(always)]
fn look_up(
    ctx: &SkMsgContext,
    size: usize,
    asker: &Asker,
    scratch: *mut Scratch,
) -> Result<Resident, Counter> {
    let (key, cells) = walk(ctx, size, asker, scratch)?;
    // SAFETY: replaced by the daemon as a whole or by another key's: whatever is read of it is checked below.
    let HotSlot { sequence, chunk, .. } = *unsafe { HOT_INDEX.get(key) }.ok_or(Counter::UnansweredCold)?;
    let first = HOT_CHUNKS.get_ptr(chunk).ok_or(Counter::UnansweredOther)?;
    let is_its = || {
        header!(first, sequence) == sequence
            && header!(first, asker.workload) == asker.workload
            && header!(first, asker.ip) == asker.ip
            && header!(first, asker.port) == asker.port
            && header!(first, asker.epoch) == asker.epoch
            && header!(first, cells) as usize == cells
    };
    if is_left_out(faults::COMPARE) || (is_its() && are_equal(first, scratch, cells)) {
        Ok(Resident { first, sequence })
    } else {
        Err(Counter::UnansweredOther)
    }
}

/// core has no fetch_add for this target without compare-and-swap; here adding and reading apart is as good: who reads
/// one is alone, since whoever comes later adds first.
#[inline(always)]
fn enter(scratch: *mut Scratch) -> u64 {
    // SAFETY: the first word of a map value, changed in this way only.
    unsafe { add(scratch.cast(), 1) };
    // SAFETY: a map value.
    unsafe { read_volatile(addr_of!((*scratch).users)) }
}

#[inline(always)]
fn leave(scratch: *mut Scratch) {
    // SAFETY: as above.
    unsafe { add(scratch.cast(), u64::MAX) };
}

#[inline(always)]
fn are_equal(first: *const Chunk, scratch: *mut Scratch, cells: usize) -> bool {
    let mut index = 0;
    while index < CELLS_MAX {
        if index >= cells {
            return true;
        }
        // SAFETY: both indices are below CELLS_MAX, which fits in a chunk behind a header, and in the scratch memory.
        let (theirs, ours) = unsafe {
            let theirs = first.cast::<u64>().add(CELLS_AT + index);
            let ours = addr_of!((*scratch).cells).cast::<u64>().add(index);
            (read_volatile(theirs), read_volatile(ours))
        };
        if theirs != ours {
            return false;
        }
        index += 1;
    }
    cells == CELLS_MAX
}

impl Resident {
    /// Counts it as given.
    #[inline(always)]
    pub fn given(&self) {
        let hits = self.first.cast::<HotHeader>();
        // SAFETY: an aligned u64 in a map value, changed by this instruction only while the entry is in use.
        unsafe {
            let at = addr_of!((*hits).hits);
            core::arch::asm!("lock *(u64 *)({at} + 0) += {one}", at = in(reg) at, one = in(reg) 1_u64);
        }
        count_many(Counter::KernelBytes, header!(self.first, content_bytes).into());
    }
}
