//! The mesh's routes and policies are followed by whoever might be given a hit (MESH.md S3, S5, S7): on a real API server, and
//! with a real Envoy as the sidecar.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use harness::cluster::{API, AT_ONCE, Caller, Cluster, PROMISED, PodSpec, PolicyKind, Refusal, SHOP, http};
use harness::envoy::Envoy;
use harness::origin::{Answer, Origin};
use harness::{sidecar, wait};
use serde_json::{Value, json};

/// A route of requests to `shop/api`, with more in it.
fn route_of_api(more: Value) -> Value {
    let mut route = json!({ "route": [{ "destination": { "host": "api" } }] });
    if let (Some(route), Some(more)) = (route.as_object_mut(), more.as_object()) {
        route.extend(more.clone());
    }
    json!({ "hosts": ["api"], "http": [route] })
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s5_a_route_that_a_hit_would_bend_is_followed_at_once_also_by_what_is_hot_in_the_kernel() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;
    // The mesh comes only now.
    cluster.api.define(PolicyKind::VIRTUAL_SERVICE)?;
    cluster.api.define(PolicyKind::HTTP_ROUTE)?;

    let split = json!([
        { "destination": { "host": "api", "subset": "v1" }, "weight": 90 },
        { "destination": { "host": "api", "subset": "v2" }, "weight": 10 },
    ]);
    for (more, word) in [
        (json!({ "fault": { "abort": { "httpStatus": 503, "percentage": { "value": 10 } } } }), "fault"),
        (json!({ "mirror": { "host": "shadow" } }), "mirror"),
        (json!({ "route": split }), "split"),
    ] {
        cluster.decide(PolicyKind::VIRTUAL_SERVICE, "api", &route_of_api(more))?;
        let took = caller.is_told("/a", 200, &format!("detail={word}"))?;
        println!("{word} is seen after {took:?}");
        let before = backend.origin.count();
        for _ in 0..20 {
            ensure!(!caller.get("/a")?.expect(200)?.is_hit(), "a hit in spite of {word}");
        }
        ensure!(backend.origin.count() == before + 20, "{word}: not all at the origin");
        cluster.decide(PolicyKind::VIRTUAL_SERVICE, "api", &route_of_api(json!({})))?;
        caller.is_told("/a", 200, "sidestep; hit")?;
        caller.heat("/a")?;
    }
    let parent = json!([{ "kind": "Service", "group": "", "name": "api" }]);
    let backends = json!([{ "name": "api", "weight": 9 }, { "name": "web", "weight": 1 }]);
    let route = json!({ "parentRefs": parent, "rules": [{ "backendRefs": backends }] });
    cluster.decide(PolicyKind::HTTP_ROUTE, "api", &route)?;
    caller.is_told("/a", 200, "detail=split")?;
    cluster.undecide(PolicyKind::HTTP_ROUTE, "api")?;
    caller.heat("/a").map(drop)
}

/// Requests of a comparison.
const MANY: usize = 1000;
/// The second version of `shop/api`, which a sidecar may send requests to.
const NEXT: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 10);

/// What came of many requests for one hot URL: before the pod was served, and while it was.
struct Compared {
    /// The bodies, or statuses.
    answers: [Vec<String>; 2],
    /// How many requests there were at the second version.
    at_next: [u64; 2],
}

/// How a mesh takes a pod's connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wired {
    /// By a container of the pod, whose own connections are told by its user.
    Sidecar,
    /// By a proxy of the node, whose own connections are told by their mark.
    Ambient,
}

