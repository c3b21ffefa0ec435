//! A flood of packets that fail to authenticate: up to half of what can be dropped it harms nobody, above that loss is
//! confined to rings and sockets, counted there, and leaves nothing behind.
#![allow(clippy::unwrap_used)]

#[path = "support/ears.rs"]
mod ears;
#[path = "support/process.rs"]
mod process;
mod support;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ears::Ears;
use process::{Counters, Forwarder, Lab, Start, each_lab};
use sluice_srtp::{Profile, Ssrc};
use sluice_table::Kind;
use support::{Publisher, egress, ingress, key, publisher_leg, receiver_leg};

/// How long one flood takes.
const SPAN: Duration = Duration::from_millis(800);

struct Storm<'a> {
    lab: &'a Lab,
    forwarder: Forwarder,
    flooder: UdpSocket,
    forged: Vec<u8>,
    socket: UdpSocket,
    publisher: Publisher,
    ears: Ears,
}

/// What one flood did.
#[derive(Debug)]
struct Result {
    flood: u64,
    good: u64,
    heard: u64,
    /// Lost before the engine saw them: receive rings, socket buffers, the link's queue.
    lost: u64,
    grown: Counters,
}

impl<'a> Storm<'a> {
    fn new(lab: &'a Lab) -> Self {
        let forwarder = Start::of(lab).start(lab);
        let (good, bad, out) =
            (key(Profile::AeadAes128Gcm, 1), key(Profile::AeadAes256Gcm, 2), key(Profile::AeadAes128Gcm, 3));
        let (socket, flooder, ears) = (lab.peer(), lab.peer(), Ears::new(lab, &out));
        let mut table = lab.table();
        publisher_leg(&mut table, "good", socket.local_addr().unwrap(), &good);
        ingress(&mut table, "good/audio", "good", 7, Kind::Audio);
        publisher_leg(&mut table, "bad", flooder.local_addr().unwrap(), &bad);
        ingress(&mut table, "bad/audio", "bad", 8, Kind::Audio);
        receiver_leg(&mut table, "rx", ears.address(), &out);
        egress(&mut table, "rx/good", "rx", 70, "good/audio");
        forwarder.apply(&table).unwrap();
        let publisher = Publisher::new(socket.local_addr().unwrap(), Ssrc(7), 111, &good, 1);
        let mut forged = Publisher::new(flooder.local_addr().unwrap(), Ssrc(8), 111, &bad, 1).packet(&[6; 160], &[]);
        *forged.last_mut().unwrap() ^= 1;
        for socket in [&flooder, &socket] {
            socket.connect(lab.local).unwrap();
            socket.set_nonblocking(false).unwrap();
        }
        Storm { lab, forwarder, flooder, forged, socket, publisher, ears }
    }

    /// Floods for [`SPAN`] at `rate` packets a second, or as fast as it goes, a good packet each millisecond beside.
    fn flood(&mut self, rate: Option<u64>) -> Result {
        let before = self.forwarder.settled();
        let (link, heard) = (link_drops(self.lab), self.ears.total());
        let (mut flood, mut good, mut skipped) = (0u64, 0u64, 0u64);
        let start = Instant::now();
        while start.elapsed() < SPAN {
            let due = rate.map_or(64, |rate| {
                (rate * start.elapsed().as_micros() as u64 / 1_000_000).saturating_sub(flood + skipped)
            });
            // No burst makes up for a moment without the processor.
            let burst = due.min(64);
            skipped += due - burst;
            for _ in 0..burst {
                self.flooder.send(&self.forged).unwrap();
            }
            flood += burst;
            if start.elapsed().as_millis() as u64 > good {
                self.socket.send(&self.publisher.packet(&[2; 100], &[])).unwrap();
                good += 1;
            }
            if burst < 64 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        let grown = self.forwarder.settled().since(&before);
        self.ears.drain();
        let heard = (self.ears.total() - heard) as u64;
        let rings = ["io.rx_ring_full", "io.rx_fill_empty", "io.rx_dropped"];
        let lost = rings.iter().filter_map(|key| grown.0.get(*key)).sum::<u64>() + link_drops(self.lab) - link;
        Result { flood, good, heard, lost, grown }
    }
}

/// Frames the link between the peers and the forwarder dropped because its own queue was full.
fn link_drops(lab: &Lab) -> u64 {
    if !lab.is_xdp() {
        return 0;
    }
    let output =
        lab.outside(|| std::process::Command::new("ip").args(["-s", "-j", "link", "show", "dev", "peer0"]).output());
    let links: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    links[0]["stats64"]["tx"]["dropped"].as_u64().unwrap()
}

impl Result {
    /// Every packet sent is accounted for, lost or not.
    fn adds_up(&self, what: &str) {
        let count = |key: &str| self.grown.0.get(key).copied().unwrap_or(0);
        let received = count("packets.received");
        assert_eq!(self.flood + self.good, received + self.lost, "{what}: sent = received + lost: {self:?}");
        let (opened, forged) = (count("packets.opened"), count("drops.auth_tag"));
        assert_eq!(received, opened + forged, "{what}: received = opened + dropped: {self:?}");
        assert_eq!(self.grown.sum("drops."), forged, "{what}: dropped for another reason: {self:?}");
        assert_eq!(self.heard, opened, "{what}: an opened packet was not heard: {self:?}");
        assert!(self.good - self.heard <= self.lost, "{what}: {self:?}");
    }
}

#[test]
fn a_flood_harms_nobody_up_to_half_of_what_can_be_dropped() {
    each_lab(|lab| {
        let mut storm = Storm::new(lab);
        let warm = storm.flood(Some(1_000));
        warm.adds_up("a drizzle");
        let (ledger, resident) = (storm.forwarder.status().ledger, storm.forwarder.resident());
        let table = storm.forwarder.snapshot();

        // As fast as it goes: what is lost is lost in front of the engine, and counted.
        let over = storm.flood(None);
        over.adds_up("as fast as it goes");
        let capacity = over.grown.0["drops.auth_tag"] * 1_000 / SPAN.as_millis() as u64;

        // Other work on the machine takes capacity away between two floods; then half of it is less.
        let mut rate = capacity / 2;
        let result = loop {
            let result = storm.flood(Some(rate));
            result.adds_up("half");
            if result.lost == 0 {
                break result;
            }
            println!("{}: lost {} in rings at {rate}/s, again at half", lab.name, result.lost);
            rate /= 2;
            assert!(
                rate > capacity / 64,
                "{}: even {rate} of {capacity} packets a second overflow: {result:?}",
                lab.name
            );
        };
        assert_eq!(result.heard, result.good, "{}: good packets were lost: {result:?}", lab.name);
        println!(
            "{}: dropped {capacity}/s at most ({} of {} lost in rings, good {} of {}); at {rate}/s good {} of {}",
            lab.name, over.lost, over.flood, over.heard, over.good, result.heard, result.good
        );
        assert_eq!(storm.forwarder.status().ledger, ledger);
        assert_eq!(storm.forwarder.snapshot(), table);
        let later = storm.forwarder.resident();
        assert!(later <= resident + 1_024, "{}: {resident} KiB before, {later} KiB after", lab.name);
    });
}
