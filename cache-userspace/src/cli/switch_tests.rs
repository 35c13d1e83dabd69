//! The switch as a whole: files, daemons on real sockets, confirmations.

use std::sync::Arc;

use super::*;
use crate::admin::counters::Counters;
use crate::admin::explain::{BadQuestion, Explanation, Question};
use crate::admin::scratch::Scratch;
use crate::admin::server::{AdminServer, AdminState, DaemonView};
use crate::admin::switch::Switches;
use crate::admin::{AccelerationStatus, ClusterStatus, StoreStatus, WorkloadStatus};
use crate::redirect::acceleration::Mode;

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

    fn cluster(&self) -> Option<ClusterStatus> {
        None
    }

    fn acceleration(&self) -> Option<AccelerationStatus> {
        Some(AccelerationStatus {
            mode: Mode::Auto,
            state: Position::On,
            reason: String::new(),
            switch: Position::Off,
            switched_off_by: None,
            deviations: Vec::new(),
            residents: 0,
            bytes: 0,
            bytes_max: 0,
            self_test: Vec::new(),
        })
    }

    fn fold_kernel_counters(&self, _: &Counters) {}
}

/// A daemon in `dir` whose heartbeat follows its switch, if it is `beating`.
fn daemon(dir: &Scratch, name: &str, beating: bool) -> Switches {
    let path = dir.path().join(name);
    let switches = Switches::new(dir.path(), &path);
    switches.redirection.took_effect(true);
    switches.acceleration.took_effect(true);
    let state = AdminState {
        counters: Arc::default(),
        switches: switches.clone(),
        view: Box::new(Empty),
        handover: None,
    };
    tokio::spawn(AdminServer::bind(&path, Arc::new(state), 4).unwrap().run());
    if beating {
        let switches = switches.clone();
        tokio::spawn(async move {
            loop {
                for switch in [&switches.redirection, &switches.acceleration] {
                    switch.took_effect(switch.poll());
                }
                tokio::task::yield_now().await;
            }
        });
    }
    switches
}

#[tokio::test]
async fn every_live_daemon_confirms_and_dead_sockets_do_not_count() {
    let dir = Scratch::new();
    let (a, b) = (daemon(&dir, "admin.sock", true), daemon(&dir, "exec-1.sock", true));
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("exec-2.sock")).unwrap());

    for subject in [Subject::Redirection, Subject::Acceleration] {
        for to in [Position::Off, Position::On] {
            set_machine(subject, dir.path(), to).unwrap();
            let answers = confirmations(subject, dir.path(), to).await;
            assert_eq!(text(to, &answers), format!("{}: 2 of 2 daemons confirmed\n", to.word()));
            assert_eq!((a.of(subject).in_effect(), b.of(subject).in_effect()), (to, to));
        }
    }
}

#[tokio::test]
async fn a_daemon_that_is_off_by_itself_says_which_file_keeps_it_off() {
    let dir = Scratch::new();
    let switches = daemon(&dir, "admin.sock", true);
    switches.redirection.set(Position::Off).unwrap();

    let answers = confirmations(Subject::Redirection, dir.path(), Position::On).await;

    let text = text(Position::On, &answers);
    assert!(text.starts_with("on: 0 of 1 daemons confirmed\n"), "{text}");
    assert!(text.ends_with("admin.sock.off keeps it off\n"), "{text}");
}

#[tokio::test]
async fn a_daemon_without_a_heartbeat_is_not_waited_for_longer_than_the_limit() {
    let dir = Scratch::new();
    let _stuck = daemon(&dir, "admin.sock", false);
    let start = Instant::now();

    let answers = confirmations(Subject::Redirection, dir.path(), Position::Off).await;

    assert!(start.elapsed() < CONFIRM_TIMEOUT * 3);
    assert_eq!(answers.len(), 1);
    assert!(answers[0].refusal.is_some());
}

#[tokio::test]
async fn one_daemon_is_switched_by_its_socket_only() {
    let dir = Scratch::new();
    let (a, b) = (daemon(&dir, "a.sock", true), daemon(&dir, "b.sock", true));

    let answer = switch_one(Subject::Redirection, &dir.path().join("a.sock"), Position::Off).await.unwrap();

    assert_eq!(text(Position::Off, &[answer]), "off: the daemon confirmed\n");
    assert_eq!((a.redirection.wanted(), b.redirection.poll()), (Position::Off, true));
    let socket = dir.path().join("b.sock");
    let answer = switch_one(Subject::Acceleration, &socket, Position::Off).await.unwrap();
    assert_eq!(answer.refusal, None);
    assert_eq!((b.acceleration.wanted(), b.redirection.wanted()), (Position::Off, Position::On));
    assert!(switch_one(Subject::Redirection, &dir.path().join("none.sock"), Position::Off).await.is_err());
}

#[test]
fn without_a_daemon_the_next_one_is_spoken_of() {
    assert_eq!(text(Position::Off, &[]), "off: no daemon runs now; the next one starts so\n");
    assert_eq!(json(Position::On, &[]), json!({ "state": "on", "confirmed": 0, "daemons": [] }));
}
