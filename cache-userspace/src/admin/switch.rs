//! Off and on without a restart, of redirection as a whole and of hits inside the kernel: two files each say it, so that
//! it outlives the daemon.
//!
//! Telling the kernel is left to the heartbeat, which polls this and reports back what is in effect.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::Position;
use crate::config::{STATE_DIR, STATE_DIR_ENV};

/// What can be switched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Whether connections come here; without it there are no hits inside the kernel either.
    #[default]
    Redirection,
    /// Whether hits are given inside the kernel.
    Acceleration,
}

impl Subject {
    /// Whether it is what is meant where nothing is said.
    pub fn is_redirection(&self) -> bool {
        *self == Self::Redirection
    }

    /// Name of the file in the state directory that switches it off for every daemon of the machine.
    pub fn off_file(self) -> &'static str {
        match self {
            Self::Redirection => "off",
            Self::Acceleration => "off-acceleration",
        }
    }

    /// The file that switches it off for the one daemon that listens at `socket`.
    pub fn own_off_file(self, socket: &Path) -> PathBuf {
        let mut name = socket.as_os_str().to_owned();
        name.push(".");
        name.push(self.off_file());
        PathBuf::from(name)
    }
}

/// The switches of one daemon.
#[derive(Clone, Debug)]
pub struct Switches {
    /// Whether connections come here.
    pub redirection: Arc<Switch>,
    /// Whether hits are given inside the kernel.
    pub acceleration: Arc<Switch>,
}

impl Switches {
    /// Begins in the positions that the files say, with nothing in effect yet.
    pub fn new(state_dir: &Path, socket: &Path) -> Self {
        let switch = |subject| Arc::new(Switch::of(subject, state_dir, socket));
        Self { redirection: switch(Subject::Redirection), acceleration: switch(Subject::Acceleration) }
    }

    /// The one that is meant.
    pub fn of(&self, subject: Subject) -> &Arc<Switch> {
        match subject {
            Subject::Redirection => &self.redirection,
            Subject::Acceleration => &self.acceleration,
        }
    }

    /// Removes this daemon's own files: one whose socket bears a process id has no name to be remembered by.
    pub fn forget(&self) {
        self.redirection.forget();
        self.acceleration.forget();
    }
}

/// Returns the state directory: the environment's, else the default one.
pub fn state_dir() -> PathBuf {
    match std::env::var_os(STATE_DIR_ENV) {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(STATE_DIR),
    }
}

/// Whether something is wanted, and whether the kernel follows already.
#[derive(Debug)]
pub struct Switch {
    /// Switches off every daemon of the machine.
    machine: PathBuf,
    /// Switches off this daemon only.
    own: PathBuf,
    wanted: AtomicBool,
    in_effect: AtomicBool,
}

impl Switch {
    /// The switch of redirection, in the position that the files say, with nothing in effect yet.
    pub fn new(state_dir: &Path, socket: &Path) -> Self {
        Self::of(Subject::Redirection, state_dir, socket)
    }

    /// The same for either subject.
    pub fn of(subject: Subject, state_dir: &Path, socket: &Path) -> Self {
        let switch = Self {
            machine: state_dir.join(subject.off_file()),
            own: subject.own_off_file(socket),
            wanted: AtomicBool::new(true),
            in_effect: AtomicBool::new(false),
        };
        switch.poll();
        switch
    }

    /// Looks at the files, two stat calls, and returns whether it is wanted on.
    ///
    /// A file that cannot be looked at changes nothing.
    pub fn poll(&self) -> bool {
        let found = [&self.machine, &self.own].map(|file| file.try_exists());
        match found {
            [Ok(false), Ok(false)] => self.wanted.store(true, Ordering::Relaxed),
            [Ok(true), _] | [_, Ok(true)] => self.wanted.store(false, Ordering::Relaxed),
            _ => {}
        }
        self.wanted.load(Ordering::Relaxed)
    }

    /// Records what the kernel follows from now on; called by the heartbeat after each write.
    pub fn took_effect(&self, on: bool) {
        self.in_effect.store(on, Ordering::Release);
    }

    /// Returns what the kernel follows; off until the first heartbeat.
    pub fn in_effect(&self) -> Position {
        position(self.in_effect.load(Ordering::Acquire))
    }

    /// Returns what the last poll found to be wanted.
    pub fn wanted(&self) -> Position {
        position(self.wanted.load(Ordering::Relaxed))
    }

    /// Switches this daemon only, for good: the file stays over restarts. Returns what is wanted afterwards.
    ///
    /// On is not wanted afterwards where the machine is switched off.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn set(&self, to: Position) -> io::Result<Position> {
        put(&self.own, to)?;
        Ok(position(self.poll()))
    }

    /// Returns the file that keeps it off now.
    pub fn switched_off_by(&self) -> Option<&Path> {
        [&self.machine, &self.own].into_iter().find(|file| file.exists()).map(PathBuf::as_path)
    }

    /// Removes this daemon's own file.
    pub fn forget(&self) {
        // Nobody is left to tell.
        let _ = put(&self.own, Position::On);
        self.poll();
    }
}

