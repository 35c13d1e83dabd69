//! Where a pod is on this node: its cgroup, those of its containers, and its network namespace.
//!
//! Kubelet names a pod's cgroup after its uid, in one of two forms, below a tree that may itself be anywhere (kind and
//! Talos nest it): the tree is looked for, never assumed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::index::{Members, WantedPod};
use crate::accept::netns::Netns;
use crate::redirect::cgroup::{Cgroup, mount_point, netns_path, oldest_process};

/// How deep below the mount kubelet's tree is looked for, and how deep in it pods are.
const ROOT_LEVELS: usize = 5;
const POD_LEVELS: usize = 3;
/// How deep below a pod's cgroup its containers' are.
const CONTAINER_LEVELS: usize = 2;
/// Bounds the directories that are looked at in one search.
const DIRECTORIES_MAX: usize = 16_384;
/// What kubelet's trees have in their name.
const TREE: &str = "kubepods";

/// A pod's place.
#[derive(Debug)]
pub struct Place {
    /// The pod's cgroup.
    pub cgroup: Cgroup,
    /// Those of the containers that are served; `None`: all of them.
    pub members: Option<Vec<Cgroup>>,
    /// Its network namespace.
    pub netns: Netns,
    /// What identifies that: an inode number.
    pub netns_inode: u64,
}

/// Why a pod's place is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nowhere {
    /// No cgroup of it.
    #[error("no cgroup of this pod is there yet")]
    NoCgroup,
    /// No cgroup of its containers.
    #[error("no cgroup of its containers is there yet")]
    NoContainer,
    /// No process in it.
    #[error("no process is in its cgroup yet")]
    NoProcess,
    /// Its processes are in the node's network namespace.
    #[error("its processes are in the node's network namespace")]
    NodeNetwork,
    /// The cgroup that it names is another pod's.
    #[error("the cgroup that an annotation names is another pod's")]
    Taken,
    /// The system refused.
    #[error("{0}")]
    Refused(String),
}

impl Nowhere {
    /// Whether it may be there in a moment.
    pub fn is_pending(&self) -> bool {
        !matches!(self, Self::NodeNetwork | Self::Taken)
    }
}

/// The cgroups of the pods of this node, by what kubelet calls them.
#[derive(Debug, Default)]
pub struct Places {
    pods: HashMap<String, PathBuf>,
    trees: Vec<PathBuf>,
}

impl Places {
    /// Looks for them below `root`, or below the cgroup v2 mount.
    ///
    /// # Errors
    /// No cgroup v2 hierarchy is mounted.
    pub fn find(root: Option<&Path>) -> Result<Self, Nowhere> {
        let root = match root {
            Some(root) => root.to_owned(),
            None => mount_point().map_err(|error| Nowhere::Refused(error.to_string()))?,
        };
        let mut left = DIRECTORIES_MAX;
        let mut pods = HashMap::new();
        let mut trees = Vec::new();
        let is_tree = |name: &str| name.contains(TREE);
        if root.file_name().and_then(|name| name.to_str()).is_some_and(is_tree) {
            trees.push(root.clone());
        } else {
            walk(&root, ROOT_LEVELS, &mut left, &mut |path, name| {
                let is_tree = is_tree(name);
                if is_tree {
                    trees.push(path.to_owned());
                }
                !is_tree
            });
        }
        for tree in &trees {
            walk(tree, POD_LEVELS, &mut left, &mut |path, name| match pod_uid(name) {
                Some(uid) => {
                    pods.insert(uid, path.to_owned());
                    false
                }
                None => true,
            });
        }
        Ok(Self { pods, trees })
    }

