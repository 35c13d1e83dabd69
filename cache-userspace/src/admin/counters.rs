//! Every figure of the daemon, declared once: struct, JSON, Prometheus text and help cannot drift apart.
//!
//! Raising them is left to the stage that sees the event; those of the kernel are folded in by `DaemonView`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::reasons::{ReasonFigure, Reasons};

/// A figure that many threads raise; relaxed, so that it orders nothing else.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn incr(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes one away; for gauges, by whoever added it.
    pub fn decr(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Follows a count that is kept elsewhere, as the kernel's are; one that was read earlier changes nothing.
    pub fn follow(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// Returns the value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// What became of one request; the sum over these is `requests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered fresh from the store.
    Hit,
    /// Answered stale from the store, as its origin or the policy allows.
    Stale,
    /// Answered from the store after the origin confirmed it.
    Revalidated,
    /// Answered by the forward request of another client.
    Collapsed,
    /// Forwarded, for nothing usable was stored.
    Miss,
    /// Forwarded, for it may not be answered from a store.
    Uncacheable,
    /// Not answered as the origin would have: refused by us, or the origin failed.
    Error,
}

macro_rules! counters {
    (
        counted { $( $(#[doc = $help:literal])+ $name:ident: $kind:ident, )+ }
        included { $( $whole:ident += $extra:ident, )+ }
        summed { $( $(#[doc = $sum_help:literal])+ $sum:ident = [ $($part:ident),+ ], )+ }
    ) => {
        /// The live figures of one daemon; what the kernel adds to them is apart here, and included in [`Figures`].
        #[derive(Debug, Default)]
        pub struct Counters {
            $( $(#[doc = $help])+ pub $name: Counter, )+
            /// The same events by reason.
            pub reasons: Reasons,
        }

        /// The figures at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Figures {
            $( $(#[doc = $sum_help])+ pub $sum: u64, )+
            $( $(#[doc = $help])+ pub $name: u64, )+
            /// Figures by reason, those that are not zero.
            #[serde(skip)]
            pub by_reason: Vec<ReasonFigure>,
        }

        impl Counters {
            /// Reads every figure once; sums are of what was read, so they always agree with their parts.
            pub fn figures(&self) -> Figures {
                let by_reason = self.reasons.figures();
                let mut figures =
                    Figures { $( $name: self.$name.value(), )+ by_reason, ..Figures::default() };
                $( figures.$whole += figures.$extra; )+
                $( figures.$sum = 0 $( + figures.$part )+; )+
                figures
            }
        }

        impl Figures {
            /// Lists every figure: name, help, kind, value.
            pub fn list(&self) -> Vec<(&'static str, &'static str, Kind, u64)> {
                vec![
                    $( (stringify!($sum), concat!($($sum_help),+).trim_ascii(), Kind::Counter, self.$sum), )+
                    $( (stringify!($name), concat!($($help),+).trim_ascii(), Kind::$kind, self.$name), )+
                ]
            }
        }
    };
}

counters! {
    counted {
        /// Connections that the kernel sent to the daemon.
        connections_redirected: Counter,
        /// Connections to intercepted ports that the kernel left alone, for any reason.
        connections_passed: Counter,
        /// Redirected connections that are open now.
        connections_open: Gauge,
        /// Redirected connections that arrived after their workload had reached its limit; they are served too.
        connections_over_limit: Counter,
        /// Connections that ended with an answer so that the client's next one may be answered by the kernel.
        connections_renewed: Counter,
        /// Workloads that are served now.
        workloads_served: Gauge,
        /// Workloads that could not be served, or no longer, counted for each new reason.
        enrolment_failures: Counter,
        /// Reports to the cluster about pods that were left out because too many were waiting, or were refused.
        reports_dropped: Counter,
        /// Authorization leases of pods that a refusal ended.
        leases_revoked: Counter,
        /// Requests answered fresh from the store, those answered by the kernel included.
        hits: Counter,
        /// Requests answered by the kernel, inside the client's send().
        kernel_hits: Counter,
        /// Requests forwarded because nothing usable was stored.
        misses: Counter,
        /// Requests answered from the store after the origin confirmed it.
        revalidated: Counter,
        /// Requests answered stale from the store.
        stale: Counter,
        /// Requests answered by the forward request of another client.
        collapsed: Counter,
        /// Requests forwarded because they may not be answered from a store.
        uncacheable: Counter,
        /// Requests that were refused, or whose origin failed.
        errors: Counter,
        /// Body bytes sent to clients from the store, those sent by the kernel included.
        bytes_from_cache: Counter,
        /// Body bytes of the kernel's answers.
        kernel_bytes: Counter,
        /// Body bytes received from origins.
        bytes_from_origin: Counter,
        /// Connections relayed untouched because their first bytes are not HTTP/1.
        passthrough_opaque: Counter,
        /// Connections relayed untouched after CONNECT or an upgrade.
        passthrough_tunnel: Counter,
        /// Connections relayed untouched from a malformed request on.
        passthrough_malformed: Counter,
        /// Connections relayed untouched because the client speaks to a proxy.
        passthrough_absolute_form: Counter,
        /// Requests answered with 400 because their framing is ambiguous, or by strict HTTP.
        rejected_malformed: Counter,
        /// Destinations that the kernel was taught to leave alone.
        bypass_taught: Counter,
        /// Connections whose original destination was not found, and that were closed.
        original_dst_missing: Counter,
        /// Connections that went direct because the map of original destinations was full.
        original_dst_full: Counter,
        /// Connections that went direct because the daemon's heartbeat was old.
        passed_stale: Counter,
        /// Connections that went direct because nobody listened in their network namespace.
        passed_no_listener: Counter,
        /// Connections that went direct because their destination is left alone for a time.
        passed_bypass: Counter,
        /// Connections that went direct because they go to this host or to a link-local address.
        passed_address: Counter,
        /// Connections that went direct because they were made in another network namespace.
        passed_netns: Counter,
        /// Connections that went direct while their workload was at a limit.
        passed_paused: Counter,
        /// Connections that went direct because too many were waiting to be accepted.
        passed_pending: Counter,
        /// Connections that went direct because their destination could not be remembered.
        passed_storage: Counter,
        /// Connections that went direct because of the cgroup or the user id that made them.
        passed_excluded: Counter,
        /// Connections that went direct because their socket is bound to a device.
        passed_device: Counter,
        /// Connections that went direct because redirection was switched off.
        passed_off: Counter,
        /// Client sockets enrolled for answers of the kernel.
        enrolled: Counter,
        /// Client sockets not enrolled because they are MPTCP.
        enrol_refused_mptcp: Counter,
        /// Client sockets not enrolled because bytes were sent before the connection was established.
        enrol_refused_data: Counter,
        /// Client sockets not enrolled because a map was full, or the kernel refused.
        enrol_refused_full: Counter,
        /// Client sockets taken out at their own half-close.
        left_at_half_close: Counter,
        /// Sends that are no complete head of the methods that are answered.
        unanswered_no_head: Counter,
        /// Heads too long to be looked at.
        unanswered_too_long: Counter,
        /// Heads sent while the daemon's sign of life was old, or hits were switched off.
        unanswered_stale: Counter,
        /// Heads on a connection whose record is not there, or that is to have no hits.
        unanswered_no_hits: Counter,
        /// Heads that the daemon gets so that it stays in the picture.
        unanswered_sampled: Counter,
        /// Heads sent before everything earlier was answered.
        unanswered_outstanding: Counter,
        /// Heads sent before everything that was answered had arrived or was read.
        unanswered_unread: Counter,
        /// Heads that are not resident.
        unanswered_cold: Counter,
        /// Heads whose resident response has expired.
        unanswered_expired: Counter,
        /// Heads whose hash is that of another one, or whose response was taken back meanwhile.
        unanswered_other: Counter,
        /// Answers for which the kernel had no memory.
        unanswered_no_memory: Counter,
        /// Sends that failed because an answer could not be undone.
        answers_spoilt: Counter,
        /// Connections on which bytes were passed on while an answer of the kernel was unread.
        pipelining: Counter,
        /// Connections whose application reads or sends with splice(2) or sendfile(2).
        splicing: Counter,
        /// Connections with blocking reads that went back to plain TCP, to wait for an answer of the daemon.
        left_to_wait: Counter,
        /// Connections made to origins.
        upstream_connections: Counter,
        /// Requests sent again because a pooled connection had been closed meanwhile.
        upstream_retries: Counter,
        /// Connections to origins that failed.
        dial_errors: Counter,
        /// Requests that waited for another client's answer in vain and went on alone.
        collapse_timeouts: Counter,
        /// Requests that went forward although their destination was busy with as many as it may get.
        origin_turns_late: Counter,
        /// Validations and fills that did not go on without a client because too many did already.
        background_full: Counter,
        /// QUERYs that only passed through because their content was too large, came too late or found no room.
        query_contents_refused: Counter,
        /// Clients that were given up because they took nothing while others had to wait for them.
        stragglers_dropped: Counter,
        /// Answers that broke off because their origin did.
        answers_broken_off: Counter,
        /// Responses that the kernel was taught to give.
        promoted: Counter,
        /// Responses put into the store.
        stored: Counter,
        /// Responses that might have been stored and were not.
        not_stored: Counter,
        /// Responses streamed without storing because the store was full.
        store_full: Counter,
    }
    included {
        hits += kernel_hits,
        bytes_from_cache += kernel_bytes,
    }
    summed {
        /// Requests that were answered, whatever from.
        requests = [hits, stale, revalidated, collapsed, misses, uncacheable, errors],
    }
}

impl Counters {
    /// Counts one finished request.
    pub fn record(&self, outcome: Outcome) {
        match outcome {
            Outcome::Hit => &self.hits,
            Outcome::Stale => &self.stale,
            Outcome::Revalidated => &self.revalidated,
            Outcome::Collapsed => &self.collapsed,
            Outcome::Miss => &self.misses,
            Outcome::Uncacheable => &self.uncacheable,
            Outcome::Error => &self.errors,
        }
        .incr();
    }
}

impl Figures {
    /// Returns the text of `--summary-json`: one object, one line a figure.
    pub fn summary_json(&self) -> String {
        let fields: Vec<String> =
            self.list().iter().map(|(name, _, _, value)| format!("  \"{name}\": {value}")).collect();
        format!("{{\n{}\n}}\n", fields.join(",\n"))
    }

    /// Returns what a person wants to know after a run, in a few lines.
    pub fn summary_text(&self) -> String {
        let from_cache = self.hits + self.stale + self.revalidated + self.collapsed;
        let percent = (from_cache * 100).checked_div(self.requests).unwrap_or(0);
        let mut text = format!(
            "connections   {} redirected, {} direct\nrequests      {}, {percent} % from the cache\n",
            self.connections_redirected, self.connections_passed, self.requests
        );
        let outcomes = [
            ("hits", self.hits),
            ("revalidated", self.revalidated),
            ("stale", self.stale),
            ("collapsed", self.collapsed),
            ("misses", self.misses),
            ("uncacheable", self.uncacheable),
            ("errors", self.errors),
        ];
        for (name, value) in outcomes.into_iter().filter(|(name, value)| *value > 0 || *name == "hits") {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<12}{value}");
            if name == "hits" && self.kernel_hits > 0 {
                let _ = writeln!(text, "    {} of them inside the kernel", self.kernel_hits);
            }
        }
        let _ = writeln!(
            text,
            "body bytes    {} from the cache, {} from origins",
            self.bytes_from_cache, self.bytes_from_origin
        );
        let relayed = self.passthrough_opaque
            + self.passthrough_tunnel
            + self.passthrough_malformed
            + self.passthrough_absolute_form;
        if relayed > 0 {
            let _ = writeln!(text, "relayed       {relayed} connections untouched");
        }
        text
    }

    /// Returns all figures in the Prometheus text format 0.0.4.
    pub fn prometheus_text(&self) -> String {
        let mut text = String::new();
        for (name, help, kind, value) in self.list() {
            let (suffix, kind) = match kind {
                Kind::Counter => ("_total", "counter"),
                Kind::Gauge => ("", "gauge"),
            };
            let _ = writeln!(
                text,
                "# HELP sidestep_{name}{suffix} {help}\n# TYPE sidestep_{name}{suffix} {kind}\n\
                 sidestep_{name}{suffix} {value}"
            );
        }
        let mut family = "";
        for ReasonFigure { name, help, reason, value } in &self.by_reason {
            if *name != family {
                let _ = writeln!(
                    text,
                    "# HELP sidestep_{name}_total {help}\n# TYPE sidestep_{name}_total counter"
                );
            }
            family = name;
            let _ = writeln!(text, "sidestep_{name}_total{{reason=\"{reason}\"}} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Reason;

    const OUTCOMES: [Outcome; 7] = [
        Outcome::Hit,
        Outcome::Stale,
        Outcome::Revalidated,
        Outcome::Collapsed,
        Outcome::Miss,
        Outcome::Uncacheable,
        Outcome::Error,
    ];

    #[test]
    fn requests_are_the_sum_of_all_outcomes() {
        let counters = Counters::default();
        for (times, outcome) in (1..).zip(OUTCOMES) {
            (0..times).for_each(|_| counters.record(outcome));
        }
        counters.kernel_hits.follow(10);
        counters.kernel_bytes.follow(1000);
        // Read before the other one, and folded after it.
        counters.kernel_hits.follow(9);

        let f = counters.figures();

        assert_eq!(f.requests, 28 + 10);
        assert_eq!(f.bytes_from_cache, 1000);
        assert_eq!((f.hits, f.kernel_hits), (11, 10));
        assert_eq!(
            f.requests,
            f.hits + f.stale + f.revalidated + f.collapsed + f.misses + f.uncacheable + f.errors
        );
    }

    #[test]
    fn the_sum_holds_at_every_moment_while_others_count() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| (0..7000).for_each(|n| counters.record(OUTCOMES[n % 7])));
            scope.spawn(|| (0..7000).for_each(|n| counters.kernel_hits.follow(n)));
            while !counting.is_finished() {
                let f = counters.figures();
                let parts =
                    f.hits + f.stale + f.revalidated + f.collapsed + f.misses + f.uncacheable + f.errors;
                assert_eq!(f.requests, parts);
            }
        });
        assert_eq!(counters.figures().requests, 7000 + 6999);
    }

    #[test]
    fn the_summary_holds_every_field_of_the_contract_and_is_json() {
        let counters = Counters::default();
        counters.record(Outcome::Hit);
        counters.bytes_from_cache.add(4096);
        let json: serde_json::Value = serde_json::from_str(&counters.figures().summary_json()).unwrap();
        for name in [
            "connections_redirected",
            "connections_passed",
            "requests",
            "hits",
            "kernel_hits",
            "misses",
            "revalidated",
            "stale",
            "collapsed",
            "uncacheable",
            "errors",
            "bytes_from_cache",
            "bytes_from_origin",
        ] {
            assert!(json[name].is_u64(), "{name}");
        }
        assert_eq!(json["bytes_from_cache"], 4096);
        assert_eq!(json, serde_json::to_value(counters.figures()).unwrap());
    }

    #[test]
    fn prometheus_text_gives_each_figure_its_help_and_type() {
        let counters = Counters::default();
        counters.connections_open.add(3);
        counters.connections_open.decr();
        let text = counters.figures().prometheus_text();
        assert!(text.contains(
            "# HELP sidestep_hits_total Requests answered fresh from the store, those answered by the kernel \
             included.\n# TYPE sidestep_hits_total counter\nsidestep_hits_total 0\n"
        ));
        assert!(text.contains("# TYPE sidestep_connections_open gauge\nsidestep_connections_open 2\n"));
        assert_eq!(text.lines().count(), counters.figures().list().len() * 3);
        counters.reasons.not_stored(Reason::Private);
        counters.reasons.not_stored(Reason::VaryStar);
        let text = counters.figures().prometheus_text();
        assert!(text.ends_with(
            "# TYPE sidestep_not_stored_by_reason_total counter\n\
             sidestep_not_stored_by_reason_total{reason=\"private\"} 1\n\
             sidestep_not_stored_by_reason_total{reason=\"vary-star\"} 1\n"
        ));
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_summary_for_people_names_what_happened() {
        let counters = Counters::default();
        counters.record(Outcome::Miss);
        (0..3).for_each(|_| counters.record(Outcome::Hit));
        let text = counters.figures().summary_text();
        assert!(text.contains("requests      4, 75 % from the cache\n"), "{text}");
        assert!(text.contains("  misses      1\n") && !text.contains("stale"), "{text}");
        assert!(!text.contains("kernel"), "{text}");
        counters.kernel_hits.follow(7);
        let text = counters.figures().summary_text();
        assert!(text.contains("  hits        10\n    7 of them inside the kernel\n"), "{text}");
    }
}
