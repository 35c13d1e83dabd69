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

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn thirty_two_connections_of_large_objects_stay_within_the_budget_slow_readers_among_them() -> Result<()> {
    let _machine = Exclusive::machine()?;
    // `/<bytes>/<name>` has so many bytes.
    let origin = Origin::http(|request| {
        let bytes = request.target().split('/').nth(1).and_then(|bytes| bytes.parse().ok());
        Answer::pattern(bytes.unwrap_or(0)).max_age(600)
    })?;
    let client = Exec::port(origin.port())?.flag("--store-bytes").flag("64MiB").agent()?;
    let connections = (0..32).map(|_| client.connect(origin.addr())).collect::<Result<Vec<_>>>()?;
    let (slow, quick) = connections.split_at(8);
    let ask = |bytes: u64, name: usize| format!("GET /{bytes}/{name} HTTP/1.1\r\nHost: h\r\n\r\n");

    for (name, connection) in slow.iter().enumerate() {
        connection.send(ask(10 * MIB, name))?;
    }
    let mut moved = 0;
    for round in 0..8 {
        let target = |n: usize| ((n * 7919 + round * 104_729) as u64 * 4001 % (10 * MIB), n % 40);
        for (n, connection) in quick.iter().enumerate() {
            let (bytes, name) = target(n);
            connection.send(ask(bytes, name))?;
        }
        for (n, connection) in quick.iter().enumerate() {
            let (bytes, _) = target(n);
            ensure!(connection.response()?.expect(200)?.is_pattern(bytes), "round {round}, {n}");
            moved += bytes;
        }
    }
    for connection in slow {
        ensure!(connection.response()?.expect(200)?.is_pattern(10 * MIB), "a slow reader got other bytes");
    }
    // Larger than the object limit, which is half of the store: never from the store.
    for _ in 0..2 {
        let large = client.get(origin.addr(), &format!("/{}/large", 33 * MIB))?.expect(200)?;
        ensure!(large.is_pattern(33 * MIB) && !large.is_hit(), "{}", large.head_text());
    }

    let peak = client.process().memory_kb("VmHWM")?;
    println!("peak resident size of the daemon: {peak} kB after {} MiB", moved / MIB);
    ensure!(peak <= 64 * 1024 + OVERHEAD_KB, "{peak} kB");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn ranges_of_a_stored_object_of_100_megabytes_are_its_bytes_without_a_copy() -> Result<()> {
    let _machine = Exclusive::machine()?;
    // The pattern repeats itself after so many bytes.
    const BLOCK: u64 = 1_000_003;
    let length = 100_000_000;
    let origin = Origin::http(move |_| {
        let etag = Answer::pattern(length).max_age(600).field("ETag", "\"v1\"");
        etag.field("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    })?;
    let client = Exec::port(origin.port())?.flag("--store-bytes").flag("256MiB").agent()?;
    let connection = client.connect(origin.addr())?;
    ensure!(connection.get("/big")?.expect(200)?.is_pattern(length), "other bytes");
    let before = client.process().memory_kb("VmHWM")?;

    for (range, bytes) in [
        (format!("{}-{}", 7 * BLOCK, 7 * BLOCK + 999), 1000),
        (format!("{}-", 99 * BLOCK), length - 99 * BLOCK),
        (format!("{}-{}", 3 * BLOCK, 93 * BLOCK - 1), 90 * BLOCK),
        (format!("-{}", length - 50 * BLOCK), length - 50 * BLOCK),
    ] {
        let answer = connection.get_with("/big", &format!("Range: bytes={range}\r\n"))?.expect(206)?;
        ensure!(answer.is_hit() && answer.is_pattern(bytes), "{range}: {}", answer.head_text());
    }
    let two = connection.get_with("/big", "Range: bytes=0-1,99999998-\r\n")?.expect(206)?;
    ensure!(two.is_hit() && two.text().matches("Content-Range: bytes ").count() == 2, "{}", two.head_text());
    for (condition, status) in [
        ("\"v1\"", 206),
        ("\"v2\"", 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
    ] {
        let fields = format!("Range: bytes={}-\r\nIf-Range: {condition}\r\n", 2 * BLOCK);
        let answer = connection.get_with("/big", &fields)?.expect(status)?;
        let bytes = if status == 206 { length - 2 * BLOCK } else { length };
        ensure!(answer.is_hit() && answer.is_pattern(bytes), "{condition}: {}", answer.head_text());
    }

    let after = client.process().memory_kb("VmHWM")?;
    println!("peak resident size before the ranges {before} kB, after them {after} kB");
    ensure!(after <= before + 4 * 1024, "{before} kB before, {after} kB after");
    ensure!(origin.count() == 1, "{} requests", origin.count());
    Ok(())
}
