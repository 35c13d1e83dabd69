//! The switch as a whole: files, daemons on real sockets, confirmations.

use std::sync::Arc;

use super::*;
use crate::admin::counters::Counters;
use crate::admin::explain::{BadQuestion, Explanation, Question};
use crate::admin::scratch::Scratch;
use crate::admin::server::{AdminServer, AdminState, DaemonView};
use crate::admin::switch::Switch;
use crate::admin::{StoreStatus, WorkloadStatus};

struct Empty;

impl DaemonView for Empty {
    fn workloads(&self) -> Vec<WorkloadStatus> {
        Vec::new()
    }

    fn store(&self) -> StoreStatus {
        StoreStatus::default()
    }

    fn explain(&self, question: &Question) -> Result<Explanation, BadQuestion> {
        Err(BadQuestion::Url(question.url.clone()))
    }

    fn fold_kernel_counters(&self, _: &Counters) {}
}

/// A daemon in `dir` whose heartbeat follows its switch, if it is `beating`.
fn daemon(dir: &Scratch, name: &str, beating: bool) -> Arc<Switch> {
    let path = dir.path().join(name);
    let switch = Arc::new(Switch::new(dir.path(), &path));
    switch.took_effect(true);
    let state = AdminState { counters: Arc::default(), switch: Arc::clone(&switch), view: Box::new(Empty) };
    tokio::spawn(AdminServer::bind(&path, state, 4).unwrap().run());
    if beating {
        let switch = Arc::clone(&switch);
        tokio::spawn(async move {
            loop {
                switch.took_effect(switch.poll());
                tokio::task::yield_now().await;
            }
        });
    }
    switch
}

#[tokio::test]
async fn every_live_daemon_confirms_and_dead_sockets_do_not_count() {
    let dir = Scratch::new();
    let (a, b) = (daemon(&dir, "admin.sock", true), daemon(&dir, "exec-1.sock", true));
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("exec-2.sock")).unwrap());

    for to in [Position::Off, Position::On] {
        set_machine(dir.path(), to).unwrap();
        let answers = confirmations(dir.path(), to).await;
        assert_eq!(text(to, &answers), format!("{}: 2 of 2 daemons confirmed\n", to.word()));
        assert_eq!((a.in_effect(), b.in_effect()), (to, to));
    }
}

#[tokio::test]
async fn a_daemon_that_is_off_by_itself_says_which_file_keeps_it_off() {
    let dir = Scratch::new();
    let switch = daemon(&dir, "admin.sock", true);
    switch.set(Position::Off).unwrap();

    let answers = confirmations(dir.path(), Position::On).await;

    let text = text(Position::On, &answers);
    assert!(text.starts_with("on: 0 of 1 daemons confirmed\n"), "{text}");
    assert!(text.ends_with("admin.sock.off keeps it off\n"), "{text}");
}

#[tokio::test]
async fn a_daemon_without_a_heartbeat_is_not_waited_for_longer_than_the_limit() {
    let dir = Scratch::new();
    let _stuck = daemon(&dir, "admin.sock", false);
    let start = Instant::now();

    let answers = confirmations(dir.path(), Position::Off).await;

    assert!(start.elapsed() < CONFIRM_TIMEOUT * 3);
    assert_eq!(answers.len(), 1);
    assert!(answers[0].refusal.is_some());
}

#[tokio::test]
async fn one_daemon_is_switched_by_its_socket_only() {
    let dir = Scratch::new();
    let (a, b) = (daemon(&dir, "a.sock", true), daemon(&dir, "b.sock", true));

    let answer = switch_one(&dir.path().join("a.sock"), Position::Off).await.unwrap();

    assert_eq!(text(Position::Off, &[answer]), "off: the daemon confirmed\n");
    assert_eq!((a.wanted(), b.poll()), (Position::Off, true));
    assert!(switch_one(&dir.path().join("none.sock"), Position::Off).await.is_err());
}

#[test]
fn without_a_daemon_the_next_one_is_spoken_of() {
    assert_eq!(text(Position::Off, &[]), "off: no daemon runs now; the next one starts so\n");
    assert_eq!(json(Position::On, &[]), json!({ "state": "on", "confirmed": 0, "daemons": [] }));
}
