//! The rules, each a pure function of a path inside the checkout and the text of the file.

use std::fmt;

use super::source::Source;

/// A Rust file is split by subject before it is longer, in lines.
const FILE_LINES_MAX: usize = 600;

/// What kernel and user space must agree on stays small, in lines outside tests: the redirect took 400, and the walk
/// over a head, which must be one source for both, and the layout of resident responses as many again.
const COMMON_LINES_MAX: usize = 1000;

/// One hook a file, in lines.
const HOOK_LINES_MAX: usize = 200;

/// Files of the kernel programs that may be longer, and how long.
///
/// `connect` is four hooks that differ only in the family of their addresses.
const LONGER_HOOKS: [(&str, usize); 1] = [("cache-ebpf/src/connect.rs", 250)];

/// Files and folders that touch no socket, clock, environment or chance.
const PURE: [&str; 5] = [
    "cache-common/src/",
    "cache-userspace/src/policy/",
    "cache-userspace/src/http1/",
    "cache-userspace/src/redirect/reconcile.rs",
    "cache-userspace/src/kube/index",
];

/// What pure code does not name.
const IMPURE: [&str; 13] = [
    "tokio",
    "rand",
    "getrandom",
    "fastrand",
    "std::net",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "libc",
    "nix",
];

/// How many lines above an unsafe block its reason begins, at most; a longer comment counts as one line.
const SAFETY_LINES_ABOVE: usize = 3;

/// Words that say nothing about what a file is for.
const VAGUE: [&str; 3] = ["manager", "helper", "util"];

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Breach {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Checks what holds for every text: no path of one machine.
pub(super) fn check_text(path: &str, text: &str, machine_paths: &[String]) -> Vec<Breach> {
    let mut found = Vec::new();
    for (line, content) in numbered(text.lines()) {
        for machine_path in machine_paths.iter().filter(|machine_path| names_path(content, machine_path)) {
            found.push(breach(path, line, format!("names a path of one machine, {machine_path}")));
        }
    }
    found
}

/// Whether the path stands in the line, and not as the tail of a longer one (`/a/` in `/b/a/`).
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}/".contains(c))
    })
}

/// Checks what holds for Rust.
pub(super) fn check_rust(path: &str, text: &str) -> Vec<Breach> {
    let source = Source::of(text);
    let mut found = Vec::new();
    found.extend(check_length(path, text));
    found.extend(check_opening(path, text));
    found.extend(check_name(path));
    found.extend(check_unfinished(path, &source));
    found.extend(check_safety(path, &source));
    if PURE.iter().any(|pure| path.starts_with(pure)) {
        found.extend(check_purity(path, &source));
    }
    found
}

/// Checks how much kernel and user space agree on.
pub(super) fn check_common_size(lines: usize) -> Option<Breach> {
    (lines > COMMON_LINES_MAX)
        .then(|| breach("cache-common/src", 1, format!("{lines} lines, {COMMON_LINES_MAX} at most")))
}

/// How many lines stand before the test module at the end of a file.
pub(super) fn lines_outside_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| matches!(pair, ["#[cfg(test)]", module] if module.starts_with("mod ")))
        .unwrap_or(lines.len())
}

fn check_length(path: &str, text: &str) -> Option<Breach> {
    let longer = LONGER_HOOKS.iter().find(|(name, _)| *name == path).map(|(_, lines)| *lines);
    let hook = path.starts_with("cache-ebpf/src/").then_some(HOOK_LINES_MAX);
    let max = longer.or(hook).unwrap_or(FILE_LINES_MAX);
    let lines = text.lines().count();
    (lines > max).then(|| breach(path, max + 1, format!("{lines} lines, {max} at most")))
}

fn check_opening(path: &str, text: &str) -> Option<Breach> {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    (!first.is_some_and(|line| line.starts_with("//!")))
        .then(|| breach(path, 1, "does not open with `//!`: what it is for, what it leaves to whom"))
}

fn check_name(path: &str) -> Option<Breach> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let word = VAGUE.iter().find(|word| name.contains(*word))?;
    Some(breach(path, 1, format!("is named after no subject (`{word}`)")))
}

fn check_unfinished(path: &str, source: &Source) -> Vec<Breach> {
    let mut found = Vec::new();
    for (line, comment) in numbered(&source.comments) {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
            if has_path(comment, word) {
                found.push(breach(path, line, format!("{word}: do it, or open an issue")));
            }
        }
    }
    for (line, code) in numbered(&source.code) {
        for word in ["todo!", "unimplemented!"] {
            if has_path(code, word) {
                found.push(breach(path, line, format!("`{word}` in finished code")));
            }
        }
    }
    found
}

