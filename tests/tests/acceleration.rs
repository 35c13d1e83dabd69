//! Whether hits are given inside the kernel: what is asked for, what the self-test of this kernel finds, the switch, and
//! that all goes on without them wherever they cannot be had.
//!
//! Each failure is simulated with a binary that can be told to fail (`SIDESTEP_FAULTS_BIN`).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::exec::{Client, Exec, sidestep};
use harness::node::{Node, Workload};
use harness::origin::{Answer, Origin, Request};
use harness::{admin, locate, wait};
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);

fn fresh(_: &Request) -> Answer {
    Answer::ok("fresh").max_age(600)
}

/// What the daemon says of hits inside the kernel.
fn said(socket: Option<&Path>) -> Result<Value> {
    Ok(admin::get(socket.context("no admin socket")?, "/v1/status")?["acceleration"].clone())
}

/// Requests are answered, the second one from the cache.
fn is_served(client: &Client, origin: &Origin) -> Result<()> {
    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());
    ensure!(client.get(origin.addr(), "/a")?.expect(200)?.is_hit());
    Ok(())
}

/// Starts the binary that can be told to fail, with these variables, has it serve, and returns what it says.
fn with_faults(program: &Path, variables: &[(&str, &str)]) -> Result<Value> {
    let origin = Origin::http(fresh)?;
    let exec = Exec::port(origin.port())?.program(program);
    let exec = variables.iter().fold(exec, |exec, (name, value)| exec.env(name, value));
    let client = exec.agent()?;
    let said = said(client.admin())?;
    is_served(&client, &origin)?;
    let outcome = client.finish()?;
    outcome.output.clone().succeeded()?;
    ensure!(outcome.figure("errors")? == 0, "{variables:?}: {outcome:?}");
    Ok(said)
}

