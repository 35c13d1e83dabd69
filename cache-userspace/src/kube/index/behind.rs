//! Who is behind a Service, as far as it decides what is answered: the revisions of its pods, not how many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::objects::{Endpoint, Meta, REVISION_LABELS};

/// The revisions behind a Service.
///
/// Two are equal where the revisions are: scaling changes nothing, a roll-out does, and so does taking it back.
#[derive(Debug)]
pub(super) struct Behind {
    /// Each revision, and whether any of its pods is ready.
    revisions: BTreeMap<String, bool>,
    /// The revision of each pod, by its uid.
    pods: HashMap<String, String>,
    /// The names of pods of which nothing is known but that they are behind it.
    unknown: BTreeSet<String>,
}

impl PartialEq for Behind {
    fn eq(&self, other: &Self) -> bool {
        self.revisions == other.revisions
    }
}

impl Behind {
    /// What these endpoints say, with what is known of a pod by its name. A pod whose metadata are gone before its endpoint is what
    /// it was.
    pub(super) fn of<'a>(
        endpoints: impl Iterator<Item = &'a Endpoint>,
        metadata: impl Fn(&str) -> Option<&'a Meta>,
        before: Option<&Self>,
    ) -> Self {
        let mut behind = Self { revisions: BTreeMap::new(), pods: HashMap::new(), unknown: BTreeSet::new() };
        for endpoint in endpoints {
            let revision = behind.revision(endpoint, &metadata, before);
            let is_ready = behind.revisions.entry(revision).or_default();
            *is_ready |= endpoint.is_ready();
        }
        behind
    }

    fn revision<'a>(
        &mut self,
        endpoint: &Endpoint,
        metadata: &impl Fn(&str) -> Option<&'a Meta>,
        before: Option<&Self>,
    ) -> String {
        let Some(pod) = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod") else {
            return format!("address {}", endpoint.addresses.join(" "));
        };
        let known = metadata(&pod.name).filter(|meta| meta.uid == pod.uid).map(revision);
        let before = || before.and_then(|before| before.pods.get(&pod.uid).cloned());
        match known.or_else(before) {
            Some(revision) => {
                self.pods.insert(pod.uid.clone(), revision.clone());
                revision
            }
            None => {
                self.unknown.insert(pod.name.clone());
                "unknown".to_owned()
            }
        }
    }

    /// Whether these metadata of the pod of this name are news, or its labels are.
    pub(super) fn concerns(&self, name: &str, meta: &Meta, is_labelled_anew: bool) -> bool {
        let is_news = |before: &String| is_labelled_anew || *before != revision(meta);
        self.unknown.contains(name) || self.pods.get(&meta.uid).is_some_and(is_news)
    }
}

/// The revision of a pod; one that no template made is one of its own.
fn revision(meta: &Meta) -> String {
    let label = REVISION_LABELS.iter().find_map(|name| Some((name, meta.labels.get(*name)?)));
    match label {
        Some((name, value)) => format!("{name} {value}"),
        None => format!("uid {}", meta.uid),
    }
}
