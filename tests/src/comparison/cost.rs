//! What a run took: processor time by cgroup and of the machine.

use std::fs;
use std::ops::Sub;
use std::path::Path;

use anyhow::{Context, Result};

/// Processor time, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Time {
    /// In the programs' own code.
    pub user: f64,
    /// In the kernel, on their behalf.
    pub kernel: f64,
}

impl Time {
    /// Both.
    pub fn total(self) -> f64 {
        self.user + self.kernel
    }

    /// Of these cgroups together, from their beginning.
    ///
    /// # Errors
    /// If one does not count.
    pub fn of<'a>(cgroups: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let mut sum = Self::default();
        for cgroup in cgroups {
            let path = cgroup.join("cpu.stat");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let one = read(&text).with_context(|| path.display().to_string())?;
            sum.user += one.user;
            sum.kernel += one.kernel;
        }
        Ok(sum)
    }
}

impl Sub for Time {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, kernel: self.kernel - before.kernel }
    }
}

fn read(text: &str) -> Option<Time> {
    let micros = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().parse::<f64>().ok()? / 1e6)
    };
    Some(Time { user: micros("user_usec ")?, kernel: micros("system_usec ")? })
}

/// Ticks of a second (USER_HZ) in /proc, on every architecture that Linux runs on today.
const TICKS: f64 = 100.0;

/// The parent of all kernel threads.
const KTHREADD: &str = "2";

/// What the kernel did on nobody's behalf, interrupts and its own threads, seconds from the machine's start: nearly all
/// of it is the work of the network where nothing else runs.
///
/// # Errors
/// If the kernel does not say.
pub fn unclaimed() -> Result<f64> {
    let mut ticks = interrupts(&fs::read_to_string("/proc/stat")?).context("/proc/stat")?;
    for entry in fs::read_dir("/proc")?.flatten() {
        // What ends meanwhile has no time any more.
        let stat = fs::read_to_string(entry.path().join("stat")).ok();
        ticks += stat.as_deref().and_then(kernel_thread).unwrap_or_default();
    }
    Ok(ticks / TICKS)
}

/// Ticks spent with interrupts.
fn interrupts(stat: &str) -> Option<f64> {
    let fields: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    let [_, _, _, _, _, irq, softirq, ..] = fields[..] else { return None };
    Some(irq + softirq)
}

/// Ticks of a kernel thread, from its `stat`; nothing of any other process.
fn kernel_thread(stat: &str) -> Option<f64> {
    // The name may hold blanks and brackets; its end is the last bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (parent, user, kernel) = (fields.get(1)?, fields.get(11)?, fields.get(12)?);
    if *parent == KTHREADD { Some(user.parse::<f64>().ok()? + kernel.parse::<f64>().ok()?) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let text = "usage_usec 3000000\nuser_usec 1000000\nsystem_usec 2000000\nnice_usec 0\n";
        assert_eq!(read(text), Some(Time { user: 1.0, kernel: 2.0 }));
        assert_eq!(read("usage_usec 3000000\n"), None);
        assert_eq!(interrupts("cpu  100 0 200 900 50 7 3 5 0 0\ncpu0 1 2\n"), Some(10.0));
        let thread = "15 (ksoft) irqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 4 3461 0 0 20 0 1 0 11 0 0";
        assert_eq!(kernel_thread(thread), Some(3465.0));
        assert_eq!(kernel_thread(&thread.replace("S 2", "S 1")), None);
    }
}