fn parts(said: &Value) -> impl Iterator<Item = (&str, &str)> {
    let parts = said["selfTest"].as_array().into_iter().flatten();
    parts.filter_map(|part| Some((part["name"].as_str()?, part["outcome"].as_str()?)))
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_the_start_took_is_given_back() -> Result<()> {
    const OWN_KB_MAX: u64 = 10 << 10;
    for mode in ["auto", "off"] {
        let node = Node::configured(&format!("acceleration: {mode}\n"), [Workload::local("idle", &[9])?])?;
        let own = node.process().memory_kb("RssAnon")?;
        println!("acceleration {mode}: {own} kB");
        ensure!(own <= OWN_KB_MAX, "{own} kB with acceleration {mode}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn this_kernel_is_fit_and_the_status_says_in_what_it_differs() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.agent()?;

    let said = said(client.admin())?;
    let words = sidestep(["status", "--admin", &client.admin().context("no socket")?.display().to_string()])?;

    println!("{said:#}");
    ensure!(said["mode"] == "auto" && said["state"] == "on" && said["switch"] == "on", "{said}");
    ensure!(parts(&said).count() >= 17 && parts(&said).all(|(_, outcome)| outcome != "failed"), "{said}");
    ensure!(said["bytesMax"] == 16 << 20 && said["residents"] == 0, "the self-test left something: {said}");
    ensure!(words.text().contains("\nacceleration on (auto): this kernel passed the self-test"), "{words:?}");
    is_served(&client, &origin)?;
    let outcome = client.finish()?;
    ensure!(outcome.figure("unanswered_no_head")? == 0, "the self-test was counted: {outcome:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn off_tests_nothing_and_the_daemon_gives_all_hits() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let client = Exec::port(origin.port())?.flag("--acceleration").flag("off").agent()?;

    let said = said(client.admin())?;

    ensure!(said["mode"] == "off" && said["state"] == "off" && parts(&said).count() == 0, "{said}");
    is_served(&client, &origin)?;
    ensure!(client.finish()?.figure("kernel_hits")? == 0);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_node_s_configuration_says_when_and_with_how_much_memory() -> Result<()> {
    let workload = Workload::local("w", &[80])?;
    let node = Node::configured("acceleration: hits\nhotBytes: 1MiB\nskippedFields: [x-mine]\n", [workload])?;
    let said = said(Some(&node.admin()))?;
    ensure!(said["mode"] == "hits" && said["state"] == "on" && said["bytesMax"] == 1 << 20, "{said}");
    let workloads = node.finish()?;
    let node = Node::configured("acceleration: off\n", workloads)?;
    ensure!(node.status()?["acceleration"]["state"] == "off", "{}", node.status()?);
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_check_tells_what_the_self_test_found() -> Result<()> {
    let output = sidestep(["check", "-o", "json"])?.succeeded()?;
    let value: Value = serde_json::from_slice(&output.stdout)?;
    let findings = value["findings"].as_array().context("no findings")?;
    let found = findings.iter().find(|one| one["subject"] == "acceleration").context("nothing is said")?;
    ensure!(found["ok"] == true, "{found}");
    ensure!(parts(&value).any(|part| part == ("order", "ok")), "{value}");
    Ok(())
}

/// Turns the switch of one daemon and returns what the daemon says afterwards.
fn turn(word: &str, socket: &Path) -> Result<Value> {
    let began = Instant::now();
    sidestep([word, "--acceleration", "--admin", &socket.display().to_string()])?.succeeded()?;
    let said = said(Some(socket))?;
    ensure!(began.elapsed() < SECOND, "`sidestep {word} --acceleration` took {:?}", began.elapsed());
    Ok(said)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_switch_is_obeyed_within_a_second_over_restarts_and_redirection_goes_on() -> Result<()> {
    let origin = Origin::http(fresh)?;
    let workload = Workload::local("w", &[origin.port()])?;
    let agent = workload.agent()?;
    let mut node = Node::start([workload])?;

    let said_off = turn("off", &node.admin())?;
    ensure!(said_off["switch"] == "off" && said_off["state"] == "off", "{said_off}");
    ensure!(
        said_off["reason"].as_str().is_some_and(|why| why.starts_with("it is switched off")),
        "{said_off}"
    );
    ensure!(node.status()?["switch"] == "on", "{}", node.status()?);
    ensure!(agent.get(origin.addr(), "/a")?.expect(200)?.passed_through_cache());
    node.kill()?;
    node.restart()?;
    let again = said(Some(&node.admin()))?;
    ensure!(again["switch"] == "off" && again["state"] == "off", "{again}");

    let said_on = turn("on", &node.admin())?;
    ensure!(said_on["switch"] == "on" && said_on["state"] == "on", "{said_on}");
    // Without redirection there are no hits either.
    sidestep(["off", "--admin", &node.admin().display().to_string()])?.succeeded()?;
    let whole = said(Some(&node.admin()))?;
    ensure!(whole["switch"] == "on" && whole["state"] == "off", "{whole}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn whatever_part_of_the_self_test_fails_all_goes_on_without_hits_in_the_kernel() -> Result<()> {
    let Some(program) = locate::sidestep_with_faults()? else { return Ok(()) };
    let all = with_faults(&program, &[])?;
    ensure!(all["state"] == "on", "{all}");
    for (name, _) in parts(&all) {
        let said = with_faults(&program, &[("SIDESTEP_SELFTEST_FAIL", name)])?;
        let reason = format!("the self-test failed: {name}: made to fail");
        ensure!(said["state"] == "off" && said["reason"] == reason.as_str(), "{name}: {said}");
        ensure!(said["bytesMax"] == 0 && parts(&said).any(|part| part == (name, "failed")), "{name}: {said}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn without_a_description_of_the_kernel_s_types_all_goes_on_without_hits_in_the_kernel() -> Result<()> {
    let Some(program) = locate::sidestep_with_faults()? else { return Ok(()) };
    let said = with_faults(&program, &[("SIDESTEP_NO_BTF", "1")])?;
    ensure!(said["state"] == "off" && parts(&said).count() == 0, "{said}");
    ensure!(said["reason"].as_str().is_some_and(|why| why.contains("description of its types")), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn hits_that_are_demanded_and_cannot_be_had_keep_the_command_from_starting() -> Result<()> {
    let Some(program) = locate::sidestep_with_faults()? else { return Ok(()) };
    for variable in [("SIDESTEP_NO_BTF", "1"), ("SIDESTEP_SELFTEST_FAIL", "order")] {
        let exec = Exec::new()?.program(&program).env(variable.0, variable.1);
        let running = exec.flag("--acceleration").flag("hits").start(["echo", "started"])?;
        let output = running.process.finish(wait::PATIENCE)?;
        let said = output.errors();
        ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        ensure!(
            said.starts_with("sidestep: acceleration `hits` was demanded") && said.lines().count() == 1,
            "{said}"
        );
    }
    Ok(())
}

/// Bits of `cache_common::faults`, and the part that has to notice that those conditions are left out.
const NOTICED: [(&str, &str); 5] =
    [("1", "order"), ("2", "order"), ("8", "order"), ("12", "order"), ("16", "expiry")];

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_self_test_notices_a_condition_that_is_left_out() -> Result<()> {
    let Some(program) = locate::sidestep_with_faults()? else { return Ok(()) };
    for (bits, part) in NOTICED {
        let said = with_faults(&program, &[("SIDESTEP_FAULTS", bits)])?;
        ensure!(parts(&said).any(|found| found == (part, "failed")), "{bits}: {said}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_product_cannot_be_told_to_fail() -> Result<()> {
    let program = locate::sidestep()?;
    for variable in [("SIDESTEP_NO_BTF", "1"), ("SIDESTEP_SELFTEST_FAIL", "order"), ("SIDESTEP_FAULTS", "1")]
    {
        let said = with_faults(&program, &[variable])?;
        ensure!(said["state"] == "on" && parts(&said).all(|(_, outcome)| outcome != "failed"), "{said}");
    }
    Ok(())
}
