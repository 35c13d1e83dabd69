//! What the mesh's own objects say of requests to a service: whether its answers may be shared, by what of a request they
//! differ, and how a client's right to them is told (MESH.md S3, S5). When in doubt they are not shared.

mod cilium;
mod gateway;
mod istio;
mod linkerd;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::super::objects::{Kind, Meta, ObjectKey, PolicyKind};
use crate::policy::Reason;

/// A part of a request by which the mesh may send it elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// The method.
    Method,
    /// The query of its target.
    Query,
    /// The field of this name, in lower case.
    Field(String),
    /// The pod that sends it.
    Pod,
}

/// What has to be kept in mind of requests to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Why they are only forwarded.
    pub bypass: Option<Reason>,
    /// What else tells them apart.
    pub inputs: BTreeSet<Input>,
    /// Whether a right to one path or method says nothing of others.
    pub leases_by_path: bool,
}

impl Guard {
    /// Requests are only forwarded.
    fn bypass(reason: Reason) -> Self {
        Self { bypass: Some(reason), ..Self::default() }
    }

    /// A right to one path or method says nothing of others.
    fn by_path() -> Self {
        Self { leases_by_path: true, ..Self::default() }
    }

    /// Both have to be kept in mind; the reason that is told of several is always the same.
    fn join(&mut self, other: &Self) {
        self.refuse(other.bypass);
        self.inputs.extend(other.inputs.iter().cloned());
        self.leases_by_path |= other.leases_by_path;
    }

    /// Refuses for this reason, where there is one.
    pub(super) fn refuse(&mut self, reason: Option<Reason>) {
        if let Some(reason) = reason {
            self.bypass = Some(self.bypass.filter(|other| other.code() <= reason.code()).unwrap_or(reason));
        }
    }

    /// Refuses where this is so.
    fn refuse_if(&mut self, is_so: bool, reason: Reason) {
        self.refuse(is_so.then_some(reason));
    }

    /// Has requests told apart by each of these that a match has something to say of.
    fn tell_apart<const N: usize>(&mut self, matched: &Value, inputs: [(&str, Input); N]) {
        let said = inputs.into_iter().filter(|(name, _)| has(matched, [*name]));
        self.inputs.extend(said.map(|(_, input)| input));
    }

    /// Those of several destinations that get any requests; refuses where that is more than one. With one destination its
    /// weight means nothing.
    fn destinations<'a>(&mut self, listed: &'a Value) -> Vec<&'a Value> {
        let mut found: Vec<&Value> = items(listed).collect();
        if found.len() > 1 {
            found.retain(|to| to["weight"].as_i64() != Some(0));
        }
        self.refuse_if(found.len() > 1, Reason::Split);
        found
    }
}

/// What an object is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    /// Requests to whoever has a name like this: exact, or `*` and what it ends with.
    Host(String),
    /// Requests to a Service.
    Service(ObjectKey),
    /// Requests to pods of a namespace that have these labels.
    Pods(String, BTreeMap<String, String>),
    /// Requests to all pods that have these labels.
    AllPods(BTreeMap<String, String>),
    /// Requests of pods of a namespace.
    Clients(String),
    /// All requests of pods.
    AllClients,
}

/// Something that an object says.
#[derive(Clone, Debug, PartialEq)]
struct Saying {
    about: About,
    guard: Guard,
    /// Services that requests may be sent to instead.
    refers: BTreeSet<ObjectKey>,
}

impl Saying {
    fn of(about: About, guard: Guard) -> Self {
        Self { about, guard, refers: BTreeSet::new() }
    }

    /// The same of requests that may be sent to other Services: whom one may ask then differs from path to path.
    fn sending_to(about: About, guard: &Guard, refers: &BTreeSet<ObjectKey>) -> Self {
        let guard = Guard { leases_by_path: guard.leases_by_path || refers.len() > 1, ..guard.clone() };
        Self { about, guard, refers: refers.clone() }
    }

