//! The binary as operators meet it: help, configuration checks, signals and exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn edge() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sigma-edge"))
}

fn check(file: &Path) -> Output {
    edge().arg("check-config").arg(file).output().unwrap()
}

#[test]
fn help_and_version() {
    for (argument, expected) in [("--help", "check-config"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = edge().arg(argument).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(expected));
    }
}

#[test]
fn the_reference_configuration_is_accepted_once_its_files_are_there() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/edge.toml");
    let output = check(&reference);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("data/tls/edge.crt"),
        "the missing file is named"
    );
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::create_dir_all(dir.path().join("data/tls")).unwrap();
    for (name, pem) in [
        ("edge.crt", made.cert.pem()),
        ("ca.crt", made.cert.pem()),
        ("edge.key", made.signing_key.serialize_pem()),
    ] {
        std::fs::write(dir.path().join("data/tls").join(name), pem).unwrap();
    }
    let output = edge().current_dir(dir.path()).arg("check-config").arg(reference).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn check_config_names_file_line_key_value_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edge.toml");
    std::fs::write(&file, "pop = \"p\"\n[upstream]\nurls = [\"http://a\"]\n[cache]\nbytes_max = 7\n")
        .unwrap();
    let output = check(&file);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = format!("{}:5: cache.bytes_max: 7: 1048576 to", file.display());
    assert!(said.starts_with(&expected), "{said}");
}

#[test]
fn a_spool_folder_that_cannot_be_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let (file, taken) = (dir.path().join("edge.toml"), dir.path().join("taken"));
    std::fs::write(&taken, "").unwrap();
    let in_file = taken.join("spool");
    for (spool, expected) in [
        ("", "edge.toml:5: reports.spool_dir: \"\": a folder on a local disk"),
        (taken.to_str().unwrap(), "taken is not a folder: name a folder on a local disk"),
        (in_file.to_str().unwrap(), "taken is not a folder: name a folder on a local disk"),
        ("/proc/spool", "nothing can be written to /proc: "),
    ] {
        let text =
            format!("pop = \"p\"\n[upstream]\nurls = [\"http://a\"]\n[reports]\nspool_dir = {spool:?}\n");
        std::fs::write(&file, text).unwrap();
        let output = check(&file);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{spool}");
        assert!(said.contains(expected) && said.contains("reports.spool_dir"), "{said}");
        assert!(said.contains(spool) && said.contains("memory only"), "{said}");
    }
    let text = std::fs::read_to_string(&file).unwrap().replace("/proc/spool", "spool/deeper");
    std::fs::write(&file, text).unwrap();
    let output = edge().current_dir(dir.path()).arg("check-config").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn serve(dir: &Path) -> (Child, BufReader<std::process::ChildStderr>) {
    serve_as(edge(), dir)
}

fn serve_as(mut edge: Command, dir: &Path) -> (Child, BufReader<std::process::ChildStderr>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key, file) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("edge.toml"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let config = format!(
        "pop = \"p\"\n[http]\nbind = [\"127.0.0.1:0\"]\n[ops]\nbind = \"127.0.0.1:0\"\n\
         [tls]\nbind = [\"127.0.0.1:0\"]\ncertificate = {cert:?}\nkey = {key:?}\n\
         [upstream]\nurls = [\"http://127.0.0.1:9\"]\n"
    );
    std::fs::write(&file, config).unwrap();
    let mut child = edge
        .args(["--log-format", "json", "serve", "--config"])
        .arg(file)
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    until_logged(&mut log, "serving");
    (child, log)
}

fn until_logged(log: &mut impl BufRead, message: &str) {
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        let event: serde_json::Value = serde_json::from_str(&line).expect("every line is JSON");
        if event["message"] == message {
            return;
        }
        line.clear();
    }
    panic!("never logged: {message}");
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn hangup_reloads_and_terminate_drains_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, mut log) = serve(dir.path());
    signal(&child, "HUP");
    until_logged(&mut log, "certificate reloaded");
    std::fs::write(dir.path().join("key.pem"), "").unwrap();
    signal(&child, "HUP");
    until_logged(&mut log, "the old certificate stays");
    signal(&child, "TERM");
    until_logged(&mut log, "drained");
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// `/proc/PID/limits`: soft and hard.
fn open_files(child: &Child) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sigma-edge")]);
    let (mut child, _log) = serve_as(shell, dir.path());
    let (soft, hard) = open_files(&child);
    assert!(soft == hard && soft > 64, "{soft} {hard}");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn fewer_files_than_connections_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edge.toml");
    // The system's limit for everybody; where it is higher than any configuration's, there is nothing to warn of.
    let most: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    for (connections, warned) in [(16_u64, false), (1 << 24, most < 1 << 24)] {
        let text = "pop = \"p\"\n[upstream]\nurls = [\"http://127.0.0.1:9\"]\n[limits]\nconnections_max = ";
        std::fs::write(&file, format!("{text}{connections}\n")).unwrap();
        let output = check(&file);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let words = format!("instead of limits.connections_max = {connections}");
        assert!(!warned || said.contains(&words), "{said}");
        assert!(warned || connections > 16 || said.is_empty(), "{said}");
    }
}

#[test]
fn a_missing_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edge.toml");
    let config = "pop = \"p\"\n[tls]\nbind = [\"127.0.0.1:0\"]\ncertificate = \"/nowhere/cert.pem\"\nkey = \"k\"\n\
                  [upstream]\nurls = [\"http://127.0.0.1:9\"]\n";
    std::fs::write(&file, config).unwrap();
    let output = edge().args(["serve", "--config"]).arg(&file).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/nowhere/cert.pem"), "{said}");
}
