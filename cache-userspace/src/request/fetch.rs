//! The way forward of a request that was looked up: join a request that is under way or go oneself, validate what is
//! stored, record what may be stored, fall back on what is stored where that is allowed.

use std::sync::Arc;

use tokio::time::{sleep, timeout};

use super::ask::{About, Ask, candidate};
use super::landing::{Landing, Pump, Shared};
use super::{Path, answer_view, bind, purpose, view};
use crate::clock;
use crate::forward::{
    Answer, Exchange, Follower, ForwardError, Lead, Part, RequestBody, Turn, exchange::InFlight,
};
use crate::http1::{Framing, ResponseHead};
use crate::policy::{self, Cause, Decision, Now, Reason, StaleVerdict};
use crate::respond::write::not_stored;
use crate::respond::{
    CacheStatus, Forwarded, Own, Response, Reused, Role, SharedResponse, stored_head,
};
use crate::store::{Entry, Place, Recording};
