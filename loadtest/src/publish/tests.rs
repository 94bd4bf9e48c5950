use super::*;
use bytes::{Bytes, BytesMut};
use sigma_rtmp::flv::{FlvReader, FlvTag, TagKind, write_file_header, write_tag};
use sigma_rtmp::{Limits, Refusal, ServerEvent, ServerSession};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What came under each name: time, kind and payload.
type Seen = BTreeMap<String, Vec<(u32, TagKind, Bytes)>>;

/// What a server does with whoever comes.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Takes,
    Refuses,
    /// Hangs up on the first one after so many tags.
    HangsUp(usize),
    /// Reads nothing more after so many tags.
    Stares(usize),
}

/// A server of publishers, and what it saw.
async fn serve(manner: Manner) -> (String, watch::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtmp://{}/live/KEY", listener.local_addr().unwrap());
    let (sender, seen) = watch::channel(Seen::new());
    let sender = Arc::new(sender);
    tokio::spawn(async move {
        let mut manner = manner;
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(publisher_of(socket, manner, Arc::clone(&sender)));
            if let Manner::HangsUp(_) = manner {
                manner = Manner::Takes;
            }
        }
    });
    (url, seen)
}

async fn publisher_of(mut socket: TcpStream, manner: Manner, seen: Arc<watch::Sender<Seen>>) {
    let mut session = ServerSession::new(Limits::default());
    let mut buffer = vec![0; 65_536];
    let (mut name, mut tags) = (String::new(), 0);
    loop {
        let read = socket.read(&mut buffer).await.unwrap_or_default();
        if read == 0 {
            return;
        }
        session.handle_input(&buffer[..read]).unwrap();
        while let Some(event) = session.poll_event() {
            let (kind, timestamp_ms, payload) = match event {
                ServerEvent::PublishRequested { app, stream_name, .. } => {
                    name = format!("{app}/{stream_name}");
                    match manner {
                        Manner::Refuses => session.reject_publish(Refusal::BadName, "no such key"),
                        _ => session.accept_publish(),
                    }
                    continue;
                }
                ServerEvent::Video { timestamp_ms, payload } => (TagKind::Video, timestamp_ms, payload),
                ServerEvent::Audio { timestamp_ms, payload } => (TagKind::Audio, timestamp_ms, payload),
                _ => continue,
            };
            tags += 1;
            seen.send_modify(|seen| {
                seen.entry(name.clone()).or_default().push((timestamp_ms, kind, payload));
            });
        }
        while let Some(output) = session.poll_output() {
            socket.write_all(&output).await.unwrap();
        }
        match manner {
            Manner::HangsUp(after) if tags >= after => return,
            Manner::Stares(after) if tags >= after => std::future::pending().await,
            _ => {}
        }
    }
}

