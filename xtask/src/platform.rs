//! The kinds of machine that the program is built for, by the names that each tool has for them.

use anyhow::{Result, bail};

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// What the compiler calls it.
    pub(crate) triple: &'static str,
    /// What images, Debian and Go call it.
    pub(crate) name: &'static str,
    /// What GNU's tools and the folders of libraries are called after.
    pub(crate) gnu: &'static str,
}

/// All that an image can be made for.
pub(crate) const PLATFORMS: [Platform; 2] = [
    Platform { triple: "x86_64-unknown-linux-gnu", name: "amd64", gnu: "x86_64-linux-gnu" },
    Platform { triple: "aarch64-unknown-linux-gnu", name: "arm64", gnu: "aarch64-linux-gnu" },
];

impl Platform {
    /// What processors call it: the first word of the triple.
    pub(crate) fn processor(self) -> &'static str {
        self.triple.split('-').next().unwrap_or_default()
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        PLATFORMS.into_iter().find(|platform| platform.name == name)
    }

    /// The one that this machine is.
    ///
    /// # Errors
    /// If it is another.
    pub(crate) fn here() -> Result<Self> {
        let arch = std::env::consts::ARCH;
        match PLATFORMS.into_iter().find(|platform| platform.processor() == arch) {
            Some(platform) => Ok(platform),
            None => bail!("images are made for {}, not {arch}", PLATFORMS.map(|it| it.name).join(" and ")),
        }
    }
}
