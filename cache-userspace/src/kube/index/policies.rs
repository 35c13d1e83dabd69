//! What the teams say about caching (`CachePolicy`): which policy holds for a service.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use super::super::cache_policy::{CachePolicySpec, PolicyMode, PolicyTarget, TargetKind};
use super::super::objects::{Meta, ObjectKey};
use crate::config::PolicyConfig;
use crate::policy::{Profile, Reason};

/// Policies of one namespace; with more of them none of its services' answers are given from the cache.
const POLICIES_MAX: usize = 256;

/// What holds for a service by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePolicy {
    /// The policy, which is in the service's namespace; or what keeps every policy there from being followed.
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
    /// Nothing is given from the cache, for this reason.
    Suspended(String),
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::Overruled(by) => write!(f, "overruled by {by}"),
            Self::Missing => f.write_str("no such HTTP service"),
            Self::Suspended(why) => write!(f, "only forwarded to: {why}"),
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
        if let Some(obstacle) = self.obstacle(&service.namespace) {
            return Some(Arc::new(ServicePolicy {
                name: obstacle,
                bypass: Some(Reason::Unreadable),
                profile: None,
                words: PolicyConfig::default(),
            }));
        }
        let (key, spec) = Holders::of(self.within(&service.namespace)).of_service(service)?;
        Some(Arc::new(ServicePolicy {
            name: key.name.clone(),
            bypass: (spec.mode == PolicyMode::Off).then_some(Reason::PolicyOff),
            profile: spec.profile,
            words: spec.words(),
        }))
    }

    /// What keeps everything of a namespace from being given from the cache: policies that cannot be read, or are too many,
    /// may be about any of its services.
    fn obstacle(&self, namespace: &str) -> Option<String> {
        let unreadable = || self.within(namespace).find(|(_, policy)| policy.spec.is_err());
        let too_many = || {
            let count = self.within(namespace).count();
            (count > POLICIES_MAX).then(|| format!("{count} policies are more than {POLICIES_MAX}"))
        };
        let blind = || self.is_blind.then(|| "no policy can be read".to_owned());
        let unreadable = || unreadable().map(|(key, _)| format!("{} cannot be read", key.name));
        blind().or_else(unreadable).or_else(too_many)
    }

    /// What has become of each, where `is_there` says which services there are.
    pub(super) fn states(&self, is_there: impl Fn(&ObjectKey) -> bool) -> Vec<PolicyState> {
        let mut states = Vec::new();
        let mut next = self.objects.keys().next();
        while let Some(first) = next {
            let namespace = first.namespace.as_str();
            let mut last = first;
            let (obstacle, holders) = (self.obstacle(namespace), Holders::of(self.within(namespace)));
            for (key, policy) in self.within(namespace) {
                last = key;
                let (targets, trouble) = match &policy.spec {
                    Ok(spec) => (spec.target_refs.as_slice(), None),
                    Err(why) => ([].as_slice(), Some(why.clone())),
                };
                let of = |target: &PolicyTarget| {
                    let state = match &obstacle {
                        Some(by) => TargetState::Suspended(by.clone()),
                        None => holders.state(key, target, &is_there),
                    };
                    (format!("{:?} {}", target.kind, target.name), state)
                };
                states.push(PolicyState {
                    policy: key.clone(),
                    targets: targets.iter().map(of).collect(),
                    trouble,
                });
            }
            next = self.objects.range((Bound::Excluded(last), Bound::Unbounded)).next().map(|(key, _)| key);
        }
        states
    }

    fn within(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Policy)> {
        let from = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        self.objects.range(from..).take_while(move |(key, _)| key.namespace == namespace)
    }
}

/// Which policies of a namespace hold for what.
struct Holders<'a> {
    services: HashMap<&'a str, (&'a ObjectKey, &'a CachePolicySpec)>,
    all: Option<(&'a ObjectKey, &'a CachePolicySpec)>,
}

impl<'a> Holders<'a> {
    /// The oldest for each target; of several, the one whose name comes first.
    fn of(policies: impl Iterator<Item = (&'a ObjectKey, &'a Policy)>) -> Self {
        let readable =
            policies.filter_map(|(key, policy)| Some((&policy.created, key, policy.spec.as_ref().ok()?)));
        let mut readable: Vec<_> = readable.collect();
        readable.sort_by_key(|(created, key, _)| (*created, *key));
        let mut holders = Self { services: HashMap::new(), all: None };
        for (_, key, spec) in readable {
            for target in &spec.target_refs {
                match target.kind {
                    TargetKind::Service => {
                        holders.services.entry(&target.name).or_insert((key, spec));
                    }
                    TargetKind::Namespace if target.name == key.namespace => {
                        holders.all.get_or_insert((key, spec));
                    }
                    TargetKind::Namespace => {}
                }
            }
        }
        holders
    }

    /// One for itself goes before one for all.
    fn of_service(&self, service: &ObjectKey) -> Option<(&'a ObjectKey, &'a CachePolicySpec)> {
        self.services.get(service.name.as_str()).copied().or(self.all)
    }

    fn state(
        &self,
        policy: &ObjectKey,
        target: &PolicyTarget,
        is_there: &impl Fn(&ObjectKey) -> bool,
    ) -> TargetState {
        let named = || ObjectKey { namespace: policy.namespace.clone(), name: target.name.clone() };
        let holder = match target.kind {
            TargetKind::Service if !is_there(&named()) => return TargetState::Missing,
            TargetKind::Service => self.services.get(target.name.as_str()).copied(),
            TargetKind::Namespace if target.name != policy.namespace => return TargetState::Foreign,
            TargetKind::Namespace => self.all,
        };
        match holder {
            Some((by, _)) if by != policy => TargetState::Overruled(by.name.clone()),
            _ => TargetState::Holds,
        }
    }
}

#[cfg(test)]
mod tests;
