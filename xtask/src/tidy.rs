//! The house rules that a machine can check, over every file of this checkout.
//!
//! The rules themselves, which see only a path and a text, are in `laws`; how Rust is split into code and comments
//! is left to `source`.

mod laws;
mod source;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::checkout::Checkout;

/// Folders that hold nothing written by hand.
const NOT_OURS: [&str; 4] = ["target", "node_modules", ".git", "__pycache__"];

/// Endings of the files whose text is looked at.
const TEXT: [&str; 14] =
    ["rs", "toml", "md", "yaml", "yml", "json", "sh", "py", "js", "mjs", "go", "java", "run", "conf"];

/// Checks this checkout.
///
/// # Errors
/// If a rule is broken; every place is printed.
pub(crate) fn run() -> Result<()> {
    println!("{}", check(&Checkout::find()?)?);
    Ok(())
}

/// Checks a checkout and says how many files it looked at.
///
/// # Errors
/// As [`run`].
pub(crate) fn check(checkout: &Checkout) -> Result<String> {
    let mut paths = Vec::new();
    collect(&checkout.root, &mut paths)?;
    paths.sort();

    let machine = machine_paths(&checkout.root);
    let mut breaches = Vec::new();
    let mut common_lines = 0;
    for path in &paths {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(&checkout.root)?.to_string_lossy().into_owned();
        breaches.extend(laws::check_text(&name, &text, &machine));
        if name.ends_with(".rs") {
            breaches.extend(laws::check_rust(&name, &text));
        }
        if name.starts_with("cache-common/src/") {
            common_lines += laws::lines_outside_tests(&text);
        }
    }
    breaches.extend(laws::check_common_size(common_lines));

    for breach in &breaches {
        println!("{breach}");
    }
    if !breaches.is_empty() {
        bail!("{} breaches of the house rules", breaches.len());
    }
    Ok(format!("{} files keep the house rules", paths.len()))
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        let ours = entry.file_name().to_str().is_some_and(|name| !NOT_OURS.contains(&name));
        if kind.is_dir() && ours {
            collect(&path, paths)?;
        } else if kind.is_file() && is_text(&path) {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_text(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| TEXT.contains(&ending)) || path.ends_with(".ci/run")
}

/// Beginnings of paths that mean something on one machine only.
fn machine_paths(root: &Path) -> Vec<String> {
    let home = env::var("HOME").ok().filter(|home| home.len() > 1);
    let folders = [Some("/home".to_owned()), Some("/Users".to_owned()), home];
    let mut paths: Vec<String> = folders.into_iter().flatten().map(|folder| format!("{folder}/")).collect();
    paths.push(root.display().to_string());
    paths
}
