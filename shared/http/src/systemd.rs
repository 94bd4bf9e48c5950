//! Telling systemd (or whoever else speaks `sd_notify`) how this process is.
//!
//! Invariant: a message that cannot be delivered is dropped; serving does not depend on it. Without `NOTIFY_SOCKET` nothing
//! happens. Deliberately absent: the watchdog.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// This process serves. A successor says so too, and that it is the main process now.
pub fn serving() {
    notify(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// This process leaves for good.
pub fn stopping() {
    notify("STOPPING=1");
}

fn notify(state: &str) {
    let Some(to) = std::env::var_os("NOTIFY_SOCKET").and_then(|path| path.into_string().ok()) else { return };
    if let Err(error) = send(&to, state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

fn send(to: &str, state: &str) -> io::Result<()> {
    let addr = match to.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(to)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_under_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), "READY=1").unwrap();
        let mut said = [0; 64];
        let n = manager.recv(&mut said).unwrap();
        assert_eq!(&said[..n], b"READY=1");
    }
}
