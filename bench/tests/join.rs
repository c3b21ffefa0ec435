//! Synthetic clients against real processes: a small conference of each kind, everybody joins and hears.

#![allow(clippy::unwrap_used, reason = "a test that cannot start fails")]

mod common;

use std::path::Path;
use std::process::Output;

fn root() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        eprintln!("skipped: network namespaces need root");
    }
    root
}

fn join(control: &Path, forwarder: &Path, more: &[&str]) -> Output {
    let mut command = common::bench();
    command.args(["join", "--json", "--over", "1", "--hold", "0.5", "--core", "0"]);
    // A machine of one core has no second one for the processes under test.
    let core = if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) { "1" } else { "0" };
    command.args(["--control-core", core, "--forwarder-core", core]);
    command.arg("--control").arg(control).arg("--forwarder").arg(forwarder).args(more);
    command.output().unwrap()
}

#[test]
fn everybody_joins_and_hears_over_http_and_https_and_a_service_that_does_not_start_is_said() {
    if !root() {
        return;
    }
    let (control, forwarder) = (common::built("sluice-control", "sluice-control"), common::forwarder());
    for (conferences, participants, more) in [(2, 4, &[][..]), (1, 3, &["--tls", "--watch", "0"][..])] {
        let sizes = [format!("--conferences={conferences}"), format!("--participants={participants}")];
        let arguments: Vec<&str> = sizes.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let report = common::json(&join(&control, &forwarder, &arguments));
        let all = conferences * participants;
        assert_eq!((&report["joined"], &report["failed"]), (&all.into(), &serde_json::json!({})), "{report}");
        assert_eq!(report["hearing"], all - conferences, "{report}");
        assert_eq!(report["confconn_us"]["count"], all, "{report}");
        assert!(report["list_bytes_per_join"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["rtp_received"].as_u64().unwrap() > 0 && report["commit_us"]["count"].as_u64().unwrap() > 0);
        assert!(report["control_cpu_ms_per_join"].as_f64().unwrap() > 0.0, "{report}");
    }

    // One measurement at a time, so neither of these is a test of its own.
    media_of_the_shape_arrives(&control, &forwarder);
    let output = join(Path::new("/bin/false"), &forwarder, &["--conferences", "1", "--participants", "1"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("control ended"), "{text}");
}

/// Two conferences of four for a second: everybody sends 25 packets of audio, 30 of the low layer and 90 of the high
/// one, and gets audio and low layer of three others.
fn media_of_the_shape_arrives(control: &Path, forwarder: &Path) {
    let more = ["--conferences=2", "--participants=4", "--media=1", "--io=xdp"];
    let report = common::json(&join(control, forwarder, &more));
    let media = &report["media"];
    let count = |name: &str| media[name].as_u64().unwrap();
    assert_eq!((count("sent_audio"), count("sent_low"), count("sent_high")), (8 * 25, 8 * 30, 8 * 90), "{report}");
    assert_eq!((count("wanted_audio"), count("wanted_video")), (8 * 25 * 3, 8 * 30 * 3), "{report}");
    // A machine that stops for long loses some, but nothing comes twice or from somebody who is not wanted.
    for kind in ["audio", "video"] {
        let (wanted, received) = (count(&format!("wanted_{kind}")), count(&format!("received_{kind}")));
        assert!(received <= wanted && received > wanted / 2, "{kind}: {report}");
    }
    assert!(count("opened") > 0 && count("unopened") == 0, "{report}");
    assert!(count("received_rtcp") > 0, "reports to those who send: {report}");
    let lost = count("wanted_audio") + count("wanted_video") - count("received_audio") - count("received_video");
    // All talk and are watched; packets of the high layers end at their receivers' gates, which is no drop.
    assert!(media["drops"] == serde_json::json!({}) || lost > 0, "dropped, but not missing: {report}");
    let cores = media["participants_per_core"].as_f64().unwrap();
    assert!(cores.is_finite() && cores > 0.0 && media["forwarder_cpu"].as_f64().unwrap() > 0.0, "{report}");
}
