//! The caches that are compared: the store itself, W-TinyLFU as moka makes it, and the least recently used.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use sidestep::{
    http1::Fields,
    policy::{self, Now, Reason, RequestView, ResponseView, Rules, Stored},
    store::{Place, Recording, Store, StoreLimits},
};

use crate::trace::Request;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Hit,
    Miss,
    /// A miss whose response was not let in.
    Refused,
    /// The same although less than 90 % were in use.
    RefusedEarly,
}

/// A cache that can be asked.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;
    fn request(&mut self, request: &Request) -> Outcome;
}

/// The daemon's own store, with contents.
pub(crate) struct TheStore {
    store: Store,
    stored: Stored,
    content: Vec<u8>,
}

impl TheStore {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let limits = StoreLimits {
            bytes_max,
            object_bytes_max: bytes_max / 2,
            variants_max: 64,
            namespace_bytes_max: bytes_max / 2,
        };
        Self { store: Store::new(limits), stored: stored(), content: vec![7; bytes_max as usize / 2] }
    }

    /// Bytes that a response costs besides its content.
    pub(crate) fn overhead_bytes() -> u64 {
        let mut one = Self::new(1 << 20);
        one.request(&Request { key: 0, bytes: 1000, namespace: 0 });
        one.store.bytes().saturating_sub(1000)
    }

    fn insert(&self, key: Vec<u8>, request: &Request) -> Result<(), Reason> {
        let begun = self.store.begin();
        let owner = self.store.owner(&request.namespace.to_be_bytes());
        let place = Place { resource: key.clone(), key, begun, owner };
        let mut recording = Recording::begin(&self.store, place, self.stored.clone(), Some(request.bytes))?;
        recording.append(self.content.get(..request.bytes as usize).unwrap_or(&self.content))?;
        recording.finish(|_, _| Bytes::from_static(b"HTTP/1.1 200 OK\r\n")).map(|_| ())
    }
}

impl Contender for TheStore {
    fn name(&self) -> &'static str {
        "sidestep"
    }

    fn request(&mut self, request: &Request) -> Outcome {
        let key = format!("{}/{}", request.namespace, request.key).into_bytes();
        if self.store.variants(&key).is_some() {
            return Outcome::Hit;
        }
        let had_room = self.store.bytes() < self.store.bytes_max() / 10 * 9;
        match self.insert(key, request) {
            Err(Reason::Admission | Reason::Quota) if had_room => Outcome::RefusedEarly,
            Err(_) => Outcome::Refused,
            Ok(()) => Outcome::Miss,
        }
    }
}

fn stored() -> Stored {
    let request = Fields::from_pairs([("host", "a")]);
    let response = Fields::from_pairs([("cache-control", "max-age=60")]);
    let request = RequestView { method: b"GET", target: b"/", fields: &request };
    let response = ResponseView { status: 200, fields: &response, delimited_by_close: false };
    let now = Now { boot: Duration::from_secs(1), wall: 0 };
    match policy::store(&request, &response, &Rules::default(), now, now) {
        Ok(stored) => stored,
        Err(reason) => panic!("an ordinary response was not stored: {reason}"),
    }
}

/// W-TinyLFU.
pub(crate) struct TinyLfu {
    cache: moka::sync::Cache<(u64, u64), u32>,
    overhead_bytes: u64,
}

impl TinyLfu {
    pub(crate) fn new(bytes_max: u64, overhead_bytes: u64) -> Self {
        let cache = moka::sync::Cache::builder().max_capacity(bytes_max).weigher(|_, weight| *weight).build();
        Self { cache, overhead_bytes }
    }
}

impl Contender for TinyLfu {
    fn name(&self) -> &'static str {
        "moka"
    }

    fn request(&mut self, request: &Request) -> Outcome {
        let key = (request.namespace, request.key);
        if self.cache.get(&key).is_some() {
            return Outcome::Hit;
        }
        let weight = u32::try_from(request.bytes + self.overhead_bytes).unwrap_or(u32::MAX);
        self.cache.insert(key, weight);
        self.cache.run_pending_tasks();
        Outcome::Miss
    }
}

/// The least recently used gives way.
pub(crate) struct Lru {
    bytes_max: u64,
    overhead_bytes: u64,
    used: u64,
    time: u64,
    /// When each key was used last, and its bytes.
    keys: HashMap<(u64, u64), (u64, u64)>,
    order: BTreeMap<u64, (u64, u64)>,
}

impl Lru {
    pub(crate) fn new(bytes_max: u64, overhead_bytes: u64) -> Self {
        Self { bytes_max, overhead_bytes, used: 0, time: 0, keys: HashMap::new(), order: BTreeMap::new() }
    }
}

impl Contender for Lru {
    fn name(&self) -> &'static str {
        "LRU"
    }

    fn request(&mut self, request: &Request) -> Outcome {
        self.time += 1;
        let key = (request.namespace, request.key);
        let bytes = request.bytes + self.overhead_bytes;
        if let Some((used, _)) = self.keys.get_mut(&key) {
            self.order.remove(used);
            *used = self.time;
            self.order.insert(self.time, key);
            return Outcome::Hit;
        }
        if bytes > self.bytes_max {
            return Outcome::Refused;
        }
        while self.used + bytes > self.bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.used -= self.keys.remove(&oldest).map_or(0, |(_, bytes)| bytes);
        }
        self.used += bytes;
        self.keys.insert(key, (self.time, bytes));
        self.order.insert(self.time, key);
        Outcome::Miss
    }
}
