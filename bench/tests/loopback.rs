//! Generator, forwarder and sink as processes of their own, over kernel sockets on loopback: what an impaired network
//! loses, repeats and reorders before the forwarder is exactly what every receiver sees behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot start fails")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{bench, forwarder, json};
use sluice_table::protocol::{Client, Request, Response, Role};

const PUBLISHERS: u16 = 2;
const RECEIVERS: u16 = 3;

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port with enough free ones behind it, for the forwarder and everybody else.
fn free_ports(from: u16) -> u16 {
    let free = |base: u16| (base..=base + PUBLISHERS + RECEIVERS).all(|p| UdpSocket::bind(("127.0.0.1", p)).is_ok());
    (from..from + 10_000).step_by(10).find(|base| free(*base)).expect("free ports")
}

fn start_forwarder(directory: &Path, table: &Path) -> Ends {
    let socket = directory.join("table.sock");
    let child = Command::new(forwarder())
        .args(["--io", "udp", "--polling", "adaptive", "--workers", "1"])
        .arg("--socket")
        .arg(&socket)
        .arg("--state")
        .arg(directory.join("state"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap();
    let child = Ends(child);
    let client = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Client::connect(&socket, Role::Table, Some(Duration::from_secs(10))).ok()
    });
    let log = || std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    let table = Box::new(sluice_table::file::load(table).unwrap());
    let applied = client.unwrap_or_else(|| panic!("{}", log())).call(Request::Apply { table, dry_run: false });
    assert!(matches!(applied, Ok(Response::Applied { .. })), "{applied:?}\n{}", log());
    child
}

/// Copies that the forwarder left out because they came before what it took for the stream's first packet.
fn too_late(directory: &Path) -> u64 {
    let mut client =
        Client::connect(&directory.join("table.sock"), Role::Table, Some(Duration::from_secs(10))).unwrap();
    let Ok(Response::Counters(groups)) = client.call(Request::Counters) else { panic!("no counters") };
    let drops = groups.into_iter().filter(|group| group.group == "drops").flat_map(|group| group.counters);
    drops.filter(|(name, _)| name == "late_packet").map(|(_, count)| count).sum()
}

/// What the generator says, what the sink says, and what the forwarder left out.
fn run(ports: u16, profile: &str, impairments: &[&str]) -> (serde_json::Value, serde_json::Value, u64) {
    // On tmpfs, where the forwarder keeps its indexes.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (session, table) = (directory.path().join("session.json"), directory.path().join("table.toml"));
    let base = free_ports(ports);
    let made = bench()
        .args(["session", "--profile", profile, "--peer", "127.0.0.1", "--interface", "lo"])
        .args(["--publishers", &PUBLISHERS.to_string(), "--receivers", &RECEIVERS.to_string()])
        .args(["--forwarder", &format!("127.0.0.1:{base}"), "--port", &(base + 1).to_string()])
        .arg("--output")
        .arg(&session)
        .arg("--table")
        .arg(&table)
        .status()
        .unwrap();
    assert!(made.success());
    let _forwarder = start_forwarder(directory.path(), &table);
    let mut sink = bench()
        .args(["sink", "--seconds", "20", "--quiet", "1", "--session"])
        .arg(&session)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(sink.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("receiving"), "{line}");
    let sent = bench()
        .args(["generate", "--rate", "2000", "--seconds", "1", "--payload", "300", "--session"])
        .arg(&session)
        .args(impairments)
        .output()
        .unwrap();
    let got = json(&sink.wait_with_output().unwrap());
    (json(&sent), got, too_late(directory.path()))
}

fn count(value: &serde_json::Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"))
}

#[test]
fn receivers_see_what_the_network_did() {
    let bad = ["--loss", "0.05", "--duplicate", "0.05", "--reorder", "0.05", "--jitter-ms", "0.2", "--seed", "5"];
    let (sent, got, late) = run(21_000, "aes256-gcm", &bad);
    let impaired = &sent["impaired"];
    assert!(count(impaired, "lost") > 0 && count(impaired, "duplicated") > 0 && count(impaired, "reordered") > 0);
    let unique = count(&sent, "sent") - count(impaired, "duplicated");
    let copies = u64::from(RECEIVERS);
    assert_eq!(count(&got, "packets") + late, unique * copies, "{sent}\n{got}");
    assert_eq!(count(&got, "opened"), count(&got, "packets"), "{got}");
    for never in ["bad_tag", "duplicates", "foreign", "shifted", "unknown", "malformed", "too_old"] {
        assert_eq!(count(&got, never), 0, "{never}: {got}");
    }
    assert!(count(&got, "reordered") > 0, "{got}");
    // What was lost at the very end of a stream leaves no gap to see.
    assert!(count(&got, "lost") > 0 && count(&got, "lost") <= count(impaired, "lost") * copies, "{got}");
    assert_eq!(count(&got, "streams"), copies * u64::from(PUBLISHERS));
    assert_eq!(count(&got["latency_us"], "count"), count(&got, "opened"));
}

#[test]
fn plain_rtp_goes_through_too() {
    let (sent, got, late) = run(31_000, "plain", &[]);
    assert_eq!(late, 0);
    assert_eq!(count(&got, "packets"), count(&sent, "sent") * u64::from(RECEIVERS), "{sent}\n{got}");
    assert_eq!((count(&got, "lost"), count(&got, "foreign"), count(&got, "shifted")), (0, 0, 0), "{got}");
}
