//! Whether as many files may be open as a server's connections need.
//!
//! Invariant: what a server opens beside its viewers' connections has a file left however many viewers there are.

/// Files that are not for viewers: listeners, upstreams, logs, databases, and what is read and written on disk.
const RESERVED: u64 = 512;

/// Fewer files may be open than the configuration asks for: the operator's to mend, or to live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "at most {open_max} files may be open here, and {RESERVED} of them are not for viewers: that is {connections} connections \
     instead of limits.connections_max = {wanted} (ulimit -Hn; LimitNOFILE= of a systemd unit)"
)]
pub struct Shortage {
    /// The limit of open files, which was raised as far as possible.
    pub open_max: u64,
    /// Connections that there are files for; may be none.
    pub connections: usize,
    /// `limits.connections_max`.
    pub wanted: usize,
}

/// Raises this process' limit of open files as far as it goes.
///
/// # Errors
/// That is not enough for so many connections.
pub fn raise_for(connections_max: usize) -> Result<(), Shortage> {
    judge(sigma_nofile::raise(needed(connections_max)), connections_max)
}

fn needed(connections_max: usize) -> u64 {
    u64::try_from(connections_max).unwrap_or(u64::MAX).saturating_add(RESERVED)
}

fn judge(open_max: u64, wanted: usize) -> Result<(), Shortage> {
    if open_max >= needed(wanted) {
        return Ok(());
    }
    let connections = usize::try_from(open_max.saturating_sub(RESERVED)).unwrap_or(usize::MAX);
    Err(Shortage { open_max, connections, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_not_for_viewers() {
        for (open_max, wanted, connections) in [
            (20_512, 20_000, None),
            (20_511, 20_000, Some(19_999)),
            (1024, 20_000, Some(512)),
            (64, 20_000, Some(0)),
            (u64::MAX, usize::MAX, None),
        ] {
            let judged = judge(open_max, wanted).err().map(|shortage| shortage.connections);
            assert_eq!(judged, connections, "{open_max} {wanted}");
        }
    }
}
