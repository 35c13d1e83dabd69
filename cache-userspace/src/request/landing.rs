//! An answer while it is being recorded: what fills it, and what its readers see. It goes on without the client that
//! caused it, at the origin's pace while the store takes it, else at that of its slowest reader.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::ask::{About, Ask};
use super::{Connection, Path};
use crate::clock;
use crate::forward::{Exchange, Follower, ForwardError, Lead, Turn};
use crate::http1::body::BodyFault;
use crate::http1::{Fields, Framing, ResponseHead};
use crate::policy::{Cause, Reason, Stored};
use crate::respond::stored_head;
use crate::respond::write::not_stored;
use crate::store::{Entry, Filled, HandOver, Read, Reader, Recording};

/// How long an origin may be silent before or within an answer that nobody waits for.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long an answer that nobody waits for may take, however it trickles.
const UNATTENDED_MAX: Duration = Duration::from_secs(300);

/// What a forward request brought for those who joined it.
pub enum Landing {
    /// An answer that is being recorded.
    Recorded(Arc<Shared>),
    /// A stored response that the origin confirmed.
    Confirmed(Arc<Entry>),
    /// None.
    Failed(Cause),
}

/// An answer that is being recorded.
pub struct Shared {
    /// Its head, as the origin sent it.
    pub head: ResponseHead,
    /// What is kept of the head.
    pub stored: Stored,
    filled: Filled,
    /// More came, or the end.
    progress: Notify,
    /// A reader has read or left.
    taken: Notify,
    readers: AtomicUsize,
    is_handed_over: AtomicBool,
    is_detached: AtomicBool,
    trailers: OnceLock<Fields>,
    needs_reset: AtomicBool,
}

/// One reader's way through an answer that is being recorded.
pub struct Follow {
    shared: Arc<Shared>,
    /// There until the drop.
    reader: Option<Reader>,
    /// Its part in the flight, where another leads.
    _joined: Option<Follower<About, Landing>>,
}

/// What a reader finds.
pub enum Body {
    /// The next bytes.
    Data(Bytes),
    /// The end, with the trailer fields where there are any.
    End,
    /// It broke off; whether a client can only learn it from a reset.
    Failed {
        /// An ordinary close would make a whole answer of this part of one.
        needs_reset: bool,
    },
}

impl Shared {
    pub(super) fn new(head: ResponseHead, stored: Stored, filled: Filled) -> Arc<Self> {
        Arc::new(Self {
            head,
            stored,
            filled,
            progress: Notify::new(),
            taken: Notify::new(),
            readers: AtomicUsize::new(0),
            is_handed_over: AtomicBool::new(false),
            is_detached: AtomicBool::new(false),
            trailers: OnceLock::new(),
            needs_reset: AtomicBool::new(false),
        })
    }

    /// A reader at the start, who may have joined another's flight; `None` if it is too late for one.
    pub(super) fn follow(self: &Arc<Self>, joined: Option<Follower<About, Landing>>) -> Option<Follow> {
        let reader = self.filled.reader()?;
        self.readers.fetch_add(1, Ordering::AcqRel);
        Some(Follow { shared: self.clone(), reader: Some(reader), _joined: joined })
    }

    /// Whether anybody reads it.
    pub fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }

    /// Notes that its client is gone: from here on the origin's silence has a limit.
    pub fn detach(&self) {
        self.is_detached.store(true, Ordering::Release);
    }

    /// The answer's trailer fields, once it is complete.
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.get()
    }
}

impl Follow {
    /// The answer.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes bytes that are here already, at most `bytes_max`.
    pub fn ready(&mut self, bytes_max: usize) -> Option<Body> {
        match self.reader.as_mut().map_or(Read::Failed, |reader| reader.read(bytes_max)) {
            Read::Data(data) => {
                self.shared.taken.notify_waiters();
                Some(Body::Data(data))
            }
            Read::Pending => None,
            Read::End => Some(Body::End),
            Read::Failed => {
                Some(Body::Failed { needs_reset: self.shared.needs_reset.load(Ordering::Acquire) })
            }
        }
    }

    /// Waits for the next bytes, or the end.
    pub async fn next(&mut self, bytes_max: usize) -> Body {
        loop {
            let shared = self.shared.clone();
            // Before the look, so that nothing between the two is missed.
            let progress = shared.progress.notified();
            if let Some(body) = self.ready(bytes_max) {
                return body;
            }
            progress.await;
        }
    }

    /// Whether others have to wait for this reader: the store did not take the answer.
    pub fn holds_others_up(&self) -> bool {
        self.shared.is_handed_over.load(Ordering::Acquire) && self.shared.readers.load(Ordering::Acquire) > 1
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // Before the others are told: they look whether it has made room.
        drop(self.reader.take());
        self.shared.readers.fetch_sub(1, Ordering::AcqRel);
        self.shared.taken.notify_waiters();
    }
}

/// Where an answer goes.
enum Sink {
    Store(Box<Recording>),
    /// The store refused it: to its readers only.
    Readers(HandOver),
    /// Nowhere any more.
    Closed,
}

/// What moves an answer from the origin into the store, and under its readers' eyes.
pub struct Pump {
    path: Arc<Path>,
    connection: Arc<Connection>,
    exchange: Option<Exchange<'static>>,
    sink: Sink,
    shared: Arc<Shared>,
    /// What it was asked by: where it stands may be another.
    key: Vec<u8>,
    lead: Option<Lead<About, Landing>>,
    /// The origin is busy with the request until its answer is complete, or waits for its readers.
    turn: Option<Turn>,
    /// The resource, where something stored is replaced: it does not outlive an answer that merely found no room.
    replaces: Option<Vec<u8>>,
}

