use sluice_srtp::job::SealJob;
use sluice_srtp::{PacketIndex, SentWindow, Seq, Ssrc};

use super::*;
use crate::generate::provider;
use crate::keys::{KeyText, Publisher, Receiver, stream};
use crate::random::Random;
use sluice_table::Kind;

const PORT: u16 = 3000;
const SSRC: u32 = 9;

fn session(profile: Option<Profile>) -> Session {
    let mut random = Random::new(1, 1);
    let mut key = || profile.map(|profile| KeyText::draw(profile, &mut random));
    Session {
        forwarder: "10.0.0.1:5004".parse().unwrap(),
        publishers: vec![Publisher {
            local: "10.0.0.2:1000".parse().unwrap(),
            to: None,
            key: key(),
            streams: vec![stream(Kind::Video, 0, 1)],
        }],
        receivers: vec![Receiver { local: ([10, 0, 0, 2], PORT).into(), key: key(), expects: vec![(SSRC, 0)] }],
    }
}

/// A packet of the receiver's stream under any index.
fn packet(session: &Session, index: u64, stamp: Stamp) -> Vec<u8> {
    let mut plain = vec![0x11; 100];
    stamp.write(&mut plain);
    let index = PacketIndex::from_u64(index).unwrap();
    let mut frame = vec![0x80, 96];
    frame.extend_from_slice(&index.seq().0.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0]);
    frame.extend_from_slice(&SSRC.to_be_bytes());
    let Some(key) = &session.receivers[0].key else {
        frame.extend_from_slice(&plain);
        return frame;
    };
    let mut crypto = provider("portable").unwrap();
    let keys = crypto.expand(&key.master().unwrap());
    frame.resize(12 + 100 + Profile::MAX_TAG, 0);
    let index = SentWindow::new(PacketIndex::new(0, Seq(0))).issue(index).unwrap();
    crypto.seal(&mut [SealJob {
        keys: &keys,
        ssrc: Ssrc(SSRC),
        index,
        plain: &plain,
        frame: &mut frame,
        header_len: 12,
    }]);
    frame.truncate(12 + 100 + key.profile.rtp_tag_len());
    frame
}

fn at(index: u64) -> Stamp {
    Stamp { stream: 0, sequence: index - 100, due: index * 1_000 }
}

fn check(session: &Session, every: u64, indexes: &[u64]) -> Checker {
    let mut checker = Checker::new(session, provider("portable").unwrap(), every).unwrap();
    for index in indexes {
        checker.take(PORT, &packet(session, *index, at(*index)), index * 1_000 + 7_000);
    }
    checker
}

#[test]
fn order_duplicates_and_gaps_are_told_apart() {
    for profile in Profile::ALL.into_iter().map(Some).chain([None]) {
        let session = session(profile);
        let checker = check(&session, 1, &[100, 101, 104, 103, 103, 100, 106]);
        let totals = checker.totals();
        let want = Received {
            packets: 7,
            bytes: totals.bytes,
            opened: 5,
            duplicates: 2,
            reordered: 1,
            lost: 2,
            streams: 1,
            ..Received::default()
        };
        assert_eq!(totals, want, "{profile:?}");
        let latency = checker.latency().unwrap();
        assert_eq!(latency.count, 5);
        assert!((latency.p50 - 7.0).abs() < 0.01 && (latency.max - 7.0).abs() < 0.01, "{latency:?}");
    }
}

#[test]
fn indexes_go_on_over_the_rollover() {
    let indexes: Vec<u64> = (65_530..65_550).collect();
    let totals = check(&session(Some(Profile::AeadAes256Gcm)), 1, &indexes).totals();
    assert_eq!((totals.opened, totals.lost, totals.bad_tag, totals.shifted), (20, 0, 0, 0));
}

#[test]
fn replays_older_than_the_window_are_counted() {
    let totals = check(&session(Some(Profile::AeadAes128Gcm)), 1, &[100, 3000, 200]).totals();
    assert_eq!((totals.too_old, totals.opened), (1, 2));
}

#[test]
fn wrong_tags_change_nothing() {
    let session = session(Some(Profile::Aes128CmSha1_80));
    let mut checker = check(&session, 1, &[100]);
    let mut forged = packet(&session, 50_000, at(50_000));
    *forged.last_mut().unwrap() ^= 1;
    checker.take(PORT, &forged, 0);
    checker.take(PORT, &packet(&session, 101, at(101)), 200_000);
    let totals = checker.totals();
    assert_eq!((totals.bad_tag, totals.opened, totals.lost), (1, 2, 0));
}

#[test]
fn sampling_opens_one_in_n_and_still_counts_all() {
    let session = session(Some(Profile::AeadAes128Gcm));
    let indexes: Vec<u64> = (100..200).collect();
    let totals = check(&session, 10, &indexes).totals();
    // The first packet of a stream and every tenth.
    assert_eq!((totals.packets, totals.opened, totals.lost), (100, 11, 0));
}

#[test]
fn strangers_are_counted_by_what_they_are() {
    let session = session(Some(Profile::AeadAes128Gcm));
    let mut checker = check(&session, 1, &[100]);
    let good = packet(&session, 101, at(101));
    checker.take(PORT + 1, &good, 0);
    checker.take(PORT, &[0x80, 200, 0, 1, 0, 0, 0, 0], 0);
    checker.take(PORT, &[0x80, 96, 0], 0);
    checker.take(PORT, &[], 0);
    checker.take(PORT, &[0; 40], 0);
    let totals = checker.totals();
    assert_eq!((totals.unknown, totals.rtcp, totals.malformed, totals.packets), (1, 1, 3, 1));
}

#[test]
fn other_streams_and_skipped_source_packets_show() {
    let session = session(Some(Profile::AeadAes128Gcm));
    let mut checker = check(&session, 1, &[100]);
    checker.take(PORT, &packet(&session, 101, Stamp { stream: 3, ..at(101) }), 0);
    checker.take(PORT, &packet(&session, 102, Stamp { sequence: 50, ..at(102) }), 0);
    let totals = checker.totals();
    assert_eq!((totals.foreign, totals.shifted), (1, 1));
}
