//! What the two ends see of each other's addresses, over IPv4, IPv6 and v4-mapped sockets, in the machine's own
//! network namespace and in pods' ones.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use harness::agent::Agent;
use harness::exec::Exec;
use harness::netns::{NODE_V4, NODE_V6, NodeNet};
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin, Request};

fn fresh(_: &Request) -> Answer {
    Answer::ok("fresh").max_age(600)
}

/// Two requests on connections of their own: the second is a hit.
fn second_is_a_hit(agent: &Agent, addr: SocketAddr) -> Result<()> {
    let first = agent.get(addr, "/a")?.expect(200)?;
    ensure!(!first.is_hit(), "the first was a hit: {}", first.head_text());
    let second = agent.get(addr, "/a")?.expect(200)?;
    ensure!(second.is_hit() && second.text() == "fresh", "{}", second.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn getpeername_is_the_address_that_was_asked_for() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;

    let connection = client.connect(origin.addr())?;
    let before = connection.names()?;
    let response = connection.get("/a")?.expect(200)?;
    let after = connection.names()?;

    ensure!(response.passed_through_cache(), "not redirected: {}", response.head_text());
    ensure!(before.0 == origin.addr() && after.0 == origin.addr(), "{before:?} {after:?}");
    ensure!(before.1.ip() == Ipv4Addr::LOCALHOST && before.1.port() != 0, "{before:?}");
    ensure!(before == after, "{before:?} {after:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn ipv6_connections_are_cached_and_see_the_address_they_asked_for() -> Result<()> {
    let origin = Origin::http_on(TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?, fresh)?;
    let client = Exec::port(origin.port())?.agent()?;

    second_is_a_hit(&client, origin.addr())?;

    let connection = client.connect(origin.addr())?;
    ensure!(connection.names()?.0 == origin.addr(), "{:?}", connection.names()?);
    ensure!(connection.names()?.1.ip() == Ipv6Addr::LOCALHOST, "{:?}", connection.names()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn v4_mapped_connections_are_cached_and_stay_v4_mapped() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), origin.port()));
    let client = Exec::port(origin.port())?.agent()?;

    second_is_a_hit(&client, mapped)?;

    let connection = client.connect(mapped)?;
    let (peer, local) = connection.names()?;
    ensure!(peer == mapped, "getpeername: {peer}");
    ensure!(local.ip() == Ipv4Addr::LOCALHOST.to_ipv6_mapped(), "getsockname: {local}");
    ensure!(
        origin.requests().iter().all(|request| request.peer().ip() == Ipv4Addr::LOCALHOST),
        "other source"
    );
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_pod_sees_the_origin_and_the_origin_sees_the_pod() -> Result<()> {
    let net = NodeNet::new()?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    let (address, address_v6) = (pod.address(), pod.address_v6());
    let origin = Origin::http_on(net.listen()?, fresh)?;
    let origin_v6 = Origin::http_on(net.listen_v6()?, fresh)?;
    let workload = Workload::of_pod("pod", pod, &[origin.port(), origin_v6.port()])?;
    let agent = workload.agent()?;
    let node = Node::start([workload])?;

    second_is_a_hit(&agent, origin.addr())?;
    second_is_a_hit(&agent, origin_v6.addr())?;

    let (peer, local) = agent.connect(origin.addr())?.names()?;
    ensure!(peer.ip() == NODE_V4 && local.ip() == address, "IPv4: peer {peer}, local {local}");
    let (peer, local) = agent.connect(origin_v6.addr())?.names()?;
    ensure!(peer.ip() == NODE_V6 && local.ip() == address_v6, "IPv6: peer {peer}, local {local}");
    ensure!(origin.requests().iter().all(|r| r.peer().ip() == address), "{:?}", origin.requests());
    ensure!(origin_v6.requests().iter().all(|r| r.peer().ip() == address_v6), "{:?}", origin_v6.requests());
    ensure!(node.figure("hits")? == 2, "{:?}", node.figures()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn loopback_destinations_of_a_pod_are_left_alone() -> Result<()> {
    let net = NodeNet::new()?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    let inside = Origin::http_on(pod.listen()?, fresh)?;
    let workload = Workload::of_pod("pod", pod, &[inside.port()])?;
    let agent = workload.agent()?;
    let _node = Node::start([workload])?;

    for _ in 0..2 {
        let response = agent.get(inside.addr(), "/a")?.expect(200)?;
        ensure!(!response.passed_through_cache(), "redirected: {}", response.head_text());
    }

    ensure!(inside.count() == 2, "the origin saw {}", inside.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn exec_caches_in_a_network_namespace_too() -> Result<()> {
    let net = NodeNet::new()?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    let origin = Origin::http_on(net.listen()?, fresh)?;
    let client = Exec::port(origin.port())?.within(&pod).agent()?;

    second_is_a_hit(&client, origin.addr())?;

    ensure!(origin.requests().iter().all(|request| request.peer().ip() == pod.address()), "other source");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_socket_bound_to_a_device_goes_direct_and_works() -> Result<()> {
    let net = NodeNet::new()?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    let origin = Origin::http_on(net.listen()?, fresh)?;
    let client = Exec::port(origin.port())?.within(&pod).agent()?;

    for _ in 0..2 {
        let bound = client.connect_through(origin.addr(), Some("eth0"))?.get("/a")?.expect(200)?;
        ensure!(!bound.passed_through_cache(), "redirected: {}", bound.head_text());
    }
    second_is_a_hit(&client, origin.addr())?;

    let outcome = client.finish()?;
    ensure!(origin.count() == 3, "the origin saw {}", origin.count());
    ensure!(outcome.figure("connections_redirected")? == 2, "{:?}", outcome.summary()?);
    ensure!(outcome.figure("connections_passed")? >= 2, "{:?}", outcome.summary()?);
    Ok(())
}

/// Runs a script behind the cache that prints `ok`, and says how many of its connections were redirected.
fn redirected_of_script(origin: &Origin, script: &str) -> Result<u64> {
    let outcome = Exec::port(origin.port())?.run(["python3", "-c", script, &origin.port().to_string()])?;
    ensure!(outcome.output.text().trim() == "ok", "{}", outcome.output.errors());
    outcome.figure("connections_redirected")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn one_bound_port_may_connect_to_two_destinations() -> Result<()> {
    let origin = Origin::http_on(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?, fresh)?;
    // The same own port (SO_REUSEADDR) to 127.0.0.1 and 127.0.0.2, then once more right after one of them ended.
    let script = "import socket, sys
port = int(sys.argv[1])
def get(family, own, to):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(own)
    s.connect((to, port))
    s.sendall(b'GET /a HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')
    assert s.recv(999).startswith(b'HTTP/1.1 200')
    return s
for family, any, first, second in [
    (socket.AF_INET, '0.0.0.0', '127.0.0.1', '127.0.0.2'),
    (socket.AF_INET6, '::', '::ffff:127.0.0.1', '::ffff:127.0.0.2'),
    (socket.AF_INET6, '::ffff:127.0.0.3', '::ffff:127.0.0.1', '::ffff:127.0.0.2'),
    (socket.AF_INET, '127.0.0.4', '127.0.0.1', '127.0.0.2'),
]:
    one = get(family, (any, 0), first)
    own = (any, one.getsockname()[1])
    get(family, own, second).close()
    one.close()
    get(family, own, '::ffff:127.0.0.5' if family == socket.AF_INET6 else '127.0.0.5')
print('ok')";

    // The second of each found its 4-tuple taken by the first and went direct.
    let redirected = redirected_of_script(&origin, script)?;
    ensure!((4..=8).contains(&redirected), "{redirected} redirected");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_marked_socket_goes_direct() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let script = "import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, 36, 7) # SO_MARK
s.connect(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'GET /a HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')
assert s.recv(999).startswith(b'HTTP/1.1 200')
print('ok')";
    ensure!(redirected_of_script(&origin, script)? == 0);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn ports_that_were_not_named_are_left_alone() -> Result<()> {
    let (named, other) = (Origin::http(fresh)?, Origin::http(fresh)?);
    let client = Exec::port(named.port())?.agent()?;

    for _ in 0..2 {
        let response = client.get(other.addr(), "/a")?.expect(200)?;
        ensure!(!response.passed_through_cache(), "redirected: {}", response.head_text());
    }
    second_is_a_hit(&client, named.addr())?;
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn several_ports_can_be_named() -> Result<()> {
    let origins = [Origin::http(fresh)?, Origin::http(fresh)?, Origin::http(fresh)?];
    let exec = origins.iter().try_fold(Exec::new()?, |exec, origin| {
        anyhow::Ok(exec.flag("--port").flag(origin.port().to_string()))
    })?;
    let client = exec.agent()?;

    for origin in &origins {
        second_is_a_hit(&client, origin.addr())?;
    }

    ensure!(client.finish()?.figure("connections_redirected")? == 6);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_application_s_other_sockets_are_not_disturbed() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let script = "import socket, sys
port = int(sys.argv[1])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(('127.0.0.1', port))
assert udp.getpeername() == ('127.0.0.1', port), udp.getpeername()
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
peer, name = server.accept()
assert client.getpeername() == server.getsockname()
assert name == client.getsockname() == peer.getpeername()
print('ok')";

    let outcome = Exec::port(origin.port())?.run(["python3", "-c", script, &origin.port().to_string()])?;

    ensure!(outcome.output.text().trim() == "ok", "{}", outcome.output.errors());
    ensure!(outcome.figure("connections_redirected")? == 0, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn fifty_pods_are_served_at_once_each_from_its_own_address() -> Result<()> {
    const PODS: u8 = 50;
    let net = NodeNet::new()?;
    let origin =
        Origin::http_on(net.listen()?, |request| Answer::ok(request.peer().ip().to_string()).max_age(600))?;
    let mut workloads = Vec::new();
    for (n, pod) in net.pods(PODS)?.into_iter().enumerate() {
        // An identity each, so that none is given what another one fetched.
        let workload = Workload::of_pod(&format!("pod-{n}"), pod, &[origin.port()])?;
        workloads.push(workload.identity("fifty", &format!("account-{n}")));
    }
    let agents = workloads.iter().map(Workload::agent).collect::<Result<Vec<_>>>()?;
    let addresses = workloads.iter().map(|w| w.pod().map(|pod| pod.address().to_string()));
    let addresses = addresses.collect::<Option<Vec<_>>>().context("no pod")?;
    let node = Node::start(workloads)?;

    for round in ["miss", "hit"] {
        for (agent, address) in agents.iter().zip(&addresses) {
            let response = agent.get(origin.addr(), "/who")?.expect(200)?;
            ensure!(response.text() == *address, "{address} was told {}", response.text());
            ensure!(response.is_hit() == (round == "hit"), "{round}: {}", response.head_text());
        }
    }

    ensure!(origin.count() == u64::from(PODS), "the origin saw {}", origin.count());
    ensure!(node.figure("hits")? == u64::from(PODS), "{:?}", node.figures()?);
    ensure!(node.figure("connections_redirected")? == 2 * u64::from(PODS), "{:?}", node.figures()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn workloads_of_one_service_account_share_what_is_stored() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let mut workloads = Vec::new();
    for (name, account) in [("a", "web"), ("b", "web"), ("c", "batch")] {
        workloads.push(Workload::local(name, &[origin.port()])?.identity("shop", account));
    }
    let agents = workloads.iter().map(Workload::agent).collect::<Result<Vec<_>>>()?;
    let _node = Node::start(workloads)?;

    let statuses = agents.iter().map(|agent| Ok(agent.get(origin.addr(), "/a")?.expect(200)?.is_hit()));

    let hits = statuses.collect::<Result<Vec<_>>>()?;
    ensure!(hits == [false, true, false], "hits: {hits:?}");
    ensure!(origin.count() == 2, "two service accounts, {} forward requests", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn one_address_in_two_network_namespaces_may_be_two_servers() -> Result<()> {
    let (net, other) = (NodeNet::new()?, NodeNet::new()?);
    let origin = Origin::http_on(net.listen()?, |_| Answer::ok("one").max_age(600))?;
    let twin = Origin::http_on(other.listen_at(origin.port())?, |_| Answer::ok("two").max_age(600))?;
    let pods = [net.pods(1)?, other.pods(1)?].into_iter().flatten().enumerate();
    let workloads = pods.map(|(n, pod)| Workload::of_pod(&format!("pod-{n}"), pod, &[origin.port()]));
    let workloads = workloads.collect::<Result<Vec<_>>>()?;
    let agents = workloads.iter().map(Workload::agent).collect::<Result<Vec<_>>>()?;
    let _node = Node::start(workloads)?;

    ensure!(origin.addr() == twin.addr());
    for _ in 0..2 {
        for (agent, body) in agents.iter().zip(["one", "two"]) {
            let response = agent.get(origin.addr(), "/a")?.expect(200)?;
            ensure!(response.text() == body, "{body} was given {}", response.text());
        }
    }
    Ok(())
}
