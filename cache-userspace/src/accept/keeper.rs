//! A process beside the daemon that holds its listeners too, for a moment longer than the daemon may live.
//!
//! A `connect()` that was redirected finds its port afterwards, which takes long where many are in use and the machine is
//! busy. Where the daemon is killed in between the kernel closes its listeners with it, and the connection would be refused.
//! So they stay for [`GRACE_US`]: it is queued there and reset, as others that nobody accepted any more. New ones are not
//! redirected by then.

use std::io::{self, IoSlice};
use std::mem::{size_of, zeroed};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// How long listeners outlive a daemon that was killed, microseconds.
const GRACE_US: libc::useconds_t = 300_000;
/// Its descriptors of listeners are the daemon's and so many more: below are those that have just come.
const SLOTS: RawFd = 64;
/// How long it may take to end once it is told, milliseconds.
const ENDING_MS: u32 = 500;
/// Tells it to end at once: no connection is on its way.
const END: RawFd = -1;

/// The process; it ends with this, or [`GRACE_US`] after the daemon however that dies.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    pid: Pid,
}

/// A listener that is kept.
#[derive(Debug)]
pub struct Kept {
    keeper: Arc<Keeper>,
    // A copy: nobody else gets its number as long as it is kept.
    listener: TcpListener,
}

impl Keeper {
    /// Starts it; what this process has open now does not stay open in it.
    ///
    /// # Errors
    /// Where there can be no further process or socket.
    pub fn start() -> io::Result<Arc<Self>> {
        let (socket, its) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the child calls nothing but system calls: no allocation, no lock of threads that are not there.
        match unsafe { fork() }? {
            ForkResult::Child => keep(its.as_raw_fd()),
            ForkResult::Parent { child } => Ok(Arc::new(Self { socket, pid: child })),
        }
    }

    /// Keeps a listener until the result is dropped, which comes before the listener is closed.
    ///
    /// # Errors
    /// Where this process has no descriptor left, or that one is gone.
    pub fn keep(self: &Arc<Self>, listener: &TcpListener) -> io::Result<Kept> {
        let listener = listener.try_clone()?;
        let kept = [listener.as_raw_fd()];
        self.tell(SLOTS + listener.as_raw_fd(), &[ControlMessage::ScmRights(&kept)])?;
        Ok(Kept { keeper: self.clone(), listener })
    }

    fn tell(&self, slot: RawFd, with: &[ControlMessage<'_>]) -> io::Result<()> {
        let bytes = slot.to_ne_bytes();
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&bytes)], with, flags, None)?;
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // One that is gone needs not be told; one that is stopped does not hear.
        let _ = self.tell(END, &[]);
        for _ in 0..ENDING_MS {
            if !matches!(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // One that is gone keeps nothing.
        let _ = self.keeper.tell(SLOTS + self.listener.as_raw_fd(), &[]);
    }
}

/// The other process.
fn keep(socket: RawFd) -> ! {
    // It is in the daemon's process group, and its service's: what ends those must not end it before the daemon.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: to ignore a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: descriptors of this process alone, which nothing in it uses any more.
    unsafe {
        libc::dup2(socket, 0);
        libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
    }
    while let Some((slot, descriptor)) = receive() {
        match (slot, descriptor) {
            (END, _) => exit(),
            // SAFETY: a descriptor in the range of those that are kept, if it is one at all.
            (slot, None) => unsafe {
                libc::close(slot);
            },
            // SAFETY: a descriptor that has just come, and is copied to where it is kept.
            (slot, Some(descriptor)) => unsafe {
                libc::dup2(descriptor, slot);
                libc::close(descriptor);
            },
        }
    }
    // SAFETY: a system call without memory.
    unsafe { libc::usleep(GRACE_US) };
    exit()
}

/// The next order and what came with it; nothing once the daemon is gone.
fn receive() -> Option<(RawFd, Option<RawFd>)> {
    let mut slot: RawFd = END;
    let mut control = [0_u64; 4];
    let mut part = libc::iovec { iov_base: (&raw mut slot).cast(), iov_len: size_of::<RawFd>() };
    // SAFETY: all-zero is an empty message.
    let mut message: libc::msghdr = unsafe { zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of_val(&control) as _);
    // SAFETY: the message points to memory of this frame, with its lengths.
    let got = unsafe { libc::recvmsg(0, &raw mut message, 0) };
    if usize::try_from(got) != Ok(size_of::<RawFd>()) {
        return None;
    }
    // SAFETY: the kernel filled the message in; its only control message holds one descriptor.
    let descriptor = unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        (!first.is_null()).then(|| libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned())
    };
    Some((slot, descriptor))
}

fn exit() -> ! {
    // SAFETY: ends the process; nothing of the daemon's is run on the way.
    unsafe { libc::_exit(0) }
}
