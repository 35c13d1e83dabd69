//! Objects as API servers write them that are newer than the one of the tests through a real one (1.20): by the schema of
//! 1.33, and with what matters to us in them.

use k8s_openapi::api::core::v1::{Pod as NewerPod, Service as NewerService};
use k8s_openapi::api::discovery::v1::EndpointSlice as NewerSlice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tests::{applied, index};
use super::*;

/// An object that has nothing in it that 1.33 does not know.
fn newer<T: DeserializeOwned + Serialize>(text: &str) -> Value {
    let object: Value = serde_json::from_str(text).unwrap();
    let known: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(known).unwrap(), object, "not all of it is known to 1.33");
    object
}

#[test]
fn a_native_sidecar_is_a_proxy_and_its_pod_s_other_containers_are_served() {
    let pod = newer::<NewerPod>(include_str!("fixtures/pod_with_native_sidecar.json"));
    let mut index = index();
    index.apply(applied(
        Kind::Namespace,
        serde_json::json!({ "metadata": { "name": "shop", "labels": { "sidestep.dev/cache": "enabled" } } }),
    ));
    index.apply(applied(Kind::Pod, pod));
    let pods = index.snapshot().pods;
    let [PodState::Wanted(pod)] = &pods[..] else { panic!("{pods:?}") };
    let served = Members::These(vec!["1f0c5b".repeat(8)]);
    assert_eq!((&pod.members, pod.service_account.as_str()), (&served, "catalogue"));
    let ips: Vec<String> = pod.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.244.1.7", "fd00:10:244::7"]);
}

#[test]
fn a_slice_of_version_1_tells_the_pods_of_a_headless_service() {
    let service = newer::<NewerService>(include_str!("fixtures/headless_service.json"));
    let slice = newer::<NewerSlice>(include_str!("fixtures/endpoint_slice.json"));
    let mut index = index();
    index.apply(applied(Kind::Service, service));
    index.apply(applied(Kind::EndpointSlice, slice));
    let destinations = index.snapshot().destinations;
    let mut found: Vec<_> = destinations
        .iter()
        .map(|(at, is)| (at.to_string(), is.port, is.pod_uid.clone().unwrap_or_default()))
        .collect();
    found.sort();
    let uid = |last: &str| format!("6d0f0d0e-0000-4000-8000-00000000000{last}");
    assert_eq!(
        found,
        [("10.244.1.7:8080".to_owned(), 80, uid("1")), ("10.244.2.9:8080".to_owned(), 80, uid("2"))]
    );
}
