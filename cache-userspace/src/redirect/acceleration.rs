//! Whether hits are given inside the kernel: loads the programs, has this kernel tested, and says what came of it.
//!
//! The tests are in `selftest`; what is given is left to whoever fills the maps.

use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

use cache_common::hot::{CHUNK_BYTES, Seeds};
use serde::{Deserialize, Serialize};

use super::btf::Offsets;
use super::faults::Faults;
use super::hit_maps::HitSettings;
use super::hot::Skipped;
use super::kernel::{Kernel, KernelError};
use super::selftest::{self, Counted, Finding, Outcome};

/// When hits are given inside the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Where the running kernel proves fit for it.
    #[default]
    Auto,
    /// Always: where the kernel is not fit for it, nothing starts.
    Hits,
    /// Never.
    Off,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Hits => "hits",
            Self::Off => "off",
        })
    }
}

/// The least memory of resident responses, in chunks: what the self-test takes.
pub const CHUNKS_MIN: u32 = 128;
/// The most: 2 GiB.
pub const CHUNKS_MAX: u32 = 1 << 19;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// When.
    pub mode: Mode,
    /// Memory for resident responses, bytes; at least 512 KiB and at most 2 GiB are taken.
    pub bytes: u64,
    /// Fields that do not tell one request from another.
    pub skipped: Skipped,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Acceleration {
    /// What was wanted.
    pub mode: Mode,
    /// Whether hits are given inside the kernel.
    pub is_on: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// What the self-test found; empty where it did not run.
    pub findings: Vec<Finding>,
    /// What the programs were told.
    pub settings: HitSettings,
    /// The largest response that the kernel may give, bytes.
    pub response_bytes_max: usize,
}

impl Acceleration {
    /// Says it in the log, once: loudly where it was wanted and cannot be had.
    pub fn log(&self) {
        let Self { mode, is_on, reason, .. } = self;
        match (mode, is_on) {
            (Mode::Off, _) => tracing::info!("no hits inside the kernel: {reason}"),
            (_, true) => tracing::info!("hits inside the kernel: {reason}"),
            (_, false) => tracing::warn!("no hits inside the kernel: {reason}"),
        }
        for one in self.deviations() {
            tracing::info!("hits inside the kernel differ from plain TCP: {one}");
        }
    }

    /// In what hits inside this kernel are known to differ from plain TCP, a sentence each.
    pub fn deviations(&self) -> impl Iterator<Item = &str> {
        self.findings.iter().filter(|one| one.outcome == Outcome::Deviates).map(|one| one.says.as_str())
    }
}

/// Why there are no kernel programs.
#[derive(Debug, thiserror::Error)]
pub enum AccelerationError {
    /// The kernel refused even those that redirect.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Hits inside the kernel were demanded.
    #[error("acceleration `hits` was demanded, and this machine cannot have it: {0}")]
    Demanded(String),
    /// There is no randomness.
    #[error("no random numbers: {0}")]
    Random(#[source] std::io::Error),
}

/// Loads the kernel programs, with those for hits as far as wanted and possible.
///
/// # Errors
/// `AccelerationError`.
pub fn load(wish: &Wish) -> Result<(Kernel, Acceleration), AccelerationError> {
    let loaded = load_wanted(wish);
    give_back();
    loaded
}

/// Gives back what reading the kernel's types and the programs took, 16 MB, which the C library would keep.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}

fn load_wanted(wish: &Wish) -> Result<(Kernel, Acceleration), AccelerationError> {
    let faults = Faults::asked();
    let chunks = u32::try_from(wish.bytes / CHUNK_BYTES as u64).unwrap_or(CHUNKS_MAX);
    let settings = HitSettings {
        chunks: chunks.clamp(CHUNKS_MIN, CHUNKS_MAX),
        skip: *wish.skipped.list(),
        seeds: match faults.left_out & cache_common::faults::HASH {
            0 => seeds().map_err(AccelerationError::Random)?,
            // With these all heads have the same hash.
            _ => Seeds { start: [0; 2], factor: [0; 2] },
        },
        faults: faults.left_out,
    };
    let off = |reason: String, findings| -> Result<_, AccelerationError> {
        let settings = HitSettings::NONE;
        let kernel = Kernel::load(&settings, None)?;
        let response_bytes_max = 0;
        let off =
            Acceleration { mode: wish.mode, is_on: false, reason, findings, settings, response_bytes_max };
        Ok((kernel, off))
    };
    if wish.mode == Mode::Off {
        return off("it was not wanted (acceleration: off)".to_owned(), Vec::new());
    }
    let (reason, findings) = match accelerated(&settings, &faults) {
        Ok((kernel, reason, findings, counted)) => {
            let response_bytes_max = match counted.hits {
                true => usize::MAX,
                false => UNCOUNTED_BYTES_MAX,
            };
            let on =
                Acceleration { mode: wish.mode, is_on: true, reason, findings, settings, response_bytes_max };
            return Ok((kernel, on));
        }
        Err(unfit) => unfit,
    };
    if wish.mode == Mode::Hits {
        return Err(AccelerationError::Demanded(reason));
    }
    off(reason, findings)
}

/// The largest answer of a kernel that does not count it (FIONREAD): a client that reads less at a time and asks for the
/// rest so, as nginx does, would wait for it for ever.
const UNCOUNTED_BYTES_MAX: usize = 2048;

/// What would come of `auto` here.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Whether hits would be given inside the kernel.
    pub is_on: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// What the self-test found.
    pub findings: Vec<Finding>,
}

