//! The admin socket's file: who may connect, what to do with one that is there, and that none is left.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::{UnixListener, UnixStream};

use crate::admin::switch::{Subject, make_state_dir};

const BACKLOG: i32 = 64;

/// Says why the admin socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("another daemon answers at {0}; end it, or name another socket with --admin")]
    Taken(PathBuf),
    /// Something that is not a socket has that name.
    #[error("{0} is there and is not a socket; remove it, or name another socket with --admin")]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot listen at {path}: {source}; name another socket with --admin")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// A listening unix socket whose file is removed when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that a successor's is not removed.
    file: (u64, u64),
}

impl AdminSocket {
    /// Binds `path` with mode 0600.
    ///
    /// # Errors
    /// `Taken` where somebody answers, `NotASocket` where another file is there, `Io` for the rest.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            make_state_dir(dir).map_err(failed)?;
        }
        make_room(path)?;
        let listener = listen_privately(path).map_err(failed)?;
        let found = fs::symlink_metadata(path).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), file: (found.dev(), found.ino()) })
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// What accept(2) answers.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        if found.is_ok_and(|found| found == self.file) {
            // The next start replaces what could not be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn make_room(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed)?,
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(BindError::Taken(path.to_owned())),
    }
}

fn listen_privately(path: &Path) -> io::Result<StdListener> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    // The file inherits the mode of the socket at bind(2): at no moment may anybody else connect.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(StdListener::from(fd))
}

/// Removes the `exec-<pid>.sock` files (and their switches) that daemons killed without warning left in `dir`.
pub fn sweep_stale(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("exec-")?.strip_suffix(".sock"));
        let Some(Ok(pid)) = pid.map(str::parse::<u32>) else { continue };
        let is_gone = !Path::new("/proc").join(pid.to_string()).exists();
        let path = entry.path();
        if is_gone && StdStream::connect(&path).is_err() {
            // Another start may be sweeping too.
            let _ = fs::remove_file(&path);
            for subject in [Subject::Redirection, Subject::Acceleration] {
                let _ = fs::remove_file(subject.own_off_file(&path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::admin::scratch::Scratch;

    #[tokio::test]
    async fn the_socket_is_private_and_goes_with_its_owner() {
        let dir = Scratch::new();
        let path = dir.path().join("deeper/admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_somebody_answers_on_is_not_replaced() {
        let dir = Scratch::new();
        let path = dir.path().join("admin.sock");
        let _first = AdminSocket::bind(&path).unwrap();
        assert!(matches!(AdminSocket::bind(&path), Err(BindError::Taken(_))));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_answers_on_is_replaced() {
        let dir = Scratch::new();
        let path = dir.path().join("admin.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(AdminSocket::bind(&path).is_ok());
    }

    #[tokio::test]
    async fn another_file_of_that_name_is_left_alone() {
        let dir = Scratch::new();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminSocket::bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_successors_socket_outlives_its_predecessor() {
        let dir = Scratch::new();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&path).unwrap();
        fs::rename(&path, dir.path().join("moved.sock")).unwrap();
        let _second = AdminSocket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn only_sockets_of_dead_processes_are_swept() {
        let dir = Scratch::new();
        // Above the largest process id that Linux gives out.
        let stale = dir.path().join("exec-4194999.sock");
        let alive = dir.path().join(format!("exec-{}.sock", std::process::id()));
        let other = dir.path().join("admin.sock");
        for path in [&stale, &alive, &other] {
            drop(StdListener::bind(path).unwrap());
        }
        let own = [Subject::Redirection, Subject::Acceleration].map(|subject| subject.own_off_file(&stale));
        own.iter().for_each(|file| fs::write(file, "").unwrap());

        sweep_stale(dir.path());

        assert!(!stale.exists() && own.iter().all(|file| !file.exists()));
        assert!(alive.exists() && other.exists());
    }
}
