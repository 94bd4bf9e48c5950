//! A configuration file read again while its server runs: what can change changes, what cannot is named.
//!
//! Invariants: a file that cannot be used changes nothing; values are never logged, since some are secrets; what waits for a
//! restart is named again at every reload until it got one. Deliberately absent: what a change means to a server; it says
//! which keys it can apply and applies them.

mod difference;

pub use difference::{Change, difference};

use crate::config::{ConfigError, Validate, load};
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

    /// Reads the certificate again too. What cannot be used leaves everything as it was, and is in the log.
    pub fn reload_with<T: DeserializeOwned + Validate>(
        &mut self,
        certificate: Option<&ReloadableCertificate>,
        apply: impl FnOnce(&T),
    ) {
        self.reload(apply);
        match certificate.map(ReloadableCertificate::reload) {
            Some(Err(error)) => tracing::error!(%error, "the old certificate stays"),
            Some(Ok(())) => tracing::info!("certificate reloaded"),
            None => {}
        }
    }

    /// Reads the file again and gives it to `apply` if anything that can be applied has changed. The log says which keys
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

    fn try_reload<T: DeserializeOwned + Validate>(&mut self) -> Result<(T, Vec<Change>), ConfigError> {
        let config = load(&self.path)?;
        let new = read(&self.path).unwrap_or_default();
        let changes = difference(&self.running, &new, self.live);
        for change in changes.iter().filter(|change| change.live) {
            difference::copy(&change.key, &new, &mut self.running);
        }
        Ok((config, changes))
    }
}

fn read(path: &Path) -> Option<Table> {
    std::fs::read_to_string(path).ok()?.parse().ok()
}
