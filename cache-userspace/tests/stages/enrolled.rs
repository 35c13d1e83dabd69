//! Clients whose requests the kernel may answer: what the daemon says of their connections, and that it takes none for
//! silent, idle or finished that only has no business with the daemon.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_common::hot::{ConnectionRecord, NO_HITS, PIPELINES, Published};
use sidestep::config::Limits;
use sidestep::redirect::enrolled::Records;

use crate::simulated::{Client, Message, Node, Origin, StillClock, fresh, get, ok, settled};

/// What the kernel would keep of one connection.
#[derive(Default)]
pub(crate) struct Kernel {
    last_hit_ns: AtomicU64,
    pipelines: AtomicBool,
    published: Mutex<Vec<Published>>,
    is_forgotten: AtomicBool,
    has_left: AtomicBool,
}

impl Records for Kernel {
    fn record(&self, _cookie: u64) -> Option<ConnectionRecord> {
        let last_hit_ns = self.last_hit_ns.load(Ordering::SeqCst);
        let flags = if self.pipelines.load(Ordering::SeqCst) { PIPELINES } else { 0 };
        Some(ConnectionRecord { last_hit_ns, flags, ..ConnectionRecord::default() })
    }

    fn publish(&self, _cookie: u64, published: &Published) -> bool {
        self.published.lock().unwrap().push(*published);
        true
    }

    fn leave(&self, _cookie: u64) -> bool {
        self.has_left.store(true, Ordering::SeqCst);
        true
    }

    fn forget(&self, _cookie: u64) {
        self.is_forgotten.store(true, Ordering::SeqCst);
    }
}

impl Kernel {
    /// The kernel answers a request now.
    fn hit(&self) {
        self.last_hit_ns.store(sidestep::clock::boot().as_nanos() as u64, Ordering::SeqCst);
    }

    /// The kernel answered last so long ago.
    fn hit_before(&self, ago: Duration) {
        let at = sidestep::clock::boot().saturating_sub(ago).max(Duration::from_nanos(1));
        self.last_hit_ns.store(at.as_nanos() as u64, Ordering::SeqCst);
    }

    fn last_published(&self) -> Published {
        self.published.lock().unwrap().last().copied().unwrap_or_default()
    }
}

/// Bytes of an answer with a Content-Length, as we write them.
fn bytes_of(answer: &Message) -> usize {
    let fields = answer.fields.iter().map(|(name, value)| name.len() + value.len() + 4);
    answer.start.len() + 2 + fields.sum::<usize>() + 2 + answer.content.len()
}

async fn client(node: &Node) -> (Client, Arc<Kernel>) {
    let kernel = Arc::new(Kernel::default());
    (node.enrolled_client(kernel.clone()).await, kernel)
}

#[tokio::test]
async fn what_is_published_are_the_bytes_of_whole_messages_and_of_their_answers() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut client, kernel) = client(&node).await;

    let request = get("/a");
    client.send(&request).await;
    let mut server = origin.connection().await;
    server.request().await;
    assert_eq!(kernel.last_published(), Published::default(), "nothing is answered yet");
    server.send(fresh("a")).await;
    let first = bytes_of(&client.response("GET").await);
    node.reaches(|_| kernel.last_published().answered == request.len() as u64).await;
    assert_eq!(kernel.last_published().written, first as u64);

    // Two at once: what is read ahead is not answered.
    client.send(format!("{request}{}", get("/b"))).await;
    let second = bytes_of(&client.response("GET").await);
    assert_eq!(server.request().await.target(), "/b");
    node.reaches(|_| kernel.last_published().answered == 2 * request.len() as u64).await;
    assert_eq!(kernel.last_published().written, (first + second) as u64);
    server.send(ok("", "b")).await;
    let third = bytes_of(&client.response("GET").await);
    node.reaches(|_| kernel.last_published().answered == 3 * request.len() as u64).await;
    assert_eq!(
        kernel.last_published(),
        Published {
            cookie: 1,
            answered: 3 * request.len() as u64,
            written: (first + second + third) as u64,
            flags: 0
        }
    );

    client.close().await;
    assert!(kernel.is_forgotten.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_connection_on_which_the_kernel_answers_is_not_idle() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut client, kernel) = client(&node).await;
    client.get_from_new(&origin, "/a", &fresh("a")).await;

    for _ in 0..3 {
        kernel.hit();
        clock.pass(Limits::default().downstream_idle).await;
        assert!(!client.is_over());
    }
    kernel.hit_before(Limits::default().downstream_idle * 2);
    clock.pass(Limits::default().downstream_idle * 2).await;

    assert!(client.is_over());
    assert_eq!(kernel.last_published().flags, NO_HITS, "said before it was closed");
}

