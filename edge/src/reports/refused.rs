//! Reports that the origin will not take, set aside for people: a file each, as it was sent.
//!
//! Invariants: bounded in files and bytes, the oldest reports go first; nothing here is ever sent again by itself.

use super::spool::Number;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// So many files are kept…
pub(super) const FILES_MAX: usize = 100;
/// …and so many bytes of them.
pub(super) const BYTES_MAX: u64 = 16 << 20;
const EXTENSION: &str = "refused";

/// Writes a report to a file of its own in the folder, and makes room there. Returns where it is; `None` when there are enough
/// younger ones.
pub(super) fn set_aside(folder: &Path, number: Number, report: &[u8]) -> io::Result<Option<PathBuf>> {
    let path = folder.join(format!("{:020}-{:020}.{EXTENSION}", number.0, number.1));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
    let written = file.write_all(report).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // Half a report is none.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    make_room(folder)?;
    Ok(path.try_exists()?.then_some(path))
}

/// By their names, which begin with the time and number of the report, the youngest are kept.
fn make_room(folder: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            kept.push(path);
        }
    }
    kept.sort_unstable();
    let (mut files, mut bytes) = (0, 0);
    for path in kept.iter().rev() {
        let length = match fs::metadata(path) {
            Ok(known) => known.len(),
            // Another process made room at the same time.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        (files, bytes) = (files + 1, bytes + length);
        if files > FILES_MAX || bytes > BYTES_MAX {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    fn names(folder: &Path) -> Vec<(u64, u64)> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let (incarnation, sequence) = name.strip_suffix(".refused").unwrap().split_once('-').unwrap();
                (incarnation.parse().unwrap(), sequence.parse().unwrap())
            })
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_youngest_are_kept_within_bounds() {
        let root = tempdir().unwrap();
        for n in 1..=FILES_MAX as u64 + 20 {
            let path = set_aside(root.path(), (1_790_000_000_000, n), b"as it was sent").unwrap().unwrap();
            assert_eq!(fs::read(path).unwrap(), b"as it was sent");
        }
        let kept = names(root.path());
        assert_eq!((kept.len(), kept[0].1), (FILES_MAX, 21));
        let older = set_aside(root.path(), (1, 1), b"old").unwrap();
        assert!(older.is_none() && names(root.path()) == kept, "an older one makes no younger one go");
        let large = vec![7; 4 << 20];
        for n in 1..=6 {
            set_aside(root.path(), (1_790_000_000_001, n), &large).unwrap().unwrap();
        }
        let kept = names(root.path());
        assert_eq!(kept, (3..=6).map(|n| (1_790_000_000_001, n)).collect::<Vec<_>>());
    }
}
