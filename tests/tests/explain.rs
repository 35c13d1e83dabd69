//! `sidestep explain`: what a daemon with real hooks says of a request, and that it then happens so.

use anyhow::{Context, Result, ensure};
use harness::exec::Exec;
use harness::node::{Node, Workload, command};
use harness::origin::{Answer, Origin, Request};
use serde_json::Value;

fn answers(request: &Request) -> Answer {
    match request.target() {
        "/private" => Answer::ok("mine").max_age(600).field("Cache-Control", "private"),
        _ => Answer::ok("hello").max_age(50).field("Vary", "Accept-Language").field("ETag", "\"a\""),
    }
}

fn json(words: &[&str], socket: &std::path::Path) -> Result<Value> {
    let words: Vec<&str> = ["explain", "-o", "json"].iter().chain(words).copied().collect();
    let output = command(&words, Some(socket))?.succeeded()?.text();
    serde_json::from_str(&output).with_context(|| output.clone())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_hit_a_miss_by_vary_and_a_private_answer_are_explained() -> Result<()> {
    let origin = Origin::http(answers)?;
    let client = Exec::port(origin.port())?.agent()?;
    let socket = client.admin().context("no socket")?;
    let connection = client.connect(origin.addr())?;
    connection.get_with("/a", "Accept-Language: en\r\n")?.expect(200)?;
    connection.get("/private")?.expect(200)?;
    let (a, private) = (format!("{}/a", origin.url()), format!("{}/private", origin.url()));

    let hit = json(&[&a, "--request-header", "Accept-Language: en"], socket)?;
    let verdict = &hit["keys"][0]["verdict"];
    ensure!(verdict["outcome"] == "hit" && verdict["cacheStatus"] == "hit", "{hit:#}");
    let variant = &hit["keys"][0]["variants"][0];
    ensure!(variant["selectedBy"][0]["value"] == "en" && variant["lifetimeSource"] == "max-age", "{hit:#}");
    ensure!(connection.get_with("/a", "Accept-Language: en\r\n")?.expect(200)?.is_hit());

    let miss = json(&[&a, "--request-header", "Accept-Language: de"], socket)?;
    ensure!(miss["keys"][0]["verdict"]["cacheStatus"] == "fwd=vary-miss", "{miss:#}");

    let refused = json(&[&private], socket)?;
    ensure!(refused["keys"][0]["lastRefusal"]["reason"] == "private", "{refused:#}");
    ensure!(refused["keys"][0]["verdict"]["outcome"] == "forward", "{refused:#}");
    let page = command(&["explain", &private], Some(socket))?.succeeded()?.text();
    ensure!(page.contains("last answer not stored (private), "), "{page}");
    ensure!(page.contains("The response says `private` (RFC 9111 §5.2.2.7)."), "{page}");
    ensure!(origin.count() == 2, "explaining asked the origin: {}", origin.count());
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_host_s_name_is_explained_by_the_addresses_that_answered() -> Result<()> {
    let origin = Origin::http(answers)?;
    let client = Exec::port(origin.port())?.agent()?;
    let socket = client.admin().context("no socket")?;
    let url = format!("http://shop.test:{}/private", origin.port());
    let host = format!("GET /private HTTP/1.1\r\nHost: shop.test:{}\r\n\r\n", origin.port());

    let before = json(&[&url], socket)?;
    ensure!(before["keys"] == serde_json::json!([]), "{before:#}");
    client.connect(origin.addr())?.exchange("GET", host)?.expect(200)?;

    let after = json(&[&url], socket)?;
    let key = &after["keys"][0];
    ensure!(key["destination"] == origin.addr().to_string().as_str(), "{after:#}");
    ensure!(key["lastRefusal"]["reason"] == "private", "{after:#}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn each_workload_of_a_node_is_explained_by_itself() -> Result<()> {
    let origin = Origin::http(answers)?;
    let web = Workload::local("web", &[origin.port()])?.identity("shop", "web");
    let jobs = Workload::local("jobs", &[origin.port()])?.identity("shop", "jobs");
    let agent = web.agent()?;
    let node = Node::start([web, jobs])?;
    agent.get(origin.addr(), "/a")?.expect(200)?;
    let url = format!("{}/a", origin.url());

    let of = |workload: &str| json(&[&url, "--workload", workload], &node.admin());
    let (own, other) = (of("web")?, of("jobs")?);

    ensure!(own["keys"][0]["verdict"]["outcome"] == "hit", "{own:#}");
    ensure!(own["keys"][0]["serviceAccount"] == "web", "{own:#}");
    ensure!(other["keys"][0]["verdict"]["cacheStatus"] == "fwd=uri-miss", "{other:#}");
    let unknown = command(&["explain", &url, "--workload", "nobody"], Some(&node.admin()))?;
    ensure!(!unknown.status.success() && unknown.errors().contains("enrolled are: jobs, web"), "{unknown:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn what_cannot_be_explained_is_refused_in_one_sentence() -> Result<()> {
    let nowhere = std::path::Path::new("/nonexistent/admin.sock");
    for (words, says) in [
        (&["explain", "http://a.test/"][..], "no daemon answers at"),
        (&["explain", "https://a.test/"], "only http is cached"),
        (&["explain", "/a"], "not a URL such as"),
        (&["explain", "http://a.test/", "--request-header", "a b: c"], "not a header field"),
    ] {
        let output = command(words, Some(nowhere))?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        let errors = output.errors();
        ensure!(errors.contains(says) && errors.trim_end().lines().count() == 1, "{errors}");
    }
    Ok(())
}
