//! The crates that are linked into a program, and which needs which: what `cargo tree` says, with the features of that
//! build, and the checksums of `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;

/// A crate: name and version, of which there is one source (`deny.toml`).
pub(super) type Id = (String, String);

/// Crates with their licences, and what each needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    /// The licence of each crate.
    pub(super) crates: BTreeMap<Id, String>,
    /// What each crate needs; one that needs nothing has none.
    pub(super) needs: BTreeMap<Id, BTreeSet<Id>>,
}

/// Asks cargo for what is linked into a package of ours, where the packages of `selection` are built together: their
/// features are one set.
///
/// # Errors
/// If cargo does not know, or says it otherwise than we read it.
pub(super) fn of(checkout: &Checkout, package: &str, target: &str, selection: &[&str]) -> Result<Tree> {
    let mut cargo = checkout.cargo();
    cargo.args(["tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro"]);
    cargo.args(["--prefix", "depth", "--format", "|{p}|{l}"]).args(selection);
    let output = cargo.output().context("cargo did not start")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = parse(&String::from_utf8_lossy(&output.stdout))?;
    tree.from(package)
}

/// Reads lines such as `2|bytes v1.12.1|MIT (*)`; the star only says that what is below has been said already.
fn parse(text: &str) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut above: Vec<Id> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.split('|');
        let depth: usize = fields.next().and_then(|depth| depth.parse().ok()).context(line.to_owned())?;
        let mut words = fields.next().unwrap_or_default().split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let version =
            words.next().and_then(|word| word.strip_prefix('v')).context(line.to_owned())?.to_owned();
        let licence = fields.next().unwrap_or_default().trim_end_matches(" (*)");
        let id = (name, version);
        ensure!(depth <= above.len(), "{line}");
        above.truncate(depth);
        if let Some(parent) = above.last() {
            tree.needs.entry(parent.clone()).or_default().insert(id.clone());
        }
        // An older way to write it.
        tree.crates.insert(id.clone(), licence.replace('/', " OR "));
        above.push(id);
    }
    Ok(tree)
}

impl Tree {
    /// What a package needs, and itself.
    fn from(self, package: &str) -> Result<Self> {
        let root = self.crates.keys().find(|(name, _)| name == package).context(package.to_owned())?;
        let (mut part, mut left) = (Self::default(), vec![root.clone()]);
        while let Some(id) = left.pop() {
            let licence = self.crates.get(&id).cloned().unwrap_or_default();
            if part.crates.insert(id.clone(), licence).is_some() {
                continue;
            }
            if let Some(needs) = self.needs.get(&id) {
                left.extend(needs.iter().cloned());
                part.needs.insert(id, needs.clone());
            }
        }
        Ok(part)
    }
}

/// The checksums in a `Cargo.lock`, SHA-256; packages of the workspace have none.
pub(super) fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let field = |name: &str| {
            let value = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
            Some(value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) = (field("name"), field("version"), field("checksum")) {
            found.insert((name, version), sum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        (name.into(), "1.0.0".into())
    }

    #[test]
    fn what_a_package_needs_is_found_also_where_cargo_says_it_once() {
        let said = "0|other v1.0.0 (/a/b)|MIT\n1|shared v1.0.0|MIT/Apache-2.0\n2|deep v1.0.0|ISC\n1|alone v1.0.0|MIT\n\n\
                    0|ours v1.0.0 (/a/c)|MIT\n1|shared v1.0.0|MIT/Apache-2.0 (*)\n";
        let tree = parse(said).unwrap().from("ours").unwrap();
        let names: Vec<&str> = tree.crates.keys().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["deep", "ours", "shared"]);
        assert_eq!(tree.crates[&id("shared")], "MIT OR Apache-2.0");
        assert_eq!(tree.needs[&id("ours")], BTreeSet::from([id("shared")]));
        assert_eq!(tree.needs[&id("shared")], BTreeSet::from([id("deep")]));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(parse("ours v1.0.0|MIT\n").is_err());
        assert!(parse("3|ours v1.0.0|MIT\n").is_err());
        assert!(parse("0|ours v1.0.0|MIT\n").unwrap().from("theirs").is_err());
    }

    #[test]
    fn checksums_are_those_of_the_packages_that_have_one() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"r\"\nchecksum = \"0f\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"1.0.0\"\ndependencies = [\n \"a\",\n]\n";
        assert_eq!(checksums(lock), BTreeMap::from([(id("a"), "0f".into())]));
    }
}
