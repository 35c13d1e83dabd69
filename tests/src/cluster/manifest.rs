//! What a cluster's operator applies, as it is in `deploy/`.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::locate;

/// The plain manifest, without the definitions of kinds.
pub fn plain() -> Result<String> {
    read("kubernetes/sidestep.yaml")
}

/// All of it: the definitions of kinds, and the rest.
pub fn all() -> Result<String> {
    Ok(format!("{}---\n{}", read("kubernetes/cachepolicies.yaml")?, plain()?))
}

fn read(name: &str) -> Result<String> {
    let path = locate::deployed(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// All of it as an API server takes it that is older than `maxSurge` (1.22): by its own words none may then be unavailable.
pub fn plain_before_surge() -> Result<String> {
    let text = all()?;
    let (surge, unavailable) = ("      maxSurge: 1\n", "maxUnavailable: 0");
    ensure!(text.contains(surge) && text.contains(unavailable), "no maxSurge and maxUnavailable");
    Ok(text.replace(surge, "").replace(unavailable, "maxUnavailable: 1"))
}

/// The capabilities that its container has, as the kernel names them.
pub fn capabilities() -> Result<Vec<String>> {
    let text = plain()?;
    ensure!(text.contains("drop: [ALL]"), "not all of them are dropped first");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("add: ["));
    let names = line.and_then(|line| line.strip_suffix(']')).context("no capabilities")?;
    Ok(names.split(", ").map(str::to_lowercase).collect())
}

/// The words that, put before a command, leave it these capabilities and no way to others.
pub fn confined() -> Result<Vec<String>> {
    let names: String = capabilities()?.iter().map(|name| format!(",+{name}")).collect();
    let words = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend([format!("--bounding-set=-all{names}"), "--".to_owned()]);
    Ok(words)
}
