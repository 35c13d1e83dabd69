//! reqwest on the multi-threaded runtime of tokio, which polls edge-triggered: a client as `fixtures/README.md`
//! describes them.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::replay;
use reqwest::header::IF_NONE_MATCH;
use reqwest::{Client, Response};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut words = env::args().skip(1);
    let (base, rounds) = (words.next().context("no base URL")?, words.next().context("no rounds")?);
    let targets: Vec<String> = words.collect();
    let client = Client::builder().timeout(PATIENCE).build()?;
    let mut out = io::stdout().lock();
    for _ in 0..rounds.parse::<u32>()? {
        for target in &targets {
            let path = target.split('=').next().unwrap_or_default();
            let mut request = client.get(format!("{base}{path}"));
            if let Some((_, tag)) = target.split_once('=') {
                request = request.header(IF_NONE_MATCH, tag);
            }
            print(&mut out, target, request.send().await?).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(out: &mut impl Write, target: &str, response: Response) -> Result<()> {
    let (status, fields) = (response.status().as_u16(), response.headers().clone());
    write!(out, "{target}\t{status}\t{}", replay::digest(&response.bytes().await?))?;
    for (name, value) in &fields {
        write!(out, "\t{name}: {}", value.to_str()?)?;
    }
    Ok(writeln!(out)?)
}
