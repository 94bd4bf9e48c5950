//! A database file that is broken, out of the way: kept for whoever wants to recover something of it.

use std::io;
use std::path::{Path, PathBuf};

/// What SQLite keeps beside a file, by what follows its name.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Renames a file and what belongs to it. Returns its new name, which nothing had.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let with = |path: &Path, more: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(more);
        PathBuf::from(name)
    };
    let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut aside = with(path, &format!(".corrupt-{date}"));
    for n in 2.. {
        if !aside.try_exists()? {
            break;
        }
        aside = with(path, &format!(".corrupt-{date}-{n}"));
    }
    std::fs::rename(path, &aside)?;
    for more in BESIDE {
        match std::fs::rename(with(path, more), with(&aside, more)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten_and_what_belongs_to_it_goes_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats.sqlite");
        let mut names = Vec::new();
        for n in 0..3u8 {
            std::fs::write(&path, [n]).unwrap();
            std::fs::write(folder.path().join("stats.sqlite-wal"), [n, n]).unwrap();
            names.push(set_aside(&path).unwrap());
        }
        assert!(!path.exists() && set_aside(&path).is_err());
        for (n, name) in (0u8..).zip(&names) {
            assert_eq!(std::fs::read(name).unwrap(), [n]);
            assert_eq!(std::fs::read(format!("{}-wal", name.display())).unwrap(), [n, n]);
            assert!(name.display().to_string().contains("stats.sqlite.corrupt-20"), "{}", name.display());
        }
    }
}
