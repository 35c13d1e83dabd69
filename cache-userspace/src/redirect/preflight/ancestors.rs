//! What other people's programs on the way to the root of the hierarchy mean for ours.
//!
//! The rule is the kernel's `hierarchy_allows_attach` and `compute_effective_progs`: the nearest ancestor with a
//! program decides.

use super::super::prog_query::{ALLOW_MULTI, ALLOW_OVERRIDE, Hook, PROGRAMS_MAX};
use super::{Attachment, Finding, Probe, Weight};

const SUBJECT: &str = "attachments";

/// Judges what is attached at the target and above it: what stands in the way, or one line that says nothing does.
pub(super) fn findings(probe: &Probe) -> Vec<Finding> {
    if let Some(errno) = probe.query_errno {
        let name = super::error_name(errno);
        return vec![Finding::not_ok(
            SUBJECT,
            Weight::Useful,
            format!("what is attached to the ancestors cannot be asked: {name}"),
            "run as root with CAP_NET_ADMIN",
        )];
    }
    let mut all: Vec<Finding> = Hook::ALL
        .into_iter()
        .filter_map(|hook| obstacle(probe, hook).or_else(|| order(probe, hook)))
        .collect();
    if all.is_empty() {
        let beside = probe.attachments.len();
        all.push(Finding::ok(
            SUBJECT,
            match beside {
                0 => "nobody else has programs here".to_owned(),
                _ => format!("{beside} attachments of others, none in the way"),
            },
        ));
    }
    all
}

fn obstacle(probe: &Probe, hook: Hook) -> Option<Finding> {
    let nearest = probe.attachments.iter().find(|one| one.hook == hook)?;
    let flags = nearest.attached.flags;
    if flags & ALLOW_MULTI != 0 {
        return None;
    }
    let (place, whose) = (nearest.cgroup.display(), whose(nearest));
    let hook = hook.name();
    Some(if nearest.is_target {
        Finding::not_ok(
            SUBJECT,
            Weight::Required,
            format!(
                "{whose} at {hook} of {place} is attached without BPF_F_ALLOW_MULTI, so that ours is refused"
            ),
            "have its owner attach it with BPF_F_ALLOW_MULTI, or use another cgroup",
        )
    } else if flags & ALLOW_OVERRIDE != 0 {
        Finding::not_ok(
            SUBJECT,
            Weight::Required,
            format!(
                "{whose} at {hook} of {place} is attached with BPF_F_ALLOW_OVERRIDE \
                 and would be silently replaced for our pods"
            ),
            "have its owner attach it with BPF_F_ALLOW_MULTI; until then workloads below it are left alone",
        )
    } else {
        Finding::not_ok(
            SUBJECT,
            Weight::Required,
            format!("{whose} at {hook} of {place} is attached exclusively, which forbids ours below it"),
            "have its owner attach it with BPF_F_ALLOW_MULTI, or use a cgroup that is not below it",
        )
    })
}

/// BPF_F_PREORDER is in no answer of the kernel; it shows only where the programs run in another order than theirs.
fn order(probe: &Probe, hook: Hook) -> Option<Finding> {
    let (_, effective) = probe.effective.iter().find(|(of, _)| *of == hook)?;
    if effective.len() >= PROGRAMS_MAX {
        return None;
    }
    let mut expected: Vec<u32> = Vec::new();
    for one in probe.attachments.iter().filter(|one| one.hook == hook) {
        if expected.is_empty() || one.attached.flags & ALLOW_MULTI != 0 {
            expected.extend(&one.attached.programs);
        }
    }
    if expected == *effective {
        return None;
    }
    let hook = hook.name();
    let (mut seen, mut run) = (expected, effective.clone());
    seen.sort_unstable();
    run.sort_unstable();
    Some(if seen == run {
        Finding::not_ok(
            SUBJECT,
            Weight::Useful,
            format!(
                "a program at {hook} of an ancestor is attached with BPF_F_PREORDER and runs before ours"
            ),
            "have its owner attach it without BPF_F_PREORDER, or expect it to have rewritten destinations first",
        )
    } else {
        Finding::not_ok(
            SUBJECT,
            Weight::Useful,
            format!("programs at {hook} belong to cgroups that are not visible here and cannot be judged"),
            "start in the host's cgroup namespace",
        )
    })
}

fn whose(one: &Attachment) -> String {
    match (one.names.first(), one.attached.programs.first()) {
        (Some(name), _) => format!("the program {name:?}"),
        (None, Some(id)) => format!("the program with id {id}"),
        (None, None) => "a program".to_owned(),
    }
}
