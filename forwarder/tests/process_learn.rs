//! A leg without an address takes that of its first authenticated packet, once; strangers neither fix nor move it.
#![allow(clippy::unwrap_used)]

#[path = "support/ears.rs"]
mod ears;
#[path = "support/process.rs"]
mod process;
mod support;

use std::time::Instant;

use ears::Ears;
use process::{PATIENCE, Start, each_lab};
use sluice_srtp::{Profile, Ssrc};
use sluice_table::protocol::{Event, LegState, Request, Response};
use sluice_table::{Kind, Remote};
use support::{Publisher, egress, ingress, key, name, publisher_leg, receiver_leg};

#[test]
fn the_first_authenticated_packet_fixes_the_address() {
    each_lab(|lab| {
        let forwarder = Start { workers: 2, ..Start::of(lab) }.start(lab);
        let (inbound, back, outbound) =
            (key(Profile::AeadAes256Gcm, 1), key(Profile::Aes128CmSha1_80, 2), key(Profile::AeadAes128Gcm, 3));
        let (mut home, stranger, far) = (Ears::new(lab, &back), lab.peer(), lab.peer_at(lab.other_ip));
        let mut ears = Ears::new(lab, &outbound);
        let other = lab.peer();
        let mut table = lab.table();
        // The learning leg sends one stream and receives another, so that its address matters both ways.
        publisher_leg(&mut table, "roaming", home.address(), &inbound);
        let leg = table.legs.get_mut(&name("roaming")).unwrap();
        (leg.remote, leg.outbound) = (Remote::Learn, Some(back.clone()));
        ingress(&mut table, "roaming/audio", "roaming", 7, Kind::Audio);
        publisher_leg(&mut table, "other", other.local_addr().unwrap(), &key(Profile::AeadAes128Gcm, 4));
        ingress(&mut table, "other/audio", "other", 8, Kind::Audio);
        receiver_leg(&mut table, "rx", ears.address(), &outbound);
        egress(&mut table, "rx/roaming", "rx", 70, "roaming/audio");
        egress(&mut table, "roaming/other", "roaming", 80, "other/audio");
        forwarder.apply(&table).unwrap();
        let mut events = forwarder.client();
        events.call(Request::Subscribe).unwrap();
        let mut publisher = Publisher::new(home.address(), Ssrc(7), 111, &inbound, 1);
        let mut others = Publisher::new(other.local_addr().unwrap(), Ssrc(8), 111, &key(Profile::AeadAes128Gcm, 4), 1);
        let mut packets = |n: usize| (0..n).map(|_| publisher.packet(&[4; 80], &[])).collect::<Vec<_>>();
        let state = || match forwarder.client().call(Request::Legs).unwrap() {
            Response::Legs(rows) => rows.into_iter().find(|row| row.leg == name("roaming")).unwrap(),
            other => panic!("{other:?}"),
        };

        // Strangers who know the SSRC but not the key fix nothing, and media for the leg waits for nobody.
        for mut packet in packets(10) {
            packet[20] ^= 1;
            stranger.send_to(&packet, lab.local).unwrap();
        }
        other.send_to(&others.packet(&[5; 80], &[]), lab.local).unwrap();
        let counters = forwarder.settled();
        assert_eq!((counters.get("drops.auth_tag"), counters.get("drops.no_remote")), (10, 1), "{counters:?}");
        assert_eq!((state().state, state().remote), (LegState::Learning, None));

        // The peer itself.
        for packet in packets(1) {
            home.socket.send_to(&packet, lab.local).unwrap();
        }
        ears.until("the first packet", |ears| ears.total() == 1);
        let learned = loop {
            match events.receive().unwrap().response {
                Response::Event(record) => {
                    if let Event::LegTuple { leg, address } = record.event {
                        break (leg, address);
                    }
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(learned, (name("roaming"), home.address()));
        assert_eq!(state().remote, Some(home.address()));

        // From elsewhere even authentic packets are refused from now on: as spoofed while the address is new, later
        // as media of no leg, which AF_XDP drops before a socket sees it.
        let before = forwarder.settled();
        for (n, packet) in packets(10).iter().enumerate() {
            let from = if n % 2 == 0 { &stranger } else { &far };
            from.send_to(packet, lab.local).unwrap();
        }
        let refused = ["drops.source_spoofed", "drops.unknown_tuple", "xdp.port0.drop_media_unknown"];
        let deadline = Instant::now() + PATIENCE;
        let grown = loop {
            let grown = forwarder.settled().since(&before);
            if refused.iter().filter_map(|key| grown.0.get(*key)).sum::<u64>() == 10 {
                break grown;
            }
            assert!(Instant::now() < deadline, "{}: ten packets from elsewhere, counted: {grown:?}", lab.name);
        };
        assert!(!grown.0.contains_key("packets.opened"), "{}: {grown:?}", lab.name);
        assert_eq!(ears.drain(), 0);

        // Home is still home, both ways.
        for packet in packets(20) {
            home.socket.send_to(&packet, lab.local).unwrap();
            other.send_to(&others.packet(&[5; 80], &[]), lab.local).unwrap();
        }
        ears.until("packets from home", |ears| ears.total() == 21);
        home.until("packets to where home is", |home| home.total() >= 18);
        assert_eq!(state().remote, Some(home.address()));
    });
}
