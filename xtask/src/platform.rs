//! The kinds of machine that the program is built for, by the names that each tool has for them.

use anyhow::{Result, bail};

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// What the compiler calls it.
    pub(crate) triple: &'static str,
    /// What images, Debian and Go call it.
    pub(crate) name: &'static str,
}

/// All that an image can be made for.
pub(crate) const PLATFORMS: [Platform; 2] = [
    Platform { triple: "x86_64-unknown-linux-gnu", name: "amd64" },
    Platform { triple: "aarch64-unknown-linux-gnu", name: "arm64" },
];

impl Platform {
    /// The one that this machine is.
    ///
    /// # Errors
    /// If it is another.
    pub(crate) fn here() -> Result<Self> {
        let arch = std::env::consts::ARCH;
        match PLATFORMS.into_iter().find(|platform| platform.triple.starts_with(arch)) {
            Some(platform) => Ok(platform),
            None => bail!("images are made for {}, not {arch}", PLATFORMS.map(|it| it.name).join(" and ")),
        }
    }
}
