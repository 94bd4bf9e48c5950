//! Listening sockets that outlive a process: taken over from the one before (or from systemd), handed on to the next.
//!
//! Both are the protocol of socket activation: descriptors from 3 on, `LISTEN_FDS` and `LISTEN_FDNAMES`. A successor gets one
//! more, a stream on which it says that it serves and hears when its predecessor has stopped reading UDP.
//!
//! Invariants: while a successor starts nothing changes for viewers, and when it fails nothing has changed; a port is never
//! without a listener in between, and what waits in its queue is accepted by whoever is left. From [`Sockets::close`] on,
//! this process holds no port for a successor: a server that leaves for good refuses connections instead of keeping them.
//! Deliberately absent: handing over connections; they are finished by the process that accepted them. QUIC's all come in
//! over one socket that only one process can read. `UdpPort::open` waits until the predecessor has stopped reading it,
//! which it does as soon as this process serves; from then on its datagrams are handed back to it (`quic_port`).

use crate::drain::Drain;
use crate::listener::{BindError, Bound};
use command_fds::{CommandFdExt, FdMapping};
use listenfd::ListenFd;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// The first descriptor of socket activation.
const FIRST_FD: i32 = 3;
/// How the names of UDP ports begin, and those of the ways back to who read them before.
const UDP_PREFIX: &str = "udp-";
const DATAGRAMS_PREFIX: &str = "datagrams-";
const DATAGRAMS_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The name of the stream between predecessor and successor.
const STREAM_NAME: &str = "sigma-successor";
/// What a successor says when it serves, and what it hears when UDP is its own.
const SERVING: &[u8; 6] = b"READY\n";
const UDP_RELEASED: &[u8; 6] = b"UDP--\n";

/// How long a successor may take until it serves.
pub const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a successor that failed may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why no successor took over. This process goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The operator's setup: the first process of a container or machine takes everything with it when it ends.
    #[error("this is process 1, whose end is the end of its container: restart the container instead")]
    FirstProcess,
    /// The program cannot be started, or the system is out of something.
    #[error("the new process cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It ended before it served: its own log says why.
    #[error("the new process ended before it served ({0}); its log says why")]
    Ended(ExitStatus),
    /// It did not serve in time and was ended.
    #[error("the new process did not serve within {} s and was ended", .0.as_secs())]
    Late(Duration),
    /// This process was told to leave for good meanwhile.
    #[error("this process was told to end meanwhile; so was the new one")]
    Leaving,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// A socket and the name it travels under.
#[derive(Debug)]
struct Named<S> {
    name: String,
    socket: S,
}

#[derive(Debug, Default)]
struct Held {
    /// Inherited, and not asked for yet.
    inherited: Vec<Named<Socket>>,
    /// Duplicates of everything this process answers on, for a successor.
    own: Vec<Named<OwnedFd>>,
    closed: bool,
    /// A successor is being started, or has taken over.
    handing_over: bool,
    /// To the process before, until [`Sockets::serving`].
    predecessor: Option<UnixStream>,
    successor: Option<UnixStream>,
    /// Where datagrams go that belong to the predecessor's connections, by the name of the port.
    to_predecessor: Vec<Named<UnixDatagram>>,
    /// Where they come from at the other end.
    from_successor: Vec<Named<UnixDatagram>>,
    /// UDP ports that this process reads or is going to.
    udp_read: usize,
}

/// The listening sockets of a process. Clones are the same set.
#[derive(Debug, Clone)]
pub struct Sockets {
    held: Arc<Mutex<Held>>,
    /// Whether UDP sockets are ours to read.
    udp_free: Arc<watch::Sender<bool>>,
}

/// A UDP port that may still be read by the process before.
#[derive(Debug)]
pub struct UdpPort {
    socket: UdpSocket,
    addr: SocketAddr,
    free: watch::Receiver<bool>,
    to_predecessor: Option<UnixDatagram>,
    reading: Reading,
}

