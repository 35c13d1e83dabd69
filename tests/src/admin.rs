//! The admin socket, asked as any program would ask it: HTTP over a unix socket; and other servers' ports of that kind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::wire::Reader;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// GETs a path from an admin socket and returns the JSON of its 200.
pub fn get(socket: &Path, path: &str) -> Result<Value> {
    let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let content = content(stream, path)?;
    serde_json::from_slice(&content).with_context(|| format!("{path}: {}", String::from_utf8_lossy(&content)))
}

/// GETs a path from a TCP port where a server speaks about itself, and returns the text of its 200.
pub fn text(stream: TcpStream, path: &str) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(String::from_utf8_lossy(&content(stream, path)?).into_owned())
}

fn content(mut stream: impl Read + Write, path: &str) -> Result<Vec<u8>> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut reader = Reader::new(stream);
    let head = reader.head().map_err(|end| anyhow!("admin socket: {end}"))?;
    ensure!(head.word(1) == "200", "{path}: {}", head.text());
    let mut body = Vec::new();
    let framing = head.response_framing("GET");
    let read = reader.body(framing, &mut |bytes| body.extend_from_slice(bytes));
    ensure!(read.is_ok(), "{path}: cut short");
    Ok(body)
}
