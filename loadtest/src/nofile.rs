//! The limit of open files: every viewer needs a socket or two.

/// Raises the soft limit towards `wanted`, as far as the hard limit allows (root may raise that too). Returns the soft
/// limit that holds now.
#[expect(unsafe_code, reason = "the standard library has no way to set resource limits")]
pub(crate) fn raise(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that outlives the calls, which read and write nothing else.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 || limit.rlim_cur >= wanted {
            return limit.rlim_cur;
        }
        for hard in [limit.rlim_max.max(wanted), limit.rlim_max] {
            let raised = libc::rlimit { rlim_cur: wanted.min(hard), rlim_max: hard };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                return raised.rlim_cur;
            }
        }
    }
    limit.rlim_cur
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