    fn concerns(
        &self,
        service: &ObjectKey,
        names: &[String],
        has: &impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> bool {
        match &self.about {
            About::Host(pattern) => names.iter().any(|name| is_like(name, pattern)),
            About::Service(key) => key == service,
            About::Pods(namespace, labels) => *namespace == service.namespace && has(labels),
            About::AllPods(labels) => has(labels),
            About::Clients(_) | About::AllClients => false,
        }
    }
}

/// What an object that is another now said, and says.
#[derive(Debug, Default)]
pub(super) struct News {
    sayings: Vec<Saying>,
    /// It may be about any service.
    pub(super) is_for_all: bool,
}

impl News {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.sayings.is_empty() && !self.is_for_all
    }
}

/// How an object is told from others, and from itself after a change.
pub(super) type Version = (PolicyKind, String, i64);

/// What is said of a service.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    /// What has to be kept in mind.
    pub(super) guard: Guard,
    /// Who says it.
    pub(super) by: BTreeSet<Version>,
    /// Services that requests may be sent to instead.
    pub(super) refers: BTreeSet<ObjectKey>,
}

impl Said {
    /// Both are said.
    pub(super) fn join(&mut self, other: Self) {
        self.guard.join(&other.guard);
        self.by.extend(other.by);
    }
}

/// What a mesh is called in this cluster.
#[derive(Clone, Debug)]
pub struct Names {
    /// The domain of the names of Services, such as `cluster.local`.
    pub cluster_domain: String,
    /// Namespaces whose policies are those of all.
    pub mesh_root_namespaces: BTreeSet<String>,
}

/// The objects of the mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    names: Names,
    objects: BTreeMap<(PolicyKind, ObjectKey), (Version, Vec<Saying>)>,
    /// Kinds that are there and cannot be read.
    blind: BTreeSet<PolicyKind>,
    /// The definitions of kinds by which a mesh decides about requests, those that are not understood among them.
    defined: BTreeSet<String>,
    /// What concerns clients has changed so often.
    pub(super) clients_changed: u64,
}

impl Mesh {
    /// Knows no object yet.
    pub(super) fn new(names: Names) -> Self {
        Self {
            names,
            objects: BTreeMap::new(),
            blind: BTreeSet::new(),
            defined: BTreeSet::new(),
            clients_changed: 0,
        }
    }

    /// Takes up an object, all of it but its metadata; returns what it said and what it says, where it is another.
    pub(super) fn put(&mut self, kind: PolicyKind, meta: &Meta, rest: &Value) -> News {
        let version = (kind, meta.uid.clone(), meta.generation);
        if self.objects.get(&(kind, meta.key())).is_some_and(|(before, _)| *before == version) {
            return News::default();
        }
        self.replace(kind, meta.key(), Some((version, sayings(kind, meta, rest, &self.names))))
    }

    /// Takes up an object that cannot be read.
    pub(super) fn put_unreadable(&mut self, kind: PolicyKind, key: ObjectKey) -> News {
        self.replace(kind, key, Some(((kind, String::new(), 0), unreadable())))
    }

    /// Forgets an object; returns what it said.
    pub(super) fn remove(&mut self, kind: PolicyKind, key: ObjectKey) -> News {
        self.replace(kind, key, None)
    }

    fn replace(&mut self, kind: PolicyKind, key: ObjectKey, new: Option<(Version, Vec<Saying>)>) -> News {
        let had_any = self.has_any();
        let now = new.as_ref().map(|(_, sayings)| sayings.clone()).unwrap_or_default();
        let before = match new {
            Some(new) => self.objects.insert((kind, key), new),
            None => self.objects.remove(&(kind, key)),
        };
        let sayings: Vec<Saying> =
            before.map(|(_, sayings)| sayings).unwrap_or_default().into_iter().chain(now).collect();
        let of_clients = |saying: &Saying| matches!(saying.about, About::Clients(_) | About::AllClients);
        let is_of_clients = sayings.iter().any(of_clients);
        self.clients_changed += u64::from(is_of_clients);
        // Whether names matter depends on whether there is any.
        News { sayings, is_for_all: is_of_clients || had_any != self.has_any() }
    }

