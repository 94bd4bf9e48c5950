//! Where `dev` puts what: ports, files, keys, certificates, and how it is announced.

use super::certificates;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ORIGIN_HTTP: u16 = 7070;
const ORIGIN_OPS: u16 = 7071;
const ORIGIN_TLS: u16 = 7443;
const ORIGIN_RTMP: u16 = 1935;
const EDGE_HTTP: u16 = 8080;
const EDGE_OPS: u16 = 8081;
const EDGE_TLS: u16 = 8443;
const EDGE_STEP: u16 = 100;
/// How far back one can go in the demo, seconds: about a gigabyte on disk.
const DEMO_DVR_S: u32 = 1800;

/// Stream keys, kept from run to run so that an encoder need not be set up again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Keys {
    demo: String,
    bench: String,
}

/// Ports and files of one `dev`.
pub(super) struct Layout {
    data: PathBuf,
    offset: u16,
    edges: u16,
}

/// What is said when everything serves.
pub(super) struct Announcement {
    pub(super) json: String,
    pub(super) text: String,
}

/// The name of an edge, counted from 0.
pub(super) fn pop(n: u16) -> String {
    format!("pop-{}", n + 1)
}

impl Layout {
    pub(super) fn new(data: &Path, offset: u16, edges: u16) -> Result<Self, String> {
        let highest = u32::from(EDGE_TLS) + u32::from(offset) + u32::from(EDGE_STEP) * u32::from(edges);
        if highest > u32::from(u16::MAX) {
            return Err(format!(
                "--port-offset {offset} with --edges {edges} needs ports up to {highest}; 65535 is the last"
            ));
        }
        std::fs::create_dir_all(data).map_err(|error| format!("--data {}: {error}", data.display()))?;
        let data = data.canonicalize().map_err(|error| format!("--data {}: {error}", data.display()))?;
        Ok(Self { data, offset, edges })
    }

    pub(super) fn origin_config(&self) -> PathBuf {
        self.data.join("origin.toml")
    }

    pub(super) fn edge_config(&self, n: u16) -> PathBuf {
        self.data.join(format!("edge-{}.toml", n + 1))
    }

    fn port(&self, base: u16) -> u16 {
        base + self.offset
    }

    fn edge_port(&self, base: u16, n: u16) -> u16 {
        base + self.offset + EDGE_STEP * n
    }

