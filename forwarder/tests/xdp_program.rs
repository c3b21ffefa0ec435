//! The XDP program under `BPF_PROG_TEST_RUN`: at least one packet for each verdict, IPv4 and IPv6, with and without
//! a tag, cut at every length.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::net::SocketAddr;

use sluice_forwarder::io::headers::{ETHERNET, Headers, UDP, VLAN};
use sluice_forwarder::xdp::{Options, Steering, SteeringError};
use sluice_xdp_layout::maps::BucketRate;
use sluice_xdp_layout::{Config, VERDICTS, Verdict};

const DROP: u32 = 1;
const PASS: u32 = 2;

const STUN: u8 = 0;
const DTLS: u8 = 22;
const RTP: u8 = 0x80;

/// Loads the program; `None` (said on stderr) where BPF is not allowed and this is not CI.
fn load(config: Config) -> Option<Steering> {
    match Steering::load(&Options { endpoints: 8, tuples: 64, config }) {
        Ok(steering) => Some(steering),
        Err(SteeringError::Load(error)) if std::env::var_os("CI").is_none() && !is_root() => {
            eprintln!("skipped: loading BPF needs CAP_BPF: {error}");
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// Gives up every capability of this thread but those in `kept`.
fn keep_capabilities(kept: &[u32]) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let mut sets = [Sets::default(), Sets::default()];
    for bit in kept {
        let half = &mut sets[*bit as usize / 32];
        half.effective |= 1 << (bit % 32);
        half.permitted |= 1 << (bit % 32);
    }
    // SAFETY: version 3 of the call reads a header and two sets, which live through it.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// What `sluice doctor` asks for is what it takes, and whoever lacks some of it is told.
#[test]
fn the_program_needs_the_capabilities_that_are_named() {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;
    if load(Config::DEFAULT).is_none() {
        return;
    }
    // Capabilities are a thread's own.
    let with = |kept: &'static [u32]| {
        let loading = std::thread::spawn(move || {
            keep_capabilities(kept);
            let loaded = Steering::load(&Options { endpoints: 8, tuples: 64, config: Config::DEFAULT });
            loaded.map(drop).map_err(|error| error.to_string())
        });
        loading.join().unwrap()
    };
    assert_eq!(with(&[CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON]), Ok(()));
    let refused = with(&[CAP_NET_ADMIN, CAP_BPF]).unwrap_err();
    assert!(refused.contains("CAP_PERFMON") && refused.contains("pointer"), "{refused}");
    assert!(refused.len() < 800, "{} bytes of the verifier's log", refused.len());
    assert!(with(&[]).unwrap_err().contains("CAP_BPF"));
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("Uid:\t0\t"))
}

/// The local and the remote end, in both families.
fn ends() -> [(SocketAddr, SocketAddr); 2] {
    ["192.0.2.1:3478 198.51.100.7:50000", "[2001:db8::1]:3478 [2001:db8::7]:50000"].map(|pair| {
        let (local, remote) = pair.split_once(' ').unwrap();
        (local.parse().unwrap(), remote.parse().unwrap())
    })
}

fn frame(local: SocketAddr, remote: SocketAddr, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let headers = Headers { vlan, ..Headers::new(remote, local) };
    let mut frame = vec![0; headers.len() + payload.len()];
    let at = headers.write(&mut frame, payload.len()).unwrap();
    frame[at..].copy_from_slice(payload);
    frame
}

fn payload(first: u8) -> [u8; 40] {
    let mut payload = [0x55; 40];
    payload[0] = first;
    payload
}

/// Runs one frame and checks the action and that exactly this verdict was counted.
#[track_caller]
fn expect(steering: &mut Steering, frame: &[u8], verdict: Verdict) {
    let before = steering.tally().unwrap();
    let action = steering.test_run(frame).unwrap();
    let after = steering.tally().unwrap();
    let counted: Vec<_> = VERDICTS.iter().filter(|v| after.get(**v) != before.get(**v)).collect();
    assert_eq!(counted, [&verdict]);
    assert_eq!(after.get(verdict) - before.get(verdict), 1);
    let wanted = if verdict.name().starts_with("pass") { PASS } else { DROP };
    assert_eq!(action, wanted, "{verdict:?}");
}

/// Runs `test` for both families, untagged and tagged, with the local end as an endpoint.
fn each_shape(mut test: impl FnMut(&mut Steering, SocketAddr, SocketAddr, Option<u16>)) {
    for (local, remote) in ends() {
        for vlan in [None, Some(42)] {
            let Some(mut steering) = load(Config::DEFAULT) else { return };
            steering.insert_endpoint(local, false).unwrap();
            test(&mut steering, local, remote, vlan);
        }
    }
}

#[test]
fn packets_of_a_known_tuple_pass_while_no_socket_is_bound() {
    each_shape(|steering, local, remote, vlan| {
        steering.insert_tuple(local, remote, 7).unwrap();
        for first in [STUN, DTLS, RTP, 0xbf] {
            expect(steering, &frame(local, remote, vlan, &payload(first)), Verdict::PassNoSocket);
        }
        let mut other = remote;
        other.set_port(remote.port() + 1);
        expect(steering, &frame(local, other, vlan, &payload(RTP)), Verdict::DropMediaUnknown);
        assert!(steering.remove_tuple(local, remote).unwrap());
        assert!(!steering.remove_tuple(local, remote).unwrap());
        expect(steering, &frame(local, remote, vlan, &payload(RTP)), Verdict::DropMediaUnknown);
    });
}

#[test]
fn strangers_reach_the_kernel_with_stun_and_dtls_only() {
    each_shape(|steering, local, remote, vlan| {
        for first in 0..=255 {
            let verdict = match first {
                0..=3 => Verdict::PassStun,
                20..=63 => Verdict::PassDtls,
                128..=191 => Verdict::DropMediaUnknown,
                _ => Verdict::DropOtherProtocol,
            };
            expect(steering, &frame(local, remote, vlan, &payload(first)), verdict);
        }
        expect(steering, &frame(local, remote, vlan, &[]), Verdict::DropEmpty);
        expect(steering, &frame(local, remote, vlan, &[RTP]), Verdict::DropMediaUnknown);
    });
}

#[test]
fn what_is_not_for_an_endpoint_passes() {
    each_shape(|steering, local, remote, vlan| {
        let mut port = local;
        port.set_port(local.port() + 1);
        expect(steering, &frame(port, remote, vlan, &payload(RTP)), Verdict::PassNotEndpoint);
        let mut address = remote;
        address.set_port(local.port());
        expect(steering, &frame(address, remote, vlan, &payload(RTP)), Verdict::PassNotEndpoint);
        assert!(steering.remove_endpoint(local).unwrap());
        assert!(!steering.remove_endpoint(local).unwrap());
        expect(steering, &frame(local, remote, vlan, &payload(RTP)), Verdict::PassNotEndpoint);
    });
}

#[test]
fn other_protocols_pass() {
    each_shape(|steering, local, remote, vlan| {
        let good = frame(local, remote, vlan, &payload(RTP));
        let ip = ETHERNET + if vlan.is_some() { VLAN } else { 0 };
        let edit = |at: usize, byte: u8| {
            let mut frame = good.clone();
            frame[at] = byte;
            frame
        };
        expect(steering, &edit(ip - 1, 0x06), Verdict::PassNotIp);
        if vlan.is_some() {
            let mut twice = good.clone();
            twice[ip - 2..ip].copy_from_slice(&[0x81, 0x00]);
            expect(steering, &twice, Verdict::PassNotIp);
        }
        if local.is_ipv4() {
            expect(steering, &edit(ip + 9, 6), Verdict::PassNotUdp);
            expect(steering, &edit(ip, 0x46), Verdict::PassOptions);
            expect(steering, &edit(ip, 0x55), Verdict::PassNotIp);
            expect(steering, &edit(ip + 6, 0x20), Verdict::PassFragment);
            expect(steering, &edit(ip + 7, 1), Verdict::PassFragment);
            expect(steering, &edit(ip + 6, 0), Verdict::DropMediaUnknown);
        } else {
            // TCP, hop-by-hop options, fragment header.
            for next in [6, 0, 44] {
                expect(steering, &edit(ip + 6, next), Verdict::PassNotUdp);
            }
            expect(steering, &edit(ip, 0x45), Verdict::PassNotIp);
        }
    });
}

#[test]
fn lengths_must_agree() {
    each_shape(|steering, local, remote, vlan| {
        let good = frame(local, remote, vlan, &payload(RTP));
        let udp = good.len() - 40 - UDP;
        for length in [0_u16, 7, 49, 1500, 65_535] {
            let mut bad = good.clone();
            bad[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
            expect(steering, &bad, Verdict::DropLength);
        }
        // Shorter UDP in longer IP, and Ethernet padding, are fine.
        let mut short = good.clone();
        short[udp + 4..udp + 6].copy_from_slice(&47_u16.to_be_bytes());
        expect(steering, &short, Verdict::DropMediaUnknown);
        let mut padded = good.clone();
        padded.extend([0; 6]);
        expect(steering, &padded, Verdict::DropMediaUnknown);
    });
}

#[test]
fn a_frame_cut_anywhere_is_counted_once() {
    each_shape(|steering, local, remote, vlan| {
        steering.insert_tuple(local, remote, 1).unwrap();
        let good = frame(local, remote, vlan, &payload(RTP));
        let headers = good.len() - 40;
        // The kernel runs no frame without a whole Ethernet header.
        for cut in ETHERNET..good.len() {
            let verdict = if cut < headers { Verdict::PassTruncated } else { Verdict::DropLength };
            expect(steering, &good[..cut], verdict);
        }
        expect(steering, &good, Verdict::PassNoSocket);
    });
}

#[test]
fn strangers_are_limited_by_separate_buckets() {
    // One packet an hour, so that time plays no part.
    let slow = |burst: u64| BucketRate { cost_ns: 3_600_000_000_000, depth_ns: 3_600_000_000_000 * burst };
    let config = Config { rates: [slow(3), slow(2), slow(4)] };
    for (local, remote) in ends() {
        let Some(mut steering) = load(config) else { return };
        steering.insert_endpoint(local, true).unwrap();
        // The buckets are per CPU: stay on one.
        let cores = core_affinity::get_core_ids().unwrap();
        assert!(core_affinity::set_for_current(cores[0]));
        let limits = [
            (STUN, 3, Verdict::PassStun, Verdict::DropStunLimit),
            (DTLS, 2, Verdict::PassDtls, Verdict::DropDtlsLimit),
            (RTP, 4, Verdict::PassNoSocket, Verdict::DropMediaLimit),
        ];
        for (first, burst, within, over) in limits {
            let frame = frame(local, remote, None, &payload(first));
            for _ in 0..burst {
                expect(&mut steering, &frame, within);
            }
            for _ in 0..3 {
                expect(&mut steering, &frame, over);
            }
        }
        // A known tuple is not limited.
        steering.insert_tuple(local, remote, 1).unwrap();
        for first in [STUN, DTLS, RTP] {
            expect(&mut steering, &frame(local, remote, None, &payload(first)), Verdict::PassNoSocket);
        }
    }
}

#[test]
fn a_mapped_address_on_the_wire_is_no_ipv4_endpoint() {
    let Some(mut steering) = load(Config::DEFAULT) else { return };
    let [(local, remote), (_, remote6)] = ends();
    let mapped = "[::ffff:192.0.2.1]:3478".parse().unwrap();
    steering.insert_endpoint(local, false).unwrap();
    expect(&mut steering, &frame(local, remote, None, &payload(RTP)), Verdict::DropMediaUnknown);
    expect(&mut steering, &frame(mapped, remote6, None, &payload(RTP)), Verdict::PassNotIp);
}

#[test]
fn a_full_table_is_an_error() {
    let Some(mut steering) = load(Config::DEFAULT) else { return };
    let mut ports = 1..=100;
    let full = ports.find(|port| steering.insert_endpoint(SocketAddr::from(([10, 0, 0, 1], *port)), false).is_err());
    assert_eq!(full, Some(9));
}
