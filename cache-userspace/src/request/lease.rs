//! Whether a client may be given what is stored: a pod of a cluster only while the mesh was seen to let it through to where it
//! comes from (MESH.md S3). Whoever asks on another's behalf has no more rights than that one.

use std::time::Duration;

use super::{Connection, Path, answer_view, authority, inputs};
use crate::clock;
use crate::forward::{Answer, ForwardError};
use crate::http1::{RequestHead, ResponseHead};
use crate::identify::Workload;
use crate::identify::lease::LeaseKey;
use crate::policy::is_mesh_reply;
use crate::route::Route;

/// What must be leased to a client before anything stored answers its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim(Option<LeaseKey>);

/// What an answer says of the client's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Granted,
    Refused,
    Nothing,
}

impl Claim {
    /// Where there is no cluster nothing has to be leased.
    pub(super) fn of(request: &RequestHead, route: &Route, workload: &Workload) -> Self {
        let Some(service) = &route.service else { return Self(None) };
        // The mesh goes by the name, whatever the address; it is only a claim of the client.
        let (identity, name) = (&service.identity[..], authority(request).to_ascii_lowercase());
        // What was let through by other routes says nothing, nor what they tell apart.
        let epoch = service.epoch.to_be_bytes();
        let inputs = inputs::digest(&service.guard().inputs, request, workload);
        Self(Some(match route.leases_by_path {
            false => LeaseKey::of([identity, &epoch, &name, &inputs]),
            true => LeaseKey::of([identity, &epoch, &name, &inputs, &request.method, &request.target]),
        }))
    }

    /// How much longer what is stored may answer; `None`: not now.
    pub(super) fn left(self, connection: &Connection, now: Duration) -> Option<Duration> {
        let Some(key) = self.0 else { return Some(Duration::MAX) };
        connection.workload.leases.as_ref()?.left(&key, now)
    }

    /// Whether what is stored may answer now.
    pub(super) fn holds(self, connection: &Connection) -> bool {
        self.0.is_none() || self.left(connection, clock::boot()).is_some()
    }
}

impl Path {
    /// Takes note of what the mesh let through, or did not, of what was requested at that time since boot.
    pub(super) fn note_rights(
        &self,
        claim: Claim,
        connection: &Connection,
        answer: &Result<Answer, ForwardError>,
        requested_at: Duration,
    ) {
        let (Some(key), Some(leases)) = (claim.0, &connection.workload.leases) else { return };
        let now = clock::boot();
        match word(answer) {
            Word::Granted => leases.grant(key, requested_at, now),
            Word::Refused => {
                let had = leases.revoke(key, now);
                // After the lease: whoever promotes looks at that last. A service may have several addresses.
                if let (true, Some(hot)) = (had, &self.hot) {
                    hot.remove_hits_of(connection.workload.id);
                }
                if had {
                    self.counters.leases_revoked.incr();
                }
            }
            Word::Nothing => {}
        }
    }
}

/// Whether an answer is about the client, or the mesh, and not about what it asked for.
pub(super) fn is_refusal(head: &ResponseHead) -> bool {
    matches!(head.status, 401 | 403 | 407) || is_mesh_reply(&answer_view(head))
}

fn word(answer: &Result<Answer, ForwardError>) -> Word {
    match answer {
        Ok(Answer::Head(head)) => match head.status {
            _ if is_refusal(head) => Word::Refused,
            // What is not found was looked for by the origin.
            200..=399 | 404 | 410 => Word::Granted,
            _ => Word::Nothing,
        },
        // How a mesh refuses where it knows connections only.
        Err(ForwardError::Closed | ForwardError::Broken(_)) => Word::Refused,
        Ok(Answer::Opaque)
        | Err(ForwardError::Dial(_) | ForwardError::BadContent(_) | ForwardError::ClientGone) => {
            Word::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::BytesMut;

    use super::*;
    use crate::http1::head::Parsed;

    fn of(status: u16, line: &str) -> Word {
        let text = format!("HTTP/1.1 {status} x\r\n{line}Content-Length: 0\r\n\r\n");
        match ResponseHead::take(&mut BytesMut::from(text.as_str()), &mut 0, 8192, b"GET") {
            Parsed::Complete(head) => word(&Ok(Answer::Head(Box::new(head)))),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_success_grants_a_refusal_ends_and_an_error_says_nothing() {
        for status in [200, 204, 206, 301, 304, 404, 410] {
            assert_eq!(of(status, ""), Word::Granted, "{status}");
        }
        for status in [401, 403, 407] {
            assert_eq!(of(status, ""), Word::Refused, "{status}");
        }
        for status in [400, 405, 429, 500, 502, 503, 504] {
            assert_eq!(of(status, ""), Word::Nothing, "{status}");
        }
        for status in [200, 301, 404, 503] {
            assert_eq!(of(status, "server: envoy\r\n"), Word::Refused, "{status} of a proxy");
        }
    }

    #[test]
    fn a_reset_ends_and_what_never_reached_anybody_says_nothing() {
        let error = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(word(&Err(ForwardError::Broken(error()))), Word::Refused);
        assert_eq!(word(&Err(ForwardError::Closed)), Word::Refused);
        assert_eq!(word(&Err(ForwardError::Dial(error()))), Word::Nothing);
        assert_eq!(word(&Err(ForwardError::ClientGone)), Word::Nothing);
        assert_eq!(word(&Ok(Answer::Opaque)), Word::Nothing);
    }
}
