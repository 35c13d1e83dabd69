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
}

/// Slots of the counter array.
pub const COUNTERS: u32 = 16;

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
