//! How a request head is told from others. The same code runs in the kernel and in the daemon.
//!
//! A head is cut into cells: up to eight bytes of one line each, ended after a line feed. Lines whose name is on the
//! skip list (what a tracer changes from request to request) leave none. Cells can be put together again in one way
//! only, so that two heads have the same cells only if they differ in skipped lines alone.

use crate::hot::{Asker, HotKey};

/// The longest head that is looked at, bytes.
pub const HEAD_BYTES_MAX: usize = 2048;
/// The shortest: `GET / HTTP/1.1` and two line ends.
pub const HEAD_BYTES_MIN: usize = 18;
/// The most cells of a head.
pub const CELLS_MAX: usize = 448;
/// The most steps of a walk: cells, and those of skipped lines.
pub const STEPS_MAX: u32 = 512;
/// Cells that the kernel's scratch memory holds: a power of two above `CELLS_MAX`.
pub const SCRATCH_CELLS: usize = 512;
/// Names that may be skipped, and one that stands for none.
pub const SKIPPED_MAX: usize = 32;
/// Bytes of a skipped name, its colon included.
pub const SKIPPED_NAME_BYTES_MAX: usize = 24;

/// The secrets of the head hash, new at each start.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// Where the lanes begin.
    pub start: [u64; 2],
    /// What they are multiplied by: odd.
    pub factor: [u64; 2],
}

/// The head hash: two independent keyed lanes.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    seeds: Seeds,
    lanes: [u64; 2],
}

impl Hash {
    /// Begins with who asks whom.
    #[inline(always)]
    pub fn new(seeds: Seeds, asker: &Asker) -> Self {
        let mut hash = Self { seeds, lanes: seeds.start };
        hash.add(asker.workload);
        hash.add(u64::from(asker.ip[0]) << 32 | u64::from(asker.ip[1]));
        hash.add(u64::from(asker.ip[2]) << 32 | u64::from(asker.ip[3]));
        hash.add(u64::from(asker.epoch) << 32 | u64::from(asker.port));
        hash
    }

    /// Takes a cell in.
    #[inline(always)]
    pub fn add(&mut self, cell: u64) {
        let one = (self.lanes[0] ^ cell).wrapping_mul(self.seeds.factor[0]);
        let other = self.lanes[1].wrapping_add(cell).wrapping_mul(self.seeds.factor[1]);
        self.lanes = [one ^ (one >> 32), other ^ (other >> 29)];
    }

    /// The key.
    #[inline(always)]
    pub fn key(self) -> HotKey {
        HotKey { lanes: self.lanes }
    }
}

/// A name on the skip list, its colon included, as it is compared: whatever its case.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedName {
    /// The name in lower case.
    pub words: [u64; 3],
    /// The bits in which a line must be the same.
    pub care: [u64; 3],
}

/// The fields that do not tell one request from another.
///
/// A line is looked up by its first eight letters, so that few names are compared.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkipList {
    /// Makes a kind of eight letters.
    pub factor: u64,
    /// For each kind, which name may be of it; 0 for none.
    pub kinds: [u8; KINDS],
    /// The name of fewer letters.
    pub short: u64,
    /// The names; the first is none that a line could have.
    pub names: [SkippedName; SKIPPED_MAX],
}

/// Kinds of eight letters.
pub const KINDS: usize = 64;

impl SkipList {
    /// A list without names.
    pub const EMPTY: Self = Self {
        factor: 0x9e37_79b9_7f4a_7c15,
        kinds: [0; KINDS],
        short: 0,
        // A line feed is never in a name.
        names: [SkippedName { words: [ONES * b'\n' as u64; 3], care: [u64::MAX; 3] }; SKIPPED_MAX],
    };

