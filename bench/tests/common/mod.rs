//! Running the binaries.
#![allow(unreachable_pub, reason = "shared by several test crates")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// `sluice-bench`.
pub fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-bench"));
    command.stdin(Stdio::null());
    command
}

/// Builds `sluice-forwarder`, which belongs to another package, and returns where it is.
#[allow(dead_code, reason = "each test crate uses its part")]
pub fn forwarder() -> PathBuf {
    built("sluice-forwarder", "sluice-forwarder")
}

/// Builds a binary of another package and returns where it is.
#[allow(dead_code, reason = "each test crate uses its part")]
pub fn built(package: &str, binary: &str) -> PathBuf {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", package, "--bin", binary])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "building {binary}");
    let beside = PathBuf::from(env!("CARGO_BIN_EXE_sluice-bench"));
    beside.parent().and_then(|profile| profile.parent()).expect("target directory").join("debug").join(binary)
}

/// The JSON object on the last line of stdout; the command must succeed.
pub fn json(output: &std::process::Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().last().expect("one line")).expect("JSON")
}
