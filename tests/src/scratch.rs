//! A directory of a test's own, removed at the end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use anyhow::{Context, Result};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name no other test of this machine uses at the same time: `sst-<pid>-<n>`.
pub fn unique_name() -> String {
    format!("sst-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new empty directory that any user may enter; removed with its contents when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory under the system's temporary one.
    pub fn new() -> Result<Self> {
        Self::below(&env::temp_dir())
    }

    /// Makes the directory where files are in memory and nowhere else.
    pub fn in_memory() -> Result<Self> {
        Self::below(Path::new("/dev/shm"))
    }

    fn below(dir: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join(unique_name());
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
