//! Tells the cluster which pods cannot be served, and why: an Event each, and, where that is wished for, an annotation.
//!
//! Nothing waits for it. Without the API server the last word about each pod waits; what finds no room is counted and left
//! out, and `sidestep status` has it all.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter as Source};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::index::PodRef;
use crate::admin::counters::Counter;

/// Pods about which something may wait to be told.
const WAITING_MAX: usize = 1024;
/// How long the API server may take for one report.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two reports, and between two about the same pod.
const PACE: Duration = Duration::from_millis(50);
const PACE_OF_POD: Duration = Duration::from_secs(1);
/// How long is waited after one that could not be sent, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes of an Event's sentence, as the API server limits it.
const NOTE_BYTES_MAX: usize = 1000;
/// Says in a pod what has become of it.
const ANNOTATION: &str = "sidestep.dev/status";
/// Who says it.
const CONTROLLER: &str = "sidestep.dev/node";

/// What has become of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It is served; `after_failure` where it was not before.
    Served {
        /// Whether an Event said otherwise.
        after_failure: bool,
    },
    /// It is not, for this reason.
    NotServed(String),
    /// Nobody wants it to be, any more.
    Unwanted,
}

/// Where reports are handed in.
#[derive(Clone, Debug)]
pub struct Reports(Arc<Waiting>);

/// What is to be told: the last word about each pod, by its uid.
#[derive(Debug)]
struct Waiting {
    reports: Mutex<BTreeMap<String, (PodRef, Report)>>,
    news: Notify,
    annotates: bool,
    has_ended: AtomicBool,
    dropped: Counter,
}

impl Reports {
    /// Begins to send reports about pods of a node; `annotates`: to the pods themselves, too.
    pub fn start(client: Client, node: String, annotates: bool) -> Self {
        let reports = Self::new(annotates);
        tokio::spawn(reports.clone().send(client, node));
        reports
    }

    fn new(annotates: bool) -> Self {
        Self(Arc::new(Waiting {
            reports: Mutex::default(),
            news: Notify::new(),
            annotates,
            has_ended: AtomicBool::new(false),
            dropped: Counter::default(),
        }))
    }

    /// Hands one in, instead of what waits to be told of the same pod; one that finds no room is counted.
    pub fn tell(&self, pod: &PodRef, report: Report) {
        let is_wanted = match report {
            Report::NotServed(_) | Report::Served { after_failure: true } => true,
            Report::Served { after_failure: false } | Report::Unwanted => self.0.annotates,
        };
        if !is_wanted || self.0.has_ended.load(Ordering::Relaxed) {
            return;
        }
        let mut reports = self.reports();
        if reports.len() >= WAITING_MAX && !reports.contains_key(&pod.uid) {
            self.0.dropped.incr();
            return;
        }
        reports.insert(pod.uid.clone(), (pod.clone(), report));
        drop(reports);
        self.0.news.notify_one();
    }

    /// Tells nothing more: another process does.
    pub fn end(&self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
        self.reports().clear();
        self.0.news.notify_one();
    }

