//! The maps of kernel hits, typed: what the daemon says of connections and destinations, the index of resident
//! responses, and the memory that they lie in.
//!
//! What is put there is left to `hot`, when, to the path.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, SkStorage, SockHash};
use cache_common::connection::OriginalDst;
use cache_common::hot::{
    Asker, CHUNK_BYTES, ConnectionRecord, HotHeader, HotKey, HotSlot, Published, Seeds, SkipList, setting,
};

use super::kernel::{KernelError, Typed, hash_map, insert, lock};

/// What the kernel programs are told about hits when they are loaded.
#[derive(Clone, Copy, Debug)]
pub struct HitSettings {
    /// Memory for resident responses, in chunks of `CHUNK_BYTES`.
    pub chunks: u32,
    /// Fields that do not tell one request from another.
    pub skip: SkipList,
    /// Secrets of the head hash.
    pub seeds: Seeds,
    /// Conditions that are left out, to see tests fail; 0 elsewhere.
    pub faults: u32,
}

impl HitSettings {
    /// Those of programs that are to give no hits.
    pub const NONE: Self =
        Self { chunks: 1, skip: SkipList::EMPTY, seeds: Seeds { start: [0; 2], factor: [1; 2] }, faults: 0 };
}

/// The maps.
pub struct HitMaps {
    sockets: Mutex<SkStorage<MapData, OriginalDst>>,
    clients: Mutex<SockHash<MapData, u64>>,
    connections: Typed<u64, ConnectionRecord>,
    /// The same once more: whoever walks over all of them keeps nobody waiting.
    all_connections: Typed<u64, ConnectionRecord>,
    published: Typed<u64, Published>,
    destinations: Typed<Asker, u64>,
    index: Typed<HotKey, HotSlot>,
    memory: Memory,
    settings: Mutex<Array<MapData, u64>>,
    /// Whether large answers by TCP take a socket out.
    is_separate: AtomicBool,
    grace: Mutex<Grace>,
}

impl HitMaps {
    pub(super) fn take(ebpf: &mut Ebpf, chunks: u32) -> Result<Self, KernelError> {
        let missing = KernelError::Missing;
        let failed = |map| move |source| KernelError::Map { map, source };
        let sockets = ebpf.take_map("SOCKET_DST").ok_or(missing("SOCKET_DST"))?;
        let clients = ebpf.take_map("CLIENTS").ok_or(missing("CLIENTS"))?;
        let memory = ebpf.take_map("HOT_CHUNKS").ok_or(missing("HOT_CHUNKS"))?;
        let settings = ebpf.take_map("SETTINGS").ok_or(missing("SETTINGS"))?;
        let grace = ebpf.take_map("GRACE").ok_or(missing("GRACE"))?;
        let connections = ebpf.map("CONNECTIONS").ok_or(missing("CONNECTIONS"))?;
        let again = again(connections).map_err(failed("CONNECTIONS"))?;
        Ok(Self {
            all_connections: Mutex::new(again),
            sockets: Mutex::new(SkStorage::try_from(sockets).map_err(failed("SOCKET_DST"))?),
            clients: Mutex::new(SockHash::try_from(clients).map_err(failed("CLIENTS"))?),
            connections: hash_map(ebpf, "CONNECTIONS")?,
            published: hash_map(ebpf, "PUBLISHED")?,
            destinations: hash_map(ebpf, "HOT_DESTINATIONS")?,
            index: hash_map(ebpf, "HOT_INDEX")?,
            memory: Memory::map(memory, chunks).map_err(KernelError::Memory)?,
            is_separate: AtomicBool::new(false),
            settings: Mutex::new(Array::try_from(settings).map_err(failed("SETTINGS"))?),
            grace: Mutex::new(Grace {
                outer: ArrayOfMaps::try_from(grace).map_err(failed("GRACE"))?,
                inner: Array::create(1, 0).map_err(failed("GRACE"))?,
            }),
        })
    }

    /// The map that the programs are attached to.
    pub(super) fn clients(&self) -> &Mutex<SockHash<MapData, u64>> {
        &self.clients
    }

    /// Says where in a task's stack the number of its system call is, bytes; 0: nobody gets answers of the kernel.
    ///
    /// # Errors
    /// None that a valid handle could cause.
    pub(super) fn set_syscall_at(&self, bytes: u64) -> Result<(), KernelError> {
        self.set(setting::SYSCALL_AT, bytes)
    }

