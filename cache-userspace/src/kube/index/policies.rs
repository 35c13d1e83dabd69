//! What the teams say about caching (`CachePolicy`): which policy holds for a service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::super::cache_policy::{CachePolicySpec, PolicyMode, PolicyTarget, TargetKind};
use super::super::objects::{Meta, ObjectKey};
use crate::config::PolicyConfig;
use crate::policy::{Profile, Reason};

/// What holds for a service by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePolicy {
    /// The policy; it is in the service's namespace.
    pub name: String,
    /// Why requests are only forwarded.
    pub bypass: Option<Reason>,
    /// How strictly answers are judged, where it says so.
    pub profile: Option<Profile>,
    /// What is allowed beyond what answers say.
    pub words: PolicyConfig,
}

/// A policy and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// Its namespace and name.
    pub policy: ObjectKey,
    /// What has become of each of its targets; empty where it cannot be read.
    pub targets: Vec<(String, TargetState)>,
    /// Why it cannot be read: then nothing of its namespace's services is given from the cache.
    pub trouble: Option<String>,
}

/// What has become of one target of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It holds for it.
    Holds,
    /// Another one, older or more specific, holds instead.
    Overruled(String),
    /// There is no such service, or it has no port that is known to be HTTP.
    Missing,
    /// It is another namespace.
    Foreign,
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::Overruled(by) => write!(f, "overruled by {by}"),
            Self::Missing => f.write_str("no such HTTP service"),
            Self::Foreign => f.write_str("another namespace: a policy holds in its own only"),
        }
    }
}

/// The policies of the cluster.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// By namespace and name.
    objects: BTreeMap<ObjectKey, Policy>,
    /// There are such objects, and none can be read.
    pub(super) is_blind: bool,
}

#[derive(Debug, PartialEq)]
struct Policy {
    /// When it was made, as the API server writes it (RFC 3339, UTC, whole seconds): the order of texts is that of times.
    created: String,
    spec: Result<CachePolicySpec, String>,
}

impl Policies {
    /// Takes a policy up; says whether it says something else than before.
    pub(super) fn put(&mut self, meta: &Meta, spec: Result<CachePolicySpec, String>) -> bool {
        let created = meta.creation_timestamp.clone().unwrap_or_default();
        let new = Policy { created, spec };
        if self.objects.get(&meta.key()) == Some(&new) {
            return false;
        }
        self.objects.insert(meta.key(), new);
        true
    }

    /// Forgets a policy; says whether there was one.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.objects.remove(key).is_some()
    }

    /// The names of those that there are.
    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.objects.keys().cloned().collect()
    }

    /// What holds for a service.
    pub(super) fn of(&self, service: &ObjectKey) -> Option<Arc<ServicePolicy>> {
        let forwarding = |name: &str| ServicePolicy {
            name: name.to_owned(),
            bypass: Some(Reason::Unreadable),
            profile: None,
            words: PolicyConfig::default(),
        };
        if self.is_blind {
            return Some(Arc::new(forwarding("?")));
        }
        // What cannot be read may be about any service of its namespace.
        let unreadable = self.within(&service.namespace).find(|(_, policy)| policy.spec.is_err());
        if let Some((key, _)) = unreadable {
            return Some(Arc::new(forwarding(&key.name)));
        }
        let (key, spec) = self.holder(service)?;
        Some(Arc::new(ServicePolicy {
            name: key.name.clone(),
            bypass: (spec.mode == PolicyMode::Off).then_some(Reason::PolicyOff),
            profile: spec.profile,
            words: spec.words(),
        }))
    }

    /// What has become of each, where `is_there` says which services there are.
    pub(super) fn states(&self, is_there: impl Fn(&ObjectKey) -> bool) -> Vec<PolicyState> {
        let state = |(key, policy): (&ObjectKey, &Policy)| {
            let (targets, trouble) = match &policy.spec {
                Ok(spec) => (spec.target_refs.iter(), None),
                Err(why) => ([].iter(), Some(why.clone())),
            };
            let of = |target: &PolicyTarget| {
                let words = match target.kind {
                    TargetKind::Service => format!("Service {}", target.name),
                    TargetKind::Namespace => format!("Namespace {}", target.name),
                };
                (words, self.target_state(key, target, &is_there))
            };
            PolicyState { policy: key.clone(), targets: targets.map(of).collect(), trouble }
        };
        self.objects.iter().map(state).collect()
    }

    fn target_state(
        &self,
        policy: &ObjectKey,
        target: &PolicyTarget,
        is_there: &impl Fn(&ObjectKey) -> bool,
    ) -> TargetState {
        let named = ObjectKey { namespace: policy.namespace.clone(), name: target.name.clone() };
        let holder = match target.kind {
            TargetKind::Service if !is_there(&named) => return TargetState::Missing,
            TargetKind::Service => self.holder(&named),
            TargetKind::Namespace if target.name != policy.namespace => return TargetState::Foreign,
            TargetKind::Namespace => {
                self.first(&policy.namespace, |other| other.kind == TargetKind::Namespace)
            }
        };
        match holder {
            Some((by, _)) if by != policy => TargetState::Overruled(by.name.clone()),
            _ => TargetState::Holds,
        }
    }

    /// The policy that holds for a service: one for itself goes before one for all.
    fn holder(&self, service: &ObjectKey) -> Option<(&ObjectKey, &CachePolicySpec)> {
        let own = |target: &PolicyTarget| target.kind == TargetKind::Service && target.name == service.name;
        let all =
            |target: &PolicyTarget| target.kind == TargetKind::Namespace && target.name == service.namespace;
        self.first(&service.namespace, own).or_else(|| self.first(&service.namespace, all))
    }

    /// The oldest policy of a namespace with such a target; of several, the one whose name comes first.
    fn first(
        &self,
        namespace: &str,
        is_meant: impl Fn(&PolicyTarget) -> bool,
    ) -> Option<(&ObjectKey, &CachePolicySpec)> {
        let readable = self
            .within(namespace)
            .filter_map(|(key, policy)| Some((key, policy.spec.as_ref().ok()?, &policy.created)));
        let meant = readable.filter(|(_, spec, _)| spec.target_refs.iter().any(&is_meant));
        meant.min_by_key(|(key, _, created)| (*created, *key)).map(|(key, spec, _)| (key, spec))
    }

    fn within(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Policy)> {
        let from = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        self.objects.range(from..).take_while(move |(key, _)| key.namespace == namespace)
    }
}

#[cfg(test)]
mod tests;
