//! The admin server as its client sees it, over a real socket.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::super::ExposedServer;
use super::*;
use crate::admin::EnrolmentState;
use crate::admin::client::{AdminClient, ClientError};
use crate::admin::counters::Outcome;
use crate::admin::explain::RulesInForce;
use crate::admin::scratch::Scratch;

/// A daemon with one workload, whose kernel has seen as many connections as it was asked for its figures.
struct Fake(AtomicU64);

impl DaemonView for Fake {
    fn workloads(&self) -> Vec<WorkloadStatus> {
        vec![WorkloadStatus {
            name: "a".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            state: EnrolmentState::Pending,
            reason: "its cgroup is not there yet".to_owned(),
            cgroup: "/cg/a".into(),
            hooks: Vec::new(),
            kernel_hits: 0,
        }]
    }

    fn store(&self) -> StoreStatus {
        StoreStatus { bytes: 5, bytes_max: 10, entries: 1 }
    }

    fn explain(&self, question: &Question) -> Result<Explanation, BadQuestion> {
        question.read()?;
        let mut explanation = explanation();
        explanation.url.clone_from(&question.url);
        Ok(explanation)
    }

    fn acceleration(&self) -> Option<AccelerationStatus> {
        None
    }

    fn cluster(&self) -> Option<ClusterStatus> {
        None
    }

