//! SIGHUP at the origin: the certificate, and what of the configuration can change while it runs.

use crate::app::Running;
use crate::config::{Config, LIVE_KEYS};
use sigma_http::reload::Reloadable;
use std::path::Path;
use std::sync::Arc;

/// What is read again, and who gets it.
pub(crate) struct Reload {
    file: Reloadable,
    running: Arc<Running>,
}

impl Reload {
    pub(crate) fn new(file: &Path, running: Arc<Running>) -> Self {
        Self { file: Reloadable::new(file, LIVE_KEYS), running }
    }

    /// Reads both again. What cannot be used leaves everything as it was, and is in the log.
    pub(crate) fn run(&mut self) {
        self.file.reload(|config: &Config| self.running.apply(config));
        match self.running.certificate.as_ref().map(|certificate| certificate.reload()) {
            Some(Err(error)) => tracing::error!(%error, "the old certificate stays"),
            Some(Ok(())) => tracing::info!("certificate reloaded"),
            None => {}
        }
    }
}
