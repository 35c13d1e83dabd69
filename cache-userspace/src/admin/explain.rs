//! What `POST /v1/explain` takes and answers: why a request would or would not be answered from the store.
//!
//! Only the words of the question are judged here; the answer is made by `request::explain`, printed by `cli`.
//! Durations are in whole seconds. Values of fields that may be secrets are never part of an answer.

use std::net::{IpAddr, SocketAddr};

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::Position;
use crate::http1::scan::is_token;

/// Bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;
/// The port of `http` (RFC 9110 §4.2.1).
const DEFAULT_PORT: u16 = 80;

/// A request that is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// The URL, absolute.
    pub url: String,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// Request fields, names and values; a Host among them takes the place of the URL's.
    #[serde(default)]
    pub fields: Vec<(String, String)>,
    /// The address that the workload connects to; without it the URL's, else those that are known.
    #[serde(default)]
    pub destination: Option<SocketAddr>,
    /// The workload that asks; without it every one.
    #[serde(default)]
    pub workload: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// A question that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The authority of the URL.
    pub authority: String,
    /// The port that is connected to.
    pub port: u16,
    /// The address that is connected to, where the URL or the question names it.
    pub destination: Option<SocketAddr>,
    /// The target in origin-form (RFC 9112 §3.2.1).
    pub target: String,
}

/// Says why a question makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// The URL cannot be read.
    #[error("`{0}` is not a URL such as http://host:port/path")]
    Url(String),
    /// The URL is of another scheme.
    #[error("only http is cached: {0} is relayed unread")]
    Scheme(String),
    /// The URL holds a user's name or password.
    #[error("leave user and password out of the URL; `--request-header 'Authorization: …'` stands for them")]
    UserInfo,
    /// The method is no token.
    #[error("`{0}` is not a method")]
    Method(String),
    /// A field is none.
    #[error("`{0}` is not a header field such as `Accept-Language: de`")]
    Field(String),
    /// No such workload is enrolled.
    #[error("no workload `{name}` is enrolled here; enrolled are: {enrolled}")]
    Workload {
        /// The name.
        name: String,
        /// Those that are.
        enrolled: String,
    },
}

impl Question {
    /// Reads the URL, the method and the fields.
    ///
    /// # Errors
    /// `BadQuestion` says which of them cannot be meant.
    pub fn read(&self) -> Result<Asked, BadQuestion> {
        let bad_url = || BadQuestion::Url(self.url.clone());
        let url: Uri = self.url.parse().map_err(|_| bad_url())?;
        match url.scheme_str() {
            Some("http") => {}
            Some(scheme) => return Err(BadQuestion::Scheme(scheme.to_owned())),
            None => return Err(bad_url()),
        }
        let authority = url.authority().ok_or_else(bad_url)?;
        if authority.as_str().contains('@') {
            return Err(BadQuestion::UserInfo);
        }
        // A port that is no number is no port to http::Uri either.
        let has_port = authority.as_str().ends_with(':') || authority.port_u16().is_some();
        if authority.host().is_empty() || (authority.as_str() != authority.host() && !has_port) {
            return Err(bad_url());
        }
        if !is_name(&self.method) {
            return Err(BadQuestion::Method(self.method.clone()));
        }
        for (name, value) in &self.fields {
            if !is_name(name) || value.contains(['\r', '\n', '\0']) {
                return Err(BadQuestion::Field(format!("{name}: {value}")));
            }
        }
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        // RFC 9112 §3.2.1: an empty path is sent as "/".
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let ip = authority.host().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        Ok(Asked {
            authority: authority.as_str().to_owned(),
            port: self.destination.map_or(port, |destination| destination.port()),
            destination: self.destination.or_else(|| Some(SocketAddr::new(ip.ok()?, port))),
            target,
        })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token)
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The URL that was asked about.
    pub url: String,
    /// The method.
    pub method: String,
    /// What the kernel follows now.
    pub switch: Position,
    /// The rules in force.
    pub rules: RulesInForce,
    /// Why such a request is not looked up, where it is not.
    pub not_looked_up: Option<Why>,
    /// The keys that it may have, by workload and destination.
    pub keys: Vec<Key>,
    /// Whether these are all that are known; there may be more than are listed.
    pub is_complete: bool,
    /// What else there is to say, a sentence each.
    pub notes: Vec<String>,
}

/// A reason with its sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The word, as in Cache-Status.
    pub reason: String,
    /// A sentence.
    pub words: String,
}

/// The rules that decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RulesInForce {
    /// The profile.
    pub profile: String,
    /// How long a response stays usable at most.
    pub resident_seconds_max: u64,
    /// The largest content that is stored.
    pub object_bytes_max: u64,
    /// stale-while-revalidate of responses that say nothing of it.
    pub stale_while_revalidate_seconds: Option<u64>,
    /// stale-if-error of responses that say nothing of it.
    pub stale_if_error_seconds: Option<u64>,
    /// Whether a stale response may be given when the origin server is late.
    pub stale_after: bool,
    /// Status codes of errors and the lifetime of those that say nothing.
    pub negative_seconds: Vec<(u16, u64)>,
}

/// The CachePolicy that holds for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyInForce {
    /// Its namespace and name.
    pub name: String,
    /// What decides with it.
    pub rules: RulesInForce,
}

