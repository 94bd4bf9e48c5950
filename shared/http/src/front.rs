//! The listeners that viewers (and edges) come to: plain HTTP, TLS and QUIC on the same numbers as TLS, with one certificate
//! and one handler.
//!
//! Invariant: everything is bound before anything is answered. A handler gets a request with its
//! body unread.

use crate::acme::{AcmeConfig, Challenges};
use crate::certificate::{CertificateMetrics, CertificateSource};
use crate::drain::Drain;
use crate::handover::Sockets;
use crate::listener::{BindError, Bound, PeerConnection, Server};
use crate::piece::Piece;
use crate::quic::{BoundUdp, QuicError};
use crate::request_body::RequestBody;
use crate::tls::{ALPN_ALL, ReloadableCertificate, TlsError, server_config};
use futures_util::future::{self, FutureExt};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is listened on, as a configuration says it.
#[derive(Debug, Clone, Copy)]
pub struct FrontConfig<'a> {
    /// `http.bind`
    pub http: &'a [SocketAddr],
    /// `[tls]`
    pub tls: Option<FrontTls<'a>>,
}

/// `[tls]` of a configuration file; `PORT` of this machine's loopback is listened on when it names no address.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig<const PORT: u16> {
    /// What to listen on, TCP and UDP.
    #[serde(default = "loopback_at::<PORT>")]
    pub bind: Vec<SocketAddr>,
    /// The certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// Certificates from a directory instead.
    pub acme: Option<AcmeConfig>,
    /// The CA of the certificates by which POPs are known.
    pub client_ca: Option<PathBuf>,
    /// Whether HTTP/3 is offered.
    #[serde(default = "offered")]
    pub http3: bool,
    /// The UDP port that Alt-Svc names instead of the one that is bound.
    pub alt_svc_port: Option<NonZeroU16>,
}

fn loopback_at<const PORT: u16>() -> Vec<SocketAddr> {
    vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))]
}

fn offered() -> bool {
    true
}

impl<const PORT: u16> TlsConfig<PORT> {
    /// Where the certificate comes from.
    #[must_use]
    pub fn source(&self) -> CertificateSource<'_> {
        CertificateSource {
            certificate: self.certificate.as_deref(),
            key: self.key.as_deref(),
            acme: self.acme.as_ref(),
            client_ca: self.client_ca.as_deref(),
        }
    }
}

/// What of `[tls]` the listeners need.
#[derive(Debug, Clone, Copy)]
pub struct FrontTls<'a> {
    /// `tls.bind`
    pub bind: &'a [SocketAddr],
    /// `tls.certificate`, `tls.key`, `tls.client_ca` and `[tls.acme]`
    pub source: CertificateSource<'a>,
    /// `tls.http3`
    pub http3: bool,
    /// `tls.alt_svc_port`
    pub alt_svc_port: Option<NonZeroU16>,
}

/// Why there is nothing to listen on: the configuration, its files, or another process.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// A certificate, key or CA file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// HTTP/3 cannot be offered.
    #[error(transparent)]
    Quic(#[from] QuicError),
}

/// Bound ports that nobody is answering yet.
#[derive(Debug)]
pub struct Front {
    plain: Vec<Bound>,
    encrypted: Vec<Bound>,
    quic: Vec<BoundUdp>,
    alt_svc_port: Option<NonZeroU16>,
    certificate: Option<Arc<ReloadableCertificate>>,
}

impl<'a> FrontConfig<'a> {
    /// What `http.bind` and `[tls]` say.
    #[must_use]
    pub fn new<const PORT: u16>(http: &'a [SocketAddr], tls: Option<&'a TlsConfig<PORT>>) -> Self {
        let tls = tls.map(|tls| FrontTls {
            bind: &tls.bind,
            source: tls.source(),
            http3: tls.http3,
            alt_svc_port: tls.alt_svc_port,
        });
        Self { http, tls }
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// One cannot.
    pub fn check_files(&self) -> Result<(), TlsError> {
        let Some(tls) = &self.tls else { return Ok(()) };
        server_config(tls.source.load()?, ALPN_ALL).map(drop)
    }
}

/// Ports that the system chose and that are tried; each is taken for UDP with a small probability.
const CHOSEN_PORTS_MAX: usize = 32;

/// Binds both to one port number; `any` when the system chooses it.
fn same_port<T, U, E>(
    any: bool,
    mut tcp: impl FnMut() -> Result<T, E>,
    mut udp: impl FnMut(&T) -> Result<U, E>,
) -> Result<(T, U), E> {
    let mut left = if any { CHOSEN_PORTS_MAX } else { 1 };
    // Kept, so that another one is chosen.
    let mut refused = Vec::new();
    loop {
        let first = tcp()?;
        left -= 1;
        match udp(&first) {
            Ok(second) => return Ok((first, second)),
            Err(_) if left > 0 => refused.push(first),
            Err(error) => return Err(error),
        }
    }
}

impl Front {
    /// Loads the certificate and binds every address; ports that a predecessor left are taken over. Needs a tokio runtime.
    ///
    /// # Errors
    /// A file cannot be used, or an address cannot be bound.
    pub fn bind(config: &FrontConfig<'_>, sockets: &Sockets) -> Result<Self, FrontError> {
        let bind_all = |addresses: &[SocketAddr]| -> Result<Vec<Bound>, BindError> {
            addresses.iter().map(|address| sockets.tcp(*address)).collect()
        };
        let certificate = config.tls.map(|tls| tls.source.load()).transpose()?;
        let plain = bind_all(config.http)?;
        let http3 = config.tls.is_some_and(|tls| tls.http3);
        let (mut encrypted, mut quic) = (Vec::new(), Vec::new());
        for address in config.tls.map_or(&[][..], |tls| tls.bind) {
            let tcp = || sockets.tcp(*address);
            let udp = |tcp: &Bound| http3.then(|| BoundUdp::bind(sockets, tcp.local_addr())).transpose();
            let (tcp, udp) = same_port(address.port() == 0, tcp, udp)?;
            encrypted.push(tcp);
            quic.extend(udp);
        }
        let alt_svc_port = config.tls.and_then(|tls| tls.alt_svc_port);
        Ok(Self { plain, encrypted, quic, alt_svc_port, certificate })
    }

