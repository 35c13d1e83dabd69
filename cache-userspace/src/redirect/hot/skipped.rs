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

/// The skip list as the kernel has it, and as it is compared with `Vary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    names: Box<[Box<str>]>,
    list: SkipList,
}

impl Skipped {
    /// A list of these names; `None` where the kernel cannot hold it (see [`SkipList::of`]).
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str, IntoIter: Clone>) -> Option<Self> {
        let names = names.into_iter();
        let list = SkipList::of(names.clone())?;
        let names = names.map(|name| name.to_ascii_lowercase().into_boxed_str());
        Some(Self { names: names.collect(), list })
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
        Self::of(DEFAULT_NAMES).unwrap_or(Self { names: Box::default(), list: SkipList::EMPTY })
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
        assert!(Skipped::of(["X-Mine"]).is_some_and(|skipped| skipped.contains("x-mine")));
        assert!(Skipped::of(["not a name"]).is_none());
    }
}
