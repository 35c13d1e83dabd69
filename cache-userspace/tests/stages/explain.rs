//! What `explain` says of requests through the real path: the same that then becomes of them.

use sidestep::admin::Position;
use sidestep::admin::explain::{Explanation, Key, Outcome};
use sidestep::policy::{Profile, Rules};

use crate::simulated::{Client, Node, Origin, Wire, get, ok, post, settled};

/// A node that has passed the answer to `/a` on, with the connections that brought it.
async fn answered(node: &Node, origin: &Origin, fields: &str) -> (Client, Wire) {
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok(fields, "content")).await;
    client.response("GET").await;
    (client, server)
}

fn only_key(explanation: &Explanation) -> &Key {
    let [key] = explanation.keys.as_slice() else { panic!("not one key: {explanation:?}") };
    key
}

#[tokio::test]
async fn a_hit_is_foretold_with_its_key_its_age_and_what_made_it_fresh() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let fields = "Cache-Control: max-age=50, stale-if-error=9\r\nETag: \"a\"\r\nAge: 7\r\n";
    let (mut client, _server) = answered(&node, &origin, fields).await;

    let explanation = node.explain("/a", &[]);

    let key = only_key(&explanation);
    assert_eq!((key.namespace.as_str(), key.service_account.as_str()), ("default", "default"));
    assert_eq!((key.workloads.as_slice(), key.netns_cookie), (&["simulated".to_owned()][..], 1));
    assert_eq!(key.destination, origin.address().to_string());
    assert_eq!((key.authority.as_str(), key.target.as_str()), ("origin.test", "/a"));
    let verdict = &key.verdict;
    assert_eq!((verdict.outcome, verdict.cache_status.as_str()), (Outcome::Hit, "hit"));
    assert_eq!(verdict.variant, Some(1));
    assert!(
        verdict.words.starts_with("It would be answered from the store: fresh for another "),
        "{verdict:?}"
    );
    let [variant] = key.variants.as_slice() else { panic!("{key:?}") };
    assert!(variant.is_alive && variant.is_selected && (7..20).contains(&variant.age_seconds), "{variant:?}");
    assert_eq!((variant.status, variant.content_bytes, variant.lifetime_seconds), (200, 7, 50));
    assert_eq!((variant.lifetime_source.as_str(), variant.stale_if_error_seconds), ("max-age", Some(9)));
    assert_eq!(variant.etag.as_deref(), Some("\"a\""));
    assert_eq!(client.get("/a").await.cache_status(), verdict.cache_status);
    assert_eq!(node.figures().requests, 2, "explaining is no request");
}

#[tokio::test]
async fn a_variant_that_is_not_selected_is_told_by_the_field_that_differs() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (_client, _server) =
        answered(&node, &origin, "Cache-Control: max-age=60\r\nVary: Accept-Language, X-Api-Key\r\n").await;

    let explanation = node.explain("/a", &[("Accept-Language", "de"), ("X-Api-Key", "hunter2")]);

    let key = only_key(&explanation);
    assert_eq!(key.verdict.cache_status, "fwd=vary-miss");
    assert_eq!(
        key.verdict.words,
        "It would be forwarded: no stored variant was selected by accept-language: de, this x-api-key."
    );
    assert!(!key.variants[0].is_selected);
}

#[tokio::test]
async fn secrets_that_select_are_named_and_not_shown() {
    let origin = Origin::new().await;
    let node = Node::by(Rules { profile: Profile::Rfc9111, ..Rules::default() }, &origin);
    let mut client = node.client().await;
    client.send("GET /a HTTP/1.1\r\nHost: origin.test\r\nCookie: id=hunter2\r\n\r\n").await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send(ok("Cache-Control: max-age=60\r\nVary: Cookie\r\n", "content")).await;
    client.response("GET").await;

    let explanation = node.explain("/a", &[("Cookie", "id=other-secret")]);

    let key = only_key(&explanation);
    assert!(key.variants[0].selected_by[0].is_hidden && key.variants[0].selected_by[0].name == "cookie");
    assert!(key.verdict.words.contains("this cookie"), "{key:?}");
    let all = format!("{explanation:?}");
    assert!(!all.contains("hunter2") && !all.contains("other-secret"), "{all}");
}

