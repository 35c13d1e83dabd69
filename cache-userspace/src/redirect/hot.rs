//! Which responses are resident in the kernel.

pub mod skipped;

pub use skipped::Skipped;
