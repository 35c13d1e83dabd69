//! An origin that a test plays by hand: it accepts a connection, reads a request off it, sends what it likes. Or one
//! that answers by itself, by a function.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::{End, Message, Wire, within};

/// A listening origin.
pub(crate) struct Origin {
    listener: Arc<TcpListener>,
}

impl Origin {
    /// On a free port of 127.0.0.1.
    pub(crate) async fn new() -> Self {
        Self { listener: Arc::new(TcpListener::bind(("127.0.0.1", 0)).await.unwrap()) }
    }

    /// One whose kernel buffers hold little, so that backpressure shows early.
    pub(crate) fn with_small_buffers() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { listener: Arc::new(socket.listen(128).unwrap()) }
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

/// What an origin sends for a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    /// The whole response, interim ones before it.
    pub(crate) bytes: Vec<u8>,
    /// Lengths of the writes, over and over; none for a single write.
    pub(crate) pieces: Vec<usize>,
    /// Whether the connection ends after it.
    pub(crate) closes: bool,
}

/// An origin that answers everything by itself until this is dropped, and remembers what came.
pub(crate) struct Answering {
    requests: Arc<Mutex<Vec<Message>>>,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Answers every whole request on every connection; what is none gets 400 and the end.
    pub(crate) fn answer(
        &self,
        reply: impl Fn(&Message) -> Reply + Clone + Send + Sync + 'static,
    ) -> Answering {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (listener, log) = (self.listener.clone(), requests.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(converse(Wire::new(stream), reply.clone(), log.clone()));
            }
        });
        Answering { requests, accepting }
    }
}

async fn converse(mut wire: Wire, reply: impl Fn(&Message) -> Reply, log: Arc<Mutex<Vec<Message>>>) {
    loop {
        let request = wire.any_request().await;
        match request.cut {
            None => {}
            Some(End::Nonsense) => {
                return wire
                    .send("HTTP/1.1 400 Bad Request\r\nX-From: origin\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
            Some(_) => return,
        }
        let Reply { bytes, pieces, closes } = reply(&request);
        log.lock().unwrap().push(request);
        wire.send_in_pieces(&bytes, &pieces).await;
        if closes {
            return;
        }
    }
}

impl Answering {
    /// Every whole request so far, in the order they came.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
