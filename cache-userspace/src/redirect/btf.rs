//! Where the running kernel keeps the fields of its sockets: read from its own description of its types (BTF).
//!
//! Only as much of the format as that takes (Documentation/bpf/btf.rst). What the fields are for is left to the kernel
//! programs.

use std::fs;
use std::io;
use std::path::Path;

/// The kernel's types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Bounds how deep structures lie in each other.
const DEPTH_MAX: usize = 8;

/// Why there are no offsets.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel does not describe itself.
    #[error(
        "the kernel has no description of its types in /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF): {0}"
    )]
    Unreadable(#[source] io::Error),
    /// The description is not understood.
    #[error("the kernel's description of its types is not understood")]
    Malformed,
    /// A field is not there.
    #[error("this kernel has no {0}")]
    Missing(&'static str),
}

/// Offsets of fields, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `tcp_sock.copied_seq`
    pub copied_seq: u32,
    /// `tcp_sock.rcv_nxt`
    pub rcv_nxt: u32,
    /// `sock.sk_backlog.rmem_alloc` in a `tcp_sock`
    pub rmem_alloc: u32,
    /// `tcp_sock.write_seq`
    pub write_seq: u32,
    /// `tcp_sock.snd_una`
    pub snd_una: u32,
    /// `tcp_sock.bytes_received`
    pub bytes_received: u32,
    /// `tcp_sock.bytes_acked`
    pub bytes_acked: u32,
    /// The byte that holds `tcp_sock.is_mptcp`, and the bits of it; none in a kernel without MPTCP.
    pub is_mptcp: (u32, u32),
    /// `sock.sk_socket` in a `tcp_sock`
    pub sk_socket: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `file.f_flags`
    pub file_flags: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `task_struct.stack`
    pub task_stack: u32,
    /// How far before the end of `struct pt_regs` the number of a system call is.
    pub syscall: u32,
}

/// The field of `struct pt_regs` with the number of a system call.
const SYSCALL: &str = if cfg!(target_arch = "x86_64") { "orig_ax" } else { "syscallno" };

impl Offsets {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// `BtfError`.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        Self::read(Path::new(VMLINUX))
    }

    /// Those that a file of this format describes.
    ///
    /// # Errors
    /// `BtfError`.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        Self::parse(&fs::read(path).map_err(BtfError::Unreadable)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let types = Types::parse(bytes).ok_or(BtfError::Malformed)?;
        let tcp = types.structure("tcp_sock").ok_or(BtfError::Missing("struct tcp_sock"))?;
        let socket = types.structure("socket").ok_or(BtfError::Missing("struct socket"))?;
        let of = |of: Type<'_>, path: &[&str], name: &'static str| {
            types.bits(of, path).map(|field| field.bit / 8).ok_or(BtfError::Missing(name))
        };
        let file = types.structure("file").ok_or(BtfError::Missing("struct file"))?;
        let task = types.structure("task_struct").ok_or(BtfError::Missing("struct task_struct"))?;
        let registers = types.structure("pt_regs").ok_or(BtfError::Missing("struct pt_regs"))?;
        let backlog = ["inet_conn", "icsk_inet", "sk", "sk_backlog", "rmem_alloc"];
        Ok(Self {
            copied_seq: of(tcp, &["copied_seq"], "tcp_sock.copied_seq")?,
            rcv_nxt: of(tcp, &["rcv_nxt"], "tcp_sock.rcv_nxt")?,
            rmem_alloc: of(tcp, &backlog, "sock.sk_backlog.rmem_alloc")?,
            write_seq: of(tcp, &["write_seq"], "tcp_sock.write_seq")?,
            snd_una: of(tcp, &["snd_una"], "tcp_sock.snd_una")?,
            bytes_received: of(tcp, &["bytes_received"], "tcp_sock.bytes_received")?,
            bytes_acked: of(tcp, &["bytes_acked"], "tcp_sock.bytes_acked")?,
            is_mptcp: types.bits(tcp, &["is_mptcp"]).map_or((0, 0), Field::byte),
            sk_socket: of(tcp, &["inet_conn", "icsk_inet", "sk", "sk_socket"], "sock.sk_socket")?,
            socket_file: of(socket, &["file"], "socket.file")?,
            file_flags: of(file, &["f_flags"], "file.f_flags")?,
            socket_sk: of(socket, &["sk"], "socket.sk")?,
            task_stack: of(task, &["stack"], "task_struct.stack")?,
            syscall: registers.refers_to.saturating_sub(of(registers, &[SYSCALL], "system call in pt_regs")?),
        })
    }
}

/// A field, by its first bit.
#[derive(Clone, Copy, Debug)]
struct Field {
    bit: u32,
    /// Its width where it is a bit field.
    bits: u32,
}

impl Field {
    /// The byte that it is in, and its bits there.
    fn byte(self) -> (u32, u32) {
        let mask = if self.bits == 0 { 0xff } else { ((1 << self.bits.min(8)) - 1) << (self.bit % 8) };
        (self.bit / 8, mask & 0xff)
    }
}

