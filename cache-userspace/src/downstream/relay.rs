//! Bytes relayed untouched in both directions, half-closes and resets mirrored.

use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Downstream;
use super::next::Relay;
use crate::accept::netns::reset;
use crate::forward::Upstream;
use crate::stream::{READ_BYTES, WriteQueue, gone, read_more, shutdown_write};

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
pub async fn relay(client: TcpStream, from_client: BytesMut, upstream: Upstream) {
    let Upstream { stream: server, buffer: from_server, .. } = upstream;
    let up = pump(&client, &server, from_client);
    let down = pump(&server, &client, from_server);
    let ended = {
        tokio::pin!(up, down);
        tokio::select! {
            ended = &mut up => match ended {
                Ok(()) => tokio::select! {
                    ended = down => ended,
                    () = gone(&client) => Err(Broken::From),
                },
                // What the server said before it hung up is the client's all the same.
                Err(Broken::To) => down.await.and(Err(Broken::To)),
                broken => broken,
            },
            ended = &mut down => match ended {
                Ok(()) => tokio::select! {
                    ended = up => ended,
                    () = gone(&server) => Err(Broken::From),
                },
                // Of a client that takes no more nothing else can come either.
                broken => broken.map_err(|_| Broken::From),
            },
        }
    };
    match ended {
        Ok(()) => {}
        // Closing at once would take what the client has not read yet.
        Err(Broken::To) => linger(&client, &mut BytesMut::new()).await,
        Err(Broken::From) => {
            reset(client);
            reset(server);
        }
    }
}

/// Which side of a direction broke.
enum Broken {
    /// The one that sends.
    From,
    /// The one that receives.
    To,
}

/// Copies one direction, beginning with what was read already, and mirrors its end.
async fn pump(from: &TcpStream, to: &TcpStream, first: BytesMut) -> Result<(), Broken> {
    let mut queue = WriteQueue::default();
    queue.push(first.freeze());
    loop {
        queue.flush(to).await.map_err(|_| Broken::To)?;
        // Allocated anew when bytes are there: an idle relay keeps no buffer.
        let mut buffer = BytesMut::new();
        if read_more(from, &mut buffer, RELAY_BYTES).await.map_err(|_| Broken::From)? == 0 {
            shutdown_write(to);
            return Ok(());
        }
        queue.push(buffer.freeze());
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
