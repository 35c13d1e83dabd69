//! `sidestep check`: what this machine, and the cluster that it belongs to, offer, a line a subject, and what to do where
//! it is not enough.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Output, print, runtime};
use crate::config::{Config, KubernetesConfig};
use crate::kube;
use crate::kube::check::ClusterProbe;
use crate::redirect::acceleration::{self, Trial};
use crate::redirect::preflight::{self, Finding, Probe, Role};
use crate::redirect::selftest::Outcome;

/// Looks at what this machine, this process and its cluster offer; ends with 1 where something that is required is missing.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The cgroup that is to be used, by default this process's own.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Judge for the daemon of a node instead of `exec`; also its cluster, where it belongs to one.
    #[arg(long)]
    pub node: bool,
    /// The node's configuration file, which says which cluster that is; implies --node.
    #[arg(long, value_name = "FILE", env = "SIDESTEP_CONFIG")]
    pub config: Option<PathBuf>,
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: Output,
}

impl Check {
    /// Gathers, judges and prints.
    ///
    /// # Errors
    /// Where printing fails.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let role = if self.node || self.config.is_some() { Role::Node } else { Role::Exec };
        let config = self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        let kubernetes = config.kubernetes.or_else(KubernetesConfig::inferred).filter(|_| role == Role::Node);
        let cluster = match &kubernetes {
            Some(kubernetes) => Some(runtime()?.block_on(ClusterProbe::gather(kubernetes))),
            None => None,
        };
        // Pods are what is going to be enrolled.
        let tree = cluster.as_ref().and_then(|cluster| cluster.trees.first());
        let probe = Probe::gather(self.cgroup.as_ref().or(tree).map(PathBuf::as_path));
        let mut findings = preflight::findings(&probe);
        findings.extend(cluster.iter().flat_map(|cluster| kube::check::findings(cluster, &probe)));
        // Where nothing can be loaded there is nothing to be tested.
        let tested = preflight::first_obstacle(&findings, role).is_none().then(acceleration::trial);
        if let Some(trial) = &tested {
            findings.push(preflight::accelerated(trial.is_on, &trial.reason));
        }
        print(&match self.output {
            Output::Text => text(&findings, role) + &tested.as_ref().map(parts).unwrap_or_default(),
            Output::Json => {
                let mut value = json(&findings, role);
                value["selfTest"] = json!(tested.map(|trial| trial.findings));
                format!("{value:#}\n")
            }
        })?;
        let obstacle = preflight::first_obstacle(&findings, role);
        Ok(if obstacle.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn text(findings: &[Finding], role: Role) -> String {
    let width = findings.iter().map(|one| one.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for one in findings {
        let verdict = verdict(one, role);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{verdict:<8}{:<width$}  {}", one.subject, one.says);
        if !one.ok {
            let _ = writeln!(text, "{:<8}{:<width$}  -> {}", "", "", one.advice);
        }
    }
    text
}

/// What the self-test found that is not as it should be.
fn parts(trial: &Trial) -> String {
    let mut text = String::new();
    for one in trial.findings.iter().filter(|one| one.outcome != Outcome::Ok) {
        let verdict = match one.outcome {
            Outcome::Failed => "failed",
            Outcome::Deviates => "differs",
            Outcome::Untested | Outcome::Ok => "untried",
        };
        let _ = writeln!(text, "{:<8}  {verdict:<8}{}: {}", "", one.name, one.says);
    }
    text
}

fn verdict(finding: &Finding, role: Role) -> &'static str {
    match (finding.ok, finding.stops(role)) {
        (true, _) => "ok",
        (false, true) => "not ok",
        (false, false) => "warn",
    }
}

fn json(findings: &[Finding], role: Role) -> serde_json::Value {
    let obstacle = preflight::first_obstacle(findings, role);
    let findings: Vec<_> = findings
        .iter()
        .map(|one| {
            json!({
                "subject": one.subject,
                "ok": one.ok,
                "required": one.stops(role),
                "says": one.says,
                "advice": one.advice,
            })
        })
        .collect();
    json!({ "ok": obstacle.is_none(), "findings": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking_all() -> Vec<Finding> {
        let kernel = Some((6, 1));
        preflight::findings(&Probe {
            kernel,
            kernel_release: "6.1".to_owned(),
            euid: 1000,
            ..Probe::default()
        })
    }

    #[test]
    fn each_line_says_ok_or_not_ok_and_what_to_do() {
        let text = text(&lacking_all(), Role::Exec);
        assert!(text.starts_with("ok      kernel             Linux 6.1\n"), "{text}");
        assert!(text.contains("not ok  cgroup2            no cgroup v2 hierarchy is mounted\n"), "{text}");
        assert!(
            text.contains("                           -> run it as root, for example with sudo\n"),
            "{text}"
        );
        assert!(text.contains("warn    BTF "), "{text}");
    }

    #[test]
    fn programs_get_the_same_findings() {
        let value = json(&lacking_all(), Role::Exec);
        assert_eq!(value["ok"], false);
        assert_eq!(value["findings"][0]["ok"], true);
        assert_eq!(value["findings"][1]["required"], true);
        assert_eq!(value["findings"].as_array().unwrap().len(), lacking_all().len());
    }
}
