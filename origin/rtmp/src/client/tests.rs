use super::*;
use crate::{Refusal, ServerEvent, ServerSession};

/// A client and a server joined in memory; every byte the client sent is kept.
struct Pair {
    client: ClientSession,
    server: ServerSession,
}

impl Pair {
    fn new() -> Self {
        let config = ClientConfig::new("rtmp://127.0.0.1:1935/live", "live", "key?token=t");
        Self { client: ClientSession::new(config), server: ServerSession::new(Limits::default()) }
    }

    /// Carries bytes both ways until neither side has any left.
    fn settle(&mut self) {
        loop {
            let to_server = self.client.poll_output();
            if let Some(bytes) = &to_server {
                self.server.handle_input(bytes).unwrap();
            }
            let to_client = self.server.poll_output();
            if let Some(bytes) = &to_client {
                self.client.handle_input(bytes).unwrap();
            }
            if to_server.is_none() && to_client.is_none() {
                return;
            }
        }
    }

    fn server_events(&mut self) -> Vec<ServerEvent> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    fn client_events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }
}

fn requested() -> ServerEvent {
    let (app, stream_name) = ("live".to_owned(), "key".to_owned());
    ServerEvent::PublishRequested { app, stream_name, query: Some("token=t".to_owned()) }
}

#[test]
fn a_whole_publish() {
    let mut pair = Pair::new();
    assert_eq!(pair.client.send_video(0, Bytes::from_static(b"v")), Err(ClientError::NotReady));
    pair.settle();
    let connected = ServerEvent::Connected {
        app: "live".to_owned(),
        tc_url: Some("rtmp://127.0.0.1:1935/live".to_owned()),
        flash_ver: Some(pair.client.config.flash_ver.clone()),
    };
    assert_eq!(pair.server_events(), [connected, requested()]);
    assert_eq!(pair.client_events(), [ClientEvent::Connected]);
    pair.server.accept_publish();
    pair.settle();
    assert_eq!(pair.client_events(), [ClientEvent::ReadyToPublish]);

    let metadata =
        Metadata { width: Some(1280), height: Some(720), frame_rate: Some(30.0), ..Metadata::default() };
    pair.client.send_metadata(&metadata).unwrap();
    let mut expected = vec![ServerEvent::Metadata(metadata)];
    // Through the extended timestamp, the wrap, and back.
    for timestamp_ms in [0, 33, 66, 0xFF_FFFE, 0xFF_FFFF, 0x100_0020, u32::MAX - 10, 23, 20, 5] {
        let video = Bytes::from(vec![0x17; 10_000]);
        let audio = Bytes::from_static(b"\xAF\x01audio");
        pair.client.send_video(timestamp_ms, video.clone()).unwrap();
        pair.client.send_audio(timestamp_ms, audio.clone()).unwrap();
        expected.push(ServerEvent::Video { timestamp_ms, payload: video });
        expected.push(ServerEvent::Audio { timestamp_ms, payload: audio });
    }
    pair.settle();
    assert_eq!(pair.server_events(), expected);

    pair.client.finish();
    pair.client.finish();
    assert_eq!(pair.client.send_audio(0, Bytes::new()), Err(ClientError::NotReady));
    pair.settle();
    assert_eq!(pair.server_events(), [ServerEvent::Unpublished]);
    assert_eq!(pair.client_events(), []);
}

#[test]
fn a_refused_key_is_told_with_code_and_description() {
    let cases = [
        (Refusal::BadName, "NetStream.Publish.BadName"),
        (Refusal::AlreadyPublishing, "NetStream.Publish.BadName"),
        (Refusal::Denied, "NetStream.Publish.Denied"),
        (Refusal::Unavailable, "NetStream.Failed"),
    ];
    for (refusal, code) in cases {
        let mut pair = Pair::new();
        pair.settle();
        pair.server.reject_publish(refusal, "unknown stream key");
        assert!(pair.server.is_over());
        assert_eq!(pair.server.poll_event(), None);
        pair.settle();
        let refused =
            ClientEvent::Refused { code: code.to_owned(), description: "unknown stream key".to_owned() };
        assert_eq!(pair.client_events(), [ClientEvent::Connected, refused]);
        assert_eq!(pair.client.send_video(0, Bytes::from_static(b"v")), Err(ClientError::NotReady));
    }
}

#[test]
fn a_stream_can_be_ended_by_the_server() {
    let mut pair = Pair::new();
    pair.settle();
    pair.server.accept_publish();
    pair.settle();
    pair.client_events();
    pair.server.reject_publish(Refusal::Denied, "key withdrawn");
    pair.settle();
    let (code, description) = ("NetStream.Publish.Denied".to_owned(), "key withdrawn".to_owned());
    assert_eq!(pair.client_events(), [ClientEvent::Refused { code, description }]);
}

#[test]
fn a_missing_application_is_refused() {
    let mut pair = Pair::new();
    pair.client = ClientSession::new(ClientConfig::new("rtmp://127.0.0.1/", "", "key"));
    let hello = pair.client.poll_output().unwrap();
    pair.server.handle_input(&hello).unwrap();
    pair.client.handle_input(&pair.server.poll_output().unwrap()).unwrap();
    let connect = pair.client.poll_output().unwrap();
    let missing = SessionError::MissingField { command: "connect", field: "app" };
    assert_eq!(pair.server.handle_input(&connect), Err(missing));
    pair.client.handle_input(&pair.server.poll_output().unwrap()).unwrap();
    let Some(ClientEvent::Refused { code, .. }) = pair.client.poll_event() else { panic!("not refused") };
    assert_eq!(code, "NetConnection.Connect.Rejected");
}

#[test]
fn media_that_cannot_be_sent_is_given_back() {
    let mut pair = Pair::new();
    pair.client.config.max_pending_output_bytes = 1000;
    pair.settle();
    pair.server.accept_publish();
    pair.settle();
    let bytes = 1 << 24;
    assert_eq!(pair.client.send_video(0, vec![0; bytes].into()), Err(ClientError::PayloadTooLarge { bytes }));
    pair.client.send_video(0, vec![0; 2000].into()).unwrap();
    let waiting = pair.client.pending_output_bytes();
    assert_eq!(pair.client.send_audio(0, vec![0; 1].into()), Err(ClientError::OutputFull { bytes: waiting }));
    pair.settle();
    pair.client.send_audio(0, vec![0; 1].into()).unwrap();
}
