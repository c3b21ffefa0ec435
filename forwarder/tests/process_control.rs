//! What an operator does to a running forwarder: tables that are wrong, a second forwarder, SIGSTOP, SIGTERM.
#![allow(clippy::unwrap_used)]

#[path = "support/ears.rs"]
mod ears;
#[path = "support/process.rs"]
mod process;
mod support;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use ears::Ears;
use process::{Forwarder, Lab, Start, each_lab, loopback};
use sluice_forwarder::engine::index_store::Direction;
use sluice_forwarder::index_file::IndexFile;
use sluice_forwarder::index_file::store::IndexStore;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::protocol::{ClientError, Refusal};
use sluice_table::{Endpoint, Kind, Table};
use support::{Publisher, egress, ingress, key, name, publisher_leg, receiver_leg};

/// One publisher, one receiver.
struct Call {
    socket: UdpSocket,
    publisher: Publisher,
    ears: Ears,
    table: Table,
    sent: usize,
}

impl Call {
    fn new(lab: &Lab) -> Call {
        let (inbound, outbound) = (key(Profile::AeadAes128Gcm, 1), key(Profile::AeadAes256Gcm, 2));
        let (socket, ears) = (lab.peer(), Ears::new(lab, &outbound));
        let address = socket.local_addr().unwrap();
        let mut table = lab.table();
        publisher_leg(&mut table, "pub", address, &inbound);
        ingress(&mut table, "audio", "pub", 7, Kind::Audio);
        receiver_leg(&mut table, "rx", ears.address(), &outbound);
        egress(&mut table, "rx/audio", "rx", 70, "audio");
        let publisher = Publisher::new(address, Ssrc(7), 111, &inbound, 1);
        Call { socket, publisher, ears, table, sent: 0 }
    }

    fn send(&mut self, lab: &Lab, packets: usize) {
        for _ in 0..packets {
            self.socket.send_to(&self.publisher.packet(&[3; 100], &[]), lab.local).unwrap();
        }
        self.sent += packets;
    }

    /// Sends, and hears every packet sent so far.
    fn works(&mut self, lab: &Lab) {
        if self.sent == 0 {
            // Two workers may see the first packets in another order, and a stream starts with the first it sees.
            self.send(lab, 1);
            self.ears.until("the first packet", |ears| ears.total() == 1);
        }
        self.send(lab, 50);
        let sent = self.sent;
        self.ears.until("every packet sent", |ears| ears.total() == sent);
    }
}

