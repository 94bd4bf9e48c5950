//! A folder of report files: appending, reading, recovery, and deleting what is settled.
//!
//! Invariants: what was written before [`Folder::sync`] is on the disk after it; a record that is not whole ends its file; a folder is one
//! process's at a time.

use super::spool::Number;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file is not written on once it is this long…
const FILE_BYTES_MAX: u64 = 8 << 20;
/// …or this long, with everything in it settled: little is sent again after a restart.
const SETTLED_BYTES_MAX: u64 = 256 << 10;
const HEAD: usize = 24;
const LOCK: &str = "lock";
const EXTENSION: &str = "reports";

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    file: u32,
    offset: u64,
    pub(super) length: u32,
}

#[derive(Debug, Default)]
struct Written {
    bytes: u64,
    /// Records that are not settled.
    left: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) incarnation: u64,
    path: PathBuf,
    files: BTreeMap<u32, Written>,
    current: Option<(u32, File)>,
    _lock: File,
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) records: Vec<(Number, Place)>,
    /// Records that are not what was written, beside a last one that was not finished.
    pub(super) broken: u64,
}

/// Whether there can be folders of reports under `root`, by making one where it is, or would be, and deleting it at once.
///
/// # Errors
/// The folder cannot be made or written, or it is none.
pub(crate) fn check(root: &Path) -> io::Result<()> {
    // The nearest that there is.
    let there = root.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    // One that is relative begins here.
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !fs::metadata(there)?.is_dir() {
        let why = format!("{} is not a folder", there.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
    }
    let trial = there.join(format!(".sigma-edge-check-{}", std::process::id()));
    fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)).map_err(|error| {
        io::Error::new(error.kind(), format!("nothing can be written to {}: {error}", there.display()))
    })
}

fn folder(root: &Path, incarnation: u64) -> PathBuf {
    root.join(format!("{incarnation:020}"))
}

