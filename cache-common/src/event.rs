//! Counters that the kernel programs keep, one slot each of a per-CPU array.

/// Declares the counters once: slot, name and meaning cannot drift apart.
macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $slot:literal, $name:literal;)+) => {
        /// What a kernel program counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[$doc])* $variant = $slot,)+
        }

        impl Counter {
            /// Every counter.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The counter's name in metrics and summaries.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

counters! {
    /// Connections sent to the node's cache.
    Redirected = 0, "connections_redirected";
    /// TCP connections of a workload to a port that is not intercepted.
    PassedPort = 1, "passed_port";
    /// Connections of an excluded cgroup or user.
    PassedExcluded = 2, "passed_excluded";
    /// Connections to a loopback address where loopback is not intercepted, or to a link-local one.
    PassedAddress = 3, "passed_address";
    /// Connections of sockets bound to a device, or marked (SO_MARK).
    PassedDevice = 4, "passed_device";
    /// Connections made in another network namespace than the workload's.
    PassedNetns = 5, "passed_netns";
    /// Connections made while the workload was paused: too many connections, or draining.
    PassedPaused = 6, "passed_paused";
    /// Connections made while the daemon's heartbeat was stale.
    PassedStale = 7, "passed_stale";
    /// Connections to a destination that is left alone for a while.
    PassedBypass = 8, "passed_bypass";
    /// Connections over the quota of not yet accepted ones.
    PassedPending = 9, "passed_pending";
    /// Connections for which nobody listened on the redirect address, or whose bound port was connected there already.
    PassedNoListener = 10, "passed_no_listener";
    /// Connections whose original destination could not be remembered.
    PassedStorage = 11, "passed_storage";
    /// Redirected connections whose original destination did not fit in the map: the daemon has to reset them.
    OriginalDstFull = 12, "original_dst_full";
    /// Connections made while the switch was off.
    PassedOff = 13, "passed_off";
    /// Requests answered by the kernel.
    KernelHits = 14, "kernel_hits";
    /// Body bytes of those answers.
    KernelBytes = 15, "kernel_bytes";
    /// Client sockets enrolled for answers of the kernel.
    Enrolled = 16, "enrolled";
    /// Client sockets not enrolled because they are MPTCP.
    EnrolRefusedMptcp = 17, "enrol_refused_mptcp";
    /// Client sockets not enrolled because bytes were sent before the connection was established.
    EnrolRefusedData = 18, "enrol_refused_data";
    /// Client sockets not enrolled because a map was full, or the kernel refused.
    EnrolRefusedFull = 19, "enrol_refused_full";
    /// Client sockets taken out at their own half-close.
    LeftAtHalfClose = 20, "left_at_half_close";
    /// Sends that are no complete head of the methods that are answered.
    UnansweredNoHead = 21, "unanswered_no_head";
    /// Heads too long to be looked at.
    UnansweredTooLong = 22, "unanswered_too_long";
    /// Heads sent while the daemon's sign of life was old, or hits were switched off.
    UnansweredStale = 23, "unanswered_stale";
    /// Heads on a connection whose record is not there, or that is to have no hits.
    UnansweredNoHits = 24, "unanswered_no_hits";
    /// Heads that the daemon gets so that it stays in the picture.
    UnansweredSampled = 25, "unanswered_sampled";
    /// Heads sent before everything earlier was answered.
    UnansweredOutstanding = 26, "unanswered_outstanding";
    /// Heads sent before everything that was answered had arrived or was read.
    UnansweredUnread = 27, "unanswered_unread";
    /// Heads that are not resident.
    UnansweredCold = 28, "unanswered_cold";
    /// Heads whose resident response has expired.
    UnansweredExpired = 29, "unanswered_expired";
    /// Heads whose hash is that of another one, or whose response was taken back meanwhile.
    UnansweredOther = 30, "unanswered_other";
    /// Answers for which the kernel had no memory.
    UnansweredNoMemory = 31, "unanswered_no_memory";
    /// Sends that failed because an answer could not be undone.
    AnswersSpoilt = 32, "answers_spoilt";
    /// Connections on which bytes were passed on while an answer of the kernel was unread.
    Pipelining = 33, "pipelining";
    /// Connections whose application reads or sends with splice(2) or sendfile(2).
    Splicing = 34, "splicing";
    /// Connections with blocking reads that went back to plain TCP, to wait for an answer of the daemon.
    LeftToWait = 35, "left_to_wait";
}

/// Slots of the counter array.
pub const COUNTERS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_slot_of_its_own() {
        let mut seen = [false; COUNTERS as usize];
        for counter in Counter::ALL {
            assert!(!core::mem::replace(&mut seen[*counter as usize], true), "{counter:?}");
        }
    }
}
