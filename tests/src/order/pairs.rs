//! Pairs of requests that are sent before anything is read, on a runtime that waits for edges: tokio's.
//!
//! Who finds fewer bytes than it asked for waits for the next edge there, so that an answer that comes without one hangs.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::messages::{get, hot};
use super::origin::MISS;
use super::{Case, PATIENCE};
use crate::manners::{HOT, content};
use crate::wire::{Framing, Head};

/// How many connections there are at a time on each thread.
const AT_A_TIME: u64 = 32;

/// More than both answers of a pair, so that every read finds fewer bytes than it asked for.
const READ_BYTES: usize = 64 << 10;

/// Makes `tries` connections on each of `threads` threads, each with one pair, and prints the tally.
pub(super) fn run(case: Case, addr: SocketAddr, threads: u64, tries: u64) -> Result<()> {
    let workers = usize::try_from(threads)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let (next, all) = (Arc::new(AtomicU64::new(0)), threads * tries);
    let mut wrong: Vec<String> = Vec::new();
    let right = runtime.block_on(async {
        let tasks: Vec<_> =
            (0..threads * AT_A_TIME).map(|_| tokio::spawn(client(case, addr, next.clone(), all))).collect();
        let mut right = 0;
        for task in tasks {
            let (count, said) = task.await.context("a client panicked")?;
            right += count;
            wrong.extend(said);
        }
        Ok::<u64, anyhow::Error>(right)
    })?;
    writeln!(io::stdout(), "{}", json!({"right": right, "wrong": wrong}))?;
    Ok(())
}

/// Makes pairs until all are made or one is wrong; returns how many were right, and what was wrong.
async fn client(case: Case, addr: SocketAddr, next: Arc<AtomicU64>, all: u64) -> (u64, Option<String>) {
    let mut right = 0;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= all {
            return (right, None);
        }
        if let Err(error) = within(pair(case, addr, number)).await {
            return (right, Some(format!("pair {number}: {error:#}")));
        }
        right += 1;
    }
}

/// The watch-dog.
async fn within<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, what).await.context("hangs")?
}

async fn pair(case: Case, addr: SocketAddr, number: u64) -> Result<()> {
    let miss = format!("{MISS}{number}");
    let targets = if case == Case::HotThenMiss { [HOT, &miss] } else { [&miss, HOT] };
    let mut client = Client { stream: TcpStream::connect(addr).await?, held: Vec::new() };
    client.stream.set_nodelay(true)?;
    client.stream.write_all(&hot(addr)).await?;
    client.is_answered(HOT).await.context("the first request")?;

    for target in targets {
        client.stream.write_all(&get(target, addr)).await?;
    }
    for target in targets {
        client.is_answered(target).await.with_context(|| format!("of {targets:?}"))?;
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Client {
    async fn is_answered(&mut self, target: &str) -> Result<()> {
        let end = loop {
            match self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read().await.context("in a head")?,
            }
        };
        let head = Head::parse(&self.held[..end]);
        let Framing::Length(length) = head.response_framing("GET") else {
            bail!("framed otherwise: {head:?}")
        };
        let whole = end + usize::try_from(length)?;
        while self.held.len() < whole {
            self.read().await.context("in a body")?;
        }
        let body = &self.held[end..whole];
        ensure!(head.word(1) == "200" && body == content(target).as_bytes(), "{target}: {head:?}");
        self.held.drain(..whole);
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        let mut bytes = vec![0; READ_BYTES];
        let count = self.stream.read(&mut bytes).await?;
        ensure!(count > 0, "the end");
        self.held.extend_from_slice(&bytes[..count]);
        Ok(())
    }
}
