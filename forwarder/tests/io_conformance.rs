//! One suite over all ports: memory, kernel sockets on loopback, and `AF_XDP` on a veth pair between two network
//! namespaces that live only as long as the test's threads.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod io_rig;

use std::time::Duration;

use io_rig::{Rig, each_rig, payload};
use sluice_forwarder::io::headers::{Headers, write_udp_checksum};
use sluice_forwarder::io::{BURST, MemoryIo, PreloadedIo, RxBurst, TxFrame, UdpIo, XdpIo};
use sluice_forwarder::xdp::Steering;

/// Quiet time after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(200);

/// Writes a frame from the port to the peer and submits it.
fn submit(rig: &mut Rig, mut frame: TxFrame, payload: &[u8]) {
    let at = rig.outgoing().write(&mut frame, payload.len()).unwrap();
    frame[at..at + payload.len()].copy_from_slice(payload);
    let len = at + payload.len();
    if rig.port.wants_checksum() {
        assert!(write_udp_checksum(&mut frame[..len]));
    }
    rig.port.submit(frame, len);
}

/// Waits for a burst that is known to come.
fn receive(rig: &mut Rig, burst: &mut RxBurst) -> usize {
    receive_within(rig, burst, 20)
}

/// Waits for a burst, `tries` times 50 ms at most.
fn receive_within(rig: &mut Rig, burst: &mut RxBurst, tries: u32) -> usize {
    for _ in 0..tries {
        match rig.port.receive(burst) {
            0 => rig.port.wait(Duration::from_millis(50)),
            taken => return taken,
        }
    }
    0
}

/// Waits until the port has `wanted` free transmit frames again.
fn settle(rig: &mut Rig, wanted: usize) {
    for _ in 0..200 {
        rig.port.flush();
        if rig.port.credit() == wanted {
            return;
        }
        rig.peer.receive_all(usize::MAX, Duration::from_millis(1), &mut |_, _| {});
    }
    assert_eq!(rig.port.credit(), wanted, "{}: transmit frames are missing", rig.name);
}

#[test]
fn frames_arrive_intact_at_every_size() {
    each_rig(|mut rig| {
        let mut burst = RxBurst::new();
        let sizes: Vec<usize> = (1..=1500).collect();
        for group in sizes.chunks(32) {
            for size in group {
                assert!(rig.peer.send(&payload(*size, 1)), "{}: {size} bytes", rig.name);
            }
            let mut expected = group.iter();
            while expected.len() > 0 {
                assert!(receive(&mut rig, &mut burst) > 0, "{}: {} frames missing", rig.name, expected.len());
                for frame in burst.drain(..) {
                    let (headers, range) = Headers::parse(&frame).unwrap();
                    let size = *expected.next().unwrap();
                    assert_eq!(&frame[range], &payload(size, 1)[..], "{}: {size} bytes in", rig.name);
                    assert_eq!((headers.source, headers.destination), (rig.remote, rig.local));
                    assert_eq!(headers.vlan, rig.vlan);
                    rig.port.release(frame);
                }
            }
            for size in group {
                let frame = rig.port.acquire().unwrap();
                submit(&mut rig, frame, &payload(*size, 2));
            }
            rig.port.flush();
            let mut got = Vec::new();
            while got.len() < group.len() {
                let (local, remote, vlan) = (rig.local, rig.remote, rig.vlan);
                let missing = group.len() - got.len();
                let more = rig.peer.receive_all(missing, QUIET, &mut |headers, bytes| {
                    assert_eq!((headers.source, headers.destination), (local, remote));
                    assert_eq!(headers.vlan, vlan);
                    got.push(bytes.to_vec());
                });
                assert!(more > 0, "{}: {} of {} frames out", rig.name, got.len(), group.len());
            }
            for (size, bytes) in group.iter().zip(&got) {
                assert_eq!(bytes, &payload(*size, 2), "{}: {size} bytes out", rig.name);
            }
            rig.port.credit();
        }
        let counters = rig.port.counters();
        assert_eq!((counters.rx_frames, counters.tx_frames), (1500, 1500), "{}", rig.name);
        assert_eq!((counters.tx_failed, counters.tx_invalid), (0, 0), "{}", rig.name);
    });
}

#[test]
fn what_was_counted_as_sent_arrives() {
    each_rig(|mut rig| {
        let all = rig.port.credit();
        let mut arrived = 0;
        for _ in 0..4 {
            // Everything at once, more than any queue behind the port likes.
            for _ in 0..rig.port.credit() {
                let frame = rig.port.acquire().unwrap();
                submit(&mut rig, frame, &payload(100, 3));
            }
            rig.port.flush();
            arrived +=
                rig.peer.receive_all(usize::MAX, Duration::ZERO, &mut |_, bytes| assert_eq!(bytes, payload(100, 3)));
        }
        rig.port.flush();
        arrived += rig.peer.receive_all(usize::MAX, QUIET, &mut |_, bytes| assert_eq!(bytes, payload(100, 3)));
        let counters = rig.port.counters();
        assert!(counters.tx_frames >= all as u64);
        assert_eq!(arrived as u64 + counters.tx_failed + counters.tx_invalid, counters.tx_frames, "{}", rig.name);
        settle(&mut rig, all);
    });
}

