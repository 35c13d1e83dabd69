//! Tells the cluster which pods cannot be served, and why: an Event each, and, where that is wished for, an annotation.
//!
//! Nothing waits for it: what finds no room in its queue is counted and left out, and `sidestep status` has it all.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter as Source};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::index::PodRef;
use crate::admin::Counters;

/// Reports that may wait to be sent.
const QUEUE_MAX: usize = 256;
/// How long the API server may take for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two of them.
const PACE: Duration = Duration::from_millis(50);
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
pub struct Reports {
    queue: mpsc::Sender<(PodRef, Report)>,
    annotates: bool,
}

impl Reports {
    /// Begins to send reports about pods of a node; `annotates`: to the pods themselves, too.
    pub fn start(client: Client, node: String, annotates: bool) -> Self {
        let (queue, reports) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(send(client, node, annotates, reports));
        Self { queue, annotates }
    }

    /// Hands one in; one that finds no room is counted.
    pub fn tell(&self, pod: &PodRef, report: Report, counters: &Arc<Counters>) {
        let is_wanted = match report {
            Report::NotServed(_) | Report::Served { after_failure: true } => true,
            Report::Served { after_failure: false } | Report::Unwanted => self.annotates,
        };
        if is_wanted && self.queue.try_send((pod.clone(), report)).is_err() {
            counters.reports_dropped.incr();
        }
    }
}

async fn send(client: Client, node: String, annotates: bool, mut reports: mpsc::Receiver<(PodRef, Report)>) {
    let mut is_troubled = false;
    while let Some((pod, report)) = reports.recv().await {
        let all = async {
            if let Some(event) = event(&report) {
                let source = Source { controller: CONTROLLER.to_owned(), instance: Some(node.clone()) };
                // One that remembers would add what is said to what it said before of the same pod.
                Recorder::new(client.clone(), source).publish(&event, &reference(&pod)).await?;
            }
            if annotates {
                annotate(&client, &pod, &report).await?;
            }
            Ok::<(), Error>(())
        };
        let error = match tokio::time::timeout(PATIENCE, all).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        // Said once, however many there are.
        if let (Some(error), false) = (&error, is_troubled) {
            tracing::warn!(error, "the cluster cannot be told what becomes of pods");
        }
        is_troubled = error.is_some();
        tokio::time::sleep(PACE).await;
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
    Some(Event { type_, reason, note: Some(note), action, secondary: None })
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
    fn what_finds_no_room_is_counted() {
        let (queue, _reports) = mpsc::channel(1);
        let (reports, counters) = (Reports { queue, annotates: false }, Arc::new(Counters::default()));
        for _ in 0..3 {
            reports.tell(&pod(), Report::NotServed("x".to_owned()), &counters);
            reports.tell(&pod(), Report::Unwanted, &counters);
        }
        assert_eq!(counters.reports_dropped.value(), 2, "without annotations nothing else is told");
    }
}
