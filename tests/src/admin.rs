//! The admin socket, asked as any program would ask it: HTTP over a unix socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::wire::Reader;

/// GETs a path from an admin socket and returns the JSON of its 200.
pub fn get(socket: &Path, path: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut reader = Reader::new(stream);
    let head = reader.head().map_err(|end| anyhow::anyhow!("admin socket: {end}"))?;
    ensure!(head.word(1) == "200", "{path}: {}", head.text());
    let mut body = Vec::new();
    let framing = head.response_framing("GET");
    let read = reader.body(framing, &mut |bytes| body.extend_from_slice(bytes));
    ensure!(read.is_ok(), "{path}: cut short");
    serde_json::from_slice(&body).with_context(|| format!("{path}: {}", String::from_utf8_lossy(&body)))
}
