//! One daemon after another on a node, without a moment in which a connection is lost: the one that ends sends new
//! connections direct before it lets go of its socket, and only then does the next one begin. What is open stays with
//! whom it began with.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::admin::client::{AdminClient, ClientError};

/// How long a daemon that was asked may take to let go.
const LETTING_GO_MAX: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);
/// How often is looked whether who took over is still there.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// After so many looks in vain it is not: one that takes over has no socket before its programs are loaded.
const LOOKS_IN_VAIN: u32 = 10;

/// Asks the daemon that answers at a socket, if one does, to let this process serve instead, and waits for it.
///
/// # Errors
/// Where it does not let go.
pub(super) async fn take_over(socket: &Path) -> anyhow::Result<()> {
    let client = AdminClient::new(socket);
    match client.hand_over().await {
        Ok(()) => tracing::info!(socket = %socket.display(), "takes over"),
        // Nobody is there.
        Err(ClientError::Unreachable { .. }) => return Ok(()),
        Err(error) => return Err(error).context("the daemon that serves this node does not hand over"),
    }
    let until = Instant::now() + LETTING_GO_MAX;
    while !matches!(client.health().await, Err(ClientError::Unreachable { .. })) {
        if Instant::now() >= until {
            bail!("the daemon that serves this node does not let go of {}", socket.display());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until nobody has been at a socket for some seconds.
pub(super) async fn abandoned(socket: &Path) {
    let client = AdminClient::new(socket);
    let mut in_vain = 0;
    while in_vain < LOOKS_IN_VAIN {
        sleep(LOOK_AFTER).await;
        // One that is slow to answer is there.
        let is_gone = matches!(client.health().await, Err(ClientError::Unreachable { .. }));
        in_vain = if is_gone { in_vain + 1 } else { 0 };
    }
}
