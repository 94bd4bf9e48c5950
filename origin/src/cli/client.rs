//! Requests to the REST API.

use clap::Args;
use rustls::crypto::aws_lc_rs::default_provider;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::typestate::WithoutBody;
use ureq::{Agent, RequestBuilder};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// More is no answer of ours, bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// Which origin, and who asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// The origin
    #[arg(long, value_name = "URL", env = "SIGMA_URL", default_value = "http://127.0.0.1:7070")]
    url: String,
    /// The admin's token
    #[arg(long, value_name = "TOKEN", env = "SIGMA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the token, used without --token: data_dir/admin.token of the origin
    #[arg(long, value_name = "FILE", env = "SIGMA_TOKEN_FILE", default_value = "data/admin.token")]
    token_file: PathBuf,
    /// The CA of an https URL whose certificate no public CA signed (PEM)
    #[arg(long, value_name = "FILE", env = "SIGMA_CA")]
    ca: Option<PathBuf>,
}

/// A client of one origin.
pub(crate) struct Client {
    agent: Agent,
    url: String,
    authorization: String,
}

impl Server {
    /// A client of it. Nothing is sent yet.
    pub(crate) fn client(&self) -> Result<Client, String> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => std::fs::read_to_string(&self.token_file).map_err(|error| {
                format!(
                    "{}: {error}; --token, SIGMA_TOKEN or --token-file say who asks",
                    self.token_file.display()
                )
            })?,
        };
        let mut config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("sigma-origin/", env!("CARGO_PKG_VERSION")));
        if self.url.starts_with("https://") {
            let roots = match &self.ca {
                Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
                None => RootCerts::PlatformVerifier,
            };
            let tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
                .root_certs(roots);
            config = config.tls_config(tls.build());
        }
        let authorization = format!("Bearer {}", token.trim());
        let url = self.url.trim_end_matches('/').to_owned();
        Ok(Client { agent: config.build().into(), url, authorization })
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<Certificate<'static>>, String> {
    let failed = |error: String| format!("--ca {}: {error}", path.display());
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| failed(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(failed("there is no certificate in it".to_owned())) } else { Ok(found) }
}

impl Client {
    /// What the API answers.
    ///
    /// # Errors
    /// The origin cannot be reached, or refuses; in words for a person.
    pub(crate) fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(path, |agent, url| agent.get(url))
    }

    /// The same of deleting something.
    ///
    /// # Errors
    /// As of [`Client::get`].
    pub(crate) fn delete(&self, path: &str) -> Result<Value, String> {
        self.ask(path, |agent, url| agent.delete(url))
    }

    fn ask(
        &self,
        path: &str,
        request: impl FnOnce(&Agent, &str) -> RequestBuilder<WithoutBody>,
    ) -> Result<Value, String> {
        let url = format!("{}{path}", self.url);
        let request = request(&self.agent, &url).header("Authorization", &self.authorization);
        let mut response = request.call().map_err(|error| format!("{url}: {error}"))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        let body = body.map_err(|error| format!("{url}: {error}"))?;
        let value: Result<Value, _> = serde_json::from_slice(&body);
        match value {
            Ok(value) if status == 200 => Ok(value),
            Ok(problem) => Err(format!("{url}: {status}: {}", problem["detail"].as_str().unwrap_or(""))),
            Err(_) => Err(format!("{url}: {status}: the answer is not the API's")),
        }
    }

    /// All items of a list, page by page.
    ///
    /// # Errors
    /// As of [`Client::get`].
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self.get(&format!("{path}?limit=1000{cursor}"))?;
            if let Some(more) = page["items"].as_array_mut() {
                items.append(more);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }
}
