//! What follows from objects, in whatever order they come.

use serde_json::{Value, json};

use super::super::objects::PolicyKind;
use super::*;

pub(super) fn index() -> Index {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Index::new(Settings {
        excluded_namespaces: names(&["kube-system"]),
        proxy_containers: names(&["istio-proxy"]),
        names: Names {
            cluster_domain: "cluster.local".to_owned(),
            mesh_root_namespaces: names(&["istio-system"]),
        },
    })
}

pub(super) fn applied(kind: Kind, json: Value) -> Change {
    Change::Applied(Object::from_json(kind, json).unwrap())
}

fn namespace(name: &str, label: Option<&str>) -> Change {
    let labels = label.map(|value| json!({ "sidestep.dev/cache": value }));
    applied(Kind::Namespace, json!({ "metadata": { "name": name, "labels": labels } }))
}

/// A running pod; `change` makes it another.
fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Change {
    let mut object = json!({
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
        "spec": { "serviceAccountName": "web", "containers": [{ "name": "app" }] },
        "status": {
            "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }, { "ip": "fd00::7" }],
            "containerStatuses": [{ "name": "app", "containerID": "containerd://c1", "state": { "running": {} } }],
        },
    });
    change(&mut object);
    applied(Kind::Pod, object)
}

fn states(index: &Index) -> Vec<PodState> {
    index.snapshot().pods
}

fn wanted(index: &Index) -> Vec<String> {
    let wanted = states(index).into_iter().filter_map(|state| match state {
        PodState::Wanted(pod) => Some(pod.pod.name),
        PodState::LeftAlone { .. } => None,
    });
    wanted.collect()
}

fn why(change: impl FnOnce(&mut Value)) -> Option<LeftAlone> {
    let mut index = index();
    index.apply(namespace("shop", Some("enabled")));
    index.apply(pod("a", change));
    match states(&index).pop() {
        Some(PodState::LeftAlone { why, .. }) => Some(why),
        _ => None,
    }
}

#[test]
fn the_label_of_a_pod_wins_over_that_of_its_namespace() {
    for (of_namespace, of_pod, expected) in [
        (None, None, false),
        (Some("enabled"), None, true),
        (None, Some("enabled"), true),
        (Some("enabled"), Some("none"), false),
        (Some("none"), Some("enabled"), true),
        (Some("none"), None, false),
    ] {
        let mut index = index();
        index.apply(pod("a", |pod| {
            if let Some(value) = of_pod {
                pod["metadata"]["labels"] = json!({ "sidestep.dev/cache": value });
            }
        }));
        assert_eq!(wanted(&index), [""; 0], "before its namespace is known");
        index.apply(namespace("shop", of_namespace));
        assert_eq!(!wanted(&index).is_empty(), expected, "{of_namespace:?} {of_pod:?}");
    }
}

#[test]
fn a_wanted_pod_is_told_with_all_that_is_needed_to_find_it() {
    let mut index = index();
    index.apply(namespace("shop", Some("enabled")));
    index.apply(pod("a", |_| {}));
    let expected = WantedPod {
        pod: PodRef { namespace: "shop".to_owned(), name: "a".to_owned(), uid: "uid-a".to_owned() },
        service_account: "web".to_owned(),
        cgroup_uid: "uid-a".to_owned(),
        ips: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        members: Members::All,
    };
    assert_eq!(states(&index), [PodState::Wanted(expected)]);
}

#[test]
fn a_static_pod_has_the_cgroup_of_its_configuration() {
    let mut index = index();
    index.apply(namespace("shop", Some("enabled")));
    index.apply(pod("a", |pod| {
        pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.hash": "c0ffee" });
    }));
    assert!(matches!(&states(&index)[..], [PodState::Wanted(pod)] if pod.cgroup_uid == "c0ffee"));
}

