//! What the kernel programs and the daemon must agree on, and nothing else.
//!
//! Rules of a map type: `#[repr(C)]`, integers and arrays of integers only, no padding (a test checks it),
//! IP addresses in network byte order as four 32-bit words with IPv4 mapped into `::ffff:0:0/96`, ports in
//! host byte order, times in nanoseconds of `CLOCK_BOOTTIME`.
#![cfg_attr(not(test), no_std)]

pub mod connection;
pub mod event;
pub mod faults;
pub mod head;
pub mod hot;
pub mod redirect;

/// `AF_INET` as the kernel programs see it.
pub const AF_INET: u32 = 2;
/// `AF_INET6` as the kernel programs see it.
pub const AF_INET6: u32 = 10;
