//! Packages of Debian and Ubuntu, installed without starting the services among them.

use std::process::Command;

use anyhow::{Result, bail};

use super::timed;
use crate::{machine, steps::run_silently};

/// Installs the packages in its arguments.
///
/// A package such as nginx starts its server when it is installed, which would take port 80 of this machine:
/// policy-rc.d forbids that meanwhile. One that is there already is an administrator's and stays as it is. A shell
/// does it, because its trap also removes the file when the installation is interrupted.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
apt-get update -qq
apt-get install -qq --yes --no-install-recommends "$@"
"#;

/// Installs packages; `about` is how long that usually takes.
///
/// # Errors
/// If this is not root, or apt refuses; the error holds what apt said.
pub(super) fn install(packages: &[&str], about: &str) -> Result<()> {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !machine::is_root() {
        bail!("root is needed to install packages: sudo {by_hand}");
    }
    timed(&by_hand, about, || {
        run_silently(
            Command::new("sh")
                .args(["-c", INSTALL, "sh"])
                .args(packages)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    })
}
