//! Notices a proxy in a pod that nobody told us of.
//!
//! A mesh's proxy that takes a pod's connections takes ours too, as it must; if its own came here again, a request would
//! go round for ever. Proxies are known by the names of their containers; this is for those that are not. A connection of
//! ours that ends in the pod itself, at a socket of the pod's cgroup, has met one.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::sock_diag::cgroup_of_peer;
use crate::accept::netns::Netns;
use crate::redirect::cgroup::contains;

/// Destinations that are remembered to be reached without a proxy; more are looked at again each time.
const PROVEN_MAX: usize = 4096;

/// A pod of which it is not known whether an unknown proxy is in it.
pub struct Unproven {
    cgroup: PathBuf,
    proven: Mutex<HashSet<SocketAddr>>,
    alarm: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Unproven {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Unproven").field("cgroup", &self.cgroup).finish_non_exhaustive()
    }
}

impl Unproven {
    /// A pod with this cgroup; `alarm` makes its connections go direct before it returns.
    pub fn new(cgroup: PathBuf, alarm: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { cgroup, proven: Mutex::default(), alarm }
    }

    /// Looks whether a connection of ours to `destination`, which has the address `local`, ends at a socket of the pod;
    /// raises the alarm if so. To be asked before anything is sent on it.
    pub async fn prove(&self, netns: &Netns, destination: SocketAddr, local: SocketAddr) {
        // A pod that asks itself.
        if destination.ip() == local.ip() {
            return;
        }
        let is_proven = |proven: &HashSet<SocketAddr>| proven.contains(&destination);
        if is_proven(&self.proven.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let (netns, cgroup) = (netns.clone(), self.cgroup.clone());
        let looked = tokio::task::spawn_blocking(move || ends_within(&netns, &cgroup, local)).await;
        match looked {
            Ok(Ok(true)) => (self.alarm)(),
            Ok(Ok(false)) => {
                let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
                if proven.len() < PROVEN_MAX {
                    proven.insert(destination);
                }
            }
            // It is looked at again.
            Ok(Err(error)) => tracing::debug!(%error, "cannot look who answers in a pod"),
            Err(error) => tracing::debug!(%error, "cannot look who answers in a pod"),
        }
    }
}

fn ends_within(netns: &Netns, cgroup: &Path, local: SocketAddr) -> io::Result<bool> {
    let owner = netns.run(move || cgroup_of_peer(local))??;
    Ok(owner.is_some_and(|id| contains(cgroup, id)))
}
