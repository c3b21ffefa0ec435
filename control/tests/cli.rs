//! The `sluice` command as a process, against a forwarder that is a thread speaking the protocol.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake::Fake;
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../docs/table-example.toml");

struct Ran {
    code: i32,
    out: String,
    err: String,
    raw: Vec<u8>,
}

impl Ran {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

fn sluice(socket: &Path, args: &[&str]) -> Ran {
    let made = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .env("SLUICE_SOCKET", socket)
        .env("SLUICE_CONTROL_SOCKET", "/nonexistent/control.sock")
        .args(args)
        .output()
        .unwrap();
    Ran {
        code: made.status.code().unwrap(),
        out: String::from_utf8_lossy(&made.stdout).into_owned(),
        err: String::from_utf8_lossy(&made.stderr).into_owned(),
        raw: made.stdout,
    }
}

fn example(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("table.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn without_a_forwarder_the_exit_code_is_3_and_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    for args in [&["status"][..], &["legs"], &["streams"], &["counters"], &["table", "show"], &["top", "--count", "1"]]
    {
        let ran = sluice(&socket, args);
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.err);
        assert!(ran.out.is_empty());
        assert!(ran.err.contains("none.sock") && ran.err.contains("hint: is sluice-forwarder running?"), "{}", ran.err);
    }
    let ran = sluice(&socket, &["--json", "status"]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["error"], "unreachable");
    assert!(error["hint"].as_str().unwrap().contains("sluice-forwarder"));
}

/// As with `sluice ... | head`.
#[test]
fn a_reader_that_went_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    for args in [
        &["status"][..],
        &["legs"],
        &["--json", "streams"],
        &["counters", "--all"],
        &["table", "show"],
        &["trace", "--count", "3", "--output", "-"],
        &["top", "--count", "3", "--interval", "1"],
        &["config", "default"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let made = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .env("SLUICE_SOCKET", &fake.socket)
            .env("SLUICE_CONTROL_SOCKET", "/nonexistent/control.sock")
            .args(args)
            .stdout(writer)
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&made.stderr);
        assert_eq!((made.status.code(), err.as_ref()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let dir = tempfile::tempdir().unwrap();
    let ran = sluice(dir.path(), &["statsu"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("status"), "{}", ran.err);
    let ran = sluice(dir.path(), &["--json", "statsu"]);
    assert_eq!(ran.code, 2);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["error"], "usage");
    for args in [&["trace", "--sample", "0"][..], &["trace", "--ssrc", "0xzz"], &["top", "--interval", "0"]] {
        assert_eq!(sluice(dir.path(), args).code, 2, "{args:?}");
    }
    let help = sluice(dir.path(), &["--help"]);
    assert_eq!(help.code, 0);
    for code in
        ["0  done", "1  failed", "2  wrong usage", "3  the forwarder cannot", "4  the forwarder ref", "5  doctor"]
    {
        assert!(help.out.contains(code), "{code:?} is not in {}", help.out);
    }
    assert_eq!(sluice(dir.path(), &["--version"]).code, 0);
}

#[test]
fn apply_shows_the_difference_and_dry_run_applies_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    let file = example(dir.path(), EXAMPLE);
    let file = file.to_str().unwrap();

    let ran = sluice(&fake.socket, &["table", "apply", file, "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("+ endpoint lan\n") && ran.out.contains("+ egress bob/video\n"), "{}", ran.out);
    assert!(ran.out.ends_with("would add 11, remove 0, change 0; nothing was applied\n"), "{}", ran.out);
    assert_eq!(fake.generation(), 0);

    let applied = sluice(&fake.socket, &["--json", "table", "apply", file]).json();
    assert_eq!((applied["generation"].as_u64(), applied["dry_run"].as_bool()), (Some(1), Some(false)));
    assert_eq!(applied["changes"].as_array().unwrap().len(), 11);
    assert_eq!(applied["changes"][0]["action"], "added");

    let again = sluice(&fake.socket, &["table", "apply", file]);
    assert_eq!(again.out, "nothing to change; table generation 1\n");

    let changed = EXAMPLE.replacen("000102", "010102", 1).replacen("dscp = 34", "dscp = 46", 1).replacen(
        "input = \"alice-video\"",
        "input = \"carol-high\"",
        1,
    );
    example(dir.path(), &changed);
    let ran = sluice(&fake.socket, &["table", "apply", file]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("~ source speaker\n    input: alice-video -> carol-high\n"), "{}", ran.out);
    assert!(ran.out.contains("~ egress bob/video\n    dscp: 34 -> 46\n"), "{}", ran.out);
    assert!(ran.out.contains("~ leg bob\n    srtp_out: aes128-gcm "), "{}", ran.out);
    assert!(!ran.out.contains("010102"), "a key was printed: {}", ran.out);

    let shown = sluice(&fake.socket, &["table", "show"]);
    assert!(shown.out.contains("table generation 2") && shown.out.contains("aes256-gcm"), "{}", shown.out);
    assert!(!shown.out.contains("010102"));
    let snapshot = sluice(&fake.socket, &["table", "show", "--json"]).json();
    assert_eq!(snapshot["legs"]["bob"]["outbound"]["profile"], "aes128-gcm");
    let fingerprint = snapshot["legs"]["bob"]["outbound"]["fingerprint"].as_str().unwrap();
    assert!(fingerprint.len() == 8 && shown.out.contains(fingerprint), "{fingerprint}");
    assert!(snapshot["legs"]["bob"]["inbound"].is_null());

    let cleared = sluice(&fake.socket, &["table", "clear"]);
    assert!(cleared.out.ends_with("added 0, removed 11, changed 0; table generation 3\n"), "{}", cleared.out);
}

#[test]
fn colours_are_only_used_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    let file = example(dir.path(), EXAMPLE);
    let args = ["table", "apply", file.to_str().unwrap(), "--dry-run"];
    assert!(!sluice(&fake.socket, &args).out.contains('\x1b'));
    let colored = sluice(&fake.socket, &[&args[..], &["--color", "always"]].concat());
    assert!(colored.out.contains("\x1b[32m+ endpoint lan\x1b[0m"), "{}", colored.out);
}

#[test]
fn a_wrong_file_is_2_and_never_reaches_the_forwarder() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    let wrong = EXAMPLE.replacen("ssrc = 2001", "ssrc = -1", 1).replacen("dscp = 34", "dcsp = 34", 1);
    let file = example(dir.path(), &wrong);
    let file = file.to_str().unwrap();
    let ran = sluice(&fake.socket, &["table", "apply", file]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("table.toml:75:8: egress.bob/audio.ssrc: is -1"), "{}", ran.err);
    assert!(ran.err.contains("did you mean \"dscp\"?"), "{}", ran.err);
    assert!(ran.err.contains("the running table is unchanged"), "{}", ran.err);
    let ran = sluice(&fake.socket, &["table", "apply", file, "--json"]);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["file_errors"][0]["line"], 75);
    assert_eq!(error["file_errors"].as_array().unwrap().len(), 2);
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = sluice(&fake.socket, &["table", "apply", file]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains(&format!("chmod 600 {file}")), "{}", ran.err);
    assert_eq!(fake.generation(), 0);
    assert_eq!(fake.calls(), 0);
}

#[test]
fn a_refusal_is_4_with_reason_and_hint() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    // The fake has an eth0 only, as a real forwarder refuses what it cannot open.
    let file = example(dir.path(), &EXAMPLE.replacen("\"eth0\"", "\"eth9\"", 1));
    let file = file.to_str().unwrap();
    let ran = sluice(&fake.socket, &["table", "apply", file]);
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    assert!(ran.err.contains("error: the forwarder refused: endpoint lan") && ran.err.contains("hint: ip link"));
    let ran = sluice(&fake.socket, &["table", "apply", file, "--json"]);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((error["error"].as_str(), error["reason"].as_str()), (Some("refused"), Some("endpoint")));
}