    /// Says that large answers by TCP are for plain TCP from now on.
    ///
    /// # Errors
    /// None that a valid handle could cause.
    pub(super) fn separate(&self) -> Result<(), KernelError> {
        self.is_separate.store(true, Ordering::Relaxed);
        self.set(setting::IS_SEPARATE, 1)
    }

    fn set(&self, setting: u32, value: u64) -> Result<(), KernelError> {
        lock(&self.settings)
            .set(setting, value, 0)
            .map_err(|source| KernelError::Map { map: "SETTINGS", source })
    }

    /// Takes a client's socket out, where it is not to get a large answer by TCP; returns whether it is out. Nothing of
    /// the kernel may be unread there.
    pub fn leave(&self, cookie: u64) -> bool {
        self.is_separate.load(Ordering::Relaxed) && lock(&self.clients).remove(&cookie).is_ok()
    }

    /// What the kernel counts of a connection; `None` where it is not enrolled.
    pub fn connection(&self, cookie: u64) -> Option<ConnectionRecord> {
        lock(&self.connections).get(&cookie, 0).ok()
    }

    /// Says what of a connection is answered.
    ///
    /// # Errors
    /// A full map: the connection gets no hits.
    pub fn publish(&self, cookie: u64, published: &Published) -> Result<(), KernelError> {
        insert(&self.published, "PUBLISHED", &cookie, published)
    }

    /// Forgets a connection that has ended.
    pub fn forget(&self, cookie: u64) {
        // What is not there needs no removal.
        let _ = lock(&self.published).remove(&cookie);
        let _ = lock(&self.connections).remove(&cookie);
    }

    /// Takes out connections that were closed before the daemon saw them, and were made before `before_ns`.
    pub fn sweep(&self, before_ns: u64) {
        let mut map = lock(&self.all_connections);
        let is_over = |record: &ConnectionRecord| {
            record.flags & cache_common::hot::CLOSED != 0
                && record.last_passed_ns.max(record.last_hit_ns) < before_ns
        };
        let over: Vec<u64> = map
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, record)| is_over(record))
            .map(|(cookie, _)| cookie)
            .collect();
        for cookie in over {
            let _ = map.remove(&cookie);
        }
    }

    /// Enrols new connections to a destination until a time of `CLOCK_BOOTTIME`, nanoseconds.
    ///
    /// # Errors
    /// None: a full map forgets its least recently used entry.
    pub fn enrol_until(&self, asker: &Asker, until_ns: u64) -> Result<(), KernelError> {
        insert(&self.destinations, "HOT_DESTINATIONS", asker, &until_ns)
    }

    /// The memory of resident responses.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Makes an entry findable; whatever had the key before is not any more.
    ///
    /// # Errors
    /// A full map.
    pub fn index(&self, key: &HotKey, slot: &HotSlot) -> Result<(), KernelError> {
        insert(&self.index, "HOT_INDEX", key, slot)
    }

    /// Makes an entry unfindable for whoever looks from now on.
    pub fn unindex(&self, key: &HotKey) {
        // What is not there needs no removal.
        let _ = lock(&self.index).remove(key);
    }

    /// Waits, for some milliseconds, until every program that runs now has ended.
    ///
    /// # Errors
    /// None that a valid handle could cause.
    pub fn quiesce(&self) -> Result<(), KernelError> {
        let mut grace = lock(&self.grace);
        let Grace { outer, inner } = &mut *grace;
        outer.set(0, inner, 0).map_err(|source| KernelError::Map { map: "GRACE", source })
    }

    /// Enrols a socket of this process as the hooks would, whose cookie `original` names: for the self-test.
    ///
    /// # Errors
    /// What the kernel refuses: it has no sockmap.
    pub fn enrol_own(
        &self,
        socket: &impl AsRawFd,
        original: &OriginalDst,
        now_ns: u64,
    ) -> Result<(), KernelError> {
        let refused = |map| move |source| KernelError::Map { map, source };
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.insert(socket, original, 0).map_err(refused("SOCKET_DST"))?;
        let record = ConnectionRecord { last_passed_ns: now_ns, ..ConnectionRecord::default() };
        insert(&self.connections, "CONNECTIONS", &original.cookie, &record)?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(original.cookie, socket.as_raw_fd(), 0).map_err(refused("CLIENTS"))
    }

    /// How many responses are resident, and the memory that they take, bytes.
    pub fn residents(&self) -> (u64, u64) {
        let index = lock(&self.index);
        let sizes =
            index.iter().filter_map(Result::ok).map(|(_, slot)| self.memory.resident_bytes(slot.chunk));
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }
}

