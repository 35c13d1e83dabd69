//! Gives a resident response to whoever sent the head that it answers: turns the message into it and sends it back
//! into the socket.

use core::ffi::c_void;
use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::bindings::sk_msg_md;
use aya_ebpf::helpers::{bpf_loop, bpf_msg_pull_data};
use aya_ebpf::programs::SkMsgContext;
use cache_common::event::Counter;
use cache_common::faults;
use cache_common::hot::{AGE_MAX_S, BLOCK_BYTES, CHUNK_BYTES, CHUNKS_MAX, HotHeader, digits};

use crate::maps::{CLIENTS, HOT_CHUNKS};
use crate::order::is_left_out;
use crate::resident::{Chunk, Resident, header};
use crate::sk_msg::{Failed, bounds};

/// How much of a message is shown at a time, in blocks: packet offsets end at 65535.
const WINDOW_BLOCKS: u64 = 112;
/// The most blocks of a response.
const BLOCKS_MAX: u32 = (CHUNKS_MAX * CHUNK_BYTES / BLOCK_BYTES) as u32;
/// BPF_F_INGRESS: into the receive queue.
const INGRESS: u64 = 1;

impl Resident {
    /// Turns the message into the response and sends it back into the socket.
    ///
    /// The response is put before the request, which is taken away last: until then everything can be undone. What is
    /// left is one piece of memory: of a message in two the kernel could send back the first and ask the program about
    /// the second, which would then go to the daemon as a request.
    #[inline(always)]
    pub fn give(&self, ctx: &SkMsgContext, size: usize, cookie: u64, now: u64) -> Result<(), Failed> {
        let bytes = header!(self.first, response_bytes);
        let padded = (bytes as usize).next_multiple_of(BLOCK_BYTES) as u32;
        if bytes == 0 || padded as usize > CHUNKS_MAX * CHUNK_BYTES {
            return Err(Counter::UnansweredOther.into());
        }
        ctx.push_data(0, padded, 0).map_err(|_| Counter::UnansweredNoMemory)?;
        let copied = self.copy(ctx, padded as usize).and_then(|()| self.write_age(ctx, padded, now));
        let is_still_there = is_left_out(faults::RETIRED) || header!(self.first, sequence) == self.sequence;
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
