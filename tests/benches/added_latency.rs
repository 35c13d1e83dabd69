//! What a hit and a miss of the daemon cost beside a direct request: 1 KB from nginx on loopback, one connection that
//! stays open, rounds in turn, medians. Prints; judging is left to the reader, for the machine may be busy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::locate;
use harness::nginx::Nginx;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(700);
const WARM_UP: usize = 500;

/// How a request reaches nginx.
#[derive(Clone, Copy)]
struct Mode {
    name: &'static str,
    is_behind_cache: bool,
    path: &'static str,
}

const MODES: [Mode; 3] = [
    Mode { name: "direct to nginx", is_behind_cache: false, path: "/1k" },
    Mode { name: "hit of the daemon", is_behind_cache: true, path: "/1k" },
    Mode { name: "forwarded miss", is_behind_cache: true, path: "/u/1k" },
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, port, path] = words.as_slice()
        && word == "client"
    {
        return client(port.parse()?, path);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root: kernel hooks");
    }
    let Some(nginx) = Nginx::measured(&[("1k", vec![b'x'; 1024])])? else {
        bail!("needs nginx: cargo xtask setup --tests");
    };
    let mut medians = [const { Vec::new() }; MODES.len()];
    let mut tails = [const { Vec::new() }; MODES.len()];
    for round in 1..=ROUNDS {
        eprint!("\rround {round} of {ROUNDS} ");
        for (at, mode) in MODES.iter().enumerate() {
            let (p50, p99) = measure(mode, nginx.port())?;
            medians[at].push(p50);
            tails[at].push(p99);
        }
    }
    eprintln!();
    println!("1 KB, 1 connection kept alive, {ROUNDS} rounds in turn, medians of the rounds:");
    println!("{:<20}{:>10}{:>10}{:>22}", "", "p50", "p99", "p50 against direct");
    let direct = median(&mut medians[0].clone());
    for (at, mode) in MODES.iter().enumerate() {
        let (p50, p99) = (median(&mut medians[at]), median(&mut tails[at]));
        let against = format!("x{:.2}, {:+.1} µs", p50 / direct, p50 - direct);
        println!("{:<20}{p50:>7.1} µs{p99:>7.1} µs{against:>22}", mode.name);
    }
    println!("asked for: a hit at most x1.50, a miss at most +60 µs");
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs the client in a process of its own, behind the cache or not.
fn measure(mode: &Mode, port: u16) -> Result<(f64, f64)> {
    let own = std::env::current_exe()?;
    let mut command = if mode.is_behind_cache {
        let mut command = Command::new(locate::sidestep()?);
        command.args(["exec", "--port", &port.to_string(), "--"]).arg(own);
        command
    } else {
        Command::new(own)
    };
    let output = command.args(["client", &port.to_string(), mode.path]).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}: {text}{}", mode.name, String::from_utf8_lossy(&output.stderr));
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().context("no figure")?.context("not a figure");
    Ok((next()?, next()?))
}

/// Asks for one path over and over and prints the p50 and the p99 in microseconds.
fn client(port: u16, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n");
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..WARM_UP {
        exchange(&mut stream, request.as_bytes(), &mut buffer)?;
    }
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < ROUND {
        let asked = Instant::now();
        exchange(&mut stream, request.as_bytes(), &mut buffer)?;
        times.push(asked.elapsed().as_nanos() as f64 / 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!("{} {}", times[times.len() / 2], times[times.len() * 99 / 100]);
    Ok(())
}

/// One request and its whole answer, a head and 1024 bytes.
fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> Result<()> {
    stream.write_all(request)?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "the connection ended");
        filled += read;
        let head = buffer[..filled].windows(4).position(|end| end == b"\r\n\r\n");
        if head.is_some_and(|head| filled == head + 4 + 1024) {
            return Ok(());
        }
    }
}