    /// A list of these names (without colon); `None` where one is no name or too long, or they are too many: in all,
    /// or two with the same first eight letters, or two that have, with their colon, fewer.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str, IntoIter: Clone>) -> Option<Self> {
        const FACTORS_MAX: u64 = 16_384;
        let names = names.into_iter();
        (0..FACTORS_MAX).find_map(|round| {
            let factor = Self::EMPTY.factor.wrapping_mul(2 * round + 1);
            names
                .clone()
                .zip(1..)
                .try_fold(Self { factor, ..Self::EMPTY }, |list, (name, number)| list.with(name, number))
        })
    }

    fn with(mut self, name: &str, number: u8) -> Option<Self> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= SKIPPED_NAME_BYTES_MAX || !bytes.iter().copied().all(is_token) {
            return None;
        }
        let mut all = [0_u8; SKIPPED_NAME_BYTES_MAX];
        let mut care = [0_u8; SKIPPED_NAME_BYTES_MAX];
        for (index, byte) in bytes.iter().chain(b":").enumerate() {
            *all.get_mut(index)? = byte.to_ascii_lowercase();
            *care.get_mut(index)? = if byte.is_ascii_alphabetic() { !0x20 } else { !0 };
        }
        let slot = self.names.get_mut(usize::from(number))?;
        for (word, bytes) in slot.words.iter_mut().zip(all.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        for (word, bytes) in slot.care.iter_mut().zip(care.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let first = slot.words[0];
        if bytes.len() + 1 < 8 {
            let before = core::mem::replace(&mut self.short, u64::from(number));
            return if before == 0 { Some(self) } else { None };
        }
        let place = self.kinds.get_mut(kind(first, self.factor) as usize)?;
        let before = core::mem::replace(place, number);
        if before == 0 { Some(self) } else { None }
    }
}

/// Which kind the first eight letters of a line are of, whatever their case.
#[inline(always)]
pub const fn kind(word: u64, factor: u64) -> u64 {
    (word | (ONES * 0x20)).wrapping_mul(factor) >> 58
}

/// The bytes of a head as little-endian words.
pub trait Words {
    /// How many bytes there are.
    fn size(&self) -> u64;
    /// The eight bytes at `at`, which is within them; what lies behind the end reads as zero. `None` never happens, but
    /// a verifier does not know.
    fn word(&self, at: u64) -> Option<u64>;
    /// The sixteen bytes at `at`; anything where not all of them are there.
    fn words(&self, at: u64) -> [u64; 2];
    /// Zero, which whoever checks a program before it runs is not to know.
    fn zero(&self) -> u64;
    /// The names of the skip list that a line with these first letters may have: their numbers, 0 for the one that no
    /// line has.
    fn candidates(&self, word: u64) -> [u8; 2];
    /// A name of the skip list by its number.
    fn skipped(&self, number: u8) -> SkippedName;
}

/// Where a walk over a head is.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// The next byte.
    pub at: u64,
    is_line_start: u64,
    is_skipping: u64,
    last: u64,
    controls: u64,
    /// Not zero where a skipped line was not plain text.
    pub is_odd: u64,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
const SPACES: u64 = 0x2020_2020_2020_2020;

impl Walk {
    /// The beginning of a head.
    ///
    /// Older verifiers (Linux 6.1) check the first round of a loop only: what they know of it they take to be so in all
    /// others, and leave out what only those need. So they are to know nothing.
    #[inline(always)]
    pub fn begin(head: &impl Words) -> Self {
        let mut walk = Self { at: 0, is_line_start: 1, is_skipping: 0, last: 0, controls: 0, is_odd: 0 };
        walk.blur(head);
        walk
    }

    /// Adds zeros that the verifier does not know to be such: it then forgets what it knew of the walk, and has seen
    /// all of it after one step.
    #[inline(always)]
    fn blur(&mut self, head: &impl Words) {
        let zero = head.zero();
        self.at ^= zero;
        self.is_line_start ^= zero;
        self.is_skipping ^= zero;
        self.last ^= zero;
        self.controls ^= zero;
        self.is_odd ^= zero;
    }

