//! What an exchange makes of a connection that is not what it was.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::upload::RequestBody;
use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

fn request(bytes: &[u8]) -> RequestHead {
    let Parsed::Complete(head) = RequestHead::take(&mut BytesMut::from(bytes), &mut 0, 4096) else {
        panic!()
    };
    head
}

fn upstream(stream: TcpStream, is_reused: bool) -> Upstream {
    Upstream {
        stream,
        buffer: BytesMut::new(),
        dialled_at: crate::clock::boot(),
        is_reused,
        is_pinned: false,
        is_doubtful: false,
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn an_answer_that_was_there_before_the_request_is_not_its_answer() {
    let request = request(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    let (client, _far) = pair().await;
    let (near, mut origin) = pair().await;
    origin.write_all(ANSWER).await.unwrap();
    near.readable().await.unwrap();
    let mut buffer = BytesMut::from(&b"body"[..]);
    let body = RequestBody::new(&client, &mut buffer, request.framing);
    let head = request.raw.clone();
    let mut exchange = Exchange::new(upstream(near, true), Upload::new(body, head.clone()), 4096);

    let answer = exchange.answer(&request).await;

    assert!(matches!(answer, Err(ForwardError::Closed)), "{answer:?}");
    assert!(exchange.is_unsent());

    // Nothing was sent: even this request, its content included, may go out on another connection.
    let (near, mut origin) = pair().await;
    origin.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    exchange.restart(upstream(near, false), head.clone());
    let answered = async {
        let mut received = vec![0; head.len() + 4];
        origin.read_exact(&mut received).await.unwrap();
        origin.write_all(ANSWER).await.unwrap();
        received
    };
    let (answer, received) = tokio::join!(exchange.answer(&request), answered);

    assert!(matches!(answer, Ok(Answer::Head(head)) if head.status == 200));
    assert!(received.ends_with(b"\r\n\r\nbody"));
}

#[tokio::test]
async fn a_request_of_which_an_interim_answer_came_is_not_sent_again() {
    let request = request(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let (client, _far) = pair().await;
    let (near, mut origin) = pair().await;
    let mut buffer = BytesMut::new();
    let body = RequestBody::new(&client, &mut buffer, request.framing);
    let mut exchange = Exchange::new(upstream(near, true), Upload::new(body, request.raw.clone()), 4096);
    let hints = async {
        let mut received = vec![0; request.raw.len()];
        origin.read_exact(&mut received).await.unwrap();
        origin.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.unwrap();
        drop(origin);
    };

    let (answer, ()) = tokio::join!(exchange.answer(&request), hints);

    assert!(matches!(answer, Err(ForwardError::Closed)), "{answer:?}");
    assert!(!exchange.may_restart() && !exchange.is_unsent());
}

/// Whether the kernel acknowledges at once on the connection of a GET and its answer of so many bytes.
async fn acknowledges_after(content: usize) -> bool {
    let request = request(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let (client, _far) = pair().await;
    let (near, mut origin) = pair().await;
    let mut buffer = BytesMut::new();
    let body = RequestBody::new(&client, &mut buffer, request.framing);
    let mut exchange = Exchange::new(upstream(near, true), Upload::new(body, request.raw.clone()), 4096);
    let answers = async {
        origin.read_exact(&mut vec![0; request.raw.len()]).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {content}\r\n\r\n");
        origin.write_all(head.as_bytes()).await.unwrap();
        origin.write_all(&vec![b'x'; content]).await.unwrap();
    };
    let reads = async {
        exchange.answer(&request).await.unwrap();
        while !exchange.is_done() {
            while exchange.buffered().unwrap().is_some() {}
            if !exchange.is_done() {
                exchange.more().await.unwrap();
            }
        }
    };
    tokio::join!(answers, reads);
    exchange.upstream.stream.set_quickack(false).unwrap();
    exchange.into_reusable().unwrap().stream.quickack().unwrap()
}

#[tokio::test]
async fn a_large_answer_is_acknowledged_before_the_connection_waits_for_another() {
    assert!(acknowledges_after(1 << 20).await);
    // Not worth a packet: it is over before its sender learns anything from it.
    assert!(!acknowledges_after(1000).await);
}