/// A UDP port that is this process's to read.
#[derive(Debug)]
pub(crate) struct OpenUdp {
    pub(crate) socket: UdpSocket,
    /// Takes what belongs to connections of the process before, [`UdpPort`] by port.
    pub(crate) to_predecessor: Option<UnixDatagram>,
    pub(crate) reading: Reading,
}

/// Says that this process reads a UDP port while it lives.
#[derive(Debug)]
pub(crate) struct Reading {
    name: String,
    sockets: Sockets,
}

impl Reading {
    fn begin(name: String, sockets: Sockets) -> Self {
        sockets.held().udp_read += 1;
        Self { name, sockets }
    }

    /// When a successor serves: brings what it reads of this process's connections, which are to be read there from then on.
    pub(crate) fn datagrams_of_successor(&self) -> Option<UnixDatagram> {
        let mut held = self.sockets.held();
        let at = held.from_successor.iter().position(|named| named.name == self.name)?;
        Some(held.from_successor.swap_remove(at).socket)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut held = self.sockets.held();
        held.udp_read -= 1;
        held.release_udp();
    }
}

impl UdpPort {
    /// The address really bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port, once nobody else reads it: at once in general, else when the predecessor has stopped or ended. Needs
    /// [`Sockets::serving`] to be called, which is what makes the predecessor stop.
    pub(crate) async fn open(mut self) -> OpenUdp {
        // An error only says that the set of sockets is gone, and with it whoever would tell.
        let _ = self.free.wait_for(|free| *free).await;
        let Self { socket, to_predecessor, reading, .. } = self;
        OpenUdp { socket, to_predecessor, reading }
    }
}

/// The name a socket travels under: the address as configured, without colons, which separate names.
fn name_of(kind: &str, addr: SocketAddr) -> String {
    format!("{kind}-{}", addr.to_string().replace(':', "_"))
}

impl Sockets {
    /// No inherited sockets.
    #[must_use]
    pub fn none() -> Self {
        Self { held: Arc::default(), udp_free: Arc::new(watch::Sender::new(true)) }
    }

