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

/// How long the machine's processors were busy, with whatever it was, seconds from its start.
///
/// # Errors
/// If the kernel does not say.
pub fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    busy_of(&text).context("/proc/stat")
}

fn busy_of(text: &str) -> Option<f64> {
    let fields: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq; what a host took away (steal) was nobody's work.
    let [user, nice, system, _, _, irq, softirq, ..] = fields[..] else { return None };
    // Ticks of USER_HZ, which is 100 on every architecture that Linux runs on today.
    Some((user + nice + system + irq + softirq) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let text = "usage_usec 3000000\nuser_usec 1000000\nsystem_usec 2000000\nnice_usec 0\n";
        assert_eq!(read(text), Some(Time { user: 1.0, kernel: 2.0 }));
        assert_eq!(read("usage_usec 3000000\n"), None);
        let stat = "cpu  100 0 200 900 50 7 3 5 0 0\ncpu0 1 2\n";
        assert_eq!(busy_of(stat), Some(3.1));
    }
}
