//! TLS from PEM files: server certificates that can be replaced while serving, and clients that trust one CA file.
//!
//! Invariants: TLS 1.3 and 1.2 only, with aws-lc-rs named explicitly (no process-wide default provider is needed); a
//! failed reload leaves the certificate that works in place. Deliberately absent: the system's trust store, and
//! where certificates come from (`certificate`).

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// `h2` before `http/1.1`: what viewers are offered.
pub const ALPN_ALL: &[&[u8]] = &[b"h2", b"http/1.1"];
/// `h2` alone: what an edge asks of its upstream.
pub const ALPN_H2: &[&[u8]] = &[b"h2"];

/// TLS material that cannot be used: the operator's files. A retry helps after they changed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or is no PEM.
    #[error("{}: {what} expected in PEM form: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are readable but unusable together.
    #[error("{} with {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate chain's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The library refused the configuration.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason: String| TlsError::File { path: path.to_owned(), what: "certificate", reason };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad("there is none in it".to_owned()));
    }
    Ok(chain)
}

fn read_pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
        path: key.to_owned(),
        what: "private key",
        reason: error.to_string(),
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|source| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// A server certificate that is read again on demand; open connections keep the one they began with.
#[derive(Debug)]
pub struct ReloadableCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ReloadableCertificate {
    /// Reads a chain and its key.
    ///
    /// # Errors
    /// A file is missing, not PEM, or the key does not belong to the certificate.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(read_pair(certificate, key)?));
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Shows one pair of files until [`ReloadableCertificate::reload`] finds a usable `coming`, which has chain and key in
    /// one file.
    ///
    /// # Errors
    /// As [`ReloadableCertificate::load`], of the pair.
    pub(crate) fn until_there_is(
        coming: &Path,
        certificate: &Path,
        key: &Path,
    ) -> Result<Arc<Self>, TlsError> {
        Ok(Self::showing(coming, read_pair(certificate, key)?))
    }

    /// The same with a self-signed certificate for `names`: nobody trusts it, but listeners can be bound and probed.
    ///
    /// # Errors
    /// No certificate can be made for these names.
    pub(crate) fn self_signed_until_there_is(coming: &Path, names: &[String]) -> Result<Arc<Self>, TlsError> {
        let general = |error: rcgen::Error| rustls::Error::General(format!("self-signed stand-in: {error}"));
        let made = rcgen::generate_simple_self_signed(names).map_err(general)?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let made = CertifiedKey::from_der(vec![made.cert.into()], key, &provider())?;
        Ok(Self::showing(coming, made))
    }

    fn showing(coming: &Path, current: CertifiedKey) -> Arc<Self> {
        let current = RwLock::new(Arc::new(current));
        Arc::new(Self { certificate: coming.to_owned(), key: coming.to_owned(), current })
    }

    /// The files of the chain and of its key.
    pub(crate) fn files(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }

    /// The server's own certificate, as it is shown now.
    #[must_use]
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.cert.first().cloned()
    }

    /// Reads the same files again. New connections get what is in them now.
    ///
    /// # Errors
    /// As [`ReloadableCertificate::load`]; the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(read_pair(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A server that shows `certificate` and offers `alpn` in this order.
///
/// # Errors
/// The library refused the configuration.
pub fn server_config(
    certificate: Arc<ReloadableCertificate>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // Stateless tickets: resumption costs the server no memory per viewer.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// A client that trusts the certificates in `ca` and nothing else.
///
/// # Errors
/// The file is missing, not PEM, or holds no usable CA certificate.
pub fn client_config(ca: &Path, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(ca)? {
        roots.add(certificate).map_err(|error| TlsError::File {
            path: ca.to_owned(),
            what: "CA certificate",
            reason: error.to_string(),
        })?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