    /// Kubelet's trees.
    pub fn trees(&self) -> &[PathBuf] {
        &self.trees
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether kubelet has systemd make them; `None` where there is none.
    pub fn is_systemd(&self) -> Option<bool> {
        let path = self.pods.values().next()?;
        Some(path.extension().is_some_and(|extension| extension == "slice"))
    }

    /// Where a pod is.
    ///
    /// # Errors
    /// `Nowhere`: it may be there in a moment.
    pub fn place(&self, pod: &WantedPod) -> Result<Place, Nowhere> {
        let path = self.pods.get(&pod.cgroup_uid).ok_or(Nowhere::NoCgroup)?;
        let open = |path: &Path| Cgroup::open(path).map_err(|error| Nowhere::Refused(error.to_string()));
        let cgroup = open(path)?;
        let members = match &pod.members {
            Members::All => None,
            Members::These(ids) => {
                let containers = containers(path);
                // One that has just ended is missed by nobody; what is not named is not served.
                let there = ids.iter().filter_map(|id| containers.get(id));
                let found: Vec<Cgroup> = there.filter_map(|path| open(path).ok()).collect();
                if found.is_empty() {
                    return Err(Nowhere::NoContainer);
                }
                Some(found)
            }
        };
        let process = oldest_process(path).ok_or(Nowhere::NoProcess)?;
        let path = netns_path(process);
        let refused = |error: std::io::Error| Nowhere::Refused(format!("{}: {error}", path.display()));
        // Held open first: a number read before might be another namespace's by now.
        let netns = Netns::open(&path).map_err(refused)?;
        let netns_inode = fs::metadata(&path).map_err(refused)?.ino();
        let is_nodes = fs::metadata("/proc/1/ns/net").is_ok_and(|nodes| nodes.ino() == netns_inode);
        if is_nodes || matches!(netns, Netns::Own) {
            return Err(Nowhere::NodeNetwork);
        }
        Ok(Place { cgroup, members, netns, netns_inode })
    }
}

/// Calls `enter` for each directory below `root`, and goes into those for which it says so.
fn walk(root: &Path, levels: usize, left: &mut usize, enter: &mut impl FnMut(&Path, &str) -> bool) {
    let Some(levels) = levels.checked_sub(1) else { return };
    for child in fs::read_dir(root).into_iter().flatten().flatten() {
        if !child.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        let (path, name) = (child.path(), child.file_name());
        if name.to_str().is_some_and(|name| enter(&path, name)) {
            walk(&path, levels, left, enter);
        }
    }
}

/// The uid in the name of a pod's cgroup: `…-pod<uid with _>.slice` (systemd) or `pod<uid>` (cgroupfs).
fn pod_uid(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(unit) => unit.rsplit_once("-pod")?.1.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

/// The cgroups of a pod's containers, by id: `<runtime>-<id>.scope` or `<id>`.
fn containers(pod: &Path) -> HashMap<String, PathBuf> {
    let mut found = HashMap::new();
    let mut left = DIRECTORIES_MAX;
    walk(pod, CONTAINER_LEVELS, &mut left, &mut |path, name| {
        let unit = name.strip_suffix(".scope");
        let id = unit.map_or(name, |unit| unit.rsplit_once('-').map_or(unit, |(_, id)| id));
        found.entry(id.to_owned()).or_insert_with(|| path.to_owned());
        true
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::scratch::Scratch;

    #[test]
    fn pods_are_told_by_the_names_that_kubelet_gives() {
        let uid = "0f3c5a5e-7f4c-4b5e-9a51-0c2f6f0f3b11";
        for name in [
            "kubepods-pod0f3c5a5e_7f4c_4b5e_9a51_0c2f6f0f3b11.slice",
            "kubepods-burstable-pod0f3c5a5e_7f4c_4b5e_9a51_0c2f6f0f3b11.slice",
            "kubelet-kubepods-besteffort-pod0f3c5a5e_7f4c_4b5e_9a51_0c2f6f0f3b11.slice",
            "pod0f3c5a5e-7f4c-4b5e-9a51-0c2f6f0f3b11",
        ] {
            assert_eq!(pod_uid(name).as_deref(), Some(uid), "{name}");
        }
        for name in ["kubepods-burstable.slice", "burstable", "podman", "pod", "machine-pod.slice"] {
            assert_eq!(pod_uid(name), None, "{name}");
        }
    }

    #[test]
    fn a_tree_is_found_wherever_it_is_nested() {
        let root = Scratch::new();
        let make = |path: &str| fs::create_dir_all(root.path().join(path)).unwrap();
        make("system.slice/kubelet.service");
        make(
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podaa_01.slice/cri-containerd-c0ffee.scope",
        );
        make("docker/abc/kubepods/besteffort/podbb-02/c1");
        let places = Places::find(Some(root.path())).unwrap();
        let mut uids: Vec<&str> = places.pods.keys().map(String::as_str).collect();
        uids.sort_unstable();
        assert_eq!(uids, ["aa-01", "bb-02"]);
        assert!(containers(&places.pods["aa-01"]).contains_key("c0ffee"));
        assert!(containers(&places.pods["bb-02"]).contains_key("c1"));
    }
}
