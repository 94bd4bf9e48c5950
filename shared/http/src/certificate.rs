//! A certificate over time, a server's or that of a client: loaded, noticed when its files change, watched for its end,
//! and the server's ordered by ACME.
//!
//! Invariants: TLS listeners have a certificate from the first moment, if need be a self-signed stand-in; files that
//! changed are in use within [`LOOK_EVERY`] plus the time to read them, without a signal; files that cannot be used change
//! nothing. Deliberately absent: OCSP.

mod expiry;

use crate::acme::{AcmeConfig, Challenges, Renewal};
use crate::config::Problem;
use crate::drain::Drain;
use crate::tls::{ReloadableCertificate, TlsError};
use expiry::Notice;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::pki_types::CertificateDer;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is counted about a certificate.
#[derive(Debug, Clone, Default)]
pub struct CertificateMetrics {
    /// Seconds until the certificate that is shown ends; negative when it has.
    pub expires: Gauge,
    /// Certificates read anew from changed files.
    pub reloads: Counter,
    /// Changed files that could not be used.
    pub reload_failures: Counter,
    /// Certificates got from the ACME directory.
    pub acme_certificates: Counter,
    /// Orders that failed.
    pub acme_failures: Counter,
}

impl CertificateMetrics {
    /// Registers what there is of a client's certificate, prefixed as `registry` says.
    pub fn register_client(&self, registry: &mut Registry) {
        registry.register(
            "upstream_certificate_expires_seconds",
            "Seconds until the client certificate for the upstream ends; negative when it has",
            self.expires.clone(),
        );
        for (name, help, counter) in [
            ("upstream_certificate_reloads", "Client certificates read anew", &self.reloads),
            (
                "upstream_certificate_reload_failures",
                "Changed files that cannot be used",
                &self.reload_failures,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    /// Registers everything of a server's, prefixed as `registry` says.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_certificate_expires_seconds",
            "Seconds until the certificate ends; negative when it has",
            self.expires.clone(),
        );
        for (name, help, counter) in [
            ("tls_certificate_reloads", "Certificates read anew from changed files", &self.reloads),
            ("tls_certificate_reload_failures", "Changed files that cannot be used", &self.reload_failures),
            ("acme_certificates", "Certificates got from the ACME directory", &self.acme_certificates),
            ("acme_failures", "ACME orders that failed", &self.acme_failures),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}

/// Where a server's certificate comes from: files, ACME, or files until ACME has one.
#[derive(Debug, Clone, Copy)]
pub struct CertificateSource<'a> {
    /// `tls.certificate`
    pub certificate: Option<&'a Path>,
    /// `tls.key`
    pub key: Option<&'a Path>,
    /// `[tls.acme]`
    pub acme: Option<&'a AcmeConfig>,
    /// `tls.client_ca`: of clients that say by certificate who they are. Read once.
    pub client_ca: Option<&'a Path>,
}

impl CertificateSource<'_> {
    /// What is not allowed; `plain_listeners` is how many addresses `http.bind` has.
    #[must_use]
    pub fn problems(&self, plain_listeners: usize) -> Vec<Problem> {
        let mut found = Vec::new();
        let alone = self.acme.is_none();
        for (key, path, other) in
            [("tls.certificate", self.certificate, self.key), ("tls.key", self.key, self.certificate)]
        {
            if path.is_none() && (alone || other.is_some()) {
                let allowed =
                    "a PEM file; certificate and key go together, and can be left out with [tls.acme]";
                found.push(Problem::new(key, "missing", allowed));
            }
        }
        found.extend(self.acme.into_iter().flat_map(|acme| acme.problems(plain_listeners)));
        found
    }

    /// A certificate to begin with.
    ///
    /// # Errors
    /// A file cannot be used, or no stand-in can be made.
    pub fn load(&self) -> Result<Arc<ReloadableCertificate>, TlsError> {
        let certificate = self.first()?;
        self.client_ca.map_or(Ok(()), |ca| certificate.ask_clients(ca))?;
        Ok(certificate)
    }

    fn first(&self) -> Result<Arc<ReloadableCertificate>, TlsError> {
        let given = self.certificate.zip(self.key);
        let Some(acme) = self.acme else {
            let (certificate, key) = given.ok_or_else(|| missing("certificate and key"))?;
            return ReloadableCertificate::load(certificate, key);
        };
        if let Some(ca) = &acme.ca {
            crate::tls::client_config(ca, &[])?;
        }
        let kept = acme.kept_certificate();
        if kept.exists() {
            match ReloadableCertificate::load(&kept, &kept) {
                Ok(certificate) => return Ok(certificate),
                Err(error) => {
                    tracing::error!(%error, "the kept certificate cannot be used; a new one is ordered");
                }
            }
        }
        match given {
            Some((certificate, key)) => ReloadableCertificate::until_there_is(&kept, certificate, key),
            None => ReloadableCertificate::self_signed_until_there_is(&kept, &acme.domains),
        }
    }

    /// Looks after a loaded certificate until the drain signal. The plain listeners have to answer the challenges.
    #[must_use]
    pub fn keep(
        &self,
        certificate: Arc<ReloadableCertificate>,
        metrics: &CertificateMetrics,
        drain: &Drain,
    ) -> Option<Challenges> {
        watch(Arc::clone(&certificate), SERVER, metrics, drain);
        let acme = self.acme?;
        // The directory's client asks for a process-wide provider; who came first wins, and there is only one here.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let challenges = Challenges::default();
        let renewal = Renewal {
            config: acme.clone(),
            certificate,
            challenges: challenges.clone(),
            metrics: metrics.clone(),
        };
        tokio::spawn(renewal.run(drain.clone()));
        Some(challenges)
    }
}

/// What a certificate is for, as the log names it.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Which one it is.
    pub name: &'static str,
    /// What follows from its end.
    pub at_the_end: &'static str,
}

