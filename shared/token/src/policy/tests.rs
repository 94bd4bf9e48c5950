use super::*;
use crate::ip::IpPrefix;
use crate::modes::Modes;
use crate::session::{Bound, NEVER_S};

const NOW_MS: u64 = 1_790_000_000_000;

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn secrets() -> Vec<SessionSecret> {
    vec![SessionSecret::new(2, &[2; 32], false), SessionSecret::new(3, &[3; 32], true)]
}

fn session(subject: &str, issued_at_s: u32) -> Session {
    Session {
        id: SessionId([7; 16]),
        subject: SubjectHash::of(subject),
        issued_at_s,
        expires_at_s: NEVER_S,
        modes: Modes::ALL,
        by_token: true,
        sessions_max: None,
        bound: Some(Bound { prefix: IpPrefix::of([10, 0, 0, 1].into(), 24), demanded: false }),
    }
}

#[test]
fn the_document_agreed_upon_is_understood() {
    let json = r#"{"version": 12, "issued_at_ms": 1790000000000, "later": {"x": []},
        "session_keys": [{"kid": 3, "secret": "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM", "signs": true},
                         {"kid": 2, "secret": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI", "signs": false},
                         {"kid": 1, "secret": "short", "signs": true}],
        "jwks": {"keys": [
            {"kty":"OKP","crv":"Ed25519","kid":"k1","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            {"kty":"oct","kid":"k2","alg":"HS256","k":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM"},
            {"kty":"RSA","kid":"k3","n":"x","e":"AQAB"}, "noise"]},
        "channels": {"demo": {"playback": "public"}, "paid": {"playback": "token", "color": 1},
                     "odd": {"playback": "by-invitation"}, "bare": {}, "Not An Id": {"playback": "public"}},
        "revocations": [{"session": "07070707070707070707070707070707", "until_ms": 1790000060000},
                        {"subject": "user-1", "before_ms": 1790000000000, "until_ms": 1790000060000}]}"#;
    let policy = Policy::parse(json.as_bytes()).unwrap();
    assert_eq!((policy.version(), policy.issued_at_ms()), (12, NOW_MS));
    assert_eq!(policy.unusable_keys(), 3);
    assert_eq!((policy.signing_key().kid(), policy.token_keys().len()), (3, 2));
    for (name, expected) in [
        ("demo", Some(Playback::Public)),
        ("paid", Some(Playback::Token)),
        ("odd", Some(Playback::Token)),
        ("bare", Some(Playback::Token)),
        ("nobody", None),
    ] {
        assert_eq!(policy.playback(&channel(name)), expected, "{name}");
    }
    assert!(policy.is_revoked(&session("anybody", 0), NOW_MS));
    assert!(!policy.is_revoked(&session("anybody", 0), NOW_MS + 60_000), "may be forgotten");
}

#[test]
fn what_would_let_somebody_stay_is_no_policy() {
    let good = Document { session_keys: secrets(), ..Document::default() };
    assert!(Policy::new(&good).is_ok());
    let broken = [
        Document { session_keys: vec![], ..good.clone() },
        Document { session_keys: vec![SessionSecret::new(1, &[1; 32], false)], ..good.clone() },
        Document { revocations: vec![Revocation::default()], ..good.clone() },
        Document {
            revocations: vec![Revocation { session: Some("07".to_owned()), ..Revocation::default() }],
            ..good.clone()
        },
    ];
    for document in broken {
        assert!(Policy::new(&document).is_err(), "{document:?}");
    }
    for json in ["", "[]", "{}", r#"{"version":"1"}"#, r#"{"version":1,"channels":[]}"#] {
        assert!(Policy::parse(json.as_bytes()).is_err(), "{json}");
    }
}