#[test]
fn beside_a_proxy_only_the_known_containers_are_served() {
    let with_proxy = |statuses: Value| {
        move |pod: &mut Value| {
            pod["spec"]["initContainers"] = json!([{ "name": "istio-proxy", "restartPolicy": "Always" }]);
            pod["status"]["containerStatuses"] = statuses;
        }
    };
    let mut index = index();
    index.apply(namespace("shop", Some("enabled")));
    let statuses = json!([
        { "name": "istio-proxy", "containerID": "containerd://p", "state": { "running": {} } },
        { "name": "app", "containerID": "containerd://a", "state": { "running": {} } },
        { "name": "crashed", "containerID": "containerd://c", "state": { "waiting": { "reason": "CrashLoopBackOff" } } },
        { "name": "istio-init", "containerID": "containerd://i", "state": { "terminated": { "exitCode": 0 } } },
        { "name": "later", "state": null },
    ]);
    index.apply(pod("a", with_proxy(statuses)));
    let these = Members::These(vec!["a".to_owned()]);
    assert!(matches!(&states(&index)[..], [PodState::Wanted(pod)] if pod.members == these));
    assert_eq!(why(with_proxy(json!([{ "name": "app" }]))), Some(LeftAlone::NoContainers));
}

#[test]
fn each_reason_to_leave_a_pod_alone_is_told() {
    assert_eq!(why(|pod| pod["spec"]["hostNetwork"] = json!(true)), Some(LeftAlone::HostNetwork));
    assert_eq!(why(|pod| pod["spec"]["runtimeClassName"] = json!("kata-qemu")), Some(LeftAlone::Sandbox));
    assert_eq!(why(|pod| pod["spec"]["runtimeClassName"] = json!("nvidia")), None);
    assert_eq!(why(|pod| pod["status"] = json!({ "phase": "Pending" })), Some(LeftAlone::NoAddress));
    let label = |value: &str| {
        let labels = json!({ "sidestep.dev/cache": value });
        move |pod: &mut Value| pod["metadata"]["labels"] = labels
    };
    assert_eq!(why(label("observe")), Some(LeftAlone::Observe));
    assert_eq!(why(label("Enabled")), Some(LeftAlone::UnknownLabel));
    let system = |pod: &mut Value| pod["metadata"]["namespace"] = json!("kube-system");
    let mut index = index();
    index.apply(namespace("kube-system", Some("enabled")));
    index.apply(pod("a", system));
    assert!(matches!(&states(&index)[..], [PodState::LeftAlone { why: LeftAlone::Namespace, .. }]));
}

#[test]
fn an_unknown_proxy_is_one_we_cannot_leave_out() {
    let status = |text: &str| {
        let annotations = json!({ "sidecar.istio.io/status": text });
        move |pod: &mut Value| pod["metadata"]["annotations"] = annotations
    };
    assert_eq!(why(status(r#"{"containers":["my-envoy"]}"#)), Some(LeftAlone::UnknownProxy));
    assert_eq!(why(status("not JSON")), Some(LeftAlone::UnknownProxy));
    // What names one of the pod's containers is known.
    let named = r#"{"initContainers":["istio-init"],"containers":["my-envoy"]}"#;
    let both = |pod: &mut Value| {
        status(named)(pod);
        pod["spec"]["containers"] = json!([{ "name": "app" }, { "name": "my-envoy" }]);
        pod["status"]["containerStatuses"] = json!([
            { "name": "app", "containerID": "containerd://a", "state": { "running": {} } },
            { "name": "my-envoy", "containerID": "containerd://e", "state": { "running": {} } },
        ]);
    };
    let mut index = index();
    index.apply(namespace("shop", Some("enabled")));
    index.apply(pod("a", both));
    let these = Members::These(vec!["a".to_owned()]);
    assert!(matches!(&states(&index)[..], [PodState::Wanted(pod)] if pod.members == these));
}

#[test]
fn a_pod_that_is_over_is_no_pod() {
    for phase in ["Succeeded", "Failed"] {
        let mut index = index();
        index.apply(namespace("shop", Some("enabled")));
        index.apply(pod("a", |pod| pod["status"]["phase"] = json!(phase)));
        assert_eq!(states(&index), []);
    }
}

#[test]
fn what_a_list_no_longer_has_is_gone() {
    let mut index = index();
    index.apply(namespace("shop", Some("enabled")));
    index.apply(pod("a", |_| {}));
    index.apply(pod("b", |_| {}));
    let Change::Applied(b) = pod("b", |_| {}) else { panic!() };
    assert!(index.apply(Change::Replaced(Kind::Pod, vec![b.clone()])));
    assert_eq!(wanted(&index), ["b"]);
    assert!(!index.apply(Change::Replaced(Kind::Pod, vec![b])), "nothing new");
    let key = ObjectKey { namespace: "shop".to_owned(), name: "b".to_owned() };
    assert!(index.apply(Change::Deleted(Kind::Pod, key)));
    assert_eq!(wanted(&index), [""; 0]);
}

fn service(name: &str, change: impl FnOnce(&mut Value)) -> Change {
    let mut object = json!({
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"],
            "ports": [{ "name": "http", "port": 80 }, { "name": "metrics", "port": 9090 }],
        },
    });
    change(&mut object);
    applied(Kind::Service, object)
}

fn destinations(index: &Index) -> Vec<String> {
    let mut found: Vec<String> = index
        .snapshot()
        .destinations
        .iter()
        .map(|(at, it)| format!("{} {} {}:{}", at.ip(), at.port(), it.service_uid, it.port))
        .collect();
    found.sort();
    found
}

#[test]
fn the_http_ports_of_a_service_are_destinations_at_each_of_its_addresses() {
    let mut index = index();
    assert!(index.apply(service("web", |_| {})));
    assert_eq!(destinations(&index), ["10.96.0.1 80 uid-web:80", "fd96::1 80 uid-web:80"]);
    assert!(!index.apply(service("web", |_| {})), "nothing new");
    index.apply(service("web", |service| service["spec"]["ports"][0]["appProtocol"] = json!("tcp")));
    assert_eq!(destinations(&index), [""; 0]);
    index.apply(service("web", |_| {}));
    index.apply(Change::Deleted(Kind::Service, ObjectKey { namespace: "shop".into(), name: "web".into() }));
    assert_eq!(destinations(&index), [""; 0]);
}

fn headless(name: &str) -> Change {
    service(name, |service| {
        service["spec"]["clusterIP"] = json!("None");
        service["spec"]["clusterIPs"] = json!(["None"]);
    })
}

fn slice(name: &str, of: &str, ip: &str, pod_uid: &str) -> Change {
    let object = json!({
        "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": of } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [ip], "targetRef": { "kind": "Pod", "name": "p", "uid": pod_uid } }],
        "ports": [{ "name": "http", "port": 8080 }, { "name": "metrics", "port": 9090 }],
    });
    applied(Kind::EndpointSlice, object)
}