    /// Goes on by one cell, which `take` gets unless it belongs to a line that is skipped.
    ///
    /// With as few branches as it can have: a verifier that looks at every path through it gives up at a million.
    #[inline(always)]
    pub fn step(&mut self, head: &impl Words, take: impl FnOnce(u64)) -> Option<()> {
        let word = head.word(self.at)?;
        if self.is_line_start != 0 {
            self.is_skipping = is_skipped(head, self.at, word);
        }
        self.is_skipping ^= head.zero();
        // The bytes up to the first line feed: the subtraction marks it, and at most bytes behind it.
        let feeds = word ^ (ONES * b'\n' as u64);
        let marks = feeds.wrapping_sub(ONES) & !feeds & HIGHS;
        // One less than the lowest mark has a one in each byte up to it; without a mark, in all eight.
        let count = ((marks.wrapping_sub(1) & ONES).wrapping_mul(ONES)) >> 56;
        let cell = word & (u64::MAX >> ((64 - count * 8) & 63));
        if self.is_skipping != 0 {
            self.check_text(cell, count, marks);
        } else {
            take(cell);
        }
        self.last = (cell >> ((count * 8).wrapping_sub(8) & 63)) & 0xff;
        self.at += count;
        self.is_line_start = marks;
        self.is_skipping &= is_zero(marks);
        self.blur(head);
        Some(())
    }

    /// A line that is skipped has no control characters but the CR and the LF at its end: what else is in there is not
    /// ours to pass over.
    #[inline(always)]
    fn check_text(&mut self, cell: u64, count: u64, marks: u64) {
        // What lies behind the line counts as a space.
        let text = cell | (!(u64::MAX >> ((64 - count * 8) & 63)) & SPACES);
        // The highest bit of each byte that is below 0x20.
        let controls = !((text & !HIGHS).wrapping_add(ONES * 0x60) | text) & HIGHS;
        self.controls += (controls >> 7).wrapping_mul(ONES) >> 56;
        let at_end = is_zero(marks).wrapping_sub(1);
        let before_feed = (cell << 8 | self.last) >> ((count * 8).wrapping_sub(8) & 63) & 0xff;
        self.is_odd |= ((self.controls ^ 2) | (before_feed ^ b'\r' as u64)) & at_end;
        self.controls &= !at_end;
    }
}

/// 1 for 0, else 0: a comparison without a branch.
#[inline(always)]
const fn is_zero(number: u64) -> u64 {
    ((number | number.wrapping_neg()) >> 63) ^ 1
}

/// 1 where the line at `at` is skipped; one that begins in the last 24 bytes is not, so that its name can be read whole.
#[inline(always)]
fn is_skipped(head: &impl Words, at: u64, first: u64) -> u64 {
    let [second, third] = head.words(at + 8);
    let line = [first, second, third];
    let [long, short] = head.candidates(first);
    let is_whole = is_zero(head.size().wrapping_sub(at + SKIPPED_NAME_BYTES_MAX as u64) >> 63);
    (is_named(&line, head.skipped(long)) | is_named(&line, head.skipped(short))) & is_whole
}

#[inline(always)]
fn is_named(line: &[u64; 3], name: SkippedName) -> u64 {
    let SkippedName { words, care } = name;
    let differs = ((line[0] ^ words[0]) & care[0])
        | ((line[1] ^ words[1]) & care[1])
        | ((line[2] ^ words[2]) & care[2]);
    is_zero(differs)
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: #[repr(C)], integers and arrays of them only, no padding (see the tests): every bit pattern is a value.
    unsafe impl aya::Pod for super::Seeds {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SkipList {}
}

#[cfg(any(test, feature = "user"))]
pub mod slice {
    //! The walk over a head in ordinary memory.

    use super::*;

    struct Head<'a>(&'a [u8], &'a SkipList);

    impl Words for Head<'_> {
        fn word(&self, at: u64) -> Option<u64> {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(self.0.get(at as usize..)?) {
                *to = *from;
            }
            Some(u64::from_le_bytes(bytes))
        }
        fn zero(&self) -> u64 {
            0
        }
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn words(&self, at: u64) -> [u64; 2] {
            [at, at + 8].map(|at| self.word(at).unwrap_or_default())
        }
        fn candidates(&self, word: u64) -> [u8; 2] {
            [self.1.kinds[kind(word, self.1.factor) as usize], self.1.short as u8]
        }
        fn skipped(&self, number: u8) -> SkippedName {
            self.1.names.get(usize::from(number)).copied().unwrap_or(SkipList::EMPTY.names[0])
        }
    }

    /// Cuts a head into cells and hashes them; `None` where the kernel would not look at it.
    pub fn walk(
        head: &[u8],
        skip: &SkipList,
        seeds: Seeds,
        asker: &Asker,
        mut cell: impl FnMut(u64),
    ) -> Option<HotKey> {
        if head.len() < HEAD_BYTES_MIN || head.len() > HEAD_BYTES_MAX || !head.ends_with(b"\r\n\r\n") {
            return None;
        }
        let words = Head(head, skip);
        let (mut walk, mut hash) = (Walk::begin(&words), Hash::new(seeds, asker));
        let (mut count, mut steps) = (0, 0);
        while walk.at < head.len() as u64 {
            steps += 1;
            walk.step(&words, |one| {
                count += 1;
                hash.add(one);
                cell(one);
            })?;
        }
        (walk.is_odd == 0 && count <= CELLS_MAX && steps <= STEPS_MAX).then(|| hash.key())
    }
}