    /// What systemd or a predecessor left for this process. Call it first in `main`: it reads and changes the environment,
    /// which no other thread may do at the same time.
    #[must_use]
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut left = ListenFd::from_env();
        let mut held = Held::default();
        for n in 0..left.len() {
            let name = names.next().unwrap_or_default().to_owned();
            if let Ok(Some(socket)) = left.take_tcp_listener(n) {
                held.inherited.push(Named { name, socket: Socket::Tcp(socket) });
            } else if let Ok(Some(socket)) = left.take_udp_socket(n) {
                held.inherited.push(Named { name, socket: Socket::Udp(socket) });
            } else if let Some(port) = name.strip_prefix(DATAGRAMS_PREFIX)
                && let Ok(Some(socket)) = take_datagrams(&mut left, n)
            {
                held.to_predecessor.push(Named { name: port.to_owned(), socket });
            } else if name == STREAM_NAME
                && let Ok(Some(stream)) = left.take_unix_listener(n)
            {
                held.predecessor = Some(UnixStream::from(OwnedFd::from(stream)));
            }
        }
        let udp_free = watch::Sender::new(held.predecessor.is_none());
        Self { held: Arc::new(Mutex::new(held)), udp_free: Arc::new(udp_free) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A TCP port to listen on: inherited if there is one of this address, else bound. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is in use, not ours or not allowed.
    pub fn tcp(&self, addr: SocketAddr) -> Result<Bound, BindError> {
        let name = name_of("tcp", addr);
        let inherited = self.held().claim(|held| match &held.socket {
            Socket::Tcp(socket) => is_for(&name, &held.name, addr, socket.local_addr()),
            Socket::Udp(_) => false,
        });
        let bound = match inherited.map(|named| named.socket) {
            Some(Socket::Tcp(listener)) => Bound::inherit(listener, addr)?,
            _ => Bound::bind(addr)?,
        };
        self.held().keep(name, bound.as_fd()).map_err(|source| BindError { addr, source })?;
        Ok(bound)
    }

    /// A UDP port: inherited if there is one of this address, else what `bind` makes of it.
    ///
    /// # Errors
    /// What `bind` said.
    pub fn udp(
        &self,
        addr: SocketAddr,
        bind: impl FnOnce(SocketAddr) -> io::Result<UdpSocket>,
    ) -> Result<UdpPort, BindError> {
        let name = name_of("udp", addr);
        let inherited = self.held().claim(|held| match &held.socket {
            Socket::Udp(socket) => is_for(&name, &held.name, addr, socket.local_addr()),
            Socket::Tcp(_) => false,
        });
        let open = || {
            let (socket, free, to_predecessor) = match inherited {
                Some(Named { name, socket: Socket::Udp(socket) }) => {
                    (socket, self.udp_free.subscribe(), self.held().claim_datagrams(&name))
                }
                _ => (bind(addr)?, watch::Sender::new(true).subscribe(), None),
            };
            self.held().keep(name.clone(), socket.as_fd())?;
            let (addr, reading) = (socket.local_addr()?, Reading::begin(name, self.clone()));
            Ok(UdpPort { socket, addr, free, to_predecessor, reading })
        };
        open().map_err(|source| BindError { addr, source })
    }

    /// Whether a predecessor waits for this process to serve.
    #[must_use]
    pub fn succeeds(&self) -> bool {
        self.held().predecessor.is_some()
    }

    /// Everything is bound and served: tells the predecessor, which leaves then, and closes what was inherited in vain.
    pub fn serving(&self) {
        let (unused, predecessor) = {
            let mut held = self.held();
            (std::mem::take(&mut held.inherited), held.predecessor.take())
        };
        for Named { name, .. } in unused {
            tracing::warn!(name, "an inherited socket is in no listener's configuration; closed");
        }
        let Some(predecessor) = predecessor else { return };
        let free = Arc::clone(&self.udp_free);
        tokio::spawn(async move {
            if let Err(error) = tell_and_wait(predecessor).await {
                tracing::debug!(%error, "the predecessor is gone");
            }
            free.send_replace(true);
        });
    }

    /// Keeps no port open for a successor any more. To be called when draining begins.
    pub fn close(&self) {
        let mut held = self.held();
        held.closed = true;
        held.own.clear();
        held.inherited.clear();
    }

    /// SIGUSR2: [`Sockets::hand_over`] in a task of its own, told in the log. One at a time.
    pub fn restart(&self, drain: &Drain) {
        if std::mem::replace(&mut self.held().handing_over, true) {
            tracing::warn!("SIGUSR2: a new process is being started already");
            return;
        }
        tracing::info!("SIGUSR2: starting a new process with the same sockets");
        let (sockets, drain) = (self.clone(), drain.clone());
        tokio::spawn(async move {
            match sockets.hand_over(&drain).await {
                Ok(pid) => tracing::info!(pid, "the new process serves: draining"),
                Err(error @ HandOverError::Leaving) => {
                    tracing::info!(%error, "no restart: this process leaves");
                }
                Err(error) => {
                    sockets.held().handing_over = false;
                    tracing::error!(%error, "no restart: serving goes on");
                }
            }
        });
    }

    /// Whether a successor serves.
    #[must_use]
    pub fn handed_over(&self) -> bool {
        self.held().successor.is_some()
    }

    /// Starts this program anew with all sockets, waits until it serves, then gives the drain signal.
    ///
    /// # Errors
    /// Nobody took over; nothing has changed.
    pub async fn hand_over(&self, drain: &Drain) -> Result<u32, HandOverError> {
        if std::process::id() == 1 {
            return Err(HandOverError::FirstProcess);
        }
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (command, from_successor) = self.command(theirs.into())?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        let pid = child.id().unwrap_or_default();
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        let mut said = [0; SERVING.len()];
        let failed = tokio::select! {
            read = ours.read_exact(&mut said) => match read {
                Ok(_) if &said == SERVING => {
                    self.succeeded_by(ours.into_std()?, from_successor);
                    drain.start();
                    return Ok(pid);
                }
                // It closed the stream: it is about to end.
                _ => None,
            },
            status = child.wait() => Some(HandOverError::Ended(status?)),
            () = drain.started() => Some(HandOverError::Leaving),
            () = tokio::time::sleep(SUCCESSOR_TIMEOUT) => Some(HandOverError::Late(SUCCESSOR_TIMEOUT)),
        };
        if failed.is_none() {
            // It is about to end, and says why first.
            let _ = tokio::time::timeout(LAST_WORDS, child.wait()).await;
        }
        // Without effect on one that ended.
        let _ = child.start_kill();
        let status = child.wait().await?;
        Err(failed.unwrap_or(HandOverError::Ended(status)))
    }

    fn succeeded_by(&self, stream: UnixStream, datagrams: Vec<Named<UnixDatagram>>) {
        let mut held = self.held();
        held.successor = Some(stream);
        held.from_successor = datagrams;
        held.release_udp();
    }

    /// This program with its arguments, and the ways from it to the UDP ports' readers here. By the name it was called with, so that a file or link that was replaced since is
    /// what starts.
    fn command(&self, stream: OwnedFd) -> io::Result<(std::process::Command, Vec<Named<UnixDatagram>>)> {
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or_else(|| io::Error::other("this process has no name"))?;
        let (mut sockets, mut from_successor) = (Vec::new(), Vec::new());
        for Named { name, socket } in &self.held().own {
            sockets.push(Named { name: name.clone(), socket: socket.try_clone()? });
            if name.starts_with(UDP_PREFIX) {
                let (ours, theirs) = datagrams()?;
                from_successor.push(Named { name: name.clone(), socket: ours });
                sockets.push(Named { name: format!("{DATAGRAMS_PREFIX}{name}"), socket: theirs });
            }
        }
        sockets.push(Named { name: STREAM_NAME.to_owned(), socket: stream });
        let names: Vec<_> = sockets.iter().map(|named| named.name.as_str()).collect();
        let mut command = std::process::Command::new(program);
        command.args(arguments).env("LISTEN_FDS", sockets.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":")).env_remove("LISTEN_PID");
        let mappings = sockets.into_iter().zip(FIRST_FD..);
        let mappings = mappings.map(|(named, child_fd)| FdMapping { parent_fd: named.socket, child_fd });
        command.fd_mappings(mappings.collect()).map_err(io::Error::other)?;
        Ok((command, from_successor))
    }
}

