//! What a team says about caching of its services, as an object of the cluster, on a real API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cluster::{API, AT_ONCE, Caller, Cluster, PROMISED, WEB, http};
use harness::origin::{Answer, Origin};
use harness::wait;
use serde_json::Value;

/// A policy of the namespace `shop`, as an operator writes it.
fn policy(name: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: sidestep.dev/v1alpha1\nkind: CachePolicy\n\
         metadata: {{ namespace: shop, name: {name} }}\nspec:\n{spec}"
    )
}

/// What the status says of a policy.
fn state(cluster: &Cluster, name: &str) -> Result<Value> {
    let status = cluster.status()?;
    let all = status["cluster"]["policies"].as_array().context("no policies")?;
    all.iter().find(|one| one["name"] == name).cloned().context("no such policy")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_team_switches_the_caching_of_one_service_off_also_of_what_is_hot_in_the_kernel() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    let mut other = Caller::new(&agent, http(WEB));
    caller.heat("/a")?;
    other.heat("/a")?;
    let target = "targetRefs: [{ kind: Service, name: api }]\n";

    cluster.api.apply(&policy("api", &format!("{target}mode: \"off\"")), &[])?;

    let took = caller.is_told("/a", 200, "fwd=bypass; detail=policy-off")?;
    println!("off after {took:?}");
    let before = backend.origin.count();
    for _ in 0..20 {
        ensure!(!caller.get("/a")?.expect(200)?.is_hit(), "a hit in spite of the policy");
    }
    ensure!(backend.origin.count() == before + 20, "not all at the origin");
    ensure!(other.get("/a")?.expect(200)?.is_hit(), "another service's answers are gone");
    let said = state(&cluster, "api")?;
    ensure!(said["holds"] == true && said["targets"][0] == "Service api: holds", "{said}");

    cluster.api.apply(&policy("api", target), &[])?;
    caller.heat("/a")?;
    cluster.api.kubectl(&["delete", "cachepolicy", "api", "-n", "shop"])?;
    caller.heat("/a").map(drop)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_a_policy_allows_holds_for_its_service_alone_and_the_older_of_two_counts() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    // Says nothing of freshness.
    let origin = Origin::http_on(cluster.kubelet.net().listen_as(API, 80)?, |_| {
        Answer::status("404 Not Found", "no such thing")
    })?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    for _ in 0..3 {
        ensure!(!caller.get("/gone")?.expect(404)?.is_hit(), "kept although nobody said so");
    }

    cluster.api.apply(
        &policy("api", "targetRefs: [{ kind: Service, name: api }]\nnegative: { \"404\": 60s }"),
        &[],
    )?;

    caller.is_told("/gone", 404, "sidestep; hit")?;
    let before = origin.count();
    caller.get("/gone")?.expect(404)?;
    ensure!(origin.count() == before, "the origin was asked");
    // The API server counts whole seconds.
    wait::pause(Duration::from_millis(1100));
    cluster
        .api
        .apply(&policy("a-younger", "targetRefs: [{ kind: Service, name: api }]\nmode: \"off\""), &[])?;
    wait::wait_until(PROMISED, "a policy that was read", || state(&cluster, "a-younger").is_ok())?;
    let said = state(&cluster, "a-younger")?;
    ensure!(said["targets"][0] == "Service api: overruled by api", "{said}");
    ensure!(caller.get("/gone")?.expect(404)?.is_hit(), "the younger one counts");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_is_wrong_is_refused_by_the_api_server_already() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[])? else { return Ok(()) };
    let web = "targetRefs: [{ kind: Service, name: web }]\n";
    for (spec, field) in [
        ("mode: enforce".to_owned(), "targetRefs"),
        ("targetRefs: []".to_owned(), "targetRefs"),
        ("targetRefs: [{ kind: Gateway, name: web }]".to_owned(), "kind"),
        (format!("{web}mode: cache"), "mode"),
        // YAML 1.1 takes it for a boolean.
        (format!("{web}mode: off"), "mode"),
        (format!("{web}profile: strict"), "profile"),
        (format!("{web}staleIfError: soon"), "staleIfError"),
        (format!("{web}staleAfter: 3"), "staleAfter"),
        (format!("{web}negative: {{ \"404\": often }}"), "negative"),
        (format!("{web}ttl: 5m"), "ttl"),
    ] {
        let refused = cluster.api.apply(&policy("odd", &spec), &[]).err();
        let refused = refused.with_context(|| format!("taken: {spec}"))?.to_string();
        ensure!(refused.contains(field), "{spec}: {refused}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_the_daemon_cannot_read_stops_hits_of_its_namespace_and_is_told() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let _backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;

    // The schema takes it: it cannot say which keys there may be.
    let spec = "targetRefs: [{ kind: Service, name: web }]\nnegative: { \"401\": 10s }";
    cluster.api.apply(&policy("odd", spec), &[])?;

    caller.is_told("/a", 200, "fwd=bypass; detail=unreadable-policy")?;
    let said = state(&cluster, "odd")?;
    ensure!(said["trouble"].as_str().is_some_and(|why| why.contains("401")), "{said}");
    cluster.api.kubectl(&["delete", "cachepolicy", "odd", "-n", "shop"])?;
    caller.heat("/a").map(drop)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_request_that_waits_while_a_policy_comes_is_given_nothing_that_was_stored_before() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let [is_down, is_held, is_asked] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let (down, held, asked) = (is_down.clone(), is_held.clone(), is_asked.clone());
    let _origin = Origin::http_on(cluster.kubelet.net().listen_as(API, 80)?, move |_| {
        if !down.load(Ordering::Relaxed) {
            return Answer::ok("before").field("Cache-Control", "max-age=1, stale-if-error=600");
        }
        while held.load(Ordering::Relaxed) {
            asked.store(true, Ordering::Relaxed);
            wait::pause(Duration::from_millis(5));
        }
        Answer::status("503 Service Unavailable", "down")
    })?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    for _ in 0..2 {
        caller.get("/a")?.expect(200)?;
    }
    wait::pause(Duration::from_millis(1500));
    is_down.store(true, Ordering::Relaxed);
    ensure!(agent.get(http(API), "/a")?.text() == "before", "not given instead of an error");

    is_held.store(true, Ordering::Relaxed);
    let waiting = agent.connect(http(API))?;
    waiting.send(format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", http(API)))?;
    wait::wait_until(wait::PATIENCE, "a request at the origin", || is_asked.load(Ordering::Relaxed))?;
    let off = policy("api", "targetRefs: [{ kind: Service, name: api }]\nmode: \"off\"");
    let applied = cluster
        .api
        .apply(&off, &[])
        .and_then(|_| wait::wait_until(PROMISED, "a policy that holds", || state(&cluster, "api").is_ok()));
    // Whatever came of it: the origin must not wait for ever.
    is_held.store(false, Ordering::Relaxed);
    applied?;
    let response = waiting.response_within("GET", wait::PATIENCE)?;
    ensure!(response.status() == 503 && response.text() == "down", "{}", response.head_text());
    Ok(())
}
