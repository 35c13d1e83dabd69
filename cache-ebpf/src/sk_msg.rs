//! sk_msg on the clients' sockets: answers a request in the client's own send() if its response is resident and nothing
//! of the connection is outstanding; everything else passes to plain TCP.
//!
//! Whatever is in doubt passes. Order is judged by `order`, the head by `cache_common::hot`.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::{bpf_sock, sk_msg_md};
use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_msg_pull_data};
use aya_ebpf::programs::SkMsgContext;
use cache_common::connection::OriginalDst;
use cache_common::event::Counter;
use cache_common::faults;
use cache_common::hot::{Asker, HEAD_BYTES_MAX, HEAD_BYTES_MIN};
use cache_common::redirect::HEARTBEAT_MAX_AGE_NS;

use crate::caller;
use crate::maps::{CONNECTIONS, HEARTBEAT, count, socket_dst};
use crate::order::{Order, is_left_out};
use crate::resident::{self, Resident};
use crate::tcp::Tcp;

/// What becomes of a send().
pub enum Verdict {
    /// The bytes go on: to TCP, or, turned into a response, back to where they came from.
    Proceed,
    /// The bytes are neither a request nor a response any more: the send() fails.
    Fail,
}

/// An enrolled client sends something.
#[inline(always)]
pub fn sent(ctx: &SkMsgContext) -> Verdict {
    // SAFETY: the context's socket; read as a pointer only.
    let socket: *mut bpf_sock = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    let Some(original) = socket_dst(socket) else { return Verdict::Proceed };
    let Some(tcp) = Tcp::of(socket) else { return Verdict::Proceed };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(record) = CONNECTIONS.get_ptr_mut(original.cookie) else {
        count(Counter::UnansweredNoHits);
        return Verdict::Proceed;
    };
    // SAFETY: a map value that only the programs of this socket write, which its lock keeps apart; taken out by the
    // daemon it stays valid until this program ends.
    let record = unsafe { &mut *record };
    let mut order = Order { tcp, record, cookie: original.cookie, now };
    match answer(ctx, original, socket, &mut order) {
        Ok(resident) => {
            resident.given();
            order.answered();
            Verdict::Proceed
        }
        Err(Failed::Spoilt) => {
            count(Counter::AnswersSpoilt);
            Verdict::Fail
        }
        Err(Failed::Passed(why)) => {
            count(why);
            order.passed(why);
            Verdict::Proceed
        }
    }
}

/// Why a request was not answered.
pub enum Failed {
    /// The request goes on untouched.
    Passed(Counter),
    /// It could not be restored.
    Spoilt,
}

impl From<Counter> for Failed {
    #[inline(always)]
    fn from(why: Counter) -> Self {
        Self::Passed(why)
    }
}

#[inline(always)]
fn answer(
    ctx: &SkMsgContext,
    original: &OriginalDst,
    socket: *mut bpf_sock,
    order: &mut Order<'_>,
) -> Result<Resident, Failed> {
    let size = complete_head(ctx)?;
    let beat = HEARTBEAT.get(1).copied().unwrap_or(0);
    if beat == 0 || order.now.saturating_sub(beat) > HEARTBEAT_MAX_AGE_NS {
        return Err(Counter::UnansweredStale.into());
    }
    order.check(socket)?;
    let asker = Asker::of(original);
    let resident = resident::find(ctx, size, &asker, order.now)?;
    if !is_left_out(faults::CALLER) && !caller::is_sending() {
        order.splices();
        return Err(Counter::UnansweredNoHits.into());
    }
    if order.is_sampled(resident.bytes()) {
        return Err(Counter::UnansweredSampled.into());
    }
    resident.give(ctx, size, order.cookie, order.now)?;
    Ok(resident)
}

/// The size of what is sent, if it looks like a head and nothing else, all of it readable.
#[inline(always)]
fn complete_head(ctx: &SkMsgContext) -> Result<usize, Counter> {
    let size = ctx.size() as usize;
    if size > HEAD_BYTES_MAX {
        return Err(Counter::UnansweredTooLong);
    }
    if size < HEAD_BYTES_MIN {
        return Err(Counter::UnansweredNoHead);
    }
    let (data, end) = bounds(ctx);
    // Pages that the application still holds (splice, sendfile, zero copy) are not shown and not for us.
    if data + 4 > end {
        return Err(Counter::UnansweredNoHead);
    }
    // SAFETY: four bytes within the bounds that the verifier knows.
    let method = unsafe { *(data as *const u32) };
    if method != u32::from_le_bytes(*b"GET ") && method != u32::from_le_bytes(*b"HEAD") {
        return Err(Counter::UnansweredNoHead);
    }
    if data + size > end {
        // The send() met the end of a page: one piece again.
        // SAFETY: the context of this program.
        if unsafe { bpf_msg_pull_data(ctx.msg, 0, size as u32, 0) } != 0 {
            return Err(Counter::UnansweredNoMemory);
        }
    }
    Ok(size)
}

/// Where the readable bytes begin and end; to be asked again after whatever changes the message.
#[inline(always)]
pub fn bounds(ctx: &SkMsgContext) -> (usize, usize) {
    let words: *const u64 = addr_of!((*ctx.msg)).cast();
    // SAFETY: the first two fields of the context; volatile, so that each is a load of its own.
    unsafe { (read_volatile(words) as usize, read_volatile(words.add(1)) as usize) }
}

const _: () = assert!(core::mem::offset_of!(sk_msg_md, __bindgen_anon_2) == 8);
