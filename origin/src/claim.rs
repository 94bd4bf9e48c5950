//! The folder an origin keeps its state in, claimed by one origin at a time.
//!
//! Invariant: whoever writes below the folder holds a [`ClaimedDir`], so the claim ends after the last of them, or with the
//! process, however that ends. Deliberately absent: what is in the folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Who holds the folder, for people; the lock on it is what counts.
const LOCK_FILE: &str = "origin.lock";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// The operator's: a retry helps once it can be written to.
    #[error("data_dir: {}: cannot be made or written to: {source}", path.display())]
    Unusable { path: PathBuf, source: std::io::Error },
    /// Another origin's: a retry helps once that one has ended.
    #[error(
        "data_dir: {}: in use by another origin{owner}; two on one folder would spoil each other's recordings: \
         stop that one, or give this one a data_dir of its own",
        path.display()
    )]
    Taken { path: PathBuf, owner: String },
}

/// A folder that is ours.
#[derive(Debug)]
pub(crate) struct ClaimedDir {
    path: PathBuf,
    _lock: File,
}

impl ClaimedDir {
    /// Makes the folder if it is not there, and claims it.
    ///
    /// # Errors
    /// It cannot be written to, or another origin uses it.
    pub(crate) fn claim(path: &Path) -> Result<Self, ClaimError> {
        let unusable = |source| ClaimError::Unusable { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(unusable)?;
        let mut options = OpenOptions::new();
        let open = options.create(true).truncate(false).read(true).write(true).open(path.join(LOCK_FILE));
        let mut lock = open.map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let read = lock.read_to_string(&mut owner);
                let pid = owner.trim().parse::<u32>().ok().filter(|_| read.is_ok());
                let owner = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
                return Err(ClaimError::Taken { path: path.to_owned(), owner });
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(unusable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_origin_at_a_time_and_the_other_is_told_who_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let claimed = ClaimedDir::claim(&folder.path().join("new")).expect("free");
        let refused = ClaimedDir::claim(claimed.path()).expect_err("taken").to_string();
        let pid = format!("process {}", std::process::id());
        assert!(refused.contains(&pid) && refused.contains("data_dir of its own"), "{refused}");
        let path = claimed.path().to_owned();
        drop(claimed);
        ClaimedDir::claim(&path).expect("free again");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let refused = ClaimedDir::claim(Path::new("/proc/nowhere")).expect_err("not there").to_string();
        assert!(refused.contains("/proc/nowhere"), "{refused}");
    }
}
