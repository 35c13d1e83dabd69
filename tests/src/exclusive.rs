//! Turns between tests that load or switch the whole machine: one at a time, across processes.

use std::env;
use std::fs::{File, OpenOptions};

use anyhow::{Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

/// The machine is this test's own until dropped.
#[derive(Debug)]
pub struct Exclusive {
    _lock: Flock<File>,
}

impl Exclusive {
    /// Waits for the other tests that asked for the machine, then holds it.
    pub fn machine() -> Result<Self> {
        let path = env::temp_dir().join("sidestep-tests.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| anyhow!(errno))?;
        Ok(Self { _lock: lock })
    }
}