/// Two ends between processes that keep datagrams apart, and notice that the other one is gone.
fn datagrams() -> io::Result<(UnixDatagram, OwnedFd)> {
    let (ours, theirs) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None)?;
    // The system may grant less: what does not fit is lost, as on any network.
    theirs.set_send_buffer_size(DATAGRAMS_BUFFER_BYTES)?;
    Ok((UnixDatagram::from(OwnedFd::from(ours)), theirs.into()))
}

fn take_datagrams(left: &mut ListenFd, n: usize) -> io::Result<Option<UnixDatagram>> {
    let (domain, kind) = (socket2::Domain::UNIX.into(), socket2::Type::SEQPACKET.into());
    left.take_custom(n, domain, kind, "a socket that keeps datagrams apart")
}

/// Whether an inherited socket is the one for `addr`. With port 0, only a predecessor's of the same configuration is.
fn is_for(wanted: &str, name: &str, addr: SocketAddr, local: io::Result<SocketAddr>) -> bool {
    match addr.port() {
        0 => wanted == name,
        _ => local.is_ok_and(|local| local == addr),
    }
}

impl Held {
    fn claim(&mut self, fits: impl Fn(&Named<Socket>) -> bool) -> Option<Named<Socket>> {
        let at = self.inherited.iter().position(fits)?;
        Some(self.inherited.remove(at))
    }

