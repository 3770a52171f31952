//! Which file a path names.

use std::path::{Path, PathBuf};

/// A file under its path.
#[derive(Clone)]
pub(super) struct FileId {
    path: PathBuf,
    /// Unknown where the system does not tell.
    id: Option<Id>,
}

/// Device and inode.
type Id = (u64, u64);

impl FileId {
    /// The file that the path names now.
    pub(super) fn of(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { id: id(&path), path }
    }

    /// Whether the path still names this file.
    pub(super) fn is_still_there(&self) -> bool {
        self.id.is_none() || id(&self.path) == self.id
    }
}

#[cfg(unix)]
fn id(path: &Path) -> Option<Id> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn id(_path: &Path) -> Option<Id> {
    None
}
