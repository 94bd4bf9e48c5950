//! The worker as its parent sees it: a real child process, sandbox and all.
//!
//! This binary is both ends. Started with `media-worker` it is the child; otherwise it runs the tests.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test binary with a main of its own")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libtest_mimic::{Arguments, Trial};
use sigma_worker::protocol::{
    AudioFrame, AudioJob, FrameReader, FromWorker, Job, Message, Rational, Rung, TestSourceJob, ToWorker,
    Totals, TranscodeJob, VideoFrame, VideoInput, VideoSample,
};

/// Epoch anchored ticks, as the parent uses them.
const BASE: i64 = 158_743_000_000_000;
const FPS: u32 = 30;
const FRAME_TICKS: i64 = 3000;
const GOP: usize = 15;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("media-worker") {
        return sigma_worker::run();
    }
    let tests: [(&str, fn()); 9] = [
        ("ladder_has_idrs_on_the_flagged_frames_and_keeps_times", ladder),
        ("a_picture_leaves_before_the_next_one_comes", lockstep),
        ("audio_is_continuous_and_resampled", audio),
        ("audio_gaps_and_steps_back", audio_jumps),
        ("garbage_does_not_kill_the_child", garbage),
        ("impossible_jobs_are_survived", impossible_jobs),
        ("real_time_is_paced", real_time),
        ("end_of_stdin_flushes_and_exits_0", end_of_stdin),
        ("the_child_is_sandboxed_and_refuses_noise", sandboxed),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<FromWorker>,
    stderr: Option<JoinHandle<String>>,
}

