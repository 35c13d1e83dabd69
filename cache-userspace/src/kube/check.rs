//! What a cluster must offer, judged from plain data; nothing is asked here.
//!
//! Gathering that data is left to `gather`, printing to `cli::check`, the machine itself to `redirect::preflight`.

mod gather;

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::objects::{Kind, PolicyKind};
use crate::redirect::preflight::{Finding, Probe, Weight};

/// How many names a sentence lists.
const NAMES_MAX: usize = 5;
/// What the names of Cilium's programs begin with.
const CILIUM: &str = "cil_";

/// What a cluster and this node offer, as plain data.
#[derive(Clone, Debug, Default)]
pub struct ClusterProbe {
    /// The name of this node, or why it is not known.
    pub node: Option<Result<String, String>>,
    /// The version of the API server, or why it does not answer.
    pub api_server: Option<Result<String, String>>,
    /// What may be done, as far as the API server says so: what it is, and whether it is allowed.
    pub rights: Vec<(Right, bool)>,
    /// The kinds of objects that not every cluster has and this one has; `None` where they may not be read.
    pub definitions: Option<BTreeSet<String>>,
    /// Whether a pod is on a node of this name; `None` where that may not be read.
    pub has_pods: Option<bool>,
    /// Where kubelet's trees of cgroups are.
    pub trees: Vec<PathBuf>,
    /// Below what they were looked for.
    pub cgroup_root: PathBuf,
    /// How many cgroups of pods are in them.
    pub pods: usize,
    /// Whether they have the names that systemd gives; `None` without pods.
    pub is_systemd: Option<bool>,
    /// What connects pods: the kinds of plug-ins that this node's files name, or interfaces tell.
    pub network: BTreeSet<String>,
}

/// Something that the daemon must be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To see all objects of a kind and what becomes of them.
    Watch(Kind),
    /// To write Events.
    Report,
    /// To change pods' annotations.
    Annotate,
}

impl Right {
    fn name(self) -> String {
        match self {
            Self::Watch(kind) => {
                let (group, _, plural) = kind.names();
                if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
            }
            Self::Report => "events.events.k8s.io (create)".to_owned(),
            Self::Annotate => "pods/status (patch)".to_owned(),
        }
    }

    /// Without it no pod can be served; without the others less is, or less is told.
    fn is_required(self) -> bool {
        use Kind::{Definition, EndpointSlice, Namespace, Pod, Revision, Service};
        let needed = [Pod, Namespace, Service, EndpointSlice, Revision, Definition];
        matches!(self, Self::Watch(kind) if needed.contains(&kind))
    }
}

/// Judges a cluster, and what is attached on this node at kubelet's tree, in the order in which it is best mended.
pub fn findings(cluster: &ClusterProbe, machine: &Probe) -> Vec<Finding> {
    let mut all = Vec::new();
    all.extend(cluster.node.as_ref().map(node));
    all.extend(cluster.api_server.as_ref().map(api_server));
    if matches!(cluster.api_server, Some(Ok(_))) {
        all.extend(rights(cluster));
        all.push(own_definition(cluster));
        all.extend(cluster.has_pods.map(|has_pods| pods_of_node(cluster, has_pods)));
        all.push(mesh(cluster));
    }
    all.push(cgroups(cluster));
    all.extend(network(cluster, machine));
    all
}

fn node(node: &Result<String, String>) -> Finding {
    match node {
        Ok(name) => Finding::ok("node", name.clone()),
        Err(why) => Finding::not_ok(
            "node",
            Weight::RequiredForNode,
            why.clone(),
            "set NODE_NAME from spec.nodeName by the downward API, as the chart does",
        ),
    }
}

fn api_server(answer: &Result<String, String>) -> Finding {
    match answer {
        Ok(version) => Finding::ok("API server", version.clone()),
        Err(why) => Finding::not_ok(
            "API server",
            Weight::RequiredForNode,
            format!("it does not answer: {why}"),
            "look at the kubeconfig or the pod's service account, and at what lets pods reach it \
             (NetworkPolicy: networkPolicy.apiServerPorts of the chart)",
        ),
    }
}

fn rights(cluster: &ClusterProbe) -> Vec<Finding> {
    let names = |is_required: bool| {
        let denied = cluster.rights.iter().filter(|(_, is_allowed)| !is_allowed);
        let denied = denied.filter(|(right, _)| right.is_required() == is_required);
        some_of(denied.map(|(right, _)| right.name()))
    };
    let advice = "apply deploy/helm/sidestep, or the ClusterRole in deploy/kubernetes/sidestep.yaml";
    let mut all = Vec::new();
    if let Some(names) = names(true) {
        all.push(Finding::not_ok(
            "access rights",
            Weight::RequiredForNode,
            format!("no pod can be served without these being read: {names}"),
            advice,
        ));
    }
    if let Some(names) = names(false) {
        let says = format!(
            "denied: {names}; what may not be read stops all hits, what may not be written is not told"
        );
        all.push(Finding::not_ok("access rights", Weight::Useful, says, advice));
    }
    if all.is_empty() {
        all.push(Finding::ok("access rights", format!("all {} are given", cluster.rights.len())));
    }
    all
}

