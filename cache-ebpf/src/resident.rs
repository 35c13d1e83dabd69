//! Resident responses: finding the one of a head, and giving it to whoever sent the head.
//!
//! What is in the index is never written by the daemon, and its chunks are used again only after every program that
//! could have found them has ended; the number of a publication tells at the end that it was not taken back meanwhile.

use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_msg_pull_data;
use aya_ebpf::programs::SkMsgContext;
use cache_common::event::Counter;
use cache_common::hot::{
    AGE_MAX_S, Asker, BLOCK_BYTES, CELLS_AT, CELLS_MAX, CHUNK_BYTES, CHUNK_WORDS, CHUNKS_MAX, HEAD_BYTES_MAX,
    HEAD_BYTES_MIN, Hash, HotHeader, HotKey, HotSlot, KINDS, SCRATCH_CELLS, SKIPPED_MAX, Seeds, SkipList,
    SkippedName, Walk, Words, digits, kind,
};

use crate::maps::{CLIENTS, HOT_CHUNKS, HOT_INDEX, SCRATCH, Scratch, count_many};
use crate::order::{FAULT_COMPARE, FAULT_EXPIRED, FAULT_HASH, FAULT_RETIRED, is_left_out};
use crate::sk_msg::{Failed, bounds};

/// The secrets of the head hash; written at load.
#[unsafe(no_mangle)]
static SEEDS: Seeds = Seeds { start: [0; 2], factor: [1; 2] };
/// The fields that do not tell one request from another; written at load.
#[unsafe(no_mangle)]
static SKIP: SkipList = SkipList::EMPTY;

/// How many steps a walk may take: cells, and those of skipped lines.
const STEPS_MAX: usize = 352;
/// What the message may hold of a response beside the chunk that is being copied: packet offsets end at 65535.
const WINDOW_CHUNKS: usize = 15;
/// BPF_F_INGRESS: into the receive queue.
const INGRESS: u64 = 1;

type Chunk = [u64; CHUNK_WORDS];

/// A response that answers the head.
#[derive(Clone, Copy)]
pub struct Resident {
    first: *const Chunk,
    sequence: u64,
}

