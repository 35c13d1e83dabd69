//! The rules by which the mesh keeps its say about who may be given what (MESH.md S1–S3, S6), with clients that are answered by
//! the daemon and with those that are answered inside the kernel, on a real API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::cluster::{API, AT_ONCE, Backend, Caller, Cluster, PROMISED, Refusal, SHOP, WEB, http};
use harness::origin::{Answer, Gate, Origin};
use harness::wait;

/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_millis(500);

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s1_the_same_host_at_another_service_is_another_response() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let (mut api, mut web) = (Caller::new(&agent, http(API)), Caller::new(&agent, http(WEB)));

    ensure!(web.get_of("victim", "/a")?.expect(200)?.text() == "fresh", "not the first one's");
    ensure!(web.get_of("victim", "/a")?.expect(200)?.is_hit(), "no hit");
    let other = api.get_of("victim", "/a")?.expect(200)?;

    ensure!(!other.is_hit() && other.text() == "v1", "the answer of another service: {}", other.head_text());
    ensure!(backend.origin.count() == 1, "{} requests", backend.origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s1_the_address_of_a_pod_stands_for_that_pod_only() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let at = Ipv4Addr::new(10, 244, 200, 1);
    cluster.headless()?;
    cluster.behind("direct", &[("db-0", "one", at)])?;
    let backend = Backend::on(cluster.kubelet.net().listen_as(at, 8080)?)?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, SocketAddr::from((at, 8080)));
    ensure!(caller.heat("/a")?.text() == "v1", "not the first pod's");

    // The address is another pod's now, made from the same template.
    cluster.behind("direct", &[("db-1", "one", at)])?;
    backend.becomes(2);
    sees(&mut caller, "v2")?;

    for _ in 0..50 {
        ensure!(caller.get("/a")?.expect(200)?.text() == "v2", "the pod's that had the address before");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s2_only_a_pods_own_requests_wait_for_its_answer_before_it_was_let_through() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let gate = Gate::closed();
    let held = gate.clone();
    let origin = Origin::http_on(cluster.kubelet.net().listen_as(API, 80)?, move |_| {
        Answer::ok("once").max_age(600).held(&held)
    })?;
    let (one, other) = (cluster.run_as("a", "web")?, cluster.run_as("b", "web")?);
    let (agent, of_other) = (one.agent("app")?, other.agent("app")?);
    let request = "GET /a HTTP/1.1\r\nHost: api\r\n\r\n";
    let leader = agent.connect(http(API))?;
    leader.send(request)?;
    wait::wait_until(wait::PATIENCE, "the first request", || origin.count() == 1)?;
    let follower = agent.connect(http(API))?;
    follower.send(request)?;
    let stranger = of_other.connect(http(API))?;
    stranger.send(request)?;

    wait::wait_until(wait::PATIENCE, "the other pod's request", || origin.count() == 2)?;
    wait::pause(Duration::from_millis(300));
    gate.open();

    ensure!(origin.count() == 2, "the pod's own request did not wait");
    for connection in [&leader, &follower, &stranger] {
        ensure!(connection.response()?.expect(200)?.text() == "once", "not the answer");
    }
    ensure!(origin.count() == 2, "{} requests", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s2_service_accounts_share_nothing_and_pods_of_one_share_what_each_was_let_through_to() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let (one, other) = (cluster.run_as("a", "web")?, cluster.run_as("b", "batch")?);
    let (agent, of_other) = (one.agent("app")?, other.agent("app")?);
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;
    let before = backend.origin.count();

    let mut foreign = Caller::new(&of_other, http(API));
    let first = foreign.get("/a")?.expect(200)?;

    ensure!(first.cache_status().contains("fwd=uri-miss"), "{}", first.cache_status());
    ensure!(backend.origin.count() == before + 1, "two accounts, one request");
    // Another pod of the first one's: what is stored is good for it too, once the mesh has let it through.
    let third = cluster.run_as("c", "web")?;
    let of_third = third.agent("app")?;
    let mut same = Caller::new(&of_third, http(API));
    let first = same.get("/a")?.expect(200)?;
    ensure!(
        first.cache_status() == "sidestep; fwd=miss; fwd-status=304; detail=lease",
        "{}",
        first.cache_status()
    );
    ensure!(backend.asked_by(third.net().address()) == 1, "not on its own path");
    ensure!(same.get("/a")?.expect(200)?.is_hit(), "no hit afterwards");
    // The lease is for the service, not for one page of it.
    caller.get("/b")?.expect(200)?;
    ensure!(same.get("/b")?.expect(200)?.is_hit(), "no hit of what another pod of the account stored");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s3_a_pod_that_is_refused_never_gets_the_body() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let (one, other) = (cluster.run_as("a", "web")?, cluster.run_as("b", "web")?);
    let (agent, of_other) = (one.agent("app")?, other.agent("app")?);
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;

    for how in [Refusal::Forbidden, Refusal::Closed, Refusal::Unavailable] {
        backend.refuse(other.net().address(), how);
        let mut refused = Caller::new(&of_other, http(API));
        for n in 0..50 {
            let response = refused.get("/a")?;
            ensure!(!response.is_hit() && response.text() != "v1", "{how:?} {n}: {}", response.head_text());
            match how {
                Refusal::Forbidden => ensure!(response.status() == 403, "{}", response.head_text()),
                Refusal::Unavailable => ensure!(response.status() == 503, "{}", response.head_text()),
                Refusal::Closed => ensure!(!response.complete(), "{}", response.head_text()),
            }
        }
        ensure!(caller.get("/a")?.expect(200)?.is_hit(), "the one that is let through suffers");
    }
    ensure!(backend.asked_by(other.net().address()) >= 150, "refusals of our own making");
    backend.admit(other.net().address());
    let mut admitted = Caller::new(&of_other, http(API));
    ensure!(admitted.get("/a")?.expect(200)?.cache_status().contains("detail=lease"), "not validated");
    ensure!(admitted.get("/a")?.expect(200)?.is_hit(), "no hit once it is let through");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s3_a_pod_whose_right_is_revoked_gets_nothing_after_its_lease() -> Result<()> {
    const LEASE: Duration = Duration::from_secs(3);
    let Some(cluster) = Cluster::enabled(&[AT_ONCE, "authorizationLease: 3s"])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;

    backend.refuse(pod.net().address(), Refusal::Forbidden);
    let revoked = Instant::now();
    let (mut last, mut by_kernel) = (Duration::ZERO, 0);
    while revoked.elapsed() < LEASE + 2 * SLACK {
        let response = caller.get("/a")?;
        by_kernel += usize::from(response.is_by_kernel());
        if response.status() == 200 {
            last = revoked.elapsed();
        }
    }

    ensure!(last < LEASE + SLACK, "the body {last:?} after it was revoked");
    ensure!(by_kernel > 0, "no hit inside the kernel meanwhile");
    println!("revoked: the last body after {last:?}, {by_kernel} by the kernel, with a lease of {LEASE:?}");
    // What one request learns, the others of the pod know at once.
    for target in ["/a", "/b"] {
        ensure!(caller.get(target)?.status() == 403, "{target} is given");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s3_a_refusal_ends_the_lease_at_once_also_inside_the_kernel() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let (mut caller, mut other) = (Caller::new(&agent, http(API)), Caller::new(&agent, http(API)));
    caller.heat("/a")?;

    for how in [Refusal::Forbidden, Refusal::Closed, Refusal::Unavailable] {
        backend.refuse(pod.net().address(), how);
        // A miss: the mesh says no.
        ensure!(other.get(&format!("/{how:?}"))?.status() != 200, "let through");
        for n in 0..20 {
            let response = caller.get("/a")?;
            ensure!(response.status() != 200, "{how:?} {n}: {}", response.head_text());
        }
        backend.admit(pod.net().address());
        caller.heat("/a")?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s4_what_a_proxy_answers_itself_is_never_stored() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let origin = Origin::http_on(cluster.kubelet.net().listen_as(API, 80)?, |request| {
        let answer = Answer::ok("from Envoy").field("server", "envoy").max_age(600);
        match request.target() {
            "/upstream" => answer.field("x-envoy-upstream-service-time", "3"),
            _ => answer,
        }
    })?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));

    for n in 1..=5 {
        let own = caller.get("/own")?.expect(200)?;
        ensure!(own.cache_status().ends_with("detail=mesh-reply"), "{}", own.cache_status());
        ensure!(origin.count_of("/own") == n, "answered from what was stored");
    }
    // What it only passes on is its upstream's.
    caller.get("/upstream")?.expect(200)?;
    ensure!(caller.get("/upstream")?.expect(200)?.is_hit(), "not stored");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s6_taking_a_roll_out_back_shows_nothing_of_it_afterwards() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&["storingPause: 1s"])? else { return Ok(()) };
    let backend = cluster.backend()?;
    cluster.behind_api(&[("v1-a", "one")])?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    ensure!(caller.heat("/a")?.text() == "v1", "not the first version");

    // Rolled out: both at a time, then the new one.
    cluster.behind_api(&[("v1-a", "one"), ("v2-a", "two")])?;
    backend.becomes(2);
    sees(&mut caller, "v2")?;
    cluster.behind_api(&[("v2-a", "two")])?;
    wait::pause(PROMISED);
    ensure!(caller.heat("/a")?.text() == "v2", "not the second version");

    // Taken back.
    cluster.behind_api(&[("v1-a", "one")])?;
    backend.becomes(1);
    let took = sees(&mut caller, "v1")?;
    println!("the first body of the version before after {took:?}");
    let since = Instant::now();
    let mut by_kernel = 0;
    while since.elapsed() < Duration::from_secs(4) {
        let response = caller.get("/a")?.expect(200)?;
        by_kernel += usize::from(response.is_by_kernel());
        ensure!(response.text() == "v1", "{} after {:?}", response.text(), since.elapsed());
    }
    ensure!(by_kernel > 0, "no hit inside the kernel meanwhile");
    Ok(())
}

/// Repeats a GET until the body is this; how long that took.
fn sees(caller: &mut Caller<'_>, body: &str) -> Result<Duration> {
    let begun = Instant::now();
    while caller.get("/a")?.expect(200)?.text() != body {
        ensure!(begun.elapsed() < PROMISED, "no {body} after {:?}", begun.elapsed());
    }
    Ok(begun.elapsed())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s6_scaling_flushes_nothing() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let backend = cluster.backend()?;
    cluster.behind_api(&[("v1-a", "one")])?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;
    let before = backend.origin.count();

    cluster.behind_api(&[("v1-a", "one"), ("v1-b", "one"), ("v1-c", "one")])?;
    wait::pause(PROMISED);
    ensure!(caller.get("/a")?.expect(200)?.is_hit(), "flushed by scaling up");
    cluster.behind_api(&[("v1-c", "one")])?;
    wait::pause(PROMISED);

    ensure!(caller.get("/a")?.expect(200)?.is_hit(), "flushed by scaling down");
    ensure!(backend.origin.count() == before, "the origin was asked");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn s6_nothing_is_stored_for_a_while_after_a_change() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(4);
    let Some(cluster) = Cluster::enabled(&["storingPause: 4s"])? else { return Ok(()) };
    let backend = cluster.backend()?;
    let last = || backend.origin.requests().last().map(|request| request.connection());
    cluster.behind_api(&[("v1-a", "one")])?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    wait::pause(PAUSE);
    caller.get("/a")?.expect(200)?;
    ensure!(caller.get("/a")?.expect(200)?.is_hit(), "not stored after the pause");

    let before = last();
    let changed = Instant::now();
    cluster.behind_api(&[("v2-a", "two")])?;
    wait::poll(PROMISED, "the change", || {
        let response = caller.get("/a").ok()?;
        response.cache_status().ends_with("detail=settling").then_some(())
    })?;
    let from = changed.elapsed();
    // Whom a connection leads to was decided when it was made.
    let during = last();
    ensure!(before != during, "on a connection that is older than the change");
    loop {
        let response = caller.get("/a")?.expect(200)?;
        if response.is_hit() {
            break;
        }
        ensure!(changed.elapsed() < from + PAUSE + SLACK, "never stored again: {}", response.cache_status());
    }

    ensure!(changed.elapsed() >= PAUSE, "stored {:?} after the change", changed.elapsed());
    ensure!(during != last(), "stored from a connection that was made while proxies might not know");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_unlabelled_pod_is_given_nothing_more_on_a_connection_that_stays_open() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[AT_ONCE])? else { return Ok(()) };
    let _backend = cluster.backend()?;
    let pod = cluster.run_as("a", "web")?;
    let agent = pod.agent("app")?;
    let mut caller = Caller::new(&agent, http(API));
    caller.heat("/a")?;
    let idle = agent.connect(http(API))?;
    ensure!(idle.get("/a")?.expect(200)?.is_hit(), "not served");

    cluster.label(SHOP, "")?;
    let begun = Instant::now();
    while caller.get("/a")?.expect(200)?.passed_through_cache() {
        ensure!(begun.elapsed() < PROMISED, "still given after {:?}", begun.elapsed());
    }

    // One that was silent meanwhile is not given what is stored either.
    let late = idle.get("/a")?.expect(200)?;
    ensure!(!late.is_hit() && late.closes(), "{}", late.head_text());
    println!("given for another {:?}", begun.elapsed());
    for _ in 0..50 {
        ensure!(!caller.get("/a")?.expect(200)?.passed_through_cache(), "given again");
    }
    Ok(())
}
