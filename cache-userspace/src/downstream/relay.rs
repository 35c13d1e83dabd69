//! Bytes relayed untouched in both directions, half-closes and resets mirrored.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Downstream;
use super::next::Relay;
use crate::accept::netns::reset;
use crate::forward::Upstream;
use crate::stream::{READ_BYTES, WriteQueue, read_more, shutdown_write};

/// Bytes buffered in each direction.
const RELAY_BYTES: usize = 16 * 1024;
/// How long a relay whose one direction has ended waits for bytes of the other.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(600);
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
pub async fn relay(client: TcpStream, from_client: BytesMut, upstream: Upstream) {
    let Upstream { stream: server, buffer: from_server, .. } = upstream;
    let (client_ended, server_ended) = (Notify::new(), Notify::new());
    let up = pump(&client, &server, from_client, &client_ended, &server_ended);
    let down = pump(&server, &client, from_server, &server_ended, &client_ended);
    if tokio::try_join!(up, down).is_err() {
        reset(client);
        reset(server);
    }
}

/// Copies one direction, beginning with what was read already, and mirrors its end.
///
/// Once the other direction has ended, silence ends this one too: a peer that closed both of its sides at once looks
/// like one that closed only its own, and the kernel would have forgotten it after a while as well.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    first: BytesMut,
    ended: &Notify,
    other_ended: &Notify,
) -> io::Result<()> {
    let mut queue = WriteQueue::default();
    queue.push(first.freeze());
    let mut is_alone = false;
    loop {
        queue.flush(to).await?;
        // Allocated anew when bytes are there: an idle relay keeps no buffer.
        let mut buffer = BytesMut::new();
        tokio::select! {
            biased;
            read = read_more(from, &mut buffer, RELAY_BYTES) => {
                if read? == 0 {
                    shutdown_write(to);
                    ended.notify_one();
                    return Ok(());
                }
                queue.push(buffer.freeze());
            }
            () = other_ended.notified(), if !is_alone => is_alone = true,
            () = sleep(HALF_CLOSED_IDLE), if is_alone => return Ok(()),
        }
    }
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
