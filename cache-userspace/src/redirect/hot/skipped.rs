//! The fields that the kernel skips when it tells requests apart: what tracers change from request to request.

use cache_common::hot::SkipList;

/// The names that are skipped where nobody says otherwise.
///
/// Datadog's are not among them: `x-datadog-trace-id` and `x-datadog-parent-id` begin with the same eight letters, by
/// which the kernel looks a name up, and one without the other would be of no use.
pub const DEFAULT_NAMES: [&str; 16] = [
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-request-id",
    "x-correlation-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "uber-trace-id",
    "x-ot-span-context",
    "baggage",
    "sentry-trace",
];

/// Names that nobody may have skipped: what the daemon looks at in a request, and what frames it. A request that differs
/// in one of them is another one, whatever the list says.
const NEVER: [&str; 20] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
    "max-forwards",
    "range",
    "cache-control",
    "pragma",
    "authorization",
    "proxy-authorization",
    "cookie",
    "user-agent",
    "content-type",
];
/// The beginning of the names of conditions (RFC 9110 §13.1).
const CONDITION: &str = "if-";

/// Why fields cannot be skipped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSkipped {
    /// One is not only for tracers.
    #[error("`{0}` cannot be skipped: the answer depends on it")]
    Needed(String),
    /// The kernel cannot hold the list.
    #[error(
        "the kernel cannot skip these fields: up to 31 names of 23 letters, no two with the same first eight, one of \
         fewer than seven"
    )]
    TooMany,
}

/// The skip list as the kernel has it, and as it is compared with `Vary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    names: Box<[Box<str>]>,
    list: SkipList,
}

impl Skipped {
    /// A list of these names.
    ///
    /// # Errors
    /// `NotSkipped`: names that change what the answer is, or that the kernel cannot hold (see [`SkipList::of`]).
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str, IntoIter: Clone>) -> Result<Self, NotSkipped> {
        let names = names.into_iter();
        let lower = names.clone().map(|name| name.to_ascii_lowercase().into_boxed_str());
        let lower: Box<[Box<str>]> = lower.collect();
        if let Some(name) = lower.iter().find(|name| NEVER.contains(&&***name) || name.starts_with(CONDITION))
        {
            return Err(NotSkipped::Needed(name.to_string()));
        }
        let list = SkipList::of(names).ok_or(NotSkipped::TooMany)?;
        Ok(Self { names: lower, list })
    }

    /// The list as the kernel has it.
    pub fn list(&self) -> &SkipList {
        &self.list
    }

    /// Whether a field is skipped, by its name in lower case.
    pub fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|skipped| **skipped == *name)
    }
}

impl Default for Skipped {
    /// The default names; the tests see that the kernel can hold them.
    fn default() -> Self {
        Self::of(DEFAULT_NAMES).unwrap_or_else(|_| Self { names: Box::default(), list: SkipList::EMPTY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_can_hold_the_default_names() {
        let skipped = Skipped::default();
        assert!(DEFAULT_NAMES.iter().all(|name| skipped.contains(name)));
        assert!(!skipped.contains("x-datadog-trace-id") && !skipped.contains("accept"));
        assert!(Skipped::of(["X-Mine"]).is_ok_and(|skipped| skipped.contains("x-mine")));
        assert_eq!(Skipped::of(["not a name"]), Err(NotSkipped::TooMany));
    }

    #[test]
    fn what_the_answer_depends_on_is_never_skipped() {
        for name in
            ["Host", "range", "If-None-Match", "if-range", "Cookie", "Content-Length", "authorization"]
        {
            let refused = Skipped::of(["traceparent", name]);
            assert_eq!(refused, Err(NotSkipped::Needed(name.to_ascii_lowercase())));
        }
    }
}
