//! Signal dispositions that whoever started `sidestep exec` chose: the command inherits them as if we were not there.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Whether this process ignores a signal.
pub(super) fn is_ignored(signal: i32) -> bool {
    // SAFETY: all-zero is a value of this struct of integers and an optional pointer.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given, and the pointer is to a sigaction.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut found) };
    result == 0 && found.sa_sigaction == libc::SIG_IGN
}

/// Makes the command's exit status be kept for us where we were started with SIGCHLD ignored, which would throw it
/// away; the command ignores it all the same.
pub(super) fn reap_although_ignored(command: &mut Command) {
    if !is_ignored(libc::SIGCHLD) {
        return;
    }
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let ignore = || {
        // SAFETY: signal(2) is async-signal-safe, and the disposition runs no code of ours.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes that call: no allocation, no lock.
    unsafe { command.pre_exec(ignore) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_told_from_others() {
        // A signal that nothing else of the tests' process uses.
        let signal = libc::SIGWINCH;
        assert!(!is_ignored(signal));
        // SAFETY: neither disposition runs code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
        assert!(is_ignored(signal));
        // SAFETY: as above.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