    /// The plain addresses really bound.
    #[must_use]
    pub fn http(&self) -> Vec<SocketAddr> {
        self.plain.iter().map(Bound::local_addr).collect()
    }

    /// The addresses of TLS really bound.
    #[must_use]
    pub fn tls(&self) -> Vec<SocketAddr> {
        self.encrypted.iter().map(Bound::local_addr).collect()
    }

    /// The certificate that is shown.
    #[must_use]
    pub fn certificate(&self) -> Option<Arc<ReloadableCertificate>> {
        self.certificate.clone()
    }

    /// Looks after the certificate until the drain signal, and counts that under `registry`. Returns what has to be answered
    /// for it.
    pub fn keep_certificate(
        &self,
        config: &FrontConfig<'_>,
        registry: &mut Registry,
        drain: &Drain,
    ) -> Option<Challenges> {
        let (tls, certificate) = config.tls.zip(self.certificate.as_ref())?;
        let metrics = CertificateMetrics::default();
        metrics.register(registry);
        tls.source.keep(Arc::clone(certificate), &metrics, drain)
    }

    /// Answers everything with `handler` until the drain signal, and the proofs for ACME on the plain addresses.
    ///
    /// # Errors
    /// The certificate cannot be used after all.
    pub fn serve<H, F, B>(
        self,
        server: &Server,
        challenges: Option<&Challenges>,
        handler: H,
    ) -> Result<(), FrontError>
    where
        H: Fn(Request<RequestBody>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Piece> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        for bound in self.plain {
            let (handler, challenges) = (handler.clone(), challenges.cloned());
            server.serve(bound, None, move |request, from| {
                let proof = challenges.as_ref().and_then(|open| open.answer(request.uri().path()));
                // Not in an `async` block: that would hold the handler's future twice.
                match proof {
                    Some(proof) => {
                        let proof = proof.map(|bytes| Either::Right(Full::new(bytes.into())));
                        future::Either::Left(future::ready(proof))
                    }
                    None => {
                        let answer = handler(request.map(Into::into), from);
                        future::Either::Right(answer.map(|response| response.map(Either::Left)))
                    }
                }
            });
        }
        let Some(certificate) = self.certificate else { return Ok(()) };
        let tls = server_config(Arc::clone(&certificate), ALPN_ALL)?;
        for bound in self.encrypted {
            let handler = handler.clone();
            let respond = move |request: Request<Incoming>, from| handler(request.map(Into::into), from);
            let port = bound.local_addr().port();
            let server = match self.quic.iter().any(|udp| udp.local_addr().port() == port) {
                true => server.clone().with_http3_at(self.alt_svc_port.map_or(port, NonZeroU16::get)),
                false => server.clone(),
            };
            server.serve(bound, Some(Arc::clone(&tls)), respond);
        }
        for bound in self.quic {
            server.serve_quic(bound, Arc::clone(&certificate), handler.clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_port_that_is_taken_for_udp_is_given_up_for_another() {
        let chosen = |any, free_from: u16| {
            let mut port = 100;
            let tcp = || {
                port += 1;
                Ok(port)
            };
            same_port(any, tcp, |tcp| if *tcp >= free_from { Ok(*tcp) } else { Err("taken") })
        };
        assert_eq!(chosen(true, 103), Ok((103, 103)));
        assert_eq!(chosen(true, 1000), Err("taken"), "not for ever");
        assert_eq!(chosen(false, 103), Err("taken"), "who names a port wants that one");
    }
}
