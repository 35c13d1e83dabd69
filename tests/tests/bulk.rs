//! Bodies of any size stream through with bounded memory, and the store keeps within its limit.
//!
//! These tests move gigabytes and read the daemon's resident size, so they take turns.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::exclusive::Exclusive;
use harness::exec::Exec;
use harness::origin::{Answer, Origin};
use harness::wait;
use harness::wire::Framing;

const MIB: u64 = 1024 * 1024;

/// What the daemon may hold beside its store: code, maps, connections, bodies on their way.
const OVERHEAD_KB: u64 = 64 * 1024;

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn one_gigabyte_comes_down_whole_with_bounded_memory() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let length = 1024 * MIB;
    let origin = Origin::http(move |_| Answer::pattern(length).max_age(600))?;
    let client = Exec::port(origin.port())?.flag("--store-bytes").flag("64MiB").agent()?;

    let response = client.get(origin.addr(), "/big")?.expect(200)?;

    let peak = client.process().memory_kb("VmHWM")?;
    println!("peak resident size of the daemon: {peak} kB");
    ensure!(response.is_pattern(length), "{} bytes, {}", response.length(), response.end());
    ensure!(peak <= 64 * 1024 + OVERHEAD_KB, "{peak} kB");
    let outcome = client.finish()?;
    ensure!(outcome.figure("bytes_from_origin")? >= length, "{:?}", outcome.summary()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_chunked_download_of_a_size_unknown_comes_down_whole() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let length = 200 * MIB;
    let origin = Origin::http(move |_| Answer::pattern_chunked(length).max_age(600))?;
    let client = Exec::port(origin.port())?.flag("--store-bytes").flag("64MiB").agent()?;

    let response = client.get(origin.addr(), "/big")?.expect(200)?;

    ensure!(response.is_pattern(length), "{} bytes, {}", response.length(), response.end());
    let peak = client.process().memory_kb("VmHWM")?;
    ensure!(peak <= 64 * 1024 + OVERHEAD_KB, "{peak} kB");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_hundred_megabytes_go_up_whole_with_a_length_and_in_chunks() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let length = 100 * MIB;
    let origin = Origin::http(|_| Answer::ok("got it"))?;
    let client = Exec::port(origin.port())?.agent()?;
    let connection = client.connect(origin.addr())?;

    connection.send(format!("PUT /sized HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"))?;
    connection.send_pattern(length, None)?;
    connection.response_to("PUT")?.expect(200)?;
    connection.send("PUT /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    connection.send_pattern(length, Some(50_000))?;
    connection.response_to("PUT")?.expect(200)?;

    let framings: Vec<_> = origin.requests().iter().map(harness::origin::Request::framing).collect();
    ensure!(framings == [Framing::Length(length), Framing::Chunked], "{framings:?}");
    ensure!(origin.requests().iter().all(|request| request.is_pattern(length)), "other bytes");
    let peak = client.process().memory_kb("VmHWM")?;
    println!("peak resident size of the daemon: {peak} kB");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_slow_reader_holds_a_fast_origin_back() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let length = 400 * MIB;
    let origin = Origin::http(move |_| Answer::pattern(length).field("Cache-Control", "no-store"))?;
    let client = Exec::port(origin.port())?.flag("--store-bytes").flag("16MiB").agent()?;
    let connection = client.connect(origin.addr())?;

    connection.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n")?;
    // The reader waits with the whole response; the origin sends until it is held back.
    let quiet = Duration::from_millis(700);
    let sent = wait::settled(wait::PATIENCE, quiet, "the origin is held back", || origin.sent().max(1))?;
    let peak = client.process().memory_kb("VmHWM")?;
    println!("the origin had sent {sent} bytes; peak resident size of the daemon: {peak} kB");
    let response = connection.response()?.expect(200)?;

    ensure!(sent < length / 2, "the origin was not held back: {sent} bytes");
    ensure!(peak <= 16 * 1024 + OVERHEAD_KB, "{peak} kB");
    ensure!(response.is_pattern(length), "{} bytes, {}", response.length(), response.end());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn more_than_the_store_holds_goes_through_it_and_its_memory_stays_bounded() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let length = 4 * MIB;
    let origin = Origin::http(move |_| Answer::pattern(length).max_age(600))?;
    let client = Exec::port(origin.port())?.flag("--store-bytes").flag("32MiB").agent()?;
    let connection = client.connect(origin.addr())?;

    for n in 0..100 {
        let response = connection.get(&format!("/{n}"))?.expect(200)?;
        ensure!(response.is_pattern(length), "{n}: {} bytes", response.length());
    }

    let peak = client.process().memory_kb("VmHWM")?;
    println!("peak resident size of the daemon: {peak} kB");
    ensure!(peak <= 32 * 1024 + OVERHEAD_KB, "{peak} kB after 400 MiB through a store of 32 MiB");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn bodies_that_arrive_at_once_do_not_exceed_the_store_s_limit() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let length = 8 * MIB;
    let gate = harness::origin::Gate::closed();
    let held = gate.clone();
    let origin = Origin::http(move |_| Answer::pattern(length).max_age(600).held(&held))?;
    let client = Exec::port(origin.port())?.flag("--store-bytes").flag("32MiB").agent()?;
    let connections = (0..24).map(|_| client.connect(origin.addr())).collect::<Result<Vec<_>>>()?;

    for (n, connection) in connections.iter().enumerate() {
        connection.send(format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n"))?;
    }
    origin.reached(24)?;
    gate.open();
    for connection in &connections {
        ensure!(connection.response()?.expect(200)?.is_pattern(length), "other bytes");
    }

    let peak = client.process().memory_kb("VmHWM")?;
    println!("peak resident size of the daemon: {peak} kB");
    ensure!(peak <= 32 * 1024 + OVERHEAD_KB, "{peak} kB");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_client_that_breaks_off_a_download_harms_nobody_and_nothing_half_is_stored() -> Result<()> {
    let _machine = Exclusive::machine()?;
    let length = 50 * MIB;
    let origin = Origin::http(move |_| Answer::pattern(length).max_age(600))?;
    let client = Exec::port(origin.port())?.agent()?;

    let connection = client.connect(origin.addr())?;
    connection.send(format!("GET /big HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))?;
    let start = connection.exact(100_000)?;
    connection.reset()?;
    let whole = client.get(origin.addr(), "/big")?.expect(200)?;
    let again = client.get(origin.addr(), "/big")?.expect(200)?;

    ensure!(start.bytes.len() == 100_000, "{}", start.end);
    ensure!(whole.is_pattern(length) && again.is_pattern(length), "other bytes");
    Ok(())
}
