//! What the parts of the self-test work with: a client and a server of this process, the client's socket enrolled, and
//! responses put where the kernel programs find them. The server stands for the daemon.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use cache_common::AF_INET;
use cache_common::connection::OriginalDst;
use cache_common::hot::{AGE_DIGITS, Asker, HotKey, HotSlot, Published, slice};

use super::super::btf::Offsets;
use super::super::hit_maps::{HitMaps, HitSettings};
use super::super::kernel::{Kernel, words};
use super::super::resident::Resident;
use super::{Counted, Wrong, ensure};
use crate::clock;

/// How long one wait of a socket may last.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(300);
/// For how long the sign of life of a part holds.
const PART_MAX: Duration = Duration::from_secs(10);
/// A workload that no cgroup has.
const WORKLOAD: u64 = u64::MAX;
/// How old the responses are: their age has to be written.
const AGE: Duration = Duration::from_secs(7);

/// The kernel under test and what was put into it.
pub(super) struct Bench<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) offsets: &'a Offsets,
    /// Why nobody watches for splice(2), where that is so.
    pub(super) watch: Result<(), String>,
    /// What FIONREAD was seen to count.
    pub(super) counted: Cell<Counted>,
    settings: &'a HitSettings,
    sequence: Cell<u64>,
    next_chunk: Cell<u32>,
    keys: RefCell<Vec<HotKey>>,
}

/// A response that the kernel can give.
pub(super) struct Entry {
    pub(super) head: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) key: HotKey,
    pub(super) first_chunk: u32,
    age_at: usize,
    born_at_ns: u64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        kernel: &'a Kernel,
        settings: &'a HitSettings,
        offsets: &'a Offsets,
        watch: Result<(), String>,
    ) -> Self {
        let (sequence, next_chunk, keys) = (Cell::new(0), Cell::new(0), RefCell::default());
        let counted = Cell::default();
        Self { kernel, counted, offsets, watch, settings, sequence, next_chunk, keys }
    }

    pub(super) fn maps(&self) -> &HitMaps {
        self.kernel.hits()
    }

    /// A sign of life that holds for one part: this process has no heartbeat yet.
    pub(super) fn begin(&self) -> Result<(), Wrong> {
        Ok(self.kernel.beat_for_hits((clock::boot() + PART_MAX).as_nanos() as u64)?)
    }

    /// Takes everything out again.
    pub(super) fn clear(&self) -> Result<(), Wrong> {
        self.kernel.beat_for_hits(0)?;
        for key in self.keys.take() {
            self.maps().unindex(&key);
        }
        for chunk in 0..self.next_chunk.replace(0) {
            self.maps().memory().set(chunk, 0, 0);
        }
        Ok(self.maps().quiesce()?)
    }

    /// A field that does not tell requests apart, its colon included; `None` where there is none.
    pub(super) fn skipped_field(&self) -> Option<String> {
        let bytes: Vec<u8> =
            self.settings.skip.names.get(1)?.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (name, _) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
        Some(format!("{name}:"))
    }

    /// Puts a response to `GET {target}` with so many bytes of content.
    pub(super) fn put(&self, target: &str, content_bytes: usize) -> Result<Entry, Wrong> {
        self.put_until(head(target, 0), content_bytes, later())
    }

    /// Puts a response to this head, fresh until then.
    pub(super) fn put_until(
        &self,
        head: Vec<u8>,
        content_bytes: usize,
        expires_at: Duration,
    ) -> Result<Entry, Wrong> {
        let mut cells = Vec::new();
        let HitSettings { skip, seeds, .. } = self.settings;
        let key = slice::walk(&head, skip, *seeds, &asker(WORKLOAD), |cell| cells.push(cell));
        let key = key.ok_or_else(|| Wrong("a head has no key".to_owned()))?;
        let begin = format!("HTTP/1.1 200 OK\r\nContent-Length: {content_bytes}\r\nAge: ");
        let age_at = begin.len();
        let mut response = begin.into_bytes();
        response.extend([b'0'; AGE_DIGITS]);
        response.extend(b"\r\n\r\n");
        // No two blocks, chunks or responses are the same.
        let sequence = self.sequence.get() + 1;
        let content =
            (0..content_bytes as u64).map(|at| (at ^ (at >> 8) ^ (at >> 16) ^ (sequence * 37)) as u8);
        response.extend(content);
        // Before the clock began where the machine has just been started.
        let born_at_ns = boot_ns().wrapping_sub(AGE.as_nanos() as u64);
        let resident = Resident {
            asker: asker(WORKLOAD),
            cells: &cells,
            response: &response,
            age_at,
            content_bytes,
            expires_at_ns: expires_at.as_nanos() as u64,
            born_at_ns,
        };
        let first_chunk = self.next_chunk.get();
        let count = resident.chunks().ok_or_else(|| Wrong("a response does not fit".to_owned()))? as u32;
        ensure(first_chunk + count <= self.maps().memory().chunks(), || "no room".to_owned())?;
        let chunks: Vec<u32> = (first_chunk..first_chunk + count).collect();
        resident.write(self.maps().memory(), &chunks, sequence);
        self.sequence.set(sequence);
        self.next_chunk.set(first_chunk + count);
        self.keys.borrow_mut().push(key);
        self.maps().index(&key, &HotSlot { sequence, chunk: first_chunk, reserved: 0 })?;
        Ok(Entry { head, response, key, first_chunk, age_at, born_at_ns })
    }

    /// A new connection whose client is enrolled.
    pub(super) fn pair(&self) -> Result<Pair<'_>, Wrong> {
        self.pair_of(WORKLOAD)
    }

    /// The same for another workload.
    pub(super) fn pair_of(&self, workload: u64) -> Result<Pair<'_>, Wrong> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .or_else(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let client = TcpStream::connect_timeout(&address, WAIT_MAX)?;
        listener.set_nonblocking(true)?;
        let (server, _) = listener.accept()?;
        for socket in [&client, &server] {
            socket.set_nonblocking(false)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(WAIT_MAX))?;
            socket.set_write_timeout(Some(WAIT_MAX))?;
            // Closed, it is gone at once: ports are scarce.
            nix::sys::socket::setsockopt(
                socket,
                nix::sys::socket::sockopt::Linger,
                &libc::linger { l_onoff: 1, l_linger: 0 },
            )?;
        }
        let cookie = cookie(&client)?;
        let Asker { ip, port, .. } = asker(workload);
        let now_ns = boot_ns();
        let original = OriginalDst {
            ip,
            port,
            family: AF_INET,
            workload,
            netns_cookie: 0,
            begun_at_ns: now_ns,
            cookie,
            epoch: 0,
            reserved: 0,
        };
        let pair = Pair { bench: self, client, server, cookie, arrived: Cell::new(0), written: Cell::new(0) };
        self.maps().enrol_own(&pair.client, &original, now_ns)?;
        // The first request of a blocking client is the daemon's.
        pair.passes(b"first")?;
        pair.all_answered()?;
        Ok(pair)
    }
}

