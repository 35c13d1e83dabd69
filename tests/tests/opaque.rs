//! What is no HTTP/1 on an intercepted port is relayed untouched, and then left alone by the kernel; what leaves
//! HTTP/1 in the middle is relayed on that connection only.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::agent::{Agent, Received};
use harness::exec::{Client, Exec};
use harness::forward_proxy::ForwardProxy;
use harness::locate;
use harness::node::{Node, Workload};
use harness::origin::{After, Answer, Origin, Request};
use harness::process::Process;
use harness::scratch::Scratch;
use harness::wait::PATIENCE;

/// Connections made after the first one of its kind.
const LATER: u64 = 5;

fn fresh(_: &Request) -> Answer {
    Answer::ok("fresh").max_age(600)
}

/// The first connection was redirected, and all later ones were left alone by the kernel.
fn left_alone_after_the_first(client: Client) -> Result<()> {
    let outcome = client.finish()?;
    ensure!(outcome.figure("connections_redirected")? == 1, "{:?}", outcome.summary()?);
    ensure!(outcome.figure("connections_passed")? >= LATER, "{:?}", outcome.summary()?);
    ensure!(outcome.figure("requests")? == 0, "{:?}", outcome.summary()?);
    Ok(())
}

/// Sends bytes to an echoing origin on several connections one after the other, and checks the bytes.
fn relayed_untouched(bytes: &[u8]) -> Result<()> {
    let origin = Origin::echo()?;
    let client = Exec::port(origin.port())?.agent()?;

    for _ in 0..=LATER {
        let connection = client.connect(origin.addr())?;
        connection.send(bytes)?;
        let back = connection.exact(bytes.len())?;
        ensure!(back.bytes == bytes, "{back:?}");
        // The relay stays open both ways.
        connection.send(b"more\r\n\r\n")?;
        ensure!(connection.exact(8)?.bytes == b"more\r\n\r\n");
        connection.finish_sending()?;
        ensure!(connection.rest()? == Received { bytes: Vec::new(), end: "eof".to_owned() });
    }

    left_alone_after_the_first(client)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn bytes_of_tls_are_relayed_and_then_left_alone() -> Result<()> {
    relayed_untouched(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03GET / HTTP/1.1\r\n\r\n")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn garbage_is_relayed_and_then_left_alone() -> Result<()> {
    relayed_untouched(b"\x00\x01\x02\xff\xfe garbage \r\n\r\n\x00")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_preface_of_http_2_is_relayed_and_then_left_alone() -> Result<()> {
    relayed_untouched(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_single_opaque_byte_is_relayed_at_once() -> Result<()> {
    relayed_untouched(b"\x80")
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_server_that_speaks_first_is_heard_and_then_left_alone() -> Result<()> {
    let origin = Origin::raw(|talk| {
        talk.send("220 mail.example ESMTP\r\n")?;
        talk.echo()
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    for _ in 0..=LATER {
        let connection = client.connect(origin.addr())?;
        let banner = connection.exact("220 mail.example ESMTP\r\n".len())?;
        ensure!(banner.bytes == b"220 mail.example ESMTP\r\n", "{banner:?}");
        connection.send("EHLO client\r\n")?;
        ensure!(connection.exact(13)?.bytes == b"EHLO client\r\n");
    }

    left_alone_after_the_first(client)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_real_tls_session_works() -> Result<()> {
    let Some(openssl) = locate::needed("openssl", locate::on_path("openssl"))? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let (key, cert) = (scratch.file("key.pem"), scratch.file("cert.pem"));
    let mut make = Command::new(&openssl);
    make.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-keyout",
    ]);
    make.arg(&key).arg("-out").arg(&cert);
    harness::process::run(&mut make, PATIENCE)?.succeeded()?;
    let port = harness::port::unused()?;
    let mut serve = Command::new(openssl);
    serve.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}"), "-key"]);
    let _server = Process::start(serve.arg(&key).arg("-cert").arg(&cert))?;
    harness::wait::wait_until(PATIENCE, "the TLS server listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })?;
    let script = format!("for i in 1 2 3; do curl -sSk https://127.0.0.1:{port}/ || exit 1; done");

    let outcome = Exec::port(port)?.run(["sh", "-c", &script])?;

    ensure!(outcome.output.status.success(), "{}", outcome.output.errors());
    ensure!(outcome.output.text().matches("Ciphers supported").count() == 3, "{}", outcome.output.text());
    ensure!(outcome.figure("connections_redirected")? == 1, "{:?}", outcome.summary()?);
    Ok(())
}

/// A real HTTP/2 origin, and its port.
fn h2c_server() -> Result<Option<(Process, u16)>> {
    let Some(node) = locate::needed("node", locate::on_path("node"))? else { return Ok(None) };
    let server = Process::start(Command::new(node).arg(locate::fixture("h2c_server.mjs")))?;
    let port = server.line(PATIENCE)?.parse()?;
    Ok(Some((server, port)))
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn http_2_with_prior_knowledge_works() -> Result<()> {
    let Some((_server, port)) = h2c_server()? else { return Ok(()) };
    let script = format!(
        "for i in 1 2; do curl -sS --http2-prior-knowledge http://127.0.0.1:{port}/x || exit 1; done"
    );

    let outcome = Exec::port(port)?.run(["sh", "-c", &script])?;

    ensure!(outcome.output.text() == "h2 /xh2 /x", "{:?}", outcome.output);
    ensure!(outcome.figure("connections_redirected")? == 1, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn grpc_works_with_its_trailers() -> Result<()> {
    let Some((_server, port)) = h2c_server()? else { return Ok(()) };
    let client = locate::fixture("grpc_client.mjs");
    let script =
        format!("for i in 1 2; do node {} http://127.0.0.1:{port} || exit 1; done", client.display());

    let outcome = Exec::port(port)?.run(["sh", "-c", &script])?;

    ensure!(outcome.output.text() == "0000000003010203 0\n".repeat(2), "{:?}", outcome.output);
    ensure!(outcome.figure("connections_redirected")? == 1, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn garbage_of_one_workload_changes_nothing_for_another() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let workloads = [Workload::local("a", &[origin.port()])?, Workload::local("b", &[origin.port()])?];
    let (a, b) = (workloads[0].agent()?, workloads[1].agent()?);
    let node = Node::start(workloads)?;

    let garbage = a.connect(origin.addr())?;
    garbage.send(b"\x00\x01\x02 garbage\r\n\r\n")?;
    garbage.finish_sending()?;
    garbage.rest()?;
    node.reaches("bypass_taught", 1)?;

    let direct = a.get(origin.addr(), "/a")?.expect(200)?;
    let first = b.get(origin.addr(), "/b")?.expect(200)?;
    let second = b.get(origin.addr(), "/b")?.expect(200)?;
    ensure!(!direct.passed_through_cache(), "{}", direct.head_text());
    ensure!(first.passed_through_cache() && second.is_hit(), "{}", second.head_text());
    Ok(())
}

fn api_and_socket(request: &Request) -> Answer {
    match request.target() {
        "/ws" => Answer::bare("101 Switching Protocols")
            .field("Upgrade", "websocket")
            .field("Connection", "Upgrade")
            .field("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            .then(After::Echo),
        _ => Answer::ok("api").max_age(600),
    }
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An API at the same destination is cached.
fn api_is_cached(agent: &Agent, origin: &Origin, target: &str) -> Result<()> {
    let first = agent.get(origin.addr(), target)?.expect(200)?;
    let second = agent.get(origin.addr(), target)?.expect(200)?;
    ensure!(first.passed_through_cache() && second.is_hit(), "{}\n{}", first.head_text(), second.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_api_stays_cached_beside_an_open_web_socket() -> Result<()> {
    let origin = Origin::http(api_and_socket)?;
    let client = Exec::port(origin.port())?.agent()?;

    let socket = client.connect(origin.addr())?;
    let switched = socket.exchange("GET", UPGRADE)?.expect(101)?;
    socket.send(b"\x81\x85\x01\x02\x03\x04hello")?;
    ensure!(socket.exact(11)?.bytes == b"\x81\x85\x01\x02\x03\x04hello");
    api_is_cached(&client, &origin, "/api")?;
    socket.send(b"GET /api HTTP/1.1\r\n\r\n")?;
    let echoed = socket.exact(21)?;
    socket.finish_sending()?;
    let end = socket.rest()?;
    api_is_cached(&client, &origin, "/api/2")?;

    let upgrade = switched.field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    ensure!(upgrade, "{}", switched.head_text());
    ensure!(switched.field("sec-websocket-accept").is_some(), "{}", switched.head_text());
    ensure!(echoed.bytes == b"GET /api HTTP/1.1\r\n\r\n", "{echoed:?}");
    ensure!(end.end == "eof" && end.bytes.is_empty(), "{end:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_refused_upgrade_leaves_an_ordinary_connection() -> Result<()> {
    let origin = Origin::http(|_| Answer::status("426 Upgrade Required", "no").field("Upgrade", "h2c"))?;
    let client = Exec::port(origin.port())?.agent()?;
    let connection = client.connect(origin.addr())?;

    ensure!(connection.exchange("GET", UPGRADE)?.expect(426)?.text() == "no");
    ensure!(connection.exchange("GET", UPGRADE)?.expect(426)?.text() == "no");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_offer_of_h2c_is_dropped_and_the_answer_is_cached() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;
    let offer =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n";

    let first = client.connect(origin.addr())?.get_with("/a", offer)?.expect(200)?;
    let second = client.connect(origin.addr())?.get_with("/a", offer)?.expect(200)?;

    ensure!(first.passed_through_cache() && second.is_hit(), "{}", second.head_text());
    let seen = origin.requests().pop().context("no request")?;
    ensure!(
        seen.field("upgrade").is_none() && seen.field("http2-settings").is_none(),
        "{}",
        seen.head().text()
    );
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn connect_is_a_tunnel_on_that_connection_only() -> Result<()> {
    let origin = Origin::http(|request| match request.method() {
        "CONNECT" => Answer::raw("HTTP/1.1 200 Connection established\r\n\r\n").then(After::Echo),
        _ => Answer::ok("api").max_age(600),
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    let tunnel = client.connect(origin.addr())?;
    tunnel.send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n")?;
    let established = tunnel.exact("HTTP/1.1 200 Connection established\r\n\r\n".len())?;
    tunnel.send(b"\x00\x01 anything")?;
    let echoed = tunnel.exact(11)?;
    api_is_cached(&client, &origin, "/api")?;

    ensure!(established.bytes == b"HTTP/1.1 200 Connection established\r\n\r\n", "{established:?}");
    ensure!(echoed.bytes == b"\x00\x01 anything", "{echoed:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_hundred_silent_connections_change_nothing() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;

    let silent = (0..100).map(|_| client.connect(origin.addr())).collect::<Result<Vec<_>>>()?;
    api_is_cached(&client, &origin, "/a")?;
    // A silent connection is used at last, as a pool does.
    let last = silent.last().context("none")?.get("/a")?.expect(200)?;
    drop(silent);
    api_is_cached(&client, &origin, "/b")?;

    ensure!(last.is_hit(), "{}", last.head_text());
    let outcome = client.finish()?;
    ensure!(outcome.figure("connections_redirected")? == 104, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn curl_through_a_real_proxy_works_and_is_never_stored() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let proxy = ForwardProxy::new()?;
    let script =
        format!("for i in 1 2 3; do curl -sS -x http://{} {}/a || exit 1; done", proxy.addr(), origin.url());

    let outcome = Exec::port(proxy.addr().port())?.run(["sh", "-c", &script])?;

    ensure!(outcome.output.text() == "freshfreshfresh", "{:?}", outcome.output);
    ensure!(origin.count() == 3 && proxy.count() == 3, "{} {}", origin.count(), proxy.count());
    ensure!(outcome.figure("hits")? == 0, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_absolute_form_request_arrives_byte_for_byte() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;
    let request = "GET http://other.example/a HTTP/1.1\r\nHost: third.example\r\nProxy-Connection: keep-alive\r\n\
                   x-ODD: 1\r\n\r\n";

    for _ in 0..2 {
        let response = client.connect(origin.addr())?.exchange("GET", request)?.expect(200)?;
        ensure!(!response.is_hit(), "{}", response.head_text());
    }

    ensure!(origin.count() == 2, "the origin saw {}", origin.count());
    let seen = origin.requests().pop().context("no request")?;
    ensure!(seen.head().raw() == request.as_bytes(), "{}", seen.head().text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn options_asterisk_is_relayed() -> Result<()> {
    let origin = Origin::http(|_| Answer::bare("204 No Content").field("Allow", "GET, OPTIONS"))?;
    let client = Exec::port(origin.port())?.agent()?;

    let connection = client.connect(origin.addr())?;
    let response = connection.exchange("OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")?.expect(204)?;

    ensure!(response.field("allow") == Some("GET, OPTIONS"), "{}", response.head_text());
    ensure!(origin.requests().iter().all(|request| request.target() == "*"), "other target");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn ssh_keyscan_like_exchanges_where_both_speak_at_once_work() -> Result<()> {
    let origin = Origin::raw(|talk| {
        talk.send("SSH-2.0-server\r\n")?;
        talk.echo()
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    let connection = client.connect(origin.addr())?;
    connection.send("SSH-2.0-client\r\n")?;
    let both = connection.exact(32)?;

    ensure!(both.bytes == b"SSH-2.0-server\r\nSSH-2.0-client\r\n", "{both:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_file_copied_by_netcat_s_manner_arrives_whole() -> Result<()> {
    let Some(_) = locate::needed("python3", locate::on_path("python3"))? else { return Ok(()) };
    let origin = Origin::raw(|talk| talk.drain())?;
    let scratch = Scratch::new()?;
    let content = harness::pattern::bytes(3_000_000);
    let file = scratch.write("file", [b"\x00".as_slice(), &content].concat())?;
    let script = "import socket, sys
with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as s, open(sys.argv[2], 'rb') as f:
    s.sendfile(f)
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b''";
    let words = ["python3", "-c", script, &origin.port().to_string(), &file.to_string_lossy()];

    let outcome = Exec::port(origin.port())?.run(words)?;

    ensure!(outcome.output.status.success(), "{}", outcome.output.errors());
    ensure!(origin.received() == [fs::read(file)?], "other bytes");
    Ok(())
}