/// A field of the header of an entry, read once.
macro_rules! header {
    ($chunk:expr, $($field:tt)+) => {{
        let header: *const HotHeader = $chunk.cast();
        // SAFETY: the chunk is larger than a header; volatile, since the daemon may write what is not in use.
        unsafe { read_volatile(addr_of!((*header).$($field)+)) }
    }};
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
    if now >= expires_at && !is_left_out(FAULT_EXPIRED) {
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
    let is_it = header!(first, sequence) == sequence
        && header!(first, asker.workload) == asker.workload
        && header!(first, asker.ip) == asker.ip
        && header!(first, asker.port) == asker.port
        && header!(first, cells) as usize == cells;
    if (is_it && are_equal(first, scratch, cells)) || is_left_out(FAULT_COMPARE) {
        Ok(Resident { first, sequence })
    } else {
        Err(Counter::UnansweredOther)
    }
}

/// core has no fetch_add for this target without compare-and-swap; here adding and reading apart is as good: who reads
/// one is alone, since whoever comes later adds first.
#[inline(always)]
fn enter(scratch: *mut Scratch) -> u64 {
    add(scratch, 1);
    // SAFETY: a map value.
    unsafe { read_volatile(addr_of!((*scratch).users)) }
}

#[inline(always)]
fn leave(scratch: *mut Scratch) {
    add(scratch, u64::MAX);
}

#[inline(always)]
fn add(scratch: *mut Scratch, number: u64) {
    // SAFETY: an aligned u64 at the beginning of a map value, changed by this instruction only.
    unsafe {
        core::arch::asm!("lock *(u64 *)({at} + 0) += {number}", at = in(reg) scratch, number = in(reg) number)
    };
}

/// The message's bytes for the walk.
struct Message {
    data: usize,
    end: usize,
    size: usize,
    zero: *const u64,
}

impl Message {
    /// Where `bytes` bytes at an offset are, if they are in the message.
    #[inline(always)]
    fn place(&self, at: u64, bytes: usize) -> Option<usize> {
        let mut at = at;
        // Tells the verifier what the caller knows, and keeps the compiler from knowing it better.
        // SAFETY: changes a register.
        unsafe { core::arch::asm!("{at} &= 2047", at = inout(reg) at, options(nostack, nomem)) };
        let from = self.data + at as usize;
        if from + bytes > self.end { None } else { Some(from) }
    }
}

/// Eight bytes of a message.
///
/// # Safety
/// They are within its bounds, and the verifier knows it.
#[inline(always)]
unsafe fn load(from: usize) -> u64 {
    // SAFETY: as the caller says. Volatile makes one load of it: where this runs, loads need no alignment, but the
    // compiler would rather load bytes.
    unsafe { read_volatile(from as *const u64) }
}

impl Words for Message {
    #[inline(always)]
    fn size(&self) -> u64 {
        self.size as u64
    }
    #[inline(always)]
    fn words(&self, at: u64) -> [u64; 2] {
        match self.place(at, 16) {
            // SAFETY: within the bounds, as just compared.
            Some(from) => unsafe { [load(from), load(from + 8)] },
            None => [self.zero(), self.zero()],
        }
    }
    #[inline(always)]
    fn word(&self, at: u64) -> Option<u64> {
        let last = self.size as u64 - 8;
        // How many of the eight lie behind the end, without a branch.
        let missing = at.wrapping_sub(last);
        let missing = missing & !((missing as i64 >> 63) as u64);
        let from = self.place(at.wrapping_sub(missing), 8)?;
        // SAFETY: within the bounds, as just compared.
        Some(unsafe { load(from) } >> (missing.wrapping_mul(8) & 63))
    }
    #[inline(always)]
    fn zero(&self) -> u64 {
        // SAFETY: a map value, where nobody writes anything else.
        unsafe { read_volatile(self.zero) }
    }
    #[inline(always)]
    fn candidates(&self, word: u64) -> [u8; 2] {
        // SAFETY: a static of this object, replaced at load; a kind is below KINDS.
        unsafe {
            let kind = kind(word, read_volatile(addr_of!(SKIP.factor))) as usize & (KINDS - 1);
            let long = read_volatile(addr_of!(SKIP.kinds).cast::<u8>().add(kind));
            [long, read_volatile(addr_of!(SKIP.short)) as u8]
        }
    }
    #[inline(always)]
    fn skipped(&self, number: u8) -> SkippedName {
        let index = number as usize & (SKIPPED_MAX - 1);
        // SAFETY: a static of this object, replaced at load; the index is within it.
        unsafe { read_volatile(addr_of!(SKIP.names).cast::<SkippedName>().add(index)) }
    }
}

/// Cuts the head into cells, in `scratch`, and hashes them.
#[inline(always)]
fn walk(
    ctx: &SkMsgContext,
    size: usize,
    asker: &Asker,
    scratch: *mut Scratch,
) -> Result<(HotKey, usize), Counter> {
    // SAFETY: within a map value, where nobody writes anything but zero.
    let size = size ^ unsafe { read_volatile(addr_of!((*scratch).zero)) } as usize;
    if !(HEAD_BYTES_MIN..=HEAD_BYTES_MAX).contains(&size) {
        return Err(Counter::UnansweredTooLong);
    }
    let (data, end) = bounds(ctx);
    if data + size > end {
        return Err(Counter::UnansweredNoMemory);
    }
    // SAFETY: within a map value.
    let message = Message { data, end, size, zero: unsafe { addr_of!((*scratch).zero) } };
    let end = message.word(size as u64 - 8).ok_or(Counter::UnansweredNoMemory)?;
    if end >> 32 != u64::from(u32::from_le_bytes(*b"\r\n\r\n")) {
        return Err(Counter::UnansweredNoHead);
    }
    // SAFETY: a static of this object, replaced at load.
    let seeds = unsafe { read_volatile(addr_of!(SEEDS)) };
    let mut hash = Hash::new(seeds, asker);
    let mut walk = Walk::new();
    let mut cells = 0_u64;
    let mut step = 0;
    loop {
        cells ^= message.zero();
        if walk.at >= size as u64 {
            break;
        }
        if step == STEPS_MAX || cells >= CELLS_MAX as u64 {
            return Err(Counter::UnansweredTooLong);
        }
        step += 1;
        let stepped = walk.step(&message, |cell| {
            hash.add(cell);
            // SAFETY: a map value; the index is within it.
            unsafe {
                let to = addr_of!((*scratch).cells)
                    .cast_mut()
                    .cast::<u64>()
                    .add(cells as usize & (SCRATCH_CELLS - 1));
                write_volatile(to, cell);
            }
            cells += 1;
        });
        stepped.ok_or(Counter::UnansweredNoMemory)?;
    }
    if walk.is_odd != 0 {
        return Err(Counter::UnansweredCold);
    }
    let key = if is_left_out(FAULT_HASH) { HotKey { lanes: [0; 2] } } else { hash.key() };
    Ok((key, cells as usize))
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
    /// Turns the message into the response and sends it back into the socket.
    ///
    /// The response is put before the request, which is taken away last: until then everything can be undone.
    #[inline(always)]
    pub fn give(&self, ctx: &SkMsgContext, size: usize, cookie: u64, now: u64) -> Result<(), Failed> {
        let bytes = header!(self.first, response_bytes);
        let padded = (bytes as usize).next_multiple_of(BLOCK_BYTES) as u32;
        if bytes == 0 || padded as usize > CHUNKS_MAX * CHUNK_BYTES {
            return Err(Counter::UnansweredOther.into());
        }
        ctx.push_data(0, padded, 0).map_err(|_| Counter::UnansweredNoMemory)?;
        let copied = self.copy(ctx, padded as usize).and_then(|()| self.write_age(ctx, padded, now));
        let is_still_there = header!(self.first, sequence) == self.sequence || is_left_out(FAULT_RETIRED);
        let failed = match copied {
            Ok(()) if is_still_there => None,
            Ok(()) => Some(Counter::UnansweredOther),
            Err(why) => Some(why),
        };
        if let Some(why) = failed {
            return Err(undo(ctx, padded, why));
        }
        let mut key = cookie;
        if CLIENTS.redirect_msg(ctx, &mut key, INGRESS) != 1 {
            return Err(undo(ctx, padded, Counter::UnansweredNoHits));
        }
        ctx.pop_data(bytes, padded - bytes + size as u32, 0).map_err(|_| Failed::Spoilt)
    }

    /// Copies the response to the beginning of the message.
    #[inline(always)]
    fn copy(&self, ctx: &SkMsgContext, bytes: usize) -> Result<(), Counter> {
        let (mut data, mut end) = bounds(ctx);
        let (mut copied, mut in_window) = (0_usize, 0_u64);
        let zero = SCRATCH.get_ptr(0).ok_or(Counter::UnansweredNoMemory)?;
        let mut from = u64::from(header!(self.first, response_at));
        let mut index = 0;
        while index < CHUNKS_MAX {
            if copied >= bytes {
                return Ok(());
            }
            if index == WINDOW_CHUNKS {
                // SAFETY: the context of this program.
                if unsafe { bpf_msg_pull_data(ctx.msg, copied as u32, bytes as u32, 0) } != 0 {
                    return Err(Counter::UnansweredNoMemory);
                }
                (data, end) = bounds(ctx);
                in_window = 0;
            }
            // SAFETY: a map value, where nobody writes anything but zero: each number of bytes that the first chunk may
            // hold would be a case of its own for the verifier.
            let zero = unsafe { read_volatile(addr_of!((*zero).zero)) };
            copied ^= zero as usize;
            in_window ^= zero;
            // SAFETY: within the header; volatile as every field of it.
            let number = unsafe {
                read_volatile(addr_of!((*self.first.cast::<HotHeader>()).chunks).cast::<u32>().add(index))
            };
            let chunk = HOT_CHUNKS.get_ptr(number).ok_or(Counter::UnansweredOther)?;
            let mut block = 0;
            while block < CHUNK_BYTES / BLOCK_BYTES {
                if copied >= bytes || from >= CHUNK_BYTES as u64 {
                    break;
                }
                // Tells the verifier what is so, and keeps the compiler from knowing it better.
                // SAFETY: changes registers.
                unsafe {
                    core::arch::asm!("{from} &= 0xe00", "{to} += 0", from = inout(reg) from, to = inout(reg) in_window,
                        options(nostack, nomem))
                };
                if in_window > (WINDOW_CHUNKS * CHUNK_BYTES) as u64 {
                    return Err(Counter::UnansweredOther);
                }
                let to = data + in_window as usize;
                if to + BLOCK_BYTES > end {
                    return Err(Counter::UnansweredNoMemory);
                }
                // SAFETY: the block is within the chunk and within the message.
                unsafe { copy_block(chunk.cast::<u64>().byte_add(from as usize), to as *mut u64) };
                from += BLOCK_BYTES as u64;
                in_window += BLOCK_BYTES as u64;
                copied += BLOCK_BYTES;
                block += 1;
            }
            from = 0;
            index += 1;
        }
        if copied >= bytes { Ok(()) } else { Err(Counter::UnansweredOther) }
    }

    /// Writes the age over its digits, which are in the first chunk of the response.
    #[inline(always)]
    fn write_age(&self, ctx: &SkMsgContext, bytes: u32, now: u64) -> Result<(), Counter> {
        const FIRST: usize = WINDOW_CHUNKS * CHUNK_BYTES;
        // SAFETY: the context of this program.
        if bytes as usize > FIRST && unsafe { bpf_msg_pull_data(ctx.msg, 0, FIRST as u32, 0) } != 0 {
            return Err(Counter::UnansweredNoMemory);
        }
        let (data, end) = bounds(ctx);
        let at = header!(self.first, age_at) as usize & (CHUNK_BYTES - 1);
        let to = data + at;
        if to + 8 > end {
            return Err(Counter::UnansweredOther);
        }
        let age = now.wrapping_sub(header!(self.first, born_at_ns)) / 1_000_000_000;
        // SAFETY: within the bounds that the verifier knows; one store.
        unsafe { write_volatile(to as *mut u64, digits(age.min(AGE_MAX_S))) };
        Ok(())
    }

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

#[inline(always)]
fn undo(ctx: &SkMsgContext, padded: u32, why: Counter) -> Failed {
    match ctx.pop_data(0, padded, 0) {
        Ok(()) => Failed::Passed(why),
        Err(_) => Failed::Spoilt,
    }
}

/// Copies `BLOCK_BYTES` bytes, a word at a time: the verifier wants loads and stores of fixed size.
///
/// # Safety
/// Both are that long.
#[inline(always)]
unsafe fn copy_block(from: *const u64, to: *mut u64) {
    macro_rules! words {
        // SAFETY: as the caller says.
        ($($index:literal)+) => { $( unsafe { write_volatile(to.add($index), read_volatile(from.add($index))) }; )+ };
    }
    words!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
        40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
}
