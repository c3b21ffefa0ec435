//! Next hops against the kernel: every test makes two network namespaces joined by a veth pair, and changes
//! routes and neighbours under a `Hops` that lives in the first.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sluice_forwarder::engine::Nanos;
use sluice_forwarder::hops::{Hops, NextHop, RESOLVE_AGAIN, Resolution};

const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const NOW: Nanos = Nanos(1);

/// Two namespaces: ours with `a0` (`192.0.2.1/24`, `2001:db8::1/64`), the peer's with `b0` (the same, ending in 2).
struct Lab {
    ours: String,
    peer: String,
}

impl Lab {
    /// Runs `test` in our namespace; says so and does nothing where namespaces are not allowed and this is not CI.
    fn run(test: impl FnOnce(&Lab, &mut Hops) + Send) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("sluice-hops-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { ours: format!("{id}a"), peer: format!("{id}b") };
        let made = Command::new("ip").args(["netns", "add", &lab.ours]).output();
        if !made.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "network namespaces are needed: {made:?}");
            eprintln!("skipped: network namespaces are needed: {made:?}");
            return;
        }
        ip(&format!("netns add {}", lab.peer));
        lab.ours("link add a0 address 02:00:00:00:00:0a type veth peer name b0 address 02:00:00:00:00:0b");
        lab.ours(&format!("link set b0 netns {}", lab.peer));
        lab.ours("addr add 192.0.2.1/24 dev a0");
        lab.peer("addr add 192.0.2.2/24 dev b0");
        lab.ours("addr add 2001:db8::1/64 dev a0 nodad");
        lab.peer("addr add 2001:db8::2/64 dev b0 nodad");
        lab.ours("link set lo up");
        lab.ours("link set a0 up");
        lab.peer("link set b0 up");
        // A thread of its own, because a thread, not a process, is in a network namespace.
        let outcome = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&lab.ours);
                test(&lab, &mut Hops::open().unwrap());
            });
            inside.join()
        });
        drop(lab);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    fn ours(&self, command: &str) -> String {
        ip(&format!("-n {} {command}", self.ours))
    }

    fn peer(&self, command: &str) -> String {
        ip(&format!("-n {} {command}", self.peer))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.ours, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

#[track_caller]
fn ip(command: &str) -> String {
    let output = Command::new("ip").args(command.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    // SAFETY: a plain system call on a descriptor that is open.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn resolve(hops: &mut Hops, local: &str, remote: &str) -> Resolution {
    hops.resolve(local.parse().unwrap(), remote.parse::<IpAddr>().unwrap(), NOW)
}

/// Resolves until it is no longer pending, in at most 2,000 rounds.
#[track_caller]
fn settle(hops: &mut Hops, local: &str, remote: &str) -> Resolution {
    for _ in 0..2_000 {
        match resolve(hops, local, remote) {
            Resolution::Pending => {}
            resolution => return resolution,
        }
        while !wait(hops) {}
    }
    panic!("{remote} stays pending");
}

/// Waits for the next relevant notification, at most 10 s.
#[track_caller]
fn wait(hops: &mut Hops) -> bool {
    let mut poll = libc::pollfd { fd: hops.fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
    assert_eq!(ready, 1, "no notification in 10 s");
    hops.poll()
}

#[track_caller]
fn ready(resolution: Resolution) -> NextHop {
    match resolution {
        Resolution::Ready(hop) => hop,
        other => panic!("not ready: {other:?}"),
    }
}

#[track_caller]
fn unreachable(resolution: Resolution) -> String {
    match resolution {
        Resolution::Unreachable(why) => why,
        other => panic!("not unreachable: {other:?}"),
    }
}

#[test]
fn on_link_is_pending_until_the_peer_answers() {
    Lab::run(|_, hops| {
        for (local, remote) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2"), ("::", "2001:db8::2")] {
            let first = resolve(hops, local, remote);
            assert!(matches!(first, Resolution::Pending | Resolution::Ready(_)), "{first:?}");
            let next = ready(settle(hops, local, remote));
            assert_eq!((next.interface.as_str(), next.mtu, next.hop.vlan), ("a0", 1500, None));
            assert_eq!((next.hop.source_mac, next.hop.destination_mac), (OUR_MAC, PEER_MAC));
        }
    });
}

#[test]
fn a_gateway_is_resolved_in_place_of_the_remote() {
    Lab::run(|lab, hops| {
        assert!(unreachable(resolve(hops, "192.0.2.1", "198.51.100.7")).contains("no route"));
        lab.ours("route add 198.51.100.0/24 via 192.0.2.2");
        lab.ours("route add 2001:db8:1::/48 via 2001:db8::2");
        lab.ours("route add 203.0.113.0/24 via inet6 2001:db8::2 dev a0");
        assert!(hops.poll());
        for (local, remote) in
            [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8:1::7"), ("192.0.2.1", "203.0.113.9")]
        {
            assert_eq!(ready(settle(hops, local, remote)).hop.destination_mac, PEER_MAC, "{remote}");
        }
        lab.ours("route del 198.51.100.0/24");
        assert!(hops.poll());
        assert!(unreachable(resolve(hops, "192.0.2.1", "198.51.100.7")).contains("no route"));
    });
}

#[test]
fn a_vlan_device_becomes_its_lower_device_and_a_tag() {
    Lab::run(|lab, hops| {
        let vlan = format!("-n {} link add link a0 name a0.42 address 02:00:00:00:00:0c type vlan id 42", lab.ours);
        let made = Command::new("ip").args(vlan.split(' ')).output().unwrap();
        if !made.status.success() {
            // No script can install a kernel module that was not built; nothing else may be the reason.
            let said = String::from_utf8_lossy(&made.stderr);
            assert!(said.contains("Unknown device type") || said.contains("not supported"), "{said}");
            eprintln!("skipped: this kernel has no VLAN devices (8021q): {said}");
            return;
        }
        lab.peer("link add link b0 name b0.42 type vlan id 42");
        lab.ours("addr add 10.42.0.1/24 dev a0.42");
        lab.peer("addr add 10.42.0.2/24 dev b0.42");
        lab.ours("link set a0.42 mtu 1496 up");
        lab.peer("link set b0.42 up");
        let next = ready(settle(hops, "10.42.0.1", "10.42.0.2"));
        assert_eq!((next.interface.as_str(), next.mtu, next.hop.vlan), ("a0", 1496, Some(42)));
        assert_eq!((next.hop.source_mac, next.hop.destination_mac), ([2, 0, 0, 0, 0, 0xc], PEER_MAC));
        assert_eq!(next.ifindex, ready(settle(hops, "192.0.2.1", "192.0.2.2")).ifindex);
        hops.poll();
        lab.ours("link set a0 mtu 1400");
        assert!(hops.poll());
        assert_eq!(ready(settle(hops, "10.42.0.1", "10.42.0.2")).mtu, 1400);
        lab.ours("link del a0.42");
        assert!(hops.poll());
        unreachable(resolve(hops, "10.42.0.1", "10.42.0.2"));
    });
}

#[test]
fn a_changed_neighbour_is_noticed_and_others_are_not() {
    Lab::run(|lab, hops| {
        ready(settle(hops, "192.0.2.1", "192.0.2.2"));
        hops.poll();
        assert!(!hops.poll(), "nothing happened");
        lab.ours("neigh replace 192.0.2.99 lladdr 02:00:00:00:00:99 dev a0");
        assert!(!hops.poll(), "nobody sends to .99");
        lab.ours("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:0d dev a0 nud reachable");
        assert!(hops.poll());
        assert_eq!(ready(resolve(hops, "192.0.2.1", "192.0.2.2")).hop.destination_mac, [2, 0, 0, 0, 0, 0xd]);
    });
}

#[test]
fn a_peer_that_announces_a_new_address_is_followed() {
    Lab::run(|lab, hops| {
        ready(settle(hops, "192.0.2.1", "192.0.2.2"));
        hops.poll();
        // The peer's own question carries its new address.
        lab.peer("link set b0 address 02:00:00:00:00:0e");
        lab.peer("neigh flush all");
        let mut changed = false;
        let mut asking = Command::new("ip")
            .args(["netns", "exec", &lab.peer, "bash", "-c", "echo -n x > /dev/udp/192.0.2.1/9"])
            .spawn()
            .unwrap();
        for _ in 0..100 {
            changed |= wait(hops);
            if ready(settle(hops, "192.0.2.1", "192.0.2.2")).hop.destination_mac[5] == 0xe {
                break;
            }
        }
        asking.wait().unwrap();
        assert!(changed);
        assert_eq!(ready(resolve(hops, "192.0.2.1", "192.0.2.2")).hop.destination_mac, [2, 0, 0, 0, 0, 0xe]);
    });
}

#[test]
fn a_neighbour_that_does_not_answer_fails_and_is_asked_again_later() {
    Lab::run(|lab, hops| {
        ip(&format!("netns exec {} sysctl -qw net.ipv4.neigh.a0.retrans_time_ms=100", lab.ours));
        let why = unreachable(settle(hops, "192.0.2.1", "192.0.2.77"));
        assert!(why.contains("192.0.2.77 does not answer on a0"), "{why}");
        lab.peer("addr add 192.0.2.77/24 dev b0");
        unreachable(resolve(hops, "192.0.2.1", "192.0.2.77"));
        let (local, remote) = ("192.0.2.1".parse().unwrap(), "192.0.2.77".parse().unwrap());
        let later = hops.resolve(local, remote, Nanos::from_millis(6_000));
        assert!(matches!(later, Resolution::Pending | Resolution::Ready(_)), "{later:?}");
        assert_eq!(ready(settle(hops, "192.0.2.1", "192.0.2.77")).hop.destination_mac, PEER_MAC);
    });
}

#[test]
fn permanent_neighbours_need_no_answer_and_stay_permanent() {
    Lab::run(|lab, hops| {
        lab.ours("neigh add 192.0.2.50 lladdr 02:00:00:00:00:50 dev a0 nud permanent");
        let next = ready(resolve(hops, "192.0.2.1", "192.0.2.50"));
        assert_eq!(next.hop.destination_mac, [2, 0, 0, 0, 0, 0x50]);
        assert!(!hops.confirm(Nanos::from_millis(31_000)));
        assert!(lab.ours("neigh show to 192.0.2.50").contains("PERMANENT"));
        lab.ours("neigh del 192.0.2.50 dev a0");
        assert!(hops.poll());
        assert_eq!(resolve(hops, "192.0.2.1", "192.0.2.50"), Resolution::Pending);
    });
}

#[test]
fn a_stale_neighbour_in_use_is_confirmed_and_an_unused_one_is_not() {
    Lab::run(|lab, hops| {
        ready(settle(hops, "192.0.2.1", "192.0.2.2"));
        lab.ours("neigh change 192.0.2.2 lladdr 02:00:00:00:00:0b dev a0 nud stale");
        hops.poll();
        assert!(!hops.confirm(Nanos::from_millis(29_000)));
        assert!(lab.ours("neigh show to 192.0.2.2").contains("STALE"), "too early");
        assert!(!hops.confirm(Nanos::from_millis(31_000)));
        let state = lab.ours("neigh show to 192.0.2.2");
        assert!(["DELAY", "PROBE", "REACHABLE"].iter().any(|s| state.contains(s)), "{state}");
        lab.ours("neigh change 192.0.2.2 lladdr 02:00:00:00:00:0b dev a0 nud stale");
        assert!(!hops.confirm(Nanos::from_millis(200_000)), "forgotten");
        assert!(lab.ours("neigh show to 192.0.2.2").contains("STALE"), "nobody resolved it for three minutes");
    });
}

#[test]
fn local_routes_are_told_apart() {
    Lab::run(|_, hops| {
        for (local, remote) in
            [("127.0.0.1", "127.0.0.1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("2001:db8::1", "2001:db8::1")]
        {
            assert_eq!(resolve(hops, local, remote), Resolution::Local { mtu: u16::MAX }, "{remote}");
        }
    });
}

#[test]
fn the_mtu_of_a_route_counts_if_it_is_lower() {
    Lab::run(|lab, hops| {
        assert_eq!(ready(settle(hops, "192.0.2.1", "192.0.2.2")).mtu, 1500);
        assert_eq!(ready(settle(hops, "2001:db8::1", "2001:db8::2")).mtu, 1500);
        lab.ours("route add 192.0.2.2/32 dev a0 mtu 1300");
        lab.ours("route add 2001:db8::2/128 dev a0 mtu 1290");
        assert!(hops.poll());
        assert_eq!(ready(settle(hops, "192.0.2.1", "192.0.2.2")).mtu, 1300);
        assert_eq!(ready(settle(hops, "2001:db8::1", "2001:db8::2")).mtu, 1290);
    });
}

#[test]
fn what_no_frame_reaches_says_why() {
    Lab::run(|lab, hops| {
        lab.ours("route add blackhole 10.9.0.0/16");
        lab.ours("route add unreachable 2001:db8:9::/48");
        lab.ours("tuntap add tun0 mode tun");
        lab.ours("addr add 10.8.0.1/24 dev tun0");
        lab.ours("link set tun0 up");
        lab.ours("route add broadcast 10.7.0.255 dev a0");
        for (local, remote, why) in [
            ("192.0.2.1", "10.9.1.1", "no route"),
            ("2001:db8::1", "2001:db8:9::1", "2001:db8:9::1"),
            ("10.8.0.1", "10.8.0.2", "not Ethernet"),
            ("192.0.2.1", "10.7.0.255", "not unicast"),
            ("192.0.2.200", "192.0.2.2", "192.0.2.200 is no address of this host"),
            ("192.0.2.1", "2001:db8::2", "different families"),
            ("::", "fe80::1", "link-local"),
        ] {
            let said = unreachable(resolve(hops, local, remote));
            assert!(said.contains(why), "{remote}: {said}");
        }
        lab.ours("link set a0 down");
        assert!(hops.poll());
        unreachable(resolve(hops, "192.0.2.1", "192.0.2.2"));
    });
}

#[test]
fn lost_notifications_mean_everything_is_read_again() {
    Lab::run(|lab, hops| {
        ready(settle(hops, "192.0.2.1", "192.0.2.2"));
        hops.poll();
        // More notifications than the buffer holds, in one batch.
        let mut batch = String::new();
        for n in 0..12_000 {
            let (high, low) = (n / 256, n % 256);
            writeln!(batch, "neigh replace 10.{high}.{low}.1 lladdr 02:00:00:00:00:99 dev a0").unwrap();
        }
        let path = std::env::temp_dir().join(format!("{}.batch", lab.ours));
        std::fs::write(&path, batch).unwrap();
        let _ = Command::new("ip").args(["-n", &lab.ours, "-force", "-batch"]).arg(&path).output().unwrap();
        std::fs::remove_file(&path).unwrap();
        lab.ours("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:0f dev a0 nud permanent");
        let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let dropped = |line: &str| {
            line.split_whitespace().nth(8).is_some_and(|drops| drops.parse().is_ok_and(|drops: u64| drops > 0))
        };
        assert!(sockets.lines().any(dropped), "{sockets}");
        assert!(hops.poll());
        assert_eq!(ready(resolve(hops, "192.0.2.1", "192.0.2.2")).hop.destination_mac, [2, 0, 0, 0, 0, 0xf]);
    });
}

#[test]
fn an_answer_of_routing_is_asked_for_again_after_its_lifetime() {
    Lab::run(|lab, hops| {
        lab.ours("route add 198.51.100.0/24 via 192.0.2.2");
        assert_eq!(ready(settle(hops, "192.0.2.1", "198.51.100.7")).mtu, 1500);
        lab.ours("route change 198.51.100.0/24 via 192.0.2.2 mtu 1320");
        // A learned path MTU comes without a notification; here none is taken.
        assert_eq!(ready(resolve(hops, "192.0.2.1", "198.51.100.7")).mtu, 1500);
        let (local, remote) = ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap());
        assert_eq!(ready(hops.resolve(local, remote, NOW + RESOLVE_AGAIN)).mtu, 1320);
    });
}

/// Takes `CAP_NET_ADMIN` from the calling thread.
fn drop_net_admin() {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    // Effective, permitted and inheritable, lower 32 capabilities and then upper.
    let mut sets = [0u32; 6];
    // SAFETY: the header and six words are what version 3 reads and writes.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) }, 0);
    sets[0] &= !(1 << 12);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_mut_ptr()) }, 0);
}

#[test]
fn without_the_right_to_ask_a_datagram_makes_the_kernel_ask() {
    Lab::run(|lab, hops| {
        lab.ours("route add 198.51.100.0/24 via inet6 2001:db8::2 dev a0");
        drop_net_admin();
        for (local, remote) in [("192.0.2.1", "192.0.2.2"), ("192.0.2.1", "198.51.100.7")] {
            assert_eq!(ready(settle(hops, local, remote)).hop.destination_mac, PEER_MAC, "{remote}");
        }
        lab.ours("neigh flush all");
        hops.poll();
        assert_eq!(ready(settle(hops, "2001:db8::1", "2001:db8::2")).hop.destination_mac, PEER_MAC);
    });
}