impl Worker {
    fn spawn() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("media-worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, messages) = sync_channel(100_000);
        std::thread::spawn(move || {
            let mut reader = FrameReader::<FromWorker>::new();
            let mut chunk = vec![0; 65536];
            while let Ok(length @ 1..) = stdout.read(&mut chunk) {
                reader.push(&chunk[..length]);
                while let Some(message) = reader.pull().unwrap() {
                    let _ = sender.send(message);
                }
            }
            assert!(reader.is_empty(), "stdout ended inside a message");
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { stdin: child.stdin.take(), child, messages, stderr: Some(stderr) }
    }

    fn send(&mut self, message: &ToWorker) {
        let mut wire = Vec::new();
        message.encode(&mut wire).unwrap();
        self.stdin.as_mut().unwrap().write_all(&wire).unwrap();
    }

    fn start(&mut self, job: Job) {
        self.send(&ToWorker::Start(Box::new(job)));
    }

    fn next(&self) -> FromWorker {
        self.messages.recv_timeout(PATIENCE).expect("the child answers")
    }

    fn flush(&mut self) -> Output {
        let mut output = Output::default();
        self.flush_into(&mut output);
        output
    }

    fn flush_into(&mut self, output: &mut Output) {
        self.send(&ToWorker::Flush);
        loop {
            match self.next() {
                FromWorker::Flushed(totals) => {
                    output.totals = totals;
                    return;
                }
                message => output.take(message),
            }
        }
    }

    /// Closes stdin and waits for the end.
    fn end(mut self) -> (ExitStatus, Output, String) {
        drop(self.stdin.take());
        let mut output = Output::default();
        while let Ok(message) = self.messages.recv_timeout(PATIENCE) {
            output.take(message);
        }
        (self.child.wait().unwrap(), output, self.stderr.take().unwrap().join().unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default, Clone)]
struct Output {
    configs: Vec<sigma_worker::protocol::VideoConfig>,
    asc: Vec<u8>,
    video: Vec<VideoFrame>,
    audio: Vec<AudioFrame>,
    totals: Totals,
}

impl Output {
    fn take(&mut self, message: FromWorker) {
        match message {
            FromWorker::VideoConfig(config) => self.configs.push(config),
            FromWorker::AudioConfig(asc) => self.asc = asc.to_vec(),
            FromWorker::Video(frame) => {
                assert!(self.configs.iter().any(|config| config.track == frame.track), "config comes first");
                self.video.push(frame);
            }
            FromWorker::Audio(frame) => self.audio.push(frame),
            FromWorker::Flushed(_) => panic!("Flushed without Flush"),
        }
    }

    fn track(&self, track: u16) -> Vec<&VideoFrame> {
        self.video.iter().filter(|frame| frame.track == track).collect()
    }
}

fn source_job(real_time: bool) -> Job {
    Job::TestSource(TestSourceJob {
        width: 320,
        height: 180,
        frame_rate: Rational { num: FPS, den: 1 },
        video_bitrate_bps: 800_000,
        audio_bitrate_bps: 96_000,
        gop_frames: u32::try_from(GOP).unwrap(),
        preset: "ultrafast".into(),
        label: "test".into(),
        real_time,
    })
}

/// At least `frames` pictures of the test source with their sound.
fn footage(worker: &mut Worker, frames: usize) -> Output {
    worker.start(source_job(false));
    let mut output = Output::default();
    while output.video.len() < frames {
        output.take(worker.next());
    }
    worker.flush_into(&mut output);
    output.video.truncate(frames);
    output
}

fn rung(id: &str, width: u32, height: u32, max_frame_rate: u32) -> Rung {
    Rung { id: id.into(), width, height, bitrate_bps: 300_000, max_frame_rate, preset: String::new() }
}

fn ladder_job(footage: &Output, threads: u32) -> TranscodeJob {
    TranscodeJob {
        video: VideoInput {
            avcc: footage.configs[0].avcc.to_vec(),
            width: 320,
            height: 180,
            frame_rate: Rational { num: FPS, den: 1 },
        },
        audio: Some(AudioJob {
            asc: footage.asc.clone(),
            bitrate_bps: 64_000,
            sample_rate: 48_000,
            channels: 2,
        }),
        rungs: vec![rung("same", 320, 180, 60), rung("small", 160, 90, 30), rung("slow", 256, 144, 15)],
        threads,
    }
}

fn sample(frame: &VideoFrame, segment_start: bool) -> ToWorker {
    ToWorker::Video(VideoSample {
        dts: BASE + frame.dts,
        pts: BASE + frame.pts,
        sync: frame.sync,
        segment_start,
        payload: frame.payload.clone(),
    })
}

fn sound(frame: &AudioFrame, shift: i64) -> ToWorker {
    ToWorker::Audio(AudioFrame { pts: BASE + shift + frame.pts, payload: frame.payload.clone() })
}

fn ladder() {
    let mut worker = Worker::spawn();
    let footage = footage(&mut worker, 60);
    let syncs: Vec<usize> = (0..60).filter(|&at| footage.video[at].sync).collect();
    assert_eq!(syncs, [0, 15, 30, 45]);
    assert!(footage.video.windows(2).all(|pair| pair[1].pts - pair[0].pts == FRAME_TICKS));
    // Segments need not start where the source has its IDRs; frame 7 proves that ours are placed by the flag.
    let starts = [7usize, 30, 45];
    for threads in [1, 4] {
        worker.start(Job::Transcode(ladder_job(&footage, threads)));
        for (at, frame) in footage.video.iter().enumerate() {
            worker.send(&sample(frame, starts.contains(&at)));
        }
        let output = worker.flush();
        assert_eq!(output.totals.video_pictures, 60);
        assert_eq!(output.totals.video_dropped, 0);
        assert_eq!(output.configs.len(), 3);
        for track in 0..3u16 {
            let frames = output.track(track);
            let flagged: Vec<i64> = starts.iter().map(|&at| BASE + footage.video[at].pts).collect();
            let of = |wanted: fn(&VideoFrame) -> bool| -> Vec<i64> {
                frames.iter().filter(|frame| wanted(frame)).map(|frame| frame.pts).collect()
            };
            assert_eq!(of(|frame| frame.segment_start), flagged, "track {track}");
            assert_eq!(of(|frame| frame.sync), [&[BASE], &flagged[..]].concat(), "track {track}");
            assert!(frames.iter().all(|frame| frame.dts == frame.pts && is_avcc(&frame.payload)));
            let all: Vec<i64> = footage.video.iter().map(|frame| BASE + frame.pts).collect();
            if track < 2 {
                assert_eq!(of(|_| true), all);
            } else {
                let kept = of(|_| true);
                assert!((30..=34).contains(&kept.len()) && kept.iter().all(|pts| all.contains(pts)));
            }
        }
        let slow = output.configs.iter().find(|config| config.track == 2).unwrap();
        assert_eq!((slow.width, slow.height, slow.frame_rate), (256, 144, Rational { num: 15, den: 1 }));
        assert_eq!(slow.avcc[0], 1);
    }
}

fn lockstep() {
    let mut worker = Worker::spawn();
    let footage = footage(&mut worker, 20);
    let mut job = ladder_job(&footage, 2);
    job.rungs.pop();
    job.audio = None;
    worker.start(Job::Transcode(job));
    for frame in &footage.video {
        worker.send(&sample(frame, frame.sync));
        let mut tracks = Vec::new();
        while tracks.len() < 2 {
            if let FromWorker::Video(coded) = worker.next() {
                assert_eq!(coded.pts, BASE + frame.pts);
                tracks.push(coded.track);
            }
        }
        tracks.sort_unstable();
        assert_eq!(tracks, [0, 1]);
    }
}

/// Whole 4-byte length-prefixed NAL units, slices only.
fn is_avcc(mut payload: &[u8]) -> bool {
    while let Some((length, rest)) = payload.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        if length == 0 || length > rest.len() || !matches!(rest[0] & 0x1f, 1 | 5) {
            return false;
        }
        payload = &rest[length..];
    }
    payload.is_empty()
}

fn audio() {
    let mut worker = Worker::spawn();
    let footage = footage(&mut worker, 60);
    assert!(footage.audio.len() >= 90);
    assert!(
        footage.audio.iter().enumerate().all(|(at, frame)| frame.pts == 1920 * i64::try_from(at).unwrap())
    );
    for (sample_rate, channels) in [(48_000, 2), (44_100, 2), (48_000, 1)] {
        let mut job = ladder_job(&footage, 2);
        job.audio = Some(AudioJob { asc: footage.asc.clone(), bitrate_bps: 64_000, sample_rate, channels });
        worker.start(Job::Transcode(job));
        // Jitter well below the resynchronisation limit changes nothing.
        for (at, frame) in footage.audio.iter().enumerate() {
            worker.send(&sound(frame, [0, 1700, -1700][at % 3]));
        }
        let output = worker.flush();
        assert!(!output.asc.is_empty());
        assert_eq!(output.totals.audio_dropped, 0);
        for (at, frame) in output.audio.iter().enumerate() {
            let samples = 1024 * i64::try_from(at).unwrap();
            assert_eq!(frame.pts, BASE + samples * 90_000 / i64::from(sample_rate));
        }
        let blocks = (footage.audio.len() * usize::try_from(sample_rate).unwrap()).div_ceil(48_000);
        assert!((blocks..=blocks + 1).contains(&output.audio.len()), "{} of {blocks}", output.audio.len());
    }
}

fn audio_jumps() {
    let mut worker = Worker::spawn();
    let footage = footage(&mut worker, 60);
    worker.start(Job::Transcode(ladder_job(&footage, 1)));
    let gap = 20_000;
    for (at, frame) in footage.audio.iter().enumerate().take(90) {
        match at {
            // A second of an earlier time in the middle: dropped, not played twice.
            40 => worker.send(&sound(frame, -90_000)),
            // Undecodable: silence, the clock goes on.
            20 => worker.send(&ToWorker::Audio(AudioFrame {
                pts: BASE + frame.pts,
                payload: Bytes::from_static(&[0xff; 9]),
            })),
            _ => worker.send(&sound(frame, if at < 60 { 0 } else { gap })),
        }
    }
    let output = worker.flush();
    let times: Vec<i64> = output.audio.iter().map(|frame| frame.pts - BASE).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1920), "{times:?}");
    // Frame 60 is found at its new place; the one before it within the jitter limit of its own.
    assert!(times.contains(&(60 * 1920 + gap)), "{times:?}");
    assert_eq!(times[..58], (0..58).map(|at| at * 1920).collect::<Vec<_>>());
    assert!((1..=2).contains(&output.totals.audio_dropped), "{:?}", output.totals);
}

