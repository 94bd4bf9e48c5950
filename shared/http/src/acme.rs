//! Certificates from an ACME directory (RFC 8555), proven over HTTP-01, renewed before they end.
//!
//! Invariants: the account's key and the certificate with its key are files of mode 0600 in a directory of their own per
//! ACME directory, replaced whole or not at all; a failed order changes nothing that is shown to viewers and is repeated
//! with growing rests, so that the directory's rate limits hold; at most one order runs.
//! Deliberately absent: DNS-01 and TLS-ALPN-01, wildcards, revocation, and sharing a certificate among servers: where
//! several servers answer for one name, the proof may arrive at another one; use `certificate` and `key` there.

mod config;
mod schedule;
mod state;

pub use config::AcmeConfig;
use state::State;

use crate::certificate::{CertificateMetrics, Validity};
use crate::drain::Drain;
use crate::tls::{ReloadableCertificate, TlsError};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Where HTTP-01 proofs are asked for (RFC 8555 8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";
/// An order that takes longer has failed.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the directory may take for one step of an order.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);
/// The longest sleep, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Why there is no new certificate. What is there goes on to be used; the next attempt comes by itself.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The directory refused, or cannot be reached.
    #[error("{step}: {source}")]
    Directory {
        /// What was asked for.
        step: &'static str,
        /// What it said.
        source: instant_acme::Error,
    },
    /// The directory could not see the proof, or did not believe it: the name, or the way to port 80 of this machine.
    #[error("the names are not proven: {0}")]
    NotProven(String),
    /// The directory offers no HTTP-01 for a name, such as a wildcard.
    #[error("{0}: the directory offers no HTTP-01 proof for it")]
    NoHttp01(String),
    /// A file of the state directory.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No key pair or request could be made.
    #[error("certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// What the directory sent cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It took too long.
    #[error("the order was not done within {} s", ORDER_TIMEOUT.as_secs())]
    TimedOut,
}

fn at(step: &'static str) -> impl FnOnce(instant_acme::Error) -> AcmeError {
    move |source| AcmeError::Directory { step, source }
}

/// The HTTP-01 proofs that may be asked for now. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<Vec<(String, String)>>>);

impl Challenges {
    /// The answer to a request of this path on a plain listener, if it is one for a proof.
    #[must_use]
    pub fn answer(&self, path: &str) -> Option<Response<Bytes>> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = open.iter().find(|(name, _)| name == token).map(|(_, proof)| proof.clone());
        let mut response = Response::new(Bytes::from(proof.clone().unwrap_or_default()));
        if proof.is_none() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }

    fn open(&self, token: &str, proof: &str) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.push((token.to_owned(), proof.to_owned()));
    }
}

/// Proofs are open as long as their order runs.
struct Opened<'a>(&'a Challenges);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Keeps one server's certificate valid.
pub(crate) struct Renewal {
    pub(crate) config: AcmeConfig,
    pub(crate) certificate: Arc<ReloadableCertificate>,
    pub(crate) challenges: Challenges,
    pub(crate) metrics: CertificateMetrics,
}

impl Renewal {
    /// Orders and renews until the drain signal.
    pub(crate) async fn run(self, drain: Drain) {
        let mut failures = 0;
        loop {
            let rest = match failures {
                0 => self.until_due(),
                n => schedule::retry_after(n, fastrand::f64()),
            };
            tokio::select! {
                () = drain.started() => return,
                () = tokio::time::sleep(rest.min(SLEEP_MAX)) => {}
            }
            if rest > SLEEP_MAX {
                continue;
            }
            let ordered = tokio::select! {
                () = drain.started() => return,
                ordered = tokio::time::timeout(ORDER_TIMEOUT, self.order()) => ordered,
            };
            match ordered.unwrap_or(Err(AcmeError::TimedOut)) {
                Ok(()) => {
                    failures = 0;
                    self.metrics.acme_certificates.inc();
                    tracing::info!(domains = ?self.config.domains, "new certificate from the ACME directory");
                }
                Err(error) => {
                    failures += 1;
                    self.metrics.acme_failures.inc();
                    tracing::error!(%error, failures, "no certificate from the ACME directory; trying again later");
                }
            }
        }
    }

