//! The lab as root, at a rate that any machine reaches: both namespaces, the forwarder by `AF_XDP` and by kernel
//! sockets, the baseline. Nothing is timed; packets are counted.

mod common;

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