/// Three video tags, 5 ms apart, beginning at 1 s.
fn clip() -> tempfile::NamedTempFile {
    let mut bytes = BytesMut::new();
    write_file_header(false, true, &mut bytes);
    for timestamp_ms in [1000, 1005, 1010] {
        let payload = Bytes::from_static(&[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65]);
        let tag = FlvTag { timestamp_ms, kind: TagKind::Video, payload };
        write_tag(&tag, &mut bytes).unwrap();
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

fn order(url: &str, input: Input) -> Order {
    Order {
        url: url.to_owned(),
        count: 1,
        input,
        repeat: false,
        duration: None,
        reconnects: 0,
        allow_remote: false,
        ffmpeg: "ffmpeg".into(),
        max_errors: 0,
    }
}

/// Resolves when each of so many publishers has sent so many pictures.
async fn pictures(mut seen: watch::Receiver<Seen>, publishers: usize, count: usize) {
    let enough = |seen: &Seen| {
        let of =
            |tags: &Vec<(u32, TagKind, Bytes)>| tags.iter().filter(|tag| tag.1 == TagKind::Video).count();
        seen.len() == publishers && seen.values().all(|tags| of(tags) >= count)
    };
    seen.wait_for(enough).await.unwrap();
}

#[tokio::test]
async fn a_looped_file_is_one_broadcast() {
    let (url, seen) = serve(Manner::Takes).await;
    let file = clip();
    let order = Order { repeat: true, ..order(&url, Input::File(file.path().to_owned())) };
    let report = run(order, pictures(seen.clone(), 1, 8)).await.unwrap();
    assert!(report.passed && report.video_tags >= 8 && report.bytes > 0 && !report.input_ended, "{report:?}");
    let times: Vec<u32> = seen.borrow()["live/KEY"].iter().map(|tag| tag.0).collect();
    assert_eq!(times[..8], [0, 5, 10, 15, 20, 25, 30, 35]);
    assert!(report.seconds >= 0.035, "in real time");
    assert!(!serde_json::to_string(&report).unwrap().contains("KEY"), "stream keys are secret");
}

#[tokio::test]
async fn many_publishers_each_under_its_name() {
    let (url, seen) = serve(Manner::Takes).await;
    let file = clip();
    let url = url.replace("KEY", "key-{n}");
    let order = Order { count: 5, ..order(&url, Input::File(file.path().to_owned())) };
    let report = run(order, std::future::pending()).await.unwrap();
    assert!(report.passed && report.input_ended, "{report:?}");
    assert_eq!((report.publishers.len(), report.video_tags), (5, 15));
    assert_eq!(report.publishers.iter().map(|one| one.video_tags).collect::<Vec<_>>(), [3; 5]);
    pictures(seen.clone(), 5, 3).await;
    let names: Vec<String> = seen.borrow().keys().cloned().collect();
    assert_eq!(names, ["live/key-1", "live/key-2", "live/key-3", "live/key-4", "live/key-5"]);
}

#[tokio::test]
async fn a_refusal_is_told() {
    let (url, _seen) = serve(Manner::Refuses).await;
    let file = clip();
    let order = order(&url, Input::File(file.path().to_owned()));
    let report = run(order, std::future::pending()).await.unwrap();
    assert!(!report.passed && report.errors_total == 1);
    assert!(report.publishers[0].errors[0].contains("NetStream.Publish.BadName"), "{report:?}");
}

#[tokio::test]
async fn who_loses_the_server_comes_back_with_a_key_frame() {
    let (url, seen) = serve(Manner::HangsUp(4)).await;
    let mut bytes = BytesMut::new();
    write_file_header(false, true, &mut bytes);
    let mut write = |timestamp_ms, payload: &'static [u8]| {
        let tag = FlvTag { timestamp_ms, kind: TagKind::Video, payload: Bytes::from_static(payload) };
        write_tag(&tag, &mut bytes).unwrap();
    };
    const HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65];
    write(0, HEADER);
    for at in 0..300 {
        write(at * 10, if at % 10 == 0 { KEY } else { &[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41] });
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let lossy = Order { reconnects: 1, ..order(&url, Input::File(file.path().to_owned())) };
    let report = run(lossy, std::future::pending()).await.unwrap();
    assert_eq!((report.reconnects, report.errors_total, report.passed), (1, 1, false), "{report:?}");
    assert!(report.input_ended && report.skipped_tags >= 90, "a second was left out: {report:?}");
    let seen = seen.borrow();
    let tags = &seen["live/KEY"];
    let back = tags.iter().rposition(|tag| tag.2 == HEADER).unwrap();
    assert!(back > 0, "the header is said again");
    assert_eq!(tags[back + 1].2, KEY);
    assert_eq!(tags[back].0, tags[back + 1].0);
    assert!(tags[back].0 >= tags[back - 1].0 + 900, "time went on meanwhile");
}

#[tokio::test]
async fn its_time_ends_when_the_server_reads_nothing_any_more() {
    let (url, _seen) = serve(Manner::Stares(2)).await;
    let mut bytes = BytesMut::new();
    write_file_header(false, true, &mut bytes);
    // More than sockets hold.
    let mut payload = vec![0x17, 1, 0, 0, 0];
    payload.resize(1 << 20, 0);
    for at in 0..60 {
        let tag =
            FlvTag { timestamp_ms: at * 5, kind: TagKind::Video, payload: Bytes::from(payload.clone()) };
        write_tag(&tag, &mut bytes).unwrap();
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let order = Order {
        duration: Some(Duration::from_secs(1)),
        reconnects: 9,
        ..order(&url, Input::File(file.path().to_owned()))
    };
    let report = run(order, std::future::pending()).await.unwrap();
    assert_eq!(report.publishers[0].errors, ["the server takes nothing any more"]);
    assert!(!report.passed && report.seconds < 5.0, "{}", report.seconds);
}

#[tokio::test]
async fn nothing_sent_and_half_a_tag_are_errors() {
    let (url, _seen) = serve(Manner::Takes).await;
    let whole = std::fs::read(clip().path()).unwrap();
    for (length, error, sent) in [
        (13, "nothing was sent", 0),
        (whole.len() - 10, "in the middle of a tag", 2),
        // Without the size behind the last one, which nobody needs.
        (whole.len() - 4, "", 3),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&whole[..length]).unwrap();
        let order = order(&url, Input::File(file.path().to_owned()));
        let report = run(order, std::future::pending()).await.unwrap();
        assert_eq!((report.passed, report.video_tags), (error.is_empty(), sent), "{length}: {report:?}");
        assert!(report.publishers[0].errors.concat().contains(error), "{report:?}");
    }
}

/// A film of a second, as a container that is no FLV.
fn film() -> tempfile::TempPath {
    let path = tempfile::Builder::new().suffix(".mp4").tempfile().unwrap().into_temp_path();
    let made = std::process::Command::new("ffmpeg")
        .args("-loglevel error -y -f lavfi -i testsrc2=size=160x90:rate=25:duration=1".split(' '))
        .args("-f lavfi -i sine=duration=1 -c:v libx264 -preset ultrafast -bf 0 -g 25 -c:a aac".split(' '))
        .arg(&*path)
        .status()
        .unwrap();
    assert!(made.success());
    path
}

#[tokio::test]
async fn other_containers_go_through_ffmpeg() {
    let (url, seen) = serve(Manner::Takes).await;
    let film = film();
    let looped = Order { repeat: true, ..order(&url, Input::File(film.to_path_buf())) };
    let report = run(looped, pictures(seen.clone(), 1, 30)).await.unwrap();
    assert!(report.passed && report.audio_tags > 20, "{report:?}");
    let missing = Order { ffmpeg: "no-such-program".into(), ..order(&url, Input::File(film.to_path_buf())) };
    let report = run(missing, std::future::pending()).await.unwrap();
    let error = &report.publishers[0].errors[0];
    assert!(!report.passed && error.contains("no-such-program") && error.contains("--ffmpeg"), "{error}");
}

#[tokio::test]
async fn one_test_source_for_all() {
    let (url, seen) = serve(Manner::Takes).await;
    let picture = "160x90@25".parse().unwrap();
    let url = url.replace("KEY", "{n}");
    let order = Order { count: 3, ..order(&url, Input::Test(picture, 200)) };
    let report = run(order, pictures(seen.clone(), 3, 30)).await.unwrap();
    assert!(report.passed && report.publishers.iter().all(|one| one.audio_tags > 20), "{report:?}");
    let seen = seen.borrow();
    let pictures = |name: &str| {
        let video = seen[name].iter().filter(|tag| tag.1 == TagKind::Video);
        video.take(30).map(|tag| (tag.0, tag.2.clone())).collect::<Vec<_>>()
    };
    assert_eq!(pictures("live/1"), pictures("live/3"), "encoded once");
}

#[tokio::test]
async fn by_srt_it_arrives_as_a_transport_stream() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = tokio::process::Command::new("ffmpeg")
        .args("-loglevel error -nostdin -f mpegts -i".split(' '))
        .arg(format!("srt://127.0.0.1:{port}?mode=listener"))
        .args("-c copy -f flv -flvflags no_duration_filesize pipe:1".split(' '))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let film = film();
    let url = format!("srt://127.0.0.1:{port}?streamid=KEY");
    let order = Order {
        repeat: true,
        duration: Some(Duration::from_secs(3)),
        ..order(&url, Input::File(film.to_path_buf()))
    };
    let report = run(order, std::future::pending()).await.unwrap();
    assert!(report.passed && report.video_tags >= 60, "{report:?}");
    assert!(!serde_json::to_string(&report).unwrap().contains("KEY"));
    let mut got = Vec::new();
    server.stdout.take().unwrap().read_to_end(&mut got).await.unwrap();
    let mut reader = FlvReader::new(1 << 20);
    reader.push(&got);
    let mut pictures = 0;
    while let Some(tag) = reader.next_tag().unwrap() {
        pictures += u64::from(tag.kind == TagKind::Video);
    }
    assert!(pictures >= 50 && pictures <= report.video_tags + 2, "{pictures} of {}", report.video_tags);
}

