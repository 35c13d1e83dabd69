//! Bytes relayed untouched in both directions, half-closes and resets mirrored.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Downstream;
use super::next::Relay;
use crate::accept::netns::reset;
use crate::forward::Upstream;
use crate::stream::{READ_BYTES, WriteQueue, read_more, shutdown_write};

/// Bytes buffered in each direction.
const RELAY_BYTES: usize = 16 * 1024;
/// How long, and how many bytes, a closing connection still takes from its client.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

impl Downstream {
    /// Relays the rest of the connection to an upstream connection of its own.
    pub(super) async fn relay(self, kind: Relay) {
        let counters = &self.path.counters;
        match kind {
            Relay::ProxyForm => {
                counters.passthrough_absolute_form.incr();
                counters.bypass_taught.incr();
                self.path.bypass.opaque(self.connection.workload.id, self.connection.destination);
            }
            Relay::Tunnel => counters.passthrough_tunnel.incr(),
            Relay::Malformed(why) => {
                tracing::debug!(why, "relayed untouched");
                counters.passthrough_malformed.incr();
            }
        }
        match self.path.dial(&self.connection).await {
            Ok(upstream) => self.relay_to(upstream).await,
            Err(_) => reset(self.stream),
        }
    }

    /// Relays the rest of the connection to this one.
    pub(super) async fn relay_to(self, upstream: Upstream) {
        relay(self.stream, self.buffer, upstream).await;
    }
}

/// Relays between a client, of whom `from_client` was read already, and an upstream connection until both ended.
pub async fn relay(mut client: TcpStream, from_client: BytesMut, upstream: Upstream) {
    let Upstream { stream: mut server, buffer: from_server, .. } = upstream;
    if exchange(&mut client, from_client, &mut server, from_server).await.is_err() {
        reset(client);
        reset(server);
    }
}

async fn exchange(
    client: &mut TcpStream,
    from_client: BytesMut,
    server: &mut TcpStream,
    from_server: BytesMut,
) -> io::Result<()> {
    let (mut up, mut down) = (WriteQueue::default(), WriteQueue::default());
    up.push(from_client.freeze());
    down.push(from_server.freeze());
    tokio::try_join!(up.flush(server), down.flush(client))?;
    copy_bidirectional_with_sizes(client, server, RELAY_BYTES, RELAY_BYTES).await?;
    Ok(())
}

/// Ends our side and reads what the client still sends, for a moment.
pub async fn linger(client: &TcpStream, buffer: &mut BytesMut) {
    shutdown_write(client);
    let drained = async {
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            buffer.clear();
            match read_more(client, buffer, READ_BYTES).await {
                Ok(count) if count > 0 => total += count,
                _ => return,
            }
        }
    };
    // The bound is the outcome: after it the connection closes whatever the client does.
    let _ = timeout(LINGER, drained).await;
}
