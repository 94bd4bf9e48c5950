//! `[tls.acme]` of a configuration file.

use crate::config::Problem;
use serde::Deserialize;
use std::path::PathBuf;

/// Names in one certificate: what public directories allow.
const DOMAINS_MAX: usize = 100;

/// `[tls.acme]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeConfig {
    /// The directory's URL, https.
    pub directory: String,
    /// Whom the directory may write to, as `mailto:` URLs.
    #[serde(default)]
    pub contact: Vec<String>,
    /// The names of this server, or its addresses.
    pub domains: Vec<String>,
    /// Where account, certificate and keys are kept.
    pub state_dir: PathBuf,
    /// Whether the operator has agreed to the directory's terms of service.
    #[serde(default)]
    pub terms_agreed: bool,
    /// PEM file of the CA of a private directory; without it the system's trust store.
    pub ca: Option<PathBuf>,
}

impl AcmeConfig {
    /// Where the certificate and its key are once there is one, in one file.
    #[must_use]
    pub fn kept_certificate(&self) -> PathBuf {
        super::State::new(self).certificate_path()
    }

    /// Everything that is not allowed; `plain_listeners` is how many addresses `http.bind` has.
    #[must_use]
    pub fn problems(&self, plain_listeners: usize) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut bad = |key: &str, value: &str, allowed: &str| {
            found.push(Problem::new(format!("tls.acme.{key}"), value, allowed));
        };
        let https = self.directory.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"));
        if !https {
            bad("directory", &self.directory, "the https URL of an ACME directory");
        }
        for contact in self.contact.iter().filter(|contact| !contact.starts_with("mailto:")) {
            bad("contact", contact, "mailto:NAME@HOST");
        }
        if self.domains.is_empty() || self.domains.len() > DOMAINS_MAX {
            bad("domains", &self.domains.len().to_string(), "1 to 100 names");
        }
        for name in &self.domains {
            let valid = rustls::pki_types::ServerName::try_from(name.as_str()).is_ok();
            if !valid || name.contains('*') {
                bad("domains", name, "a host name or address, without wildcards: HTTP-01 cannot prove them");
            }
        }
        if !self.terms_agreed {
            bad(
                "terms_agreed",
                "false",
                "true, once you have read and agreed to the directory's terms of service",
            );
        }
        if plain_listeners == 0 {
            bad(
                "domains",
                "no http.bind",
                "a plain listener in http.bind that port 80 of these names leads to",
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed() {
        let good = AcmeConfig {
            directory: "https://acme.example/dir".to_owned(),
            contact: vec!["mailto:ops@example.com".to_owned()],
            domains: vec!["edge.example.com".to_owned(), "192.0.2.1".to_owned()],
            state_dir: "acme".into(),
            terms_agreed: true,
            ca: None,
        };
        assert_eq!(good.problems(1), []);
        let bad = AcmeConfig {
            directory: "http://acme.example/dir".to_owned(),
            contact: vec!["ops@example.com".to_owned()],
            domains: vec!["*.example.com".to_owned(), "a b".to_owned()],
            terms_agreed: false,
            ..good
        };
        let keys: Vec<_> = bad.problems(0).into_iter().map(|problem| problem.key).collect();
        let expected = ["directory", "contact", "domains", "domains", "terms_agreed", "domains"];
        assert_eq!(keys, expected.map(|key| format!("tls.acme.{key}")));
    }
}