#[tokio::test]
async fn what_was_not_stored_is_explained_by_the_reason() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let before = node.explain("/a", &[]);
    assert!(before.keys.is_empty() && before.notes[0].contains("--destination"), "{before:?}");
    let (_client, _server) = answered(&node, &origin, "Cache-Control: private, max-age=60\r\n").await;

    let explanation = node.explain("/a", &[]);

    let key = only_key(&explanation);
    assert_eq!(key.verdict.cache_status, "fwd=uri-miss");
    let last = key.last_refusal.as_ref().unwrap();
    assert_eq!(last.reason, "private");
    assert_eq!(last.words, "The response says `private` (RFC 9111 §5.2.2.7).");
    assert!(last.seconds_ago < 20);
    let other = node.explain("/b", &[]);
    assert_eq!((only_key(&other).last_refusal.as_ref(), only_key(&other).target.as_str()), (None, "/b"));
    assert!(only_key(&other).notes[0].starts_with("To be stored, an answer must say"), "{other:?}");
}

#[tokio::test]
async fn an_answer_that_broke_off_is_explained_and_the_next_requests_still_collapse() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    server.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nhal").await;
    client.head_only().await;
    drop(server);
    client.die().await;
    node.reaches(|figures| figures.not_stored == 1).await;

    assert_eq!(only_key(&node.explain("/a", &[])).last_refusal.as_ref().unwrap().reason, "incomplete");

    let (mut one, mut other) = (node.client().await, node.client().await);
    one.send(get("/a")).await;
    let mut server = origin.connection().await;
    server.request().await;
    assert_eq!(only_key(&node.explain("/a", &[])).forwards_under_way, 1);
    other.send(get("/a")).await;
    settled().await;
    server.send(ok("Cache-Control: max-age=60\r\n", "whole")).await;
    assert_eq!(one.response("GET").await.text(), "whole");
    assert_eq!(other.response("GET").await.text(), "whole");
    assert_eq!(node.figures().collapsed, 1);
    let explanation = node.explain("/a", &[]);
    assert_eq!(only_key(&explanation).last_refusal, None);
    assert_eq!(only_key(&explanation).verdict.outcome, Outcome::Hit);
}

#[tokio::test]
async fn an_answer_for_several_queries_that_broke_off_is_explained_by_the_one_that_asked() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let mut client = node.client().await;
    client.send(get("/a?b")).await;
    let mut server = origin.connection().await;
    server.request().await;
    let head =
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nNo-Vary-Search: params\r\nContent-Length: 9\r\n\r\n";
    server.send(format!("{head}hal")).await;
    client.head_only().await;
    drop(server);
    client.die().await;
    node.reaches(|figures| figures.not_stored == 1).await;

    let explanation = node.explain("/a?b", &[]);

    assert_eq!(only_key(&explanation).last_refusal.as_ref().map(|last| &last.reason[..]), Some("incomplete"));
}

#[tokio::test]
async fn what_answers_several_queries_is_explained_with_what_answers_this_one_alone() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut client, mut server) = answered(&node, &origin, "").await;
    let several = "Cache-Control: max-age=60\r\nNo-Vary-Search: params=(\"utm\")\r\n";
    client
        .get_from(
            "/p?a=1",
            &mut server,
            &ok("Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"o\"\r\n", "own"),
        )
        .await;
    client.get_from("/p?a=1&utm=x", &mut server, &ok(several, "any")).await;
    client.get_from("/p?a=2&utm=x", &mut server, &ok(several, "other")).await;

    let explanation = node.explain("/p?a=1", &[]);

    let key = only_key(&explanation);
    assert_eq!((key.target.as_str(), key.variants.len()), ("/p?a=1", 2));
    let answer = client.get("/p?a=1").await;
    assert_eq!((answer.text().as_str(), answer.cache_status()), ("any", key.verdict.cache_status.as_str()));
    assert_eq!(key.verdict.variant, Some(2));
    assert!(node.explain("/p?a=3", &[]).keys.iter().all(|key| key.variants.is_empty()));
}

