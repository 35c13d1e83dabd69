//! Kernel-resident responses: how they lie in memory, and what kernel and daemon tell each other of connections.
//!
//! How one head is told from another is said in `head`.

pub use crate::head::*;

/// Bytes of one chunk of kernel memory.
pub const CHUNK_BYTES: usize = 4096;
/// Words of one chunk.
pub const CHUNK_WORDS: usize = CHUNK_BYTES / 8;
/// The most chunks of one entry.
pub const CHUNKS_MAX: usize = 20;
/// What the kernel copies at a time, bytes: a response begins at a multiple of it and is padded to one.
pub const BLOCK_BYTES: usize = 512;
/// Digits of the `Age` that the kernel writes.
pub const AGE_DIGITS: usize = 8;
/// The largest age that it can write, seconds.
pub const AGE_MAX_S: u64 = 99_999_999;
/// Where an entry is found: the keyed hash of a head, a workload and a destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HotKey {
    /// Two independent lanes.
    pub lanes: [u64; 2],
}

/// What the index says of an entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotSlot {
    /// The number of this publication: the entry's own must be the same before and after it is copied.
    pub sequence: u64,
    /// Its first chunk.
    pub chunk: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Who asks whom: part of the hash, and compared.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    /// Cgroup id of the workload.
    pub workload: u64,
    /// The destination that it asked for.
    pub ip: crate::connection::IpWords,
    /// Its port.
    pub port: u32,
    /// Which of the workload's enrolments it is.
    pub epoch: u32,
}

impl Asker {
    /// Who asks whom on the connection that had this destination.
    #[inline(always)]
    pub const fn of(original: &crate::connection::OriginalDst) -> Self {
        let crate::connection::OriginalDst { workload, ip, port, epoch, .. } = *original;
        Self { workload, ip, port, epoch }
    }
}

/// The beginning of an entry's first chunk; its cells follow at once, its response at `response_at`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotHeader {
    /// The number of its publication; 0: not in use.
    pub sequence: u64,
    /// Whose it is.
    pub asker: Asker,
    /// From when on it is not to be given any more, nanoseconds of `CLOCK_BOOTTIME`.
    pub expires_at_ns: u64,
    /// When its age was zero, on the same clock; wraps where that was before the clock began.
    pub born_at_ns: u64,
    /// How many cells.
    pub cells: u32,
    /// Where the response begins, counted over all chunks: a multiple of `BLOCK_BYTES`, in the first chunk.
    pub response_at: u32,
    /// Bytes of the response without its padding.
    pub response_bytes: u32,
    /// Where in the response the digits of its age are.
    pub age_at: u32,
    /// Bytes of the response's content.
    pub content_bytes: u32,
    /// Always 0.
    pub reserved: u32,
    /// The chunks in their order.
    pub chunks: [u32; CHUNKS_MAX],
    /// How often it was given; the only word that the kernel writes. Not on the cache line of what all readers read.
    pub hits: u64,
    /// Always 0.
    pub padding: [u64; 3],
}

/// Bytes of the header: cells follow.
pub const HEADER_BYTES: usize = core::mem::size_of::<HotHeader>();
/// The first cell as a word of the chunk.
pub const CELLS_AT: usize = HEADER_BYTES / 8;

/// Where the response of an entry with so many cells begins.
pub const fn response_at(cells: usize) -> usize {
    (HEADER_BYTES + cells * 8).next_multiple_of(BLOCK_BYTES)
}

/// The most bytes that a response may have beside so many cells.
pub const fn response_bytes_max(cells: usize) -> usize {
    CHUNKS_MAX * CHUNK_BYTES - response_at(cells)
}

