//! Gets objects from the API server and keeps a snapshot of what they say.
//!
//! Without the API server the last snapshot stays: a watch that breaks is begun anew, after a pause that grows. What is
//! read is left to `objects`, what follows from it to `index`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, future};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch};

use super::index::{Change, Index, Settings, Snapshot};
use super::objects::{Kind, Meta, Object, ObjectKey};

/// Changes that may wait to be taken up; past it the watches wait.
const CHANGES_MAX: usize = 1024;
/// How long changes are collected before a snapshot is made of them.
const COLLECTING: Duration = Duration::from_millis(50);
/// How long is waited before a watch is begun anew, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Objects of one answer of the API server.
const PAGE: u32 = 500;
/// How long one watch lasts, seconds: one that is silent for a little longer is taken for dead.
const WATCH_S: u32 = 60;
/// How long the API server may be silent within an answer.
const SILENCE: Duration = Duration::from_secs(70);

/// How the watch of each kind is doing.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<Kind, Watched>>>);

/// How the watch of a kind is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Whether its objects were all read once.
    pub is_synced: bool,
    /// What was wrong when it was last tried.
    pub trouble: Option<String>,
    troubled_at: Option<Instant>,
}

impl Health {
    /// How it is doing, for each kind.
    pub fn kinds(&self) -> Vec<(Kind, Watched)> {
        let mut kinds = self.lock();
        for watched in kinds.values_mut() {
            // A watch that goes on where it was says nothing until there is news.
            if watched.troubled_at.is_some_and(|at| at.elapsed() > SILENCE) {
                (watched.trouble, watched.troubled_at) = (None, None);
            }
        }
        kinds.iter().map(|(kind, watched)| (*kind, watched.clone())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Kind, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn well(&self, kind: Kind) {
        let mut kinds = self.lock();
        let watched = kinds.entry(kind).or_default();
        if watched.trouble.take().is_some() {
            tracing::info!(kind = kind.title(), "watched again");
        }
    }

    fn synced(&self, kind: Kind) {
        self.well(kind);
        self.lock().entry(kind).or_default().is_synced = true;
    }

    /// There is nothing to be watched.
    fn forget(&self, kind: Kind) {
        self.lock().remove(&kind);
    }

    /// Said once, however often it is tried.
    fn trouble(&self, kind: Kind, error: String) {
        let mut kinds = self.lock();
        let watched = kinds.entry(kind).or_default();
        if watched.trouble.is_none() {
            let stays = if watched.is_synced {
                "the last that was read stays"
            } else {
                "nothing is served by it yet"
            };
            tracing::warn!(kind = kind.title(), error, "cannot be watched; {stays}");
        }
        (watched.trouble, watched.troubled_at) = (Some(error), Some(Instant::now()));
    }
}

/// A client of the API server: by a kubeconfig, or as a pod of the cluster.
///
/// # Errors
/// What is missing or wrong in the configuration; the server itself is not asked.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster()?,
    };
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

/// Watches every kind and publishes a snapshot of what they say, once all were read; runs until nobody listens.
pub async fn run(
    client: Client,
    node: String,
    settings: Settings,
    health: Health,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
) {
    let (changes, taken) = mpsc::channel(CHANGES_MAX);
    let (define, defined) = watch::channel(None);
    let watches: Vec<_> = Kind::all()
        .map(|kind| {
            let (client, node, defined) = (client.clone(), node.clone(), defined.clone());
            let one = Watch { client, node, kind, health: health.clone(), changes: changes.clone(), defined };
            tokio::spawn(one.run())
        })
        .collect();
    drop(changes);
    index(Index::new(settings), &health, taken, &define, &snapshots).await;
    watches.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Takes changes up and publishes what follows from them.
async fn index(
    mut index: Index,
    health: &Health,
    mut changes: mpsc::Receiver<Change>,
    define: &watch::Sender<Definitions>,
    snapshots: &watch::Sender<Option<Arc<Snapshot>>>,
) {
    let mut synced = BTreeSet::new();
    let mut is_changed = false;
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = snapshots.closed() => return,
        };
        let Some(change) = change else { return };
        let until = tokio::time::Instant::now() + COLLECTING;
        let mut next = Some(change);
        while let Some(change) = next {
            match &change {
                Change::Replaced(kind, _) | Change::Blind(kind) if synced.insert(*kind) => {
                    is_changed = true;
                    health.synced(*kind);
                }
                Change::Absent(kind) => {
                    is_changed |= synced.insert(*kind);
                    health.forget(*kind);
                }
                _ => {}
            }
            take_up_definitions(&change, define);
            is_changed |= index.apply(change);
            next = tokio::time::timeout_at(until, changes.recv()).await.ok().flatten();
        }
        // What is half read would end what is served by the other half.
        if is_changed && synced.len() == Kind::all().count() {
            snapshots.send_replace(Some(Arc::new(index.snapshot())));
            is_changed = false;
        }
    }
}

