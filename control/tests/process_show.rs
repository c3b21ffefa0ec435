//! What `sluice show` says of a call that runs: candidates, pair, encryption, paths, streams and why they are so.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use serde_json::{Value, json};
use support::client::{call, message};
use support::{CONV, Lab, wait};

#[test]
fn a_participant_is_shown_with_what_it_carries_and_why() {
    let mut lab = Lab::start("");
    let clients = call(&lab);
    // Alice wants to see Bob, whose camera sends nothing, and somebody who is not there.
    let wanted =
        json!({"mode": "list", "streams": [{"userid": "bob", "quality": 2}, {"userid": "nobody", "quality": 1}]});
    clients[0].say(&message(CONV, "CONFSTREAMS", "alice", false, &wanted).to_string());
    let shown = |user: &str| -> Value {
        let rows: Value = serde_json::from_str(&lab.sluice(&["participants", "--json"])).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["user"] == user).unwrap().clone();
        serde_json::from_str(&lab.sluice(&["show", row["id"].as_str().unwrap(), "--json"])).unwrap()
    };
    let why = |report: &Value, what: &str| -> String {
        let rows = report["streams"].as_array().unwrap();
        let row = rows.iter().find(|row| row["why"].as_str().is_some_and(|why| why.starts_with(what)));
        row.map_or_else(String::new, |row| row["why"].as_str().unwrap().to_owned())
    };
    let bob = shown("bob")["participant"]["id"].as_str().unwrap().to_owned();
    let picture = format!("{bob} wanted as high");
    wait("the picture asked for", || !why(&shown("alice"), &picture).is_empty());
    let report = shown("alice");
    println!("{}", lab.sluice(&["show", report["participant"]["id"].as_str().unwrap()]));

    assert_eq!(why(&report, &picture), format!("{picture}: sends no video yet"));
    let carried = |row: &&Value| row["direction"] == "out" && row["from"] == bob.as_str();
    let voice = report["streams"].as_array().unwrap().iter().find(carried).unwrap();
    assert_eq!((&voice["kind"], &voice["path"]), (&json!("audio"), &json!("slow")));
    assert!(voice["why"].as_str().unwrap().starts_with("one of the loudest, slot "), "{voice}");
    let microphone = report["streams"].as_array().unwrap().iter().find(|row| row["direction"] == "in").unwrap();
    assert_eq!((&microphone["why"], &microphone["path"]), (&json!("microphone"), &json!("slow")));
    assert_eq!(report["path"]["io"], "udp");
    assert!(report["path"]["why"][0].as_str().unwrap().contains("kernel sockets"), "{}", report["path"]);
    let remarks = report["remarks"].to_string();
    for part in ["wants to see nobody, who is not here", "nothing came as layer h yet", "says it is avs"] {
        assert!(remarks.contains(part), "{part}: {remarks}");
    }
    assert_eq!(
        (&report["participant"]["dtls"], &report["participant"]["profile"]),
        (&json!("1.2"), &json!("aes256-gcm"))
    );
    assert!(!report["local_candidates"].as_array().unwrap().is_empty() && report["pair"]["remote"].is_string());

    let text = lab.sluice(&["show", report["participant"]["id"].as_str().unwrap()]);
    for part in ["chosen pair  127.0.0.1:", "sends no video yet", "one of the loudest", "slow: endpoint ", "udp"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    lab.assert_alive();
}
