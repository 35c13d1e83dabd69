//! Looks at the cluster and this node, and changes nothing.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, Error};

use super::super::objects::Kind;
use super::super::place::Places;
use super::super::watch;
use super::{ClusterProbe, Right};
use crate::config::KubernetesConfig;
use crate::redirect::cgroup::mount_point;

/// How long the API server may take for one answer, and for all of them.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(30);
/// Definitions that are read at a time, and at most.
const DEFINITIONS: u32 = 500;
const DEFINITIONS_MAX: usize = 10_000;
/// Where the plug-ins of a node's network are named, seen from its first process.
const PLUGINS: &str = "/proc/1/root/etc/cni/net.d";
/// Files there that are read, and how much of each.
const PLUGIN_FILES_MAX: usize = 16;
const PLUGIN_BYTES_MAX: u64 = 1 << 20;
/// The interfaces of the node, seen from its first process.
const INTERFACES: &str = "/proc/1/net/dev";
/// What the names of interfaces begin with that tell who made them.
const TELLING: [(&str, &str); 6] = [
    ("cilium", "cilium"),
    ("cali", "calico"),
    ("flannel", "flannel"),
    ("weave", "weave"),
    ("ovn-k8s", "ovn-kubernetes"),
    ("kube-bridge", "kube-router"),
];

impl ClusterProbe {
    /// Asks the API server and looks at this node.
    pub async fn gather(config: &KubernetesConfig) -> Self {
        let node = config.node().map_err(|error| format!("{error:#}"));
        let root = config.cgroup_root.clone().or_else(|| mount_point().ok()).unwrap_or_default();
        let places = Places::find(Some(&root)).unwrap_or_default();
        let mut probe = Self {
            node: Some(node),
            trees: places.trees().to_vec(),
            pods: places.len(),
            is_systemd: places.is_systemd(),
            cgroup_root: root,
            network: network(),
            ..Self::default()
        };
        let answer = match watch::client(config.kubeconfig.as_deref()).await {
            Ok(client) => version(&client).await.map(|version| (version, client)),
            Err(error) => Err(format!("{error:#}")),
        };
        match answer {
            Ok((version, client)) => {
                probe.api_server = Some(Ok(version));
                if tokio::time::timeout(PATIENCE_FOR_ALL, probe.ask(&client, config)).await.is_err() {
                    probe.api_server =
                        Some(Err(format!("it did not answer all within {} s", PATIENCE_FOR_ALL.as_secs())));
                }
            }
            Err(why) => probe.api_server = Some(Err(why)),
        }
        probe
    }

    async fn ask(&mut self, client: &Client, config: &KubernetesConfig) {
        self.definitions = definitions(client).await;
        // What may be done with kinds that are not there is nobody's business.
        let is_there = |kind: &Kind| {
            let (name, all) = (kind.definition(), self.definitions.as_ref());
            name.is_none_or(|name| all.is_none_or(|all| all.contains(&name)))
        };
        let rights: Vec<Right> =
            Kind::all().filter(is_there).map(Right::Watch).chain([Right::Report]).collect();
        let annotating = config.annotate_pods.then_some(Right::Annotate);
        for right in rights.into_iter().chain(annotating) {
            if let Some(is_allowed) = is_allowed(client, right).await {
                self.rights.push((right, is_allowed));
            }
        }
        if let Some(Ok(node)) = &self.node {
            let of_node = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(1);
            let listed = Api::<Pod>::all(client.clone());
            self.has_pods =
                within(listed.list_metadata(&of_node)).await.map(|pods| !pods.items.is_empty()).ok();
        }
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn version(client: &Client) -> Result<String, String> {
    within(client.apiserver_version()).await.map(|info| info.git_version)
}

async fn definitions(client: &Client) -> Option<BTreeSet<String>> {
    let resource = watch::api_resource(Kind::Definition, "v1");
    let all = Api::<PartialObjectMeta<kube::api::DynamicObject>>::all_with(client.clone(), &resource);
    let (mut names, mut part) = (BTreeSet::new(), ListParams::default().limit(DEFINITIONS));
    loop {
        let listed = within(all.list_metadata(&part)).await.ok()?;
        names.extend(listed.items.into_iter().filter_map(|one| one.metadata.name));
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) if names.len() < DEFINITIONS_MAX => part = part.continue_token(&token),
            Some(_) => return None,
            None => return Some(names),
        }
    }
}

/// Whether we may; `None` where that is not told.
async fn is_allowed(client: &Client, right: Right) -> Option<bool> {
    let (verbs, group, resource, subresource): (&[&str], _, _, _) = match right {
        Right::Watch(kind) => (&["list", "watch"], kind.names().0, kind.names().2, None),
        Right::Report => (&["create"], "events.k8s.io", "events", None),
        Right::Annotate => (&["patch"], "", "pods", Some("status".to_owned())),
    };
    for verb in verbs {
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: subresource.clone(),
            verb: Some((*verb).to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
        let answer = within(reviews.create(&PostParams::default(), &review)).await.ok()?;
        if !answer.status?.allowed {
            return Some(false);
        }
    }
    Some(true)
}

/// What connects the pods: by the files of the plug-ins, or else by the node's interfaces.
fn network() -> BTreeSet<String> {
    let mut found = plugins(Path::new(PLUGINS));
    if found.is_empty() {
        found = by_interfaces(&std::fs::read_to_string(INTERFACES).unwrap_or_default());
    }
    found
}

/// The types of plug-ins that the first file names, which is the one that counts, in the order of names.
fn plugins(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|is| is == "conf" || is == "conflist"))
        .collect();
    files.sort();
    files.truncate(PLUGIN_FILES_MAX);
    let read = |path: &Path| -> Option<serde_json::Value> {
        let is_small =
            std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= PLUGIN_BYTES_MAX);
        let text = is_small.then(|| std::fs::read_to_string(path).ok()).flatten()?;
        serde_json::from_str(&text).ok()
    };
    let Some(file) = files.iter().find_map(|path| read(path)) else { return BTreeSet::new() };
    let listed = file["plugins"].as_array().into_iter().flatten();
    let types = listed.chain([&file]).filter_map(|plugin| plugin["type"].as_str());
    types.map(str::to_owned).collect()
}

fn by_interfaces(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let telling = |name: &str| TELLING.iter().find(|(begin, _)| name.starts_with(begin));
    names.filter_map(telling).map(|(_, maker)| (*maker).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::scratch::Scratch;

    #[test]
    fn plug_ins_are_told_by_the_first_file_that_can_be_read() {
        let folder = Scratch::new();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(plugins(folder.path()), BTreeSet::new());
        write("05-broken.conflist", "{");
        write("10-flannel.conflist", r#"{"plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#);
        write("20-bridge.conf", r#"{"type": "bridge"}"#);
        write("99-notes.txt", "bridge");
        assert_eq!(plugins(folder.path()), ["flannel", "portmap"].map(str::to_owned).into());
    }

    #[test]
    fn interfaces_tell_who_made_them() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 1 2\n cilium_host: 3 4\n  cali7a: 5\n  eth0: 6\n";
        assert_eq!(by_interfaces(text), ["calico", "cilium"].map(str::to_owned).into());
    }
}
