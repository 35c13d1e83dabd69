//! `cargo xtask sbom`: what the image consists of, as CycloneDX. The crates that are linked into the program and into the
//! kernel programs inside it, Rust's own library, and the system's libraries beside it. No crate that only helps to build
//! is in it, no time and no chance: the same image has the same list.

mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use serde_json::{Value, json};

use crate::{
    checkout::Checkout,
    image::{Contents, Library, Package},
    setup, steps,
    toolchain::{self, TARGET},
};
use tree::{Id, Tree};

/// The packages of the workspace that the program and the kernel programs are.
const PROGRAM: &str = "cache-userspace";
const KERNEL_PROGRAMS: &str = "cache-ebpf";

/// The property that says into what a crate is linked.
const LINKED_INTO: &str = "sidestep:linked-into";

/// The checker of the schema, and what it says of a document that fits.
const VALIDATE: &str = r"
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
with open(sys.argv[1]) as file:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read())
sys.exit(None if error is None else repr(error))
";

/// Builds the program and writes what an image of it would consist of.
///
/// # Errors
/// As [`document`], or if the program cannot be built.
pub(crate) fn run() -> Result<()> {
    let checkout = Checkout::find()?;
    setup::run(false)?;
    steps::run(checkout.cargo().args(["build", "--release"]))?;
    let file = checkout.target.join("image/sidestep.cdx.json");
    fs::create_dir_all(file.parent().context("no folder")?)?;
    write(&checkout, &Contents::of_this_machine(&checkout)?, &file)?;
    println!("{}", file.display());
    Ok(())
}

/// Writes an image's list.
///
/// # Errors
/// As [`document`], or if the disk is full.
pub(crate) fn write(checkout: &Checkout, contents: &Contents, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&document(checkout, contents)?)?;
    fs::write(file, text + "\n").with_context(|| file.display().to_string())
}

/// Describes an image's contents.
///
/// # Errors
/// If cargo or the compilers do not say what they linked.
fn document(checkout: &Checkout, contents: &Contents) -> Result<Value> {
    let program = tree::of(checkout, PROGRAM, contents.platform.triple, &contents.selection)?;
    let kernel = tree::of(checkout, KERNEL_PROGRAMS, TARGET, &["--package", KERNEL_PROGRAMS])?;
    let lock = checkout.root.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
    let compilers = [compiler_of(&contents.program)?, kernel_compiler()?];
    let files = contents.libraries.iter().map(|library| Ok((library, digest(&library.file)?)));
    let files: Vec<(&Library, String)> = files.collect::<Result<_>>()?;
    let mut bom = Bom { checksums: tree::checksums(&lock), ..Bom::default() };
    bom.add_crates(&program, &compilers[0], "program");
    bom.add_crates(&kernel, &compilers[1], "kernel programs");
    let root = root_of(&program)?;
    bom.needs.entry(reference(&root)).or_default().insert(reference(&root_of(&kernel)?));
    bom.add_files(&reference(&root), &files, contents.platform.name);
    Ok(bom.finish(&root, &digest(&contents.program)?, contents.platform.triple))
}

/// Holds a list against the schema of its format and against what is in the program.
///
/// # Errors
/// If it does not fit, or a crate is in the program that is not in it.
pub(crate) fn check(checkout: &Checkout, file: &Path, program: &Path) -> Result<String> {
    let python = checkout.tools().join("venv/bin/python3");
    steps::run_silently(Command::new(python).args(["-c", VALIDATE]).arg(file))?;
    let document: Value = serde_json::from_slice(&fs::read(file)?)?;
    let components = document["components"].as_array().context("no components")?;
    let word = |component: &Value, name: &str| component[name].as_str().unwrap_or_default().to_owned();
    let listed: BTreeSet<String> =
        components.iter().map(|it| format!("{}-{}", word(it, "name"), word(it, "version"))).collect();
    let seen = crates_seen(&fs::read(program)?);
    ensure!(!seen.is_empty(), "no crate is seen in {}", program.display());
    let missing: Vec<&String> = seen.difference(&listed).collect();
    ensure!(missing.is_empty(), "in the program and not in its list: {missing:?}");
    Ok(format!("{} components, {} of them seen in the program", components.len(), seen.len()))
}

/// The SHA-256 of a file.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn digest(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg("--").arg(file).output().context("sha256sum did not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split_whitespace().next().filter(|digest| digest.len() == 64);
    Ok(digest.with_context(|| format!("no digest of {}", file.display()))?.to_owned())
}

