//! What a build for tests (feature `faults`) can be told to get wrong, by its environment; any other build looks at none
//! of it.

/// What is to go wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Conditions that the kernel programs leave out: bits of `cache_common::faults` (`SIDESTEP_FAULTS`, a number). What
    /// the self-test then finds is reported and does not count.
    pub left_out: u32,
    /// The part of the self-test that fails, by its name (`SIDESTEP_SELFTEST_FAIL`).
    pub failing: Option<String>,
    /// Whether the kernel's description of its types counts as missing (`SIDESTEP_NO_BTF=1`).
    pub no_btf: bool,
}

impl Faults {
    /// What the environment asks for.
    #[cfg(feature = "faults")]
    pub fn asked() -> Self {
        let of = |name: &str| std::env::var(name).ok();
        Self {
            left_out: of("SIDESTEP_FAULTS").and_then(|number| number.parse().ok()).unwrap_or(0),
            failing: of("SIDESTEP_SELFTEST_FAIL"),
            no_btf: of("SIDESTEP_NO_BTF").is_some_and(|value| value == "1"),
        }
    }

    /// Nothing.
    #[cfg(not(feature = "faults"))]
    pub fn asked() -> Self {
        Self::default()
    }
}
