//! Loads from program contexts that the compiler cannot merge: the verifier rejects a context pointer that was
//! moved ("dereference of modified ctx ptr"), which is what two merged branches come to.

/// Loads one 32-bit word of a context at a constant offset: a field, or a number of bytes.
macro_rules! load_u32 {
    ($pointer:expr, $type:ty, $($field:tt)+) => {
        $crate::context::load_u32!(at $pointer, core::mem::offset_of!($type, $($field)+))
    };
    (at $pointer:expr, $offset:expr) => {{
        let word: u64;
        // SAFETY: the verifier checks that the context has a field there.
        unsafe {
            core::arch::asm!(
                "{word} = *(u32 *)({context} + {offset})",
                word = out(reg) word,
                context = in(reg) $pointer,
                offset = const $offset,
                options(nostack, readonly)
            )
        };
        word as u32
    }};
}

/// Loads the four words of an IPv6 address of a context.
macro_rules! load_ip6 {
    ($pointer:expr, $type:ty, $field:ident) => {{
        const BASE: usize = core::mem::offset_of!($type, $field);
        let (a, b, c, d): (u64, u64, u64, u64);
        // SAFETY: as for load_u32.
        unsafe {
            core::arch::asm!(
                "{a} = *(u32 *)({context} + {first})",
                "{b} = *(u32 *)({context} + {second})",
                "{c} = *(u32 *)({context} + {third})",
                "{d} = *(u32 *)({context} + {fourth})",
                a = out(reg) a,
                b = out(reg) b,
                c = out(reg) c,
                d = out(reg) d,
                context = in(reg) $pointer,
                first = const BASE,
                second = const (BASE + 4),
                third = const (BASE + 8),
                fourth = const (BASE + 12),
                options(nostack, readonly)
            )
        };
        [a as u32, b as u32, c as u32, d as u32]
    }};
}

pub(crate) use {load_ip6, load_u32};
