//! The folder of the disk cache: one file for each object, under a name made of its path.
//!
//! Invariants: a file has its name only when it is whole, so a process that is killed leaves nothing that looks like an object;
//! what a crash of the machine leaves is told by length and checksums. Nothing is deleted that is not named as this cache
//! names things. Deliberately absent: waiting until bytes are on the disk; what is lost is fetched again.

use super::index::{Entry, ObjectId};
use super::record::{PIECE, Record, START, Spoilt, Start};
use bytes::Bytes;
use std::fs::{self, DirBuilder, DirEntry, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What file systems give at least.
const BLOCK: u64 = 4096;
const LOCK: &str = "lock";
const OBJECTS: &str = "objects";
/// Of a file that is not whole yet.
const UNFINISHED: &str = "writing-";

/// Bytes that a file of `length` takes.
pub(super) fn taken(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
}

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Another process deleted it.
    #[error("it is gone")]
    Gone,
    /// It has to be fetched again.
    #[error(transparent)]
    Spoilt(#[from] Spoilt),
    /// The disk, or this process's limits, are to blame.
    #[error("{0}")]
    Failed(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Gone } else { Self::Failed(error) }
    }
}

/// An object's file, its head read and its body not yet.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) record: Record,
    file: File,
    next: usize,
}

impl Opened {
    fn new(path: &Path) -> Result<Self, ReadError> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let start: [u8; START] = exactly(&mut file, START)?.try_into().map_err(|_| Spoilt::Length)?;
        let start = Start::read(start)?;
        let head = exactly(&mut file, start.head_bytes)?;
        Ok(Self { record: start.record(&head, length)?, file, next: 0 })
    }

    /// The next piece of the body, as it was written; `None` after the last.
    pub(super) fn piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.next == self.record.pieces() {
            return Ok(None);
        }
        let bytes = exactly(&mut self.file, self.record.piece_bytes(self.next))?;
        let piece = self.record.piece(self.next, bytes)?;
        self.next += 1;
        Ok(Some(piece))
    }
}

fn exactly(file: &mut File, length: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(Spoilt::Length.into()) }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
}

/// An object that was found in the folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) id: ObjectId,
    pub(super) entry: Entry,
    written: SystemTime,
}