fn garbage() {
    let mut worker = Worker::spawn();
    let footage = footage(&mut worker, 60);
    worker.start(Job::Transcode(ladder_job(&footage, 2)));
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for (at, frame) in footage.video.iter().enumerate().take(45) {
        let mut payload = frame.payload.to_vec();
        match at % 5 {
            1 => payload = (0..random() % 3000).map(|_| random().to_le_bytes()[0]).collect(),
            2 => payload.truncate(payload.len() / 2),
            3 => {
                for _ in 0..20 {
                    let at = usize::try_from(random()).unwrap() % payload.len();
                    payload[at] = random().to_le_bytes()[0];
                }
            }
            _ => {}
        }
        let sync = random() % 4 == 0;
        let (dts, pts) = (BASE + frame.dts, BASE + frame.pts);
        worker.send(&ToWorker::Video(VideoSample {
            dts,
            pts,
            sync,
            segment_start: at == 30,
            payload: payload.into(),
        }));
        let payload: Vec<u8> = (0..random() % 300).map(|_| random().to_le_bytes()[0]).collect();
        worker.send(&ToWorker::Audio(AudioFrame { pts: BASE + frame.pts, payload: payload.into() }));
    }
    for time in [i64::MIN, i64::MAX] {
        let payload = footage.video[0].payload.clone();
        let (dts, pts, sync, segment_start) = (time, time, true, false);
        worker.send(&ToWorker::Video(VideoSample { dts, pts, sync, segment_start, payload }));
        let payload = footage.audio[0].payload.clone();
        worker.send(&ToWorker::Audio(AudioFrame { pts: time, payload }));
    }
    // From a good random access point on everything is back.
    for (at, frame) in footage.video.iter().enumerate().skip(45) {
        worker.send(&sample(frame, at == 45));
    }
    let output = worker.flush();
    assert!(output.totals.video_dropped > 0 && output.totals.audio_dropped > 0);
    for track in 0..2 {
        let good: Vec<i64> =
            output.track(track).iter().map(|f| f.pts).filter(|&pts| pts >= BASE + 135_000).collect();
        assert_eq!(good, (45..60).map(|at| BASE + at * FRAME_TICKS).collect::<Vec<_>>());
        let frames = output.track(track);
        assert!(frames.iter().any(|f| f.pts == BASE + 135_000 && f.sync && f.segment_start));
        assert!(frames.iter().all(|f| !f.segment_start || f.sync));
    }
    let (status, _, stderr) = worker.end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains("undecodable video") && stderr.contains("undecodable audio"), "{stderr}");
    assert!(stderr.lines().count() < 60, "{stderr}");
}

