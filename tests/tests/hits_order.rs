//! Answers come in the order of their requests, whole and each by itself, however requests and reads are interleaved;
//! and bytes that are no request are not answered.
//!
//! Each case runs with `--acceleration off`, with what is under test, with a binary that leaves all connections enrolled,
//! where nothing but conditions keeps the order, and with one that leaves those out too: there the case must go wrong, so
//! that it is known to be able to.

use std::ffi::OsStr;

use anyhow::{Context, Result, ensure};
use cache_common::faults::{IN_FLIGHT, OUTSTANDING, STAY, UNREAD_HIT, UNREAD_TCP};
use harness::acceleration::{self, FAULTS};
use harness::exec::Exec;
use harness::manners::{HOT, Tally, content};
use harness::netns::{NodeNet, Pod};
use harness::order::{self, Case};
use harness::origin::Origin;
use harness::process::call;
use harness::shell::Shell;
use harness::{locate, wait};

/// Threads of a client.
const THREADS: u64 = 2;

/// Tries of a case that is what its name says every time.
const TRIES: u64 = 50;

/// One case under each kind of daemon.
struct Proof<'a> {
    case: Case,
    tries: u64,
    /// The conditions without which it goes wrong.
    faults: u32,
    /// How many hits inside the kernel each try has at least.
    hits: u64,
    /// Where its client is, if not in the machine's own network.
    pod: Option<&'a Pod>,
}

impl Proof<'_> {
    fn of(case: Case, faults: u32) -> Self {
        Self { case, tries: TRIES, faults, hits: 1, pod: None }
    }

    fn given(self, origin: &Origin) -> Result<()> {
        let proof = Self { tries: order::tries_made(self.tries)?, ..self };
        let tested = acceleration::tested();
        for mode in [acceleration::OFF, &tested] {
            let (tally, kernel_hits) = proof.tried(proof.exec(origin, mode)?, mode, origin, 0)?;
            println!("{:?}, {mode}: {} right, {kernel_hits} kernel hits", proof.case, tally.right);
            tally.all_right(THREADS * proof.tries).with_context(|| mode.to_owned())?;
        }
        if !acceleration::is_demanded(&tested) {
            return Ok(());
        }
        // The same where nothing but the conditions keeps the order; then without them.
        let demanded = THREADS * proof.tries * proof.hits;
        let Some((tally, kernel_hits)) = proof.faulty(STAY, &tested, origin, demanded)? else {
            return Ok(());
        };
        println!("{:?}, staying: {} right, {kernel_hits} kernel hits", proof.case, tally.right);
        tally.all_right(THREADS * proof.tries).context("by the conditions")?;
        // The daemon is given some of them on purpose.
        ensure!(kernel_hits * 10 >= demanded * 9, "{kernel_hits} kernel hits, {demanded} expected");
        if proof.faults == 0 {
            return Ok(());
        }
        let Some((tally, _)) = proof.faulty(STAY | proof.faults, &tested, origin, 0)? else { return Ok(()) };
        let (case, faults) = (proof.case, proof.faults);
        println!("{case:?}, without {faults}: {} right, {:?}", tally.right, tally.wrong.first());
        ensure!(!tally.wrong.is_empty(), "nothing went wrong without the conditions {faults}");
        Ok(())
    }

    /// What the tries come to with a binary that leaves something out, and the hits inside the kernel.
    fn faulty(
        &self,
        faults: u32,
        mode: &str,
        origin: &Origin,
        expected: u64,
    ) -> Result<Option<(Tally, u64)>> {
        let Some(binary) = locate::sidestep_with_faults()? else { return Ok(None) };
        let exec = self.exec(origin, mode)?.program(&binary).env(FAULTS, faults.to_string());
        self.tried(exec, mode, origin, expected).map(Some)
    }

    fn exec(&self, origin: &Origin, mode: &str) -> Result<Exec> {
        let exec = Exec::port(origin.port())?.flag(acceleration::FLAG).flag(mode);
        Ok(match self.pod {
            Some(pod) => exec.within(pod),
            None => exec,
        })
    }

    /// What its tries came to, and how many hits inside the kernel there were meanwhile: `expected`, or after a moment.
    fn tried(&self, exec: Exec, mode: &str, origin: &Origin, expected: u64) -> Result<(Tally, u64)> {
        let mut shell = Shell::behind(exec)?;
        let addr = origin.addr().to_string();
        acceleration::heat(&mut shell, mode, &addr)?;
        let kernel_hits = |shell: &Shell| shell.figures()?.figure("kernel_hits");
        let before = kernel_hits(&shell)?;
        let numbers = [THREADS.to_string(), self.tries.to_string()];
        let words = ["order", self.case.word(), &addr, &numbers[0], &numbers[1]];
        let output = shell.run([locate::probe()?.as_os_str()].into_iter().chain(words.map(OsStr::new)))?;
        // The daemon may read what the kernel counts at intervals.
        let _ = wait::wait_until(wait::PATIENCE / 10, "hits", || {
            kernel_hits(&shell).is_ok_and(|now| now >= before + expected)
        });
        let added = kernel_hits(&shell)? - before;
        let outcome = shell.finish()?;
        outcome.summary()?.balances()?;
        Ok((Tally::read(&output)?, added))
    }
}

