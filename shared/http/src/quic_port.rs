//! The UDP socket of a QUIC listener while one process follows another.
//!
//! Only one process can read a UDP port, but for a while two have connections on it. The successor reads; what belongs to
//! its predecessor's connections it hands back over a socket between the two, and the predecessor goes on sending over the
//! port itself. Whose a datagram is, its connection id says: each process makes ids that only it recognizes.
//!
//! Invariants: a connection stays with the process that accepted it until it ends; who comes new is accepted by the
//! successor from the moment it reads. Datagrams that do not fit between the processes are lost, as they may be on any
//! network. Deliberately absent: handshakes that began in the moment of the change (their clients begin again).

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, UdpPoller};
use quinn_proto::{ConnectionIdGenerator, HashedConnectionIdGenerator};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::ReadBuf;

/// Bytes of the connection ids of this and every other process of ours.
const CID_BYTES: usize = 8;
/// Codepoint, sender's address and port, own address.
const HEAD_BYTES: usize = 1 + 17 + 2 + 17;
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// How a process tells its connections from others'.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ours(u64);

impl Ours {
    pub(crate) fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    /// What makes connection ids.
    pub(crate) fn generator(self) -> HashedConnectionIdGenerator {
        HashedConnectionIdGenerator::from_key(self.0)
    }

    /// Whether a datagram is for this process: one of its connections', or the beginning of a new one.
    fn includes(self, datagram: &[u8]) -> bool {
        let made_here =
            |id: &[u8]| id.len() == CID_BYTES && self.generator().validate(&ConnectionId::new(id)).is_ok();
        match datagram {
            // Long header (RFC 8999 5.1): version, and an id with its length.
            [first, a, b, c, d, length, rest @ ..] if first & 0x80 != 0 => {
                // Initial and 0-RTT of version 1 (RFC 9000 17.2), and whatever asks for another version.
                let begins = first & 0x20 == 0 || [*a, *b, *c, *d] != [0, 0, 0, 1];
                begins || rest.get(..usize::from(*length)).is_none_or(made_here)
            }
            [_, rest @ ..] => rest.get(..CID_BYTES).is_none_or(made_here),
            [] => true,
        }
    }
}

/// See the module.
pub(crate) struct QuicPort {
    port: Arc<dyn AsyncUdpSocket>,
    ours: Ours,
    before: Option<Before>,
    after: OnceLock<After>,
    /// Who waits for datagrams.
    reader: Mutex<Option<Waker>>,
}

/// The way to the process before.
struct Before {
    socket: UnixDatagram,
    gone: AtomicBool,
}

/// The way from the process after.
struct After {
    socket: tokio::net::UnixDatagram,
    buffer: Mutex<Vec<u8>>,
}

impl fmt::Debug for QuicPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicPort").field("port", &self.port).finish_non_exhaustive()
    }
}

impl QuicPort {
    /// The port; `before` leads to the process whose connections on it are not ours.
    pub(crate) fn new(
        port: Arc<dyn AsyncUdpSocket>,
        ours: Ours,
        before: Option<UnixDatagram>,
    ) -> io::Result<Arc<Self>> {
        if let Some(socket) = &before {
            socket.set_nonblocking(true)?;
        }
        let before = before.map(|socket| Before { socket, gone: AtomicBool::new(false) });
        Ok(Arc::new(Self { port, ours, before, after: OnceLock::new(), reader: Mutex::new(None) }))
    }

    /// Stops reading the port: from now on the process after does, and `socket` brings what is left for this one.
    pub(crate) fn hand_over(&self, socket: UnixDatagram) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        let buffer = Mutex::new(vec![0; HEAD_BYTES + DATAGRAM_BYTES_MAX]);
        // A port is handed over once.
        let _ = self.after.set(After { socket, buffer });
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    fn poll_any(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.after.get().is_none() {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            if reader.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                *reader = Some(cx.waker().clone());
            }
        }
        // Only now: a hand-over in between has seen the waker, or is seen here.
        match self.after.get() {
            Some(after) => after.poll(cx, bufs, meta),
            None => self.port.poll_recv(cx, bufs, meta),
        }
    }
}

impl AsyncUdpSocket for QuicPort {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.port).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.port.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_any(cx, bufs, meta))?;
        if let Some(before) = &self.before
            && !before.gone.load(Ordering::Relaxed)
        {
            for (buf, meta) in bufs.iter_mut().zip(meta).take(count) {
                before.hand_back(self.ours, buf, meta);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.port.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.port.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.port.may_fragment()
    }
}

impl Before {
    /// Leaves in `buf` what is ours, and sends the rest where it belongs.
    fn hand_back(&self, ours: Ours, buf: &mut [u8], meta: &mut RecvMeta) {
        // Datagrams of one size, the last one perhaps shorter (GRO); without it there is one.
        let stride = meta.stride.max(1);
        let (mut from, mut kept) = (0, 0);
        while from < meta.len {
            let to = (from + stride).min(meta.len);
            if ours.includes(&buf[from..to]) {
                buf.copy_within(from..to, kept);
                kept += to - from;
            } else {
                self.send(meta, &buf[from..to]);
            }
            from = to;
        }
        meta.len = kept;
    }