    fn fold_kernel_counters(&self, counters: &Counters) {
        counters.connections_redirected.follow(self.0.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

fn explanation() -> Explanation {
    Explanation {
        url: "http://a/".to_owned(),
        method: "GET".to_owned(),
        switch: Position::On,
        rules: RulesInForce {
            profile: "safe".to_owned(),
            resident_seconds_max: 60,
            object_bytes_max: 1,
            stale_while_revalidate_seconds: None,
            stale_if_error_seconds: None,
            stale_after: false,
            negative_seconds: vec![(404, 5)],
        },
        not_looked_up: None,
        keys: Vec::new(),
        is_complete: true,
        notes: vec!["a note".to_owned()],
    }
}

struct Daemon {
    client: AdminClient,
    counters: Arc<Counters>,
    switch: Arc<Switch>,
    task: JoinHandle<()>,
    dir: Scratch,
    handover: Option<Arc<Notify>>,
}

fn start() -> Daemon {
    start_with(Some(Arc::new(Notify::new())))
}

fn start_with(handover: Option<Arc<Notify>>) -> Daemon {
    let dir = Scratch::new();
    let path = dir.path().join("admin.sock");
    let (counters, switches) = (Arc::new(Counters::default()), Switches::new(dir.path(), &path));
    let state = AdminState {
        counters: Arc::clone(&counters),
        switches: switches.clone(),
        view: Box::new(Fake(AtomicU64::new(0))),
        handover: handover.clone(),
    };
    let task = tokio::spawn(AdminServer::bind(&path, Arc::new(state), 2).unwrap().run());
    let switch = switches.redirection;
    Daemon { client: AdminClient::new(&path), counters, switch, task, dir, handover }
}

#[tokio::test]
async fn who_is_to_take_over_is_told_and_so_is_the_daemon() {
    let daemon = start();
    daemon.client.hand_over().await.unwrap();
    let told = daemon.handover.as_ref().unwrap().notified();
    assert!(timeout(Duration::from_secs(5), told).await.is_ok());

    let daemon = start_with(None);
    let Err(ClientError::Refused { status, text, .. }) = daemon.client.hand_over().await else {
        panic!("not refused");
    };
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(text.contains("hands nothing over"), "{text}");
}

/// Sends a request as bytes, and returns all that comes.
async fn by_tcp(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn by_tcp_figures_and_health_are_told_and_nothing_else_and_nothing_is_changed() {
    let dir = Scratch::new();
    let path = dir.path().join("admin.sock");
    let state = AdminState {
        counters: Arc::new(Counters::default()),
        switches: Switches::new(dir.path(), &path),
        view: Box::new(Fake(AtomicU64::new(0))),
        handover: Some(Arc::new(Notify::new())),
    };
    let server = ExposedServer::bind("127.0.0.1:0".parse().unwrap(), Arc::new(state), 2).unwrap();
    let at = server.address().unwrap();
    let task = tokio::spawn(server.run());

    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let figures = by_tcp(at, &get("/metrics")).await;
    assert!(
        figures.starts_with("HTTP/1.1 200 OK\r\n") && figures.contains("sidestep_requests_total 0"),
        "{figures}"
    );
    assert!(by_tcp(at, &get("/healthz")).await.ends_with("\r\n\r\nok\n"));
    for (request, status) in [
        (get("/v1/status"), 404),
        (get("/v1/explain"), 404),
        (
            "PUT /v1/switch HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{\"state\":\"off\"}".to_owned(),
            404,
        ),
        ("POST /v1/handover HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned(), 404),
        ("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned(), 405),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let said = by_tcp(at, &request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {said}");
    }
    task.abort();
    let _ = task.await;
    assert!(TcpStream::connect(at).await.is_err(), "somebody still listens");
}

/// A heartbeat that follows the switch at once, for as long as the returned task lives.
fn heartbeat(switch: &Arc<Switch>) -> JoinHandle<()> {
    let switch = Arc::clone(switch);
    tokio::spawn(async move {
        loop {
            switch.took_effect(switch.poll());
            tokio::task::yield_now().await;
        }
    })
}

#[tokio::test]
async fn the_status_shows_the_daemon_its_workloads_its_figures_and_its_store() {
    let daemon = start();
    daemon.counters.record(Outcome::Hit);

    let status = daemon.client.status().await.unwrap();

    assert_eq!((status.pid, status.version.as_str()), (std::process::id(), env!("CARGO_PKG_VERSION")));
    assert_eq!(status.workloads, Fake(AtomicU64::new(0)).workloads());
    assert_eq!((status.counters["requests"], status.counters["hits"]), (1, 1));
    assert_eq!(status.counters["connections_redirected"], 1);
    assert_eq!(status.store, StoreStatus { bytes: 5, bytes_max: 10, entries: 1 });
}

#[tokio::test]
async fn a_switch_is_confirmed_when_the_heartbeat_follows() {
    let daemon = start();
    let heart = heartbeat(&daemon.switch);

    let off = daemon.client.switch(Subject::Redirection, Position::Off).await.unwrap();
    assert_eq!(off.state, Position::Off);
    assert_eq!(off.switched_off_by, Some(daemon.dir.path().join("admin.sock.off")));
    assert_eq!(daemon.client.status().await.unwrap().switch, Position::Off);

    let on = daemon.client.switch(Subject::Redirection, Position::On).await.unwrap();
    assert_eq!(on, SwitchAnswer { state: Position::On, switched_off_by: None });
    heart.abort();
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_the_kernel_does_not_follow_is_not_confirmed() {
    let daemon = start();
    daemon.switch.took_effect(true);
    let answer = daemon.client.switch(Subject::Redirection, Position::Off).await.unwrap();
    assert_eq!(answer.state, Position::On);
}

#[tokio::test]
async fn a_question_is_explained_and_a_bad_one_refused_with_the_reason() {
    let daemon = start();
    let ask = |url: &str| Question { url: url.to_owned(), method: "GET".to_owned(), ..Question::default() };

    assert_eq!(daemon.client.explain(&ask("http://a/")).await.unwrap(), explanation());

    let long = format!("http://a/?{}", "x".repeat(8000));
    assert_eq!(daemon.client.explain(&ask(&long)).await.unwrap().url, long);
    let error = daemon.client.explain(&ask("https://a/")).await.unwrap_err();
    assert!(error.to_string().ends_with("only http is cached: https is relayed unread"), "{error}");
}

#[tokio::test]
async fn metrics_and_health_are_plain_text() {
    let daemon = start();
    assert!(daemon.client.metrics().await.unwrap().contains("\nsidestep_connections_redirected_total 1\n"));
    let answer = raw(&daemon, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_the_right_status() {
    let daemon = start();
    let send = |what: &str, body: &str| {
        format!("{what} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let put = |body: &str| send("PUT /v1/switch", body);
    let post = |body: &str| send("POST /v1/explain", body);
    for (request, status) in [
        ("GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "404"),
        ("DELETE /v1/status HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "405"),
        ("GET /v1/switch HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "405"),
        (put("{\"state\":\"maybe\"}"), "400"),
        (put("{\"state\":\"on\",\"x\":1}"), "400"),
        (put(""), "400"),
        (put(&" ".repeat(5000)), "413"),
        ("GET /v1/explain HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "405"),
        (post("{}"), "400"),
        (post("{\"url\":\"http://a/\",\"x\":1}"), "400"),
        (post("{\"url\":\"/a\"}"), "400"),
        (post("{\"url\":\"http://a/\"}"), "200"),
        (post(&" ".repeat(QUESTION_BYTES_MAX + 1)), "413"),
    ] {
        let answer = raw(&daemon, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    assert_eq!(daemon.switch.wanted(), Position::On);
}

#[tokio::test]
async fn more_connections_than_the_limit_wait_their_turn() {
    let daemon = start();
    let path = daemon.client.path().to_owned();
    let silent = [UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap()];
    let client = daemon.client.clone();
    let waiting = tokio::spawn(async move { client.status().await });

    drop(silent);

    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_daemon_that_ended_leaves_no_socket_and_is_unreachable() {
    let daemon = start();
    daemon.client.status().await.unwrap();
    daemon.task.abort();
    assert!(daemon.task.await.is_err());

    assert!(!daemon.client.path().exists());
    assert!(matches!(daemon.client.status().await, Err(ClientError::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_does_not_answer_is_given_up() {
    let dir = Scratch::new();
    let path = dir.path().join("mute.sock");
    let _mute = AdminSocket::bind(&path).unwrap();
    assert!(matches!(AdminClient::new(&path).status().await, Err(ClientError::Timeout(_))));
}

async fn raw(daemon: &Daemon, request: &str) -> String {
    let mut stream = UnixStream::connect(daemon.client.path()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
