//! A destination that fails looks as it would without the cache: an error or a reset, never an answer of ours.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::agent::Agent;
use harness::exec::Exec;
use harness::netns::NodeNet;
use harness::origin::{After, Answer, Origin};
use harness::{port, wait};

/// How a request to a failing destination ended: the error of connect, or bytes and how reading ended.
fn attempt(agent: &Agent, addr: SocketAddr) -> Result<(Vec<u8>, String)> {
    let connection = match agent.try_connect(addr, None, Duration::from_secs(30))? {
        Ok(connection) => connection,
        Err(word) => return Ok((Vec::new(), format!("connect: {word}"))),
    };
    let sent = connection.try_send(format!("GET /a HTTP/1.1\r\nHost: {addr}\r\n\r\n"))?;
    if sent != "ok" {
        return Ok((Vec::new(), format!("send: {sent}")));
    }
    let rest = connection.rest_within(Duration::from_secs(30))?;
    Ok((rest.bytes, rest.end))
}

/// No byte of an answer, and an error from connect, send or the first read.
fn failed_as_without_us(agent: &Agent, addr: SocketAddr, natural: &str) -> Result<()> {
    let (bytes, end) = attempt(agent, addr)?;
    ensure!(bytes.is_empty(), "an answer: {}", String::from_utf8_lossy(&bytes));
    let natural = format!("connect: {natural}");
    ensure!([natural.as_str(), "send: reset", "reset"].contains(&end.as_str()), "ended with {end}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_refused_connection_is_reset_and_the_next_one_is_refused_by_the_kernel() -> Result<()> {
    let port = port::unused()?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let client = Exec::port(port)?.agent()?;

    failed_as_without_us(&client, addr, "refused")?;
    // Whoever tries again within two seconds, as `nc -z` in a loop does, sees the truth.
    let second = client.try_connect(addr, None, Duration::from_secs(5))?.err();
    ensure!(second.as_deref() == Some("refused"), "{second:?}");

    // When the destination is up and the two seconds are over, it is cached like any other.
    let origin = Origin::http_on(TcpListener::bind(addr)?, |_| Answer::ok("up").max_age(600))?;
    let began = Instant::now();
    wait::wait_until(wait::PATIENCE, "redirected again", || {
        client.get(addr, "/a").is_ok_and(|response| response.is_hit())
    })?;
    println!("left alone for {:?} after the origin was up", began.elapsed());
    ensure!(began.elapsed() < Duration::from_secs(4), "left alone for {:?}", began.elapsed());
    ensure!(origin.count() >= 1);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_destination_that_refused_says_so_to_a_port_scanner() -> Result<()> {
    let port = port::unused()?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let client = Exec::port(port)?.agent()?;

    // Without a request: connect, and the connection ends by itself.
    if let Ok(connection) = client.try_connect(addr, None, Duration::from_secs(5))? {
        let rest = connection.rest_within(Duration::from_secs(10))?;
        ensure!(rest.bytes.is_empty() && rest.end != "timeout", "{rest:?}");
    }
    let second = client.try_connect(addr, None, Duration::from_secs(5))?.err();

    ensure!(second.as_deref() == Some("refused"), "{second:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_unreachable_destination_fails_without_an_answer() -> Result<()> {
    let net = NodeNet::new()?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    pod.ip("route add unreachable 10.66.0.0/24\nroute add unreachable fd66::/64\n")?;
    let client = Exec::port(80)?.within(&pod).agent()?;

    failed_as_without_us(&client, "10.66.0.1:80".parse()?, "unreachable")?;
    failed_as_without_us(&client, "[fd66::1]:80".parse()?, "unreachable")?;

    let outcome = client.finish()?;
    ensure!(outcome.figure("hits")? + outcome.figure("misses")? == 0, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_destination_that_never_answers_times_out_without_an_answer() -> Result<()> {
    let net = NodeNet::new()?;
    let pod = net.pods(1)?.pop().context("no pod")?;
    // The node drops every packet to it; the pod's kernel gives up after one attempt.
    net.ip("route add blackhole 10.67.0.0/24\n")?;
    pod.set("ipv4/tcp_syn_retries", "1")?;
    let client = Exec::port(80)?.within(&pod).agent()?;

    let began = Instant::now();
    failed_as_without_us(&client, "10.67.0.1:80".parse()?, "timeout")?;

    println!("given up after {:?}", began.elapsed());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_answer_cut_short_is_seen_to_be_cut_short_and_is_not_stored() -> Result<()> {
    let origin = Origin::http(|request| match request.target() {
        "/sized" => Answer::cut_short(1000, "only this").max_age(600),
        "/chunked" => Answer::cut_chunk("only this").max_age(600),
        _ => Answer::raw("HTTP/1.1 200 OK\r\nContent-Le").then(After::Close),
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    for target in ["/sized", "/chunked", "/head"] {
        for _ in 0..2 {
            let response = client.get(origin.addr(), target)?;
            ensure!(["eof", "reset"].contains(&response.end()), "{target}: {}", response.end());
            ensure!(!response.is_hit() && response.status() != 502, "{}", response.head_text());
        }
        ensure!(origin.count_of(target) >= 2, "{target} was stored");
    }
    ensure!(client.finish()?.figure("hits")? == 0);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_answer_that_was_cut_short_is_stored_once_it_comes_whole() -> Result<()> {
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let origin = Origin::http(move |_| match state.load(Ordering::SeqCst) {
        true => Answer::cut_short(9, "part").max_age(600),
        false => Answer::ok("the whole").max_age(600),
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    let cut = client.get(origin.addr(), "/a")?;
    broken.store(false, Ordering::SeqCst);
    let whole = client.get(origin.addr(), "/a")?.expect(200)?;
    let stored = client.get(origin.addr(), "/a")?.expect(200)?;

    ensure!(!cut.complete(), "{cut:?}");
    ensure!(whole.text() == "the whole" && !whole.is_hit(), "{whole:?}");
    ensure!(stored.text() == "the whole" && stored.is_hit(), "{stored:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_origin_that_closes_without_an_answer_resets_the_client() -> Result<()> {
    let origin = Origin::raw(|talk| talk.receive().map(drop))?;
    let client = Exec::port(origin.port())?.agent()?;

    let (bytes, end) = attempt(&client, origin.addr())?;

    ensure!(bytes.is_empty(), "an answer: {}", String::from_utf8_lossy(&bytes));
    ensure!(["eof", "reset"].contains(&end.as_str()), "ended with {end}");
    Ok(())
}

const GARBAGE: &[u8] = b"\x00\x01 this is no HTTP \r\n\r\n";

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn garbage_from_an_origin_is_no_answer_of_ours() -> Result<()> {
    let origin = Origin::raw(|talk| {
        talk.receive()?;
        talk.send(GARBAGE)
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    for _ in 0..2 {
        let (bytes, end) = attempt(&client, origin.addr())?;
        ensure!(bytes.is_empty() || bytes == GARBAGE, "{}", String::from_utf8_lossy(&bytes));
        ensure!(["eof", "reset"].contains(&end.as_str()), "ended with {end}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_ambiguous_answer_of_an_origin_is_never_stored_nor_split() -> Result<()> {
    let origin = Origin::raw(|talk| {
        let bytes = talk.receive()?;
        let target = String::from_utf8_lossy(&bytes).split(' ').nth(1).unwrap_or_default().to_owned();
        talk.send(match target.as_str() {
            "/lengths" => {
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\nContent-Length: 9\r\n\r\nfourHTTP/"
            }
            "/both" => {
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 3\r\n\
                 Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n"
            }
            "/chunk" => {
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nfour\r\n0\r\n\r\n"
            }
            _ => "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: -1\r\n\r\n",
        })
    })?;
    let client = Exec::port(origin.port())?.agent()?;

    for target in ["/lengths", "/both", "/chunk", "/negative"] {
        for _ in 0..2 {
            let connection = client.connect(origin.addr())?;
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))?;
            let rest = connection.rest_within(Duration::from_secs(10))?;
            let text = String::from_utf8_lossy(&rest.bytes).into_owned();
            ensure!(!text.contains("sidestep; hit"), "{target}: {text}");
            ensure!(rest.end != "timeout", "{target}: still open after {text}");
        }
    }
    Ok(())
}
