//! Where the origin's API is, and what opens it and its channels: the command line, else the environment.
//!
//! Invariants: what was said on the command line stands, whatever is in the environment; a variable that nobody needs is
//! not looked at, so nothing in it can be wrong. The environment is an argument.

use crate::address::Address;
use std::path::Path;

/// The API's address, and the token for it; the same as of the origin's own commands.
const URL: &str = "SIGMA_URL";
const TOKEN: &str = "SIGMA_TOKEN";
/// A token for watching.
const PLAYBACK_TOKEN: &str = "SIGMA_PLAYBACK_TOKEN";
/// Where an origin of this machine has it.
const URL_DEFAULT: &str = "http://127.0.0.1:7070";

/// Variables of the environment; those that are empty are none.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Those of this process.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The API.
///
/// # Errors
/// The variable is no URL: the caller's fault.
pub(crate) fn url(given: Option<&Address>, variables: Variables<'_>) -> Result<Address, String> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let (name, url) = match variables(URL) {
        Some(url) => (URL, url),
        None => ("default", URL_DEFAULT.to_owned()),
    };
    url.parse().map_err(|error| format!("{name}: {error}"))
}

/// The token of the API; `None`: none.
///
/// # Errors
/// The file cannot be read: the caller's fault.
pub(crate) fn token(
    given: Option<&String>,
    file: Option<&Path>,
    variables: Variables<'_>,
) -> Result<Option<String>, String> {
    match (given, file) {
        (Some(token), _) => Ok(Some(token.clone())),
        (None, Some(path)) => read(path).map(|text| Some(text.trim().to_owned())),
        (None, None) => Ok(variables(TOKEN)),
    }
}

/// The tokens for watching that viewers take turns on; without any, none.
///
/// # Errors
/// The file cannot be read, or has none: the caller's fault.
pub(crate) fn playback_tokens(
    given: Option<&String>,
    file: Option<&Path>,
    variables: Variables<'_>,
) -> Result<Vec<String>, String> {
    let Some(path) = file.filter(|_| given.is_none()) else {
        return Ok(given.cloned().or_else(|| variables(PLAYBACK_TOKEN)).into_iter().collect());
    };
    let text = read(path)?;
    let tokens: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if tokens.is_empty() { Err(format!("{}: no token in it", path.display())) } else { Ok(tokens) }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_goes_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, " one \n\ntwo\n").unwrap();
        let full = |name: &str| {
            Some(if name == URL { "http://127.0.0.1:9".to_owned() } else { format!("of {name}") })
        };
        let bare = |_: &str| None;
        let (given, other) = ("given".to_owned(), "http://127.0.0.1:8".parse::<Address>().unwrap());
        assert_eq!(url(Some(&other), &full), Ok(other.clone()));
        assert_eq!(url(None, &full).unwrap().to_string(), "http://127.0.0.1:9/");
        assert_eq!(url(None, &bare), URL_DEFAULT.parse().map_err(|_| unreachable!()));
        assert!(url(None, &|_| Some("ftp://x".to_owned())).unwrap_err().starts_with("SIGMA_URL: "));
        assert_eq!(token(Some(&given), None, &full), Ok(Some(given.clone())));
        assert_eq!(token(None, Some(&path), &full), Ok(Some("one \n\ntwo".into())));
        assert_eq!(token(None, None, &full), Ok(Some("of SIGMA_TOKEN".into())));
        assert_eq!(token(None, None, &bare), Ok(None));
        assert_eq!(playback_tokens(Some(&given), Some(&path), &full), Ok(vec![given]));
        assert_eq!(playback_tokens(None, Some(&path), &full), Ok(vec!["one".into(), "two".into()]));
        assert_eq!(playback_tokens(None, None, &full), Ok(vec!["of SIGMA_PLAYBACK_TOKEN".into()]));
        assert_eq!(playback_tokens(None, None, &bare), Ok(Vec::new()));
        std::fs::write(&path, "\n").unwrap();
        assert!(playback_tokens(None, Some(&path), &full).unwrap_err().contains("no token"));
        assert!(token(None, Some(&folder.path().join("none")), &full).unwrap_err().contains("none: "));
    }
}