#[test]
fn the_pods_of_a_headless_service_are_destinations_in_whatever_order_its_objects_come() {
    for is_slice_first in [true, false] {
        let mut index = index();
        let mut changes = [headless("web"), slice("web-1", "web", "10.0.0.9", "pod-9")];
        if is_slice_first {
            changes.reverse();
        }
        for change in changes {
            index.apply(change);
        }
        assert_eq!(destinations(&index), ["10.0.0.9 8080 uid-web:80"]);
        index.apply(slice("web-1", "web", "10.0.0.10", "pod-10"));
        assert_eq!(destinations(&index), ["10.0.0.10 8080 uid-web:80"]);
        let key = ObjectKey { namespace: "shop".into(), name: "web-1".into() };
        index.apply(Change::Deleted(Kind::EndpointSlice, key));
        assert_eq!(destinations(&index), [""; 0]);
    }
}

#[test]
fn a_slice_that_changes_its_service_leaves_nothing_behind() {
    let mut index = index();
    index.apply(headless("web"));
    index.apply(headless("api"));
    assert!(index.apply(slice("s", "web", "10.0.0.9", "pod-9")));
    assert!(index.apply(slice("s", "gone", "10.0.0.9", "pod-9")));
    assert_eq!(destinations(&index), [""; 0]);
    assert!(index.apply(slice("s", "api", "10.0.0.9", "pod-9")));
    assert_eq!(destinations(&index), ["10.0.0.9 8080 uid-api:80"]);
}

#[test]
fn two_services_that_disagree_about_an_address_are_both_not_believed() {
    let mut index = index();
    index.apply(headless("web"));
    index.apply(headless("api"));
    index.apply(slice("s1", "web", "10.0.0.9", "pod-9"));
    index.apply(slice("s2", "api", "10.0.0.9", "pod-9"));
    // The same pod: one of them names it, always the same.
    assert_eq!(destinations(&index), ["10.0.0.9 8080 uid-api:80"]);
    index.apply(slice("s2", "api", "10.0.0.9", "pod-10"));
    assert_eq!(destinations(&index), [""; 0]);
}

#[test]
fn an_object_that_cannot_be_read_says_nothing() {
    let mut index = index();
    index.apply(service("web", |_| {}));
    let broken = json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": { "ports": [{ "port": "eighty" }] } });
    assert!(Object::from_json(Kind::Service, broken).is_err());
    let key = ObjectKey { namespace: "shop".into(), name: "web".into() };
    index.apply(Change::Unreadable(Kind::Service, key));
    assert_eq!(destinations(&index), [""; 0]);
}