/// A pod whose connections are taken by a real Envoy that routes so, in a cluster that knows of it.
fn compared(wired: Wired, envoy: Envoy, more: Value) -> Result<Option<Compared>> {
    let Some(cluster) = Cluster::told(&[AT_ONCE])? else { return Ok(None) };
    cluster.api.define(PolicyKind::VIRTUAL_SERVICE)?;
    cluster.decide(PolicyKind::VIRTUAL_SERVICE, "api", &route_of_api(more))?;
    let listen = |at| cluster.kubelet.net().listen_as(at, 80);
    let _one = Origin::http_on(listen(API)?, |_| Answer::ok("one").max_age(600))?;
    let next = Origin::http_on(listen(NEXT)?, |_| Answer::ok("next").max_age(600))?;
    let mut spec = PodSpec::new("shop", "meshed");
    if wired == Wired::Sidecar {
        spec = spec.container("istio-proxy");
    }
    let pod = cluster.kubelet.run(&cluster.api, &spec)?;
    let proxy = match wired {
        Wired::Sidecar => pod.sidecar_like("istio-proxy", envoy)?,
        Wired::Ambient => pod.node_proxy(envoy)?,
    };
    let Some(_proxy) = proxy else { return Ok(None) };
    let agent = pod.agent("app")?;
    let asked = || -> Result<(Vec<String>, u64)> {
        let before = next.count();
        let mut caller = Caller::new(&agent, http(API));
        let canary = |n: usize| if n.is_multiple_of(3) { "yes" } else { "no" };
        let answers = (0..MANY).map(|n| {
            let response = caller.get_with("/a", &format!("X-Canary: {}\r\n", canary(n)))?;
            Ok(if response.status() == 200 { response.text() } else { response.status().to_string() })
        });
        let answers = answers.collect::<Result<_>>()?;
        // What is mirrored may come a little later.
        wait::settled(wait::PATIENCE, Duration::from_millis(500), "mirrored requests", || next.count())?;
        Ok((answers, next.count() - before))
    };
    let (without, next_without) = asked()?;
    cluster.label(SHOP, "enabled")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let (with, next_with) = asked()?;
    println!("the second version was asked {next_without} times without us and {next_with} times with");
    Ok(Some(Compared { answers: [without, with], at_next: [next_without, next_with] }))
}

fn count(answers: &[String], of: &str) -> usize {
    answers.iter().filter(|answer| *answer == of).count()
}

/// What a share of [`MANY`] may be by chance: five standard deviations.
fn is_share(count: usize, percent: f64) -> bool {
    let (many, share) = (MANY as f64, percent / 100.0);
    (count as f64 - many * share).abs() < 5.0 * (many * share * (1.0 - share)).sqrt()
}