impl Folder {
    /// The incarnations that there are folders of.
    pub(super) fn incarnations(root: &Path) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(root)? {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// A folder of a new incarnation, greater than all others and at least `least`.
    pub(super) fn create(root: &Path, least: u64) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        loop {
            let greatest = Self::incarnations(root)?.last().copied().unwrap_or(0);
            let incarnation = least.max(greatest + 1);
            match fs::create_dir(folder(root, incarnation)) {
                Ok(()) => {}
                // Somebody else began at the same time.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            File::open(root)?.sync_all()?;
            let path = folder(root, incarnation);
            let lock = match File::create(path.join(LOCK)) {
                Ok(lock) => lock,
                // Taken for one that somebody left.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            lock.lock()?;
            return Ok(Self { incarnation, path, files: BTreeMap::new(), current: None, _lock: lock });
        }
    }

    /// The folder of a process that is gone, and what is in it; `None` while it lives.
    pub(super) fn take_over(root: &Path, incarnation: u64) -> io::Result<Option<(Self, Read)>> {
        let path = folder(root, incarnation);
        let lock = OpenOptions::new().create(true).append(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut folder = Self { incarnation, path, files: BTreeMap::new(), current: None, _lock: lock };
        let mut read = Read::default();
        for entry in fs::read_dir(&folder.path)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok());
            if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == EXTENSION)) {
                folder.recover(number, &fs::read(&path)?, &mut read);
            }
        }
        read.records.sort_unstable_by_key(|(number, place)| (*number, place.file, place.offset));
        Ok(Some((folder, read)))
    }

    fn recover(&mut self, file: u32, bytes: &[u8], read: &mut Read) {
        let mut written = Written { bytes: bytes.len() as u64, left: 0 };
        let mut rest = bytes;
        while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            let word = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
            let number = (word(8), word(16));
            // A record that is not whole is what was being written at the end.
            let Some((report, after)) = after.split_at_checked(length as usize) else { break };
            if crc != checksum(number, report) {
                read.broken += 1;
                break;
            }
            let offset = (bytes.len() - rest.len() + HEAD) as u64;
            read.records.push((number, Place { file, offset, length }));
            written.left += 1;
            rest = after;
        }
        self.files.insert(file, written);
    }

    fn file(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:06}.{EXTENSION}"))
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), |(_, writer)| writer.sync_data())
    }

    /// Writes a record. It is on the disk after [`Folder::sync`].
    pub(super) fn append(&mut self, number: Number, report: &[u8]) -> io::Result<Place> {
        let length = u32::try_from(report.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity(HEAD + report.len());
        record.extend(length.to_le_bytes());
        record.extend(checksum(number, report).to_le_bytes());
        record.extend(number.0.to_le_bytes());
        record.extend(number.1.to_le_bytes());
        record.extend(report);
        self.turn_over()?;
        let (file, writer) = match &mut self.current {
            Some((file, writer)) => (*file, writer),
            None => {
                let file = self.files.last_key_value().map_or(0, |(last, _)| last + 1);
                let path = self.path.join(format!("{file:06}.{EXTENSION}"));
                let writer = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
                File::open(&self.path)?.sync_all()?;
                self.files.insert(file, Written::default());
                (file, &mut self.current.insert((file, writer)).1)
            }
        };
        let written = writer.write_all(&record);
        let Some(known) = self.files.get_mut(&file) else { return Err(io::Error::other("no such file")) };
        let offset = known.bytes + HEAD as u64;
        if let Err(error) = written {
            // What came after half a record could not be read: on with another file.
            self.current = None;
            if known.left == 0 {
                // While the disk is full there are not more and more of them.
                let _ = self.delete(file);
            }
            return Err(error);
        }
        known.bytes += record.len() as u64;
        known.left += 1;
        Ok(Place { file, offset, length })
    }

    /// Goes on with another file when this one is long enough.
    fn turn_over(&mut self) -> io::Result<()> {
        let Some(file) = self.current.as_ref().map(|(file, _)| *file) else { return Ok(()) };
        let Some(written) = self.files.get(&file) else { return Ok(()) };
        let settled = written.left == 0 && written.bytes >= SETTLED_BYTES_MAX;
        if settled || written.bytes >= FILE_BYTES_MAX {
            self.sync()?;
            self.current = None;
            if settled {
                self.delete(file)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, file: u32) -> io::Result<()> {
        fs::remove_file(self.file(file))?;
        self.files.remove(&file);
        Ok(())
    }

    pub(super) fn read(&self, place: Place) -> io::Result<Bytes> {
        let mut bytes = vec![0; place.length as usize];
        match &self.current {
            Some((file, open)) if *file == place.file => open.read_exact_at(&mut bytes, place.offset)?,
            _ => File::open(self.file(place.file))?.read_exact_at(&mut bytes, place.offset)?,
        }
        Ok(bytes.into())
    }

    /// A record is not needed any more; nor is its file with the last of them.
    pub(super) fn settle(&mut self, place: Place) -> io::Result<()> {
        let Some(written) = self.files.get_mut(&place.file) else { return Ok(()) };
        written.left = written.left.saturating_sub(1);
        let current = self.current.as_ref().is_some_and(|(file, _)| *file == place.file);
        if written.left == 0 && !current { self.delete(place.file) } else { Ok(()) }
    }

    /// Deletes the folder when nothing is left in it. Whether it did.
    pub(super) fn remove_if_empty(&mut self) -> bool {
        if self.files.values().any(|written| written.left > 0) {
            return false;
        }
        let files: Vec<u32> = self.files.keys().copied().collect();
        for file in files {
            let _ = self.delete(file);
        }
        let _ = fs::remove_file(self.path.join(LOCK));
        fs::remove_dir(&self.path).is_ok()
    }
}

fn checksum((incarnation, sequence): Number, report: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&incarnation.to_le_bytes());
    checksum.update(&sequence.to_le_bytes());
    checksum.update(report);
    checksum.finalize()
}

#[cfg(test)]
impl Folder {
    /// From now on the file that is written to is on a full disk.
    pub(super) fn fill_up(&mut self) -> io::Result<()> {
        let file = self.files.last_key_value().map_or(0, |(last, _)| last + 1);
        File::create(self.file(file))?;
        self.files.insert(file, Written::default());
        self.current = Some((file, OpenOptions::new().read(true).write(true).open("/dev/full")?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    #[test]
    fn where_reports_can_be_kept() {
        let root = tempdir().unwrap();
        let (file, loose) = (root.path().join("file"), root.path().join("loose"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(root.path().join("nowhere"), &loose).unwrap();
        for (path, good) in [
            (root.path().to_path_buf(), true),
            (root.path().join("a/b/c"), true),
            (PathBuf::from("there-is-none-yet"), true),
            (file.clone(), false),
            (file.join("pop-1"), false),
            (loose.join("pop-1"), false),
            (PathBuf::from("/proc/reports"), false),
        ] {
            assert_eq!(check(&path).is_ok(), good, "{}: {:?}", path.display(), check(&path));
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing is left behind");
    }
}
