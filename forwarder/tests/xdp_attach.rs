//! The program and its sockets on real interfaces: what reaches whom while sockets come and go, and what is refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod io_rig;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use io_rig::veth::{PORT, PacketPeer, Veth, new_namespace, run, veth};
use io_rig::{Peer, payload};
use sluice_forwarder::io::headers::Headers;
use sluice_forwarder::io::udp::{UdpOptions, bind_endpoint};
use sluice_forwarder::io::xdp::{BusyPoll, OpenError, Step, XdpOptions};
use sluice_forwarder::io::{PacketIo, PollMode, RxBurst, UdpIo, XdpIo};
use sluice_forwarder::xdp::netlink::attached_program;
use sluice_forwarder::xdp::{AttachMode, Options, Steering, SteeringError};
use sluice_xdp_layout::Verdict;

/// Runs a test in a thread, and so in a namespace, of its own.
fn alone(test: fn()) {
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

fn ends() -> [(SocketAddr, SocketAddr); 2] {
    ["192.0.2.1:5004 192.0.2.2:6004", "[2001:db8::1]:5004 [2001:db8::2]:6004"].map(|pair| {
        let (local, remote) = pair.split_once(' ').unwrap();
        (local.parse().unwrap(), remote.parse().unwrap())
    })
}

fn open(mode: &AttachMode) -> XdpIo {
    // The kernel lets go of a queue some time after its socket was closed.
    let patience = Duration::from_secs(20);
    let options = XdpOptions { poll: PollMode::Interrupt, patience, ..XdpOptions::new(PORT, 0, mode.clone()) };
    XdpIo::open(&options).unwrap()
}

/// Payloads that wait at a port, or the first ones to come.
fn take(io: &mut dyn PacketIo) -> Vec<Vec<u8>> {
    let mut burst = RxBurst::new();
    for _ in 0..100 {
        if io.receive(&mut burst) > 0 {
            break;
        }
        io.wait(Duration::from_millis(100));
    }
    let mut payloads = Vec::new();
    for frame in burst.drain(..) {
        let (_, range) = Headers::parse(&frame).unwrap();
        payloads.push(frame[range].to_vec());
        io.release(frame);
    }
    payloads
}

#[test]
fn the_kernel_socket_serves_while_no_xsk_is_bound() {
    alone(|| {
        let Some(veth) = veth() else { return };
        let mut steering = Steering::load(&Options::default()).unwrap();
        let mode = steering.attach(veth.ifindex).unwrap();
        assert_eq!(mode, AttachMode::Driver);
        let Veth { ifindex, peer } = veth;
        let [(local, remote), _] = ends();
        let mut peer = PacketPeer { veth: Veth { ifindex, peer }, local, remote, vlan: None };
        for (local, remote) in ends() {
            (peer.local, peer.remote) = (local, remote);
            let before = steering.tally().unwrap();
            let socket = bind_endpoint(local).unwrap();
            let options = UdpOptions { poll: PollMode::Interrupt, ..UdpOptions::default() };
            let mut kernel = UdpIo::new(vec![socket], &options).unwrap();
            steering.insert_endpoint(local, false).unwrap();
            steering.insert_tuple(local, remote, 1).unwrap();
            assert!(peer.send(&payload(100, 1)));
            assert_eq!(take(&mut kernel), [payload(100, 1)]);
            // A socket comes: the kernel socket is quiet.
            let mut xsk = open(&mode);
            steering.register_socket(0, xsk.fd()).unwrap();
            assert!(peer.send(&payload(100, 2)));
            assert_eq!(take(&mut xsk), [payload(100, 2)]);
            // An unknown tuple gets through with STUN, and with media only where it is wanted.
            let mut stranger = remote;
            stranger.set_port(7000);
            peer.remote = stranger;
            let stun = [&[0, 1, 0, 0][..], &[0; 16]].concat();
            assert!(peer.send(&stun) && peer.send(&payload(100, 3)));
            assert_eq!(take(&mut kernel), [stun]);
            steering.insert_endpoint(local, true).unwrap();
            assert!(peer.send(&payload(100, 4)));
            assert_eq!(take(&mut xsk), [payload(100, 4)]);
            // The socket goes: the kernel socket serves again.
            peer.remote = remote;
            drop(xsk);
            assert!(peer.send(&payload(100, 5)));
            assert_eq!(take(&mut kernel), [payload(100, 5)]);
            // So it does when the socket stays but is taken off the table.
            let xsk = open(&mode);
            steering.register_socket(0, xsk.fd()).unwrap();
            steering.unregister_socket(0).unwrap();
            assert!(peer.send(&payload(100, 6)));
            assert_eq!(take(&mut kernel), [payload(100, 6)]);
            let after = steering.tally().unwrap();
            for (verdict, count) in [
                (Verdict::PassNoSocket, 3),
                (Verdict::RedirectTuple, 1),
                (Verdict::PassStun, 1),
                (Verdict::DropMediaUnknown, 1),
                (Verdict::RedirectUnknown, 1),
            ] {
                assert_eq!(after.get(verdict) - before.get(verdict), count, "{verdict:?}");
            }
        }
    });
}

#[test]
fn the_ladder_says_what_was_refused() {
    alone(|| {
        let Some(veth) = veth() else { return };
        let mut steering = Steering::load(&Options::default()).unwrap();
        let mode = steering.attach(veth.ifindex).unwrap();
        let io = open(&mode);
        assert_eq!(io.step(), Step::CopyDriver);
        let [refused] = io.refused() else { panic!("{:?}", io.refused()) };
        assert_eq!(refused.step, Step::ZeroCopy);
        assert!(refused.reason.contains("not supported"), "{}", refused.reason);
    });
}

#[test]
fn busy_polling_and_huge_pages_are_optional() {
    alone(|| {
        let Some(veth) = veth() else { return };
        let mut steering = Steering::load(&Options::default()).unwrap();
        let mode = steering.attach(veth.ifindex).unwrap();
        let options = XdpOptions {
            poll: PollMode::Busy,
            busy_poll: Some(BusyPoll::default()),
            huge_pages: true,
            ..XdpOptions::new(PORT, 0, mode)
        };
        let mut io = XdpIo::open(&options).unwrap();
        let optional = |step: Step| matches!(step, Step::ZeroCopy | Step::HugePages | Step::BusyPoll);
        assert!(io.refused().iter().all(|one| optional(one.step) && !one.reason.is_empty()), "{:?}", io.refused());
        let [(local, remote), _] = ends();
        steering.register_socket(0, io.fd()).unwrap();
        steering.insert_endpoint(local, false).unwrap();
        steering.insert_tuple(local, remote, 1).unwrap();
        let mut peer = PacketPeer { veth, local, remote, vlan: None };
        // More frames than there are receive frames, so that each of them is used.
        for round in 0..400 {
            for number in 0..20 {
                assert!(peer.send(&payload(100 + number, round as u8)));
            }
            let mut got = Vec::new();
            // Bounded: every frame is on the ring or about to be.
            for _ in 0..1_000_000 {
                got.append(&mut take(&mut io));
                if got.len() == 20 {
                    break;
                }
            }
            assert_eq!(got, (0..20).map(|number| payload(100 + number, round as u8)).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_busy_queue_is_tried_again_and_then_refused() {
    alone(|| {
        let Some(veth) = veth() else { return };
        let mut steering = Steering::load(&Options::default()).unwrap();
        let mode = steering.attach(veth.ifindex).unwrap();
        let first = open(&mode);
        let hasty = XdpOptions { patience: Duration::from_millis(50), ..XdpOptions::new(PORT, 0, mode.clone()) };
        let Err(OpenError::Refused { refused, .. }) = XdpIo::open(&hasty) else { panic!("the queue is taken") };
        assert!(refused.iter().any(|one| one.step == Step::CopyDriver && one.reason.contains("holds the queue")));
        let waiting = std::thread::scope(|scope| {
            let second = scope.spawn(|| open(&mode));
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
            second.join().unwrap()
        });
        assert_eq!(waiting.step(), Step::CopyDriver);
    });
}

#[test]
fn a_foreign_program_is_left_alone() {
    alone(|| {
        let Some(veth) = veth() else { return };
        let mut theirs = Steering::load(&Options::default()).unwrap();
        theirs.attach(veth.ifindex).unwrap();
        let id = attached_program(veth.ifindex).unwrap().unwrap();
        let mut ours = Steering::load(&Options::default()).unwrap();
        match ours.attach(veth.ifindex) {
            Err(SteeringError::Foreign { ifindex, id: found }) => assert_eq!((ifindex, found), (veth.ifindex, id)),
            other => panic!("{other:?}"),
        }
        assert_eq!(attached_program(veth.ifindex).unwrap(), Some(id));
        drop(theirs);
        assert_eq!(attached_program(veth.ifindex).unwrap(), None, "the link goes with its handle");
        assert_eq!(ours.attach(veth.ifindex).unwrap(), AttachMode::Driver);
        assert!(matches!(ours.attach(veth.ifindex), Err(SteeringError::AlreadyAttached)));
        ours.detach();
        assert_eq!(attached_program(veth.ifindex).unwrap(), None);
    });
}

#[test]
fn an_interface_without_driver_support_runs_generic_and_says_so() {
    alone(|| {
        if let Err(error) = new_namespace() {
            assert!(std::env::var_os("CI").is_none(), "CI must allow network namespaces: {error}");
            eprintln!("skipped: a network namespace needs CAP_SYS_ADMIN: {error}");
            return;
        }
        run("ip link set lo up");
        let mut steering = Steering::load(&Options::default()).unwrap();
        let mode = steering.attach(1).unwrap();
        assert!(matches!(&mode, AttachMode::Generic { reason } if !reason.is_empty()));
        let options = XdpOptions { poll: PollMode::Interrupt, ..XdpOptions::new("lo", 0, mode) };
        let mut io = XdpIo::open(&options).unwrap();
        assert_eq!(io.step(), Step::CopyGeneric);
        assert_eq!(io.refused().iter().map(|one| one.step).collect::<Vec<_>>(), [Step::ZeroCopy, Step::CopyDriver]);
        steering.register_socket(0, io.fd()).unwrap();
        let local = "127.0.0.1:5004".parse().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:6004").unwrap();
        steering.insert_endpoint(local, false).unwrap();
        steering.insert_tuple(local, sender.local_addr().unwrap(), 1).unwrap();
        sender.send_to(&payload(100, 1), local).unwrap();
        assert_eq!(take(&mut io), [payload(100, 1)]);
    });
}

#[test]
fn memory_stays_when_a_port_closes_with_frames_out() {
    alone(|| {
        let Some(veth) = veth() else { return };
        let mut steering = Steering::load(&Options::default()).unwrap();
        let mode = steering.attach(veth.ifindex).unwrap();
        let [(local, remote), _] = ends();
        let mut io = open(&mode);
        steering.register_socket(0, io.fd()).unwrap();
        steering.insert_endpoint(local, false).unwrap();
        steering.insert_tuple(local, remote, 1).unwrap();
        let mut peer = PacketPeer { veth, local, remote, vlan: None };
        assert!(peer.send(&payload(100, 1)));
        let mut burst = RxBurst::new();
        io.wait(Duration::from_millis(300));
        assert_eq!(io.receive(&mut burst), 1);
        let mut unsent = io.acquire().unwrap();
        assert!(!io.ledger().is_settled());
        drop(io);
        assert!(burst[0].ends_with(&payload(100, 1)));
        unsent.fill(0xff);
        // The queue is free all the same.
        assert_eq!(open(&mode).step(), Step::CopyDriver);
    });
}