/// What servers show.
const SERVER: Subject = Subject { name: "certificate", at_the_end: "viewers cannot connect" };

/// Reads a certificate again when its files change, and says when it is about to end, until the drain signal.
pub fn watch(
    certificate: Arc<ReloadableCertificate>,
    subject: Subject,
    metrics: &CertificateMetrics,
    drain: &Drain,
) {
    let watch = Watch::new(certificate, subject, metrics.clone());
    tokio::spawn(watch.run(drain.clone()));
}

/// What an operator should know of a certificate's end, in one line. `None`: it is good for a while.
#[must_use]
pub fn expiry_warning(
    certificate: &ReloadableCertificate,
    subject: Subject,
    now: SystemTime,
) -> Option<String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (notice, left_s) = Validity::of(&certificate.leaf()?)?.notice(now);
    let Subject { name, at_the_end } = subject;
    Some(match notice? {
        Notice::Expired => format!("the {name} has expired: {at_the_end}"),
        Notice::Days(_) => {
            format!("the {name} expires in {} hours; from then on {at_the_end}", left_s / 3_600)
        }
    })
}

fn missing(what: &'static str) -> TlsError {
    TlsError::File { path: PathBuf::from("[tls]"), what, reason: "neither files nor [tls.acme]".to_owned() }
}

/// When a certificate is valid (Unix seconds), and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    names: Vec<String>,
}

impl Validity {
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(addr) => match <[u8; 4]>::try_from(*addr) {
                Ok(v4) => Some(IpAddr::from(v4).to_string()),
                Err(_) => <[u8; 16]>::try_from(*addr).ok().map(|v6| IpAddr::from(v6).to_string()),
            },
            _ => None,
        });
        let validity = parsed.validity();
        Some(Self {
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
            names: names.collect(),
        })
    }

    /// What there is to tell at `now` (Unix seconds), and the seconds that are left.
    fn notice(&self, now: u64) -> (Option<Notice>, i64) {
        let left = i64::try_from(self.not_after).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(0);
        (expiry::notice(left, self.not_after.saturating_sub(self.not_before)), left)
    }

    pub(crate) fn covers(&self, domains: &[String]) -> bool {
        domains.iter().all(|domain| self.names.contains(&domain.to_ascii_lowercase()))
    }
}

/// What tells one state of the files from another. `None`: a file is not there.
type Prints = Option<[(u64, i64, i64, u64); 2]>;

struct Watch {
    certificate: Arc<ReloadableCertificate>,
    subject: Subject,
    metrics: CertificateMetrics,
    seen: Prints,
    said: Option<Notice>,
}

impl Watch {
    fn new(certificate: Arc<ReloadableCertificate>, subject: Subject, metrics: CertificateMetrics) -> Self {
        let seen = prints(&certificate);
        Self { certificate, subject, metrics, seen, said: None }
    }

