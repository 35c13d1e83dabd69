//! What an operator applies: rendered by a real Helm, taken by a real API server, and enough for the daemon.

use std::ffi::OsStr;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use harness::cluster::{ApiServer, Cluster, PolicyKind, SHOP, manifest};
use harness::process::call;
use harness::{locate, wait};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Renders the chart with these settings; nothing where there is no Helm.
fn rendered(settings: &[&str]) -> Result<Option<String>> {
    let Some(helm) = locate::needed("helm", locate::tool("helm").or_else(|| locate::on_path("helm")))? else {
        return Ok(None);
    };
    let chart = locate::deployed("helm/sidestep");
    let mut words: Vec<&OsStr> =
        ["template", "sidestep", "--namespace", "sidestep"].iter().map(OsStr::new).collect();
    words.push(chart.as_os_str());
    for setting in settings {
        words.extend([OsStr::new("--set"), OsStr::new(setting)]);
    }
    call(&helm.to_string_lossy(), words, "").map(|output| Some(output.text()))
}

#[test]
fn the_plain_manifest_is_what_the_chart_gives() -> Result<()> {
    let Some(text) = rendered(&["createNamespace=true"])? else { return Ok(()) };
    let plain = manifest::plain()?;
    if std::env::var_os("SIDESTEP_WRITE_MANIFEST").is_some() {
        fs::write(locate::deployed("kubernetes/sidestep.yaml"), &text)?;
    }
    ensure!(plain == text, "write it anew: SIDESTEP_WRITE_MANIFEST=1 cargo test -p tests --test deploy");
    Ok(())
}

#[test]
fn each_setting_of_the_chart_has_its_effect() -> Result<()> {
    for (setting, expected) in [
        ("image.repository=example/sidestep", "image: \"example/sidestep:0.1.0\""),
        ("image.tag=v2", "image: \"sidestep:v2\""),
        ("image.pullSecrets[0].name=key", "imagePullSecrets:\n        - name: key"),
        ("config.storeBytes=1GiB", "storeBytes: 1GiB"),
        ("resources.limits.memory=2Gi", "memory: 2Gi"),
        ("affinity.nodeAffinity.a=b", "nodeAffinity:"),
        ("metrics.enabled=true", "metrics: 0.0.0.0:9464"),
        ("metrics.enabled=true", "kind: Service\n"),
        ("metrics.enabled=true", "ports:\n            - { name: metrics, containerPort: 9464"),
        ("metrics.enabled=true", "ingress:\n    - ports:\n        - { port: 9464, protocol: TCP }"),
        ("metrics.enabled=true,metrics.serviceMonitor.enabled=true", "kind: ServiceMonitor"),
        ("config.kubernetes.annotatePods=true", "resources: [pods/status]\n    verbs: [patch]"),
    ] {
        let Some(text) = rendered(&[setting])? else { return Ok(()) };
        ensure!(text.contains(expected), "{setting}: no {expected} in\n{text}");
        ensure!(!text.contains("kind: Namespace\n"), "a namespace that nobody asked for");
    }
    let Some(text) = rendered(&["networkPolicy.enabled=false"])? else { return Ok(()) };
    ensure!(!text.contains("kind: NetworkPolicy"), "a policy that nobody asked for");
    for kind in ["pods/status", "kind: Service\n", "ServiceMonitor", "containerPort"] {
        ensure!(!text.contains(kind), "{kind}, which nobody asked for");
    }
    Ok(())
}

/// An object as API servers of this schema read it: what they do not know is gone.
fn known<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value> {
    Ok(serde_json::to_value(serde_json::from_value::<T>(object.clone())?)?)
}

