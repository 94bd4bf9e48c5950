//! `ffmpeg` as a child process: it makes FLV of other files and of a test picture, and sends by SRT.
//!
//! Invariants: every child has a pipe to this process that it reads or writes all the time, and is killed when its owner
//! goes: however this process ends, its children end with it. What a child says is kept up to a bound.

use super::PublishError;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// The end of what a child said is kept, in bytes.
const SAID_BYTES: usize = 2_000;
/// What a child whose pipe has ended may still take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Size and frame rate of a test picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) fps: u32,
}

impl std::str::FromStr for Picture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (size, fps) = text.split_once('@')?;
            let (width, height) = size.split_once('x')?;
            Some(Self { width: width.parse().ok()?, height: height.parse().ok()?, fps: fps.parse().ok()? })
        };
        let picture = parts().ok_or("expected WIDTHxHEIGHT@FPS, e.g. 1280x720@30")?;
        let side = |pixels: u32| (16..=7_680).contains(&pixels) && pixels.is_multiple_of(2);
        if !side(picture.width) || !side(picture.height) || !(1..=120).contains(&picture.fps) {
            return Err("expected even sides of 16 to 7680 and 1 to 120 pictures a second".to_owned());
        }
        Ok(picture)
    }
}

/// What a child is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// The media of a file, unchanged, as FLV on its standard output.
    Remux(PathBuf),
    /// A test picture with a tone, in real time, as FLV on its standard output.
    Test(Picture, u32),
    /// FLV from its standard input to this SRT URL.
    Srt(String),
}

impl Work {
    fn arguments(&self) -> Vec<String> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut all = words("-hide_banner -nostdin -nostats -loglevel error");
        match self {
            Self::Remux(path) => {
                all.push("-i".to_owned());
                // A path that looks like an option, or like a protocol, is a file nevertheless.
                all.push(format!("file:{}", path.display()));
                all.extend(words("-map 0:v:0? -map 0:a:0? -c copy"));
                all.extend(words("-flvflags no_duration_filesize -f flv pipe:1"));
            }
            Self::Test(Picture { width, height, fps }, kbps) => {
                all.extend(words("-re -f lavfi -i"));
                all.push(format!("testsrc2=size={width}x{height}:rate={fps}"));
                all.extend(words("-re -f lavfi -i sine=frequency=440:sample_rate=48000"));
                all.extend(words(
                    "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -sc_threshold 0",
                ));
                // A key frame a second, whenever this second is.
                all.extend(words(&format!(
                    "-g {fps} -keyint_min {fps} -b:v {kbps}k -maxrate {kbps}k -bufsize {kbps}k"
                )));
                all.extend(words(
                    "-c:a aac -b:a 96k -flush_packets 1 -flvflags no_duration_filesize -f flv pipe:1",
                ));
            }
            Self::Srt(url) => {
                // What comes first is passed on at once, and what comes last is waited for.
                all.extend(words("-fpsprobesize 0 -analyzeduration 1000000 -f flv -i pipe:0 -map 0 -c copy"));
                all.extend(words("-flush_packets 1 -muxdelay 0 -muxpreload 0 -linger 2 -f mpegts"));
                all.push(url.clone());
            }
        }
        all
    }

    fn reads(&self) -> bool {
        matches!(self, Self::Srt(_))
    }

    /// For people.
    fn what(&self) -> String {
        match self {
            Self::Remux(path) => format!("reading {}", path.display()),
            Self::Test(..) => "making the test source".to_owned(),
            Self::Srt(_) => "sending by SRT".to_owned(),
        }
    }

    /// What a child said, without what is secret: it names the URL that it was given.
    fn discreet(&self, said: &str) -> String {
        let Self::Srt(url) = self else { return said.to_owned() };
        let (server, query) = url.split_once('?').unwrap_or((url, ""));
        let secret = |pair: &&str| matches!(pair.split('=').next(), Some("streamid" | "passphrase"));
        let values = query.split('&').filter(secret).filter_map(|pair| pair.split_once('='));
        values
            .filter(|(_, value)| !value.is_empty())
            .fold(said.replace(url, server), |said, (_, value)| said.replace(value, "***"))
    }
}

