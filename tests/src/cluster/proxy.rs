//! The API without TLS: `kubectl proxy`, and one connection to it, for tests that make many objects.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::Connection;
use crate::process::Process;
use crate::{port, wait};

/// How long an answer may take on a busy machine.
const ANSWERING: Duration = Duration::from_secs(30);

/// A running proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    connection: RefCell<Connection>,
    _process: Process,
}

impl Proxy {
    /// Starts one for whoever the kubeconfig is of.
    pub(super) fn start(kubeconfig: &Path) -> Result<Self> {
        let port = port::unused()?;
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(kubeconfig).arg("proxy").arg(format!("--port={port}"));
        let mut process = Process::start(&mut command)?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let connection =
            wait::poll(wait::PATIENCE, "kubectl proxy", || Connection::open(addr, None, ANSWERING).ok());
        let connection = connection.with_context(|| process.errors_so_far())?;
        ensure!(process.running(), "kubectl proxy ended");
        Ok(Self { connection: RefCell::new(connection), _process: process })
    }

    /// Sends a request; its answer where that is a success.
    pub(super) fn send(&self, method: &str, path: &str, object: Option<&Value>) -> Result<Value> {
        let content = object.map(Value::to_string).unwrap_or_default();
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        let mut connection = self.connection.borrow_mut();
        connection.send(&[head.as_bytes(), content.as_bytes()].concat(), None)?;
        let answer = connection.response(method, ANSWERING);
        ensure!(
            (200..300).contains(&answer.status()),
            "{method} {path}: {} {}",
            answer.status(),
            answer.text()
        );
        Ok(serde_json::from_str(&answer.text())?)
    }
}