/// One primary key and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Kubernetes namespace of the partition.
    pub namespace: String,
    /// Kubernetes service account of the partition.
    pub service_account: String,
    /// Cookie of the network namespace of the partition.
    pub netns_cookie: u64,
    /// How the service stands, of whose responses it is: another number after each change (MESH.md S6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What holds for the service by a CachePolicy, instead of the general rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyInForce>,
    /// The enrolled workloads that share the partition.
    pub workloads: Vec<String>,
    /// The destination's identity.
    pub destination: String,
    /// The authority.
    pub authority: String,
    /// The target.
    pub target: String,
    /// What would become of the request.
    pub verdict: Verdict,
    /// The stored responses, the oldest first.
    pub variants: Vec<Variant>,
    /// The last answer, if it was not stored and that was a short while ago.
    pub last_refusal: Option<LastRefusal>,
    /// Forward requests under way that others may join.
    pub forwards_under_way: usize,
    /// What else there is to say, a sentence each.
    pub notes: Vec<String>,
}

/// What would become of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// The parameters that Cache-Status would have now; empty where the request does not come here.
    pub cache_status: String,
    /// Which of the variants it is about, counted from 1.
    pub variant: Option<usize>,
    /// One or two sentences.
    pub words: String,
}

/// What would become of a request, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is answered from the store.
    Hit,
    /// It is answered from the store and what is stored is validated besides.
    StaleWhileRevalidate,
    /// The origin is asked whether what is stored still holds.
    Validate,
    /// It is forwarded; the answer may be stored.
    Forward,
    /// It is forwarded without a look-up.
    Bypass,
    /// It is answered 504.
    GatewayTimeout,
    /// Its connection goes direct.
    Direct,
}

/// One stored response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// The status code.
    pub status: u16,
    /// Bytes of its content.
    pub content_bytes: u64,
    /// First and last byte and the length of the whole, of a part.
    pub part: Option<(u64, u64, u64)>,
    /// Whether no purge or unsafe request has killed it.
    pub is_alive: bool,
    /// Whether the request's fields select it (RFC 9111 §4.1).
    pub is_selected: bool,
    /// The request fields that it varies on.
    pub selected_by: Vec<Nominated>,
    /// How long ago it arrived or was last validated.
    pub stored_seconds_ago: u64,
    /// Its Date.
    pub date: String,
    /// Its current age (RFC 9111 §4.2.3).
    pub age_seconds: u64,
    /// Its freshness lifetime.
    pub lifetime_seconds: u64,
    /// What gave it the lifetime, in one word.
    pub lifetime_source: String,
    /// The same in a few words.
    pub lifetime_words: String,
    /// How much longer it is fresh: lifetime less age, negative where it is stale.
    pub ttl_seconds: i64,
    /// How much longer it may be given as fresh: also bounded by the time that anything stays, and by no-cache.
    pub fresh_for_seconds: u64,
    /// Its stale-while-revalidate, or that of the rules.
    pub stale_while_revalidate_seconds: Option<u64>,
    /// Its stale-if-error, or that of the rules.
    pub stale_if_error_seconds: Option<u64>,
    /// Its ETag.
    pub etag: Option<String>,
    /// Its Last-Modified.
    pub last_modified: Option<String>,
    /// What else binds it: no-cache, must-revalidate, immutable, shared-with-authorization, shared-with-cookies.
    pub flags: Vec<String>,
}

/// A request field that a stored response varies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nominated {
    /// Its name, lower-cased.
    pub name: String,
    /// Its value; none where the field was absent or the value is hidden.
    pub value: Option<String>,
    /// Whether the value is hidden, for it may be a secret.
    pub is_hidden: bool,
}

/// Why the last answer was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastRefusal {
    /// The word, as in Cache-Status.
    pub reason: String,
    /// A sentence.
    pub words: String,
    /// How long ago.
    pub seconds_ago: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(url: &str) -> Question {
        Question { url: url.to_owned(), method: get(), ..Question::default() }
    }

    #[test]
    fn a_url_tells_authority_target_and_where_it_can_the_destination() {
        for (url, authority, target, port, destination) in [
            ("http://a.test", "a.test", "/", 80, None),
            ("http://A.test:8080/x?y=%20#z", "A.test:8080", "/x?y=%20", 8080, None),
            ("HTTP://a.test?y", "a.test", "/?y", 80, None),
            ("http://10.0.0.7/", "10.0.0.7", "/", 80, Some("10.0.0.7:80")),
            ("http://[::1]:81/a", "[::1]:81", "/a", 81, Some("[::1]:81")),
        ] {
            let asked = ask(url).read().unwrap();
            let destination = destination.map(|destination| destination.parse().unwrap());
            let expected = Asked { authority: authority.into(), port, destination, target: target.into() };
            assert_eq!(asked, expected, "{url}");
        }
        let elsewhere = Question { destination: Some(([10, 0, 0, 8], 81).into()), ..ask("http://10.0.0.7/") };
        let asked = elsewhere.read().unwrap();
        assert_eq!((asked.port, asked.destination), (81, elsewhere.destination));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for url in
            ["", "/a", "a.test/a", "http://", "http:///a", "http://a b/", "http://a:x/", "http://a:99999/"]
        {
            assert_eq!(ask(url).read(), Err(BadQuestion::Url(url.to_owned())), "{url}");
        }
        assert_eq!(ask("https://a/").read(), Err(BadQuestion::Scheme("https".to_owned())));
        assert_eq!(ask("http://u:p@a/").read(), Err(BadQuestion::UserInfo));
        for method in ["", "GE T", "é"] {
            let question = Question { method: method.to_owned(), ..ask("http://a/") };
            assert_eq!(question.read(), Err(BadQuestion::Method(method.to_owned())));
        }
        for (name, value) in [("", "x"), ("a b", "x"), ("a", "x\r\ny: z"), ("a", "\0")] {
            let fields = vec![(name.to_owned(), value.to_owned())];
            let question = Question { fields, ..ask("http://a/") };
            assert!(matches!(question.read(), Err(BadQuestion::Field(_))), "{name}: {value}");
        }
    }
}