/// The crates whose sources a program names where it would report a panic.
fn crates_seen(program: &[u8]) -> BTreeSet<String> {
    const SOURCES: &[u8] = b"/registry/src/";
    let mut seen = BTreeSet::new();
    for at in memmem::find_iter(program, SOURCES) {
        let rest = program.get(at + SOURCES.len()..).unwrap_or_default();
        // The folder of the registry, then that of the crate.
        let folder = rest.split(|byte| *byte == b'/').nth(1).unwrap_or_default();
        let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(byte);
        let name: String =
            folder.iter().take_while(|byte| is_of_name(byte)).map(|byte| char::from(*byte)).collect();
        if !name.is_empty() {
            seen.insert(name);
        }
    }
    seen
}

/// The version of the compiler that a program names in itself.
fn compiler_of(program: &Path) -> Result<String> {
    let output = Command::new("readelf").args(["-p", ".comment"]).arg(program).output();
    let text = String::from_utf8_lossy(&output.context("readelf did not start")?.stdout).into_owned();
    let version = text.split("rustc version ").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(version.with_context(|| format!("{} names no compiler", program.display()))?.to_owned())
}

fn kernel_compiler() -> Result<String> {
    let rustc = toolchain::find().map_err(|missing| anyhow::anyhow!("{missing}"))?.rustc;
    let output = Command::new(rustc).arg("--version").output().context("rustc did not start")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split(' ').nth(1).context("rustc names no version")?.to_owned())
}

/// A tree's own package is the one that nothing in it needs.
fn root_of(tree: &Tree) -> Result<Id> {
    let is_needed = |id: &Id| tree.needs.values().any(|needs| needs.contains(id));
    Ok(tree.crates.keys().find(|id| !is_needed(id)).context("no package of ours")?.clone())
}

