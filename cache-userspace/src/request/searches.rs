//! Which paths have responses that answer several queries (No-Vary-Search), and by what rule: where to look for them.
//!
//! Such a response stands under one key for all queries that its rule holds for equivalent, and is found by the last
//! rule that was seen for its path. What the rule here says only leads to it: each response is judged by its own. A
//! rule that was forgotten costs a forward; none is ever looked for on paths that have none.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moka::sync::Cache;

use crate::policy::{self, no_vary_search::SearchRule};

/// Paths whose rule is remembered, a few KB each at most; those asked for least are forgotten.
const PATHS_MAX: u64 = 1024;

/// The last rule of each path.
pub(super) struct Searches {
    rules: Cache<u64, Arc<SearchRule>>,
    /// Keyed by a secret of this process; two paths that share a number lead each other's requests astray.
    hash: RandomState,
    /// Whether there ever was a rule: requests pay nothing before.
    is_used: AtomicBool,
}

impl Default for Searches {
    fn default() -> Self {
        let hash = RandomState::new();
        Self { rules: Cache::new(PATHS_MAX), hash, is_used: AtomicBool::new(false) }
    }
}

impl Searches {
    /// The second key under which a request for `target`, which `key` ends with, may find its answer.
    pub(super) fn key(&self, key: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        // Relaxed: whoever does not see it yet forwards.
        if !self.is_used.load(Ordering::Relaxed) {
            return None;
        }
        let rule = self.rules.get(&self.path(key, target))?;
        Some(policy::search_key(key, target, &rule))
    }

    /// Notes the rule of a response to such a request; the key under which it is to be stored.
    pub(super) fn note(&self, key: &[u8], target: &[u8], rule: &SearchRule) -> Vec<u8> {
        let path = self.path(key, target);
        if self.rules.get(&path).is_none_or(|known| *known != *rule) {
            self.rules.insert(path, Arc::new(rule.clone()));
            self.is_used.store(true, Ordering::Relaxed);
        }
        policy::search_key(key, target, rule)
    }

    fn path(&self, key: &[u8], target: &[u8]) -> u64 {
        let query = policy::no_vary_search::path_and_query(target).1;
        self.hash.hash_one(key.get(..key.len().saturating_sub(query.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Fields;

    fn rule(value: &str) -> SearchRule {
        SearchRule::of(&Fields::from_pairs([("no-vary-search", value)]))
    }

    #[test]
    fn only_a_path_with_a_rule_has_a_second_key_by_the_last_one() {
        let searches = Searches::default();
        let key = |target: &str| searches.key(format!("key of {target}").as_bytes(), target.as_bytes());
        let note = |target: &str, value: &str| {
            searches.note(format!("key of {target}").as_bytes(), target.as_bytes(), &rule(value))
        };
        assert_eq!(key("/p?a=1"), None);
        let stored_under = note("/p?a=1&u=1", "params=(\"u\")");
        assert_eq!(key("/p?u=2&a=1"), Some(stored_under.clone()));
        assert!(key("/p?a=2").is_some_and(|key| key != stored_under));
        assert_eq!((key("/q?a=1"), key("/p/q")), (None, None));
        let under_another = note("/p?a=1", "params");
        assert_eq!(key("/p"), Some(under_another));
    }

    #[test]
    fn remembered_rules_are_bounded() {
        let searches = Searches::default();
        for n in 0..3 * PATHS_MAX {
            let target = format!("/{n}");
            searches.note(target.as_bytes(), target.as_bytes(), &rule("key-order"));
        }
        searches.rules.run_pending_tasks();
        assert!(searches.rules.entry_count() <= PATHS_MAX);
    }
}