#[cfg(test)]
mod tests {
    use core::mem::size_of;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn map_types_have_no_padding() {
        assert_eq!(size_of::<Seeds>(), 4 * 8);
        assert_eq!(size_of::<SkipList>(), 8 + KINDS + 8 + SKIPPED_MAX * 48);
    }

    const SEEDS: Seeds = Seeds { start: [3, 5], factor: [0x9e37_79b9_7f4a_7c15, 0xff51_afd7_ed55_8ccd] };
    const ASKER: Asker = Asker { workload: 7, ip: [0, 0, 0xffff, 9], port: 80, epoch: 0 };
    const NAMES: [&str; 5] = ["traceparent", "b3", "X-Request-Id", "x-b3-traceid", "x-b3-spanid"];

    fn cells_of(head: &str) -> Option<(HotKey, Vec<u64>)> {
        let mut cells = Vec::new();
        let skip = SkipList::of(NAMES).unwrap();
        slice::walk(head.as_bytes(), &skip, SEEDS, &ASKER, |cell| cells.push(cell)).map(|key| (key, cells))
    }

    #[test]
    fn a_skipped_line_makes_no_difference_whatever_its_case_and_place() {
        let plain = cells_of("GET /a HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\n\r\n").unwrap();
        for head in [
            "GET /a HTTP/1.1\r\nTraceParent: 00-abc-def-01\r\nHost: example.test\r\nAccept: */*\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: example.test\r\nb3: 0-0-0-0-0-0-0-0-0-0-0-0-0-0\r\nAccept: */*\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\nx-request-ID: 0123456789abcdef0123\r\n\r\n",
            "GET /a HTTP/1.1\r\nx-b3-traceid:1\r\nX-B3-SPANID: 2\r\nHost: example.test\r\nAccept: */*\r\n\r\n",
        ] {
            assert_eq!(cells_of(head).as_ref(), Some(&plain), "{head}");
        }
    }

    #[test]
    fn any_other_difference_is_one() {
        let head = "GET /a HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\n\r\n";
        let plain = cells_of(head).unwrap();
        for other in [
            "GET /b HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: example.tesT\r\nAccept: */*\r\n\r\n",
            "GET /a HTTP/1.1\r\nAccept: */*\r\nHost: example.test\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\n\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\nTraceparents: 0123456789abcdef\r\n\r\n",
            // A line that goes on in the next one (obs-fold) has a part that is not skipped.
            "GET /a HTTP/1.1\r\nTraceparent: 0123\r\n 4\r\nHost: example.test\r\nAccept: */*\r\n\r\n",
        ] {
            assert_ne!(cells_of(other).unwrap(), plain, "{other}");
        }
    }

    #[test]
    fn a_skipped_line_with_control_characters_or_without_cr_is_not_looked_at() {
        for line in ["b3: a\rb\r\n", "b3: a\0\r\n", "b3: abc\n", "b3: a\tb\r\n", "b3: abcd\r\r\n"] {
            let head = format!("GET / HTTP/1.1\r\n{line}Host: a-name-that-is-long-enough\r\n\r\n");
            assert_eq!(cells_of(&head), None, "{line:?}");
        }
        assert!(cells_of("GET / HTTP/1.1\r\nb3: fine\r\nHost: a-name-that-is-long-enough\r\n\r\n").is_some());
    }

