//! Conditions of the kernel's answers that can be left out, one bit each, so that tests are seen to fail without them.
//! The programs are told at load; only a build for tests ever tells them anything but 0.

/// Whatever was sent counts as answered.
pub const OUTSTANDING: u32 = 1;
/// Whatever was written counts as arrived.
pub const IN_FLIGHT: u32 = 2;
/// Whatever came by TCP counts as read.
pub const UNREAD_TCP: u32 = 4;
/// Whatever came from the kernel counts as read.
pub const UNREAD_HIT: u32 = 8;
/// Expired responses count as fresh.
pub const EXPIRED: u32 = 16;
/// All heads have the same hash.
pub const HASH: u32 = 32;
/// Heads are not compared.
pub const COMPARE: u32 = 64;
/// A response that was taken back counts as there.
pub const RETIRED: u32 = 128;
/// Whoever sends a head, by whatever system call, gets answers of the kernel.
pub const CALLER: u32 = 256;
/// Enrolled sockets stay so, whatever is passed on or written to them.
pub const STAY: u32 = 512;
