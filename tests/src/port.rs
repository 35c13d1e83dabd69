//! Ports on which nobody listens, for tests that need a destination which refuses.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Below the kernel's ephemeral range, so that no connection of another test is given one by chance.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of 127.0.0.1 that was free a moment ago and that the kernel does not hand out.
pub fn unused() -> Result<u16> {
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(process::id().wrapping_mul(37));
        let port = u16::try_from(FIRST + step % COUNT)?;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    None.context("no unused port")
}
