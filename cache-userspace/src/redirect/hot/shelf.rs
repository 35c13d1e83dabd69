//! Where resident responses lie: the kernel's maps, or what stands for them in tests.

use cache_common::hot::{Asker, HotHeader, HotKey, HotSlot};

use crate::clock;
use crate::redirect::kernel::Kernel;
use crate::redirect::resident::Resident;

/// What the hot set does to the kernel's maps.
pub trait Shelf: Send + Sync {
    /// Writes an entry into chunks that nobody can find.
    fn write(&self, resident: &Resident<'_>, chunks: &[u32], sequence: u64);
    /// Makes it findable, instead of what had the head before; returns whether the kernel took it.
    fn index(&self, head: &HotKey, slot: &HotSlot) -> bool;
    /// Makes it unfindable, and ends copies of it that are being made; the chunk is its first.
    fn retire(&self, head: &HotKey, chunk: u32);
    /// How often the entry whose first chunk this is was given.
    fn hits(&self, chunk: u32) -> u64;
    /// Waits until nobody looks any more at what was retired before; blocks for some milliseconds. Returns whether that
    /// is certain.
    fn quiesce(&self) -> bool;
    /// Has new connections to a destination enrolled until a time of `CLOCK_BOOTTIME`, nanoseconds; returns a time on the
    /// same clock from which on it is so.
    fn enrol_until(&self, asker: &Asker, until_ns: u64) -> u64;
    /// Forgets connections that were closed unseen, made before a time of `CLOCK_BOOTTIME`, nanoseconds.
    fn sweep(&self, before_ns: u64);
}

impl Shelf for Kernel {
    fn write(&self, resident: &Resident<'_>, chunks: &[u32], sequence: u64) {
        resident.write(self.hits().memory(), chunks, sequence);
    }

    fn index(&self, head: &HotKey, slot: &HotSlot) -> bool {
        let indexed = self.hits().index(head, slot);
        indexed.inspect_err(|error| tracing::debug!(%error, "not promoted")).is_ok()
    }

    fn retire(&self, head: &HotKey, chunk: u32) {
        self.hits().unindex(head);
        // Whoever found it before and is still copying sees this at the end.
        self.hits().memory().set(chunk, std::mem::offset_of!(HotHeader, sequence), 0);
    }

    fn hits(&self, chunk: u32) -> u64 {
        self.hits().memory().value(chunk, std::mem::offset_of!(HotHeader, hits))
    }

    fn quiesce(&self) -> bool {
        let quiet = self.hits().quiesce();
        quiet
            .inspect_err(|error| tracing::warn!(%error, "memory of resident responses is not used again"))
            .is_ok()
    }

    fn enrol_until(&self, asker: &Asker, until_ns: u64) -> u64 {
        if let Err(error) = self.hits().enrol_until(asker, until_ns) {
            tracing::debug!(%error, "a destination is not enrolled");
        }
        u64::try_from(clock::boot().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sweep(&self, before_ns: u64) {
        self.hits().sweep(before_ns);
    }
}