/// A head for `target` with these further lines.
pub(super) fn head_with(target: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{lines}Host: sidestep.invalid\r\n\r\n").into_bytes()
}

/// A head for `target`, made longer to so many bytes by a field.
pub(super) fn head(target: &str, bytes: usize) -> Vec<u8> {
    let mut head = format!("GET {target} HTTP/1.1\r\nHost: sidestep.invalid\r\n").into_bytes();
    let field = b"X-Long: \r\n\r\n";
    if let Some(missing) = bytes.checked_sub(head.len() + field.len()) {
        head.extend(b"X-Long: ");
        head.extend((0..missing).map(|at| b'a' + (at % 26) as u8));
        head.extend(b"\r\n");
    }
    head.extend(b"\r\n");
    head
}

/// Now, nanoseconds of `CLOCK_BOOTTIME`.
fn boot_ns() -> u64 {
    clock::boot().as_nanos() as u64
}

/// When what is put for a part expires.
pub(super) fn later() -> Duration {
    clock::boot() + PART_MAX
}

/// 192.0.2.1:80, which is nobody's (RFC 5737).
fn asker(workload: u64) -> Asker {
    Asker { workload, ip: words(Ipv4Addr::new(192, 0, 2, 1).into()), port: 80, epoch: 0 }
}

fn cookie(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the pointers are to the number and to its size in bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// A connection.
pub(super) struct Pair<'a> {
    bench: &'a Bench<'a>,
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    pub(super) cookie: u64,
    arrived: Cell<u64>,
    written: Cell<u64>,
}