fn position(on: bool) -> Position {
    if on { Position::On } else { Position::Off }
}

/// Switches every daemon of the machine, also those that start later.
///
/// # Errors
/// What the file system answers.
pub fn set_machine(subject: Subject, state_dir: &Path, to: Position) -> io::Result<()> {
    put(&state_dir.join(subject.off_file()), to)
}

fn put(file: &Path, to: Position) -> io::Result<()> {
    match to {
        Position::Off => {
            if let Some(dir) = file.parent() {
                make_state_dir(dir)?;
            }
            // Whoever else may write there could have left a symbolic link to a file that is worth something.
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
            options.open(file).map(drop)
        }
        Position::On => match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Makes a directory that only its owner may write to, where there is none.
///
/// # Errors
/// What the file system answers.
pub fn make_state_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::scratch::Scratch;

    #[test]
    fn it_is_on_without_any_file() {
        let dir = Scratch::new();
        let switch = Switch::new(dir.path(), &dir.path().join("a.sock"));
        assert!(switch.poll());
        assert_eq!(switch.switched_off_by(), None);
    }

    #[test]
    fn the_machines_file_switches_every_daemon() {
        let dir = Scratch::new();
        let both = ["a.sock", "b.sock"].map(|name| Switch::new(dir.path(), &dir.path().join(name)));
        set_machine(Subject::Redirection, dir.path(), Position::Off).unwrap();
        assert!(both.iter().all(|switch| !switch.poll()));
        set_machine(Subject::Redirection, dir.path(), Position::On).unwrap();
        assert!(both.iter().all(Switch::poll));
    }

    #[test]
    fn a_daemons_own_file_switches_it_only_and_outlives_it() {
        let dir = Scratch::new();
        let socket = dir.path().join("a.sock");
        let (a, b) = (Switch::new(dir.path(), &socket), Switch::new(dir.path(), &dir.path().join("b.sock")));
        assert_eq!(a.set(Position::Off).unwrap(), Position::Off);
        assert!(!a.poll() && b.poll());

        let again = Switch::new(dir.path(), &socket);

        assert_eq!(again.wanted(), Position::Off);
        assert_eq!(again.switched_off_by(), Some(Subject::Redirection.own_off_file(&socket).as_path()));
        again.forget();
        assert!(again.poll());
    }

    #[test]
    fn a_daemon_stays_off_while_the_machine_is_off() {
        let dir = Scratch::new();
        let switch = Switch::new(dir.path(), &dir.path().join("a.sock"));
        set_machine(Subject::Redirection, dir.path(), Position::Off).unwrap();
        assert_eq!(switch.set(Position::On).unwrap(), Position::Off);
        assert_eq!(switch.switched_off_by(), Some(dir.path().join("off").as_path()));
    }

    #[test]
    fn only_the_heartbeat_says_what_is_in_effect() {
        let dir = Scratch::new();
        let switch = Switch::new(dir.path(), &dir.path().join("a.sock"));
        assert_eq!((switch.wanted(), switch.in_effect()), (Position::On, Position::Off));
        switch.took_effect(switch.poll());
        assert_eq!(switch.in_effect(), Position::On);
    }

    #[test]
    fn a_symbolic_link_in_the_files_place_is_not_followed() {
        let dir = Scratch::new();
        let precious = dir.path().join("precious");
        fs::write(&precious, "kept").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join("off")).unwrap();
        assert!(set_machine(Subject::Redirection, dir.path(), Position::Off).is_err());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    }

    #[test]
    fn switching_on_what_is_on_is_no_error() {
        let dir = Scratch::new();
        set_machine(Subject::Redirection, dir.path(), Position::On).unwrap();
        set_machine(Subject::Redirection, &dir.path().join("not/there"), Position::On).unwrap();
    }

    #[test]
    fn hits_inside_the_kernel_have_files_of_their_own() {
        let dir = Scratch::new();
        let socket = dir.path().join("a.sock");
        let switches = Switches::new(dir.path(), &socket);
        set_machine(Subject::Acceleration, dir.path(), Position::Off).unwrap();
        assert!(switches.redirection.poll() && !switches.acceleration.poll());
        set_machine(Subject::Acceleration, dir.path(), Position::On).unwrap();
        switches.of(Subject::Acceleration).set(Position::Off).unwrap();
        assert!(switches.redirection.poll() && !switches.acceleration.poll());
        let own = socket.with_extension("sock.off-acceleration");
        assert_eq!(switches.acceleration.switched_off_by(), Some(own.as_path()));
        switches.forget();
        assert!(switches.acceleration.poll() && !own.exists());
    }
}
