//! Offers to Wire clients, compared with recorded ones. `UPDATE_SNAPSHOTS=1` records them again.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;

use sluice_control::dialect::wire::offer::{AudioSlot, OfferParameters, TOOL, VideoSlot, offer};
use sluice_control::sdp::{Attribute, Direction, MediaKind, SessionDescription};
use sluice_control::transport::{CandidateKind, Credentials, Fingerprint, HashFunction, Setup};
use sluice_table::Ssrc;

fn made(audio: u32, video: u32, simulcast: bool, candidates: &[SocketAddr]) -> String {
    let label = |at: u32| format!("6e1f0a52-0000-4000-8000-{at:012}");
    let audio: Vec<_> = (1..=audio).map(|at| AudioSlot { ssrc: Ssrc(1_000 + at), label: label(at) }).collect();
    let slot = |at| VideoSlot { ssrc: Ssrc(2_000 + at), rtx_ssrc: Ssrc(3_000 + at), label: label(1_000 + at) };
    let video: Vec<_> = (1..=video).map(slot).collect();
    offer(&OfferParameters {
        session_id: 4_611_686_018_427_387_905,
        session_version: 1,
        tool: TOOL,
        credentials: &Credentials { ufrag: "sLuI".to_owned(), password: "abcdefghijklmnopqrstuvwx".to_owned() },
        fingerprint: &Fingerprint { hash: HashFunction::Sha256, bytes: (0..32).map(|at| at * 8).collect() },
        candidates,
        audio: &audio,
        video: &video,
        simulcast,
    })
}

fn addresses() -> Vec<SocketAddr> {
    vec!["192.0.2.10:3478".parse().unwrap(), "[2001:db8::10]:3478".parse().unwrap()]
}

fn snapshot(name: &str, text: &str) {
    let path = format!("{}/tests/sdp/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    let differs = recorded.lines().zip(text.lines()).position(|(recorded, made)| recorded != made);
    assert_eq!(recorded, text, "{name}.sdp differs, first in line {differs:?}");
}

#[test]
fn offers_are_as_recorded() {
    snapshot("wire-offer", &made(5, 9, true, &addresses()));
    snapshot("wire-offer-single", &made(5, 9, false, &addresses()));
    snapshot("wire-offer-bare", &made(0, 0, false, &[]));
}
