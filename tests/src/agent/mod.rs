//! A client inside the cached cgroup, driven from the test one order at a time.
//!
//! The agent is a process of its own because redirection belongs to a cgroup, not to a thread. How it gets
//! into the cgroup is left to [`crate::exec`] and [`crate::node`].

pub mod serve;

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::io::Write;
use std::net::SocketAddr;
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::hex;
use crate::process::Process;
use crate::response::Response;
use crate::wait::PATIENCE;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    orders: RefCell<Option<ChildStdin>>,
    pid: u32,
}

/// What came back when bytes were read without regard to HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// `open`, `eof`, `reset`, `timeout`, or `broken: …`.
    pub end: String,
}

impl fmt::Debug for Received {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<u8> = self.bytes.iter().copied().take(400).collect();
        write!(out, "{}: {} bytes \"{}\"", self.end, self.bytes.len(), shown.escape_ascii())
    }
}

impl Agent {
    /// Takes over a process that runs `probe agent`, directly or as the command of `sidestep exec`.
    pub fn over(mut process: Process) -> Result<Self> {
        let orders = RefCell::new(process.take_stdin());
        let agent = Self { process, orders, pid: 0 };
        let hello = agent.answer(PATIENCE)?;
        let pid = hello["ready"].as_u64().with_context(|| format!("not an agent: {hello}"))?;
        Ok(Self { pid: u32::try_from(pid)?, ..agent })
    }

    /// The agent's own process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process that was started: the agent, or `sidestep exec` around it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Lets the agent end by closing its standard input, and returns the process to wait for.
    pub fn dismiss(self) -> Process {
        self.orders.borrow_mut().take();
        self.process
    }

    /// Connects; the error holds the word for why not (`refused`, `unreachable`, `timeout`, `reset`).
    pub fn connect(&self, addr: impl Display) -> Result<Connection<'_>> {
        self.connect_through(addr, None)
    }

    /// Connects with the socket bound to a network device.
    pub fn connect_through(&self, addr: impl Display, device: Option<&str>) -> Result<Connection<'_>> {
        match self.try_connect(&addr, device, Duration::from_secs(20))? {
            Ok(connection) => Ok(connection),
            Err(word) => bail!("connect to {addr}: {word}"),
        }
    }

    /// Connects within a time; the inner error is the word for why not.
    pub fn try_connect(
        &self,
        addr: impl Display,
        device: Option<&str>,
        timeout: Duration,
    ) -> Result<Result<Connection<'_>, String>> {
        let timeout_ms = u64::try_from(timeout.as_millis())?;
        let order = json!({
            "do": "connect", "addr": addr.to_string(), "device": device, "timeout_ms": timeout_ms,
        });
        let answer = self.order(&order)?;
        if let Some(word) = answer["error"].as_str() {
            return Ok(Err(word.to_owned()));
        }
        let id = answer["id"].as_u64().context("no connection id")?;
        Ok(Ok(Connection { agent: self, id, host: addr.to_string() }))
    }

    /// One GET on a connection of its own.
    pub fn get(&self, addr: impl Display, target: &str) -> Result<Response> {
        self.connect(addr)?.get(target)
    }

    fn order(&self, order: &Value) -> Result<Value> {
        {
            let mut orders = self.orders.borrow_mut();
            let pipe = orders.as_mut().context("the agent was dismissed")?;
            writeln!(pipe, "{order}").context("the agent is gone")?;
        }
        let answer = self.answer(Duration::from_secs(120))?;
        match answer["failed"].as_str() {
            Some(why) => bail!("{order}: {why}"),
            None => Ok(answer),
        }
    }

    fn answer(&self, timeout: Duration) -> Result<Value> {
        let line = self.process.line(timeout)?;
        serde_json::from_str(&line).with_context(|| format!("not an agent's answer: {line}"))
    }
}

/// One connection of an agent; closed when dropped.
#[derive(Debug)]
pub struct Connection<'a> {
    agent: &'a Agent,
    id: u64,
    host: String,
}