#[test]
fn status_legs_streams_and_counters_are_readable_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    let status = sluice(&fake.socket, &["status"]);
    assert_eq!(status.code, 0, "{}", status.err);
    for text in ["pid 4242", "up 1 h 1 min", "xdp_copy", "xdp_zero_copy refused: EOPNOTSUPP", "1,000 free", "legs"] {
        assert!(status.out.contains(text), "{text:?} is not in {}", status.out);
    }
    let json = sluice(&fake.socket, &["status", "--json"]).json();
    assert_eq!(json["endpoints"][0]["mode"], "xdp_copy");
    assert_eq!(json["workers"][0]["polling"], "adaptive");

    let legs = sluice(&fake.socket, &["legs"]);
    let lines: Vec<&str> = legs.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", legs.out);
    assert_eq!(lines[0].find("owner").unwrap() + 4, lines[1].find(" 1  ").unwrap() + 1, "aligned: {}", legs.out);
    assert!(lines[1].contains("auth_tag=7 replayed=2"), "{}", legs.out);
    let json = sluice(&fake.socket, &["legs", "--json"]).json();
    assert_eq!(json[0]["drops"][0], serde_json::json!(["replayed", 2]));

    let streams = sluice(&fake.socket, &["streams"]);
    assert!(streams.out.contains("alice-video") && streams.out.contains("0a11ce02"), "{}", streams.out);
    let json = sluice(&fake.socket, &["streams", "--json"]).json();
    assert_eq!(json["egress"][0]["name"], "bob/video");

    let counters = sluice(&fake.socket, &["counters"]);
    assert!(counters.out.contains("authentication tag does not match"), "{}", counters.out);
    assert!(!counters.out.contains("truncated"));
    assert!(sluice(&fake.socket, &["counters", "--all"]).out.contains("truncated"));
    assert_eq!(sluice(&fake.socket, &["counters", "--json"]).json()["drops"]["auth_tag"], 7);
}

