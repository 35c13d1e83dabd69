//! A configuration is read whole or refused with the place that is wrong.

use std::time::Duration;

use super::*;
use crate::policy::Rules;
use crate::policy::StaleAfter;

const FULL: &str = "profile: rfc9111
storeBytes: 1GiB
admin: /tmp/a.sock
strictHttp: true
metrics: 127.0.0.1:9464
workerThreads: 3
acceleration: hits
hotBytes: 32MiB
skippedFields: [X-Trace, b3]
policy:
  staleWhileRevalidate: 30s
  staleIfError: 5m
  staleAfter: auto
  negative: {404: 10s, '503': 1s}
excludedUids: [7]
workloads:
  - name: a
    namespace: shop
    serviceAccount: web
    cgroup: /cg/a
    netns: /run/netns/a
    ports: [80, 8080]
    loopback: true
  - name: b
    cgroup: /cg/b
    ports: [80]
";

fn refusal(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn a_full_configuration_is_read() {
    let config = Config::parse(FULL).unwrap();
    assert_eq!(config.profile, Profile::Rfc9111);
    assert_eq!(config.store_bytes, ByteSize(1 << 30));
    assert!(config.strict_http);
    assert_eq!(config.metrics, "127.0.0.1:9464".parse().ok());
    assert_eq!(config.worker_threads, NonZeroUsize::new(3));
    assert_eq!((config.acceleration, config.hot_bytes), (Mode::Hits, ByteSize(32 << 20)));
    assert!(config.skipped_fields.contains("x-trace") && !config.skipped_fields.contains("traceparent"));
    assert_eq!(config.excluded_uids, [7]);
    let rules = config.policy.apply(Rules::default());
    let seconds = Duration::from_secs;
    assert_eq!(rules.stale_while_revalidate, Some(seconds(30)));
    assert_eq!((rules.stale_if_error, rules.stale_after), (Some(seconds(300)), true));
    assert_eq!(*rules.negative, [(404, seconds(10)), (503, seconds(1))]);
    assert_eq!(config.policy.stale_after, Some(After(Some(StaleAfter::Auto))));
    let [a, b] = &config.workloads[..] else { panic!("{config:?}") };
    assert_eq!((a.namespace.as_str(), a.service_account.as_str()), ("shop", "web"));
    assert_eq!(a.netns.as_deref(), Some(Path::new("/run/netns/a")));
    assert_eq!((a.ports.as_slice(), a.loopback), ([80, 8080].as_slice(), true));
    assert_eq!((b.namespace.as_str(), b.service_account.as_str()), ("default", "default"));
    assert_eq!((&b.netns, b.loopback), (&None, false));
}

#[test]
fn an_empty_configuration_is_the_default() {
    assert_eq!(Config::parse("").unwrap(), Config::default());
    assert_eq!(Config::parse("# nothing\n").unwrap(), Config::default());
    assert_eq!(Config::default().excluded_uids, [1337, 2102]);
    assert_eq!(Config::default().store_bytes.to_string(), "256MiB");
}

#[test]
fn what_is_wrong_is_named_with_its_field_and_line() {
    for (text, field, line) in [
        ("profil: safe\n", "unknown field `profil`", "line 1"),
        ("strictHttp: true\nprofil: safe\n", "unknown field `profil`", "line 2"),
        (
            "workloads:\n  - name: a\n    cgroup: /a\n    port: [80]\n",
            "workloads[0]: unknown field `port`",
            "line 4",
        ),
        ("acceleration: on\n", "acceleration: unknown variant `on`", "line 1"),
        ("skippedFields: [b3, b4]\n", "skippedFields: the kernel cannot skip these fields", "line 1"),
        ("workerThreads: 0\n", "workerThreads: threads are a number from 1 to 1024", "line 1"),
        ("workerThreads: 4e3\n", "a number from 1 to 1024", "line 1"),
        ("profile: fast\n", "profile: unknown variant `fast`", "line 1"),
        ("policy:\n  staleIfErr: 5s\n", "policy: unknown field `staleIfErr`", "line 2"),
        ("policy:\n  staleAfter: soon\n", "policy.staleAfter: `soon` is no time", "line 2"),
        ("policy:\n  negative: {200: 5s}\n", "`200` is no status code from 400 to 599", "line 2"),
        ("policy:\n  negative: {403: 5s}\n", "`403` depends on who asks", "line 2"),
        ("policy:\n  negative: {404: 5}\n", "`5` is no time", "line 2"),
        ("strictHttp: false\nstoreBytes: lots\n", "storeBytes: \"lots\" is not a size", "line 2"),
        ("admin: relative.sock\n", "admin: relative.sock is not an absolute path", "line 1"),
        ("workloads:\n  - name: a\n    ports: [80]\n", "workloads[0]: missing field `cgroup`", "line 2"),
        (
            "workloads:\n  - name: a\n    cgroup: /a\n    ports: []\n",
            "workloads[0].ports: no port is named",
            "line 4",
        ),
        (
            "workloads:\n  - name: a\n    cgroup: /a\n    ports: [0]\n",
            "workloads[0].ports: a port is",
            "line 4",
        ),
        (
            "workloads:\n  - name: a\n    cgroup: /a\n    ports: [70000]\n",
            "workloads[0].ports[0]: invalid value: integer `70000`, expected u16",
            "line 4",
        ),
        ("workloads:\n  - name: ''\n", "workloads[0].name: must not be empty", "line 2"),
        (
            "workloads:\n  - name: a\n    netns: x\n",
            "workloads[0].netns: x is not an absolute path",
            "line 3",
        ),
        ("workloads: [\n", "", "line 2"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(field) && refusal.contains(line), "{text}: {refusal}");
    }
}

#[test]
fn more_ports_than_the_limit_are_refused_and_exactly_the_limit_is_not() {
    let with = |count: usize| {
        let ports: Vec<String> = (1..=count).map(|port| port.to_string()).collect();
        Config::parse(&format!("workloads: [{{name: a, cgroup: /a, ports: [{}]}}]", ports.join(", ")))
    };
    assert!(with(PORTS_MAX).is_ok());
    assert!(with(PORTS_MAX + 1).is_err());
}

#[test]
fn two_workloads_of_one_name_or_cgroup_are_refused_at_the_second() {
    let twice = FULL.replace("name: b", "name: \"a\" # again");
    assert!(
        refusal(&twice).ends_with("workloads[1].name: \"a\" is already used at line 24"),
        "{}",
        refusal(&twice)
    );
    let shared = FULL.replace("/cg/b", "/cg/a");
    assert!(refusal(&shared).ends_with("workloads[1].cgroup: \"/cg/a\" is already used at line 25"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::read(Path::new("/nonexistent/sidestep.yaml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/sidestep.yaml"), "{error}");
}

#[test]
fn the_example_that_is_shipped_is_accepted_and_shows_the_defaults() {
    let example = Config::parse(include_str!("../../../deploy/node.yaml")).unwrap();
    let defaults = Config { workloads: example.workloads.clone(), ..Config::default() };
    assert_eq!(example, defaults);
    assert_eq!(example.workloads.len(), 1);
}