impl Pair<'_> {
    /// The client sends this in one piece.
    pub(super) fn sends(&self, bytes: &[u8]) -> Result<(), Wrong> {
        let count = (&self.client).write(bytes).map_err(|error| Wrong(format!("a send failed: {error}")))?;
        ensure(count == bytes.len(), || format!("a send took {count} of {} bytes", bytes.len()))
    }

    /// The server gets this next.
    pub(super) fn arrives(&self, bytes: &[u8]) -> Result<(), Wrong> {
        let mut got = vec![0; bytes.len()];
        match (&self.server).read_exact(&mut got) {
            Ok(()) if got == bytes => {
                self.arrived.set(self.arrived.get() + bytes.len() as u64);
                Ok(())
            }
            Ok(()) => Err(Wrong("what was passed on is not what was sent".to_owned())),
            Err(error) => Err(Wrong(format!("a request that had to be passed on was not: {error}"))),
        }
    }

    /// The client sends something that the kernel must not answer.
    pub(super) fn passes(&self, bytes: &[u8]) -> Result<(), Wrong> {
        self.sends(bytes)?;
        self.arrives(bytes)
    }

    /// The client sends this out of a pipe, as a relay does.
    pub(super) fn sends_spliced(&self, bytes: &[u8]) -> Result<(), Wrong> {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(bytes)?;
        let (nowhere, size) = (std::ptr::null_mut(), bytes.len());
        // SAFETY: two open descriptors; no offsets.
        let count =
            unsafe { libc::splice(reader.as_raw_fd(), nowhere, self.client.as_raw_fd(), nowhere, size, 0) };
        ensure(usize::try_from(count) == Ok(size), || format!("splice moved {count} of {size} bytes"))
    }

    /// The server sends something, which is not said to the kernel yet.
    pub(super) fn writes(&self, bytes: &[u8]) -> Result<(), Wrong> {
        (&self.server).write_all(bytes)?;
        self.written.set(self.written.get() + bytes.len() as u64);
        Ok(())
    }

    /// Everything that arrived is answered.
    pub(super) fn all_answered(&self) -> Result<(), Wrong> {
        self.publish(0)
    }

    /// The same, with these flags.
    pub(super) fn publish(&self, flags: u64) -> Result<(), Wrong> {
        let (answered, written) = (self.arrived.get(), self.written.get());
        let published = Published { cookie: self.cookie, answered, written, flags };
        Ok(self.bench.maps().publish(self.cookie, &published)?)
    }

    /// The client reads exactly this next.
    pub(super) fn reads(&self, bytes: &[u8]) -> Result<(), Wrong> {
        let mut got = vec![0; bytes.len()];
        (&self.client).read_exact(&mut got).map_err(|error| Wrong(format!("no answer came: {error}")))?;
        ensure(got == bytes, || "an answer is out of order, or its bytes are wrong".to_owned())
    }

    /// The client reads this response of the kernel next.
    pub(super) fn reads_answer(&self, entry: &Entry) -> Result<(), Wrong> {
        let total = entry.response.len();
        let mut got = vec![0; total];
        (&self.client).read_exact(&mut got).map_err(|error| Wrong(format!("no answer came: {error}")))?;
        let age_at = entry.age_at..entry.age_at + AGE_DIGITS;
        let age = got.get(age_at.clone()).and_then(|digits| str::from_utf8(digits).ok()?.parse::<u64>().ok());
        let age_max = boot_ns().wrapping_sub(entry.born_at_ns) / 1_000_000_000;
        let is_age = age.is_some_and(|age| (AGE.as_secs()..=age_max).contains(&age));
        ensure(is_age, || format!("the age of an answer is wrong: {age:?}"))?;
        if let Some(digits) = got.get_mut(age_at) {
            digits.fill(b'0');
        }
        let wrong = got.iter().zip(&entry.response).position(|(got, wanted)| got != wanted);
        ensure(wrong.is_none(), || format!("byte {} of an answer of {total} is wrong", wrong.unwrap_or(0)))
    }

    /// The kernel answers a request with this response.
    pub(super) fn is_answered(&self, entry: &Entry) -> Result<(), Wrong> {
        self.sends(&entry.head)?;
        self.reads_answer(entry)
    }

    /// The server resets the connection.
    pub(super) fn is_reset(&mut self) -> Result<(), Wrong> {
        // Closed with a linger time of zero.
        self.server = self.client.try_clone()?;
        Ok(())
    }

    /// The client has nothing to read, and no end either.
    pub(super) fn has_nothing(&self) -> Result<(), Wrong> {
        self.client.set_nonblocking(true)?;
        let read = (&self.client).read(&mut [0]);
        self.client.set_nonblocking(false)?;
        let is_nothing = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        ensure(is_nothing, || format!("there was nothing to read, and a read gave {read:?}"))
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.bench.maps().forget(self.cookie);
    }
}
