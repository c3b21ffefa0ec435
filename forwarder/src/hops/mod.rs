//! Next hops: which device, MAC addresses, VLAN and MTU lead from one of our addresses to a remote one. Asks the
//! kernel by rtnetlink, remembers the answers, follows its notifications and keeps neighbours in use alive.
//! Never decides whether a device has an AF_XDP socket and never sends media.
//!
//! The owner resolves every destination again when [`Hops::poll`] or [`Hops::confirm`] says so, and at least
//! every [`RESOLVE_AGAIN`]: that is how a neighbour counts as in use. Resolving what has not changed asks the
//! kernel nothing.

mod ask;
mod cache;
mod message;
mod parse;
mod socket;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::engine::Nanos;
use crate::wire::template::Hop;
use cache::{Cache, MAX_NEIGHBOURS, Reach, Tracked};
use parse::{Link, Route};
use socket::{Asker, Listener};

/// A destination should be resolved again after this long even if nothing changed. Answers of routing live as
/// long, so a learned path MTU, which is never announced, is noticed within it.
pub const RESOLVE_AGAIN: Nanos = Nanos::from_millis(60_000);
/// A neighbour nobody resolved for this long is no longer confirmed.
const FORGET_AFTER: Nanos = Nanos::from_millis(180_000);
/// Between two looks at a neighbour in use. The kernel may collect a stale entry after 60 s.
const CONFIRM_EVERY: Nanos = Nanos::from_millis(30_000);
/// Neighbours looked at by one call of `confirm`; two questions each.
const CONFIRM_AT_ONCE: usize = 256;
/// Between two solicitations of a neighbour that does not answer.
const SOLICIT_EVERY: Nanos = Nanos::from_millis(5_000);

/// Why next hops cannot be looked up at all.
#[derive(Debug, thiserror::Error)]
#[error("opening an rtnetlink socket {purpose} failed; the forwarder needs AF_NETLINK (see RestrictAddressFamilies)")]
pub struct HopsError {
    purpose: &'static str,
    source: Errno,
}

/// How frames to a destination leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The Ethernet device that sends the frames; below a VLAN device its lower one.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// Addresses and tag of the frames.
    pub hop: Hop,
    /// Bytes of the largest IP packet: the least of device, VLAN device and path MTU.
    pub mtu: u16,
}

/// What a lookup gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Frames can be built.
    Ready(NextHop),
    /// The neighbour was asked for its address; [`Hops::poll`] tells when it is known. Until then packets go
    /// through the kernel socket, which queues a few of them.
    Pending,
    /// The remote address is one of this host: only the kernel socket reaches it.
    Local {
        /// Bytes of the largest IP packet.
        mtu: u16,
    },
    /// No frame can be built, and why; where the kernel has a route all the same, its socket works.
    Unreachable(String),
}

/// The next hops of one network namespace. Belongs to the management thread; calls take microseconds, 200 ms if
/// the kernel does not answer.
#[derive(Debug)]
pub struct Hops {
    asker: Asker,
    listener: Listener,
    cache: Cache,
}

impl Hops {
    /// Opens the sockets in the calling thread's network namespace.
    pub fn open() -> Result<Hops, HopsError> {
        // Listening first: no change can fall between an answer and the first notification.
        let listener = Listener::open().map_err(|source| HopsError { purpose: "for notifications", source })?;
        let asker = Asker::open().map_err(|source| HopsError { purpose: "for questions", source })?;
        Ok(Hops { asker, listener, cache: Cache::default() })
    }