/// Another handle of a hash map.
fn again<K: aya::Pod, V: aya::Pod>(map: &Map) -> Result<HashMap<MapData, K, V>, MapError> {
    let Map::HashMap(data) = map else {
        return Err(MapError::InvalidMapType { map_type: 0 });
    };
    let again = data.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
    HashMap::try_from(Map::HashMap(MapData::from_fd(again)?))
}

struct Grace {
    outer: ArrayOfMaps<MapData, Array<MapData, u32>>,
    inner: Array<MapData, u32>,
}

/// The chunks, mapped into this process: what the kernel programs read, written without a system call.
pub struct Memory {
    begin: NonNull<u8>,
    chunks: u32,
    _map: Map,
}

// SAFETY: the mapping is shared memory without thread affinity; who may write which chunk is the caller's to say.
unsafe impl Send for Memory {}
// SAFETY: as above; all access is by copying, bytes that another thread writes meanwhile are the caller's fault.
unsafe impl Sync for Memory {}

impl Memory {
    fn map(map: Map, chunks: u32) -> io::Result<Self> {
        let Map::Array(data) = &map else { return Err(io::Error::other("not an array")) };
        let bytes = chunks as usize * CHUNK_BYTES;
        // SAFETY: a new mapping of a map made with BPF_F_MMAPABLE; the kernel refuses what is longer than the map.
        let begin = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if begin == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let begin = NonNull::new(begin.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { begin, chunks, _map: map })
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Copies bytes into a chunk, from `at` on; what does not fit is left out. Nobody may be able to find the chunk.
    pub fn write(&self, chunk: u32, at: usize, bytes: &[u8]) {
        if chunk >= self.chunks || at > CHUNK_BYTES {
            return;
        }
        let count = bytes.len().min(CHUNK_BYTES - at);
        // SAFETY: within the mapping: the chunk exists and the bytes end with it. The sources do not overlap it.
        unsafe {
            let to = self.begin.as_ptr().add(chunk as usize * CHUNK_BYTES + at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
        }
    }

    /// Writes a word of a chunk in one piece, seen by whoever reads it afterwards: also while programs read the chunk.
    pub fn set(&self, chunk: u32, at: usize, value: u64) {
        if let Some(word) = self.word(chunk, at) {
            word.store(value, std::sync::atomic::Ordering::Release);
        }
    }

    /// Reads a word of a chunk, which programs may be changing.
    pub fn value(&self, chunk: u32, at: usize) -> u64 {
        self.word(chunk, at).map_or(0, |word| word.load(std::sync::atomic::Ordering::Acquire))
    }

    /// The memory that the response takes whose first chunk this is, bytes.
    fn resident_bytes(&self, chunk: u32) -> u64 {
        const SIZES_AT: usize = std::mem::offset_of!(HotHeader, response_at);
        const { assert!(SIZES_AT.is_multiple_of(4) && !SIZES_AT.is_multiple_of(8)) };
        // Two numbers of 32 bits, neighbours in two words.
        let response_at = self.value(chunk, SIZES_AT - 4) >> 32;
        let response_bytes = self.value(chunk, SIZES_AT + 4) & u64::from(u32::MAX);
        (response_at + response_bytes).next_multiple_of(CHUNK_BYTES as u64)
    }

    fn word(&self, chunk: u32, at: usize) -> Option<&std::sync::atomic::AtomicU64> {
        if chunk >= self.chunks || !at.is_multiple_of(8) || at + 8 > CHUNK_BYTES {
            return None;
        }
        // SAFETY: within the mapping, aligned, and for as long as the mapping; all access to such words is atomic.
        Some(unsafe {
            let at = self.begin.as_ptr().add(chunk as usize * CHUNK_BYTES + at);
            std::sync::atomic::AtomicU64::from_ptr(at.cast())
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, of which no reference is left.
        unsafe { libc::munmap(self.begin.as_ptr().cast(), self.chunks as usize * CHUNK_BYTES) };
    }
}

/// Which `MapError` a full map gives.
pub fn is_full(error: &KernelError) -> bool {
    matches!(error, KernelError::Map { source: MapError::SyscallError(error), .. }
        if error.io_error.raw_os_error() == Some(libc::E2BIG) || error.io_error.raw_os_error() == Some(libc::ENOSPC))
}
