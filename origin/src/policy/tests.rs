use super::*;
use sigma_token::policy::Policy;

fn config(more: &str) -> Config {
    let channels = "[[channels]]\nid = \"one\"\ntype = \"forward\"\nkey = \"key-of-one\"\n\
        [[channels]]\nid = \"paid\"\ntype = \"forward\"\nkey = \"key-of-paid\"\nplayback = \"token\"\n";
    sigma_http::config::parse(&format!("data_dir = \"d\"\n{more}\n{channels}")).expect("valid")
}

fn newest(policies: &Policies) -> (u64, Policy) {
    let published = Arc::clone(&policies.subscribe().borrow());
    (published.version, Policy::parse(&published.json).expect("usable"))
}

#[test]
fn versions_only_rise_and_what_was_said_stays_said_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
    let before = now_ms();
    let policies = Policies::load(&config(""), &data_dir).expect("loaded");
    let (first, policy) = newest(&policies);
    assert!(first >= before);
    assert_eq!(policy.playback(&"paid".parse().expect("an id")), Some(Playback::Token));
    assert_eq!(policy.playback(&"one".parse().expect("an id")), Some(Playback::Public));
    let print = *policy.session_keys_print();
    policies.refresh(now_ms()).expect("nothing to do");
    assert_eq!(newest(&policies).0, first, "nothing has changed");
    let session = "00112233445566778899aabbccddeeff".parse().expect("a session");
    let until = now_ms() + 1_000_000;
    let second = policies.revoke(Revocation::of_session(session, until)).expect("revoked");
    assert!(second > first);
    drop(policies);
    let policies = Policies::load(&config(""), &data_dir).expect("loaded");
    let (third, policy) = newest(&policies);
    assert!(third >= second);
    assert_eq!(*policy.session_keys_print(), print);
    assert_eq!(policies.state.lock().expect("free").document.revocations.len(), 1);
    policies.refresh(until).expect("time passes");
    assert_eq!(policies.state.lock().expect("free").document.revocations, []);
    assert!(newest(&policies).0 > third);
}

#[test]
fn what_cannot_be_kept_is_not_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
    let policies = Policies::load(&config(""), &data_dir).expect("loaded");
    let before = newest(&policies).0;
    std::fs::create_dir(folder.path().join("keys/revocations.json.new")).expect("made");
    std::fs::create_dir(folder.path().join("keys/sessions.json.new")).expect("made");
    let refused = policies.revoke(Revocation::of_subject("a", 1, u64::MAX)).expect_err("not kept");
    assert!(refused.to_string().contains("revocations.json"), "{refused}");
    assert!(policies.refresh(now_ms() + 2 * 86_400_000).is_err());
    assert_eq!(newest(&policies).0, before);
}

#[test]
fn a_shared_secret_is_told_to_edges_and_to_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s".repeat(40)).expect("written");
    let keys = format!("[[playback.keys]]\nkid = \"partner\"\nalg = \"HS256\"\nfile = {secret:?}\n");
    let policies = Policies::load(&config(&keys), &data_dir).expect("loaded");
    assert_eq!(newest(&policies).1.token_keys().len(), 2);
    let public = String::from_utf8(policies.public_jwks().to_vec()).expect("text");
    assert!(public.contains("Ed25519") && !public.contains("partner") && !public.contains("oct"), "{public}");
}

#[test]
fn origins_that_share_a_secret_are_one_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("cluster.secret");
    std::fs::write(&secret, "s".repeat(40)).expect("written");
    let shared = config(&format!("[playback]\ncluster_secret_file = {secret:?}\n"));
    let load = |name: &str, config: &Config| {
        let data_dir = Arc::new(ClaimedDir::claim(&folder.path().join(name)).expect("free"));
        Policies::load(config, &data_dir).expect("loaded")
    };
    let (one, two, own) = (load("one", &shared), load("two", &shared), load("own", &config("")));
    let print = |policies: &Policies| *newest(policies).1.session_keys_print();
    assert_eq!(print(&one), print(&two));
    assert_ne!(print(&one), print(&own));
    let cluster = |policies: &Policies| policies.state.lock().expect("free").document.cluster.clone();
    assert_eq!(cluster(&one), cluster(&two));
    assert_ne!(cluster(&one), cluster(&own));
    assert_eq!(signing_key(&shared).expect("worked out").kid(), cluster(&one), "for the command line");
    assert_eq!(one.public_jwks(), two.public_jwks());
    assert_eq!(viewer(&one), viewer(&two), "one viewer, whoever's policy the edge has");
    assert_ne!(viewer(&one), viewer(&own));
}

fn viewer(policies: &Policies) -> u64 {
    newest(policies).1.viewer_key().viewer("203.0.113.7".parse().expect("an address"), b"player")
}

#[test]
fn a_viewer_is_the_same_one_after_a_rotation_and_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
    let policies = Policies::load(&config(""), &data_dir).expect("loaded");
    let (first, kid) = (viewer(&policies), newest(&policies).1.signing_key().kid());
    // One is made, and signs a minute later.
    let later = now_ms() + 3 * 86_400_000;
    policies.refresh(later).expect("time passes");
    policies.refresh(later + 3_600_000).expect("time passes");
    assert_ne!(newest(&policies).1.signing_key().kid(), kid, "another key signs");
    assert_eq!(viewer(&policies), first);
    drop(policies);
    let policies = Policies::load(&config(""), &data_dir).expect("loaded");
    assert_eq!(viewer(&policies), first);
    assert!(!String::from_utf8(policies.public_jwks().to_vec()).expect("text").contains("salt"));
}

#[test]
fn versions_do_not_go_back_with_the_clock() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
    let policies = Policies::load(&config(""), &data_dir).expect("loaded");
    let told = newest(&policies).0;
    drop(policies);
    // As if the clock had been ahead by 20 minutes before.
    let ahead = told + 1_200_000;
    secrets::write(&folder.path().join("keys").join(VERSION_FILE), &ahead).expect("written");
    let policies = Policies::load(&config(""), &data_dir).expect("loaded");
    assert!(newest(&policies).0 > ahead);
    let kept: u64 =
        secrets::read(&folder.path().join("keys").join(VERSION_FILE)).expect("read").expect("kept");
    assert!(kept > newest(&policies).0, "what follows is set aside, too");
}
