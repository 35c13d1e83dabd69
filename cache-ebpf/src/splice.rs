//! fentry on `tcp_splice_read`: splice(2) does not see what `sk_msg` puts into a socket and waits for it for ever. A
//! socket that is read with it gets no more answers of the kernel.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::programs::FEntryContext;
use cache_common::event::Counter;
use cache_common::hot::SPLICES;

use crate::maps::{CONNECTIONS, count, socket_dst};

/// Offset of `sk` in `struct socket`, bytes; written at load.
#[unsafe(no_mangle)]
static OFFSET_SOCKET_SK: u32 = 0;

/// Somebody reads a socket with splice(2).
#[inline(always)]
pub fn read(ctx: &FEntryContext) {
    let socket: *const core::ffi::c_void = ctx.arg(0);
    // SAFETY: a static of this object, replaced at load.
    let offset = u64::from(unsafe { read_volatile(addr_of!(OFFSET_SOCKET_SK)) });
    let inner: *mut bpf_sock;
    // SAFETY: a load from a kernel object, at an offset that the verifier knows and checks.
    unsafe {
        core::arch::asm!(
            "{at} = {socket}",
            "{at} += {offset}",
            "{inner} = *(u64 *)({at} + 0)",
            at = out(reg) _,
            inner = out(reg) inner,
            socket = in(reg) socket,
            offset = in(reg) offset,
            options(nostack, readonly)
        )
    };
    let Some(original) = socket_dst(inner) else { return };
    if let Some(record) = CONNECTIONS.get_ptr_mut(original.cookie) {
        // SAFETY: a map value; a flag that is only ever set, and set again at the next splice if another program wrote
        // over it.
        unsafe {
            if (*record).flags & SPLICES == 0 {
                (*record).flags |= SPLICES;
                count(Counter::Splicing);
            }
        }
    }
}