#[test]
fn what_does_not_fit_on_receive_is_counted() {
    each_rig(|mut rig| {
        let sent = (0..rig.overflow).filter(|_| rig.peer.send(&payload(900, 4))).count();
        let mut burst = RxBurst::new();
        let mut arrived = 0;
        while receive_within(&mut rig, &mut burst, 4) > 0 {
            for frame in burst.drain(..) {
                arrived += 1;
                rig.port.release(frame);
            }
        }
        let counters = rig.port.counters();
        assert_eq!(arrived as u64, counters.rx_frames);
        assert_eq!(arrived + counters.rx_ring_full as usize, sent, "{}: {counters:?}", rig.name);
        let lost = rig.overflow - arrived;
        assert!(lost > 0, "{}: nothing overflowed", rig.name);
        // And it goes on.
        assert!(rig.peer.send(&payload(900, 5)));
        assert_eq!(receive(&mut rig, &mut burst), 1, "{}", rig.name);
        rig.port.release(burst.pop().unwrap());
    });
}

#[test]
fn handles_come_back_in_any_order() {
    each_rig(|mut rig| {
        let all = rig.port.credit();
        // Transmit: every second is cancelled, from the back.
        let mut frames = Vec::new();
        while let Some(frame) = rig.port.acquire() {
            frames.push(frame);
        }
        assert_eq!(frames.len(), all, "{}: credit is what can be acquired", rig.name);
        assert_eq!(rig.port.credit(), 0);
        let mut submitted = 0;
        while let Some(frame) = frames.pop() {
            if frames.len() % 2 == 0 {
                rig.port.cancel(frame);
            } else {
                submit(&mut rig, frame, &payload(60, 6));
                submitted += 1;
            }
        }
        assert_eq!(rig.port.counters().tx_frames, submitted);
        settle(&mut rig, all);
        // Receive: hold some of each burst over the next ones, and turn all frames over several times.
        let mut held = Vec::new();
        let mut burst = RxBurst::new();
        let mut expected = 0;
        for round in 0..400 {
            for _ in 0..20 {
                assert!(rig.peer.send(&payload(60, 7)), "{} in round {round}", rig.name);
            }
            expected += 20;
            let mut taken = 0;
            while taken < 20 {
                let more = receive(&mut rig, &mut burst);
                assert!(more > 0, "{} in round {round}", rig.name);
                taken += more;
                for (at, frame) in burst.drain(..).rev().enumerate() {
                    if at % 3 == 0 { held.push(frame) } else { rig.port.release(frame) }
                }
            }
            if held.len() > 40 {
                for frame in held.drain(..).rev() {
                    assert_eq!(&frame[frame.len() - 60..], &payload(60, 7)[..]);
                    rig.port.release(frame);
                }
            }
        }
        for frame in held {
            rig.port.release(frame);
        }
        assert_eq!(rig.port.counters().rx_frames, expected, "{}", rig.name);
    });
}

#[test]
fn a_full_burst_receives_nothing_and_loses_nothing() {
    each_rig(|mut rig| {
        for number in 0..2 * BURST {
            assert!(rig.peer.send(&payload(200 + number, 8)));
        }
        let mut burst = RxBurst::new();
        while !burst.is_full() {
            assert!(receive(&mut rig, &mut burst) > 0, "{}: {} frames", rig.name, burst.len());
        }
        for _ in 0..3 {
            assert_eq!(rig.port.receive(&mut burst), 0);
        }
        let mut number = 0;
        let mut rest = RxBurst::new();
        while number < 2 * BURST {
            for frame in burst.drain(..) {
                let (_, range) = Headers::parse(&frame).unwrap();
                assert_eq!(&frame[range], &payload(200 + number, 8)[..], "{}", rig.name);
                number += 1;
                rig.port.release(frame);
            }
            if number < 2 * BURST {
                assert!(receive(&mut rig, &mut rest) > 0, "{}: {number} frames", rig.name);
                std::mem::swap(&mut burst, &mut rest);
            }
        }
    });
}

#[test]
fn ports_can_move_to_their_worker() {
    fn movable<T: Send>() {}
    movable::<MemoryIo>();
    movable::<PreloadedIo>();
    movable::<UdpIo>();
    movable::<XdpIo>();
    movable::<Steering>();
}