fn proved(case: Case, faults: u32) -> Result<()> {
    Proof::of(case, faults).given(&order::origin::ordinary()?)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_is_hot_waits_for_a_slow_miss_before_it() -> Result<()> {
    proved(Case::SlowMiss, OUTSTANDING)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_is_hot_comes_after_an_answer_that_lies_unread() -> Result<()> {
    proved(Case::Unread, UNREAD_TCP | UNREAD_HIT)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_is_hot_comes_after_an_answer_that_is_half_read() -> Result<()> {
    proved(Case::HalfRead, UNREAD_TCP | UNREAD_HIT)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_is_hot_comes_after_an_answer_that_does_not_fit_into_the_receive_buffer() -> Result<()> {
    proved(Case::SmallBuffer, OUTSTANDING | IN_FLIGHT | UNREAD_TCP | UNREAD_HIT)
}

/// All that has come is read, and nothing is unanswered: that bytes are missing is all there is to tell.
#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_is_hot_comes_after_an_answer_that_is_on_its_way() -> Result<()> {
    let net = NodeNet::new()?;
    let pods = net.pods(1)?;
    let pod = pods.first().context("no pod")?;
    // A link on which a long answer takes a tenth of a second; the connection to the daemon goes over it.
    let link =
        ["qdisc", "add", "dev", "lo", "root", "tbf", "rate", "80mbit", "burst", "128kb", "limit", "8mb"];
    call(
        "nsenter",
        pod.enter()[1..].iter().cloned().chain(["tc"].into_iter().chain(link).map(Into::into)),
        "",
    )?;
    let origin = order::origin::on(net.listen()?)?;
    Proof { tries: 10, pod: Some(pod), ..Proof::of(Case::InFlight, IN_FLIGHT) }.given(&origin)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn requests_in_pieces_are_answered_in_order() -> Result<()> {
    let order = OUTSTANDING | IN_FLIGHT | UNREAD_TCP | UNREAD_HIT;
    Proof { tries: 500, ..Proof::of(Case::Pieces, order) }.given(&order::origin::ordinary()?)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_end_of_a_head_is_no_request_though_it_looks_like_one() -> Result<()> {
    proved(Case::HeadInHead, OUTSTANDING)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_body_that_is_a_hot_head_is_not_answered() -> Result<()> {
    proved(Case::Body, OUTSTANDING)
}

/// The daemon ends such a connection with its answer: no condition of the kernel is needed.
#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_body_of_a_hit_that_is_a_hot_head_is_not_answered() -> Result<()> {
    proved(Case::HitWithBody, 0)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_chunk_that_is_a_hot_head_is_not_answered() -> Result<()> {
    proved(Case::Chunk, OUTSTANDING)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_body_that_was_waited_for_and_is_a_hot_head_is_not_answered() -> Result<()> {
    proved(Case::ContinuedBody, OUTSTANDING | IN_FLIGHT)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_body_that_comes_after_its_answer_and_is_a_hot_head_is_not_answered() -> Result<()> {
    Proof::of(Case::AnsweredBody, OUTSTANDING | IN_FLIGHT).given(&order::origin::early()?)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_hot_head_in_a_tunnel_reaches_the_other_end() -> Result<()> {
    proved(Case::Tunnel, OUTSTANDING | IN_FLIGHT)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_earlier_connection_of_the_same_port_tells_nothing_about_this_one() -> Result<()> {
    Proof { hits: 0, ..Proof::of(Case::SamePort, OUTSTANDING) }.given(&order::origin::ordinary()?)
}

/// What is wrong here without the daemon's own care is no order, which Linux keeps, but an edge that never comes.
#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn ten_thousand_pairs_of_hot_and_miss_sent_before_reading_come_in_order_and_none_hangs() -> Result<()> {
    let tries = 10_000 / THREADS;
    Proof { tries, hits: 2, ..Proof::of(Case::HotThenMiss, 0) }.given(&order::origin::ordinary()?)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn ten_thousand_pairs_of_miss_and_hot_sent_before_reading_come_in_order_and_none_hangs() -> Result<()> {
    let tries = 10_000 / THREADS;
    Proof { tries, ..Proof::of(Case::MissThenHot, OUTSTANDING) }.given(&order::origin::ordinary()?)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_client_that_never_reads_has_one_answer_of_the_kernel_unread_at_most() -> Result<()> {
    const REQUESTS: u64 = 20;
    let mode = acceleration::tested();
    let origin = order::origin::ordinary()?;
    let agent = Exec::port(origin.port())?.flag(acceleration::FLAG).flag(&mode).agent()?;
    let is_hot = || agent.get(origin.addr(), HOT).is_ok_and(|response| response.is_by_kernel());
    if acceleration::is_demanded(&mode) {
        wait::wait_until(wait::PATIENCE, "an answer of the kernel", is_hot)?;
    }
    let connection = agent.connect(origin.addr())?;
    for _ in 0..REQUESTS {
        connection.send(format!("GET {HOT} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()))?;
    }
    let mut by_kernel = 0;
    for number in 0..REQUESTS {
        let response = connection.response()?.expect(200)?;
        ensure!(response.text() == content(HOT), "{response:?}");
        ensure!(number == 0 || !response.is_by_kernel(), "answer {number} is one of the kernel");
        by_kernel += u64::from(response.is_by_kernel());
    }
    let expected = u64::from(acceleration::is_demanded(&mode));
    ensure!(by_kernel == expected, "{by_kernel} answers of the kernel");
    Ok(())
}