fn check_safety(path: &str, source: &Source) -> Vec<Breach> {
    let mut found = Vec::new();
    for (line, code) in numbered(&source.code) {
        let next = source.code.get(line).map(String::as_str).unwrap_or_default();
        let site = has_path(code, "unsafe {")
            || has_path(code, "unsafe impl")
            || (code.trim_end().ends_with("unsafe") && next.trim_start().starts_with('{'));
        if site && !has_reason(source, line) {
            found.push(breach(path, line, "unsafe without `// SAFETY:` in the three lines above"));
        }
    }
    found
}

/// Whether a SAFETY comment stands on this line (counted from 1) or right above it.
fn has_reason(source: &Source, line: usize) -> bool {
    let mut above = 0;
    for at in (0..line).rev() {
        let comment = source.comments.get(at).map(String::as_str).unwrap_or_default();
        if comment.contains("SAFETY:") {
            return true;
        }
        let only_comment =
            !comment.is_empty() && source.code.get(at).is_some_and(|code| code.trim().is_empty());
        if !only_comment {
            above += 1;
        }
        if above > SAFETY_LINES_ABOVE {
            return false;
        }
    }
    false
}

fn check_purity(path: &str, source: &Source) -> Vec<Breach> {
    let code = source.code.join("\n");
    let product = lines_outside_tests(&code);
    let mut found = Vec::new();
    for (line, content) in numbered(&source.code).take(product) {
        for name in IMPURE.iter().filter(|name| has_path(content, name)) {
            found.push(breach(path, line, format!("pure code names `{name}`")));
        }
    }
    found.extend(check_std_groups(path, &source.code, product));
    found
}