/// A child at work.
#[derive(Debug)]
pub(crate) struct Ffmpeg {
    work: Work,
    child: Child,
    said: JoinHandle<String>,
}

impl Ffmpeg {
    /// # Errors
    /// There is no such program, or the system has no room for it.
    pub(crate) fn start(program: &Path, work: Work) -> Result<Self, PublishError> {
        let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
        let mut child = Command::new(program)
            .args(work.arguments())
            .stdin(pipe(work.reads()))
            .stdout(pipe(!work.reads()))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C in the terminal is for this process, which ends its children in order.
            .process_group(0)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    PublishError::NoFfmpeg { program: program.to_owned(), what: work.what() }
                }
                _ => PublishError::Ffmpeg { what: work.what(), said: error.to_string() },
            })?;
        let stderr = child.stderr.take();
        let said = tokio::spawn(async move {
            match stderr {
                Some(stderr) => tail(stderr).await,
                None => String::new(),
            }
        });
        Ok(Self { work, child, said })
    }

    /// Its standard output; once.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard input; once.
    pub(crate) fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Resolves when it ended. Safe to cancel.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Why it ended, of a child that did.
    pub(crate) async fn complaint(&mut self) -> PublishError {
        let said = (&mut self.said).await.unwrap_or_default();
        let said = self.work.discreet(said.trim());
        let said = if said.is_empty() { "it ended early and did not say why".to_owned() } else { said };
        PublishError::Ffmpeg { what: self.work.what(), said }
    }

    /// Waits for the end of a child whose pipe has been closed.
    ///
    /// # Errors
    /// It did not end, or not well.
    pub(crate) async fn finish(mut self) -> Result<(), PublishError> {
        match tokio::time::timeout(END_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err(self.complaint().await),
            Err(_) => Err(PublishError::Ffmpeg {
                what: self.work.what(),
                said: format!("it does not end within {END_TIMEOUT:?}"),
            }),
        }
    }
}

/// The end of what is said, in whole lines.
async fn tail(mut stderr: impl AsyncRead + Unpin) -> String {
    let (mut said, mut buffer) = (Vec::new(), [0; 512]);
    let mut cut = false;
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..read]);
        let beyond = said.len().saturating_sub(SAID_BYTES);
        said.drain(..beyond);
        cut |= beyond > 0;
    }
    // Half a line may be half a secret, which nobody would find.
    if cut && let Some(end) = said.iter().position(|byte| *byte == b'\n') {
        said.drain(..=end);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures() {
        let picture: Picture = "1280x720@30".parse().unwrap();
        assert_eq!((picture.width, picture.height, picture.fps), (1280, 720, 30));
        for bad in ["", "1280x720", "1280@30", "0x0@30", "1281x720@30", "1280x720@0", "1280x720@121", "axb@c"]
        {
            assert!(bad.parse::<Picture>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_a_file_whatever_it_is_called() {
        let arguments = Work::Remux("-y".into()).arguments();
        assert!(arguments.contains(&"file:-y".to_owned()) && !arguments.contains(&"-y".to_owned()));
    }

    #[test]
    fn what_a_child_says_is_no_place_for_secrets() {
        let work = Work::Srt("srt://127.0.0.1:1?mode=caller&streamid=KEY&passphrase=hush".into());
        for (said, kept) in [
            ("srt://127.0.0.1:1?mode=caller&streamid=KEY&passphrase=hush: no", "srt://127.0.0.1:1: no"),
            ("stream KEY, secret hush", "stream ***, secret ***"),
            ("Input/output error", "Input/output error"),
        ] {
            assert_eq!(work.discreet(said), kept);
        }
    }

    #[tokio::test]
    async fn only_the_end_of_a_long_complaint_is_kept() {
        let long = "x".repeat(10 * SAID_BYTES) + "the end";
        let said = tail(long.as_bytes()).await;
        assert!(said.len() == SAID_BYTES && said.ends_with("the end"));
        let lines = format!("srt://h:1?streamid=KEY\n{}\nthe end", "x".repeat(SAID_BYTES - 12));
        assert_eq!(tail(lines.as_bytes()).await, format!("{}\nthe end", "x".repeat(SAID_BYTES - 12)));
    }
}