    #[test]
    fn another_asker_has_another_key_for_the_same_head() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let key = |asker: &Asker| slice::walk(head, &SkipList::EMPTY, SEEDS, asker, |_| ()).unwrap();
        let mut keys = vec![key(&ASKER)];
        for other in [
            Asker { workload: 8, ..ASKER },
            Asker { port: 81, ..ASKER },
            Asker { epoch: 1, ..ASKER },
            Asker { ip: [0, 0, 0xffff, 8], ..ASKER },
            Asker { ip: [1, 0, 0xffff, 9], ..ASKER },
        ] {
            assert!(!keys.contains(&key(&other)));
            keys.push(key(&other));
        }
    }

    #[test]
    fn a_list_takes_what_names_can_be_and_nothing_else() {
        assert!(SkipList::of([]).is_some());
        for bad in [
            &[""][..],
            &["a name"],
            &["a-name-that-is-too-long-for-it"],
            &["b3", "b4"],
            &["x-b3-traceid", "x-b3-traXX"],
        ] {
            assert!(SkipList::of(bad.iter().copied()).is_none(), "{bad:?}");
        }
        let many: Vec<String> = (0..SKIPPED_MAX).map(|n| format!("{n:02}-and-more")).collect();
        assert!(SkipList::of(many.iter().map(String::as_str)).is_none());
        assert!(SkipList::of(many[..20].iter().map(String::as_str)).is_some());
    }

    /// The bytes that cells stand for.
    fn joined(cells: &[u64]) -> Vec<u8> {
        let bytes_of = |cell: &u64| {
            let bytes = cell.to_le_bytes();
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(8, |at| at + 1);
            bytes.into_iter().take(end)
        };
        cells.iter().flat_map(bytes_of).collect()
    }

    fn cells_of_bytes(head: &[u8]) -> Option<(HotKey, Vec<u64>)> {
        let mut cells = Vec::new();
        let skip = SkipList::of(NAMES).unwrap();
        slice::walk(head, &skip, SEEDS, &ASKER, |cell| cells.push(cell)).map(|key| (key, cells))
    }

    proptest! {
        #[test]
        fn cells_are_the_head_but_for_skipped_lines(
            lines in prop::collection::vec("[!-9;-~][!-~ ]{0,40}", 1..20),
            skipped in prop::collection::vec((0..NAMES.len(), "[!-~ ]{0,40}", any::<prop::sample::Index>()), 0..4),
        ) {
            let plain = format!("{}\r\nHost: a-host-that-is-quite-long\r\n\r\n", lines.join("\r\n"));
            let mut all = lines.clone();
            for (name, value, place) in &skipped {
                // The first line is the request's.
                all.insert(1 + place.index(all.len()), format!("{}: {value}", NAMES[*name]));
            }
            let full = format!("{}\r\nHost: a-host-that-is-quite-long\r\n\r\n", all.join("\r\n"));
            if let (Some((key, cells)), Some(with_skipped)) = (cells_of_bytes(plain.as_bytes()), cells_of_bytes(full.as_bytes())) {
                prop_assert_eq!(String::from_utf8(joined(&cells)).unwrap(), plain);
                prop_assert_eq!(with_skipped, (key, cells));
            }
        }

        #[test]
        fn two_heads_with_the_same_cells_are_the_same_head(
            one in prop::collection::vec(prop::sample::select(&b"ab\r\n\0 :\xff"[..]), 14..60),
            other in prop::collection::vec(prop::sample::select(&b"ab\r\n\0 :\xff"[..]), 14..60),
        ) {
            let end = |mut head: Vec<u8>| { head.extend_from_slice(b"\r\n\r\n"); head };
            let (one, other) = (end(one), end(other));
            if let (Some((_, ours)), Some((_, theirs))) = (cells_of_bytes(&one), cells_of_bytes(&other)) {
                prop_assert_eq!(joined(&ours), one.clone());
                prop_assert_eq!(ours == theirs, one == other);
            }
        }
    }
}