#[test]
fn revocations_by_subject() {
    let until_ms = NOW_MS + 60_000;
    let document = Document {
        session_keys: secrets(),
        revocations: vec![
            Revocation::of_subject("user-1", NOW_MS, until_ms),
            Revocation::of_subject("user-1", NOW_MS - 5_000, until_ms - 1),
            Revocation { subject: Some("user-2".to_owned()), until_ms, ..Revocation::default() },
        ],
        ..Document::default()
    };
    let policy = Policy::new(&document).unwrap();
    let now_s = u32::try_from(NOW_MS / 1000).unwrap();
    for (subject, issued_at_s, now_ms, expected) in [
        ("user-1", now_s - 1, NOW_MS, true),
        ("user-1", now_s, NOW_MS, false),
        ("user-1", 0, NOW_MS, true),
        ("user-1", now_s - 1, until_ms, false),
        ("user-2", now_s + 5, NOW_MS, true),
        ("user-3", 0, NOW_MS, false),
    ] {
        let revoked = policy.is_revoked(&session(subject, issued_at_s), now_ms);
        assert_eq!(revoked, expected, "{subject} {issued_at_s} {now_ms}");
    }
    assert!(!policy.is_subject_revoked(SubjectHash::NONE, 0, NOW_MS));
}

#[test]
fn viewers_are_the_same_ones_after_the_rotation_of_keys() {
    let viewer = |document: &Document| {
        // As it travels.
        let policy = Policy::parse(&serde_json::to_vec(document).unwrap()).unwrap();
        (policy.viewer_key().viewer("203.0.113.7".parse().unwrap(), b"player"), policy.unusable_keys())
    };
    let of = |signing: u8, viewer_salt: Option<ViewerSalt>| Document {
        session_keys: vec![SessionSecret::new(signing, &[signing; 32], true)],
        viewer_salt,
        ..Document::default()
    };
    let salt = Some(ViewerSalt::new(&[9; 32]));
    assert_eq!(viewer(&of(1, salt.clone())), viewer(&of(2, salt.clone())));
    assert_ne!(viewer(&of(1, salt.clone())), viewer(&of(1, Some(ViewerSalt::new(&[8; 32])))));
    // Of an origin that has none, they are those of the signing secret.
    let signing = SessionKey::new(1, &[1; 32]).viewer_key().viewer("203.0.113.7".parse().unwrap(), b"player");
    assert_eq!(viewer(&of(1, None)), (signing, 0));
    assert_ne!(viewer(&of(1, None)), viewer(&of(2, None)));
    assert_eq!(viewer(&of(1, Some(ViewerSalt("short".to_owned())))), (signing, 1), "which is said");
    assert!(!serde_json::to_string(&of(1, None)).unwrap().contains("viewer_salt"));
    assert!(!format!("{:?}", of(1, salt)).contains("CQkJ"), "it is in no log");
}

#[test]
fn sessions_survive_the_rotation_of_keys() {
    let document = Document { session_keys: secrets(), ..Document::default() };
    let policy = Policy::new(&document).unwrap();
    let demo = channel("demo");
    let old = SessionKey::new(2, &[2; 32]);
    let minted = session("user-1", 5);
    for (key, expected) in [
        (&old, true),
        (policy.signing_key(), true),
        (&SessionKey::new(4, &[3; 32]), false),
        (&SessionKey::new(3, &[4; 32]), false),
    ] {
        let path = key.mint(&minted, &demo);
        let verified = policy.verify(&Unverified::parse(&path).unwrap(), &demo);
        let expected = expected.then_some(minted);
        assert_eq!(verified, expected, "{key:?}");
    }
    let again = Policy::new(&Document { version: 9, ..document.clone() }).unwrap();
    assert_eq!(again.session_keys_print(), policy.session_keys_print());
    let fewer = Document { session_keys: secrets()[1..].to_vec(), ..document };
    assert_ne!(Policy::new(&fewer).unwrap().session_keys_print(), policy.session_keys_print());
}

#[test]
fn what_is_written_is_read() {
    let document = Document {
        viewer_salt: Some(ViewerSalt::new(&[9; 32])),
        version: 3,
        cluster: "here".to_owned(),
        issued_at_ms: NOW_MS,
        session_keys: secrets(),
        jwks: JwkSet::default(),
        channels: [
            ("demo".to_owned(), ChannelPolicy { playback: Playback::Public }),
            ("paid".to_owned(), ChannelPolicy { playback: Playback::Token }),
        ]
        .into(),
        revocations: vec![
            Revocation::of_session(SessionId([1; 16]), 5),
            Revocation::of_subject("user", 1, 5),
        ],
    };
    let json = serde_json::to_string(&document).unwrap();
    assert!(json.contains(r#""demo":{"playback":"public"},"paid":{"playback":"token"}"#), "{json}");
    assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
    assert!(!format!("{document:?}").contains("AgIC"), "secrets are not printed");
}
