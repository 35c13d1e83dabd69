//! Which programs the modes are made of, and in which versions.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{locate, process};

/// How long a program may take to say which it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every program and its version, or that it is not installed.
pub fn components() -> Vec<(String, String)> {
    let programs: [(&str, Option<PathBuf>, &str); 6] = [
        ("Sidestep", locate::sidestep().ok(), "--version"),
        ("Envoy", locate::tool("envoy"), "--version"),
        ("nginx", locate::on_path("nginx"), "-v"),
        ("Varnish", locate::on_path("varnishd"), "-V"),
        ("wrk", locate::on_path("wrk"), "-v"),
        ("oha", locate::oha(), "--version"),
    ];
    let all = programs.into_iter().map(|(name, path, flag)| {
        let version = match path {
            None => "not installed".to_owned(),
            Some(path) => said(&path, flag).unwrap_or_else(|| "of a version that it does not say".to_owned()),
        };
        (name.to_owned(), version)
    });
    all.collect()
}

/// The version that a program says it is, on either stream and with any status.
fn said(path: &std::path::Path, flag: &str) -> Option<String> {
    let output = process::run(Command::new(path).arg(flag), PATIENCE).ok()?;
    version(&output.text()).or_else(|| version(&output.errors()))
}

/// The first number with a point in it.
fn version(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut parts = text.split(|c| !is_part(c)).map(|part| part.trim_matches('.'));
    parts.find(|part| part.contains('.')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number_with_a_point() {
        for (text, expected) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("\nenvoy  version: 9e5580933739775e8/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
            (
                "varnishd (varnish-7.1.1 revision 7cee1c581bead20e)\nCopyright (c) 2006 Verdens Gang\n",
                "7.1.1",
            ),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\n", "4.1.0"),
        ] {
            assert_eq!(version(text).as_deref(), Some(expected));
        }
        assert_eq!(version("version 7, by A. Author."), None);
    }
}
