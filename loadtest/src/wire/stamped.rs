//! Reads from a TCP socket and tells when the kernel had what was read.
//!
//! A tester with thousands of viewers comes to the last of them long after their parts: by its own clock a server that
//! answered all within 80 ms took 160. Invariant: the time told is never before the bytes were there, and never in the
//! future. Deliberately absent: QUIC, whose library says nothing of the time of its datagrams.

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Room for the one control message asked for: its header of 16 bytes and a time of 16.
const CONTROL_BYTES: usize = 64;

/// Asks the kernel to tell. One that does not leaves the tester's own time.
pub(super) fn ask(tcp: &TcpStream) {
    let _ = setsockopt(tcp, ReceiveTimestampns, &true);
}

/// Reads what is there, with the time at which the last of it came. No bytes are the end.
pub(super) fn poll_read(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<(usize, Instant)>> {
    loop {
        ready!(tcp.poll_read_ready(cx))?;
        let mut got = None;
        let tried = tcp.try_io(Interest::READABLE, || {
            let (length, age) = receive(tcp, buf)?;
            got = Some((length, age));
            // Less than there was room for is all there was: this spares the call that would find nothing.
            if (1..buf.len()).contains(&length) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if let Some((length, age)) = got {
            let now = Instant::now();
            return Poll::Ready(Ok((length, now.checked_sub(age).unwrap_or(now))));
        }
        match tried {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            _ => {}
        }
    }
}

/// How much was read, and how long ago the last of it came.
fn receive(tcp: &TcpStream, buf: &mut [u8]) -> io::Result<(usize, Duration)> {
    let (mut control, mut whole) = ([0; CONTROL_BYTES], [IoSliceMut::new(buf)]);
    let message = loop {
        match recvmsg::<()>(tcp.as_raw_fd(), &mut whole, Some(&mut control), MsgFlags::empty()) {
            Err(nix::errno::Errno::EINTR) => {}
            result => break result?,
        }
    };
    let came = message.cmsgs()?.find_map(|told| match told {
        ControlMessageOwned::ScmTimestampns(at) => Some(at),
        _ => None,
    });
    Ok((message.bytes, came.map(age).unwrap_or_default()))
}

/// A clock that was set back in between says nothing.
fn age(at: TimeSpec) -> Duration {
    let at = SystemTime::UNIX_EPOCH + Duration::from(at);
    SystemTime::now().duration_since(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_is_read_late_came_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        ask(&near);
        let (mut buf, mut before) = ([0; 64], 0);
        for _ in 0..1000 {
            let sent = Instant::now();
            far.write_all(b"part").await.unwrap();
            near.readable().await.unwrap();
            let known = Instant::now();
            let (length, arrived) = poll_fn(|cx| poll_read(&near, cx, &mut buf)).await.unwrap();
            assert_eq!(&buf[..length], b"part");
            assert!(arrived <= Instant::now() && arrived + Duration::from_millis(100) > sent);
            before += u32::from(arrived <= known);
        }
        // The kernel begins to tell a moment after it was asked to; without its word all came when they were read.
        assert!(before > 500, "{before} of 1000 came before they were read");
        drop(far);
        assert_eq!(poll_fn(|cx| poll_read(&near, cx, &mut buf)).await.unwrap().0, 0, "the end");
    }
}
