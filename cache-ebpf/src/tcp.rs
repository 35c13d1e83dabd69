//! Fields of the kernel's own socket that no helper shows. Where they are, the daemon reads from the running kernel's
//! BTF and writes here at load; at wrong places they hold other numbers, and nothing is answered.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::{bpf_sock, tcp_sock};
use aya_ebpf::helpers::bpf_skc_to_tcp_sock;

/// Offsets in `struct tcp_sock`, bytes; written at load.
#[unsafe(no_mangle)]
static OFFSET_COPIED_SEQ: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_RCV_NXT: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_RMEM_ALLOC: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_WRITE_SEQ: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_SND_UNA: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_BYTES_RECEIVED: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_BYTES_ACKED: u32 = 0;
#[unsafe(no_mangle)]
static OFFSET_SK_SOCKET: u32 = 0;
/// In `struct socket`.
#[unsafe(no_mangle)]
static OFFSET_SOCKET_FILE: u32 = 0;
/// In `struct file`.
#[unsafe(no_mangle)]
static OFFSET_FILE_FLAGS: u32 = 0;
/// The byte with the flag `is_mptcp`, and the flag in it; no flag where the kernel has no MPTCP.
#[unsafe(no_mangle)]
static OFFSET_IS_MPTCP: u32 = 0;
#[unsafe(no_mangle)]
static MASK_IS_MPTCP: u32 = 0;

/// On x86-64 and arm64.
const O_NONBLOCK: u64 = 0o4000;

/// The socket in the kernel's own form.
#[derive(Clone, Copy)]
pub struct Tcp(*mut tcp_sock);

/// Loads a field at an offset that is known at load: the verifier takes the sum as a constant.
macro_rules! load_at {
    ($socket:expr, $offset:ident, $size:literal) => {{
        // SAFETY: a static of this object; volatile, since the daemon replaces its value at load.
        let offset = u64::from(unsafe { read_volatile(addr_of!($offset)) });
        let value: u64;
        // SAFETY: the verifier lets a load from a kernel object fault softly, wherever in it.
        unsafe {
            core::arch::asm!(
                "{at} = {socket}",
                "{at} += {offset}",
                concat!("{value} = *(", $size, " *)({at} + 0)"),
                at = out(reg) _,
                value = out(reg) value,
                socket = in(reg) $socket,
                offset = in(reg) offset,
                options(nostack, readonly)
            )
        };
        value
    }};
}

impl Tcp {
    /// The TCP socket that this is.
    #[inline(always)]
    pub fn of(socket: *mut bpf_sock) -> Option<Self> {
        if socket.is_null() {
            return None;
        }
        // SAFETY: a socket of the context.
        let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
        if tcp.is_null() { None } else { Some(Self(tcp)) }
    }

    /// Bytes that the application has sent by TCP since the connection began, those not yet on the wire included.
    #[inline(always)]
    pub fn bytes_sent(self) -> u64 {
        // The SYN counts as acknowledged.
        let acked = load_at!(self.0, OFFSET_BYTES_ACKED, "u64").wrapping_sub(1);
        acked.wrapping_add(self.bytes_unacked())
    }

    /// Bytes that are sent and not acknowledged.
    #[inline(always)]
    pub fn bytes_unacked(self) -> u64 {
        let written = load_at!(self.0, OFFSET_WRITE_SEQ, "u32") as u32;
        u64::from(written.wrapping_sub(load_at!(self.0, OFFSET_SND_UNA, "u32") as u32))
    }

    /// Bytes that have arrived by TCP since the connection began; one more after the peer's FIN.
    #[inline(always)]
    pub fn bytes_received(self) -> u64 {
        load_at!(self.0, OFFSET_BYTES_RECEIVED, "u64")
    }

    /// Whether the application has read all that arrived by TCP.
    #[inline(always)]
    pub fn is_drained(self) -> bool {
        load_at!(self.0, OFFSET_COPIED_SEQ, "u32") as u32 == load_at!(self.0, OFFSET_RCV_NXT, "u32") as u32
    }

    /// Whether no received bytes, by TCP or from `sk_msg`, hold memory.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        load_at!(self.0, OFFSET_RMEM_ALLOC, "u32") as u32 == 0
    }

    /// Whether reads of it wait, as far as its file says (a read may say otherwise with MSG_DONTWAIT).
    #[inline(always)]
    pub fn is_blocking(self) -> bool {
        let socket = load_at!(self.0, OFFSET_SK_SOCKET, "u64");
        let file = load_at!(socket, OFFSET_SOCKET_FILE, "u64");
        load_at!(file, OFFSET_FILE_FLAGS, "u32") & O_NONBLOCK == 0
    }

    /// Whether it is part of an MPTCP connection.
    #[inline(always)]
    pub fn is_mptcp(self) -> bool {
        // SAFETY: a static of this object, replaced at load.
        let mask = u64::from(unsafe { read_volatile(addr_of!(MASK_IS_MPTCP)) });
        load_at!(self.0, OFFSET_IS_MPTCP, "u8") & mask != 0
    }
}

pub(crate) use load_at;
