//! What the system says of a directory and of this process.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Common;

/// A directory for a store, which goes with it unless it is kept.
#[derive(Debug)]
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new(common: &Common) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("scale-").disable_cleanup(common.keep);
        let dir = match &common.dir {
            None => builder.tempdir()?,
            Some(parent) => builder.tempdir_in(parent)?,
        };
        if common.keep {
            eprintln!("the store is kept in {}", dir.path().display());
        }
        Ok(Self(dir))
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.0.path().join("store")
    }
}

/// What `du` says: blocks of every file and directory. A file that goes meanwhile is not counted.
pub(crate) fn disk_use(dir: &Path) -> u64 {
    let own = fs::symlink_metadata(dir).map_or(0, |metadata| metadata.blocks() * 512);
    let Ok(entries) = fs::read_dir(dir) else { return own };
    own + entries.filter_map(Result::ok).map(|entry| disk_use(&entry.path())).sum::<u64>()
}

/// Files and directories.
pub(crate) fn inodes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 1 };
    1 + entries.filter_map(Result::ok).map(|entry| inodes(&entry.path())).sum::<u64>()
}

/// Makes the kernel forget what the files hold, so that reading them is reading the disk.
pub(crate) fn forget(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let file = fs::File::open(&path)?;
            file.sync_data()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    status("VmRSS:")
}

/// The most that ever was, in bytes.
pub(crate) fn resident_peak() -> u64 {
    status("VmHWM:")
}

fn status(name: &str) -> u64 {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}