    /// Becomes readable when something changed; then call [`poll`](Self::poll).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.fd()
    }

    /// Takes waiting notifications in without blocking; true if a resolution may come out differently, lost
    /// notifications included.
    pub fn poll(&mut self) -> bool {
        let mut changed = false;
        let cache = &mut self.cache;
        let whole = self.listener.drain(|message| {
            if let Some(notification) = parse::notification(message) {
                changed |= cache.apply(notification);
            }
        });
        if !whole {
            self.cache.invalidate();
        }
        changed || !whole
    }

    /// How packets from `local` (may be unspecified) reach `remote` at the moment. Solicits a neighbour that is
    /// not known, at most every 5 s if it does not answer.
    pub fn resolve(&mut self, local: IpAddr, remote: IpAddr, now: Nanos) -> Resolution {
        let (local, remote) = (local.to_canonical(), remote.to_canonical());
        self.try_resolve(local, remote, now).unwrap_or_else(Resolution::Unreachable)
    }

    fn try_resolve(&mut self, local: IpAddr, remote: IpAddr, now: Nanos) -> Result<Resolution, String> {
        check_addresses(local, remote)?;
        let route = self.route(local, remote, now)?;
        let ifindex = route.ifindex.ok_or_else(|| format!("the route to {remote} names no device"))?;
        if i32::from(route.kind) == i32::from(libc::RTN_LOCAL) {
            let link = self.link(ifindex)?;
            return Ok(Resolution::Local { mtu: least([Some(link.mtu), route.mtu, None]) });
        }
        if route.kind != libc::RTN_UNICAST {
            return Err(format!("the route to {remote} is not unicast (type {})", route.kind));
        }
        if route.wrapped {
            return Err(format!("the route to {remote} encapsulates packets: only the kernel socket can use it"));
        }
        let device = self.usable_link(ifindex)?;
        let (lower, vlan) = match device.vlan {
            None => (None, None),
            Some(vlan) => (Some(self.lower_link(&device)?), Some(vlan.id)),
        };
        let source_mac = device.mac.ok_or_else(|| format!("{} has no Ethernet address", device.name))?;
        let mtu = least([Some(device.mtu), lower.as_ref().map(|l| l.mtu), route.mtu]);
        let through = route.gateway.unwrap_or(remote);
        let destination_mac = match self.reach(ifindex, through, local, now)? {
            Reach::Known(mac) => mac,
            Reach::Pending | Reach::Absent => return Ok(Resolution::Pending),
            Reach::Failed => {
                return Err(format!("{through} does not answer on {}: no neighbour address", device.name));
            }
        };
        let sender = lower.unwrap_or(device);
        let hop = Hop { source_mac, destination_mac, vlan };
        Ok(Resolution::Ready(NextHop { ifindex: sender.ifindex, interface: sender.name, hop, mtu }))
    }

    fn route(&mut self, local: IpAddr, remote: IpAddr, now: Nanos) -> Result<Route, String> {
        if let Some(known) = self.cache.route((local, remote), now, RESOLVE_AGAIN) {
            return known;
        }
        let outcome = ask::route(&mut self.asker, local, remote).map_err(|error| {
            format!("no route from {local} to {remote}: {error} (also said if {local} is no address of this host)")
        });
        self.cache.store_route((local, remote), outcome.clone(), now);
        outcome
    }

    fn link(&mut self, ifindex: u32) -> Result<Link, String> {
        if let Some(link) = self.cache.links.get(&ifindex) {
            return Ok(link.clone());
        }
        let link = ask::link(&mut self.asker, ifindex).map_err(|error| format!("reading device {ifindex}: {error}"))?;
        self.cache.links.insert(ifindex, link.clone());
        Ok(link)
    }

    fn usable_link(&mut self, ifindex: u32) -> Result<Link, String> {
        let link = self.link(ifindex)?;
        match () {
            () if !link.ethernet => Err(format!("{} is not Ethernet: only the kernel socket can use it", link.name)),
            () if !link.up => Err(format!("{} is down", link.name)),
            () => Ok(link),
        }
    }

    /// The device below a VLAN device.
    fn lower_link(&mut self, device: &Link) -> Result<Link, String> {
        let refuse = |why: &str| Err(format!("{} {why}: only the kernel socket can use it", device.name));
        let Some(vlan) = device.vlan else { return refuse("is no VLAN device") };
        if !vlan.dot1q {
            return refuse("tags by 802.1ad");
        }
        let Some(lower) = vlan.lower else { return refuse("has its lower device in another namespace") };
        let lower = self.usable_link(lower)?;
        if lower.vlan.is_some() {
            return refuse("is a VLAN on a VLAN");
        }
        Ok(lower)
    }

    fn reach(&mut self, ifindex: u32, address: IpAddr, local: IpAddr, now: Nanos) -> Result<Reach, String> {
        let key = (ifindex, address);
        let full = self.cache.neighbours.len() >= MAX_NEIGHBOURS && !self.cache.neighbours.contains_key(&key);
        if full {
            return Err(format!("more than {MAX_NEIGHBOURS} neighbours are in use"));
        }
        let fresh = Tracked { reach: None, local, used: now, checked: now, solicited: None };
        let tracked = self.cache.neighbours.entry(key).or_insert(fresh);
        tracked.used = now;
        tracked.local = local;
        let reach = match tracked.reach {
            Some(reach) => reach,
            None => read_reach(&mut self.asker, key)?,
        };
        tracked.reach = Some(reach);
        let due = tracked.solicited.is_none_or(|at| now.since(at) >= SOLICIT_EVERY);
        // A neighbour that just vanished is asked for at once.
        if reach == Reach::Absent || (reach == Reach::Failed && due) {
            tracked.solicited = Some(now);
            ask::touch(&mut self.asker, ifindex, address, local)
                .map_err(|error| format!("asking the link for {address}: {error}"))?;
            // What comes of it is announced; what the kernel knows by now may be known already.
            let reach = read_reach(&mut self.asker, key)?;
            tracked.reach = Some(reach);
            return Ok(reach);
        }
        Ok(reach)
    }

    /// Confirms the neighbours in use, so that the kernel, which does not see the traffic of AF_XDP sockets, keeps
    /// them; forgets those no longer in use. Call about once a second; each neighbour is looked at every 30 s.
    /// True if an entry turned out different, like [`poll`](Self::poll).
    pub fn confirm(&mut self, now: Nanos) -> bool {
        self.cache.forget_unused(now, FORGET_AFTER);
        let mut changed = false;
        let due = self.cache.neighbours.iter_mut().filter(|(_, t)| now.since(t.checked) >= CONFIRM_EVERY);
        for (key, tracked) in due.take(CONFIRM_AT_ONCE) {
            tracked.checked = now;
            let Ok(found) = ask::neighbour(&mut self.asker, key.0, key.1) else {
                // Unknown until resolved again.
                changed |= tracked.reach.take().is_some();
                continue;
            };
            let reach = found.as_ref().map_or(Reach::Absent, Reach::of);
            changed |= tracked.reach.replace(reach) != Some(reach);
            if found.is_some_and(|entry| entry.state & libc::NUD_STALE != 0) {
                // Refused only if the device is going away, which is announced.
                let _ = ask::touch(&mut self.asker, key.0, key.1, tracked.local);
            }
        }
        changed
    }
}