#[test]
fn null_is_what_is_empty() {
    let json =
        json!({ "metadata": { "name": "a", "labels": null }, "spec": { "ports": null, "clusterIPs": null } });
    let object = Object::from_json(Kind::Service, json).unwrap();
    assert_eq!(object.meta().name, "a");
}

#[test]
fn a_slice_written_by_hand_cannot_claim_what_is_no_pods() {
    let mut index = index();
    index.apply(headless("claims"));
    index.apply(slice("s", "claims", "169.254.169.254", "pod-9"));
    assert_eq!(destinations(&index), [""; 0]);
    // The address of a Service is not a pod's either, in whatever order both come.
    let port = |slice: &mut Value| slice["spec"]["ports"] = json!([{ "name": "http", "port": 8080 }]);
    for is_service_first in [true, false] {
        let mut index = self::index();
        let mut changes =
            [service("web", port), headless("claims"), slice("s", "claims", "10.96.0.1", "pod-9")];
        if !is_service_first {
            changes.reverse();
        }
        for change in changes {
            index.apply(change);
        }
        assert!(
            destinations(&index).contains(&"10.96.0.1 8080 uid-web:8080".to_owned()),
            "{:?}",
            destinations(&index)
        );
    }
}

fn revision(pod: &str, uid: &str, hash: Option<&str>) -> Change {
    let labels = hash.map(|hash| json!({ "pod-template-hash": hash, "app": "web" }));
    let meta = json!({ "name": pod, "namespace": "shop", "uid": uid, "labels": labels, "annotations": { "a": "b" } });
    applied(Kind::Revision, json!({ "metadata": meta }))
}

/// Pods behind the Service `web`: the name of each, its uid, and whether it is ready.
fn behind(pods: &[(&str, &str, bool)]) -> Change {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(name, uid, is_ready)| {
            json!({
                "addresses": [format!("10.0.0.{}", uid.len())], "conditions": { "ready": is_ready },
                "targetRef": { "kind": "Pod", "name": name, "uid": uid },
            })
        })
        .collect();
    let labels = json!({ "kubernetes.io/service-name": "web" });
    let meta = json!({ "name": "web-1", "namespace": "shop", "labels": labels });
    applied(Kind::EndpointSlice, json!({ "metadata": meta, "endpoints": endpoints, "ports": null }))
}

fn epoch(index: &Index) -> u64 {
    let snapshot = index.snapshot();
    let epochs: BTreeSet<u64> = snapshot.destinations.values().map(|it| it.epoch).collect();
    assert_eq!(epochs.len(), 1, "{epochs:?}");
    epochs.first().copied().unwrap_or_default()
}

/// A Service with one ready pod of the revision `one`.
fn rolled_out() -> Index {
    let mut index = index();
    index.apply(revision("a", "uid-a", Some("one")));
    index.apply(service("web", |_| {}));
    index.apply(behind(&[("a", "uid-a", true)]));
    index
}

#[test]
fn a_roll_out_is_another_epoch_and_so_is_taking_it_back_but_scaling_is_none() {
    let mut index = rolled_out();
    let first = epoch(&index);
    index.apply(revision("b", "uid-b", Some("one")));
    assert!(!index.apply(behind(&[("a", "uid-a", true), ("b", "uid-b", true)])), "scaled up");
    assert!(!index.apply(behind(&[("b", "uid-b", true)])), "scaled down");
    assert!(!index.apply(behind(&[("b", "uid-b", true), ("a", "uid-a", false)])), "one of two is not ready");
    assert_eq!(epoch(&index), first);

    index.apply(revision("c", "uid-c", Some("two")));
    assert!(index.apply(behind(&[("b", "uid-b", true), ("c", "uid-c", false)])), "another one is there");
    assert!(index.apply(behind(&[("b", "uid-b", true), ("c", "uid-c", true)])), "and answers");
    assert!(index.apply(behind(&[("c", "uid-c", true)])), "the first one is gone");
    let second = epoch(&index);
    assert!(index.apply(behind(&[("b", "uid-b", true)])), "taken back");
    assert!(epoch(&index) > second && second > first, "no epoch comes twice");
}

