//! A response as a client received it, with how it ended.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::hex;
use crate::wire::Head;

/// What the client got for one request.
#[derive(Clone, Default)]
pub struct Response {
    pub(crate) head: Head,
    pub(crate) interim: Vec<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) length: u64,
    pub(crate) first_wrong: Option<u64>,
    pub(crate) framing: String,
    pub(crate) trailers: String,
    pub(crate) end: String,
}

impl fmt::Debug for Response {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text().chars().take(200).collect();
        let (head, end, length) = (&self.head, &self.end, self.length);
        write!(out, "{end}: {:?} {head:?} {length} bytes {shown:?} {:?}", self.interim, self.trailers)
    }
}

impl Response {
    /// The status code; 0 where there is no response.
    pub fn status(&self) -> u16 {
        self.head.word(1).parse().unwrap_or(0)
    }

    /// The head as text, with its empty line.
    pub fn head_text(&self) -> String {
        self.head.text()
    }

    /// Names and values in order, names spelled as they came.
    pub fn fields(&self) -> &[(String, String)] {
        self.head.fields()
    }

    /// The first value of a field, by name in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The content, up to 64 KiB of it.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Bytes of content received.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether the content is the first `length` bytes of [`crate::pattern`].
    pub fn is_pattern(&self, length: u64) -> bool {
        self.length == length && self.first_wrong.is_none()
    }

    /// How the content was framed: `length`, `chunked` or `close`.
    pub fn framing(&self) -> &str {
        &self.framing
    }

    /// The trailer section, raw.
    pub fn trailers(&self) -> &str {
        &self.trailers
    }

    /// The heads of the interim (1xx) responses before it.
    pub fn interim(&self) -> &[String] {
        &self.interim
    }

    /// `complete`, or why it broke off: `eof`, `reset`, `timeout`, `broken: …`.
    pub fn end(&self) -> &str {
        &self.end
    }

    /// Whether head and content came whole.
    pub fn complete(&self) -> bool {
        self.end == "complete"
    }

    /// The Cache-Status field, or nothing.
    pub fn cache_status(&self) -> &str {
        self.field("cache-status").unwrap_or_default()
    }

    /// Whether Sidestep says that it answered from its store.
    pub fn is_hit(&self) -> bool {
        self.cache_status().starts_with("sidestep; hit")
    }

    /// Whether it is a hit that was given inside the kernel, which writes an age with eight digits.
    pub fn is_by_kernel(&self) -> bool {
        self.is_hit() && self.field("age").is_some_and(|age| age.len() == 8)
    }

    /// Whether it is the last one of its connection.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|option| option.eq_ignore_ascii_case("close"))
    }

    /// Whether Sidestep says that it had a hand in it.
    pub fn passed_through_cache(&self) -> bool {
        self.cache_status().starts_with("sidestep")
    }

    /// The value of `Age` in seconds, if there is one.
    pub fn age(&self) -> Option<u64> {
        self.field("age")?.parse().ok()
    }

    /// The response itself where it is complete and has this status; otherwise an error that shows it.
    pub fn expect(self, status: u16) -> Result<Self> {
        let text = self.text();
        let shown: String = text.chars().take(200).collect();
        ensure!(
            self.complete() && self.status() == status,
            "expected a complete {status}, got ({})\n{}{shown}",
            self.end,
            self.head_text()
        );
        Ok(self)
    }

    /// The message in which an agent hands it to its test.
    pub fn to_json(&self) -> Value {
        json!({
            "head": hex::encode(self.head.raw()), "interim": self.interim, "body": hex::encode(&self.body),
            "length": self.length, "first_wrong": self.first_wrong, "framing": self.framing,
            "trailers": self.trailers, "end": self.end,
        })
    }

    /// Reads such a message.
    pub fn from_json(value: &Value) -> Result<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        let raw = hex::decode(&text("head")?)?;
        let interim = value["interim"].as_array().context("no interim")?;
        Ok(Self {
            head: if raw.is_empty() { Head::default() } else { Head::parse(&raw) },
            interim: interim.iter().filter_map(|head| head.as_str().map(str::to_owned)).collect(),
            body: hex::decode(&text("body")?)?,
            length: value["length"].as_u64().context("no length")?,
            first_wrong: value["first_wrong"].as_u64(),
            framing: text("framing")?,
            trailers: text("trailers")?,
            end: text("end")?,
        })
    }
}
