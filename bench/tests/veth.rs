//! The lab as root, at a rate that any machine reaches: both namespaces, the forwarder by `AF_XDP` and by kernel
//! sockets, the baseline. Nothing is timed; packets are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot start fails")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use common::{bench, forwarder, json};

fn root() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        eprintln!("skipped: network namespaces need root");
    }
    root
}

#[test]
fn every_copy_arrives_and_opens() {
    if !root() {
        return;
    }
    let forwarder = forwarder();
    for (io, fanout, profile) in
        [("xdp", 12, "aes256-gcm"), ("xdp", 2, "aes128-cm-sha1-80"), ("udp", 12, "aes128-gcm"), ("bare", 1, "plain")]
    {
        let output = bench()
            .args(["lab", "--json", "--io", io, "--profile", profile, "--fanout", &fanout.to_string()])
            .args(["--rate", "500", "--seconds", "0.5", "--payload", "200", "--no-guard", "--polling", "adaptive"])
            .arg("--forwarder")
            .arg(&forwarder)
            .output()
            .unwrap();
        let got = json(&output);
        assert_eq!(got["loss"], 0.0, "{io} {fanout}: {got}");
        assert_eq!((got["io"].as_str(), got["fanout"].as_u64()), (Some(io), Some(fanout)), "{got}");
        let sink = &got["sink"];
        assert!(sink["opened"].as_u64().unwrap() > 200, "{io} {fanout}: {got}");
        for never in ["bad_tag", "duplicates", "foreign", "shifted", "lost", "unknown", "malformed"] {
            assert_eq!(sink[never], 0, "{io} {fanout} {never}: {got}");
        }
        assert!(got["latency_us"]["p999"].as_f64().unwrap() > 0.0, "{got}");
    }
}

/// Two namespaces with a veth pair that go with the test.
struct Pair;

impl Pair {
    const A: &str = "sluice-bench-a";
    const B: &str = "sluice-bench-b";

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    fn new() -> Pair {
        let pair = Pair;
        for name in [Pair::A, Pair::B] {
            Pair::ip(&format!("netns add {name}"));
        }
        Pair::ip(&format!("link add veth-a netns {} type veth peer name veth-b netns {}", Pair::A, Pair::B));
        for (name, device, address) in [(Pair::A, "veth-a", "10.79.0.1"), (Pair::B, "veth-b", "10.79.0.2")] {
            Pair::ip(&format!("-n {name} addr add {address}/24 dev {device}"));
            Pair::ip(&format!("-n {name} link set {device} up"));
        }
        pair
    }

    fn bench(namespace: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_sluice-bench")]).stdin(Stdio::null());
        command
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [Pair::A, Pair::B] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

#[test]
fn generator_and_sink_speak_af_xdp() {
    if !root() {
        return;
    }
    let _pair = Pair::new();
    let key = serde_json::json!({"profile": "aes128-gcm", "hex": "5a".repeat(28)});
    // Straight from the publisher to the receiver: to the sink, the publisher is the forwarder.
    let session = serde_json::json!({
        "forwarder": "10.79.0.1:5000",
        "publishers": [{
            "local": "10.79.0.1:5000",
            "to": "10.79.0.2:6000",
            "key": key,
            "streams": [{"ssrc": 7, "kind": "audio", "payload_type": 111, "first_sequence": 65000}],
        }],
        "receivers": [{"local": "10.79.0.2:6000", "key": key, "expects": [[7, 0]]}],
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("session.json");
    std::fs::write(&path, session.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut sink = Pair::bench(Pair::B)
        .args(["sink", "--io", "xdp", "--interface", "veth-b", "--seconds", "20", "--quiet", "1", "--session"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut errors = BufReader::new(sink.stderr.take().unwrap());
    while !text.contains("receiving") {
        assert!(errors.read_line(&mut text).unwrap() > 0, "{text}");
    }
    let sent = Pair::bench(Pair::A)
        .args(["generate", "--io", "xdp", "--interface", "veth-a", "--shape", "constant", "--rate", "2000"])
        .args(["--payload", "100", "--seconds", "0.6", "--session"])
        .arg(&path)
        .output()
        .unwrap();
    let (sent, got) = (json(&sent), json(&sink.wait_with_output().unwrap()));
    assert!(sent["sent"].as_u64().unwrap() > 1_000, "{sent}");
    assert_eq!((&got["packets"], &got["opened"], &got["lost"]), (&sent["sent"], &sent["sent"], &0.into()), "{got}");
    assert_eq!((&got["bad_tag"], &got["shifted"], &got["foreign"]), (&0.into(), &0.into(), &0.into()), "{got}");
}
