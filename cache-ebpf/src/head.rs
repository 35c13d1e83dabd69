//! Walks over the head in a message: cuts it into cells and hashes them, as `cache_common::hot` says.

use core::ffi::c_void;
use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::bindings::sk_msg_md;
use aya_ebpf::helpers::bpf_loop;
use aya_ebpf::programs::SkMsgContext;
use cache_common::event::Counter;
use cache_common::hot::{
    Asker, CELLS_MAX, HEAD_BYTES_MAX, HEAD_BYTES_MIN, Hash, HotKey, KINDS, SCRATCH_CELLS, SKIPPED_MAX,
    STEPS_MAX, Seeds, SkipList, SkippedName, Walk, Words, kind,
};

use crate::maps::Scratch;
use crate::sk_msg::bounds;

/// The secrets of the head hash; written at load.
#[unsafe(no_mangle)]
static SEEDS: Seeds = Seeds { start: [0; 2], factor: [1; 2] };
/// The fields that do not tell one request from another; written at load.
#[unsafe(no_mangle)]
static SKIP: SkipList = SkipList::EMPTY;

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
pub fn walk(
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
        walk: Walk::begin(&message),
        hash: Hash::new(seeds, asker),
        cells: message.zero(),
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
    Ok((hash.key(), cells as usize))
}