fn read_reach(asker: &mut Asker, (ifindex, address): (u32, IpAddr)) -> Result<Reach, String> {
    match ask::neighbour(asker, ifindex, address) {
        Ok(entry) => Ok(entry.as_ref().map_or(Reach::Absent, Reach::of)),
        Err(error) => Err(format!("reading the neighbour {address}: {error}")),
    }
}

fn check_addresses(local: IpAddr, remote: IpAddr) -> Result<(), String> {
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(format!("{local} and {remote} are of different families"));
    }
    if remote.is_unspecified() || remote.is_multicast() {
        return Err(format!("{remote} is not the address of a host"));
    }
    if matches!(remote, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return Err(format!("{remote} is link-local and names no device: only the kernel socket can use it"));
    }
    Ok(())
}

/// The least MTU given, at most 65,535.
fn least(mtus: [Option<u32>; 3]) -> u16 {
    let least = mtus.into_iter().flatten().filter(|mtu| *mtu != 0).min().unwrap_or(u32::MAX);
    u16::try_from(least).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_next_hop_are_refused() {
        let check = |local: &str, remote: &str| check_addresses(local.parse().unwrap(), remote.parse().unwrap());
        assert!(check("192.0.2.1", "198.51.100.1").is_ok());
        assert!(check("2001:db8::1", "2001:db8::2").is_ok());
        for (local, remote) in [
            ("192.0.2.1", "2001:db8::2"),
            ("192.0.2.1", "224.0.0.5"),
            ("192.0.2.1", "0.0.0.0"),
            ("::", "ff02::1"),
            ("::", "fe80::1"),
        ] {
            assert!(check(local, remote).is_err(), "{remote}");
        }
    }

    fn device(ifindex: u32, mtu: u32, vlan: Option<parse::Vlan>) -> Link {
        let mac = Some([2, 0, 0, 0, 0, ifindex as u8]);
        Link { ifindex, name: format!("d{ifindex}"), ethernet: true, up: true, running: true, mac, mtu, vlan }
    }

    /// Resolves over a device (8) on a lower one (7), with everything known, so that the kernel is not asked.
    fn resolve_over(vlan: parse::Vlan, lower: Link) -> Resolution {
        let mut hops = Hops::open().unwrap();
        let (local, remote) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let route = Route { kind: libc::RTN_UNICAST, ifindex: Some(8), gateway: None, mtu: None, wrapped: false };
        hops.cache.store_route((local, remote), Ok(route), Nanos(0));
        hops.cache.links.insert(8, device(8, 1500, Some(vlan)));
        hops.cache.links.insert(7, lower);
        let reach = Some(Reach::Known([4; 6]));
        let tracked = Tracked { reach, local, used: Nanos(0), checked: Nanos(0), solicited: None };
        hops.cache.neighbours.insert((8, remote), tracked);
        hops.resolve(local, remote, Nanos(1))
    }

    #[test]
    fn frames_of_a_vlan_device_leave_by_the_lower_one_with_a_tag() {
        let vlan = parse::Vlan { id: 42, lower: Some(7), dot1q: true };
        let hop = Hop { source_mac: [2, 0, 0, 0, 0, 8], destination_mac: [4; 6], vlan: Some(42) };
        let expected = NextHop { ifindex: 7, interface: "d7".into(), hop, mtu: 1496 };
        assert_eq!(resolve_over(vlan, device(7, 1496, None)), Resolution::Ready(expected));
    }

    #[test]
    fn vlan_devices_that_one_tag_cannot_express_are_refused() {
        let plain = parse::Vlan { id: 42, lower: Some(7), dot1q: true };
        for (vlan, lower, why) in [
            (parse::Vlan { dot1q: false, ..plain }, device(7, 1500, None), "802.1ad"),
            (parse::Vlan { lower: None, ..plain }, device(7, 1500, None), "another namespace"),
            (plain, device(7, 1500, Some(plain)), "VLAN on a VLAN"),
            (plain, Link { up: false, ..device(7, 1500, None) }, "d7 is down"),
        ] {
            let Resolution::Unreachable(said) = resolve_over(vlan, lower) else { panic!("{why}") };
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn the_least_mtu_counts_and_zero_means_none() {
        assert_eq!(least([Some(1500), None, Some(1400)]), 1400);
        assert_eq!(least([Some(65_536), Some(0), None]), u16::MAX);
    }
}
