//! The agent's own side: carries out one order a line from standard input, answers each with one line.
//!
//! It has one thread and ends with its standard input, so that nothing of it outlives its test.

use std::collections::HashMap;
use std::io::{self, BufRead, ErrorKind, Write};
use std::process;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::hex;

/// Serves until standard input ends.
pub fn serve() -> Result<()> {
    let mut agent = Agent::default();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", json!({"ready": process::id()}))?;
    for line in io::stdin().lock().lines() {
        let order: Value = serde_json::from_str(&line?)?;
        let answer = agent.carry_out(&order).unwrap_or_else(|error| json!({"failed": format!("{error:#}")}));
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

#[derive(Default)]
struct Agent {
    connections: HashMap<u64, Connection>,
    last: u64,
}

impl Agent {
    fn carry_out(&mut self, order: &Value) -> Result<Value> {
        let word = |name: &str| order[name].as_str().with_context(|| format!("no {name}"));
        let timeout = Duration::from_millis(order["timeout_ms"].as_u64().unwrap_or(20_000));
        let piece = order["piece"].as_u64().map(|n| n as usize);
        match word("do")? {
            "connect" => {
                let addr = word("addr")?.parse()?;
                return Ok(match Connection::open(addr, order["device"].as_str(), timeout) {
                    Ok(connection) => {
                        self.last += 1;
                        self.connections.insert(self.last, connection);
                        json!({"id": self.last})
                    }
                    Err(error) => refusal(&error),
                });
            }
            "forget" => {
                self.connections.remove(&id_of(order)?);
                return Ok(json!({}));
            }
            "reset" => {
                let connection = self.connections.remove(&id_of(order)?).context("no such connection")?;
                return Ok(done(connection.reset()));
            }
            _ => {}
        }
        let connection = self.connections.get_mut(&id_of(order)?).context("no such connection")?;
        Ok(match word("do")? {
            "names" => {
                let (peer, local) = connection.names()?;
                json!({"peer": peer.to_string(), "local": local.to_string()})
            }
            "send" => done(connection.send(&hex::decode(word("bytes")?)?, piece)),
            "send_pattern" => {
                done(connection.send_pattern(order["length"].as_u64().context("no length")?, piece))
            }
            "response" => connection.response(word("method")?, timeout).to_json(),
            "exact" => {
                let n = order["n"].as_u64().context("no n")? as usize;
                match connection.exact(n, timeout) {
                    Ok(bytes) => json!({"bytes": hex::encode(&bytes), "end": "open"}),
                    Err(end) => json!({"bytes": "", "end": end.to_string()}),
                }
            }
            "rest" => {
                let (bytes, end) = connection.rest(timeout);
                json!({"bytes": hex::encode(&bytes), "end": end.to_string()})
            }
            "finish_sending" => done(connection.finish_sending()),
            other => bail!("unknown order {other}"),
        })
    }
}

fn id_of(order: &Value) -> Result<u64> {
    order["id"].as_u64().context("no id")
}

fn done(result: io::Result<()>) -> Value {
    match result {
        Ok(()) => json!({}),
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &io::Error) -> Value {
    let word = match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
        _ => "other",
    };
    json!({"error": word, "text": error.to_string()})
}
