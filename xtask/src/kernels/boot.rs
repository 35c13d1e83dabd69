//! One boot of one kernel in an emulated machine, watched on its serial console. What its lines mean is left to
//! `console`.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::console::Console;

/// How long a boot with all its tests may take.
const BOOT_MAX: Duration = Duration::from_secs(600);

/// The machine: no hardware support is needed, nothing of the host but the console is seen.
const MACHINE: [&str; 18] = [
    "-M",
    "q35",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "2048",
    "-nic",
    "none",
    "-display",
    "none",
    "-monitor",
    "none",
    "-serial",
    "stdio",
];

/// Only what stops the kernel is printed in the middle of a test's line; the rest is read from its log afterwards.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=1 oops=panic panic=-1";

/// Boots a kernel with a root filesystem until it powers off, shows its console, and writes all of it to `log`.
///
/// # Errors
/// If the emulator does not start. What goes wrong in the kernel is in the console.
pub(super) fn boot(kernel: &Path, root: &Path, log: &Path) -> Result<Console> {
    let mut log = File::create(log).with_context(|| log.display().to_string())?;
    let mut child = Command::new("qemu-system-x86_64")
        .args(MACHINE)
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(root)
        .args(["-append", COMMAND_LINE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-x86_64 did not start")?;
    let watched = watch(&mut child, &mut log);
    // It has ended, or its time is over, or nobody can read its console.
    let _ = child.kill();
    child.wait()?;
    watched
}

fn watch(child: &mut Child, log: &mut File) -> Result<Console> {
    let output = read_in_pieces(child.stdout.take().context("no console")?);
    let end = Instant::now() + BOOT_MAX;
    let mut console = Console::default();
    loop {
        match output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                log.write_all(&bytes)?;
                console.feed(&bytes).iter().for_each(|line| eprintln!("{line}"));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(console.ended(None)),
            Err(RecvTimeoutError::Timeout) => {
                return Ok(console.ended(Some(format!("still running after {} s", BOOT_MAX.as_secs()))));
            }
        }
    }
}

/// Reads to the end in a thread, so that waiting for it can be limited; the channel ends with it.
fn read_in_pieces(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::sync_channel(64);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.get(..count).unwrap_or_default().to_vec();
            if send.send(piece).is_err() {
                return;
            }
        }
    });
    receive
}
