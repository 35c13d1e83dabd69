//! Which acceleration the tests of kernel hits run with, and what they may demand from it.
//!
//! Environment: `SIDESTEP_TEST_ACCELERATION` replaces `auto`; with `off` the clients run, and no kernel hit is demanded.

use std::env;
use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::manners::{KEPT, Manner, Tally};
use crate::shell::Shell;
use crate::summary::Summary;
use crate::{locate, wait};

/// The flag of `sidestep exec`.
pub const FLAG: &str = "--acceleration";

/// What is compared with: every hit given by the daemon.
pub const OFF: &str = "off";

/// The value of [`FLAG`] that is under test.
pub fn tested() -> String {
    env::var("SIDESTEP_TEST_ACCELERATION").unwrap_or_else(|_| "auto".to_owned())
}

/// Whether hits inside the kernel are demanded of `acceleration`.
pub fn is_demanded(acceleration: &str) -> bool {
    acceleration != OFF
}

/// The environment variable that tells a binary with faults which conditions to leave out.
pub const FAULTS: &str = "SIDESTEP_FAULTS";

/// How often [`heat`] lets its client run: it needs two, on a machine that has time for them.
const HEATING_MAX: usize = 10;

/// Makes [`manners::HOT`] hot at an origin, up to the first hits inside the kernel where `mode` demands them.
pub fn heat(shell: &mut Shell, mode: &str, addr: &str) -> Result<()> {
    let words = ["manners", Manner::Keep.word(), addr, "2", "1"];
    for n in 0..HEATING_MAX {
        let output = shell.run([locate::probe()?.as_os_str()].into_iter().chain(words.map(OsStr::new)))?;
        Tally::read(&output)?.all_right(2 * KEPT)?;
        if !is_demanded(mode) {
            return Ok(());
        }
        // The first connections were made before there was anything hot.
        let has_hits = || kernel_hits(shell).is_ok_and(|hits| hits > 0);
        if n > 0 && wait::wait_until(FOLD, "hits", has_hits).is_ok() {
            return Ok(());
        }
    }
    bail!("no hit inside the kernel: {}, {:?}", shell.status()?["acceleration"]["reason"], shell.figures()?)
}

/// How often the daemon reads what the kernel counts, at least.
const FOLD: Duration = Duration::from_secs(2);

fn kernel_hits(shell: &Shell) -> Result<u64> {
    shell.figures()?.figure("kernel_hits")
}

/// Hits, and hits inside the kernel, between two looks at the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// All hits.
    pub hits: u64,
    /// Those of them given inside the kernel.
    pub kernel_hits: u64,
}

impl Share {
    /// What was added from one look to the next.
    pub fn between(before: &Summary, after: &Summary) -> Result<Self> {
        let added =
            |name: &str| Ok::<u64, anyhow::Error>(after.figure(name)?.saturating_sub(before.figure(name)?));
        Ok(Self { hits: added("hits")?, kernel_hits: added("kernel_hits")? })
    }

    /// Checks that the kernel gave at least 99 of 100 hits; that it gave none where it is `off`.
    pub fn suits(self, acceleration: &str) -> Result<()> {
        if !is_demanded(acceleration) {
            ensure!(self.kernel_hits == 0, "switched off, and {self:?}");
            return Ok(());
        }
        ensure!(self.kernel_hits * 100 >= self.hits * 99, "less than 99 of 100 inside the kernel: {self:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_nine_of_a_hundred_are_enough_and_off_means_none() {
        let share = |kernel_hits| Share { hits: 2000, kernel_hits };
        assert!(share(1980).suits("auto").is_ok());
        assert!(share(1979).suits("auto").is_err());
        assert!(share(0).suits(OFF).is_ok());
        assert!(share(1).suits(OFF).is_err());
    }
}
