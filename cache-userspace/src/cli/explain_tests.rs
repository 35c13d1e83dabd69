//! What people see of an explanation, and which command lines are understood.

use clap::Parser;

use super::*;
use crate::admin::Position;
use crate::admin::explain::{LastRefusal, Nominated, Outcome, Verdict, Why};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    explain: Explain,
}

fn explanation() -> Explanation {
    Explanation {
        url: "http://shop.test/list".to_owned(),
        method: "GET".to_owned(),
        switch: Position::On,
        rules: RulesInForce {
            profile: "safe".to_owned(),
            resident_seconds_max: 60,
            object_bytes_max: 1000,
            stale_while_revalidate_seconds: None,
            stale_if_error_seconds: Some(30),
            stale_after: false,
            negative_seconds: vec![(404, 5)],
        },
        not_looked_up: None,
        keys: vec![Key {
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            netns_cookie: 7,
            epoch: None,
            policy: None,
            workloads: vec!["a".to_owned(), "b".to_owned()],
            destination: "10.0.0.7:80".to_owned(),
            authority: "shop.test".to_owned(),
            target: "/list".to_owned(),
            verdict: Verdict {
                outcome: Outcome::Hit,
                cache_status: "hit".to_owned(),
                variant: Some(1),
                words: "It would be answered from the store: fresh for another 42 s.".to_owned(),
            },
            variants: vec![variant()],
            last_refusal: Some(LastRefusal {
                reason: "private".to_owned(),
                words: "The response says `private` (RFC 9111 §5.2.2.7).".to_owned(),
                seconds_ago: 12,
            }),
            forwards_under_way: 1,
            notes: vec!["A note.".to_owned()],
        }],
        is_complete: false,
        notes: Vec::new(),
    }
}

fn variant() -> Variant {
    Variant {
        status: 200,
        content_bytes: 5,
        part: None,
        is_alive: true,
        is_selected: true,
        selected_by: vec![
            Nominated { name: "accept-language".to_owned(), value: Some("de".to_owned()), is_hidden: false },
            Nominated { name: "cookie".to_owned(), value: None, is_hidden: true },
            Nominated { name: "dnt".to_owned(), value: None, is_hidden: false },
        ],
        stored_seconds_ago: 18,
        date: "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        age_seconds: 18,
        lifetime_seconds: 60,
        lifetime_source: "max-age".to_owned(),
        lifetime_words: "explicit, by max-age (RFC 9111 §5.2.2.1)".to_owned(),
        ttl_seconds: 42,
        fresh_for_seconds: 42,
        stale_while_revalidate_seconds: None,
        stale_if_error_seconds: Some(30),
        etag: Some("\"x\"".to_owned()),
        last_modified: None,
        flags: vec!["must-revalidate".to_owned()],
    }
}

#[test]
fn an_explanation_is_a_page_that_a_person_reads() {
    assert_eq!(
        text(&explanation()),
        "\
GET http://shop.test/list
switch      on
rules       profile safe; nothing is used unasked for longer than 60 s; content up to 1000 bytes; stale-if-error 30 s; \
         404 for 5 s
look-up     yes

key         namespace shop, service account web, network namespace 7 (workloads: a, b)
            destination 10.0.0.7:80, authority shop.test, target /list
verdict     It would be answered from the store: fresh for another 42 s. (variant 1)
            Cache-Status: sidestep; hit
under way   forward requests that others may join: 1
last answer not stored (private), 12 s ago: The response says `private` (RFC 9111 §5.2.2.7).
variant 1   200, 5 bytes, stored 18 s ago, Date Sun, 06 Nov 1994 08:49:37 GMT
            age 18 s, lifetime 60 s (explicit, by max-age (RFC 9111 §5.2.2.1)): fresh for another 42 s
            varies on accept-language: de, cookie (not shown), dnt (absent): this request selects it
            validators: ETag \"x\"
            stale-if-error 30 s, must-revalidate
note        A note.

note        There is more than is listed; name one with --workload and --destination.
"
    );
}

#[test]
fn what_is_not_looked_up_is_said_first() {
    let why = Why { reason: "method".to_owned(), words: "The method is not GET.".to_owned() };
    let explanation = Explanation { not_looked_up: Some(why), ..explanation() };
    assert!(text(&explanation).contains("\nlook-up     no (method): The method is not GET.\n"));
}

#[test]
fn freshness_and_what_bounds_it_are_told_apart() {
    let of = |ttl_seconds, fresh_for_seconds, flags: &[&str]| {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let said = freshness(&Variant { ttl_seconds, fresh_for_seconds, flags, ..variant() });
        said.split_once("): ").map(|(_, after)| after.to_owned()).unwrap()
    };
    assert_eq!(of(42, 42, &[]), "fresh for another 42 s");
    assert_eq!(of(41, 42, &[]), "fresh for another 42 s");
    assert_eq!(of(99, 42, &[]), "fresh for another 42 s, until its stay here ends");
    assert_eq!(of(99, 0, &[]), "fresh, but it has been here too long to be used unasked");
    assert_eq!(of(-3, 0, &[]), "stale for 3 s");
    assert_eq!(of(99, 0, &["no-cache"]), "validated before each use");
}

#[test]
fn the_command_line_is_understood() {
    let cli = Cli::parse_from([
        "explain",
        "http://a.test/",
        "--request-header",
        "Accept-Language:  de ",
        "-H",
        "X-Time: 10:30",
        "--destination",
        "[::1]:8080",
        "--workload",
        "w",
        "--method",
        "HEAD",
        "-o",
        "json",
    ]);
    let expected = [("Accept-Language", "de"), ("X-Time", "10:30")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(cli.explain.fields, expected);
    assert_eq!(cli.explain.destination, Some("[::1]:8080".parse().unwrap()));
    assert_eq!((cli.explain.method.as_str(), cli.explain.output), ("HEAD", Output::Json));
    for wrong in [["--request-header", "nothing"], ["--destination", "a.test:80"]] {
        assert!(
            Cli::try_parse_from(["explain", "http://a.test/"].iter().chain(&wrong)).is_err(),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_request_that_makes_no_sense_is_refused_before_a_daemon_is_sought() {
    let run = |words: &[&str]| Cli::parse_from(["explain"].iter().chain(words)).explain.run();
    assert!(run(&["a.test/x"]).unwrap_err().to_string().contains("not a URL such as http://host:port/path"));
    assert!(run(&["https://a.test/"]).unwrap_err().to_string().starts_with("only http is cached"));
    assert!(run(&["http://a/", "-H", "a b: c"]).unwrap_err().to_string().contains("not a header field"));
}