fn own_definition(cluster: &ClusterProbe) -> Finding {
    let name = Kind::CachePolicy.definition().unwrap_or_default();
    match &cluster.definitions {
        Some(all) if !all.contains(&name) => {}
        Some(_) => return Finding::ok("CachePolicy", "the kind is defined"),
        None => return Finding::ok("CachePolicy", "whether the kind is defined may not be read"),
    }
    Finding::not_ok(
        "CachePolicy",
        Weight::Useful,
        "the kind is not defined: teams cannot say anything about their services",
        "apply deploy/kubernetes/cachepolicies.yaml (Helm installs it too, and never upgrades it)",
    )
}

fn pods_of_node(cluster: &ClusterProbe, has_pods: bool) -> Finding {
    if has_pods {
        return Finding::ok("pods", "the API server knows pods of this node");
    }
    let node = cluster.node.as_ref().and_then(|node| node.as_ref().ok()).cloned().unwrap_or_default();
    Finding::not_ok(
        "pods",
        Weight::Useful,
        format!("the API server knows no pod of a node with the name {node:?}"),
        "look whether that is the node's name (kubectl get nodes)",
    )
}

fn mesh(cluster: &ClusterProbe) -> Finding {
    let Some(definitions) = &cluster.definitions else {
        return Finding::ok("mesh", "what kinds there are may not be read");
    };
    if let Some(names) = some_of(definitions.iter().filter(|name| super::index::is_foreign(name)).cloned()) {
        return Finding::not_ok(
            "mesh",
            Weight::Useful,
            format!("kinds of a mesh that is not understood are defined, which stops all hits: {names}"),
            "nothing need be done: every request is forwarded; remove the definitions if nobody uses them",
        );
    }
    let read = PolicyKind::ALL.iter().filter_map(|kind| Kind::Policy(*kind).definition());
    let read: BTreeSet<String> = read.filter(|name| definitions.contains(name)).collect();
    let groups: BTreeSet<&str> =
        read.iter().filter_map(|name| name.split_once('.')).map(|(_, group)| group).collect();
    Finding::ok(
        "mesh",
        match some_of(groups.into_iter().map(str::to_owned)) {
            Some(names) => format!("{} of its kinds decide about hits: {names}", read.len()),
            None => "none that is known of".to_owned(),
        },
    )
}

fn cgroups(cluster: &ClusterProbe) -> Finding {
    let ClusterProbe { trees, pods, is_systemd, .. } = cluster;
    let Some(tree) = trees.first() else {
        return Finding::not_ok(
            "cgroup driver",
            Weight::RequiredForNode,
            format!("kubelet's cgroups (kubepods) are not below {}", cluster.cgroup_root.display()),
            "mount the node's cgroup v2 hierarchy and name it in kubernetes.cgroupRoot, as the chart does",
        );
    };
    let driver = match is_systemd {
        Some(true) => "systemd",
        Some(false) => "cgroupfs",
        None => "not known yet",
    };
    let more = match trees.len() {
        1 => String::new(),
        trees => format!(" and {} more", trees - 1),
    };
    Finding::ok("cgroup driver", format!("{driver}; {pods} pods in {}{more}", tree.display()))
}

/// Who connects the pods, and what Cilium's socket load balancer means where it is there.
fn network(cluster: &ClusterProbe, machine: &Probe) -> Vec<Finding> {
    let names = some_of(cluster.network.iter().cloned());
    let mut all = vec![Finding::ok(
        "network",
        names.unwrap_or_else(|| "what connects the pods is not known".to_owned()),
    )];
    let of_cilium =
        machine.attachments.iter().filter(|one| one.names.iter().any(|name| name.starts_with(CILIUM)));
    let hooks: BTreeSet<&str> = of_cilium.map(|one| one.hook.name()).collect();
    if hooks.is_empty() {
        return all;
    }
    let has_istio = cluster
        .definitions
        .as_ref()
        .is_some_and(|all| all.iter().any(|name| name.ends_with(".networking.istio.io")));
    all.push(if has_istio {
        Finding::not_ok(
            "Cilium",
            Weight::Useful,
            "its socket load balancer chooses pods before a sidecar of Istio sees the Service, with us or without",
            "set socketLB.hostNamespaceOnly=true in Cilium, as Istio's and Cilium's documentations say",
        )
    } else {
        Finding::ok("Cilium", "its socket load balancer is there: our programs, at the pods' own cgroups, run before it")
    });
    all
}