    /// Whether what is new concerns a Service, where `has` tells whether any pod behind it may have these labels.
    pub(super) fn concerns(
        &self,
        news: &News,
        service: &ObjectKey,
        has: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> bool {
        let names = names_of(service, &self.names.cluster_domain);
        news.is_for_all || news.sayings.iter().any(|saying| saying.concerns(service, &names, &has))
    }

    /// Whether objects of a kind are there that cannot be read; says whether that is news.
    pub(super) fn blind(&mut self, kind: PolicyKind, is_blind: bool) -> bool {
        if is_blind { self.blind.insert(kind) } else { self.blind.remove(&kind) }
    }

    /// The names of the objects of a kind.
    pub(super) fn keys(&self, kind: PolicyKind) -> Vec<ObjectKey> {
        self.objects.keys().filter(|(of, _)| *of == kind).map(|(_, key)| key.clone()).collect()
    }

    /// Whether a mesh is installed: it may go by names whatever objects there are.
    fn has_any(&self) -> bool {
        !(self.objects.is_empty() && self.defined.is_empty())
    }

    /// Takes note of whether a kind is defined; says whether that is news of a mesh.
    pub(super) fn defined(&mut self, name: &str, is_there: bool) -> bool {
        let is_understood =
            || PolicyKind::ALL.iter().any(|kind| Kind::Policy(*kind).definition().as_deref() == Some(name));
        match is_there {
            true => (is_foreign(name) || is_understood()) && self.defined.insert(name.to_owned()),
            false => self.defined.remove(name),
        }
    }

    /// The definitions that it knows.
    pub(super) fn definitions(&self) -> impl Iterator<Item = ObjectKey> {
        self.defined.iter().map(|name| ObjectKey { namespace: String::new(), name: name.clone() })
    }

    /// What a Service may be called, where there is a mesh that may go by names.
    pub(super) fn names_of(&self, service: &ObjectKey) -> Option<Arc<[String; 4]>> {
        self.has_any().then(|| Arc::new(names_of(service, &self.names.cluster_domain)))
    }

    /// What is said of a Service, where `has` tells whether any pod behind it may have these labels.
    pub(super) fn of(&self, service: &ObjectKey, has: impl Fn(&BTreeMap<String, String>) -> bool) -> Said {
        let mut said = Said::default();
        if !self.blind.is_empty() || self.defined.iter().any(|name| is_foreign(name)) {
            said.guard.refuse(Some(Reason::Unreadable));
        }
        let names = names_of(service, &self.names.cluster_domain);
        for (version, sayings) in self.objects.values() {
            for saying in sayings.iter().filter(|saying| saying.concerns(service, &names, &has)) {
                said.guard.join(&saying.guard);
                said.refers.extend(saying.refers.iter().filter(|key| *key != service).cloned());
                said.by.insert(version.clone());
            }
        }
        said
    }

    /// What has to be kept in mind of pods as clients: of those of each namespace, and of all.
    pub(super) fn clients(&self) -> (HashMap<String, Guard>, Guard) {
        let (mut namespaces, mut all) = (HashMap::<String, Guard>::new(), Guard::default());
        for saying in self.objects.values().flat_map(|(_, sayings)| sayings) {
            match &saying.about {
                About::Clients(namespace) => {
                    namespaces.entry(namespace.clone()).or_default().join(&saying.guard);
                }
                About::AllClients => all.join(&saying.guard),
                _ => {}
            }
        }
        (namespaces, all)
    }
}

fn sayings(kind: PolicyKind, meta: &Meta, rest: &Value, names: &Names) -> Vec<Saying> {
    use PolicyKind as Kind;
    let spec = &rest["spec"];
    match kind {
        Kind::VirtualService => istio::virtual_service(meta, spec, names),
        Kind::DestinationRule => istio::destination_rule(meta, spec, names),
        Kind::ServiceEntry => istio::service_entry(meta, spec, names),
        Kind::EnvoyFilter | Kind::WasmPlugin => istio::extension(meta, spec, names),
        Kind::AuthorizationPolicy => istio::authorization_policy(meta, spec, names),
        Kind::RequestAuthentication => istio::request_authentication(meta, spec, names),
        Kind::HttpRoute | Kind::LinkerdHttpRoute => gateway::http_route(meta, spec),
        Kind::GrpcRoute => gateway::grpc_route(meta, spec),
        Kind::LinkerdServer => linkerd::server(meta),
        Kind::LinkerdAuthorizationPolicy => linkerd::authorization_policy(meta),
        Kind::LinkerdRateLimit => linkerd::rate_limit(meta),
        Kind::ServiceProfile => linkerd::service_profile(meta, spec),
        Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy => {
            cilium::network_policy(meta, rest)
        }
        Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig => cilium::envoy_config(meta, spec),
    }
}

/// Whether a kind is of a mesh whose objects are not understood: Kuma, Consul, the Service Mesh Interface.
pub fn is_foreign(definition: &str) -> bool {
    [".kuma.io", ".consul.hashicorp.com", ".smi-spec.io"].iter().any(|group| definition.ends_with(group))
}

/// What cannot be read might be about anything.
fn unreadable() -> Vec<Saying> {
    vec![Saying::of(About::AllPods(BTreeMap::new()), Guard::bypass(Reason::Unreadable))]
}

/// What a Service may be called, the full name last; the first one only within its namespace.
fn names_of(service: &ObjectKey, domain: &str) -> [String; 4] {
    let ObjectKey { namespace, name } = service;
    [
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.{domain}"),
    ]
}

/// A host as a rule of this namespace names it: without a dot, it is a Service beside the rule.
fn host_of(host: &str, meta: &Meta, names: &Names) -> String {
    let host = host.to_ascii_lowercase();
    match host.contains('.') || host == "*" {
        true => host,
        false => format!("{host}.{}.svc.{}", meta.namespace, names.cluster_domain),
    }
}

/// The Service that a host stands for; none where it is no Service's.
fn service_of(host: &str, meta: &Meta, names: &Names) -> Option<ObjectKey> {
    let host = host_of(host, meta, names);
    let of =
        |name: &str, namespace: &str| ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() };
    let (name, rest) = host.split_once('.')?;
    let (namespace, rest) = rest.split_once('.')?;
    let is_service = rest == "svc" || rest.strip_prefix("svc.") == Some(&names.cluster_domain);
    is_service.then(|| of(name, namespace))
}

/// Whether a name is what a pattern says: exact, `*`, or `*` and how it ends.
fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => name.ends_with(end),
        None => name.eq_ignore_ascii_case(pattern),
    }
}

/// Whether an object has fields that are none of these, which may mean anything.
fn has_others(value: &Value, known: &[&str]) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| !is_nothing(value) && !known.contains(&name.as_str()))
        }
        Value::Null => false,
        _ => true,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Whether an object has something in any of these fields.
fn has<const N: usize>(value: &Value, names: [&str; N]) -> bool {
    names.iter().any(|name| !is_nothing(&value[*name]))
}

/// The Service that a reference names, beside who refers to it unless it says otherwise.
fn referred(reference: &Value, meta: &Meta) -> ObjectKey {
    let namespace = reference["namespace"].as_str().unwrap_or(&meta.namespace);
    ObjectKey { namespace: namespace.to_owned(), name: text(&reference["name"]).to_owned() }
}

/// The items of a list; what is no list has none.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The labels of a selector; none where it selects everything.
fn labels(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), text(value).to_owned())).collect()
}

#[cfg(test)]
mod tests;