impl Pump {
    pub(super) fn new(
        path: Arc<Path>,
        ask: &Ask,
        exchange: Exchange<'static>,
        recording: Recording,
        shared: Arc<Shared>,
        lead: Option<Lead<About, Landing>>,
        turn: Option<Turn>,
    ) -> Self {
        let connection = ask.connection.clone();
        let replaces = ask.selected().map(|_| ask.resource.clone());
        let sink = Sink::Store(Box::new(recording));
        let key = ask.key.clone();
        Self { path, connection, exchange: Some(exchange), sink, shared, key, lead, turn, replaces }
    }

    /// What tells the pump that its client is gone.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The same, without a client.
    pub(super) fn detached(self) -> Self {
        self.shared.detach();
        self
    }

    /// Moves the whole answer.
    pub async fn run(mut self) {
        let moved = self.all().await;
        match moved {
            Ok(()) => self.finish(),
            Err(error) => {
                tracing::debug!(%error, "a recorded answer broke off");
                let until_close = self.shared.head.framing == Framing::UntilClose;
                self.shared.needs_reset.store(until_close || is_reset(&error), Ordering::Release);
                if matches!(self.sink, Sink::Store(_)) {
                    self.refused(Reason::Incomplete);
                }
            }
        }
    }

    async fn all(&mut self) -> Result<(), ForwardError> {
        let mut wanted_at = Instant::now();
        loop {
            while let Some(data) = self.exchange()?.buffered()? {
                self.path.counters.bytes_from_origin.add(data.len() as u64);
                self.take(data).await?;
            }
            if self.exchange()?.is_done() {
                return Ok(());
            }
            if !self.is_in_vain() {
                wanted_at = Instant::now();
            } else if wanted_at.elapsed() >= UNATTENDED_MAX {
                return Err(ForwardError::ClientGone);
            }
            match timeout(SILENCE_MAX, self.exchange()?.more()).await {
                Ok(more) => more?,
                Err(_) if self.is_in_vain() => return Err(ForwardError::ClientGone),
                Err(_) => {}
            }
        }
    }

    /// Counts that the answer does not stay, and remembers why.
    fn refused(&self, reason: Reason) {
        not_stored(reason, &self.path.counters);
        let is_whole = !matches!(reason, Reason::Incomplete | Reason::Superseded | Reason::Purged);
        if let Some(resource) = self.replaces.as_ref().filter(|_| is_whole) {
            self.path.store.invalidate(resource);
        }
        // Whose whole is stored already is no news.
        if reason != Reason::Superseded {
            self.path.uncacheable.note_landed(&self.key, reason, clock::boot());
        }
    }

    fn exchange(&mut self) -> Result<&mut Exchange<'static>, ForwardError> {
        self.exchange.as_mut().ok_or(ForwardError::Closed)
    }

    /// Whether its client is gone and nobody else waits for it.
    fn is_in_vain(&self) -> bool {
        self.shared.is_detached.load(Ordering::Acquire)
            && !self.lead.as_ref().is_some_and(Lead::has_followers)
    }

    async fn take(&mut self, mut data: Bytes) -> Result<(), ForwardError> {
        if let Sink::Store(recording) = &mut self.sink {
            let Err(reason) = recording.append(&data) else {
                self.shared.progress.notify_waiters();
                return Ok(());
            };
            self.refused(reason);
            self.hand_over();
        }
        while let Sink::Readers(readers) = &mut self.sink {
            if readers.is_abandoned() {
                return Err(ForwardError::ClientGone);
            }
            // Before the offer, so that no room that is made between the two is missed.
            let taken = self.shared.taken.notified();
            data.advance(readers.append(&data).min(data.len()));
            self.shared.progress.notify_waiters();
            if data.is_empty() {
                break;
            }
            taken.await;
        }
        Ok(())
    }

    /// Nobody joins from here on; those who did get everything, at their own pace.
    fn hand_over(&mut self) {
        self.turn = None;
        if let Some(lead) = &self.lead {
            lead.close();
        }
        if let Sink::Store(recording) = std::mem::replace(&mut self.sink, Sink::Closed) {
            self.shared.is_handed_over.store(true, Ordering::Release);
            self.sink = Sink::Readers(recording.hand_over());
        }
    }

    fn finish(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        if let Some(trailers) = exchange.trailers() {
            let _ = self.shared.trailers.set(trailers.clone());
            // A stored response has no trailer section; those who read along get it.
            self.refused(Reason::Trailers);
            self.hand_over();
        }
        let counters = &self.path.counters;
        let finished = match std::mem::replace(&mut self.sink, Sink::Closed) {
            Sink::Store(recording) => {
                let head = &self.shared.head;
                // A 206 may have become the whole.
                let reason = |status| if status == head.status { &head.reason[..] } else { b"OK" };
                recording
                    .finish(|stored, bytes| stored_head(stored, reason(stored.status), bytes))
                    .map(|_| counters.stored.incr())
            }
            Sink::Readers(readers) => readers.finish(),
            Sink::Closed => Ok(()),
        };
        if let Err(reason) = finished {
            self.refused(reason);
        }
        if let Some(upstream) = exchange.into_reusable() {
            self.path.pool.put(self.connection.pool_key(), self.connection.id, upstream);
        }
    }
}

impl Drop for Pump {
    /// Whatever became of the answer, finished, broken off or given up: nobody waits for more.
    fn drop(&mut self) {
        self.sink = Sink::Closed;
        drop(self.lead.take());
        self.shared.progress.notify_waiters();
    }
}

/// Whether the origin reset the connection, or closed it in good order within its answer.
pub(crate) fn is_reset(error: &ForwardError) -> bool {
    let ForwardError::Broken(error) = error else { return false };
    error.get_ref().is_none_or(|inner| !inner.is::<BodyFault>())
}
