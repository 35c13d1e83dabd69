//! An origin that a test plays by hand: it accepts a connection, reads a request off it, sends what it likes.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::{Wire, within};

/// A listening origin.
pub(crate) struct Origin {
    listener: TcpListener,
}

impl Origin {
    /// On a free port of 127.0.0.1.
    pub(crate) async fn new() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap() }
    }

    /// One whose kernel buffers hold little, so that backpressure shows early.
    pub(crate) fn with_small_buffers() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { listener: socket.listen(128).unwrap() }
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection that is made to it.
    pub(crate) async fn connection(&self) -> Wire {
        let (stream, _) = within("a connection at the origin", self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Wire::new(stream)
    }
}
