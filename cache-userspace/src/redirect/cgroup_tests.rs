//! What `cgroup` promises: texts are read right, and with root a real cgroup comes and goes.

use super::*;

const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
    cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
    cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";

#[test]
fn the_hybrid_mount_point_is_found() {
    assert_eq!(mount_points(HYBRID), [PathBuf::from("/sys/fs/cgroup/unified")]);
}

#[test]
fn a_machine_with_cgroup_v1_only_has_no_mount_point() {
    assert!(mount_points("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n").is_empty());
}

#[test]
fn blanks_in_a_mount_point_are_unescaped() {
    assert_eq!(mount_points("none /mnt/my\\040groups cgroup2 rw 0 0\n"), [PathBuf::from("/mnt/my groups")]);
}

#[test]
fn the_own_place_is_the_line_of_hierarchy_zero() {
    assert_eq!(own_place("4:memory:/x\n0::/user.slice/a\n"), Some("/user.slice/a"));
    assert_eq!(own_place("4:memory:/x\n"), None);
}

#[test]
fn a_process_name_with_blanks_and_brackets_does_not_hide_the_start_time() {
    let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1000 1 2";
    assert_eq!(start_time(stat), Some(4711));
    assert_eq!(start_time("7 (a"), None);
}

#[test]
fn only_names_with_a_process_id_belong_to_a_maker() {
    assert_eq!(maker("sidestep-12"), Some(12));
    assert_eq!(maker("sidestep-x"), None);
    assert_eq!(maker("other-12"), None);
}

#[test]
fn a_plain_directory_is_not_a_cgroup() {
    let error = Cgroup::open(Path::new("/proc/self")).unwrap_err();
    assert!(error.to_string().contains("is not a cgroup v2 directory"), "{error}");
}

/// Needs root and a writable cgroup v2 hierarchy; says so and does nothing elsewhere.
fn scratch(name: &str) -> Option<Cgroup> {
    let made = Cgroup::own().and_then(|own| Cgroup::create_child(&own, name));
    if let Err(error) = &made {
        eprintln!("skipped: needs root and cgroup v2: {error}");
    }
    made.ok()
}

#[test]
fn a_command_starts_inside_the_cgroup_and_leaves_nothing_behind() {
    let Some(group) = scratch(&format!("sidestep-test-spawn-{}", std::process::id())) else { return };
    let path = group.path().to_owned();
    let mut command = Command::new("cat");
    command.arg("/proc/self/cgroup");
    enter_on_spawn(&mut command, &group).unwrap();

    let output = command.output().unwrap();

    let place = String::from_utf8(output.stdout).unwrap();
    assert!(own_place(&place).unwrap().contains("sidestep-test-spawn-"), "{place}");
    group.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn processes_of_the_cgroup_and_below_move_to_the_parent() {
    let Some(group) = scratch(&format!("sidestep-test-move-{}", std::process::id())) else { return };
    let below = Cgroup::create_child(&group, "below").unwrap();
    let mut children: Vec<_> = [&group, &below]
        .map(|place| {
            let mut command = Command::new("cat");
            command.stdin(std::process::Stdio::piped());
            enter_on_spawn(&mut command, place).unwrap();
            command.spawn().unwrap()
        })
        .into();
    assert_eq!(group.procs().unwrap(), [children[0].id()]);
    assert_eq!(oldest_process(below.path()), Some(children[1].id()));

    group.move_all_to(&Cgroup::own().unwrap()).unwrap();

    assert!(below.procs().unwrap().is_empty());
    drop(below);
    group.remove().unwrap();
    for child in &mut children {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn a_cgroup_with_a_process_in_it_is_not_removed() {
    let Some(group) = scratch(&format!("sidestep-test-busy-{}", std::process::id())) else { return };
    let path = group.path().to_owned();
    let mut command = Command::new("cat");
    command.stdin(std::process::Stdio::piped());
    enter_on_spawn(&mut command, &group).unwrap();
    let mut child = command.spawn().unwrap();

    let error = group.remove().unwrap_err();

    assert!(matches!(&error, CgroupError::Busy { left, .. } if *left == [child.id()]), "{error}");
    drop(child.stdin.take());
    child.wait().unwrap();
    Cgroup::open(&path).unwrap().remove().unwrap();
}

#[test]
fn a_stale_cgroup_is_swept_and_one_in_use_is_not() {
    let Some(place) = scratch(&format!("sidestep-test-sweep-{}", std::process::id())) else { return };
    // Above the largest process id that Linux gives out.
    let stale = Cgroup::create_child(&place, "sidestep-4194999").unwrap();
    let path = stale.path().to_owned();

    assert!(sweep_stale(&place).is_empty(), "held open, so in use");
    drop(stale);
    assert_eq!(sweep_stale(&place), [path]);

    place.remove().unwrap();
}