    fn send(&self, meta: &RecvMeta, datagram: &[u8]) {
        let message = [&head(meta)[..], datagram].concat();
        if let Err(error) = self.socket.send(&message)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.gone.store(true, Ordering::Relaxed);
        }
    }
}

impl After {
    fn poll(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let mut message = ReadBuf::new(&mut buffer);
            match self.socket.poll_recv(cx, &mut message) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
            let Some((told, datagram)) = message.filled().split_at_checked(HEAD_BYTES) else {
                // The process after is gone; what is left ends by its timeouts.
                break;
            };
            let len = datagram.len().min(buf.len());
            buf[..len].copy_from_slice(&datagram[..len]);
            *meta = meta_of(told, len);
            count += 1;
        }
        if count > 0 { Poll::Ready(Ok(count)) } else { Poll::Pending }
    }
}

/// What a datagram came with, in the words between two processes of ours.
fn head(meta: &RecvMeta) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = meta.ecn.map_or(0, |ecn| ecn as u8);
    put(&mut head[1..18], Some(meta.addr.ip()));
    head[18..20].copy_from_slice(&meta.addr.port().to_be_bytes());
    put(&mut head[20..], meta.dst_ip);
    head
}

fn meta_of(head: &[u8], len: usize) -> RecvMeta {
    let address = take(&head[1..18]).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let port = u16::from_be_bytes([head[18], head[19]]);
    RecvMeta {
        addr: SocketAddr::new(address, port),
        len,
        stride: len,
        ecn: EcnCodepoint::from_bits(head[0]),
        dst_ip: take(&head[20..]),
    }
}

/// 0, 4 or 6, and the address.
fn put(to: &mut [u8], address: Option<IpAddr>) {
    match address {
        None => {}
        Some(IpAddr::V4(v4)) => {
            to[0] = 4;
            to[1..5].copy_from_slice(&v4.octets());
        }
        Some(IpAddr::V6(v6)) => {
            to[0] = 6;
            to[1..17].copy_from_slice(&v6.octets());
        }
    }
}

fn take(from: &[u8]) -> Option<IpAddr> {
    match from {
        [4, a, b, c, d, ..] => Some(Ipv4Addr::new(*a, *b, *c, *d).into()),
        [6, rest @ ..] => Some(Ipv6Addr::from(<[u8; 16]>::try_from(rest).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(id: &[u8]) -> Vec<u8> {
        [&[0x40], id, b"payload"].concat()
    }

    fn long(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
        let length = u8::try_from(id.len()).unwrap();
        [&[first], &version.to_be_bytes()[..], &[length], id, b"payload"].concat()
    }

    #[test]
    fn a_process_knows_its_own_connections_and_takes_who_comes_new() {
        let (ours, theirs) = (Ours::new(), Ours::new());
        let (mine, other) = (ours.generator().generate_cid(), theirs.generator().generate_cid());
        for (datagram, expected) in [
            (short(&mine), true),
            (short(&other), false),
            (long(0xe0, 1, &mine), true),
            (long(0xe0, 1, &other), false),
            (long(0xc0, 1, &other), true),
            (long(0xd0, 1, &[7; 20]), true),
            (long(0xe0, 0x0a0a_0a0a, &other), true),
            (vec![0x40, 1, 2], true),
            (vec![], true),
        ] {
            assert_eq!(ours.includes(&datagram), expected, "{datagram:?}");
        }
    }

    #[test]
    fn what_a_datagram_came_with_arrives() {
        let mut meta = RecvMeta::default();
        (meta.len, meta.stride) = (9, 9);
        for (addr, dst_ip, ecn) in [
            ("203.0.113.7:4433", Some("127.0.0.1"), Some(EcnCodepoint::Ect0)),
            ("[2001:db8::1]:1", Some("::1"), Some(EcnCodepoint::Ce)),
            ("203.0.113.7:65535", None, None),
        ] {
            meta.addr = addr.parse().unwrap();
            meta.dst_ip = dst_ip.map(|ip| ip.parse().unwrap());
            meta.ecn = ecn;
            assert_eq!(format!("{:?}", meta_of(&head(&meta), 9)), format!("{meta:?}"));
        }
    }

    #[test]
    fn datagrams_of_both_in_one_read_are_told_apart() {
        let (ours, theirs) = (Ours::new(), Ours::new());
        let sent = [ours, theirs, ours, theirs].map(|whose| short(&whose.generator().generate_cid()));
        let (here, there) = UnixDatagram::pair().unwrap();
        there.set_nonblocking(true).unwrap();
        let before = Before { socket: here, gone: AtomicBool::new(false) };
        let mut buf = sent.concat();
        buf.truncate(buf.len() - 3);
        let mut meta = RecvMeta::default();
        (meta.len, meta.stride) = (buf.len(), sent[0].len());
        before.hand_back(ours, &mut buf, &mut meta);
        assert_eq!(buf[..meta.len], [&sent[0][..], &sent[2]].concat());
        let mut message = [0; 200];
        for expected in [&sent[1][..], &sent[3][..sent[3].len() - 3]] {
            let n = there.recv(&mut message).unwrap();
            assert_eq!(&message[HEAD_BYTES..n], expected);
        }
        drop(there);
        before.send(&meta, b"x");
        assert!(before.gone.load(Ordering::Relaxed));
    }
}