#[test]
fn top_shows_rates() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    let ran = sluice(&fake.socket, &["top", "--json", "--count", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let updates: Vec<Value> = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(updates.len(), 2);
    for update in &updates {
        // The fake counts 1,000 packets on for every question; a rate times its time is a whole step.
        let seconds = update["seconds"].as_f64().unwrap();
        let packets = update["workers"][0]["rx_packets_per_second"].as_f64().unwrap() * seconds;
        assert!((packets - 1000.0).abs() < 0.01, "{packets}");
        assert_eq!(update["legs"][0]["leg"], "bob");
    }
    let text = sluice(&fake.socket, &["top", "--count", "1"]);
    assert!(text.out.contains("sluice top") && text.out.contains("bob/video") && !text.out.contains('\x1b'));
}

#[test]
fn trace_writes_pcapng_without_payload() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    let file = dir.path().join("t.pcapng");
    let ran = sluice(&fake.socket, &["trace", "--count", "3", "--output", file.to_str().unwrap(), "--leg", "bob"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("recorded 3 packets; 1 more"), "{}", ran.err);
    let bytes = fs::read(&file).unwrap();
    assert_eq!(&bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert!(!bytes.windows(7).any(|w| w == b"PAYLOAD"), "payload in the trace");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let piped = sluice(&fake.socket, &["trace", "--count", "3", "--leg", "bob"]);
    assert_eq!(piped.raw, bytes);
    let json = sluice(&fake.socket, &["trace", "--count", "3", "--json"]);
    let line: Value = serde_json::from_str(json.out.lines().next().unwrap()).unwrap();
    assert_eq!(line["header"].as_str().unwrap().len(), 2 * 54);
    assert_eq!(sluice(&fake.socket, &["trace", "--leg", "a b"]).code, 2);
    let ran = sluice(&fake.socket, &["trace", "--leg", "nobody"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
}

#[test]
fn doctor_reports_in_both_forms_and_exits_5_when_something_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path());
    let ran = sluice(&fake.socket, &["doctor", "--json"]);
    // The fake's endpoint is on an interface that does not exist, so there is always something wrong.
    assert_eq!(ran.code, 5, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((report["healthy"].as_bool(), report["forwarder_running"].as_bool()), (Some(false), Some(true)));
    let findings = report["findings"].as_array().unwrap();
    let find =
        |check: &str| findings.iter().find(|f| f["check"] == check).unwrap_or_else(|| panic!("{check}: {findings:#?}"));
    assert_eq!(find("exists")["level"], "bad");
    assert_eq!(find("strays")["level"], "warn");
    assert!(find("strays")["fix"].as_str().unwrap().starts_with("ethtool -N"));
    assert_eq!(find("ledger")["level"], "ok");
    for check in ["kernel", "af_xdp", "capabilities", "memlock", "huge_pages", "btf", "firewall"] {
        find(check);
    }
    for finding in findings.iter().filter(|f| f["level"] != "ok") {
        assert!(!finding["why"].as_str().unwrap().is_empty(), "{finding}");
    }
    let text = sluice(&fake.socket, &["doctor"]);
    assert_eq!(text.code, 5);
    assert!(text.out.contains("mend: ip link") && text.out.contains(" checks: "), "{}", text.out);
    let alone = sluice(&dir.path().join("none.sock"), &["doctor", "lo"]);
    assert!(alone.code == 0 || alone.code == 5, "{}", alone.err);
    assert!(alone.out.contains("no forwarder answered") && alone.out.contains("lo: xdp: "), "{}", alone.out);
}

#[test]
fn setup_commands_need_no_forwarder() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none.sock");
    for shell in ["bash", "zsh", "fish"] {
        let ran = sluice(&none, &["completions", shell]);
        assert!(ran.code == 0 && ran.out.contains("sluice"), "{shell}");
    }
    let man = dir.path().join("man");
    assert_eq!(sluice(&none, &["man", man.to_str().unwrap()]).code, 0);
    let page = fs::read_to_string(man.join("sluice.1")).unwrap();
    assert!(page.contains("Exit codes"), "{page}");
    assert!(man.join("sluice-table-apply.1").exists());
    let ran = sluice(&none, &["xdp", "detach", "sluice-none0"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("sluice-none0") && ran.err.contains("ip link"), "{}", ran.err);
}
