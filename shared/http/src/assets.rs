//! The watch page: an embedded folder served under `/watch/`.
//!
//! `/watch/{channel}` is `watch.html` for every channel; `/watch/assets/{file}` is the rest, whose names carry a content
//! hash and may therefore be cached for ever.
//!
//! Invariants: only names of embedded files are looked up (no path leaves the folder); every response carries `nosniff`
//! and a policy without inline script. Each file is compressed once, at its first use.

use crate::headers::{accepts_gzip, apply_cors};
use crate::problem::Problem;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use rust_embed::RustEmbed;
use sigma_shared::id::ChannelId;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

const PAGE: &str = "watch.html";
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");
/// hls.js plays through a blob: URL and demuxes in a blob: worker; nothing else leaves `'self'`.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; style-src 'self'; \
     img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'",
);
const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");

/// The page and its assets, embedded in `E`.
pub struct Assets<E> {
    /// At most one entry per embedded file.
    prepared: Mutex<HashMap<String, Arc<Prepared>>>,
    embedded: PhantomData<fn() -> E>,
}

/// A file as it goes out.
struct Prepared {
    identity: Bytes,
    /// `None` when compression does not pay.
    gzip: Option<Bytes>,
    etag: HeaderValue,
    content_type: HeaderValue,
}

impl<E: RustEmbed> Assets<E> {
    /// Nothing is read before the first request.
    #[must_use]
    pub fn new() -> Self {
        Self { prepared: Mutex::new(HashMap::new()), embedded: PhantomData }
    }

    /// The answer to a GET or HEAD of `path`, or `None` when the path is not under `/watch/`.
    #[must_use]
    pub fn respond(&self, path: &str, request_headers: &HeaderMap) -> Option<Response<Full<Bytes>>> {
        let rest = path.strip_prefix("/watch/")?;
        Some(match rest.strip_prefix("assets/") {
            Some(file) if is_file_name(file) => self.asset(file, request_headers),
            Some(_) => not_found("no such asset"),
            None => self.page(rest, request_headers),
        })
    }

    fn page(&self, channel: &str, request_headers: &HeaderMap) -> Response<Full<Bytes>> {
        if let Err(error) = channel.parse::<ChannelId>() {
            return not_found(error.to_string());
        }
        let Some(page) = self.prepare(PAGE) else {
            let mut response = Response::new(Full::from("the watch page was not built: run ./scripts/run\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return response;
        };
        page.response(request_headers, REVALIDATE)
    }

    fn asset(&self, file: &str, request_headers: &HeaderMap) -> Response<Full<Bytes>> {
        let found =
            self.prepare(&format!("assets/{file}")).or_else(|| self.prepare(file).filter(|_| file != PAGE));
        match found {
            Some(file) => file.response(request_headers, IMMUTABLE),
            None => not_found("no such asset"),
        }
    }

    fn prepare(&self, name: &str) -> Option<Arc<Prepared>> {
        let prepared = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = prepared().get(name) {
            return Some(Arc::clone(found));
        }
        let file = E::get(name)?;
        let identity = match file.data {
            Cow::Borrowed(embedded) => Bytes::from_static(embedded),
            Cow::Owned(read) => Bytes::from(read),
        };
        let hash = file.metadata.sha256_hash();
        let ready = Arc::new(Prepared {
            gzip: compress(&identity).filter(|gzip| gzip.len() < identity.len()),
            identity,
            etag: etag(&hash),
            content_type: HeaderValue::from_static(content_type(name)),
        });
        // Compiled-in files never change. Unoptimised builds read the folder at run time: not kept, so that a rebuilt
        // page shows up on reload.
        if !cfg!(debug_assertions) {
            prepared().insert(name.to_owned(), Arc::clone(&ready));
        }
        Some(ready)
    }
}

impl<E: RustEmbed> Default for Assets<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl Prepared {
    fn response(&self, request_headers: &HeaderMap, cache_control: HeaderValue) -> Response<Full<Bytes>> {
        let known = request_headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == self.etag.as_bytes());
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request_headers));
        let mut response = if known {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(Full::new(gzip.unwrap_or(&self.identity).clone()))
        };
        let headers = response.headers_mut();
        if !known {
            headers.insert(header::CONTENT_TYPE, self.content_type.clone());
            if gzip.is_some() {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::CACHE_CONTROL, cache_control);
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}

fn not_found(detail: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Problem::new(StatusCode::NOT_FOUND, detail).response();
    apply_cors(response.headers_mut());
    response
}

/// A plain file name: no separators, no leading dot, so nothing outside the folder can be meant.
fn is_file_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(plain)
}

fn compress(identity: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(identity).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// A weak-comparable tag of the identity form; the coding is told apart by `Vary`.
fn etag(sha256: &[u8; 32]) -> HeaderValue {
    let hex: String = sha256.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "json" | "map" => "application/json",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
