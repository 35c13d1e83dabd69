//! The origin of each kind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::Kind;
use crate::load::clock;
use crate::manners::content;
use crate::origin::{Answer, Origin};

/// How long what is short may be reused.
pub const SHORT: Duration = Duration::from_secs(1);

/// The length of what is written, bytes.
const VERSION_BYTES: usize = 60_000;

/// How long what is not short may be reused, seconds.
const LONG_S: u64 = 600;

/// The letter that a version is made of.
pub(super) fn letter(version: u64) -> u8 {
    b'a' + (version % 26) as u8
}

/// An origin that answers every kind.
pub fn start() -> Result<Origin> {
    let (newest, asked) = (AtomicU64::new(0), AtomicU64::new(0));
    Origin::http(move |request| {
        let is = |kind: Kind| request.target() == kind.target(0);
        if is(Kind::Short) {
            return Answer::ok(clock().to_string()).max_age(SHORT.as_secs());
        }
        if is(Kind::Lasting) {
            return Answer::ok(clock().to_string()).max_age(LONG_S);
        }
        if is(Kind::Versions) {
            if request.method() == "PUT" {
                let version = newest.fetch_add(1, Ordering::SeqCst) + 1;
                return Answer::bare("204 No Content").field("ETag", format!("\"{version}\""));
            }
            let version = newest.load(Ordering::SeqCst);
            return Answer::ok(vec![letter(version); VERSION_BYTES])
                .max_age(LONG_S)
                .field("ETag", format!("\"{version}\""));
        }
        if is(Kind::Own) {
            let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::ok(format!("answer {number}")).max_age(SHORT.as_secs());
        }
        Answer::ok(content(request.target())).max_age(LONG_S)
    })
}
