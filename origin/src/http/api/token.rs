//! The admin's token: a file in the data directory, made at the first start, readable by its owner alone.
//!
//! Deliberately absent: tokens with scopes, which come with the control plane.

use super::refusal;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;
use sigma_http::problem::Problem;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// In the data directory.
pub(crate) const FILE: &str = "admin.token";
/// What an operator who writes the file may not go below, bytes.
const LENGTH_MIN: usize = 16;

/// Why there is no token: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminTokenError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: a token of {LENGTH_MIN} characters or more is expected; remove the file to have one made", .0.display())]
    Short(PathBuf),
    #[error("this machine has no randomness to give")]
    Random,
}

/// What the token's digest is: the token itself is not kept.
pub(crate) struct AdminToken(Digest);

/// A request without the token.
pub(super) struct Refused {
    detail: &'static str,
    challenge: &'static str,
}

impl Refused {
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let mut response = refusal(&Problem::new(StatusCode::UNAUTHORIZED, self.detail));
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(self.challenge));
        response
    }
}

impl AdminToken {
    /// Reads the file, or makes it.
    pub(crate) fn load(data_dir: &Path) -> Result<Self, AdminTokenError> {
        let path = data_dir.join(FILE);
        let failed = |source| AdminTokenError::File { path: path.clone(), source };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let mode = std::fs::metadata(&path).map_err(failed)?.permissions().mode();
                if mode & 0o077 != 0 {
                    tracing::warn!(path = %path.display(), "the admin's token can be read by others: chmod 600");
                }
                text
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(failed(error)),
        };
        let token = text.trim();
        if token.len() < LENGTH_MIN {
            return Err(AdminTokenError::Short(path));
        }
        Ok(Self(digest(&SHA256, token.as_bytes())))
    }

    /// Whether a request has it.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let Some(token) = token else {
            let detail = "Authorization: Bearer TOKEN is expected; the token is in data_dir/admin.token";
            return Err(Refused { detail, challenge: "Bearer realm=\"sigma-live\"" });
        };
        let given = digest(&SHA256, token.as_bytes());
        verify_slices_are_equal(given.as_ref(), self.0.as_ref()).map_err(|_| Refused {
            detail: "the token is not the one in data_dir/admin.token",
            challenge: "Bearer realm=\"sigma-live\", error=\"invalid_token\"",
        })
    }
}

/// Beside and renamed: a kill leaves no half of a token.
fn make(path: &Path) -> Result<String, AdminTokenError> {
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).map_err(|_| AdminTokenError::Random)?;
    let token = URL_SAFE_NO_PAD.encode(random);
    let beside = path.with_extension("token.new");
    let write = || {
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| AdminTokenError::File { path: path.to_owned(), source })?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(token: &AdminToken, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        token.check(&headers).is_ok()
    }

    #[test]
    fn it_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let token = AdminToken::load(folder.path()).expect("made");
        let path = folder.path().join(FILE);
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).expect("there");
        let again = AdminToken::load(folder.path()).expect("read");
        for token in [&token, &again] {
            assert!(asked(token, &format!("Bearer {}", text.trim())));
            assert!(asked(token, &format!("bearer {}", text.trim())));
            assert!(!asked(token, &format!("Bearer {}x", text.trim())));
            assert!(!asked(token, &format!("Basic {}", text.trim())));
            assert!(!asked(token, "Bearer "));
            assert!(token.check(&HeaderMap::new()).is_err());
        }
        std::fs::write(&path, "short\n").expect("written");
        assert!(matches!(AdminToken::load(folder.path()), Err(AdminTokenError::Short(_))));
    }
}
