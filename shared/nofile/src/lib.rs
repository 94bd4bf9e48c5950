//! The limit of open files: every connection needs one. Most systems allow a process far more than they give it at first.
//!
//! Invariant: the limit is never lowered. Deliberately absent: limits of anything else.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and the hard one to `wanted` where this process may. Returns the soft limit that
/// holds now.
#[must_use]
pub fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    for to in [hard.max(wanted), hard] {
        let raised = Rlimit { current: Some(to), maximum: Some(to) };
        if to > soft && setrlimit(Resource::Nofile, raised).is_ok() {
            return to;
        }
    }
    soft
}

#[cfg(test)]
mod tests {
    #[test]
    fn never_lowered() {
        let before = super::raise(0);
        assert!(before > 0);
        assert_eq!(super::raise(1), before);
    }
}