    async fn run(mut self, drain: Drain) {
        loop {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.look();
            self.watch_expiry(now.as_secs());
            tokio::select! {
                () = drain.started() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Files that changed are read. Those that cannot be used, perhaps because they are being written, are read again when
    /// they change again.
    fn look(&mut self) {
        let prints = prints(&self.certificate);
        if prints == self.seen || prints.is_none() {
            return;
        }
        self.seen = prints;
        let name = self.subject.name;
        match self.certificate.reload() {
            Ok(()) => {
                self.metrics.reloads.inc();
                tracing::info!("the files of the {name} have changed: reloaded");
            }
            Err(error) => {
                self.metrics.reload_failures.inc();
                tracing::error!(%error, "the files of the {name} have changed; the old one stays");
            }
        }
    }

    fn watch_expiry(&mut self, now: u64) {
        let Some(validity) = self.certificate.leaf().and_then(|leaf| Validity::of(&leaf)) else { return };
        let (notice, left) = validity.notice(now);
        self.metrics.expires.set(left);
        if notice != self.said {
            self.said = notice;
            let Subject { name, at_the_end } = self.subject;
            match notice {
                Some(Notice::Expired) => tracing::error!("the {name} has expired: {at_the_end}"),
                Some(Notice::Days(days)) => {
                    tracing::warn!(days, left_s = left, "the {name} expires soon");
                }
                None => {}
            }
        }
    }
}

fn prints(certificate: &ReloadableCertificate) -> Prints {
    let print = |path: &Path| {
        let found = path.metadata().ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    let [first, second] = certificate.files();
    Some([print(first)?, print(second)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn changed_files_are_read_and_bad_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let write = |name: &str| {
            let (c, k) = pair(name);
            std::fs::write(&certificate, c).unwrap();
            std::fs::write(&key, k).unwrap();
        };
        write("one.example");
        let loaded = ReloadableCertificate::load(&certificate, &key).unwrap();
        let mut watch = Watch::new(Arc::clone(&loaded), SERVER, CertificateMetrics::default());
        let covers = |name: &str| Validity::of(&loaded.leaf().unwrap()).unwrap().covers(&[name.to_owned()]);
        watch.look();
        assert_eq!((watch.metrics.reloads.get(), covers("One.example")), (0, true));
        write("two.example.org");
        watch.look();
        assert_eq!((watch.metrics.reloads.get(), covers("two.example.org")), (1, true));
        std::fs::write(&certificate, pair("three.example").0).unwrap();
        watch.look();
        watch.look();
        assert_eq!(
            (watch.metrics.reload_failures.get(), covers("two.example.org")),
            (1, true),
            "half written"
        );
        std::fs::remove_file(&key).unwrap();
        watch.look();
        assert_eq!(watch.metrics.reload_failures.get(), 1, "a file that is gone is no news");
        write("four.example");
        watch.look();
        assert!(covers("four.example"));
        watch.watch_expiry(0);
        assert!(watch.metrics.expires.get() > 0);
        watch.watch_expiry(u64::MAX / 4);
        assert_eq!(watch.said, Some(Notice::Expired));
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let end = Validity::of(&loaded.leaf().unwrap()).unwrap().not_after;
        let warning = |now| expiry_warning(&loaded, SERVER, at(now));
        assert_eq!(warning(end - 22 * 86_400), None);
        assert!(warning(end - 7_200).unwrap().contains("expires in 2 hours"));
        assert_eq!(warning(end).as_deref(), Some("the certificate has expired: viewers cannot connect"));
    }

    #[test]
    fn files_acme_or_both() {
        let acme = AcmeConfig {
            directory: "https://acme.example/dir".to_owned(),
            contact: Vec::new(),
            domains: vec!["edge.example".to_owned()],
            state_dir: "/nowhere".into(),
            terms_agreed: true,
            ca: None,
        };
        let (c, k) = (Path::new("c"), Path::new("k"));
        for (certificate, key, acme, wrong) in [
            (Some(c), Some(k), None, &[][..]),
            (Some(c), Some(k), Some(&acme), &[]),
            (None, None, Some(&acme), &[]),
            (None, None, None, &["tls.certificate", "tls.key"]),
            (Some(c), None, None, &["tls.key"]),
            (None, Some(k), Some(&acme), &["tls.certificate"]),
        ] {
            let found = CertificateSource { certificate, key, acme, client_ca: None }.problems(1);
            let keys: Vec<_> = found.iter().map(|problem| problem.key.as_str()).collect();
            assert_eq!(keys, wrong);
        }
        let source = CertificateSource { certificate: None, key: None, acme: Some(&acme), client_ca: None };
        let stand_in = source.load().unwrap();
        let validity = Validity::of(&stand_in.leaf().unwrap()).unwrap();
        assert!(validity.covers(&acme.domains), "a self-signed stand-in of the same names");
    }
}