    /// Whether all ports are free: somebody else's answer on one of them would be taken for that of a process of ours.
    pub(super) fn check_ports(&self) -> Result<(), String> {
        let mut ports: Vec<u16> =
            [ORIGIN_HTTP, ORIGIN_OPS, ORIGIN_TLS, ORIGIN_RTMP].iter().map(|port| self.port(*port)).collect();
        for n in 0..self.edges {
            ports.extend([EDGE_HTTP, EDGE_OPS, EDGE_TLS].iter().map(|port| self.edge_port(*port, n)));
        }
        let mut bound = Vec::new();
        for port in ports {
            bound.push(std::net::TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
                format!("port {port} of 127.0.0.1 cannot be used: {error}; --port-offset moves all ports")
            })?);
        }
        Ok(())
    }

    /// Writes keys, certificates and configuration files; what is there already and must stay, stays.
    pub(super) fn write(&self, source: bool, cores: usize) -> Result<Keys, String> {
        let keys = self.keys()?;
        let pops: Vec<String> = (0..self.edges).map(pop).collect();
        certificates::make(&self.data, &pops)?;
        write_secret(&self.origin_config(), &self.origin_toml(&keys, source, cores))?;
        for n in 0..self.edges {
            write(&self.edge_config(n), &self.edge_toml(n))?;
        }
        Ok(keys)
    }

    fn keys(&self) -> Result<Keys, String> {
        let path = self.data.join("stream-keys.json");
        if let Ok(bytes) = std::fs::read(&path) {
            let unreadable =
                |error| format!("{}: {error}; remove it to have new stream keys made", path.display());
            return serde_json::from_slice(&bytes).map_err(unreadable);
        }
        let keys = Keys { demo: random_key()?, bench: random_key()? };
        let bytes = serde_json::to_string_pretty(&keys).map_err(|error| error.to_string())?;
        write_secret(&path, &bytes)?;
        Ok(keys)
    }

    fn ca(&self) -> PathBuf {
        self.data.join(certificates::CA)
    }

    fn origin_toml(&self, keys: &Keys, source: bool, cores: usize) -> String {
        let data = self.data.display().to_string();
        let mut out = String::from("# Written by `sigma-origin dev` at every start.\n");
        let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let _ = write!(
            out,
            "data_dir = {data_dir}\n\
             [http]\nbind = [\"127.0.0.1:{http}\"]\n\
             [tls]\nbind = [\"127.0.0.1:{tls}\"]\ncertificate = {certificate}\nkey = {key}\nclient_ca = {ca}\n\
             [ops]\nbind = \"127.0.0.1:{ops}\"\n\
             [rtmp]\nbind = [\"127.0.0.1:{rtmp}\"]\n\
             [transcode]\nthreads = {threads}\n",
            data_dir = quote(&data),
            http = self.port(ORIGIN_HTTP),
            tls = self.port(ORIGIN_TLS),
            certificate = quote(&format!("{data}/tls.pem")),
            key = quote(&format!("{data}/tls.key")),
            ca = quote(&self.ca().display().to_string()),
            ops = self.port(ORIGIN_OPS),
            rtmp = self.port(ORIGIN_RTMP),
            threads = cores.clamp(1, 16), // more does not make two small rungs any faster
        );
        let ladder = fitting_ladder(cores);
        for (id, height, bitrate) in &ladder {
            let _ = write!(out, "[[profiles]]\nid = \"{id}\"\nheight = {height}\nbitrate_bps = {bitrate}\n");
        }
        let ids: Vec<_> = ladder.iter().map(|(id, ..)| format!("\"{id}\"")).collect();
        let _ = write!(
            out,
            "[[channels]]\nid = \"demo\"\ntype = \"hybrid\"\nkey = {demo}\ndvr_window_s = {DEMO_DVR_S}\n\
             profiles = [{ids}]\n{source}\
             [[channels]]\nid = \"bench\"\ntype = \"forward\"\nkey = {bench}\npart_target_ms = 200\n",
            demo = quote(&keys.demo),
            ids = ids.join(", "),
            source = if source { "[channels.source]\n" } else { "" },
            bench = quote(&keys.bench),
        );
        out
    }

    fn edge_toml(&self, n: u16) -> String {
        let data = self.data.display().to_string();
        let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
        format!(
            "# Written by `sigma-origin dev` at every start.\n\
             pop = \"{pop}\"\n\
             [http]\nbind = [\"127.0.0.1:{http}\"]\n\
             [tls]\nbind = [\"127.0.0.1:{tls}\"]\ncertificate = {certificate}\nkey = {key}\n\
             [ops]\nbind = \"127.0.0.1:{ops}\"\n\
             [upstream]\nurls = [\"https://127.0.0.1:{origin}\"]\nca = {ca}\n\
             certificate = {client}\nkey = {client_key}\n\
             [pop_description]\nname = \"Development {number}\"\nregion = \"local\"\n\
             [reports]\nspool_dir = {spool}\n",
            pop = pop(n),
            number = n + 1,
            spool = quote(&format!("{data}/reports")),
            http = self.edge_port(EDGE_HTTP, n),
            tls = self.edge_port(EDGE_TLS, n),
            ops = self.edge_port(EDGE_OPS, n),
            origin = self.port(ORIGIN_TLS),
            certificate = quote(&format!("{data}/tls.pem")),
            key = quote(&format!("{data}/tls.key")),
            ca = quote(&self.ca().display().to_string()),
            client = quote(&format!("{data}/{}.pem", pop(n))),
            client_key = quote(&format!("{data}/{}.key", pop(n))),
        )
    }

    /// Returns when the origin and every edge say that they are ready.
    pub(super) async fn wait_until_ready(&self) {
        let mut ports = vec![self.port(ORIGIN_OPS)];
        ports.extend((0..self.edges).map(|n| self.edge_port(EDGE_OPS, n)));
        for port in ports {
            // The processes have nothing to tell through but their ports.
            while !is_ready(port).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    pub(super) fn announcement(&self, keys: &Keys, pids: &[u32]) -> Announcement {
        let origin = format!("http://127.0.0.1:{}", self.port(ORIGIN_HTTP));
        let rtmp = format!("rtmp://127.0.0.1:{}/live", self.port(ORIGIN_RTMP));
        let edges: Vec<_> = (0..self.edges)
            .map(|n| {
                let https = format!("https://127.0.0.1:{}", self.edge_port(EDGE_TLS, n));
                let http = format!("http://127.0.0.1:{}", self.edge_port(EDGE_HTTP, n));
                json!({
                    "pop": pop(n), "https": https, "http": http,
                    "ops": format!("http://127.0.0.1:{}", self.edge_port(EDGE_OPS, n)),
                })
            })
            .collect();
        let base = if self.edges == 0 {
            origin.clone()
        } else {
            format!("http://127.0.0.1:{}", self.port(EDGE_HTTP))
        };
        let watch = format!("{base}/watch/demo");
        let json = json!({
            "origin": origin,
            "origin_tls": format!("https://127.0.0.1:{}", self.port(ORIGIN_TLS)),
            "origin_ops": format!("http://127.0.0.1:{}", self.port(ORIGIN_OPS)),
            "watch": watch,
            "rtmp": rtmp,
            "edges": edges,
            "admin_token_file": self.data.join(crate::http::api::token::FILE),
            "stats": {
                "pops": format!("{origin}/api/v1/pops"),
                "demo": format!("{origin}/api/v1/stats/demo"),
                "bench": format!("{origin}/api/v1/stats/bench"),
            },
            "ca": self.ca(),
            "publish": {
                "demo": { "rtmp": format!("{rtmp}/{}", keys.demo) },
                "bench": { "rtmp": format!("{rtmp}/{}", keys.bench) },
            },
            "pids": { "origin": pids.first(), "edges": pids.get(1..).unwrap_or_default() },
        });
        let text = format!(
            "\nSigma Live serves.\n\
             \x20 watch    {watch}\n\
             \x20 publish  {rtmp}/{}   (channel bench, then {base}/watch/bench)\n\
             \x20 stop     Ctrl-C\n",
            keys.bench
        );
        Announcement { json: format!("{json:#}\n"), text }
    }
}

/// The rungs below the test source that this many cores can encode beside it and a player.
fn fitting_ladder(cores: usize) -> Vec<(&'static str, u32, u32)> {
    let ladder = [("v480", 480, 1_200_000), ("v360", 360, 700_000)];
    ladder.into_iter().skip(if cores < 2 { 1 } else { 0 }).collect()
}

async fn is_ready(port: u16) -> bool {
    let answer = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut head = [0; 12];
        socket.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    };
    matches!(answer.await, Ok(head) if &head == b"HTTP/1.1 200")
}

fn random_key() -> Result<String, String> {
    let mut bytes = [0u8; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    }))
}

/// Writes a file as it is read by everybody.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Readable by its owner alone.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| format!("{}: {error}", path.display()))
}
