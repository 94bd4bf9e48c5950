//! TLS from PEM files: certificates that can be replaced while serving, and clients that trust one CA file.
//!
//! A server may also name a CA whose clients it knows: POPs, by the name in their certificate. Everybody else is served
//! without one.
//!
//! Invariants: TLS 1.3 and 1.2 only, with aws-lc-rs named explicitly (no process-wide default provider is needed); a
//! failed reload leaves the certificate that works in place. Deliberately absent: the system's trust store, and
//! where certificates come from (`certificate`).

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, SignatureScheme, version};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// `h2` before `http/1.1`: what viewers are offered.
pub const ALPN_ALL: &[&[u8]] = &[b"h2", b"http/1.1"];
/// `h2` alone: what an edge asks of its upstream.
pub const ALPN_H2: &[&[u8]] = &[b"h2"];
/// `h3` alone: what an edge asks of its upstream over QUIC.
pub const ALPN_H3: &[&[u8]] = &[b"h3"];

/// Viewers whose return over QUIC is remembered, each with about 1 KB.
const QUIC_RETURNS_MAX: usize = 16 * 1024;

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

/// What servers offer. TLS 1.3 without AES-256: nobody lacks AES-128 (RFC 8446 9.1), it costs a quarter less for every byte
/// of video, and between it and ChaCha20 the client chooses by its hardware.
fn server_provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() != CipherSuite::TLS13_AES_256_GCM_SHA384);
    Arc::new(provider)
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

/// A certificate of a server, or of a client that shows one, that is read again on demand; open connections keep the one
/// they began with.
#[derive(Debug)]
pub struct ReloadableCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
    /// Nobody is asked for a certificate before this is set.
    clients: OnceLock<Arc<dyn ClientCertVerifier>>,
}

impl ReloadableCertificate {
    /// Reads a chain and its key.
    ///
    /// # Errors
    /// A file is missing, not PEM, or the key does not belong to the certificate.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        Self::load_with_client_ca(certificate, key, None)
    }

    /// Reads a chain, its key and the CA of clients that say by certificate who they are; others are served all the same.
    /// The CA is read once: what it signed is good until the server starts again.
    ///
    /// # Errors
    /// As [`ReloadableCertificate::load`]; or the CA's file holds none.
    pub fn load_with_client_ca(
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Arc<Self>, TlsError> {
        let loaded = Self::showing([certificate, key], read_pair(certificate, key)?);
        client_ca.map_or(Ok(()), |ca| loaded.ask_clients(ca))?;
        Ok(loaded)
    }

    /// From now on asks clients for a certificate of this CA. Those without one are served all the same.
    ///
    /// # Errors
    /// The CA's file holds none.
    pub(crate) fn ask_clients(&self, ca: &Path) -> Result<(), TlsError> {
        // Who asks already goes on as it does.
        let _ = self.clients.set(client_verifier(ca)?);
        Ok(())
    }

    /// Whether clients are asked for a certificate.
    pub(crate) fn asks_clients(&self) -> bool {
        self.clients.get().is_some_and(|clients| clients.offer_client_auth())
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
        Ok(Self::showing([coming, coming], read_pair(certificate, key)?))
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
        Ok(Self::showing([coming, coming], made))
    }

    fn showing([certificate, key]: [&Path; 2], current: CertifiedKey) -> Arc<Self> {
        let current = RwLock::new(Arc::new(current));
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Arc::new(Self { certificate, key, current, clients: OnceLock::new() })
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.clients.get().cloned().unwrap_or_else(WebPkiClientVerifier::no_client_auth)
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

impl ResolvesClientCert for ReloadableCertificate {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn has_certs(&self) -> bool {
        true
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
    let mut config = ServerConfig::builder_with_provider(server_provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_client_cert_verifier(certificate.verifier())
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // Stateless tickets: resumption costs the server no memory per viewer.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// The same for QUIC: `h3` over TLS 1.3, with 0-RTT for those who come back.
///
/// A ticket is good for one return: what was kept for it is taken out when it is used, so that an early request cannot be
/// replayed with it (RFC 8446 8.1). That takes memory, bounded, which tickets of TCP do not.
///
/// # Errors
/// The library refused the configuration.
pub(crate) fn quic_tls_config(
    certificate: Arc<ReloadableCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(server_provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(certificate.verifier())
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h3".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(QUIC_RETURNS_MAX);
    config.send_tls13_tickets = 1;
    // QUIC knows this value only: yes (RFC 9001 4.6.1).
    config.max_early_data_size = u32::MAX;
    Ok(Arc::new(config))
}

fn read_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::File {
            path: path.to_owned(),
            what: "CA certificate",
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn client_verifier(ca: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(read_roots(ca)?);
    // The names of its CAs are the hint that clients get: a browser has no certificate of them and asks nobody.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated();
    verifier.build().map_err(|error| TlsError::File {
        path: ca.to_owned(),
        what: "CA certificate",
        reason: error.to_string(),
    })
}

/// The POP that a verified chain belongs to, leaf first: the first DNS name among the leaf's alternative names. Names in the
/// subject are not read (RFC 9525 6.3).
#[must_use]
pub fn pop_id(chain: &[CertificateDer<'_>]) -> Option<Arc<str>> {
    let leaf = webpki::EndEntityCert::try_from(chain.first()?).ok()?;
    leaf.valid_dns_names().next().map(Arc::from)
}

/// A client that trusts the certificates in `ca` and nothing else.
///
/// # Errors
/// The file is missing, not PEM, or holds no usable CA certificate.
pub fn client_config(ca: &Path, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_as(ca, None, alpn)
}

/// As [`client_config`], and shows servers that ask for it the certificate that `identity` has then. Sessions are not resumed
/// with it: they would go on under the certificate they began with.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_as(
    ca: &Path,
    identity: Option<Arc<ReloadableCertificate>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = read_roots(ca)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let mut config = config.with_client_cert_resolver(identity);
            config.resumption = Resumption::disabled();
            config
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