fn reference((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{}", encoded(version))
}

/// A version as the address of a package has it.
fn encoded(version: &str) -> String {
    version.replace('%', "%25").replace('+', "%2B").replace(':', "%3A")
}

/// The list as it grows.
#[derive(Debug, Default)]
struct Bom {
    checksums: BTreeMap<Id, String>,
    components: BTreeMap<String, Value>,
    needs: BTreeMap<String, BTreeSet<String>>,
    linked_into: BTreeMap<String, BTreeSet<&'static str>>,
}

impl Bom {
    /// Adds crates and the library of the compiler that they were linked with.
    fn add_crates(&mut self, tree: &Tree, compiler: &str, into: &'static str) {
        let rust = format!("pkg:generic/rust@{compiler}");
        self.components.entry(rust.clone()).or_insert_with(|| {
            json!({
                "type": "library", "bom-ref": rust, "purl": rust, "name": "rust", "version": compiler,
                "description": "Rust's own library", "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            })
        });
        self.linked_into.entry(rust.clone()).or_default().insert(into);
        for (id, licence) in &tree.crates {
            let of = reference(id);
            let component = self.component(id, licence);
            self.components.insert(of.clone(), component);
            self.linked_into.entry(of.clone()).or_default().insert(into);
            let needs = tree.needs.get(id).into_iter().flatten().map(reference);
            self.needs.entry(of).or_default().extend(needs.chain([rust.clone()]));
        }
    }

    fn component(&self, id: &Id, licence: &str) -> Value {
        let mut component = json!({
            "type": "library", "bom-ref": reference(id), "name": id.0, "version": id.1,
            "licenses": [{ "expression": licence }],
        });
        // What the registry does not have has no address there.
        if let Some(sum) = self.checksums.get(id) {
            component["purl"] = json!(reference(id));
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        component
    }

    /// Adds the packages of the system's libraries, each with its files; a file of no package stands alone.
    fn add_files(&mut self, root: &str, files: &[(&Library, String)], architecture: &str) {
        for (library, digest) in files {
            let place = library.place.display().to_string();
            let file = json!({
                "type": "file", "bom-ref": format!("file:{place}"), "name": place,
                "hashes": [{ "alg": "SHA-256", "content": digest }],
            });
            let Some(package) = &library.package else {
                self.needs.entry(root.to_owned()).or_default().insert(format!("file:{place}"));
                self.components.insert(format!("file:{place}"), file);
                continue;
            };
            let of = address(package, architecture);
            self.needs.entry(root.to_owned()).or_default().insert(of.clone());
            let component = self.components.entry(of.clone()).or_insert_with(|| {
                json!({
                    "type": "library", "bom-ref": of, "purl": of, "name": package.name,
                    "version": package.version, "components": [],
                })
            });
            if let Some(files) = component["components"].as_array_mut() {
                files.push(file);
            }
        }
    }

    fn finish(mut self, root: &Id, digest: &str, triple: &str) -> Value {
        let mut program = self.components.remove(&reference(root)).unwrap_or_default();
        program["type"] = json!("application");
        program["name"] = json!("sidestep");
        program["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
        for (of, component) in &mut self.components {
            let into = self.linked_into.get(of).into_iter().flatten();
            let into: Vec<Value> = into.map(|into| json!({ "name": LINKED_INTO, "value": into })).collect();
            if !into.is_empty() {
                component["properties"] = json!(into);
            }
        }
        let dependencies: Vec<Value> =
            self.needs.iter().map(|(of, needs)| json!({ "ref": of, "dependsOn": needs })).collect();
        json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
            "metadata": {
                "lifecycles": [{ "phase": "build" }],
                "component": program,
                "properties": [{ "name": "sidestep:target", "value": triple }],
            },
            "components": self.components.into_values().collect::<Vec<_>>(),
            "dependencies": dependencies,
        })
    }
}

fn address(package: &Package, architecture: &str) -> String {
    let Package { name, version, vendor, release } = package;
    let (name, version) = (name.replace('+', "%2B"), encoded(version));
    format!("pkg:deb/{vendor}/{name}@{version}?arch={architecture}&distro={vendor}-{release}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        (name.into(), "1.0.0+a".into())
    }

    fn example() -> Value {
        let crates = BTreeMap::from([(id("ours"), "MIT".to_owned()), (id("theirs"), "ISC".to_owned())]);
        let needs = BTreeMap::from([(id("ours"), BTreeSet::from([id("theirs")]))]);
        let tree = Tree { crates, needs };
        let sums = BTreeMap::from([(id("theirs"), "0".repeat(64))]);
        let mut bom = Bom { checksums: sums, ..Bom::default() };
        bom.add_crates(&tree, "1.95.0", "program");
        let package = Package::new("libc6", "1:2+deb12", "ID=debian\nVERSION_ID=\"12\"\n");
        let library = |place: &str, package| Library { file: place.into(), place: place.into(), package };
        let (libc, other) = (library("/lib/libc.so.6", package), library("/opt/libother.so", None));
        let root = root_of(&tree).unwrap();
        bom.add_files(&reference(&root), &[(&libc, "1".repeat(64)), (&other, "2".repeat(64))], "amd64");
        bom.finish(&root, &"3".repeat(64), "x86_64-unknown-linux-gnu")
    }

    #[test]
    fn crates_packages_and_files_are_listed_with_what_tells_them_apart() {
        let document = example();
        assert_eq!(document["metadata"]["component"]["name"], "sidestep");
        let listed = document["components"].as_array().unwrap();
        let purls: Vec<_> = listed.iter().map(|component| component["purl"].as_str()).collect();
        let libc = "pkg:deb/debian/libc6@1%3A2%2Bdeb12?arch=amd64&distro=debian-12";
        let expected =
            [None, Some("pkg:cargo/theirs@1.0.0%2Ba"), Some(libc), Some("pkg:generic/rust@1.95.0")];
        assert_eq!(purls, expected);
        assert_eq!(listed[1]["hashes"][0]["content"], "0".repeat(64));
        assert_eq!(listed[1]["properties"][0]["value"], "program");
        assert_eq!(listed[2]["components"][0]["name"], "/lib/libc.so.6");
    }

    #[test]
    fn every_dependency_is_of_something_listed() {
        let document = example();
        let mut known = BTreeSet::from([document["metadata"]["component"]["bom-ref"].clone().to_string()]);
        let listed = document["components"].as_array().unwrap();
        known.extend(listed.iter().map(|component| component["bom-ref"].to_string()));
        for entry in document["dependencies"].as_array().unwrap() {
            assert!(known.contains(&entry["ref"].to_string()), "{entry}");
            for needed in entry["dependsOn"].as_array().unwrap() {
                assert!(known.contains(&needed.to_string()), "{needed}");
            }
        }
    }

    #[test]
    fn crates_are_seen_in_a_program_by_where_their_sources_were() {
        let program =
            b"\0/a/registry/src/index-1/bytes-1.2.3/src/lib.rs\xff/registry/src/index-1/ring-0.1\0/\0";
        assert_eq!(crates_seen(program), BTreeSet::from(["bytes-1.2.3".into(), "ring-0.1".into()]));
    }
}