#[tokio::test]
async fn a_client_that_is_silent_because_the_kernel_answers_makes_nobody_be_asked() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut client, kernel) = client(&node).await;

    kernel.hit();
    clock.pass(Limits::default().sniff_silence * 5).await;
    assert_eq!(node.figures().upstream_connections, 0);

    assert_eq!(client.get_from_new(&origin, "/a", &fresh("a")).await.text(), "a");
    assert_eq!((node.figures().passthrough_opaque, node.figures().bypass_taught), (0, 0));
}

#[tokio::test]
async fn what_a_server_says_to_a_silent_client_is_not_for_one_that_has_had_hits_meanwhile() {
    let clock = StillClock::begin();
    for said in ["", "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", "220 mail.test\r\n"] {
        let origin = Origin::new().await;
        let node = Node::before(&origin);
        let (mut client, kernel) = client(&node).await;
        clock.pass_until(|| node.figures().upstream_connections == 1).await;
        let mut server = origin.connection().await;

        kernel.hit();
        server.send(said).await;
        drop(server);
        settled().await;

        assert_eq!(client.get_from_new(&origin, "/a", &fresh("a")).await.text(), "a", "{said:?}");
        assert_eq!(node.figures().bypass_taught, 0, "{said:?}");
    }
}

#[tokio::test]
async fn a_client_that_ends_after_hits_only_makes_nobody_be_asked() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (client, kernel) = client(&node).await;
    kernel.hit();
    client.close().await;
    assert_eq!(node.figures().upstream_connections, 0);
}

#[tokio::test]
async fn a_client_that_sent_while_an_answer_of_the_kernel_was_unread_waits_once() {
    let clock = StillClock::begin();
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut client, kernel) = client(&node).await;
    client.get_from_new(&origin, "/a", &fresh("a")).await;

    kernel.pipelines.store(true, Ordering::SeqCst);
    client.send(get("/a")).await;
    settled().await;
    assert_eq!(node.figures().hits, 0, "not answered at once");
    clock.pass(Duration::from_millis(400)).await;
    assert!(client.response("GET").await.is_hit());

    client.send(get("/a")).await;
    assert!(client.response("GET").await.is_hit(), "at once, the clock standing still");
}

#[tokio::test]
async fn a_large_answer_is_for_plain_tcp_and_nothing_is_said_of_the_connection_from_then_on() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let large = "x".repeat(3000);
    let mut server = None;
    for chunked in [false, true] {
        let (mut client, kernel) = client(&node).await;
        client.send(get(if chunked { "/small/1" } else { "/small/0" })).await;
        if server.is_none() {
            server = Some(origin.connection().await);
        }
        let server = server.as_mut().unwrap();
        server.request().await;
        server.send(ok("Cache-Control: no-store\r\n", "small")).await;
        client.response("GET").await;
        assert!(!kernel.has_left.load(Ordering::SeqCst), "an answer that is read at once changes nothing");

        client.send(get("/large")).await;
        server.request().await;
        let said = kernel.published.lock().unwrap().len();
        let answer = match chunked {
            false => ok("Cache-Control: no-store\r\n", &large),
            true => {
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nbb8\r\n{large}\r\n0\r\n\r\n")
            }
        };
        server.send(answer).await;
        assert_eq!(client.response("GET").await.content.len(), large.len());
        assert!(kernel.has_left.load(Ordering::SeqCst), "chunked: {chunked}");
        client.send(get("/small")).await;
        server.request().await;
        server.send(ok("Cache-Control: no-store\r\n", "small")).await;
        client.response("GET").await;
        client.close().await;
        assert_eq!(kernel.published.lock().unwrap().len(), said);
    }
}

#[tokio::test]
async fn a_large_answer_to_a_client_that_pipelines_comes_where_its_earlier_one_may_be_unread() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut client, kernel) = client(&node).await;
    kernel.pipelines.store(true, Ordering::SeqCst);
    client.send(get("/large")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(fresh(&"x".repeat(3000))).await;
    client.response("GET").await;
    assert!(!kernel.has_left.load(Ordering::SeqCst));
    client.close().await;
}
