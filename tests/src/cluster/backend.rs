//! A service of the cluster that changes its mind: about what it answers, and about whom.

use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::origin::{After, Answer, Origin, Request};

/// How somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As a proxy that reads HTTP does: 403.
    Forbidden,
    /// As one does that knows connections only: it ends them.
    Closed,
    /// As an Envoy does that cannot reach anybody: with a 503 of its own.
    Unavailable,
}

#[derive(Debug, Default)]
struct Mind {
    version: u32,
    refused: HashMap<IpAddr, Refusal>,
}

/// An origin all of whose answers are fresh for ten minutes, have an ETag, and tell the version that gave them.
#[derive(Debug)]
pub struct Backend {
    /// What reached it.
    pub origin: Origin,
    mind: Arc<Mutex<Mind>>,
}

impl Backend {
    /// Answers as version 1, to everybody.
    pub fn on(listener: TcpListener) -> Result<Self> {
        let mind = Arc::new(Mutex::new(Mind { version: 1, ..Mind::default() }));
        let asked = mind.clone();
        let origin = Origin::http_on(listener, move |request| lock(&asked).answer(request))?;
        Ok(Self { origin, mind })
    }

    /// Answers as this version from now on.
    pub fn becomes(&self, version: u32) {
        lock(&self.mind).version = version;
    }

    /// Refuses whoever comes from there.
    pub fn refuse(&self, peer: IpAddr, how: Refusal) {
        lock(&self.mind).refused.insert(peer, how);
    }

    /// Takes that back.
    pub fn admit(&self, peer: IpAddr) {
        lock(&self.mind).refused.remove(&peer);
    }

    /// How many requests came from there.
    pub fn asked_by(&self, peer: IpAddr) -> usize {
        self.origin.requests().iter().filter(|request| request.peer().ip() == peer).count()
    }
}

fn lock(mind: &Mutex<Mind>) -> MutexGuard<'_, Mind> {
    mind.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mind {
    fn answer(&self, request: &Request) -> Answer {
        match self.refused.get(&request.peer().ip()) {
            Some(Refusal::Forbidden) => return Answer::status("403 Forbidden", "no"),
            Some(Refusal::Closed) => return Answer::raw("").then(After::Close),
            Some(Refusal::Unavailable) => {
                return Answer::status("503 Service Unavailable", "no healthy upstream")
                    .field("server", "envoy");
            }
            None => {}
        }
        let tag = format!("\"v{}\"", self.version);
        let answer = match request.field("if-none-match") {
            Some(tags) if tags.contains(&tag) => Answer::bare("304 Not Modified"),
            _ => Answer::ok(format!("v{}", self.version)),
        };
        answer.field("ETag", tag).max_age(600)
    }
}