impl Connection<'_> {
    /// Sends exact bytes.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.sent(json!({"do": "send", "id": self.id, "bytes": hex::encode(bytes.as_ref())}))
    }

    /// Sends exact bytes in pieces of `piece` bytes, each in a segment of its own.
    pub fn send_in_pieces(&self, bytes: impl AsRef<[u8]>, piece: usize) -> Result<()> {
        let bytes = hex::encode(bytes.as_ref());
        self.sent(json!({"do": "send", "id": self.id, "bytes": bytes, "piece": piece}))
    }

    /// Sends bytes and says `ok`, or the word for why it could not.
    pub fn try_send(&self, bytes: impl AsRef<[u8]>) -> Result<String> {
        let order = json!({"do": "send", "id": self.id, "bytes": hex::encode(bytes.as_ref())});
        let answer = self.agent.order(&order)?;
        Ok(answer["error"].as_str().unwrap_or("ok").to_owned())
    }

    /// Sends content of the given length made by [`crate::pattern`], chunked where a chunk size is given.
    pub fn send_pattern(&self, length: u64, chunk: Option<usize>) -> Result<()> {
        self.sent(json!({"do": "send_pattern", "id": self.id, "length": length, "piece": chunk}))
    }

    fn sent(&self, order: Value) -> Result<()> {
        let answer = self.agent.order(&order)?;
        match answer["error"].as_str() {
            Some(word) => bail!("send: {word}"),
            None => Ok(()),
        }
    }

    /// Reads the response to a GET.
    pub fn response(&self) -> Result<Response> {
        self.response_to("GET")
    }

    /// Reads the response to a request with this method, for whose sake the framing differs.
    pub fn response_to(&self, method: &str) -> Result<Response> {
        self.response_within(method, PATIENCE)
    }

    /// Reads the response, giving up when nothing comes for `timeout`.
    pub fn response_within(&self, method: &str, timeout: Duration) -> Result<Response> {
        let timeout_ms = u64::try_from(timeout.as_millis())?;
        let order = json!({"do": "response", "id": self.id, "method": method, "timeout_ms": timeout_ms});
        Response::from_json(&self.agent.order(&order)?)
    }

    /// Sends a GET with nothing but Host, and reads the response.
    pub fn get(&self, target: &str) -> Result<Response> {
        self.get_with(target, "")
    }

    /// Sends a GET with Host and these field lines (each ending in CRLF), and reads the response.
    pub fn get_with(&self, target: &str, fields: &str) -> Result<Response> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.host))?;
        self.response()
    }

    /// Sends exact bytes, then reads the response to a request with this method.
    pub fn exchange(&self, method: &str, bytes: impl AsRef<[u8]>) -> Result<Response> {
        self.send(bytes)?;
        self.response_to(method)
    }

    /// Reads exactly `n` bytes, or says why they did not come.
    pub fn exact(&self, n: usize) -> Result<Received> {
        self.received(&json!({"do": "exact", "id": self.id, "n": n}))
    }

    /// Reads until the peer closes or resets.
    pub fn rest(&self) -> Result<Received> {
        self.rest_within(PATIENCE)
    }

    /// Reads until the peer closes, resets, or is silent for `timeout`.
    pub fn rest_within(&self, timeout: Duration) -> Result<Received> {
        let timeout_ms = u64::try_from(timeout.as_millis())?;
        self.received(&json!({"do": "rest", "id": self.id, "timeout_ms": timeout_ms}))
    }

    fn received(&self, order: &Value) -> Result<Received> {
        let answer = self.agent.order(order)?;
        let bytes = hex::decode(answer["bytes"].as_str().context("no bytes")?)?;
        Ok(Received { bytes, end: answer["end"].as_str().context("no end")?.to_owned() })
    }

    /// What getpeername and getsockname say.
    pub fn names(&self) -> Result<(SocketAddr, SocketAddr)> {
        let answer = self.agent.order(&json!({"do": "names", "id": self.id}))?;
        let name = |key: &str| answer[key].as_str().with_context(|| format!("no {key}"));
        Ok((name("peer")?.parse()?, name("local")?.parse()?))
    }

    /// Closes the sending side only.
    pub fn finish_sending(&self) -> Result<()> {
        self.sent(json!({"do": "finish_sending", "id": self.id}))
    }

    /// Closes with a reset.
    pub fn reset(&self) -> Result<()> {
        self.sent(json!({"do": "reset", "id": self.id}))
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // An agent that is gone has closed its connections.
        let _ = self.agent.order(&json!({"do": "forget", "id": self.id}));
    }
}