#[test]
fn a_pod_of_which_nothing_is_known_may_be_another_revision() {
    let mut index = rolled_out();
    let first = epoch(&index);
    index.apply(behind(&[("a", "uid-a", true), ("x", "uid-x", true)]));
    let unknown = epoch(&index);
    assert!(unknown > first);
    // The same name is not the same pod.
    index.apply(revision("x", "uid-before", Some("one")));
    assert_eq!(epoch(&index), unknown);
    index.apply(revision("x", "uid-x", Some("two")));
    assert!(epoch(&index) > unknown);
}

#[test]
fn a_pod_without_a_template_is_a_revision_of_its_own() {
    let mut index = rolled_out();
    index.apply(revision("x", "uid-x", None));
    index.apply(revision("y", "uid-y", None));
    index.apply(behind(&[("x", "uid-x", true)]));
    let first = epoch(&index);
    index.apply(behind(&[("y", "uid-y", true)]));
    assert!(epoch(&index) > first);
}

#[test]
fn a_pod_that_is_gone_before_its_endpoint_is_what_it_was() {
    let mut index = rolled_out();
    index.apply(revision("b", "uid-b", Some("one")));
    index.apply(behind(&[("a", "uid-a", true), ("b", "uid-b", true)]));
    let first = epoch(&index);
    for name in ["a", "b"] {
        let key = ObjectKey { namespace: "shop".into(), name: name.into() };
        assert!(!index.apply(Change::Deleted(Kind::Revision, key)));
    }
    index.apply(behind(&[("a", "uid-a", true)]));
    assert_eq!(epoch(&index), first);
    // Told anew, it is what it was.
    index.apply(revision("a", "uid-a", Some("one")));
    assert_eq!(epoch(&index), first);
    index.apply(revision("a", "uid-a", Some("two")));
    assert!(epoch(&index) > first, "or it is not");
}

#[test]
fn a_service_that_changes_or_comes_back_is_another_epoch() {
    let mut index = rolled_out();
    let mut last = epoch(&index);
    let changes: [fn(&mut Value); 3] = [
        |service| service["spec"]["selector"] = json!({ "app": "other" }),
        |service| service["spec"]["ports"][0]["targetPort"] = json!(8081),
        |service| service["metadata"]["uid"] = json!("another"),
    ];
    for change in changes {
        assert!(index.apply(service("web", change)));
        assert!(epoch(&index) > last);
        last = epoch(&index);
        assert!(!index.apply(service("web", change)), "told twice");
    }
    index.apply(Change::Deleted(Kind::Service, ObjectKey { namespace: "shop".into(), name: "web".into() }));
    index.apply(service("web", changes[2]));
    assert!(epoch(&index) > last);
}

#[test]
fn of_a_pod_elsewhere_no_annotations_are_kept() {
    let Change::Applied(Object::Revision(meta)) = revision("a", "uid-a", Some("one")) else { panic!() };
    assert!(meta.annotations.is_empty());
}

fn policy(kind: PolicyKind, generation: i64, spec: Value) -> Change {
    let meta = json!({ "name": "one", "namespace": "shop", "uid": "uid-one", "generation": generation });
    applied(Kind::Policy(kind), json!({ "metadata": meta, "spec": spec }))
}

fn route_to(host: &str) -> Value {
    json!({ "hosts": ["web"], "http": [{ "route": [{ "destination": { "host": host } }] }] })
}

fn the_guard(index: &Index) -> Guard {
    index.snapshot().destinations.values().next().map(|it| it.guard.clone()).unwrap_or_default()
}

#[test]
fn a_changed_route_is_another_epoch_and_so_is_one_that_is_taken_away() {
    let mut index = rolled_out();
    let mut last = epoch(&index);
    let mirrored = json!({ "hosts": ["web"], "http": [{ "mirror": { "host": "shadow" } }] });
    let key = ObjectKey { namespace: "shop".into(), name: "one".into() };
    for (change, bypass) in [
        (policy(PolicyKind::VirtualService, 1, route_to("web")), None),
        (policy(PolicyKind::VirtualService, 2, mirrored), Some(Reason::Mirror)),
        (Change::Unreadable(Kind::Policy(PolicyKind::VirtualService), key.clone()), Some(Reason::Unreadable)),
        (Change::Deleted(Kind::Policy(PolicyKind::VirtualService), key), None),
        (Change::Blind(Kind::Policy(PolicyKind::HttpRoute)), Some(Reason::Unreadable)),
        (Change::Replaced(Kind::Policy(PolicyKind::HttpRoute), Vec::new()), None),
    ] {
        assert!(index.apply(change.clone()), "{change:?}");
        assert!(epoch(&index) > last, "{change:?}");
        assert_eq!(the_guard(&index).bypass, bypass, "{change:?}");
        last = epoch(&index);
        assert!(!index.apply(change), "told twice");
    }
}