fn impossible_jobs() {
    let mut worker = Worker::spawn();
    let footage = footage(&mut worker, 20);
    let good = ladder_job(&footage, 1);
    let mut jobs = vec![good.clone(); 6];
    jobs[0].rungs.clear();
    jobs[1].rungs[0].width = 321;
    jobs[2].rungs[0].preset = "warp speed".into();
    jobs[3].video.frame_rate.den = 0;
    jobs[4].threads = 0;
    jobs[5].video.avcc = vec![1, 2, 3];
    for job in jobs {
        worker.start(Job::Transcode(job));
        for frame in &footage.video {
            worker.send(&sample(frame, frame.sync));
        }
        let output = worker.flush();
        assert_eq!(output.totals.video_in, 20);
    }
    let mut job = good.clone();
    job.audio = Some(AudioJob { asc: vec![0xff; 3], bitrate_bps: 0, sample_rate: 7, channels: 99 });
    worker.start(Job::Transcode(job));
    for frame in &footage.video {
        worker.send(&sample(frame, frame.sync));
    }
    assert_eq!(worker.flush().track(0).len(), 20);
    worker.start(Job::TestSource(TestSourceJob {
        width: 3,
        height: 0,
        frame_rate: Rational { num: 0, den: 0 },
        video_bitrate_bps: 0,
        audio_bitrate_bps: 0,
        gop_frames: 0,
        preset: String::new(),
        label: String::new(),
        real_time: true,
    }));
    assert_eq!(worker.flush().totals, Totals::default());
    // Flush without a run is answered too.
    assert_eq!(worker.flush().totals, Totals::default());
}

fn real_time() {
    let mut worker = Worker::spawn();
    let begin = Instant::now();
    worker.start(source_job(true));
    let mut output = Output::default();
    while output.video.len() < 13 {
        output.take(worker.next());
    }
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    let pts: Vec<i64> = output.video.iter().map(|frame| frame.pts).collect();
    assert_eq!(pts[0], 0);
    assert!(pts.windows(2).all(|pair| pair[1] > pair[0] && pair[1] % FRAME_TICKS == 0));
    assert!(output.audio.last().unwrap().pts <= pts[12]);
}

fn end_of_stdin() {
    let mut worker = Worker::spawn();
    let footage = footage(&mut worker, 20);
    worker.start(Job::Transcode(ladder_job(&footage, 2)));
    for frame in &footage.video {
        worker.send(&sample(frame, frame.sync));
    }
    let (status, output, stderr) = worker.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(output.track(0).len(), 20);
    assert_eq!(output.track(1).len(), 20);
}

fn sandboxed() {
    let mut worker = Worker::spawn();
    // An answer means the sandbox is entered and its own escape probes have failed.
    worker.flush();
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.child.id())).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.lines().any(|found| found == line), "{status}");
    }
    worker.stdin.as_mut().unwrap().write_all(&[0, 0, 0, 1, 200]).unwrap();
    let (status, _, stderr) = worker.end();
    assert_eq!(status.code(), Some(i32::from(sigma_worker::EXIT_PROTOCOL)));
    assert!(stderr.contains("unknown message kind 200"), "{stderr}");
    assert!(!stderr.contains("self-test"), "{stderr}");
}
