//! How a request that was answered is counted: one outcome each, as RFC 9211 and the summary call it.

use super::Path;
use crate::admin::Outcome;
use crate::respond::{Response, Reused, Role};

impl Path {
    /// The outcome of a response.
    pub fn outcome(response: &Response<'_>) -> Outcome {
        match response {
            Response::Stored(stored) => match stored.reused {
                Reused::Hit => Outcome::Hit,
                Reused::StaleWhileRevalidate | Reused::StaleInstead { .. } => Outcome::Stale,
                Reused::Revalidated { .. } => Outcome::Revalidated,
                Reused::Collapsed { .. } => Outcome::Collapsed,
            },
            Response::Shared(shared) => match shared.role {
                Role::Leader(_) => Outcome::Miss,
                Role::Follower(..) => Outcome::Collapsed,
            },
            Response::Own(_) => Outcome::Error,
            Response::Opaque(_) | Response::Forwarded(_) => Outcome::Uncacheable,
        }
    }
}