/// One type: what it is, and its members.
#[derive(Clone, Copy)]
struct Type<'a> {
    kind: u32,
    name: u32,
    has_bit_fields: bool,
    /// Size, or the type that it refers to.
    refers_to: u32,
    members: &'a [u8],
}

struct Types<'a> {
    all: Vec<Type<'a>>,
    strings: &'a [u8],
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Typedef, volatile, const, restrict, type tag: another name of a type.
const OTHER_NAMES: [u32; 5] = [8, 9, 10, 11, 18];

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        // The byte order of the machine: another one is not understood, which is right.
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = |index: usize| word(bytes, 4 + index * 4).map(|word| word as usize);
        let (length, type_at, type_bytes, string_at, string_bytes) =
            (header(0)?, header(1)?, header(2)?, header(3)?, header(4)?);
        let section = |at: usize, size: usize| {
            let begin = length.checked_add(at)?;
            bytes.get(begin..begin.checked_add(size)?)
        };
        let strings = section(string_at, string_bytes)?;
        let mut rest = section(type_at, type_bytes)?;
        // Type 0 is void.
        let mut all = vec![Type { kind: 0, name: 0, has_bit_fields: false, refers_to: 0, members: &[] }];
        while !rest.is_empty() {
            let info = word(rest, 4)?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let behind = match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                STRUCT | UNION | 15 | 19 => count * 12,
                6 | 13 => count * 8,
                2 | 7..=12 | 16 | 18 => 0,
                // A kind that is newer than this program: nobody knows where the next type begins.
                _ => return None,
            };
            let members = rest.get(12..12 + behind)?;
            let (name, refers_to) = (word(rest, 0)?, word(rest, 8)?);
            all.push(Type { kind, name, has_bit_fields: info >> 31 != 0, refers_to, members });
            rest = rest.get(12 + behind..)?;
        }
        Some(Self { all, strings })
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let text = self.strings.get(name as usize..).unwrap_or_default();
        text.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn structure(&self, name: &str) -> Option<Type<'a>> {
        self.all.iter().copied().find(|one| one.kind == STRUCT && self.is_named(one.name, name))
    }

    /// The type behind other names of it.
    fn resolved(&self, mut id: u32) -> Option<Type<'a>> {
        for _ in 0..DEPTH_MAX {
            let found = *self.all.get(id as usize)?;
            if !OTHER_NAMES.contains(&found.kind) {
                return Some(found);
            }
            id = found.refers_to;
        }
        None
    }

    /// The field at the end of a path of names.
    fn bits(&self, mut within: Type<'a>, path: &[&str]) -> Option<Field> {
        let mut bit = 0;
        let mut bits = 0;
        for name in path {
            let (field, of) = self.member(within, name, 0)?;
            bit += field.bit;
            bits = field.bits;
            within = self.resolved(of)?;
        }
        Some(Field { bit, bits })
    }

    /// A member, also one of a structure without a name.
    fn member(&self, within: Type<'a>, name: &str, depth: usize) -> Option<(Field, u32)> {
        if depth == DEPTH_MAX || !(within.kind == STRUCT || within.kind == UNION) {
            return None;
        }
        within.members.as_chunks::<12>().0.iter().find_map(|member| {
            let (label, of, place) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let (bit, bits) =
                if within.has_bit_fields { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            if label != 0 && self.is_named(label, name) {
                return Some((Field { bit, bits }, of));
            }
            if label != 0 && !self.is_named(label, "") {
                return None;
            }
            let (inner, of) = self.member(self.resolved(of)?, name, depth + 1)?;
            Some((Field { bit: bit + inner.bit, ..inner }, of))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_where_its_fields_are() {
        if !Path::new(VMLINUX).exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
        }
        let offsets = Offsets::of_running_kernel().unwrap();
        let all = [
            offsets.copied_seq,
            offsets.rcv_nxt,
            offsets.rmem_alloc,
            offsets.write_seq,
            offsets.snd_una,
            offsets.bytes_received,
            offsets.bytes_acked,
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(*one > 0 && *one < 4096, "{offsets:?}");
            assert!(!all[..index].contains(one), "{offsets:?}");
        }
        assert!(offsets.rmem_alloc < offsets.copied_seq.max(offsets.rcv_nxt), "the sock comes first");
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for bytes in
            [&b""[..], b"\x9f\xeb", &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &[0xff; 64]]
        {
            assert!(matches!(Offsets::parse(bytes), Err(BtfError::Malformed)));
        }
        assert!(matches!(Offsets::read(Path::new("/nonexistent")), Err(BtfError::Unreadable(_))));
    }

    #[test]
    fn no_damage_to_a_description_makes_it_panic() {
        let Ok(whole) = fs::read(VMLINUX) else { return };
        for length in (0..whole.len()).step_by(whole.len() / 40 + 1) {
            let _ = Offsets::parse(&whole[..length]);
        }
        for at in (0..whole.len().min(4000)).step_by(7) {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _ = Offsets::parse(&broken);
        }
    }
}
