//! Media that comes before its leg's key waits in the forwarder and goes on with the commit that brings the key.
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
use sluice_table::{Ice, Kind};
use support::{Publisher, egress, ingress, key, name, publisher_leg, receiver_leg};

const PACKETS: u64 = 20;

#[test]
fn packets_before_the_key_are_forwarded_with_it() {
    each_lab(|lab| {
        let forwarder = Start { workers: 2, ..Start::of(lab) }.start(lab);
        let (inbound, outbound) = (key(Profile::AeadAes256Gcm, 1), key(Profile::AeadAes128Gcm, 2));
        let (socket, mut ears) = (lab.peer(), Ears::new(lab, &outbound));
        let from = socket.local_addr().unwrap();
        let mut keyed = lab.table();
        publisher_leg(&mut keyed, "pub", from, &inbound);
        keyed.legs.get_mut(&name("pub")).unwrap().ice = Some(Ice {
            local_ufrag: "ours".to_owned(),
            local_password: "our+password+0123456789".to_owned(),
            remote_ufrag: "theirs".to_owned(),
            remote_password: "their+password+01234567".to_owned(),
            controlling: false,
            tie_breaker: 7,
            tuples: vec![from],
        });
        ingress(&mut keyed, "audio", "pub", 7, Kind::Audio);
        receiver_leg(&mut keyed, "rx", ears.address(), &outbound);
        egress(&mut keyed, "rx/audio", "rx", 70, "audio");
        let mut waiting = keyed.clone();
        waiting.legs.get_mut(&name("pub")).unwrap().inbound = None;
        let mut publisher = Publisher::new(from, Ssrc(7), 111, &inbound, 1);

        // A machine that is too busy to commit within 300 ms does so in another round; nothing is ever unaccounted for.
        let mut whole = 0;
        for round in 0..30 {
            forwarder.apply(&waiting).unwrap();
            let (before, heard) = (forwarder.settled(), ears.total());
            for _ in 0..PACKETS {
                socket.send_to(&publisher.packet(&[4; 80], &[]), lab.local).unwrap();
            }
            forwarder.apply(&keyed).unwrap();
            let deadline = Instant::now() + PATIENCE;
            loop {
                ears.drain();
                let (came, counted) = ((ears.total() - heard) as u64, forwarder.counters().since(&before));
                let expired = counted.0.get("drops.pending_expired").copied().unwrap_or(0);
                if came + expired == PACKETS {
                    whole += u64::from(expired == 0);
                    break;
                }
                assert!(Instant::now() < deadline, "{}: {came} came in round {round}, {counted:?}", lab.name);
            }
            if whole == 3 {
                return;
            }
        }
        panic!("{}: {whole} of 30 rounds lost nothing", lab.name);
    });
}
