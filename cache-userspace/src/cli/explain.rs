//! `sidestep explain`: why a request would or would not be answered from the cache, in words a person understands.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::{Output, daemon, print, runtime};
use crate::admin::client::AdminClient;
use crate::admin::explain::{Explanation, Key, Question, RulesInForce, Variant};

/// Time for an answer: a large store is walked through.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Says what would become of a request now, what is stored for it, and why; sends nothing to the origin.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The URL, for example http://shop.example/list?page=2
    #[arg(value_name = "URL")]
    pub url: String,
    /// A field of the request, for example 'Accept-Language: de'; repeat for more.
    #[arg(short = 'H', long = "request-header", value_name = "NAME: VALUE", value_parser = field)]
    pub fields: Vec<(String, String)>,
    /// The request's method.
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// The address that the workload connects to, by default the URL's own or those that are known.
    #[arg(long, value_name = "IP:PORT")]
    pub destination: Option<SocketAddr>,
    /// The workload that asks, by default any.
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
    /// The daemon's admin socket, by default admin.sock in the state directory or the only one there.
    #[arg(long, value_name = "SOCK")]
    pub admin: Option<PathBuf>,
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: Output,
}

impl Explain {
    /// Asks and prints.
    ///
    /// # Errors
    /// Where the request makes no sense, no daemon is found, or it does not answer.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { url, fields, method, destination, workload, admin, output } = self;
        let question = Question { url, method, fields, destination, workload };
        question.read()?;
        let client = AdminClient::new(&daemon(admin)?).with_timeout(TIMEOUT);
        let explanation = runtime()?.block_on(client.explain(&question))?;
        print(&match output {
            Output::Text => text(&explanation),
            Output::Json => serde_json::to_string_pretty(&explanation).context("cannot print")? + "\n",
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn field(line: &str) -> Result<(String, String), &'static str> {
    let (name, value) = line.split_once(':').ok_or("want `Name: value`")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Lines of a word in the margin and what it is about.
struct Lines(String);

impl Lines {
    fn line(&mut self, margin: &str, text: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{margin:<12}{text}");
    }
}

fn text(explanation: &Explanation) -> String {
    let mut lines = Lines(format!("{} {}\n", explanation.method, explanation.url));
    lines.line("switch", explanation.switch.word());
    lines.line("rules", rules(&explanation.rules));
    match &explanation.not_looked_up {
        Some(why) => lines.line("look-up", format_args!("no ({}): {}", why.reason, why.words)),
        None => lines.line("look-up", "yes"),
    }
    for key in &explanation.keys {
        lines.0.push('\n');
        describe(key, &mut lines);
    }
    let more = "There is more than is listed; name one with --workload and --destination.".to_owned();
    let notes = explanation.notes.iter().chain((!explanation.is_complete).then_some(&more));
    for (index, note) in notes.enumerate() {
        if index == 0 {
            lines.0.push('\n');
        }
        lines.line("note", note);
    }
    lines.0
}

fn rules(rules: &RulesInForce) -> String {
    let mut text = format!(
        "profile {}; nothing is used unasked for longer than {} s; content up to {} bytes",
        rules.profile, rules.resident_seconds_max, rules.object_bytes_max
    );
    if let Some(seconds) = rules.stale_while_revalidate_seconds {
        let _ = write!(text, "; stale-while-revalidate {seconds} s");
    }
    if let Some(seconds) = rules.stale_if_error_seconds {
        let _ = write!(text, "; stale-if-error {seconds} s");
    }
    if rules.stale_after {
        text.push_str("; stale instead of late");
    }
    for (status, seconds) in &rules.negative_seconds {
        let _ = write!(text, "; {status} for {seconds} s");
    }
    text
}

fn describe(key: &Key, lines: &mut Lines) {
    let workloads = if key.workloads.is_empty() { "none".to_owned() } else { key.workloads.join(", ") };
    lines.line(
        "key",
        format_args!(
            "namespace {}, service account {}, network namespace {} (workloads: {workloads})",
            key.namespace, key.service_account, key.netns_cookie
        ),
    );
    lines.line(
        "",
        format_args!("destination {}, authority {}, target {}", key.destination, key.authority, key.target),
    );
    if let Some(policy) = &key.policy {
        lines.line("policy", format_args!("{}: {}", policy.name, rules(&policy.rules)));
    }
    let verdict = &key.verdict;
    let variant = verdict.variant.map(|number| format!(" (variant {number})")).unwrap_or_default();
    lines.line("verdict", format_args!("{}{variant}", verdict.words));
    if !verdict.cache_status.is_empty() {
        lines.line("", format_args!("Cache-Status: sidestep; {}", verdict.cache_status));
    }
    if key.forwards_under_way > 0 {
        lines.line(
            "under way",
            format_args!("forward requests that others may join: {}", key.forwards_under_way),
        );
    }
    if let Some(last) = &key.last_refusal {
        lines.line(
            "last answer",
            format_args!("not stored ({}), {} s ago: {}", last.reason, last.seconds_ago, last.words),
        );
    }
    for (index, variant) in key.variants.iter().enumerate() {
        describe_variant(index + 1, variant, lines);
    }
    for note in &key.notes {
        lines.line("note", note);
    }
}

fn describe_variant(number: usize, variant: &Variant, lines: &mut Lines) {
    let mut what = format!("{}, {} bytes", variant.status, variant.content_bytes);
    if let Some((first, last, complete)) = variant.part {
        let _ = write!(what, " (bytes {first}-{last} of {complete})");
    }
    let _ = write!(what, ", stored {} s ago, Date {}", variant.stored_seconds_ago, variant.date);
    if !variant.is_alive {
        what.push_str("; dead: it is never used again");
    }
    lines.line(&format!("variant {number}"), what);
    lines.line("", freshness(variant));
    if !variant.selected_by.is_empty() {
        let selects = if variant.is_selected { "selects it" } else { "does not select it" };
        lines.line("", format_args!("varies on {}: this request {selects}", selection(variant)));
    }
    let etag = variant.etag.iter().map(|etag| format!("ETag {etag}"));
    let validators: Vec<String> =
        etag.chain(variant.last_modified.iter().map(|date| format!("Last-Modified {date}"))).collect();
    let validators = if validators.is_empty() { "none".to_owned() } else { validators.join(", ") };
    lines.line("", format_args!("validators: {validators}"));
    let windows = [
        ("stale-while-revalidate", variant.stale_while_revalidate_seconds),
        ("stale-if-error", variant.stale_if_error_seconds),
    ];
    let windows = windows.iter().filter_map(|(name, seconds)| Some(format!("{name} {} s", (*seconds)?)));
    let bonds: Vec<String> = windows.chain(variant.flags.iter().cloned()).collect();
    if !bonds.is_empty() {
        lines.line("", bonds.join(", "));
    }
}

fn freshness(variant: &Variant) -> String {
    let so_far = format!(
        "age {} s, lifetime {} s ({})",
        variant.age_seconds, variant.lifetime_seconds, variant.lifetime_words
    );
    let left = variant.fresh_for_seconds;
    match variant.ttl_seconds {
        _ if variant.flags.iter().any(|flag| flag == "no-cache") => {
            format!("{so_far}: validated before each use")
        }
        ttl if left > 0 && ttl > i64::try_from(left).unwrap_or(i64::MAX) => {
            format!("{so_far}: fresh for another {left} s, until its stay here ends")
        }
        _ if left > 0 => format!("{so_far}: fresh for another {left} s"),
        ttl if ttl > 0 => format!("{so_far}: fresh, but it has been here too long to be used unasked"),
        ttl => format!("{so_far}: stale for {} s", ttl.unsigned_abs()),
    }
}

fn selection(variant: &Variant) -> String {
    let fields = variant.selected_by.iter().map(|field| match (&field.value, field.is_hidden) {
        (_, true) => format!("{} (not shown)", field.name),
        (Some(value), _) => format!("{}: {value}", field.name),
        (None, _) => format!("{} (absent)", field.name),
    });
    fields.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
