//! A client that keeps its connection for as long as it may.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::shop::PROMISED;
use crate::agent::{Agent, Connection};
use crate::response::Response;
use crate::wait;

/// Requests after which a client that only repeats itself is answered inside the kernel, reconnections included.
const HEATING_MAX: usize = 400;

/// A client of one service, on one connection at a time.
#[derive(Debug)]
pub struct Caller<'a> {
    agent: &'a Agent,
    to: SocketAddr,
    connection: Option<Connection<'a>>,
    /// How often it has connected.
    pub connects: usize,
}

impl<'a> Caller<'a> {
    /// Calls from where the agent is; not connected yet.
    pub fn new(agent: &'a Agent, to: SocketAddr) -> Self {
        Self { agent, to, connection: None, connects: 0 }
    }

    /// One GET, on the connection there is or on a new one.
    pub fn get(&mut self, target: &str) -> Result<Response> {
        self.get_with(target, "")
    }

    /// The same, with further fields.
    pub fn get_with(&mut self, target: &str, fields: &str) -> Result<Response> {
        self.ask(&self.to.to_string(), target, fields)
    }

    /// The same, of whoever has this name there.
    pub fn get_of(&mut self, host: &str, target: &str) -> Result<Response> {
        self.ask(host, target, "")
    }

    fn ask(&mut self, host: &str, target: &str, fields: &str) -> Result<Response> {
        if self.connection.is_none() {
            self.connection = Some(self.agent.connect(self.to)?);
            self.connects += 1;
        }
        let connection = self.connection.as_ref().context("no connection")?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        let response = connection.exchange("GET", request)?;
        if response.closes() || !response.complete() {
            self.connection = None;
        }
        Ok(response)
    }

    /// Repeats a GET, each answered with this status, until its Cache-Status ends so; how long that took.
    pub fn is_told(&mut self, target: &str, status: u16, end: &str) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let response = self.get(target)?.expect(status)?;
            if response.cache_status().ends_with(end) {
                return Ok(begun.elapsed());
            }
            let said = response.cache_status();
            ensure!(begun.elapsed() < PROMISED, "{said} and not {end} after {PROMISED:?}");
        }
    }

    /// Repeats a GET until it is answered inside the kernel.
    pub fn heat(&mut self, target: &str) -> Result<Response> {
        let heated = wait::poll(wait::PATIENCE, "a hit inside the kernel", || {
            (0..HEATING_MAX).find_map(|_| match self.get(target) {
                Ok(response) if !response.is_by_kernel() => None,
                other => Some(other),
            })
        });
        heated?
    }
}
