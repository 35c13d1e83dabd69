//! Whether a request may be answered before the daemon has seen it. Linux reads what `sk_msg` puts into a socket before
//! what TCP brought: an answer that overtakes another one is a wrong answer.
//!
//! Nothing is outstanding if every byte that was sent belongs to a message that the daemon has answered, every byte
//! that the daemon wrote has arrived, and everything that arrived was read.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::{BPF_TCP_ESTABLISHED, bpf_sock};
use cache_common::event::Counter;
use cache_common::faults;
use cache_common::hot::{
    BLOCKS, ConnectionRecord, LEAVES, NO_HITS, PIPELINES, Published, SMALL_BYTES_MAX, SPLICES, setting,
};

use crate::context::load_u32;
use crate::maps::{PUBLISHED, SETTINGS, count};
use crate::tcp::Tcp;

/// After so many answers in a row the daemon gets a request; a power of two.
#[unsafe(no_mangle)]
static SAMPLED_HITS: u32 = 256;
/// After so long, nanoseconds, too.
#[unsafe(no_mangle)]
static SAMPLED_NS: u64 = 5_000_000_000;

/// Conditions that are left out (`faults`); written at load.
#[unsafe(no_mangle)]
static FAULTS: u32 = 0;

/// Whether a condition is left out. Asked first: the verifier knows the answer and takes what follows out, so that what
/// a condition costs can be measured.
#[inline(always)]
pub fn is_left_out(fault: u32) -> bool {
    // SAFETY: a static of this object; volatile, since the daemon replaces its value at load.
    unsafe { read_volatile(addr_of!(FAULTS)) & fault != 0 }
}

/// One send() of a connection.
pub struct Order<'a> {
    /// The client's socket.
    pub tcp: Tcp,
    /// What is counted of the connection.
    pub record: &'a mut ConnectionRecord,
    /// The socket's cookie.
    pub cookie: u64,
    /// Now, nanoseconds of `CLOCK_BOOTTIME`.
    pub now: u64,
}

impl Order<'_> {
    /// Whether an answer now is the next one that the client waits for.
    #[inline(always)]
    pub fn check(&self, socket: *mut bpf_sock) -> Result<(), Counter> {
        if self.record.flags & (PIPELINES | SPLICES) != 0 {
            return Err(Counter::UnansweredNoHits);
        }
        let Published { answered, written, flags, .. } = self.published()?;
        if flags & NO_HITS != 0 || load_u32!(socket, bpf_sock, state) != BPF_TCP_ESTABLISHED {
            return Err(Counter::UnansweredNoHits);
        }
        if !is_left_out(faults::OUTSTANDING) && self.tcp.bytes_sent() != answered {
            return Err(Counter::UnansweredOutstanding);
        }
        let is_all_here = is_left_out(faults::IN_FLIGHT) || self.tcp.bytes_received() == written;
        let is_all_read = is_left_out(faults::UNREAD_TCP) || self.tcp.is_drained();
        let is_empty = is_left_out(faults::UNREAD_HIT) || self.tcp.is_empty();
        if is_all_here && is_all_read && is_empty { Ok(()) } else { Err(Counter::UnansweredUnread) }
    }

    /// What the daemon says of the connection.
    #[inline(always)]
    fn published(&self) -> Result<Published, Counter> {
        let nothing = Published { cookie: self.cookie, ..Published::default() };
        // SAFETY: memory of the map until this program ends; whose, is checked.
        let Some(published) = (unsafe { PUBLISHED.get(self.cookie) }) else {
            // The daemon has not answered anything yet.
            return Ok(nothing);
        };
        // SAFETY: as above; the cookie last, which whoever takes the memory over writes first.
        let (answered, written, flags, cookie) = unsafe {
            (
                read_volatile(addr_of!(published.answered)),
                read_volatile(addr_of!(published.written)),
                read_volatile(addr_of!(published.flags)),
                read_volatile(addr_of!(published.cookie)),
            )
        };
        if cookie != self.cookie {
            return Err(Counter::UnansweredOutstanding);
        }
        Ok(Published { cookie, answered, written, flags })
    }

    /// Whether the daemon is to get this request though the kernel could answer it with so many bytes: so that it stays
    /// in the picture; not where its own answer, being a large one, would end the kernel's.
    ///
    /// Or because a blocking client half-closes after its only request and waits for the end, which, to a connection
    /// whose other side never received anything, comes with an interruption.
    #[inline(always)]
    pub fn is_sampled(&self, bytes: u32) -> bool {
        if self.tcp.bytes_sent() == 0 && self.blocks() {
            return true;
        }
        let is_separate = || SETTINGS.get(setting::IS_SEPARATE).copied().unwrap_or(0) != 0;
        if bytes > SMALL_BYTES_MAX && is_separate() && !self.blocks() {
            return false;
        }
        // SAFETY: statics of this object, replaced at load.
        let (hits, ns) =
            unsafe { (read_volatile(addr_of!(SAMPLED_HITS)), read_volatile(addr_of!(SAMPLED_NS))) };
        self.record.hits_in_row + 1 >= hits || self.now.saturating_sub(self.record.last_passed_ns) > ns
    }

    #[inline(always)]
    fn blocks(&self) -> bool {
        self.tcp.is_blocking() && !is_left_out(faults::STAY)
    }

    /// The application moves its bytes with splice(2) or the like, which does not see answers of the kernel.
    #[inline(always)]
    pub fn splices(&mut self) {
        self.record.flags |= SPLICES;
        count(Counter::Splicing);
    }

    /// The kernel has answered.
    #[inline(always)]
    pub fn answered(self) {
        self.record.hits += 1;
        self.record.hits_in_row += 1;
        self.record.last_hit_ns = self.now;
        count(Counter::KernelHits);
    }

    /// Bytes go on to the daemon. If an answer of ours is unread, the client pipelines.
    ///
    /// A read that waits on an enrolled socket fails (EAGAIN) whenever it is woken up without data: by a signal, a
    /// reset, a stop and continue. Who waits in that way goes back to plain TCP; `why` says whether the daemon answers
    /// at once.
    #[inline(always)]
    pub fn passed(self, why: Counter) {
        self.record.flags &= !BLOCKS;
        if self.blocks() {
            self.record.flags |= BLOCKS;
            if !matches!(why, Counter::UnansweredSampled) {
                self.record.flags |= LEAVES;
            }
        }
        if self.record.hits_in_row != 0 && !self.tcp.is_empty() && self.record.flags & PIPELINES == 0 {
            self.record.flags |= PIPELINES;
            count(Counter::Pipelining);
        }
        self.record.hits_in_row = 0;
        self.record.last_passed_ns = self.now;
    }
}
