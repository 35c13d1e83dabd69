//! Exchanges for the tests of the other files.

use std::time::Duration;

use super::{Now, Profile, RequestView, ResponseView, Rules, Stored, store};
use crate::http1::Fields;

/// Names and values of fields.
pub(super) type Pairs<'a> = &'a [(&'a str, &'a str)];

/// Sun, 06 Nov 1994 08:49:37 GMT
pub(super) const STORED_AT: Now = Now { boot: Duration::from_secs(1000), wall: 784_111_777 };

/// So many seconds later, on both clocks.
pub(super) fn after(seconds: u64) -> Now {
    let wall = STORED_AT.wall + seconds as i64;
    Now { boot: STORED_AT.boot + Duration::from_secs(seconds), wall }
}

/// Rules under which nothing is bounded by resident time here.
pub(super) fn rules(profile: Profile) -> Rules {
    Rules { profile, resident_max: Duration::from_secs(6000), ..Rules::default() }
}

/// Fields of these names and values, with a Host before them.
pub(super) fn fields(pairs: Pairs<'_>) -> Fields {
    Fields::from_pairs([("host", "a")].iter().chain(pairs).copied())
}

/// A request for `/` with these fields.
pub(super) fn get(fields: &Fields) -> RequestView<'_> {
    RequestView { method: b"GET", target: b"/", fields }
}

/// A 200 as `rfc9111` stores it, received at a moment.
pub(super) fn stored(request: Pairs<'_>, response: Pairs<'_>, at: Now) -> Stored {
    let request = fields(request);
    let response = Fields::from_pairs(response.iter().copied());
    let response = ResponseView { status: 200, fields: &response, delimited_by_close: false };
    store(&get(&request), &response, &rules(Profile::Rfc9111), at, at).unwrap()
}
