//! What to do so that the enrolled workloads are the wanted ones. Pure; doing it is left to the parent module.

use std::collections::HashSet;

/// Identifies an enrolment: a workload whose cgroup or network namespace was made anew is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The unique name of the workload.
    pub name: String,
    /// Inode number of its cgroup directory.
    pub cgroup: u64,
    /// The same of the cgroups in it that are served; none: all of them.
    pub members: Vec<u64>,
    /// Inode number of its network namespace.
    pub netns: u64,
}

/// Something that stands for one enrolment, wanted or existing.
pub trait Keyed {
    /// Returns what identifies it.
    fn key(&self) -> &Key;
}

impl Keyed for Key {
    fn key(&self) -> &Key {
        self
    }
}

/// One thing to do; steps are to be done in the order of the plan.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a, W, H> {
    /// Detaches and forgets an enrolment that nobody wants.
    Drop(&'a H),
    /// Ends `old`, then begins `new` under the same name.
    Replace {
        /// The enrolment that is there.
        old: &'a H,
        /// The one to have instead.
        new: &'a W,
    },
    /// Begins an enrolment.
    Enrol(&'a W),
}

/// Compares what is wanted with what is there: drops first, then replacements, then new enrolments.
///
/// Programs never end up twice on one cgroup, not even between two steps: a wanted entry that repeats a name or
/// a cgroup of an earlier one is left out, and a cgroup that changes its name is dropped before it is enrolled.
pub fn plan<'a, W: Keyed, H: Keyed>(wanted: &'a [W], have: &'a [H]) -> Vec<Step<'a, W, H>> {
    let mut names = HashSet::new();
    let mut cgroups = HashSet::new();
    let wanted: Vec<&W> = wanted
        .iter()
        .filter(|one| {
            // Both sets learn the entry only if it is taken.
            let key = one.key();
            let is_new = !names.contains(key.name.as_str()) && !cgroups.contains(&key.cgroup);
            is_new && names.insert(key.name.as_str()) && cgroups.insert(key.cgroup)
        })
        .collect();

    let (mut drops, mut replacements, mut enrolments) = (Vec::new(), Vec::new(), Vec::new());
    let mut settled = HashSet::new();
    for old in have {
        let successor = wanted.iter().copied().find(|new| new.key().name == old.key().name);
        match successor {
            Some(new) if new.key() == old.key() => {
                settled.insert(&new.key().name);
            }
            Some(new) if !is_held_by_another(new.key(), have) => {
                settled.insert(&new.key().name);
                replacements.push(Step::Replace { old, new });
            }
            _ => drops.push(Step::Drop(old)),
        }
    }
    enrolments.extend(wanted.into_iter().filter(|new| !settled.contains(&new.key().name)).map(Step::Enrol));

    drops.into_iter().chain(replacements).chain(enrolments).collect()
}

fn is_held_by_another<H: Keyed>(new: &Key, have: &[H]) -> bool {
    have.iter().any(|other| other.key().cgroup == new.cgroup && other.key().name != new.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, cgroup: u64, netns: u64) -> Key {
        Key { name: name.to_owned(), cgroup, members: Vec::new(), netns }
    }

    #[test]
    fn nothing_is_done_when_all_is_as_wanted() {
        let both = [key("a", 1, 9), key("b", 2, 9)];
        assert!(plan(&both, &both).is_empty());
    }

    #[test]
    fn a_new_workload_is_enrolled_and_a_gone_one_dropped_first() {
        let (wanted, have) = ([key("b", 2, 9)], [key("a", 1, 9)]);
        assert_eq!(plan(&wanted, &have), [Step::Drop(&have[0]), Step::Enrol(&wanted[0])]);
    }

    #[test]
    fn a_cgroup_made_anew_under_the_same_name_is_replaced() {
        let (wanted, have) = ([key("a", 5, 9)], [key("a", 1, 9)]);
        assert_eq!(plan(&wanted, &have), [Step::Replace { old: &have[0], new: &wanted[0] }]);
    }

    #[test]
    fn a_network_namespace_made_anew_is_replaced() {
        let (wanted, have) = ([key("a", 1, 10)], [key("a", 1, 9)]);
        assert_eq!(plan(&wanted, &have), [Step::Replace { old: &have[0], new: &wanted[0] }]);
    }

    #[test]
    fn a_cgroup_that_changes_its_name_is_dropped_before_it_is_enrolled() {
        let (wanted, have) = ([key("b", 1, 9)], [key("a", 1, 9)]);
        assert_eq!(plan(&wanted, &have), [Step::Drop(&have[0]), Step::Enrol(&wanted[0])]);
    }

    #[test]
    fn two_workloads_that_swap_cgroups_are_never_attached_twice() {
        let (wanted, have) = ([key("a", 2, 9), key("b", 1, 9)], [key("a", 1, 9), key("b", 2, 9)]);
        assert_eq!(
            plan(&wanted, &have),
            [Step::Drop(&have[0]), Step::Drop(&have[1]), Step::Enrol(&wanted[0]), Step::Enrol(&wanted[1])]
        );
    }

    #[test]
    fn the_first_of_two_wanted_entries_with_one_name_or_cgroup_wins() {
        let wanted = [key("a", 1, 9), key("a", 2, 9), key("b", 1, 9), key("c", 2, 9)];
        let have: [Key; 0] = [];
        assert_eq!(plan(&wanted, &have), [Step::Enrol(&wanted[0]), Step::Enrol(&wanted[3])]);
    }

    #[test]
    fn every_plan_leads_to_what_was_wanted_without_two_on_one_cgroup() {
        // All pairs of up to three workloads on three cgroups: small enough to try each.
        let states: Vec<Vec<Key>> = (0..64u64)
            .map(|code| {
                let places = [code % 4, code / 4 % 4, code / 16];
                let names = ["a", "b", "c"];
                names.iter().zip(places).filter(|(_, cg)| *cg > 0).map(|(n, cg)| key(n, cg, 9)).collect()
            })
            .filter(|state: &Vec<Key>| {
                state.iter().map(|k| k.cgroup).collect::<HashSet<_>>().len() == state.len()
            })
            .collect();
        for (wanted, have) in states.iter().flat_map(|w| states.iter().map(move |h| (w, h))) {
            let mut now: HashSet<Key> = have.iter().cloned().collect();
            for step in plan(wanted, have) {
                let (gone, come) = match step {
                    Step::Drop(old) => (Some(old), None),
                    Step::Replace { old, new } => (Some(old), Some(new)),
                    Step::Enrol(new) => (None, Some(new)),
                };
                assert!(gone.is_none_or(|old| now.remove(old)));
                if let Some(new) = come {
                    assert!(now.iter().all(|other| other.cgroup != new.cgroup), "{wanted:?} {have:?}");
                    now.insert(new.clone());
                }
            }
            assert_eq!(now, wanted.iter().cloned().collect());
        }
    }
}