#[tokio::test]
async fn a_query_is_not_explained_by_what_answers_a_get_rfc10008_2_7() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (_client, _server) = answered(&node, &origin, "Cache-Control: max-age=60\r\n").await;
    let url = format!("http://origin.test:{}/a", origin.address().port());

    let explanation = node.explain_by("QUERY", &url, &[]).unwrap();

    let key = only_key(&explanation);
    assert_eq!((key.verdict.cache_status.as_str(), key.variants.len()), ("fwd=uri-miss", 0));
}

#[tokio::test]
async fn a_validation_is_foretold_and_what_comes_of_it_without_the_origin() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let fields = "Cache-Control: max-age=60, must-revalidate\r\nAge: 63\r\nETag: \"a\"\r\n";
    let (_client, _server) = answered(&node, &origin, fields).await;
    let explanation = node.explain("/a", &[]);
    let verdict = &only_key(&explanation).verdict;
    assert_eq!((verdict.outcome, verdict.cache_status.as_str()), (Outcome::Validate, "fwd=stale"));
    assert!(verdict.words.contains("what is stored became stale "), "{verdict:?}");
    assert!(verdict.words.contains("the client gets 504 (RFC 9111 §5.2.2.2)"), "{verdict:?}");

    let impossible = node.explain("/a", &[("Cache-Control", "only-if-cached")]);
    assert_eq!(only_key(&impossible).verdict.outcome, Outcome::GatewayTimeout);
}

#[tokio::test]
async fn each_wish_of_the_request_is_heeded() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let fields = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
    let (_client, _server) = answered(&node, &origin, fields).await;
    for (field, cache_status, words) in [
        (("Cache-Control", "no-cache"), "fwd=request", "but the request says cache-control: no-cache"),
        (("Cache-Control", "no-store"), "fwd=request; detail=request-no-store", "without a look-up"),
        (("Authorization", "Basic x"), "fwd=request", "for requests with credentials"),
        (("Range", "bytes=900-"), "fwd=request", "cannot answer this Range"),
        (("If-None-Match", "\"a\""), "hit", "With 304: the client has it already"),
        (("Upgrade", "websocket"), "fwd=bypass; detail=upgrade", "wants another protocol"),
    ] {
        let explanation = node.explain("/a", &[field]);
        let verdict = &only_key(&explanation).verdict;
        assert_eq!(verdict.cache_status, cache_status, "{field:?}: {verdict:?}");
        assert!(verdict.words.contains(words), "{field:?}: {verdict:?}");
        assert!(!verdict.words.contains("Basic"), "{verdict:?}");
    }
    assert_eq!(node.explain("/health", &[]).not_looked_up.unwrap().reason, "health-path");
}

#[tokio::test]
async fn what_an_unsafe_request_killed_is_listed_as_dead() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (mut client, mut server) = answered(&node, &origin, "Cache-Control: max-age=60\r\n").await;
    client.send(post("/a", "x")).await;
    server.request().await;
    server.send(ok("", "done")).await;
    client.response("POST").await;

    let explanation = node.explain("/a", &[]);

    let key = only_key(&explanation);
    assert!(!key.variants[0].is_alive);
    assert_eq!(key.verdict.cache_status, "fwd=uri-miss");
    assert!(key.notes[0].contains("RFC 9111 §4.4"), "{key:?}");
}

#[tokio::test]
async fn the_switch_and_what_never_comes_here_are_told() {
    let origin = Origin::new().await;
    let node = Node::before(&origin);
    let (_client, _server) = answered(&node, &origin, "Cache-Control: max-age=60\r\n").await;
    let elsewhere = node.explain_to("http://10.0.0.7:81/a", &[]).unwrap();
    assert!(only_key(&elsewhere).notes[0].ends_with("go direct: it is not intercepted."), "{elsewhere:?}");
    let verdict = &only_key(&elsewhere).verdict;
    assert_eq!((verdict.outcome, verdict.cache_status.as_str()), (Outcome::Direct, ""));

    node.switch(false);

    let explanation = node.explain("/a", &[]);
    assert_eq!(explanation.switch, Position::Off);
    assert_eq!(only_key(&explanation).verdict.cache_status, "fwd=bypass; detail=off");
    assert_eq!(only_key(&explanation).variants.len(), 1);
}
