//! `sidestep status`: what one daemon does now.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::{Output, daemon, print, runtime};
use crate::admin::client::AdminClient;
use crate::admin::{AccelerationStatus, ClusterStatus, EnrolmentState, Status as DaemonStatus};

/// Shows a daemon's switch, workloads, store and most important counters.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// The daemon's admin socket, by default admin.sock in the state directory or the only one there.
    #[arg(long, value_name = "SOCK")]
    pub admin: Option<PathBuf>,
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: Output,
}

impl Status {
    /// Asks and prints.
    ///
    /// # Errors
    /// Where no daemon is found, or it does not answer.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let status = runtime()?.block_on(AdminClient::new(&daemon(self.admin)?).status())?;
        print(&match self.output {
            Output::Text => text(&status),
            Output::Json => serde_json::to_string_pretty(&status).context("cannot print")? + "\n",
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(status: &DaemonStatus) -> String {
    let mut text =
        format!("sidestep {}, pid {}\nswitch       {}", status.version, status.pid, status.switch.word());
    // Writing to a String cannot fail.
    if let Some(file) = &status.switched_off_by {
        let _ = write!(text, " ({} is there)", file.display());
    }
    text.push('\n');
    if let Some(one) = &status.acceleration {
        write_acceleration(&mut text, one);
    }
    let store = &status.store;
    let _ = writeln!(
        text,
        "store        {} of {} bytes, {} responses",
        store.bytes, store.bytes_max, store.entries
    );
    let of = |name: &str| status.counters.get(name).copied().unwrap_or(0);
    let _ = writeln!(
        text,
        "connections  {} redirected, {} direct, {} open",
        of("connections_redirected"),
        of("connections_passed"),
        of("connections_open")
    );
    let _ = writeln!(
        text,
        "requests     {}: {} hits ({} inside the kernel), {} revalidated, {} stale, {} collapsed, {} misses, {} uncacheable, {} errors",
        of("requests"),
        of("hits"),
        of("kernel_hits"),
        of("revalidated"),
        of("stale"),
        of("collapsed"),
        of("misses"),
        of("uncacheable"),
        of("errors")
    );
    write_reasons(&mut text, &status.reasons);
    if let Some(cluster) = &status.cluster {
        write_cluster(&mut text, cluster);
    }
    let _ = writeln!(text, "workloads    {}", status.workloads.len());
    for one in &status.workloads {
        let state = match one.state {
            EnrolmentState::Enrolled => "enrolled",
            EnrolmentState::Pending => "pending",
            EnrolmentState::Failed => "failed",
        };
        let _ = write!(text, "  {state:<9}{}/{}/{}", one.namespace, one.service_account, one.name);
        let _ = write!(text, "  {}", one.cgroup.display());
        if !one.hooks.is_empty() {
            let _ = write!(text, "  {} hooks", one.hooks.len());
        }
        let _ = if one.reason.is_empty() { writeln!(text) } else { writeln!(text, "  {}", one.reason) };
    }
    text
}

/// What the counters of reasons are about.
const REASONS: [(&str, &str); 3] = [
    ("bypassed_by_reason", "not looked up"),
    ("forwarded_by_reason", "not answered from the store"),
    ("not_stored_by_reason", "not stored"),
];
/// Reasons that a line names.
const REASONS_MAX: usize = 6;

fn write_reasons(text: &mut String, reasons: &BTreeMap<String, BTreeMap<String, u64>>) {
    for (name, about) in REASONS {
        let Some(counted) = reasons.get(name) else { continue };
        let mut counted: Vec<_> = counted.iter().collect();
        counted.sort_by_key(|(word, count)| (Reverse(**count), *word));
        let more = counted.len().saturating_sub(REASONS_MAX);
        let named = counted.iter().take(REASONS_MAX).map(|(word, count)| format!("{count} {word}"));
        let named: Vec<String> = named.collect();
        let _ = write!(text, "  {about}: {}", named.join(", "));
        let _ = if more == 0 { writeln!(text) } else { writeln!(text, " and {more} more reasons") };
    }
}

fn write_cluster(text: &mut String, cluster: &ClusterStatus) {
    let ClusterStatus { node, watches, destinations, policies } = cluster;
    let synced = watches.iter().filter(|watch| watch.is_synced).count();
    let _ = writeln!(
        text,
        "cluster      node {node}: {synced} kinds of objects read, {destinations} addresses of HTTP services"
    );
    for watch in watches {
        let Some(trouble) = &watch.trouble else { continue };
        let stays = if watch.is_synced { "the last that was read stays" } else { "nothing was read yet" };
        let _ = writeln!(text, "  {}: {trouble}; {stays}", watch.kind);
    }
    for policy in policies {
        let _ = write!(text, "  CachePolicy {}/{}: ", policy.namespace, policy.name);
        let _ = match &policy.trouble {
            Some(trouble) => {
                writeln!(text, "cannot be read ({trouble}); its namespace's services are only forwarded to")
            }
            None => writeln!(text, "{}", policy.targets.join(", ")),
        };
    }
}

fn write_acceleration(text: &mut String, one: &AccelerationStatus) {
    let AccelerationStatus { mode, state, reason, residents, bytes, bytes_max, .. } = one;
    let _ = writeln!(text, "acceleration {} ({mode}): {reason}", state.word());
    if *bytes_max > 0 {
        let _ = writeln!(text, "  {residents} responses in the kernel, {bytes} of {bytes_max} bytes");
    }
    for deviation in &one.deviations {
        let _ = writeln!(text, "  {deviation}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{PolicyStatus, Position, StoreStatus, WatchStatus, WorkloadStatus};
    use crate::redirect::acceleration::Mode;

    #[test]
    fn people_see_the_switch_the_store_and_each_workload() {
        let status = DaemonStatus {
            pid: 7,
            version: "1.2.3".to_owned(),
            switch: Position::Off,
            switched_off_by: Some("/run/sidestep/off".into()),
            acceleration: Some(AccelerationStatus {
                mode: Mode::Auto,
                state: Position::Off,
                reason: "it is switched off".to_owned(),
                switch: Position::On,
                switched_off_by: None,
                deviations: vec!["splice".to_owned()],
                residents: 2,
                bytes: 8192,
                bytes_max: 16384,
                self_test: Vec::new(),
            }),
            cluster: Some(ClusterStatus {
                node: "n1".to_owned(),
                watches: vec![
                    WatchStatus { kind: "Pod".to_owned(), is_synced: true, trouble: None },
                    WatchStatus {
                        kind: "Service".to_owned(),
                        is_synced: true,
                        trouble: Some("connection refused".to_owned()),
                    },
                ],
                destinations: 3,
                policies: vec![
                    PolicyStatus {
                        namespace: "shop".to_owned(),
                        name: "web".to_owned(),
                        targets: vec!["Service web: holds".to_owned()],
                        holds: true,
                        trouble: None,
                    },
                    PolicyStatus {
                        namespace: "shop".to_owned(),
                        name: "odd".to_owned(),
                        targets: Vec::new(),
                        holds: false,
                        trouble: Some("unknown field `x`".to_owned()),
                    },
                ],
            }),
            workloads: vec![WorkloadStatus {
                name: "a".to_owned(),
                namespace: "shop".to_owned(),
                service_account: "web".to_owned(),
                state: EnrolmentState::Failed,
                reason: "no such cgroup".to_owned(),
                cgroup: "/cg/a".into(),
                hooks: vec!["connect4".to_owned(), "sock_ops".to_owned()],
                kernel_hits: 0,
            }],
            counters: [("requests".to_owned(), 3)].into(),
            reasons: [(
                "bypassed_by_reason".to_owned(),
                [("off".to_owned(), 1), ("split".to_owned(), 3)].into(),
            )]
            .into(),
            store: StoreStatus { bytes: 1, bytes_max: 2, entries: 1 },
        };
        let text = text(&status);
        assert!(
            text.starts_with("sidestep 1.2.3, pid 7\nswitch       off (/run/sidestep/off is there)\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "acceleration off (auto): it is switched off\n  2 responses in the kernel, 8192 of 16384 bytes\n  \
                 splice\nstore        1 of 2"
            ),
            "{text}"
        );
        assert!(text.contains("requests     3: 0 hits (0 inside the kernel)"), "{text}");
        assert!(
            text.contains(
                "cluster      node n1: 2 kinds of objects read, 3 addresses of HTTP services\n  \
                 Service: connection refused; the last that was read stays\n  \
                 CachePolicy shop/web: Service web: holds\n  \
                 CachePolicy shop/odd: cannot be read (unknown field `x`); its namespace's services are only forwarded to\n\
                 workloads    1\n"
            ),
            "{text}"
        );
        assert!(text.contains("  not looked up: 3 split, 1 off\ncluster"), "{text}");
        assert!(text.ends_with("  failed   shop/web/a  /cg/a  2 hooks  no such cgroup\n"), "{text}");
    }
}
