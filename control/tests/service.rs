//! Commands that ask sluice-control or need nobody, as a process; control is a thread speaking its protocol.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "the tests of the table commands ask it more")]
mod fake;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake::Fake;
use serde_json::{Value, json};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

fn sluice(dir: &Path, args: &[&str]) -> Ran {
    let made = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .env("SLUICE_SOCKET", dir.join("table.sock"))
        .env("SLUICE_CONTROL_SOCKET", dir.join("control.sock"))
        .args(args)
        .output()
        .unwrap();
    Ran {
        code: made.status.code().unwrap(),
        out: String::from_utf8_lossy(&made.stdout).into_owned(),
        err: String::from_utf8_lossy(&made.stderr).into_owned(),
    }
}

fn row() -> Value {
    json!({ "id": "p7", "conference": "abc", "user": "u1", "state": "joined", "tuple": "192.0.2.1:5000", "dtls": "1.2",
        "profile": "aes256-gcm", "rtt_ms": 12.5, "streams_in": 3, "streams_out": 14, "joined_ms": 90_000 })
}

fn answer(query: &Value) -> Value {
    let report = |name: &str, value: Value| json!({ "report": { "report": name, "value": value } });
    match query["query"].as_str().unwrap() {
        "status" => {
            json!({ "status": { "software": "0.1.0", "pid": 77, "uptime_ms": 61_000, "forwarder_connected": true,
            "public_url": "https://sft.example", "draining": true, "conferences": 1, "participants": 2, "allocations": 3 } })
        }
        "conferences" => report(
            "conferences",
            json!([{ "name": "abc", "dialect": "wire", "participants": 2, "started_ms": 61_000, "state": "active" }]),
        ),
        "participants" if query["conference"] == "nobody" => report("participants", json!([])),
        "participants" => report("participants", json!([row()])),
        "kick" if query["participant"] == "p9" => {
            json!({ "failed": { "message": "there is no participant p9", "hint": "look for another" } })
        }
        "kick" => report("kicked", json!({ "participant": query["participant"] })),
        "drain" => report("draining", json!({ "conferences": 1, "participants": 2 })),
        "show" => report(
            "show",
            json!({ "participant": row(), "leg": "1/p7", "local_candidates": ["192.0.2.9:3480 host"],
                "remote_candidates": ["192.0.2.1:5000 host"],
                "pair": { "local": "192.0.2.9:3480", "remote": "192.0.2.1:5000" },
                "path": { "state": "active", "worker": 1, "fast": 1000, "slow": 2, "stray": 3, "drops": [["auth_tag", 4]] },
                "notes": [],
                "streams": [{ "name": "1/p7/v0", "direction": "out", "kind": null, "ssrc": 171, "carries": 205,
                    "layer": null, "packets": 10, "bytes": 11, "lost": 12, "why": "asked for high" }] }),
        ),
        other => panic!("the command never asks {other}"),
    }
}

/// A control that answers until the test process ends.
fn control(dir: &Path) {
    let listener = UnixListener::bind(dir.join("control.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            writeln!(&stream, "{}", answer(&serde_json::from_str(&line).unwrap())).unwrap();
        }
    });
}

#[test]
fn without_control_the_exit_code_is_3_and_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["conferences"][..], &["participants"], &["show", "p1"], &["kick", "p1"], &["drain"]] {
        let ran = sluice(dir.path(), args);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{args:?}: {}", ran.err);
        assert!(
            ran.err.contains("control.sock") && ran.err.contains("hint: is sluice-control running?"),
            "{}",
            ran.err
        );
    }
    let ran = sluice(dir.path(), &["conferences", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.err).unwrap()["error"], "unreachable");
}

