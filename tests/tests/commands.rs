//! The command line: what a person or a script sees of `sidestep exec`, `check`, `status` and `node`.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::bpf::Forbidding;
use harness::cgroup::{self, Cgroup};
use harness::exec::{Exec, Outcome, sidestep};
use harness::netns::NodeNet;
use harness::node::{self, Node, Workload};
use harness::origin::{Answer, Origin};
use harness::process::{self, Output};
use harness::scratch::Scratch;
use harness::wait::{self, PATIENCE};
use harness::{admin, locate, port};
use nix::sys::signal::Signal;

fn exec(words: &[&str]) -> Result<Outcome> {
    Exec::port(port::unused()?)?.run(words)
}

/// It failed, said why in one sentence on standard error, and nothing on standard output.
fn one_clear_sentence(output: &Output, about: &[&str]) -> Result<()> {
    let errors = output.errors();
    ensure!(!output.status.success(), "it succeeded: {errors}");
    ensure!(output.status.code().is_some(), "it ended by {}: {errors}", output.status);
    ensure!(output.stdout.is_empty(), "on standard output: {}", output.text());
    let lines: Vec<_> = errors.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "not one line: {errors}");
    let said = errors.to_ascii_lowercase();
    ensure!(about.iter().any(|word| said.contains(word)), "none of {about:?} in: {errors}");
    ensure!(!said.contains("panicked"), "{errors}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_exit_status_is_the_command_s() -> Result<()> {
    for (words, status) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
    ] {
        let outcome = exec(words)?;
        ensure!(outcome.output.status.code() == Some(status), "{words:?}: {:?}", outcome.output);
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn signals_that_were_ignored_stay_ignored_and_the_exit_status_is_kept() -> Result<()> {
    let ignoring = || -> Result<Exec> {
        // nohup, a background job of a shell, and a parent that never waits do this.
        Ok(Exec::port(port::unused()?)?.behind(["env", "--ignore-signal=HUP,INT,CHLD"]))
    };
    let status = ignoring()?.run(["sh", "-c", "exit 7"])?.output.status;
    ensure!(status.code() == Some(7), "{status}");
    let output = ignoring()?.run(["sed", "-n", "s/^SigIgn:[[:space:]]*//p", "/proc/self/status"])?.output;
    let ignored = u64::from_str_radix(output.text().trim(), 16)?;
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGCHLD] {
        ensure!(ignored >> (signal as u32 - 1) & 1 == 1, "{signal} is not ignored: {ignored:x}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_command_that_cannot_be_run_is_126_or_127_as_in_a_shell() -> Result<()> {
    let missing = exec(&["/nonexistent/command"])?.output;
    ensure!(missing.status.code() == Some(127), "{missing:?}");
    ensure!(missing.errors().contains("/nonexistent/command"), "{missing:?}");
    let directory = exec(&["/"])?.output;
    ensure!(directory.status.code() == Some(126), "{directory:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn standard_streams_are_the_command_s_own() -> Result<()> {
    let probe = locate::probe()?;
    let mut running = Exec::port(port::unused()?)?.start([probe.as_os_str(), "echo".as_ref()])?;
    let content = harness::pattern::bytes(300_000);
    let mut stdin = running.process.take_stdin().context("no stdin")?;
    stdin.write_all(&content)?;
    drop(stdin);

    let outcome = running.finish()?;

    ensure!(outcome.output.stdout == content, "other output");
    ensure!(outcome.output.errors() == "echoed 300000\n", "{}", outcome.output.errors());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_summary_goes_to_standard_error_on_request_only() -> Result<()> {
    let quiet = exec(&["true"])?.output;
    ensure!(quiet.stderr.is_empty(), "{}", quiet.errors());

    let spoken = Exec::port(port::unused()?)?.flag("--summary").run(["echo", "hello"])?.output;
    ensure!(spoken.text() == "hello\n", "{}", spoken.text());
    ensure!(spoken.errors().contains("hits"), "{}", spoken.errors());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_summary_holds_every_figure_of_the_contract() -> Result<()> {
    let outcome = exec(&["true"])?;
    let summary = outcome.summary()?;
    for name in [
        "connections_redirected",
        "connections_passed",
        "requests",
        "hits",
        "kernel_hits",
        "misses",
        "revalidated",
        "stale",
        "collapsed",
        "uncacheable",
        "errors",
        "bytes_from_cache",
        "bytes_from_origin",
    ] {
        ensure!(summary.figure(name)? == 0, "{name}: {summary:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn signals_are_forwarded_to_the_command() -> Result<()> {
    let script = "trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; trap 'echo got TERM; exit 7' TERM
                  echo ready; while :; do sleep 0.01; done";
    let running = Exec::port(port::unused()?)?.start(["sh", "-c", script])?;
    ensure!(running.process.line(PATIENCE)? == "ready");

    for (signal, said) in
        [(Signal::SIGHUP, "got HUP"), (Signal::SIGUSR1, "got USR1"), (Signal::SIGTERM, "got TERM")]
    {
        running.process.signal(signal)?;
        ensure!(running.process.line(PATIENCE)? == said, "{signal}");
    }

    let outcome = running.finish()?;
    ensure!(outcome.output.status.code() == Some(7), "{:?}", outcome.output);
    outcome.summary()?.balances()?;
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn an_interrupt_ends_the_command_and_then_exec() -> Result<()> {
    let running = Exec::port(port::unused()?)?.start(["sh", "-c", "echo ready; exec sleep 60"])?;
    ensure!(running.process.line(PATIENCE)? == "ready");

    running.process.signal(Signal::SIGINT)?;

    let outcome = running.finish()?;
    ensure!(outcome.output.status.code() == Some(128 + 2), "{:?}", outcome.output);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn nothing_is_left_behind() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let home = Cgroup::new()?;
    let client = Exec::port(origin.port())?.under(&home).agent()?;
    let own = fs::read_to_string(format!("/proc/{}/cgroup", client.pid()))?;
    let socket = client.admin().context("no admin socket")?.to_owned();
    let name = format!("sidestep-{}", client.process().pid());
    client.get(origin.addr(), "/a")?.expect(200)?;
    ensure!(own.contains(&name), "the command runs in {own}");
    ensure!(cgroup::named(&name)?.len() == 1, "{:?}", cgroup::named(&name)?);
    ensure!(socket.exists(), "no admin socket while it runs");

    client.finish()?.output.succeeded()?;

    ensure!(cgroup::named(&name)?.is_empty(), "{:?}", cgroup::named(&name)?);
    ensure!(!socket.exists(), "the admin socket is still there");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn cgroups_of_runs_that_were_killed_are_swept_by_the_next_one() -> Result<()> {
    let home = Cgroup::new()?;
    let mut dead = Command::new("true").spawn()?;
    let pid = dead.id();
    dead.wait()?;
    let stale = home.path().join(format!("sidestep-{pid}"));
    let living = home.path().join(format!("sidestep-{}", std::process::id()));
    let foreign = home.path().join("sidestep-of-somebody");
    for dir in [&stale, &living, &foreign] {
        fs::create_dir(dir)?;
    }

    Exec::port(port::unused()?)?.under(&home).run(["true"])?.output.succeeded()?;

    ensure!(!stale.exists(), "the cgroup of a dead run is still there");
    ensure!(living.exists() && foreign.exists(), "a cgroup that is not ours to sweep is gone");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_command_s_children_are_cached_too() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let url = origin.url();
    let script = format!("(curl -sS {url}/a) && sh -c 'curl -sS {url}/a'");

    let outcome = Exec::port(origin.port())?.run(["sh", "-c", &script])?;

    ensure!(outcome.output.text() == "xx", "{:?}", outcome.output);
    ensure!(origin.count() == 1, "the origin saw {}", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn processes_outside_are_not_touched() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let _client = Exec::port(origin.port())?.agent()?;

    let outside = harness::client::Connection::open(origin.addr(), None, PATIENCE);
    let mut outside = outside?;
    outside.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", None)?;

    ensure!(!outside.response("GET", PATIENCE).passed_through_cache());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn two_runs_at_once_do_not_share_what_they_store() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let (one, other) = (Exec::port(origin.port())?.agent()?, Exec::port(origin.port())?.agent()?);

    let first = one.get(origin.addr(), "/a")?.expect(200)?;
    let second = other.get(origin.addr(), "/a")?.expect(200)?;

    ensure!(!first.is_hit() && !second.is_hit(), "{}", second.head_text());
    ensure!(one.finish()?.figure("requests")? == 1 && other.finish()?.figure("requests")? == 1);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn without_root_one_sentence_says_so() -> Result<()> {
    // The binary itself must be readable for the user who may not run it.
    let scratch = Scratch::new()?;
    let copy = scratch.file("sidestep");
    fs::copy(locate::sidestep()?, &copy)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(copy);
    command.args(["exec", "--port", "8080", "--", "true"]);

    let output = process::run(&mut command, PATIENCE)?;

    one_clear_sentence(&output, &["root", "cap_", "capabilit", "privilege"])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn without_cgroup2_one_sentence_says_so() -> Result<()> {
    let script = "umount -l \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(cgroup::mount()?);
    command.arg(locate::sidestep()?).args(["exec", "--port", "8080", "--", "true"]);

    let output = process::run(&mut command, PATIENCE)?;

    one_clear_sentence(&output, &["cgroup2", "cgroup v2"])
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn under_a_cgroup_that_forbids_attachment_one_sentence_says_so() -> Result<()> {
    let parent = Cgroup::new()?;
    let _foreign = Forbidding::attach(&parent)?;

    let outcome = Exec::port(port::unused()?)?.under(&parent).run(["true"])?;

    one_clear_sentence(&outcome.output, &["ancestor", "attach"])?;
    let left = fs::read_dir(parent.path())?.flatten().filter(|entry| entry.path().is_dir()).count();
    ensure!(left == 0, "{left} cgroups are left behind");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_command_that_is_not_run_for_a_fault_of_ours_is_not_run_at_all() -> Result<()> {
    let parent = Cgroup::new()?;
    let _foreign = Forbidding::attach(&parent)?;
    let scratch = Scratch::new()?;
    let witness = scratch.file("witness");

    Exec::port(port::unused()?)?.under(&parent).run(["touch".as_ref(), witness.as_os_str()])?;

    ensure!(!witness.exists(), "the command ran without the cache, and without having been asked to");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn check_says_for_each_requirement_whether_it_is_met() -> Result<()> {
    let output = sidestep(["check"])?.succeeded()?;

    let text = output.text().to_ascii_lowercase();
    for topic in ["kernel", "cgroup2", "capabilities", "attachments"] {
        let line = text.lines().find(|line| line.contains(topic)).with_context(|| text.clone())?;
        ensure!(line.contains("ok") && !line.contains("not ok"), "{line}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn check_names_what_forbids_attachment_and_what_to_do() -> Result<()> {
    let parent = Cgroup::new()?;
    let _foreign = Forbidding::attach(&parent)?;
    let mut words = parent.enter().into_iter();
    let mut command = Command::new(words.next().context("no program")?);
    command.args(words).arg(locate::sidestep()?).arg("check");

    let output = process::run(&mut command, PATIENCE)?;

    ensure!(!output.status.success(), "{}", output.text());
    ensure!(output.text().contains("not ok"), "{}", output.text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn status_prints_what_the_admin_socket_says() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let workload = Workload::local("front", &[origin.port()])?;
    let agent = workload.agent()?;
    let node = Node::start([workload])?;
    agent.get(origin.addr(), "/a")?.expect(200)?;
    agent.get(origin.addr(), "/a")?.expect(200)?;
    node.reaches("hits", 1)?;

    let printed = node::command(&["status", "-o", "json"], Some(&node.admin()))?.succeeded()?;
    let plain = node::command(&["status"], Some(&node.admin()))?.succeeded()?;

    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout)?;
    ensure!(printed["workloads"][0]["name"] == "front", "{printed}");
    ensure!(printed["workloads"][0]["state"] == "enrolled", "{printed}");
    ensure!(printed["counters"]["hits"] == 1 && printed["switch"] == "on", "{printed}");
    ensure!(plain.text().contains("front") && plain.text().contains("enrolled"), "{}", plain.text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_admin_socket_answers_for_exec_too() -> Result<()> {
    let client = Exec::port(port::unused()?)?.agent()?;
    let socket = client.admin().context("no admin socket")?;

    let status = admin::get(socket, "/v1/status")?;

    ensure!(status["switch"] == "on" && status["counters"]["requests"] == 0, "{status}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn one_workload_that_cannot_be_enrolled_is_reported_and_harms_no_other() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let good = Workload::local("good", &[origin.port()])?;
    let bad = Workload::local("bad", &[origin.port()])?;
    let _foreign = Forbidding::attach(bad.cgroup())?;
    // A program on the workload's own cgroup forbids a second one there as well.
    let (agent, other) = (good.agent()?, bad.agent()?);
    let node = Node::start_some("", [good, bad])?;

    agent.get(origin.addr(), "/a")?.expect(200)?;
    let cached = agent.get(origin.addr(), "/a")?.expect(200)?;
    let direct = other.get(origin.addr(), "/a")?.expect(200)?;

    let status = node.status()?;
    let states = status["workloads"].as_array().context("no workloads")?;
    let bad = states.iter().find(|workload| workload["name"] == "bad").context("no such workload")?;
    ensure!(bad["state"] != "enrolled", "{status}");
    ensure!(bad["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{status}");
    ensure!(cached.is_hit() && !direct.passed_through_cache(), "{}", direct.head_text());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn other_ports_of_an_enrolled_workload_take_effect_on_sighup() -> Result<()> {
    let (one, two) = (Origin::http(|_| Answer::ok("x"))?, Origin::http(|_| Answer::ok("x"))?);
    let workload = Workload::local("front", &[one.port()])?;
    let agent = workload.agent()?;
    let node = Node::start([workload])?;
    let cached = |origin: &Origin| -> Result<bool> {
        Ok(agent.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache())
    };
    ensure!(cached(&one)? && !cached(&two)?);

    node.intercept(&[two.port()])?;

    wait::wait_until(PATIENCE, "the second port is intercepted", || {
        cached(&two).is_ok_and(|is_cached| is_cached)
    })?;
    ensure!(!cached(&one)?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_configuration_that_makes_no_sense_is_refused_with_the_field() -> Result<()> {
    let scratch = Scratch::new()?;
    let config = scratch.write("node.yaml", "workloads:\n  - name: a\n    cgruop: /x\n")?;

    let output = sidestep(["node".as_ref(), "--config".as_ref(), config.as_os_str()])?;

    ensure!(!output.status.success(), "{output:?}");
    ensure!(output.errors().contains("cgruop"), "{}", output.errors());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_node_that_ends_leaves_no_program_and_no_socket_behind() -> Result<()> {
    let origin = Origin::http(|_| Answer::ok("x").max_age(600))?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let node = Node::start([workload])?;
    let socket = node.admin();
    ensure!(agent.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());

    let workloads = node.finish()?;

    ensure!(!socket.exists(), "the admin socket is still there");
    // Where a program were left, attaching the exclusive kind would fail.
    let foreign = wait::poll(Duration::from_secs(5), "every program is detached", || {
        Forbidding::attach(workloads[0].cgroup()).ok()
    })?;
    drop(foreign);
    ensure!(!agent.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());
    Ok(())
}

/// The capabilities that the systemd unit grants, in the words of setpriv.
fn granted_capabilities() -> Result<String> {
    let unit = include_str!("../../deploy/sidestep-node.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("no set")?;
    let names = line.split_whitespace().map(|name| name.trim_start_matches("CAP_").to_ascii_lowercase());
    Ok(names.fold("-all".to_owned(), |set, name| format!("{set},+{name}")))
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_node_needs_no_more_capabilities_than_its_unit_grants() -> Result<()> {
    let net = NodeNet::new()?;
    let origin = Origin::http_on(net.listen()?, |_| Answer::ok("x").max_age(600))?;
    let pod = net.pods(1)?.into_iter().next().context("no pod")?;
    let workload = Workload::of_pod("w", pod, &[origin.port()])?;
    let agent = workload.agent()?;
    let bounding = format!("--bounding-set={}", granted_capabilities()?);

    let node = Node::behind(&["setpriv", &bounding], [workload])?;

    ensure!(!agent.get(origin.addr(), "/a")?.expect(200)?.is_hit());
    ensure!(agent.get(origin.addr(), "/a")?.expect(200)?.is_hit());
    drop(node);
    Ok(())
}