/// The names of the kinds that only some clusters have and this one has; `None` before they were read.
type Definitions = Option<BTreeSet<String>>;

/// Keeps the kinds that there are.
fn take_up_definitions(change: &Change, define: &watch::Sender<Definitions>) {
    let name = |object: &Object| object.meta().name.clone();
    define.send_if_modified(|known| {
        let before = known.clone();
        match change {
            Change::Replaced(Kind::Definition, all) => *known = Some(all.iter().map(name).collect()),
            Change::Applied(object @ Object::Definition(_)) => {
                known.get_or_insert_default().insert(name(object));
            }
            Change::Deleted(Kind::Definition, key) => {
                known.get_or_insert_default().remove(&key.name);
            }
            _ => return false,
        }
        *known != before
    });
}

/// The watch of one kind.
struct Watch {
    client: Client,
    node: String,
    kind: Kind,
    health: Health,
    changes: mpsc::Sender<Change>,
    defined: watch::Receiver<Definitions>,
}

/// Why a watch ended.
enum Ended {
    /// Nobody takes its changes any more.
    NoListener,
    /// The API server no longer has this version of the kind.
    Unknown,
    /// The API server does not let us read it.
    Refused,
}

impl Watch {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            if !self.is_defined().await {
                return;
            }
            match self.resource().await {
                Ok(Some(resource)) => match self.follow(&resource).await {
                    Ended::NoListener => return,
                    Ended::Unknown => {
                        self.health.trouble(self.kind, "the API server no longer has it".into());
                        self.is_blind().await;
                    }
                    // Only a list says what there is.
                    Ended::Refused => self.is_blind().await,
                },
                Ok(None) => {
                    self.health.trouble(self.kind, "no version of it is understood".into());
                    self.is_blind().await;
                }
                Err(error) => self.health.trouble(self.kind, error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits until the cluster has the kind, and says where it has not that there is no object of it; false: until nobody
    /// listens.
    async fn is_defined(&mut self) -> bool {
        let Some(name) = self.kind.definition() else { return true };
        let mut was_absent = false;
        loop {
            let has = self.defined.borrow_and_update().as_ref().map(|defined| defined.contains(&name));
            match has {
                Some(true) => {
                    // Until all of its objects were read.
                    if was_absent {
                        self.is_blind().await;
                    }
                    return true;
                }
                Some(false) if self.changes.send(Change::Absent(self.kind)).await.is_err() => return false,
                Some(false) => was_absent = true,
                None => {}
            }
            if self.defined.changed().await.is_err() {
                return false;
            }
        }
    }

    /// The best version of the kind that the API server has.
    async fn resource(&self) -> Result<Option<ApiResource>, String> {
        let (group, _, plural) = self.kind.names();
        let of = |version| api_resource(self.kind, version);
        let versions = self.kind.versions();
        if let [only] = versions {
            return Ok(Some(of(only)));
        }
        let found = kube::discovery::group(&self.client, group).await.map_err(|error| error.to_string())?;
        // Not each kind of a group is there in each of its versions.
        let has = |version: &&&str| {
            found.versioned_resources(version).iter().any(|(resource, _)| resource.plural == plural)
        };
        Ok(versions.iter().find(has).map(|version| of(version)))
    }

    async fn follow(&self, resource: &ApiResource) -> Ended {
        let mut config = watcher::Config::default().page_size(PAGE).timeout(WATCH_S);
        if self.kind == Kind::Pod {
            config = config.fields(&format!("spec.nodeName={}", self.node));
        }
        let events = if self.kind.is_metadata() {
            let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.client.clone(), resource);
            future::Either::Left(watcher(api, config).map_ok(without_content))
        } else {
            let api = Api::<DynamicObject>::all_with(self.client.clone(), resource);
            future::Either::Right(watcher(api, config))
        };
        let mut events = pin!(events);
        let mut pause = PAUSE_MIN;
        let mut all: Option<Vec<Object>> = None;
        while let Some(event) = events.next().await {
            let change = match event {
                Ok(event) => {
                    // A list that is about to be tried says nothing of its success.
                    if !matches!(event, Event::Init) {
                        pause = PAUSE_MIN;
                        self.health.well(self.kind);
                    }
                    match self.change(event, &mut all) {
                        Some(change) => change,
                        None => continue,
                    }
                }
                Err(error) => {
                    if is_refused(&error, 404) {
                        return Ended::Unknown;
                    }
                    self.health.trouble(self.kind, error.to_string());
                    if is_refused(&error, 403) {
                        return Ended::Refused;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    continue;
                }
            };
            if self.changes.send(change).await.is_err() {
                return Ended::NoListener;
            }
        }
        Ended::Unknown
    }

    /// Says that there may be objects of the kind that decide something, and cannot be read.
    async fn is_blind(&self) {
        if self.kind.definition().is_some() {
            // Where nobody listens, the next message ends the watch.
            let _ = self.changes.send(Change::Blind(self.kind)).await;
        }
    }

    fn change(&self, event: Event<DynamicObject>, all: &mut Option<Vec<Object>>) -> Option<Change> {
        match event {
            Event::Apply(object) => Some(match self.read(object) {
                Ok(object) => Change::Applied(object),
                Err(key) => Change::Unreadable(self.kind, key),
            }),
            Event::Delete(object) => Some(Change::Deleted(self.kind, meta(&object).key())),
            Event::Init => {
                *all = Some(Vec::new());
                None
            }
            Event::InitApply(object) => {
                let objects = all.get_or_insert_default();
                objects.extend(self.read(object).ok());
                None
            }
            Event::InitDone => Some(Change::Replaced(self.kind, all.take().unwrap_or_default())),
        }
    }

    fn read(&self, object: DynamicObject) -> Result<Object, ObjectKey> {
        let mut meta = meta(&object);
        if self.kind != Kind::CachePolicy {
            // Of thousands of objects nobody asks for it.
            meta.creation_timestamp = None;
        }
        let key = meta.key();
        let ObjectKey { namespace, name } = &key;
        let warn = |error: &str| {
            tracing::warn!(kind = self.kind.title(), namespace, name, error, "cannot be read");
        };
        match Object::parse(self.kind, meta, object.data) {
            Ok(object) => {
                if let Object::CachePolicy(_, spec) = &object
                    && let Err(error) = &**spec
                {
                    warn(error);
                }
                Ok(object)
            }
            Err(error) => {
                warn(&error.to_string());
                Err(key)
            }
        }
    }
}

/// A kind in one of its versions, as the client of the API server wants it.
pub(super) fn api_resource(kind: Kind, version: &str) -> ApiResource {
    let (group, kind, plural) = kind.names();
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// What is said of objects' metadata, as if it were said of whole ones.
fn without_content(event: Event<PartialObjectMeta<DynamicObject>>) -> Event<DynamicObject> {
    let whole = |part: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: part.types,
        metadata: part.metadata,
        data: serde_json::Value::Null,
    };
    match event {
        Event::Apply(part) => Event::Apply(whole(part)),
        Event::Delete(part) => Event::Delete(whole(part)),
        Event::Init => Event::Init,
        Event::InitApply(part) => Event::InitApply(whole(part)),
        Event::InitDone => Event::InitDone,
    }
}

fn meta(object: &DynamicObject) -> Meta {
    Meta {
        name: object.name_any(),
        namespace: object.namespace().unwrap_or_default(),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        labels: object.labels().clone(),
        annotations: object.annotations().clone(),
        creation_timestamp: object.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()),
        deletion_timestamp: object.metadata.deletion_timestamp.as_ref().map(|time| time.0.to_string()),
    }
}

fn is_refused(error: &watcher::Error, code: u16) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == code)
        }
        _ => false,
    }
}