/// Loads the programs, has the kernel tested, and takes everything away again.
pub fn trial() -> Trial {
    let faults = Faults::asked();
    let tried = match seeds() {
        Ok(seeds) => {
            let skip = *Skipped::default().list();
            accelerated(&HitSettings { chunks: CHUNKS_MIN, skip, seeds, faults: faults.left_out }, &faults)
        }
        Err(error) => Err((format!("no random numbers: {error}"), Vec::new())),
    };
    match tried {
        Ok((_, reason, findings, _)) => Trial { is_on: true, reason, findings },
        Err((reason, findings)) => Trial { is_on: false, reason, findings },
    }
}

/// Why not, and what the self-test found, if it came so far.
type Unfit = (String, Vec<Finding>);

/// The kernel with the programs, why they may give hits, what the self-test found, and what FIONREAD counts.
type Fit = (Kernel, String, Vec<Finding>, Counted);

fn accelerated(settings: &HitSettings, faults: &Faults) -> Result<Fit, Unfit> {
    let started = Instant::now();
    let refused = |error: &dyn fmt::Display| (one_line(&error.to_string()), Vec::new());
    if faults.no_btf {
        return Err(refused(&"the kernel's description of its types is to count as missing"));
    }
    let offsets = Offsets::of_running_kernel().map_err(|error| refused(&error))?;
    let mut kernel = Kernel::load(settings, Some(&offsets)).map_err(|error| refused(&error))?;
    kernel.load_hits().map_err(|error| refused(&error))?;
    let watch = kernel.watch_splice().map_err(|error| one_line(&error.to_string()));
    let loaded = started.elapsed();
    let (findings, counted) = selftest::run(&kernel, settings, &offsets, watch, faults.failing.as_deref());
    let tested = started.elapsed().saturating_sub(loaded);
    tracing::debug!(?loaded, ?tested, "the kernel was tested");
    let failed: Vec<&Finding> = findings.iter().filter(|one| one.outcome == Outcome::Failed).collect();
    if let (Some(first), 0) = (failed.first(), faults.left_out) {
        let more = match failed.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        return Err((format!("the self-test failed: {}: {}{more}", first.name, first.says), findings));
    }
    kernel.forget_counts().map_err(|error| refused(&error))?;
    kernel.enrol_clients();
    if !counted.tcp && faults.left_out & cache_common::faults::STAY == 0 {
        kernel.hits().separate().map_err(|error| refused(&error))?;
    }
    let reason = said(&findings, tested);
    Ok((kernel, reason, findings, counted))
}

fn said(findings: &[Finding], tested: Duration) -> String {
    let count = |outcome| findings.iter().filter(|one| one.outcome == outcome).count();
    format!(
        "this kernel passed the self-test: {} of {} parts as they should be, {} known deviations, {} ms",
        count(Outcome::Ok),
        findings.len(),
        count(Outcome::Deviates),
        tested.as_millis()
    )
}

/// What a kernel says of a program may be a book; its last line is what counts.
fn one_line(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    let (head, log) = text.split_once("Verifier output:").unwrap_or((text, ""));
    let head = head.trim().trim_end_matches('.').lines().next().unwrap_or_default();
    let last =
        log.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("processed "));
    let line = last.map_or(head.to_owned(), |last| format!("{head}: {last}"));
    line.chars().take(CHARS_MAX).collect()
}

/// Secrets of the head hash: nobody can choose heads that meet.
fn seeds() -> std::io::Result<Seeds> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let mut word = || words.next().unwrap_or_default();
    Ok(Seeds { start: [word(), word()], factor: [word() | 1, word() | 1] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_told_in_one_line() {
        assert_eq!(one_line("no"), "no");
        assert_eq!(
            one_line(
                "not loaded: EPERM. Verifier output: \n0: (b7) r0 = 0\ntoo complex\nprocessed 7 insns\n\n"
            ),
            "not loaded: EPERM: too complex"
        );
        assert_eq!(one_line("not loaded: EPERM. Verifier output: \n").len(), "not loaded: EPERM".len());
        assert_eq!(one_line(&"x".repeat(9000)).len(), 400);
    }

    #[test]
    fn seeds_differ_from_start_to_start_and_factors_are_odd() {
        let (one, other) = (seeds().unwrap(), seeds().unwrap());
        assert_ne!(one.start, other.start);
        assert!(one.factor.iter().all(|factor| factor % 2 == 1));
    }
}
