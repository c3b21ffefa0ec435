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

#[test]
fn every_stream_has_a_section_of_its_own() {
    let description = SessionDescription::parse(&made(5, 9, true, &addresses())).unwrap();
    let remote = description.remote_description().unwrap();
    assert_eq!((remote.setup, remote.ice_lite, remote.max_message_size), (Setup::ActPass, false, 262_144));
    let candidates: Vec<_> = remote.candidates.iter().map(|at| (at.address, at.kind)).collect();
    let expected = addresses().into_iter().map(|address| (address, CandidateKind::Host)).collect::<Vec<_>>();
    assert_eq!(candidates, expected);
    assert!(remote.candidates[0].priority > remote.candidates[1].priority, "the first address is preferred");
    assert_eq!(description.media.len(), 3 + 5 + 9);
    assert_eq!(description.bundled().len(), 3 + 5 + 9);

    let mut ssrcs = Vec::new();
    for (at, media) in description.media.iter().enumerate().skip(3) {
        assert_eq!(media.mid(), Some((at - 2).to_string().as_str()));
        assert_eq!(media.kind, if at < 8 { MediaKind::Audio } else { MediaKind::Video });
        assert_eq!(description.direction(media), Direction::SendOnly);
        let mut here: Vec<_> = media.ssrcs().collect();
        here.dedup();
        if let [media_ssrc, rtx] = here[..] {
            assert_eq!(media.repairing(media_ssrc), Some(rtx));
        }
        assert_eq!(here.len(), if at < 8 { 1 } else { 2 });
        ssrcs.extend(here);
    }
    let all = ssrcs.len();
    ssrcs.sort();
    ssrcs.dedup();
    assert_eq!((all, ssrcs.len()), (5 + 2 * 9, 5 + 2 * 9));
}

/// What clients look for, word for word, before they hand the offer to their peer connection.
#[test]
fn clients_find_the_lines_they_rewrite() {
    let text = made(5, 9, true, &addresses());
    let lines: Vec<&str> = text.split("\r\n").collect();
    let constant_rate = lines.iter().filter(|line| line.ends_with("sprop-stereo=0;useinbandfec=1")).count();
    assert_eq!(constant_rate, 6, "cbr=1 is put behind this end, in each audio section");
    assert_eq!(lines.iter().filter(|line| **line == "a=simulcast:recv l;h").count(), 1);
    for rid in ["a=rid:l recv", "a=rid:h recv"] {
        assert_eq!(lines.iter().filter(|line| **line == rid).count(), 1);
    }
    // A label for each SSRC; groups with fewer than two SSRCs would be taken out.
    assert_eq!(lines.iter().filter(|line| line.starts_with("a=ssrc:") && line.contains(" msid:")).count(), 5 + 18);
    assert!(lines.iter().filter(|line| line.starts_with("a=ssrc-group:")).all(|line| line.split(' ').count() == 3));
    let description = SessionDescription::parse(&text).unwrap();
    assert!(description.attributes.contains(&Attribute::Tool("sftd 5.0.1 (x86_64/linux)".to_owned())));
}

#[test]
fn layers_are_asked_for_only_if_wanted() {
    let text = made(5, 9, false, &addresses());
    assert!(!text.contains("a=rid") && !text.contains("a=simulcast"));
}
