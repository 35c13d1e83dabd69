//! The end of a connection is seen behind an answer of the kernel, as it is behind any other.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::bench::{Bench, head};
use super::{Seen, Wrong, ensure};

pub(super) fn end_is_seen(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    let pair = bench.pair()?;
    pair.sends(&entry.head)?;
    pair.server.shutdown(Shutdown::Write)?;
    pair.reads_answer(&entry)?;
    let read = (&pair.client).read(&mut [0]);
    ensure(matches!(read, Ok(0)), || format!("after an answer and the server's end a read gave {read:?}"))?;
    // The client may still send, and is not answered any more.
    pair.passes(&entry.head)?;
    let pair = bench.pair()?;
    pair.is_answered(&entry)?;
    pair.server.shutdown(Shutdown::Write)?;
    let read = (&pair.client).read(&mut [0]);
    ensure(matches!(read, Ok(0)), || format!("at the server's end a read gave {read:?}"))?;
    Seen::right("the server's end is seen, behind an unread answer too")
}

pub(super) fn reset_is_seen(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    for is_read in [true, false] {
        let mut pair = bench.pair()?;
        pair.sends(&entry.head)?;
        if is_read {
            pair.reads_answer(&entry)?;
        }
        pair.is_reset()?;
        let mut got = Vec::new();
        let end = (&pair.client).read_to_end(&mut got);
        let is_end = end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        ensure(is_end, || format!("after a reset a read gave {end:?}"))?;
        let sent = (&pair.client).write(&head("/hot", 0));
        ensure(sent.is_err(), || "after a reset a send succeeded".to_owned())?;
    }
    Seen::right("a reset is seen, behind an unread answer too")
}
