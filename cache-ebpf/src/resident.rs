//! Resident responses: finding the one of a head, and giving it to whoever sent the head.
//!
//! What is in the index is never written by the daemon, and its chunks are used again only after every program that
//! could have found them has ended; the number of a publication tells at the end that it was not taken back meanwhile.

use core::ffi::c_void;
use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::bindings::sk_msg_md;
use aya_ebpf::helpers::{bpf_loop, bpf_msg_pull_data};
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
const STEPS_MAX: u32 = 512;
/// How much of a message is shown at a time, in blocks: packet offsets end at 65535.
const WINDOW_BLOCKS: u64 = 112;
/// The most blocks of a response.
const BLOCKS_MAX: u32 = (CHUNKS_MAX * CHUNK_BYTES / BLOCK_BYTES) as u32;
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
    #[inline(always)]
    fn of(msg: *mut sk_msg_md, size: usize, scratch: *mut Scratch) -> Self {
        let (data, end) = bounds(&SkMsgContext::new(msg));
        // SAFETY: within a map value.
        Self { data, end, size, zero: unsafe { addr_of!((*scratch).zero) } }
    }

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

/// A walk over a head, from step to step.
struct Steps {
    msg: *mut sk_msg_md,
    scratch: *mut Scratch,
    size: u64,
    walk: Walk,
    hash: Hash,
    cells: u64,
}

/// One step; 1 ends the walk.
unsafe extern "C" fn step(_index: u32, steps: *mut Steps) -> i64 {
    // SAFETY: `walk` gives this pointer to the loop, and nothing else holds it meanwhile.
    let steps = unsafe { &mut *steps };
    if steps.walk.at >= steps.size || steps.cells > CELLS_MAX as u64 {
        return 1;
    }
    let message = Message::of(steps.msg, steps.size as usize, steps.scratch);
    // As the walk does it: every number of cells would be a case of its own.
    steps.cells ^= message.zero();
    let (hash, cells, scratch) = (&mut steps.hash, &mut steps.cells, steps.scratch);
    let stepped = steps.walk.step(&message, |cell| {
        hash.add(cell);
        // SAFETY: a map value; the index is within it.
        unsafe {
            let to = addr_of!((*scratch).cells).cast_mut().cast::<u64>();
            write_volatile(to.add(*cells as usize & (SCRATCH_CELLS - 1)), cell);
        }
        *cells += 1;
    });
    i64::from(stepped.is_none())
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
    let mut size = size ^ unsafe { read_volatile(addr_of!((*scratch).zero)) } as usize;
    // Older verifiers learn nothing from the comparison that the compiler makes of the next two.
    // SAFETY: changes a register.
    unsafe { core::arch::asm!("{size} &= 4095", size = inout(reg) size, options(nostack, nomem)) };
    if !(HEAD_BYTES_MIN..=HEAD_BYTES_MAX).contains(&size) {
        return Err(Counter::UnansweredTooLong);
    }
    let message = Message::of(ctx.msg, size, scratch);
    let end = message.word(size as u64 - 8).ok_or(Counter::UnansweredNoMemory)?;
    if end >> 32 != u64::from(u32::from_le_bytes(*b"\r\n\r\n")) {
        return Err(Counter::UnansweredNoHead);
    }
    // SAFETY: a static of this object, replaced at load.
    let seeds = unsafe { read_volatile(addr_of!(SEEDS)) };
    let mut steps = Steps {
        msg: ctx.msg,
        scratch,
        size: size as u64,
        walk: Walk::new(),
        hash: Hash::new(seeds, asker),
        cells: 0,
    };
    // A loop of the verifier's own: of any other it looks at every round.
    // SAFETY: the callback takes what it is given here, which outlives the call.
    unsafe { bpf_loop(STEPS_MAX, step as *mut c_void, (&raw mut steps).cast(), 0) };
    let Steps { walk, hash, cells, .. } = steps;
    if walk.at < size as u64 || cells > CELLS_MAX as u64 {
        return Err(Counter::UnansweredTooLong);
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
        let start = header!(self.first, response_at) as usize / BLOCK_BYTES;
        let blocks = bytes / BLOCK_BYTES;
        let mut copy =
            Copy { msg: ctx.msg, first: self.first, start: start as u64, blocks: blocks as u64, copied: 0 };
        // SAFETY: the callback takes what it is given here, which outlives the call.
        unsafe { bpf_loop(BLOCKS_MAX, copy_one as *mut c_void, (&raw mut copy).cast(), 0) };
        if copy.copied == blocks as u64 { Ok(()) } else { Err(Counter::UnansweredNoMemory) }
    }

    /// Writes the age over its digits, which are in the first chunk of the response.
    #[inline(always)]
    fn write_age(&self, ctx: &SkMsgContext, bytes: u32, now: u64) -> Result<(), Counter> {
        const FIRST: usize = WINDOW_BLOCKS as usize * BLOCK_BYTES;
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

/// Blocks being copied, one after the other.
struct Copy {
    msg: *mut sk_msg_md,
    first: *const Chunk,
    /// Where the response begins, in blocks.
    start: u64,
    blocks: u64,
    copied: u64,
}

/// Copies one block; 1 ends the copying.
unsafe extern "C" fn copy_one(index: u32, copy: *mut Copy) -> i64 {
    const PER_CHUNK: u64 = (CHUNK_BYTES / BLOCK_BYTES) as u64;
    // SAFETY: `copy` gives this pointer to the loop, and nothing else holds it meanwhile.
    let copy = unsafe { &mut *copy };
    let index = u64::from(index);
    if index >= copy.blocks {
        return 1;
    }
    if index == WINDOW_BLOCKS {
        let (from, to) = (WINDOW_BLOCKS as u32 * BLOCK_BYTES as u32, copy.blocks as u32 * BLOCK_BYTES as u32);
        // SAFETY: the context of the program.
        if unsafe { bpf_msg_pull_data(copy.msg, from, to, 0) } != 0 {
            return 1;
        }
    }
    let at = copy.start + index;
    let mut number = at / PER_CHUNK;
    // Tells the verifier what is so, here and below, and keeps the compiler from knowing it better.
    // SAFETY: changes a register.
    unsafe { core::arch::asm!("{number} &= 31", number = inout(reg) number, options(nostack, nomem)) };
    if number >= CHUNKS_MAX as u64 {
        return 1;
    }
    // SAFETY: within the header; volatile as every field of it.
    let chunk = unsafe {
        let chunks = addr_of!((*copy.first.cast::<HotHeader>()).chunks).cast::<u32>();
        read_volatile(chunks.add(number as usize))
    };
    let Some(chunk) = HOT_CHUNKS.get_ptr(chunk) else { return 1 };
    let mut from = (at % PER_CHUNK) * BLOCK_BYTES as u64;
    let mut to = (if index < WINDOW_BLOCKS { index } else { index - WINDOW_BLOCKS }) * BLOCK_BYTES as u64;
    // SAFETY: changes registers.
    unsafe {
        core::arch::asm!("{from} &= 0xe00", "{to} &= 0xfe00", from = inout(reg) from, to = inout(reg) to,
            options(nostack, nomem))
    };
    let (data, end) = bounds(&SkMsgContext::new(copy.msg));
    if to > (WINDOW_BLOCKS * BLOCK_BYTES as u64) {
        return 1;
    }
    let to = data + to as usize;
    if to + BLOCK_BYTES > end {
        return 1;
    }
    // SAFETY: the block is within the chunk and within the message.
    unsafe { copy_block(chunk.cast::<u64>().byte_add(from as usize), to as *mut u64) };
    copy.copied += 1;
    0
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