/// The first of these names, and how many more there are; nothing of none.
fn some_of(names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<String> = names.collect();
    let first = names.get(..NAMES_MAX.min(names.len())).filter(|first| !first.is_empty())?.join(", ");
    let more = names.len().saturating_sub(NAMES_MAX);
    Some(if more == 0 { first } else { format!("{first} and {more} more") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::preflight::{Attachment, Role, first_obstacle};
    use crate::redirect::prog_query::{Attached, Hook};

    fn good() -> ClusterProbe {
        ClusterProbe {
            node: Some(Ok("n1".to_owned())),
            api_server: Some(Ok("v1.33.1".to_owned())),
            rights: Kind::all()
                .map(|kind| (Right::Watch(kind), true))
                .chain([(Right::Report, true)])
                .collect(),
            definitions: Some(
                ["cachepolicies.sidestep.dev", "virtualservices.networking.istio.io"]
                    .map(str::to_owned)
                    .into(),
            ),
            has_pods: Some(true),
            trees: vec!["/host/cgroup/kubepods.slice".into()],
            cgroup_root: "/host/cgroup".into(),
            pods: 3,
            is_systemd: Some(true),
            network: ["flannel".to_owned()].into(),
        }
    }

    fn judged(change: impl FnOnce(&mut ClusterProbe)) -> Vec<Finding> {
        let mut probe = good();
        change(&mut probe);
        findings(&probe, &Probe::default())
    }

    /// The only finding that is not ok: its subject and whether a node cannot go on.
    fn defect(change: impl FnOnce(&mut ClusterProbe)) -> (&'static str, bool) {
        let all = judged(change);
        let wrong: Vec<_> = all.iter().filter(|one| !one.ok).collect();
        let [one] = &wrong[..] else { panic!("{wrong:?}") };
        assert!(!one.advice.is_empty() && !one.stops(Role::Exec), "{one:?}");
        (one.subject, one.stops(Role::Node))
    }

    #[test]
    fn nothing_is_wrong_with_a_good_cluster() {
        let all = judged(|_| {});
        assert!(all.iter().all(|one| one.ok), "{all:?}");
        assert_eq!(first_obstacle(&all, Role::Node), None);
        let says = |subject: &str| all.iter().find(|one| one.subject == subject).unwrap().says.clone();
        assert_eq!(says("cgroup driver"), "systemd; 3 pods in /host/cgroup/kubepods.slice");
        assert_eq!(says("mesh"), "1 of its kinds decide about hits: networking.istio.io");
    }

    #[test]
    fn each_defect_is_one_finding_with_what_to_do() {
        let deny = |right: Right| {
            move |probe: &mut ClusterProbe| {
                probe.rights.iter_mut().filter(|(one, _)| *one == right).for_each(|(_, is)| *is = false);
            }
        };
        assert_eq!(defect(|probe| probe.node = Some(Err("not known".to_owned()))), ("node", true));
        assert_eq!(defect(|probe| probe.api_server = Some(Err("refused".to_owned()))), ("API server", true));
        assert_eq!(defect(deny(Right::Watch(Kind::Pod))), ("access rights", true));
        assert_eq!(defect(deny(Right::Watch(Kind::CachePolicy))), ("access rights", false));
        assert_eq!(defect(deny(Right::Report)), ("access rights", false));
        assert_eq!(defect(|probe| probe.definitions = Some(BTreeSet::new())), ("CachePolicy", false));
        assert_eq!(defect(|probe| probe.has_pods = Some(false)), ("pods", false));
        assert_eq!(defect(|probe| probe.trees.clear()), ("cgroup driver", true));
        let foreign = "meshes.kuma.io".to_owned();
        assert_eq!(defect(|probe| probe.definitions.as_mut().unwrap().extend([foreign])), ("mesh", false));
    }

    #[test]
    fn cilium_before_a_sidecar_is_told_of_and_alone_is_fine() {
        let attached = Attached { flags: 0, programs: vec![7] };
        let attachment = Attachment {
            cgroup: "/host/cgroup".into(),
            is_target: false,
            hook: Hook::Connect4,
            attached,
            names: vec!["cil_sock4_connect".to_owned()],
        };
        let machine = Probe { attachments: vec![attachment], ..Probe::default() };
        let of_cilium = |probe: &ClusterProbe| {
            findings(probe, &machine).into_iter().find(|one| one.subject == "Cilium").unwrap()
        };
        assert!(!of_cilium(&good()).ok);
        assert!(of_cilium(&ClusterProbe { definitions: None, ..good() }).ok);
    }

    #[test]
    fn long_lists_are_cut() {
        let names = |n: usize| some_of((0..n).map(|n| n.to_string()));
        assert_eq!(names(0), None);
        assert_eq!(names(5).as_deref(), Some("0, 1, 2, 3, 4"));
        assert_eq!(names(7).as_deref(), Some("0, 1, 2, 3, 4 and 2 more"));
    }
}