#[test]
fn what_control_knows_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    control(dir.path());
    let ran = sluice(dir.path(), &["conferences"]);
    assert!(ran.out.contains("abc         wire                2  1 min 1 s  active"), "{}{}", ran.out, ran.err);
    assert_eq!(sluice(dir.path(), &["conferences", "--json"]).json()[0]["name"], "abc");
    let ran = sluice(dir.path(), &["participants"]);
    for part in ["p7", "joined", "192.0.2.1:5000", "aes256-gcm", "12.5 ms", "14", "1 min 30 s"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    assert_eq!(sluice(dir.path(), &["participants", "nobody", "--json"]).json(), json!([]));
    let ran = sluice(dir.path(), &["show", "p7"]);
    for part in [
        "local candidate  192.0.2.9:3480 host",
        "chosen pair  192.0.2.9:3480 - 192.0.2.1:5000",
        "fast 1,000  slow 2  stray 3",
        "drops  auth_tag=4",
        "000000ab",
        "000000cd",
        "asked for high",
    ] {
        assert!(ran.out.contains(part), "{part}: {}{}", ran.out, ran.err);
    }
    assert_eq!(sluice(dir.path(), &["show", "p7", "--json"]).json()["streams"][0]["lost"], 12);
}

#[test]
fn orders_are_given_and_refusals_are_4() {
    let dir = tempfile::tempdir().unwrap();
    control(dir.path());
    assert_eq!(sluice(dir.path(), &["kick", "p7"]).out, "p7 is disconnected\n");
    let ran = sluice(dir.path(), &["kick", "p9"]);
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    assert!(
        ran.err.contains("there is no participant p9") && ran.err.contains("hint: look for another"),
        "{}",
        ran.err
    );
    let ran = sluice(dir.path(), &["drain"]);
    assert!(ran.out.contains("1 conferences with 2 participants go on"), "{}", ran.out);
    assert_eq!(sluice(dir.path(), &["drain", "--json"]).json()["participants"], 2);
}

#[test]
fn status_covers_both() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::start(dir.path());
    let ran = sluice(dir.path(), &["status"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("sluice-control: no sluice-control answers"), "{}", ran.out);
    assert!(sluice(dir.path(), &["status", "--json"]).json()["control"].is_null());
    control(dir.path());
    let ran = sluice(dir.path(), &["status"]);
    for part in ["sluice-control 0.1.0  pid 77", "participants 2", "draining", "sluice-forwarder 0.1.0", "headroom"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let both = sluice(dir.path(), &["status", "--json"]).json();
    assert_eq!((both["control"]["pid"].as_u64(), both["pid"].as_u64()), (Some(77), Some(4242)));
    // The fake's worker never uses CPU time.
    assert_eq!(both["headroom"][0]["share"].as_f64(), Some(1.0));
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_configuration_is_written_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let ran = sluice(dir.path(), &["config", "default"]);
    assert_eq!(ran.code, 0);
    let good = file(dir.path(), "good.toml", &ran.out);
    let ran = sluice(dir.path(), &["config", "check", good.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(sluice(dir.path(), &["config", "check", good.to_str().unwrap(), "--json"]).json()["valid"], true);
    let bad = file(dir.path(), "bad.toml", "[http]\nlisten = 3\npublic_ulr = \"x\"\n");
    let ran = sluice(dir.path(), &["config", "check", bad.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("bad.toml:2:10: http.listen: is 3"), "{}", ran.err);
    assert!(ran.err.contains("bad.toml:3:1: http.public_ulr") && ran.err.contains("\"public_url\"?"), "{}", ran.err);
    let ran = sluice(dir.path(), &["--json", "config", "check", bad.to_str().unwrap()]);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((error["error"].as_str(), error["file_errors"].as_array().unwrap().len()), (Some("usage"), 2));
    assert_eq!(sluice(dir.path(), &["config", "check", "/nonexistent.toml"]).code, 2);
}

#[test]
fn tokens_are_made_and_the_secret_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = file(dir.path(), "secret", "  hunter2\nnot this\n");
    let secret = secret.to_str().unwrap();
    let token = sluice(dir.path(), &["token", "new", "--secret-file", secret, "--ttl", "60", "--json"]).json();
    let username = token["username"].as_str().unwrap();
    assert!(username.starts_with(&format!("d={}.v=1.k=0.s=1.r=", token["expires"])), "{username}");
    // 64 bytes in base64.
    assert_eq!(token["credential"].as_str().unwrap().len(), 88);
    let ran = sluice(dir.path(), &["token", "new", "--secret-file", secret, "--join-only"]);
    assert!(ran.out.contains(".s=0.r=") && !ran.out.contains("hunter2"), "{}", ran.out);
    let empty = file(dir.path(), "empty", "\n");
    let ran = sluice(dir.path(), &["token", "new", "--secret-file", empty.to_str().unwrap()]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("holds no secret"), "{}", ran.err);
}