/// Finds `std::{…, net::…}`, which spells `std::net` without its name.
fn check_std_groups(path: &str, code: &[String], product: usize) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut depth = 0;
    for (line, content) in numbered(code).take(product) {
        let (mut rest, mut word) = (content, String::new());
        if depth == 0 {
            let Some((_, group)) = content.split_once("std::{") else { continue };
            (rest, depth) = (group, 1);
        }
        // Only the first level names modules of std: in `fmt::{self, net}` the inner words are of `fmt`.
        let mut first_of_path = true;
        for c in rest.chars().chain(['\n']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            let impure = IMPURE.iter().any(|name| name.strip_prefix("std::") == Some(&word));
            if impure && depth == 1 && first_of_path {
                found.push(breach(path, line, format!("pure code names `std::{word}`")));
            }
            if !word.is_empty() {
                first_of_path = false;
            }
            word.clear();
            match c {
                ',' => first_of_path = true,
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// Whether the words stand in the line, and not as part of longer ones.
fn has_path(line: &str, words: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(words).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        let after = line.get(at + words.len()..).and_then(|after| after.chars().next());
        let ends_open = words.ends_with(part_of_word) && after.is_some_and(part_of_word);
        !before.is_some_and(part_of_word) && !ends_open
    })
}

fn numbered<'a, T: AsRef<str> + ?Sized + 'a>(
    lines: impl IntoIterator<Item = &'a T>,
) -> impl Iterator<Item = (usize, &'a str)> {
    lines.into_iter().enumerate().map(|(index, line)| (index + 1, line.as_ref()))
}

fn breach(path: &str, line: usize, what: impl Into<String>) -> Breach {
    Breach { path: path.to_owned(), line, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The breaches of a file at `path` with this text, as lines and reasons.
    fn breaches(path: &str, text: &str) -> Vec<(usize, String)> {
        check_rust(path, text).into_iter().map(|breach| (breach.line, breach.what)).collect()
    }

    fn is_clean(path: &str, text: &str) -> bool {
        breaches(path, text).is_empty()
    }

    #[test]
    fn pure_code_names_no_clock_and_no_socket() {
        let path = "cache-userspace/src/policy/age.rs";
        assert_eq!(breaches(path, "//! a\nlet now = Instant::now();\n").len(), 1);
        assert_eq!(breaches(path, "//! a\nuse tokio::time;\n").len(), 1);
        assert_eq!(breaches(path, "//! a\nuse std::net::IpAddr;\n").len(), 1);
        assert!(is_clean(path, "//! a\nuse std::time::Instant;\nfn a(now: Instant) {}\n"));
        assert!(is_clean("cache-userspace/src/app.rs", "//! a\nuse tokio::time;\n"));
    }

    #[test]
    fn a_group_of_uses_hides_no_impure_module() {
        let path = "cache-common/src/hot.rs";
        assert_eq!(breaches(path, "//! a\nuse std::{fmt, net::IpAddr};\n").len(), 1);
        assert_eq!(
            breaches(path, "//! a\nuse std::{\n    fmt::{self, env},\n    env,\n};\n"),
            [(4, "pure code names `std::env`".to_owned())]
        );
        assert!(is_clean(path, "//! a\nuse std::{fmt, net_like, io::{net}};\n"));
    }

    #[test]
    fn words_in_comments_strings_and_tests_are_not_code() {
        let path = "cache-userspace/src/policy/key.rs";
        let text = "//! tokio calls this\nconst A: &str = \"std::net\";\n#[cfg(test)]\nmod tests {\n    use std::env;\n}\n";
        assert!(is_clean(path, text));
        assert!(is_clean(path, "//! a\nlet operand = strand + tokio_like;\n"));
    }

    #[test]
    fn an_unsafe_block_gives_its_reason_within_three_lines() {
        let path = "cache-userspace/src/accept/socket.rs";
        assert_eq!(breaches(path, "//! a\nunsafe { f() }\n").len(), 1);
        assert!(is_clean(path, "//! a\n// SAFETY: b\nlet x =\n    unsafe { f() };\n"));
        assert!(is_clean(path, "//! a\n// SAFETY: b\n// c\n// d\n// e\n// f\nunsafe impl Pod for A {}\n"));
        assert_eq!(breaches(path, "//! a\n// SAFETY: b\nf();\ng();\nh();\ni();\nunsafe { j() }\n").len(), 1);
        assert!(is_clean(path, "//! a\n#![deny(unsafe_op_in_unsafe_fn)]\n#[unsafe(no_mangle)]\nfn b() {}\n"));
    }

    #[test]
    fn every_file_opens_with_what_it_is_for() {
        assert!(is_clean("xtask/src/a.rs", "//! a\n"));
        assert!(is_clean("cache-ebpf/src/main.rs", "#![no_std]\n#![no_main]\n//! a\n"));
        assert_eq!(breaches("xtask/src/a.rs", "use std::fs;\n//! a\n").len(), 1);
        assert_eq!(breaches("xtask/src/a.rs", "").len(), 1);
    }

    #[test]
    fn files_are_split_before_they_are_too_long() {
        let of = |lines: usize| format!("//! a\n{}", "\n".repeat(lines - 1));
        assert!(is_clean("xtask/src/a.rs", &of(FILE_LINES_MAX)));
        assert_eq!(breaches("xtask/src/a.rs", &of(FILE_LINES_MAX + 1)).len(), 1);
        assert!(is_clean("cache-ebpf/src/maps.rs", &of(HOOK_LINES_MAX)));
        assert_eq!(breaches("cache-ebpf/src/maps.rs", &of(HOOK_LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn the_common_crate_is_counted_outside_its_tests() {
        assert_eq!(lines_outside_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(lines_outside_tests("a\nb\n"), 2);
        assert_eq!(check_common_size(COMMON_LINES_MAX), None);
        assert!(check_common_size(COMMON_LINES_MAX + 1).is_some());
    }

    #[test]
    fn unfinished_code_is_found_in_comments_and_macros() {
        let word = concat!("TO", "DO");
        assert_eq!(breaches("xtask/src/a.rs", &format!("//! a\n// {word}: b\n")).len(), 1);
        assert_eq!(breaches("xtask/src/a.rs", concat!("//! a\nfn b() { to", "do!() }\n")).len(), 1);
        assert!(is_clean("xtask/src/a.rs", "//! a\nlet todos = 1;\n"));
    }

    #[test]
    fn a_path_of_one_machine_is_found_in_any_text() {
        let machine = ["/people/".to_owned(), "/me/".to_owned()];
        let found = |text| check_text("README.md", text, &machine).len();
        assert_eq!(found("cd /people/ann/x\n\nPATH=/me/bin"), 2);
        assert_eq!(found("see target/me/x and /some/y"), 0);
    }

    #[test]
    fn a_file_is_named_after_its_subject() {
        assert_eq!(breaches("xtask/src/string_utils.rs", "//! a\n").len(), 1);
    }
}
