use super::*;
use bytes::BytesMut;
use sigma_rtmp::flv::{write_file_header, write_tag};
use sigma_rtmp::{Limits, Refusal, ServerEvent, ServerSession};
use std::io::Write;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Accepts one publisher (or refuses it) and notes the timestamps of its video tags.
async fn serve(listener: TcpListener, refuse: bool, seen: watch::Sender<Vec<u32>>) -> Option<String> {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut session = ServerSession::new(Limits::default());
    let mut buffer = vec![0; 4096];
    let mut name = None;
    loop {
        let read = socket.read(&mut buffer).await.unwrap_or_default();
        if read == 0 {
            return name;
        }
        session.handle_input(&buffer[..read]).unwrap();
        while let Some(event) = session.poll_event() {
            match event {
                ServerEvent::PublishRequested { app, stream_name, .. } => {
                    name = Some(format!("{app}/{stream_name}"));
                    if refuse {
                        session.reject_publish(Refusal::BadName, "no such key");
                    } else {
                        session.accept_publish();
                    }
                }
                ServerEvent::Video { timestamp_ms, .. } => seen.send_modify(|seen| seen.push(timestamp_ms)),
                _ => {}
            }
        }
        while let Some(output) = session.poll_output() {
            socket.write_all(&output).await.unwrap();
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

fn broadcast(listener: &TcpListener, file: &Path) -> Broadcast {
    Broadcast {
        url: format!("rtmp://{}/live/KEY", listener.local_addr().unwrap()),
        file: Some(file.to_owned()),
        repeat: true,
        duration: None,
        allow_remote: false,
    }
}

#[tokio::test]
async fn a_looped_file_is_one_broadcast() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = clip();
    let broadcast = broadcast(&listener, file.path());
    let (sender, mut seen) = watch::channel(Vec::new());
    let server = tokio::spawn(serve(listener, false, sender));
    let mut enough = seen.clone();
    let stop = async move {
        enough.wait_for(|seen| seen.len() >= 8).await.unwrap();
    };
    let report = run(&broadcast, stop).await.unwrap();
    assert!(report.video_tags >= 8 && report.bytes > 0 && !report.input_ended);
    assert_eq!(seen.borrow_and_update()[..8], [0, 5, 10, 15, 20, 25, 30, 35]);
    assert!(report.seconds >= 0.035, "in real time");
    assert_eq!(server.await.unwrap().as_deref(), Some("live/KEY"));
}

#[tokio::test]
async fn once_without_loop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = clip();
    let broadcast = Broadcast { repeat: false, ..broadcast(&listener, file.path()) };
    let server = tokio::spawn(serve(listener, false, watch::channel(Vec::new()).0));
    let report = run(&broadcast, std::future::pending()).await.unwrap();
    assert!(report.video_tags == 3 && report.input_ended);
    server.await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = clip();
    let broadcast = broadcast(&listener, file.path());
    let server = tokio::spawn(serve(listener, true, watch::channel(Vec::new()).0));
    let refused = run(&broadcast, std::future::pending()).await.unwrap_err();
    assert!(matches!(refused, PublishError::Refused { .. }));
    assert!(refused.to_string().contains("NetStream.Publish.BadName"), "{refused}");
    drop(server);
}

#[tokio::test]
async fn what_is_no_flv_and_other_machines_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"GIF89a, certainly no FLV").unwrap();
    let broadcast = broadcast(&listener, file.path());
    let server = tokio::spawn(serve(listener, false, watch::channel(Vec::new()).0));
    let refused = run(&broadcast, std::future::pending()).await;
    assert!(matches!(refused, Err(PublishError::Flv(_))));
    server.await.unwrap();
    for (url, words) in [
        ("rtmp://192.0.2.1/live/K", "loopback"),
        ("rtmps://127.0.0.1/live/K", "rtmps"),
        ("http://127.0.0.1/live/K", "rtmp://"),
    ] {
        let broadcast = Broadcast { url: url.to_owned(), ..broadcast.clone() };
        let refused = run(&broadcast, std::future::pending()).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}