    fn until_due(&self) -> Duration {
        let kept = State::new(&self.config).certificate_chain().and_then(|leaf| Validity::of(&leaf));
        let due = match kept {
            Some(validity) if validity.covers(&self.config.domains) => {
                schedule::renew_at(validity.not_before, validity.not_after, fastrand::f64())
            }
            _ => 0,
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(due).saturating_sub(now)
    }

    async fn order(&self) -> Result<(), AcmeError> {
        let state = State::new(&self.config);
        let account = self.account(&state).await?;
        let identifiers: Vec<_> = self.config.domains.iter().map(|name| identifier(name)).collect();
        let ordered = account.new_order(&NewOrder::new(&identifiers)).await;
        let mut order = ordered.map_err(at("new order"))?;
        let opened = Opened(&self.challenges);
        self.prove(&mut order).await?;
        let patience = RetryPolicy::new().timeout(STEP_TIMEOUT);
        let status = order.poll_ready(&patience).await;
        if !matches!(status, Ok(OrderStatus::Ready)) {
            return Err(not_proven(&mut order, status.err()).await);
        }
        drop(opened);
        let key = rcgen::KeyPair::generate()?;
        let mut request = rcgen::CertificateParams::new(self.config.domains.clone())?;
        request.distinguished_name = rcgen::DistinguishedName::new();
        let request = request.serialize_request(&key)?;
        order.finalize_csr(request.der()).await.map_err(at("certificate request"))?;
        let chain = order.poll_certificate(&patience).await.map_err(at("certificate"))?;
        state.keep_certificate(&chain, &key.serialize_pem())?;
        Ok(self.certificate.reload()?)
    }

    async fn account(&self, state: &State) -> Result<Account, AcmeError> {
        let builder = match &self.config.ca {
            Some(ca) => Account::builder_with_root(ca),
            None => Account::builder(),
        };
        let builder = builder.map_err(at("trust"))?;
        if let Some(credentials) = state.account() {
            return builder.from_credentials(credentials).await.map_err(at("account"));
        }
        let contact: Vec<&str> = self.config.contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: self.config.terms_agreed,
            only_return_existing: false,
        };
        let created = builder.create(&new, self.config.directory.clone(), None).await;
        let (account, credentials) = created.map_err(at("new account"))?;
        state.keep_account(&credentials)?;
        Ok(account)
    }

    /// Opens the proof of every name that is not proven yet, and says so.
    async fn prove(&self, order: &mut Order) -> Result<(), AcmeError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(at("authorization"))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) else {
                return Err(AcmeError::NoHttp01(name));
            };
            self.challenges.open(&challenge.token, challenge.key_authorization().as_str());
            challenge.set_ready().await.map_err(at("challenge"))?;
        }
        Ok(())
    }
}

/// What the directory says about the names it did not accept.
async fn not_proven(order: &mut Order, error: Option<instant_acme::Error>) -> AcmeError {
    let mut said = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let Ok(now) = authorization.refresh().await else { continue };
        let problems = now.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        said.extend(problems.map(|problem| format!("{name}: {problem}")));
    }
    match (said.is_empty(), error) {
        (true, Some(source)) => AcmeError::Directory { step: "proof", source },
        (true, None) => AcmeError::NotProven("the directory does not say why".to_owned()),
        (false, _) => AcmeError::NotProven(said.join("; ")),
    }
}

fn identifier(name: &str) -> Identifier {
    match name.parse::<IpAddr>() {
        Ok(addr) => Identifier::Ip(addr),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_answered_while_their_order_runs() {
        let challenges = Challenges::default();
        let status = |path: &str| challenges.answer(path).map(|response| response.status().as_u16());
        assert_eq!(status("/live/demo/index.m3u8"), None);
        assert_eq!(status("/.well-known/acme-challenge/abc"), Some(404));
        let opened = Opened(&challenges);
        challenges.open("abc", "abc.thumb");
        assert_eq!(status("/.well-known/acme-challenge/abc"), Some(200));
        assert_eq!(status("/.well-known/acme-challenge/ab"), Some(404));
        drop(opened);
        assert_eq!(status("/.well-known/acme-challenge/abc"), Some(404));
    }
}