/// The API server that these tests run is 1.20, to which `maxSurge` is unknown.
#[test]
fn by_the_schema_of_a_newer_api_server_nothing_in_the_manifest_is_unknown() -> Result<()> {
    let mut kinds = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&manifest::all()?) {
        let object = Value::deserialize(document)?;
        if object.is_null() {
            continue;
        }
        let kind = object["kind"].as_str().context("no kind")?.to_owned();
        let known = match kind.as_str() {
            "ClusterRole" => known::<ClusterRole>(&object)?,
            "ClusterRoleBinding" => known::<ClusterRoleBinding>(&object)?,
            "ConfigMap" => known::<ConfigMap>(&object)?,
            "CustomResourceDefinition" => known::<CustomResourceDefinition>(&object)?,
            "DaemonSet" => known::<DaemonSet>(&object)?,
            "Namespace" => known::<Namespace>(&object)?,
            "NetworkPolicy" => known::<NetworkPolicy>(&object)?,
            "ServiceAccount" => known::<ServiceAccount>(&object)?,
            _ => bail!("{kind}?"),
        };
        ensure!(known == object, "{kind}: {object:#}\nis read as {known:#}");
        kinds.push(kind);
    }
    ensure!(kinds.len() == 10, "{kinds:?}");
    let surging =
        manifest::plain()?.contains("maxSurge: 1") && manifest::plain()?.contains("maxUnavailable: 0");
    ensure!(surging, "the next daemon is not there before the one before goes");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_real_api_server_takes_all_of_it() -> Result<()> {
    let Some(api) = ApiServer::start()? else { return Ok(()) };
    let text = manifest::plain_before_surge()?;
    // In a namespace that is not there nothing can be tried.
    api.kubectl(&["create", "namespace", "sidestep"])?;

    let said = api.apply(&text, &["--dry-run=server", "-o", "json"])?;

    let all: Value = serde_json::from_str(&said)?;
    let items = all["items"].as_array().context("no list")?;
    let kinds: Vec<&str> = items.iter().filter_map(|item| item["kind"].as_str()).collect();
    for kind in [
        "CustomResourceDefinition",
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "NetworkPolicy",
    ] {
        ensure!(kinds.contains(&kind), "no {kind}: {kinds:?}");
    }
    let role = items
        .iter()
        .find(|item| item["kind"] == "ClusterRole" && item["metadata"]["name"] == "sidestep")
        .context("no role")?;
    for rule in role["rules"].as_array().context("no rules")? {
        let may =
            if rule["resources"] == json!(["events"]) { json!(["create"]) } else { json!(["list", "watch"]) };
        ensure!(rule["verbs"] == may, "more than reading and Events: {rule}");
    }
    let set = items.iter().find(|item| item["kind"] == "DaemonSet").context("no DaemonSet")?;
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let context = &container["securityContext"];
    ensure!(context["privileged"] == false && context["readOnlyRootFilesystem"] == true, "{context}");
    ensure!(context["allowPrivilegeEscalation"] == false, "{context}");
    ensure!(container["resources"]["limits"]["memory"].is_string(), "no limit of memory");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        ensure!(container[probe]["exec"]["command"][1] == "status", "no {probe}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_daemon_has_the_listed_capabilities_and_no_others() -> Result<()> {
    let names = manifest::capabilities()?;
    ensure!(names == ["bpf", "net_admin", "perfmon", "sys_admin", "sys_ptrace"], "{names:?}");
    let expected =
        names.iter().try_fold(0_u64, |all, name| Ok::<_, anyhow::Error>(all | 1 << number(name)?))?;
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(SHOP, "enabled")?;
    let pod = cluster.run("a")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;

    let status = fs::read_to_string(format!("/proc/{}/status", cluster.node.pid()))?;
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
        let has = u64::from_str_radix(line.context("no line")?, 16)?;
        ensure!(has == expected, "{set}: {has:x}, not {expected:x}");
    }
    ensure!(status.contains("NoNewPrivs:\t1"), "it may get more");
    let is_served = || harness::cluster::is_served(&pod.agent("app")?);
    wait::wait_until(wait::PATIENCE, "a served pod", || is_served().unwrap_or_default())
}

/// What a check says about a subject: whether it is well, and what.
fn said(check: &Value, subject: &str) -> Result<(bool, String)> {
    let all = check["findings"].as_array().context("no findings")?;
    let one = all.iter().find(|one| one["subject"] == subject).with_context(|| format!("no {subject}"))?;
    Ok((one["ok"] == true, one["says"].as_str().unwrap_or_default().to_owned()))
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_check_tells_of_the_cluster_what_is_there_and_which_right_is_missing() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[])? else { return Ok(()) };
    let pod = cluster.run("a")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    cluster.api.define(PolicyKind::VIRTUAL_SERVICE)?;

    let check = cluster.check()?;

    ensure!(check["ok"] == true, "{check:#}");
    for (subject, expected) in [
        ("node", "node-1"),
        ("API server", "v1.20"),
        ("access rights", "all 9 are given"),
        ("CachePolicy", "defined"),
        ("pods", "knows pods of this node"),
        ("mesh", "1 of its kinds decide about hits: networking.istio.io"),
        ("cgroup driver", "systemd; 1 pods in"),
        ("attachments", ""),
    ] {
        let (is_ok, says) = said(&check, subject)?;
        ensure!(is_ok && says.contains(expected), "{subject}: {says}");
    }

    cluster.api.kubectl(&["delete", "clusterrolebinding", "sidestep"])?;
    // The API server learns of it by a watch of its own.
    let check = wait::poll(wait::PATIENCE, "a denied right", || {
        cluster.check().ok().filter(|check| check["ok"] == false)
    })?;
    let (is_ok, says) = said(&check, "access rights")?;
    ensure!(!is_ok && says.contains("pods") && says.contains("services"), "{check:#}");
    Ok(())
}

/// The number of a capability (capabilities(7)).
fn number(name: &str) -> Result<u32> {
    let known = [("net_admin", 12), ("sys_ptrace", 19), ("sys_admin", 21), ("perfmon", 38), ("bpf", 39)];
    known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).context("unknown capability")
}
