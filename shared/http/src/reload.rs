//! A configuration file read again while its server runs: what can change changes, what cannot is named.
//!
//! Invariants: a file that cannot be used changes nothing; values are never logged, since some are secrets; what waits for a
//! restart is named again at every reload until it got one. Deliberately absent: what a change means to a server; it says
//! which keys it can apply and applies them.

mod difference;

pub use difference::{Change, difference};

use crate::config::{ConfigError, Validate, load, parse};
use crate::tls::ReloadableCertificate;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::Table;

/// A file that a server runs with.
#[derive(Debug)]
pub struct Reloadable {
    path: PathBuf,
    running: Table,
    live: &'static [&'static str],
}

impl Reloadable {
    /// The file just read at `path`. `live` are the dotted keys that can change while the server runs.
    #[must_use]
    pub fn new(path: &Path, live: &'static [&'static str]) -> Self {
        // It was read a moment ago; if it is gone since, everything in the next one is a change.
        let running = read(path).unwrap_or_default();
        Self { path: path.to_owned(), running, live }
    }

    /// Reads the certificates again too. What cannot be used leaves everything as it was, and is in the log.
    pub fn reload_with<'a, T: DeserializeOwned + Validate>(
        &mut self,
        certificates: impl IntoIterator<Item = &'a ReloadableCertificate>,
        apply: impl FnOnce(&T),
    ) {
        self.reload(apply);
        for certificate in certificates {
            let file = certificate.files()[0].display();
            match certificate.reload() {
                Err(error) => tracing::error!(%error, "the old certificate stays"),
                Ok(()) => tracing::info!(%file, "certificate reloaded"),
            }
        }
    }

    /// Reads the file again and gives `apply` what the server runs with, should anything that can be applied have changed: with
    /// the values from its start of all that cannot. The log says which keys
    /// that were, which take a restart, or why the file cannot be used.
    pub fn reload<T: DeserializeOwned + Validate>(&mut self, apply: impl FnOnce(&T)) {
        match self.try_reload() {
            Ok((config, changes)) => {
                let keys = |live: bool| -> Vec<&str> {
                    let changes = changes.iter().filter(|change| change.live == live);
                    changes.map(|change| change.key.as_str()).collect()
                };
                let (applied, waiting) = (keys(true), keys(false));
                if !waiting.is_empty() {
                    tracing::warn!(
                        file = %self.path.display(), keys = ?waiting,
                        "these keys have changed, but take a restart"
                    );
                }
                if !applied.is_empty() {
                    apply(&config);
                    tracing::info!(keys = ?applied, "configuration reloaded");
                }
            }
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }

    /// What the server runs with from now on: what it was started with, and of the file what can change.
    fn try_reload<T: DeserializeOwned + Validate>(&mut self) -> Result<(T, Vec<Change>), ConfigError> {
        // All of it has to be right, or the restart that it waits for would fail.
        let _: T = load(&self.path)?;
        let new = read(&self.path).unwrap_or_default();
        let changes = difference(&self.running, &new, self.live);
        let mut running = self.running.clone();
        for change in changes.iter().filter(|change| change.live) {
            difference::copy(&change.key, &new, &mut running);
        }
        let config = parse(&running.to_string()).map_err(|mut problems| {
            problems.iter_mut().for_each(|problem| problem.line = None);
            ConfigError::Invalid { path: self.path.clone(), problems }
        })?;
        self.running = running;
        Ok((config, changes))
    }
}

fn read(path: &Path) -> Option<Table> {
    std::fs::read_to_string(path).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problem;

    #[derive(Debug, serde::Deserialize)]
    struct Config {
        limits: Limits,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Limits {
        live: u8,
        fixed: u8,
    }

    impl Validate for Config {
        fn validate(&self) -> Vec<Problem> {
            let allowed = self.limits.live >= self.limits.fixed;
            (!allowed)
                .then(|| Problem::new("limits.live", self.limits.live, "limits.fixed and more"))
                .into_iter()
                .collect()
        }
    }

    fn reloaded(file: &mut Reloadable, text: &str) -> Option<Limits> {
        std::fs::write(&file.path, text).unwrap();
        let mut applied = None;
        file.reload(|config: &Config| {
            let Limits { live, fixed } = config.limits;
            applied = Some(Limits { live, fixed });
        });
        applied
    }

    #[test]
    fn what_takes_a_restart_is_not_applied_with_what_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.toml");
        std::fs::write(&path, "[limits]\nlive = 5\nfixed = 1\n").unwrap();
        let mut file = Reloadable::new(&path, &["limits.live"]);
        assert_eq!(
            reloaded(&mut file, "[limits]\nlive = 5\nfixed = 2\n"),
            None,
            "nothing that can be applied"
        );
        let both = reloaded(&mut file, "[limits]\nlive = 6\nfixed = 2\n");
        assert_eq!(both, Some(Limits { live: 6, fixed: 1 }));
        assert_eq!(reloaded(&mut file, "[limits]\nlive = 7\nfixed = 9\n"), None, "not allowed");
        assert_eq!(
            reloaded(&mut file, "[limits]\nlive = 0\nfixed = 0\n"),
            None,
            "not allowed before a restart"
        );
        let later = reloaded(&mut file, "[limits]\nlive = 8\nfixed = 2\n");
        assert_eq!(later, Some(Limits { live: 8, fixed: 1 }));
    }
}
