//! Each defect of a machine is one clear sentence, with what to do.

use super::super::prog_query::{ALLOW_MULTI, ALLOW_OVERRIDE};
use super::*;

fn good() -> Probe {
    Probe {
        kernel: Some((6, 1)),
        kernel_release: "6.1.0-30-amd64".to_owned(),
        cgroup2_mount: Some("/sys/fs/cgroup".into()),
        target: Some(Ok("/sys/fs/cgroup/kubepods/pod7".into())),
        target_writable: true,
        btf: true,
        capabilities: u64::MAX,
        netns_cookie: true,
        ..Probe::default()
    }
}

fn ancestor(flags: u32, cgroup: &str, programs: &[u32]) -> Attachment {
    Attachment {
        cgroup: cgroup.into(),
        is_target: cgroup.ends_with("pod7"),
        hook: Hook::Connect4,
        attached: Attached { flags, programs: programs.to_vec() },
        names: vec!["guard".to_owned()],
    }
}

fn obstacles(probe: &Probe) -> Vec<String> {
    let all = findings(probe);
    all.into_iter().filter(|one| one.stops(Role::Exec)).map(|one| one.says).collect()
}

#[test]
fn a_good_machine_has_nothing_in_the_way() {
    let all = findings(&good());
    assert!(all.iter().all(|one| one.ok && one.advice.is_empty()), "{all:?}");
    assert_eq!(first_obstacle(&all, Role::Node), None);
}

#[test]
fn every_defect_that_stops_exec_is_one_clear_sentence_with_advice() {
    let with = |change: fn(&mut Probe)| {
        let mut probe = good();
        change(&mut probe);
        probe
    };
    let table = [
        (
            with(|p| (p.kernel, p.kernel_release) = (Some((5, 10)), "5.10.0-9-amd64".to_owned())),
            "Linux 5.10.0-9-amd64 is too old: 5.15 or newer is needed",
        ),
        (with(|p| p.kernel = None), "the kernel release \"6.1.0-30-amd64\" names no version"),
        (with(|p| (p.cgroup2_mount, p.target) = (None, None)), "no cgroup v2 hierarchy is mounted"),
        (
            with(|p| (p.euid, p.capabilities) = (1000, 0)),
            "this process is not root: uid 1000 lacks CAP_BPF and CAP_NET_ADMIN",
        ),
        (with(|p| p.capabilities = 1 << CAP_SYS_ADMIN), "this root process was deprived of CAP_NET_ADMIN"),
        (with(|p| p.map_errno = Some(libc::EPERM)), "the kernel refuses to create a map: EPERM"),
        (with(|p| p.program_errno = Some(libc::EINVAL)), "the kernel refuses to load a program: EINVAL"),
        (
            with(|p| p.netns_cookie = false),
            "the kernel does not know SO_NETNS_COOKIE, which tells connections of different pods apart",
        ),
        (
            with(|p| p.target = Some(Err("/x is not a cgroup v2 directory".into()))),
            "/x is not a cgroup v2 directory",
        ),
        (
            with(|p| p.target_writable = false),
            "/sys/fs/cgroup/kubepods/pod7 is not writable for this process",
        ),
        (
            with(|p| p.attachments = vec![ancestor(0, "/sys/fs/cgroup/kubepods", &[3])]),
            "the program \"guard\" at connect4 of /sys/fs/cgroup/kubepods is attached exclusively, \
             which forbids ours below it",
        ),
        (
            with(|p| p.attachments = vec![ancestor(ALLOW_OVERRIDE, "/sys/fs/cgroup", &[3])]),
            "the program \"guard\" at connect4 of /sys/fs/cgroup is attached with BPF_F_ALLOW_OVERRIDE \
             and would be silently replaced for our pods",
        ),
        (
            with(|p| p.attachments = vec![ancestor(ALLOW_OVERRIDE, "/sys/fs/cgroup/kubepods/pod7", &[3])]),
            "the program \"guard\" at connect4 of /sys/fs/cgroup/kubepods/pod7 is attached without \
             BPF_F_ALLOW_MULTI, so that ours is refused",
        ),
    ];
    for (probe, sentence) in table {
        assert_eq!(obstacles(&probe), [sentence]);
        assert!(findings(&probe).iter().all(|one| one.ok || !one.advice.is_empty()));
    }
}

#[test]
fn programs_of_others_that_share_are_not_in_the_way() {
    let mut probe = good();
    probe.attachments = vec![ancestor(ALLOW_MULTI, "/sys/fs/cgroup", &[3])];
    probe.effective = vec![(Hook::Connect4, vec![3])];
    assert_eq!(obstacles(&probe), [""; 0]);
    assert!(findings(&probe).iter().all(|one| one.ok));
}

#[test]
fn the_nearest_ancestor_with_a_program_decides() {
    let mut probe = good();
    probe.attachments =
        vec![ancestor(ALLOW_MULTI, "/sys/fs/cgroup/kubepods", &[3]), ancestor(0, "/sys/fs/cgroup", &[4])];
    assert_eq!(obstacles(&probe), [""; 0]);
}

#[test]
fn an_ancestors_preorder_shows_in_the_order_and_is_a_warning() {
    let mut probe = good();
    probe.attachments = vec![
        ancestor(ALLOW_MULTI, "/sys/fs/cgroup/kubepods", &[3]),
        ancestor(ALLOW_MULTI, "/sys/fs/cgroup", &[4]),
    ];
    probe.effective = vec![(Hook::Connect4, vec![4, 3])];
    let all = findings(&probe);
    assert_eq!(first_obstacle(&all, Role::Node), None);
    assert!(all.iter().any(|one| !one.ok && one.says.contains("BPF_F_PREORDER")), "{all:?}");
}

#[test]
fn programs_of_invisible_ancestors_are_a_warning() {
    let mut probe = good();
    probe.effective = vec![(Hook::SockOps, vec![9])];
    assert!(findings(&probe).iter().any(|one| !one.ok && one.says.contains("not visible here")));
}

#[test]
fn entering_namespaces_is_required_for_a_node_and_not_for_exec() {
    for capability in [CAP_SYS_ADMIN, CAP_SYS_PTRACE] {
        let mut probe = good();
        probe.capabilities &= !(1 << capability);
        let all = findings(&probe);
        assert_eq!(first_obstacle(&all, Role::Exec), None);
        assert!(first_obstacle(&all, Role::Node).is_some());
    }
}

#[test]
fn the_first_obstacle_without_root_is_that_one() {
    let mut probe = good();
    (probe.euid, probe.capabilities, probe.target_writable) = (1000, 0, false);
    let all = findings(&probe);
    assert!(first_obstacle(&all, Role::Exec).unwrap().says.contains("is not root"));
}

#[test]
fn kernel_releases_and_capability_sets_are_read() {
    for (release, version) in
        [("6.18.44-x", Some((6, 18))), ("5.15.0-1-amd64", Some((5, 15))), ("7.0", Some((7, 0))), ("x", None)]
    {
        assert_eq!(gather::version(release), version);
    }
    assert_eq!(gather::capabilities("Name:\tx\nCapEff:\t0000000000001000\n"), 1 << CAP_NET_ADMIN);
}

#[test]
fn this_machine_can_be_probed_whatever_it_is() {
    let probe = Probe::gather(None);
    assert!(!probe.kernel_release.is_empty());
    assert!(findings(&probe).len() > 3);
}