/// What is in the folder.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// What was not known before, oldest first.
    pub(super) new: Vec<Seen>,
    /// What was.
    pub(super) known: Vec<ObjectId>,
    /// Files of objects that are not what was written.
    pub(super) spoilt: u64,
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The right to write here, for as long as the file is held; `None` while another process has it.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.root.join(OBJECTS))?;
        let lock = File::options().create(true).append(true).open(self.root.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether files can be written at all.
    pub(super) fn try_out(&self) -> io::Result<()> {
        let objects = self.root.join(OBJECTS);
        DirBuilder::new().recursive(true).mode(0o700).create(&objects)?;
        unfinished(&objects)?.write_all(&[0; PIECE])
    }

    /// Bytes that the disk has left; `None` if the system does not say.
    pub(super) fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(nearest(&self.root)).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Says that a disk with `held` bytes of the cache on it is full before there are `bytes_max`; `None` if it is not, or
    /// if the system does not say.
    pub(super) fn shortage(&self, bytes_max: u64, held: u64) -> Option<String> {
        let room = self.free()?.saturating_add(held);
        (bytes_max > room).then(|| {
            format!(
                "disk_cache.bytes_max is {bytes_max} bytes, and the disk of {} has room for {room} with what is in there \
                 already: it is full first, and then what was not asked for the longest is deleted",
                self.root.display()
            )
        })
    }

    /// Bytes that the files of objects take.
    pub(super) fn held(&self) -> u64 {
        let inside = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        let files =
            inside(&self.root.join(OBJECTS)).flat_map(|folder| inside(&folder.path()).collect::<Vec<_>>());
        files.filter_map(|file| Some(taken(file.metadata().ok()?.len()))).sum()
    }

    fn folder(&self, id: ObjectId) -> PathBuf {
        let mut name = id.to_string();
        name.truncate(2);
        self.root.join(OBJECTS).join(name)
    }

    pub(super) fn path(&self, id: ObjectId) -> PathBuf {
        self.folder(id).join(id.to_string())
    }

    /// Writes an object; `go_on` is asked before each of its pieces.
    ///
    /// # Errors
    /// The disk does not take it, or it is not to go on; nothing is left of it.
    pub(super) fn write(
        &self,
        id: ObjectId,
        (head, body): (&[u8], &[u8]),
        mut go_on: impl FnMut(usize) -> bool,
    ) -> io::Result<()> {
        let folder = self.folder(id);
        let mut file = match unfinished(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                unfinished(&folder)?
            }
            other => other?,
        };
        for piece in std::iter::once(head).chain(body.chunks(PIECE)) {
            if !go_on(piece.len()) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            file.write_all(piece)?;
        }
        file.persist(self.path(id)).map(drop).map_err(|error| error.error)
    }

    /// Opens the object that has this id and this path and query.
    pub(super) fn open(&self, id: ObjectId, name: &str) -> Result<Opened, ReadError> {
        let opened = Opened::new(&self.path(id))?;
        if opened.record.name == name { Ok(opened) } else { Err(Spoilt::Name.into()) }
    }

    /// Deletes an object; one that is not there is as good as deleted.
    pub(super) fn remove(&self, id: ObjectId) {
        if let Err(error) = fs::remove_file(self.path(id)).or_else(gone) {
            tracing::debug!(%id, %error, "a file of the disk cache cannot be deleted");
        }
    }

    /// Looks at everything in the folder that is not `known`. Who has the lock deletes what cannot be used.
    pub(super) fn scan(&self, known: impl Fn(ObjectId) -> bool, has_lock: bool) -> io::Result<Scanned> {
        let mut found = Scanned::default();
        let folders = match fs::read_dir(self.root.join(OBJECTS)) {
            // It was deleted, and is made again when something is written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            folders => folders?,
        };
        for folder in folders {
            let folder = folder?;
            let inside = fs::read_dir(folder.path());
            // Nothing in it is ours, if it is no folder at all.
            for file in inside.into_iter().flatten().flatten() {
                look_at(&file, (&mut found, &known), has_lock);
            }
            if has_lock && is_unfinished(&folder) {
                fs::remove_file(folder.path()).or_else(gone)?;
            }
        }
        found.new.sort_by_key(|seen| seen.written);
        Ok(found)
    }
}

fn look_at(file: &DirEntry, (found, known): (&mut Scanned, &impl Fn(ObjectId) -> bool), has_lock: bool) {
    let id = file.file_name().to_str().and_then(|name| name.parse::<ObjectId>().ok());
    let useless = match id {
        Some(id) if known(id) => {
            found.known.push(id);
            false
        }
        Some(id) => match seen(id, file) {
            Ok(seen) => {
                found.new.push(seen);
                false
            }
            Err(ReadError::Spoilt(_)) => {
                found.spoilt += 1;
                true
            }
            Err(ReadError::Gone | ReadError::Failed(_)) => false,
        },
        None => is_unfinished(file),
    };
    if useless && has_lock {
        let _ = fs::remove_file(file.path());
    }
}

fn seen(id: ObjectId, file: &DirEntry) -> Result<Seen, ReadError> {
    let Opened { record, file, .. } = Opened::new(&file.path())?;
    if ObjectId::of(&record.name) != id {
        return Err(Spoilt::Name.into());
    }
    let metadata = file.metadata()?;
    let entry = Entry { bytes: taken(metadata.len()), expires_ms: record.expires_ms };
    Ok(Seen { id, entry, written: metadata.modified()? })
}

fn is_unfinished(file: &DirEntry) -> bool {
    file.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED))
}

/// A file that is deleted when it is dropped.
fn unfinished(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(UNFINISHED).rand_bytes(12).tempfile_in(folder)
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Whether a folder can be used, or made.
///
/// # Errors
/// Why not.
pub(super) fn usable(folder: &Path) -> io::Result<()> {
    let there = nearest(folder);
    if !there.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is a file", there.display())));
    }
    unfinished(there).map(drop)
}

/// A folder, or that of its parents which is there.
fn nearest(folder: &Path) -> &Path {
    let there = folder.ancestors().find(|ancestor| ancestor.exists());
    there.filter(|ancestor| !ancestor.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