    /// How many were left out, or refused.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.value()
    }

    fn reports(&self) -> MutexGuard<'_, BTreeMap<String, (PodRef, Report)>> {
        self.0.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the first that is due: not so soon after the last one about the same pod.
    fn take(&self, told: &HashMap<String, Instant>) -> Option<(PodRef, Report)> {
        let mut reports = self.reports();
        let is_due = |uid: &String| told.get(uid).is_none_or(|at| at.elapsed() >= PACE_OF_POD);
        let uid = reports.keys().find(|uid| is_due(uid)).cloned()?;
        reports.remove(&uid)
    }

    async fn send(self, client: Client, node: String) {
        let (mut told, mut pause, mut is_troubled) = (HashMap::<String, Instant>::new(), PAUSE_MIN, false);
        while !self.0.has_ended.load(Ordering::Relaxed) {
            let Some((pod, report)) = self.take(&told) else {
                let is_idle = self.reports().is_empty();
                match is_idle {
                    true => self.0.news.notified().await,
                    // What is not due yet becomes so by itself.
                    false => sleep(PACE_OF_POD / 5).await,
                }
                told.retain(|_, at| at.elapsed() < PACE_OF_POD);
                continue;
            };
            let sent = timeout(PATIENCE, self.send_one(&client, &node, &pod, &report)).await;
            let error = match sent {
                Ok(Ok(())) => {
                    told.insert(pod.uid, Instant::now());
                    (pause, is_troubled) = (PAUSE_MIN, false);
                    sleep(PACE).await;
                    continue;
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            // Said once, however many there are.
            if !is_troubled {
                let error = error.as_ref().map_or("no answer".to_owned(), Error::to_string);
                tracing::warn!(error, "the cluster cannot be told what becomes of pods");
            }
            is_troubled = true;
            if matches!(&error, Some(Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429)
            {
                // It would be refused again.
                self.0.dropped.incr();
            } else {
                // Unless there is something newer of it.
                self.reports().entry(pod.uid.clone()).or_insert((pod, report));
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn send_one(
        &self,
        client: &Client,
        node: &str,
        pod: &PodRef,
        report: &Report,
    ) -> Result<(), Error> {
        if let Some(event) = event(report) {
            let source = Source { controller: CONTROLLER.to_owned(), instance: Some(node.to_owned()) };
            // One that remembers would add what is said to what it said before of the same pod.
            Recorder::new(client.clone(), source).publish(&event, &reference(pod)).await?;
        }
        if self.0.annotates {
            annotate(client, pod, report).await?;
        }
        Ok(())
    }
}

fn event(report: &Report) -> Option<Event> {
    let (type_, reason, note) = match report {
        Report::NotServed(why) => {
            (EventType::Warning, "CacheNotServed", format!("its connections go direct: {why}"))
        }
        Report::Served { after_failure: true } => {
            (EventType::Normal, "CacheServed", "its connections to HTTP services are served".to_owned())
        }
        Report::Served { after_failure: false } | Report::Unwanted => return None,
    };
    let (reason, action) = (reason.to_owned(), "Serve".to_owned());
    Some(Event { type_, reason, note: Some(cut(note)), action, secondary: None })
}

/// As much of a sentence as fits into an Event.
fn cut(mut note: String) -> String {
    note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
    note
}

fn reference(pod: &PodRef) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Changes the annotation of this very pod, by its status: that is all we may change.
async fn annotate(client: &Client, pod: &PodRef, report: &Report) -> Result<(), Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), &pod.namespace);
    let patch = Patch::Merge(annotation(pod, report));
    match pods.patch_status(&pod.name, &PatchParams::default(), &patch).await {
        // It is gone, or another one has its name.
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        answer => answer.map(drop),
    }
}

fn annotation(pod: &PodRef, report: &Report) -> Value {
    let value = match report {
        Report::Served { .. } => json!("served"),
        Report::NotServed(why) => json!(format!("not served: {why}")),
        Report::Unwanted => Value::Null,
    };
    json!({ "metadata": { "uid": pod.uid, "annotations": { ANNOTATION: value } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodRef {
        PodRef { namespace: "shop".to_owned(), name: "a".to_owned(), uid: "uid".to_owned() }
    }

    #[test]
    fn a_failure_and_its_end_are_events_and_nothing_else_is() {
        let failed = event(&Report::NotServed("no room".to_owned())).unwrap();
        assert_eq!(failed.note.unwrap(), "its connections go direct: no room");
        assert!(event(&Report::Served { after_failure: true }).is_some());
        assert!(event(&Report::Served { after_failure: false }).is_none());
        assert!(event(&Report::Unwanted).is_none());
    }

    #[test]
    fn the_annotation_is_that_of_this_very_pod_and_goes_with_the_label() {
        let patch = annotation(&pod(), &Report::Unwanted);
        assert_eq!(
            patch,
            json!({ "metadata": { "uid": "uid", "annotations": { "sidestep.dev/status": null } } })
        );
    }

    #[test]
    fn of_each_pod_the_last_word_waits_and_what_finds_no_room_is_counted() {
        let reports = Reports::new(false);
        let nth = |n: usize| PodRef { uid: format!("{n:05}"), ..pod() };
        for n in 0..WAITING_MAX + 2 {
            reports.tell(&nth(n), Report::NotServed("x".to_owned()));
            reports.tell(&nth(n), Report::Unwanted);
        }
        assert_eq!(reports.dropped(), 2, "without annotations nothing else is told");
        reports.tell(&nth(0), Report::Served { after_failure: true });
        assert_eq!(reports.take(&HashMap::new()), Some((nth(0), Report::Served { after_failure: true })));
        // Told a moment ago.
        let told = [("00001".to_owned(), Instant::now())].into();
        assert_eq!(reports.take(&told).map(|(pod, _)| pod.uid).as_deref(), Some("00002"));
        reports.end();
        reports.tell(&nth(7), Report::NotServed("x".to_owned()));
        assert_eq!(reports.take(&HashMap::new()), None, "another process tells");
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        assert_eq!(cut("ä".repeat(600)).len(), NOTE_BYTES_MAX);
        assert_eq!(cut("a".to_owned() + &"ä".repeat(600)).len(), NOTE_BYTES_MAX - 1);
        assert_eq!(cut("short".to_owned()), "short");
    }
}