fn refusal(result: Result<u64, ClientError>) -> sluice_table::protocol::Refused {
    match result {
        Err(ClientError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_bad_table_is_refused_whole_and_traffic_goes_on() {
    each_lab(|lab| {
        let forwarder = Start { workers: 2, capacity: [8, 8, 16, 1024], ..Start::of(lab) }.start(lab);
        let mut call = Call::new(lab);
        forwarder.apply(&call.table).unwrap();
        call.works(lab);
        let before = forwarder.snapshot();
        for (what, table, reason) in bad_tables(lab, &call.table) {
            call.send(lab, 10);
            let refused = refusal(forwarder.apply(&table));
            assert_eq!(refused.reason, reason, "{what}: {refused}");
            assert!(!refused.hint.is_empty(), "{what}");
            assert_eq!(forwarder.snapshot(), before, "{what} left something behind");
            call.works(lab);
        }
        // Nothing of a refused table stands in the way of a good one.
        let third = key(Profile::Aes128CmSha1_80, 9);
        let mut more = Ears::new(lab, &third);
        receiver_leg(&mut call.table, "rx2", more.address(), &third);
        egress(&mut call.table, "rx2/audio", "rx2", 71, "audio");
        forwarder.apply(&call.table).unwrap();
        call.send(lab, 1); // see `works`
        more.until("the first packet of a stream added later", |ears| ears.total() == 1);
        call.works(lab);
        more.until("packets of a stream added later", |ears| ears.total() == 51);
        // Neither does a key of a refused table: new streams keep their indexes under the key in force.
        egress(&mut call.table, "rx/more", "rx", 75, "audio");
        forwarder.apply(&call.table).unwrap();
        forwarder.kill();
        let file = IndexFile::open(&lab.state().join("indexes"), 1).unwrap();
        let store = IndexStore::new(Arc::new(file)).unwrap();
        let id = call.table.legs[&name("rx")].outbound.as_ref().unwrap().key_id();
        assert!(store.get(id, Ssrc(75), Direction::Send).is_some(), "the row is under another key");
    });
}

/// Tables that cannot be, made from one that can.
fn bad_tables(lab: &Lab, good: &Table) -> Vec<(&'static str, Table, Refusal)> {
    let with = |change: &dyn Fn(&mut Table)| {
        let mut table = good.clone();
        change(&mut table);
        table
    };
    let outbound = good.legs[&name("rx")].outbound.clone().unwrap();
    vec![
        ("a stream of no source", with(&|t| egress(t, "rx/video", "rx", 72, "nothing")), Refusal::InvalidTable),
        (
            "one key in two places",
            with(&|t| receiver_leg(t, "rx3", "192.0.2.2:9".parse().unwrap(), &outbound)),
            Refusal::InvalidTable,
        ),
        ("two streams of one SSRC", with(&|t| egress(t, "rx/again", "rx", 70, "audio")), Refusal::InvalidTable),
        (
            "more streams than there is room for in all",
            with(&|t| (0..40).for_each(|n| egress(t, &format!("rx/{n}"), "rx", 1000 + n, "audio"))),
            Refusal::Capacity,
        ),
        (
            "more streams than one worker has room for",
            with(&|t| (0..15).for_each(|n| egress(t, &format!("rx/{n}"), "rx", 1000 + n, "audio"))),
            Refusal::Capacity,
        ),
        (
            "another key and more streams than one worker has room for",
            with(&|t| {
                (0..15).for_each(|n| egress(t, &format!("rx/{n}"), "rx", 1000 + n, "audio"));
                t.legs.get_mut(&name("rx")).unwrap().outbound = Some(key(Profile::AeadAes256Gcm, 77));
            }),
            Refusal::Capacity,
        ),
        (
            "an endpoint on no interface",
            with(&|t| {
                let endpoint = Endpoint { interface: "nowhere0".to_owned(), address: lab.local };
                t.endpoints.insert(name("other"), Endpoint { address: "127.0.0.1:1".parse().unwrap(), ..endpoint });
            }),
            Refusal::Endpoint,
        ),
        (
            "an endpoint on an address of somebody else",
            with(&|t| {
                let address = "198.51.100.7:5004".parse().unwrap();
                t.endpoints.insert(name("other"), Endpoint { interface: lab.interface.to_owned(), address });
            }),
            Refusal::Endpoint,
        ),
    ]
}

#[test]
fn a_second_forwarder_ends_with_a_clear_error() {
    let lab = loopback();
    let start = Start::of(&lab);
    let first = start.start(&lab);
    let mut call = Call::new(&lab);
    first.apply(&call.table).unwrap();
    let same_socket = Start { state: lab.dir.path().join("other"), ..start.clone() };
    let (status, said) = same_socket.fails(&lab);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("another forwarder already serves") && said.contains("--socket"), "{said}");
    let same_state = Start { socket: lab.dir.path().join("other.sock"), ..start.clone() };
    let (status, said) = same_state.fails(&lab);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&format!("in use by another forwarder (pid {})", first.pid())), "{said}");
    assert!(!same_state.socket.exists(), "a forwarder that did not start left a socket");
    call.works(&lab);
}

#[test]
fn a_stopped_forwarder_recovers() {
    each_lab(|lab| {
        let forwarder = Start::of(lab).start(lab);
        let mut call = Call::new(lab);
        forwarder.apply(&call.table).unwrap();
        call.works(lab);
        forwarder.signal(libc::SIGSTOP);
        for _ in 0..100 {
            call.send(lab, 10);
            std::thread::sleep(Duration::from_millis(10));
        }
        forwarder.signal(libc::SIGCONT);
        // 1,000 packets fit into the rings: not one of them is lost, and later ones follow.
        call.works(lab);
        assert_eq!(forwarder.settled().get("packets.opened"), call.sent as u64);
    });
}

#[test]
fn sigterm_ends_well() {
    each_lab(|lab| {
        let forwarder = Start { workers: 2, ..Start::of(lab) }.start(lab);
        let mut call = Call::new(lab);
        forwarder.apply(&call.table).unwrap();
        call.works(lab);
        call.send(lab, 20);
        assert!(lab.socket().exists());
        assert_eq!(forwarder.terminate().code(), Some(0));
        assert!(!lab.socket().exists(), "the socket is left");
        // And the next one starts where it stopped.
        let forwarder: Forwarder = Start::of(lab).start(lab);
        forwarder.apply(&call.table).unwrap();
        let heard = call.ears.total();
        call.send(lab, 20);
        call.ears.until("packets after a restart", |ears| ears.total() >= heard + 20);
    });
}