    fn claim_datagrams(&mut self, port: &str) -> Option<UnixDatagram> {
        let at = self.to_predecessor.iter().position(|named| named.name == port)?;
        Some(self.to_predecessor.swap_remove(at).socket)
    }

    /// Says to the successor, if there is one, that this process reads UDP no more, if it does not. Its end says the same.
    fn release_udp(&mut self) {
        if let Some(stream) = self.successor.as_mut().filter(|_| self.udp_read == 0) {
            // Who is gone needs no word.
            let _ = io::Write::write_all(stream, UDP_RELEASED);
        }
    }

    fn keep(&mut self, name: String, socket: BorrowedFd<'_>) -> io::Result<()> {
        if !self.closed {
            self.own.push(Named { name, socket: socket.try_clone_to_owned()? });
        }
        Ok(())
    }
}

async fn tell_and_wait(predecessor: UnixStream) -> io::Result<()> {
    predecessor.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(predecessor)?;
    stream.write_all(SERVING).await?;
    let mut said = [0; UDP_RELEASED.len()];
    stream.read_exact(&mut said).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn inherited(sockets: Vec<Named<Socket>>) -> Sockets {
        let set = Sockets::none();
        set.held().inherited = sockets;
        set
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[tokio::test]
    async fn an_inherited_socket_is_found_by_its_address_or_by_its_name_for_port_0() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let ((first, first_addr), (second, second_addr)) = (listener(), listener());
        let set = inherited(vec![
            Named { name: "from-systemd".to_owned(), socket: Socket::Tcp(first) },
            Named { name: name_of("tcp", any), socket: Socket::Tcp(second) },
        ]);
        assert_eq!(set.tcp(any).unwrap().local_addr(), second_addr, "by its name");
        assert_eq!(set.tcp(first_addr).unwrap().local_addr(), first_addr, "by its address");
        let fresh = set.tcp(any).unwrap().local_addr();
        assert!(fresh != first_addr && fresh != second_addr, "none is left: a new one");
        assert_eq!(set.held().own.len(), 3, "all three are for the successor");
    }

    #[tokio::test]
    async fn a_closed_set_holds_no_port() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let set = Sockets::none();
        let bound = set.tcp(any).unwrap();
        let addr = bound.local_addr();
        drop(bound);
        assert!(std::net::TcpStream::connect(addr).is_ok(), "kept for a successor");
        set.close();
        assert!(std::net::TcpStream::connect(addr).is_err(), "nobody will answer");
    }

    #[tokio::test]
    async fn udp_is_read_after_the_predecessor_said_so_or_ended() {
        for says in [true, false] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let addr = socket.local_addr().unwrap();
            let successor = inherited(vec![Named { name: String::new(), socket: Socket::Udp(socket) }]);
            successor.udp_free.send_replace(false);
            successor.held().predecessor = Some(theirs);
            let port = successor.udp(addr, |_| Err(io::Error::other("it is there"))).unwrap();
            successor.serving();
            let mut waiting = std::pin::pin!(port.open());
            assert!(futures_are_pending(waiting.as_mut()).await);
            let predecessor = Sockets::none();
            let reading = ["a", "b"].map(|name| Reading::begin(name.to_owned(), predecessor.clone()));
            predecessor.succeeded_by(ours, Vec::new());
            if says {
                let [one, other] = reading;
                drop(one);
                assert!(futures_are_pending(waiting.as_mut()).await, "one port is still read");
                drop(other);
                assert_eq!(waiting.await.socket.local_addr().unwrap(), addr);
            } else {
                predecessor.held().successor = None;
                assert_eq!(waiting.await.socket.local_addr().unwrap(), addr);
            }
        }
    }

    async fn futures_are_pending(future: std::pin::Pin<&mut impl Future>) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = tokio::task::yield_now() => true,
        }
    }
}
