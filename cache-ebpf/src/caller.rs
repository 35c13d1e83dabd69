//! How a request is sent. Who moves bytes with splice(2) or sendfile(2) reads them so too, most likely, and that does not
//! see what `sk_msg` puts into a socket. Linux 6.5 and later show such bytes to `sk_msg` like any others; the number of
//! the system call, among the registers at the end of the task's stack, tells them apart.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel};
use cache_common::hot::{SENDING_CALLS, setting};

use crate::maps::SETTINGS;
use crate::tcp::load_at;

/// Offset of `stack` in `struct task_struct`, bytes; written at load.
#[unsafe(no_mangle)]
static OFFSET_TASK_STACK: u32 = 0;
/// Numbers of the calls that send what is in the caller's memory; written at load.
#[unsafe(no_mangle)]
static SENDING: [u32; SENDING_CALLS] = [0; SENDING_CALLS];

/// Whether the bytes come from a call that sends what is in the caller's memory.
#[inline(always)]
pub fn is_sending() -> bool {
    let offset = SETTINGS.get(setting::SYSCALL_AT).copied().unwrap_or(0);
    if offset == 0 {
        return false;
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() };
    let number = (load_at!(task, OFFSET_TASK_STACK, "u64") + offset) as *const u32;
    // SAFETY: a read that faults fails.
    let Ok(number) = (unsafe { bpf_probe_read_kernel(number) }) else { return false };
    // SAFETY: a static of this object, replaced at load.
    let sending = unsafe { read_volatile(addr_of!(SENDING)) };
    // Not one after the other: the verifier would follow each outcome.
    sending.into_iter().fold(false, |is_one, call| is_one | (call == number))
}