fn a_split_stays_one(wired: Wired) -> Result<()> {
    let weights = json!([{ "name": "origin", "weight": 90 }, { "name": "next", "weight": 10 }]);
    let routes =
        json!([{ "match": { "prefix": "/" }, "route": { "weighted_clusters": { "clusters": weights } } }]);
    let envoy = Envoy::sidecar()?.routing(routes, &[("next", http(NEXT))]);
    let split = json!({ "route": [
        { "destination": { "host": "api", "subset": "v1" }, "weight": 90 },
        { "destination": { "host": "api", "subset": "v2" }, "weight": 10 },
    ] });

    let Some(all) = compared(wired, envoy, split)? else { return Ok(()) };

    for (answers, who) in all.answers.iter().zip(["without", "with"]) {
        let next = count(answers, "next");
        println!("{who}: {next} of {MANY}");
        ensure!(is_share(next, 10.0) && count(answers, "one") + next == MANY, "{who}: {next}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s5_a_split_of_a_real_sidecar_stays_one() -> Result<()> {
    a_split_stays_one(Wired::Sidecar)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s5_a_split_in_ambient_mode_stays_one() -> Result<()> {
    a_split_stays_one(Wired::Ambient)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn in_ambient_mode_a_miss_goes_through_the_nodes_proxy_and_a_hit_does_not() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let pod = cluster.kubelet.run(&cluster.api, &PodSpec::new("shop", "a"))?;
    let Some(_proxy) = pod.node_proxy(Envoy::sidecar()?)? else { return Ok(()) };
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));

    caller.get("/a")?.expect(200)?;
    caller.heat("/a")?;

    let through = sidecar::answered(pod.net())?;
    ensure!(through == 1, "{through} through the proxy");
    let requests = backend.origin.requests();
    let [request] = &requests[..] else { bail!("{} at the origin", requests.len()) };
    ensure!(request.field("host") == Some(&http(API).to_string()), "{request:?}");
    ensure!(request.peer().ip() == pod.net().address(), "from {}", request.peer());
    ensure!(cluster.state(&pod.name())?.is_some_and(|(state, _)| state == "enrolled"), "taken for a sidecar");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s5_a_header_route_of_a_real_sidecar_stays_one() -> Result<()> {
    let header = json!({ "name": "x-canary", "string_match": { "exact": "yes" } });
    let routes = json!([
        { "match": { "prefix": "/", "headers": [header] }, "route": { "cluster": "next" } },
        { "match": { "prefix": "/" }, "route": { "cluster": "origin" } },
    ]);
    let envoy = Envoy::sidecar()?.routing(routes, &[("next", http(NEXT))]);
    let canary = json!({ "match": [{ "headers": { "x-canary": { "exact": "yes" } } }] });

    let Some(Compared { answers: [without, with], at_next }) = compared(Wired::Sidecar, envoy, canary)?
    else {
        return Ok(());
    };

    ensure!(without == with, "not the same answers");
    ensure!(count(&with, "next") == MANY.div_ceil(3), "{}", count(&with, "next"));
    ensure!(at_next[1] < at_next[0] / 10, "not answered from what was stored: {at_next:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s5_what_a_real_sidecar_mirrors_stays_mirrored() -> Result<()> {
    let routes = json!([{ "match": { "prefix": "/" }, "route": {
        "cluster": "origin", "request_mirror_policies": [{ "cluster": "next" }],
    } }]);
    let envoy = Envoy::sidecar()?.routing(routes, &[("next", http(NEXT))]);

    let mirror = json!({ "mirror": { "host": "next" } });
    let Some(Compared { answers: [without, with], at_next }) = compared(Wired::Sidecar, envoy, mirror)?
    else {
        return Ok(());
    };

    ensure!(count(&without, "one") == MANY && count(&with, "one") == MANY, "not the origin's answers");
    ensure!(at_next == [MANY as u64; 2], "{at_next:?} of {MANY} were mirrored");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s5_s7_a_fault_that_a_real_sidecar_injects_stays_one() -> Result<()> {
    let fault = json!({ "fault": { "abort": { "httpStatus": 503, "percentage": { "value": 10 } } } });

    let Some(all) = compared(Wired::Sidecar, Envoy::sidecar()?.aborting(10, 503), fault)? else {
        return Ok(());
    };

    for (answers, who) in all.answers.iter().zip(["without", "with"]) {
        let faults = count(answers, "503");
        println!("{who}: {faults} of {MANY}");
        ensure!(is_share(faults, 10.0) && count(answers, "one") + faults == MANY, "{who}: {faults}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s5_what_a_route_looks_at_tells_responses_apart() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    cluster.api.define(PolicyKind::VIRTUAL_SERVICE)?;
    // As a proxy would that has such a route.
    let origin = Origin::http_on(cluster.kubelet.net().listen_as(API, 80)?, |request| {
        Answer::ok(if request.field("x-canary") == Some("yes") { "canary" } else { "usual" }).max_age(600)
    })?;
    let canary = json!({ "match": [{ "headers": { "x-canary": { "exact": "yes" } } }] });
    cluster.decide(PolicyKind::VIRTUAL_SERVICE, "api", &route_of_api(canary))?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let connection = agent.connect(http(API))?;
    let ask =
        |fields: &str| connection.exchange("GET", format!("GET /a HTTP/1.1\r\nHost: api\r\n{fields}\r\n"));

    for n in 0..3 {
        for (fields, expected) in
            [("", "usual"), ("X-Canary: yes\r\n", "canary"), ("X-Canary: no\r\n", "usual")]
        {
            let response = ask(fields)?.expect(200)?;
            ensure!(response.text() == expected, "{fields}: {}", response.text());
            ensure!(response.is_hit() == (n > 0), "{fields}: {}", response.cache_status());
        }
    }

    ensure!(origin.count() == 3, "{} requests", origin.count());
    // A mesh goes by the name: who asks for somebody else is not answered from what this service gave.
    let foreign = connection.exchange("GET", "GET /a HTTP/1.1\r\nHost: web.shop\r\n\r\n")?.expect(200)?;
    ensure!(
        foreign.cache_status() == "sidestep; fwd=bypass; detail=foreign-host",
        "{}",
        foreign.cache_status()
    );
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s3_where_paths_are_looked_at_a_right_to_one_says_nothing_of_another() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    cluster.api.define(PolicyKind::AUTHORIZATION_POLICY)?;
    let rules = json!([{ "to": [{ "operation": { "paths": ["/a"] } }] }]);
    cluster.decide(PolicyKind::AUTHORIZATION_POLICY, "api", &json!({ "rules": rules }))?;
    let backend = cluster.backend()?;
    let (one, other) = (cluster.run_as("a", "web")?, cluster.run_as("b", "web")?);
    let (agent, of_other) = (one.agent("app")?, other.agent("app")?);
    let (mut caller, mut second) = (Caller::new(&agent, http(API)), Caller::new(&of_other, http(API)));
    for target in ["/a", "/b"] {
        caller.get(target)?.expect(200)?;
        ensure!(caller.get(target)?.expect(200)?.is_hit(), "{target} is not stored");
    }

    second.get("/a")?.expect(200)?;
    ensure!(second.get("/a")?.expect(200)?.is_hit(), "what it was let through to");
    let denied = second.get("/b")?;

    ensure!(denied.cache_status().contains("detail=lease"), "{}", denied.cache_status());
    ensure!(backend.asked_by(other.net().address()) == 2, "not asked for each path");
    // What looks at paths may look at queries.
    caller.get("/a?x")?.expect(200)?;
    ensure!(second.get("/a?x")?.expect(200)?.cache_status().contains("detail=lease"), "another query");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s7_a_policy_that_is_added_to_a_hot_url_is_asked_at_once() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    cluster.api.define(PolicyKind::AUTHORIZATION_POLICY)?;
    let backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;

    backend.refuse(pod.net().address(), Refusal::Forbidden);
    cluster.decide(PolicyKind::AUTHORIZATION_POLICY, "deny", &json!({ "action": "DENY", "rules": [{}] }))?;
    let begun = Instant::now();
    while caller.get("/a")?.status() == 200 {
        ensure!(
            begun.elapsed() < PROMISED,
            "still given after {:?}, long before its lease ends",
            begun.elapsed()
        );
    }

    println!("denied after {:?}", begun.elapsed());
    for _ in 0..20 {
        ensure!(caller.get("/a")?.status() == 403, "given again");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s10_each_pods_misses_go_through_its_own_sidecar() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let mut pods = Vec::new();
    for name in ["a", "b"] {
        let spec = PodSpec::new("shop", name).container("istio-proxy");
        let pod = cluster.kubelet.run(&cluster.api, &spec)?;
        let Some(sidecar) = pod.sidecar("istio-proxy")? else { return Ok(()) };
        cluster.becomes(&pod.name(), Some("enrolled"))?;
        pods.push((pod, sidecar));
    }
    let agents = pods.iter().map(|(pod, _)| pod.agent("app")).collect::<Result<Vec<_>>>()?;
    let mut callers: Vec<Caller<'_>> = agents.iter().map(|agent| Caller::new(agent, http(API))).collect();
    let [one, other] = &mut callers[..] else { return Ok(()) };

    // Two misses and a hit of the one; of the other a validation of its own, a miss and a hit.
    for (caller, target) in [(0, "/1"), (0, "/2"), (0, "/1"), (1, "/1"), (1, "/3"), (1, "/2")] {
        let caller = if caller == 0 { &mut *one } else { &mut *other };
        caller.get(target)?.expect(200)?;
    }

    for (pod, _) in &pods {
        let through = sidecar::answered(pod.net())?;
        // A validation that was confirmed is no 2xx.
        let expected = if pod.name() == "shop/a" { 2 } else { 1 };
        ensure!(through == expected, "{}: {through} through its sidecar", pod.name());
        let asked = backend.asked_by(pod.net().address());
        ensure!(asked == 2, "{}: {asked} at the origin", pod.name());
    }
    Ok(())
}