#[tokio::test]
async fn nobody_listening_by_srt_is_an_error_with_a_reason() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let film = film();
    let url = format!("srt://127.0.0.1:{port}?streamid=KEY&connect_timeout=300");
    let report = run(order(&url, Input::File(film.to_path_buf())), std::future::pending()).await.unwrap();
    assert!(!report.passed && report.publishers[0].errors[0].contains("sending by SRT"), "{report:?}");
    assert!(!serde_json::to_string(&report).unwrap().contains("KEY"), "stream keys are secret: {report:?}");
}

#[tokio::test]
async fn what_is_no_media_and_other_machines_are_refused() {
    let (url, _seen) = serve(Manner::Takes).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"GIF89a, certainly no film").unwrap();
    let order = order(&url, Input::File(file.path().to_owned()));
    let report = run(order.clone(), std::future::pending()).await.unwrap();
    assert!(report.publishers[0].errors[0].contains("ffmpeg, reading"), "{report:?}");
    let missing = Order { input: Input::File(Path::new("/nonexistent").to_owned()), ..order.clone() };
    let report = run(missing, std::future::pending()).await.unwrap();
    assert!(report.publishers[0].errors[0].contains("/nonexistent"), "{report:?}");
    for (url, words) in [
        ("rtmp://192.0.2.1/live/K", "loopback"),
        ("srt://192.0.2.1:1?streamid=K", "loopback"),
        ("rtmps://127.0.0.1/live/K", "rtmps"),
        ("http://127.0.0.1/live/K", "rtmp://"),
    ] {
        let refused =
            run(Order { url: url.to_owned(), ..order.clone() }, std::future::pending()).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let one_for_all = run(Order { count: 2, ..order }, std::future::pending()).await.unwrap_err();
    assert!(one_for_all.to_string().contains("{n}"), "{one_for_all}");
}