/// What the kernel counts of a connection; written by the kernel only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Requests that the kernel answered.
    pub hits: u64,
    /// When it answered last, nanoseconds of `CLOCK_BOOTTIME`; 0: never.
    pub last_hit_ns: u64,
    /// When bytes were passed on to the daemon last; at first, when the connection was made.
    pub last_passed_ns: u64,
    /// Answered since bytes were passed on.
    pub hits_in_row: u32,
    /// `PIPELINES`, `SPLICES`, `CLOSED`, `LEAVES`, `LEFT`, `BLOCKS`.
    pub flags: u32,
}

/// Bytes were passed on while an answer of the kernel was unread.
pub const PIPELINES: u32 = 1;
/// The application moves its bytes with splice(2), which does not see answers of the kernel.
pub const SPLICES: u32 = 2;
/// The client's socket is closed.
pub const CLOSED: u32 = 4;

/// Its next packet takes it back to plain TCP.
pub const LEAVES: u32 = 8;
/// It is a connection by plain TCP again.
pub const LEFT: u32 = 16;

/// The client's reads blocked when bytes were passed on last.
pub const BLOCKS: u32 = 32;

/// What a client reads at once: a response of so many bytes, its head included, is no large one.
pub const SMALL_BYTES_MAX: u32 = 2048;

/// What the programs are told while they run, by its place in `SETTINGS`.
pub mod setting {
    /// Where in a task's stack the number of its system call is, bytes; 0: not known, and nobody gets anything.
    pub const SYSCALL_AT: u32 = 0;
    /// Not 0: large answers by TCP take a socket out.
    pub const IS_SEPARATE: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// How many system calls there are whose callers may get answers of the kernel.
pub const SENDING_CALLS: usize = 6;

/// What the daemon says of a connection; written by the daemon only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The cookie of the connection: the kernel gives the memory of what was replaced to another one's at once.
    pub cookie: u64,
    /// Bytes of requests that were received and answered completely, since the connection began.
    pub answered: u64,
    /// Bytes of answers written to the client.
    pub written: u64,
    /// `NO_HITS`.
    pub flags: u64,
}

/// The kernel is to answer no more requests of this connection.
pub const NO_HITS: u64 = 1;

/// Eight decimal digits as they are written, for a number up to `AGE_MAX_S`.
#[inline(always)]
pub const fn digits(number: u64) -> u64 {
    let mut rest = number;
    let mut word = 0;
    let mut index = 0;
    while index < AGE_DIGITS {
        word = word << 8 | (b'0' as u64 + rest % 10);
        rest /= 10;
        index += 1;
    }
    word
}

#[cfg(feature = "user")]
mod user {
    use super::*;

    impl HotHeader {
        /// Its bytes as they lie in memory.
        pub fn as_bytes(&self) -> &[u8] {
            // SAFETY: #[repr(C)], integers only, no padding (see the tests): every byte of it is initialised.
            unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), HEADER_BYTES) }
        }
    }

    // SAFETY: #[repr(C)], integers and arrays of them only, no padding (see the tests): every bit pattern is a value.
    unsafe impl aya::Pod for HotKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for HotSlot {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Asker {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ConnectionRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Published {}
}

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn map_types_have_no_padding() {
        assert_eq!(size_of::<HotKey>(), 16);
        assert_eq!(size_of::<HotSlot>(), 8 + 4 + 4);
        assert_eq!(size_of::<Asker>(), 8 + 16 + 4 + 4);
        assert_eq!(size_of::<HotHeader>(), 8 + 32 + 8 + 8 + 6 * 4 + 4 * CHUNKS_MAX + 8 + 3 * 8);
        assert_eq!(size_of::<ConnectionRecord>(), 3 * 8 + 2 * 4);
        assert_eq!(size_of::<Published>(), 4 * 8);
        assert_eq!(HEADER_BYTES % 64, 0);
        assert_eq!(offset_of!(HotHeader, hits) / 64, 2, "apart from what all readers read");
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 1, 9, 10, 59, 12_345_678, AGE_MAX_S] {
            assert_eq!(digits(number).to_le_bytes(), *format!("{number:08}").as_bytes());
        }
    }
}
