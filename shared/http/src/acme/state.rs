//! What is kept between starts: the account, and the certificate with its key.
//!
//! Invariants: files are readable by their owner alone and replaced whole; a certificate and its key are one file, so that
//! they always belong together. Another directory has another place: an account of a test directory is never used at the
//! real one.

use super::{AcmeConfig, AcmeError};
use instant_acme::AccountCredentials;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The state of one directory.
pub(crate) struct State {
    dir: PathBuf,
}

impl State {
    pub(crate) fn new(config: &AcmeConfig) -> Self {
        let url = config.directory.trim_start_matches("https://");
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        let name: String = url.chars().take(128).map(safe).collect();
        // Never `..` or hidden.
        Self { dir: config.state_dir.join(format!("at-{name}")) }
    }

    /// Where the certificate and its key are, in one file.
    pub(crate) fn certificate_path(&self) -> PathBuf {
        self.dir.join("certificate.pem")
    }

    /// The leaf that is kept.
    pub(crate) fn certificate_chain(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_file(self.certificate_path()).ok()
    }

    pub(crate) fn account(&self) -> Option<AccountCredentials> {
        let text = std::fs::read(self.dir.join("account.json")).ok()?;
        let account = serde_json::from_slice(&text);
        account.inspect_err(|error| tracing::error!(%error, "the ACME account is unreadable: a new one")).ok()
    }

    pub(crate) fn keep_account(&self, credentials: &AccountCredentials) -> Result<(), AcmeError> {
        let path = self.dir.join("account.json");
        let bytes = serde_json::to_vec(credentials).map_err(io::Error::from);
        let kept = bytes.and_then(|bytes| self.replace(&path, &bytes));
        kept.map_err(|source| AcmeError::File { path, source })
    }

    pub(crate) fn keep_certificate(&self, chain: &str, key: &str) -> Result<(), AcmeError> {
        let path = self.certificate_path();
        let kept = self.replace(&path, format!("{}\n{key}", chain.trim_end()).as_bytes());
        kept.map_err(|source| AcmeError::File { path, source })
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let new = path.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_the_owners_alone_and_of_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = |directory: &str| AcmeConfig {
            directory: directory.to_owned(),
            contact: Vec::new(),
            domains: vec!["a.example".to_owned()],
            state_dir: dir.path().join("acme"),
            terms_agreed: true,
            ca: None,
        };
        let real = State::new(&config("https://acme.example/../dir"));
        let test = State::new(&config("https://test.acme.example/dir"));
        for round in ["one", "two"] {
            real.keep_certificate(round, "key").unwrap();
            let path = real.certificate_path();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{round}\nkey"));
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let home = real.certificate_path();
        assert!(home.parent().unwrap().parent().unwrap().ends_with("acme"), "{}", home.display());
        assert!(!test.certificate_path().exists());
        assert!(test.account().is_none());
    }
}