#[test]
fn a_route_of_another_service_changes_nothing() {
    let mut index = rolled_out();
    index.apply(policy(PolicyKind::VirtualService, 1, json!({ "hosts": ["api"] })));
    let before = epoch(&index);
    assert!(!index.apply(policy(PolicyKind::VirtualService, 2, json!({ "hosts": ["api", "cart"] }))));
    assert_eq!(epoch(&index), before);
}

#[test]
fn a_roll_out_of_what_requests_are_sent_to_instead_is_another_epoch() {
    let mut index = rolled_out();
    index.apply(policy(PolicyKind::VirtualService, 1, route_to("next")));
    let first = epoch(&index);
    index.apply(revision("n", "uid-n", Some("two")));
    assert_eq!(epoch(&index), first);
    let endpoint =
        json!({ "addresses": ["10.0.0.3"], "targetRef": { "kind": "Pod", "name": "n", "uid": "uid-n" } });
    let labels = json!({ "kubernetes.io/service-name": "next" });
    let meta = json!({ "name": "next-1", "namespace": "shop", "labels": labels });
    let slice = json!({ "metadata": meta, "endpoints": [endpoint], "ports": null });
    assert!(index.apply(applied(Kind::EndpointSlice, slice)));
    let second = epoch(&index);
    assert!(second > first);
    index.apply(revision("n", "uid-n", Some("three")));
    assert!(epoch(&index) > second);
}

#[test]
fn a_policy_concerns_a_service_once_a_pod_behind_it_has_the_labels() {
    let mut index = index();
    let labelled = |generation: i64, tier: &str| {
        let labels = json!({ "pod-template-hash": "one", "tier": tier });
        let meta = json!({
            "name": "a", "namespace": "shop", "uid": "uid-a", "labels": labels, "generation": generation,
        });
        applied(Kind::Revision, json!({ "metadata": meta }))
    };
    index.apply(labelled(1, "back"));
    index.apply(service("web", |_| {}));
    index.apply(behind(&[("a", "uid-a", true)]));
    let selector = json!({ "selector": { "matchLabels": { "tier": "front" } } });
    index.apply(policy(PolicyKind::RequestAuthentication, 1, selector));
    assert_eq!(the_guard(&index).bypass, None);
    index.apply(labelled(1, "front"));
    assert_eq!(the_guard(&index).bypass, Some(Reason::Claims));
}

#[test]
fn a_service_that_sends_a_client_to_one_pod_shares_nothing() {
    let mut index = rolled_out();
    index.apply(service("web", |service| service["spec"]["sessionAffinity"] = json!("ClientIP")));
    assert_eq!(the_guard(&index).bypass, Some(Reason::Affinity));
    index.apply(service("web", |_| {}));
    assert_eq!(the_guard(&index).bypass, None);
}

#[test]
fn names_matter_where_there_is_a_mesh() {
    let mut index = rolled_out();
    let names = |index: &Index| {
        index
            .snapshot()
            .destinations
            .values()
            .next()
            .and_then(|it| it.names.as_ref().map(|names| names[3].clone()))
    };
    assert_eq!(names(&index), None);
    index.apply(policy(PolicyKind::VirtualService, 1, json!({ "hosts": ["elsewhere.example"] })));
    assert_eq!(names(&index).as_deref(), Some("web.shop.svc.cluster.local"));
}

#[test]
fn what_holds_for_a_service_holds_for_those_that_send_requests_there() {
    let mut index = rolled_out();
    index.apply(policy(PolicyKind::VirtualService, 1, route_to("next")));
    let before = epoch(&index);
    let meta = json!({ "name": "two", "namespace": "shop", "uid": "uid-two", "generation": 1 });
    let target = json!({ "targetRefs": [{ "kind": "Service", "name": "next" }] });
    let object = json!({ "metadata": meta, "spec": target });
    assert!(index.apply(applied(Kind::Policy(PolicyKind::RequestAuthentication), object)));
    assert!(epoch(&index) > before);
    assert_eq!(the_guard(&index).bypass, Some(Reason::Claims));
}
