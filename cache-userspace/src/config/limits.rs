//! Every bound of the daemon in one place: its name, its default, and what happens at it.

use std::time::Duration;

/// Bounds of memory, connections and time. The default of each is right for a node of any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request or response head; beyond it the request is malformed, the response relayed unparsed.
    pub head_bytes_max: usize,
    /// Open redirected connections of one workload; beyond it the kernel sends new ones direct.
    pub connections_per_workload_max: usize,
    /// Time between two requests of a client, after which an idle connection is closed.
    pub downstream_idle: Duration,
    /// Time from the first byte of a request head to its last, after which the connection is relayed untouched.
    pub head_read_timeout: Duration,
    /// Silence of a new client after which its destination is asked whether it speaks first.
    pub sniff_silence: Duration,
    /// Time to tell what protocol the first bytes are, after which the connection is relayed untouched.
    pub sniff_timeout: Duration,
    /// Time to connect to a destination; the client then sees what it would have seen without us.
    pub connect_timeout: Duration,
    /// Time that an idle upstream connection is kept: shorter than any usual server's own limit (5 s in Node).
    pub upstream_idle: Duration,
    /// The same for one on which a client has logged in (NTLM, Negotiate).
    pub upstream_login_idle: Duration,
    /// Idle upstream connections kept for one workload and destination; beyond it the oldest is closed.
    pub upstream_idle_per_destination_max: usize,
    /// Bytes of the content of a QUERY that is looked up; larger ones only pass through.
    pub query_content_bytes_max: usize,
    /// Time from the head of a QUERY to the end of its content; slower ones only pass through.
    pub query_content_timeout: Duration,
    /// Bytes of the contents of all QUERYs that are looked up or forwarded at a time; further ones only pass through.
    pub query_contents_bytes_max: usize,
    /// How long a request waits for the answer to another client's; then it goes on alone.
    pub collapse_timeout: Duration,
    /// Requests that may wait for, or read along with, one forward request; further ones go on alone.
    pub collapse_followers_max: usize,
    /// Requests that looked for a stored response and that one destination gets at a time; more wait for their turn.
    pub origin_requests_max: usize,
    /// How long they wait; then they go all the same.
    pub origin_turn_timeout: Duration,
    /// Fills and validations that go on without a client; further ones end with theirs.
    pub background_max: usize,
    /// Time that open requests get to finish when the daemon ends.
    pub drain_timeout: Duration,
    /// Connections of one workload whose original destination waits to be read; beyond it they go direct.
    pub original_dst_pending_max: u32,
    /// How long a destination with an opaque protocol is left alone at first.
    pub bypass_min: Duration,
    /// How long at most; each time that it proves opaque again doubles the time.
    pub bypass_max: Duration,
    /// How long a destination that refused a connection is left alone, so that retries see the truth.
    pub refused_bypass: Duration,
    /// Simultaneous connections to the admin socket; further ones wait.
    pub admin_connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 << 10,
            connections_per_workload_max: 8192,
            downstream_idle: Duration::from_secs(600),
            head_read_timeout: Duration::from_secs(60),
            sniff_silence: Duration::from_millis(100),
            sniff_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(130),
            upstream_idle: Duration::from_secs(4),
            upstream_login_idle: Duration::from_secs(60),
            upstream_idle_per_destination_max: 64,
            query_content_bytes_max: 64 << 10,
            query_content_timeout: Duration::from_secs(1),
            query_contents_bytes_max: 4 << 20,
            collapse_timeout: Duration::from_secs(5),
            collapse_followers_max: 8192,
            origin_requests_max: 1024,
            origin_turn_timeout: Duration::from_secs(1),
            background_max: 1024,
            drain_timeout: Duration::from_secs(5),
            original_dst_pending_max: 4096,
            bypass_min: Duration::from_secs(60),
            bypass_max: Duration::from_secs(600),
            refused_bypass: Duration::from_secs(2),
            admin_connections_max: 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_each_other() {
        let limits = Limits::default();
        assert!(limits.bypass_min <= limits.bypass_max);
        assert!(limits.refused_bypass < limits.bypass_min);
        assert!(limits.sniff_silence < limits.sniff_timeout);
        assert!(limits.upstream_idle < Duration::from_secs(5));
        assert!(limits.query_content_bytes_max <= limits.query_contents_bytes_max);
    }
}
