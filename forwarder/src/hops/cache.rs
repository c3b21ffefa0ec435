//! What was asked and is still true: routes, links and neighbours, kept current by notifications. Never talks to
//! the kernel.

use std::collections::HashMap;
use std::net::IpAddr;

use super::parse::{Link, Neighbour, Notification, Route};
use crate::engine::Nanos;

/// Neighbours tracked at once; the kernel's own default limit is 1,024 per family.
pub(super) const MAX_NEIGHBOURS: usize = 65_536;
/// Lookups remembered at once. Past it they are forgotten together, which costs a question each.
const MAX_ROUTES: usize = 262_144;

const KNOWN: u16 =
    libc::NUD_REACHABLE | libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE | libc::NUD_NOARP | libc::NUD_PERMANENT;

/// What a neighbour's entry means for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The kernel has no entry.
    Absent,
    /// The kernel is asking the link.
    Pending,
    /// It did not answer.
    Failed,
    /// Its address.
    Known([u8; 6]),
}

impl Reach {
    pub(super) fn of(neighbour: &Neighbour) -> Reach {
        match neighbour.mac {
            Some(mac) if neighbour.state & KNOWN != 0 => Reach::Known(mac),
            _ if neighbour.state & libc::NUD_FAILED != 0 => Reach::Failed,
            _ if neighbour.state == libc::NUD_NONE => Reach::Absent,
            _ => Reach::Pending,
        }
    }
}

/// A neighbour somebody sends through.
#[derive(Debug)]
pub(super) struct Tracked {
    /// `None` until asked for (again).
    pub reach: Option<Reach>,
    /// Our address towards it, for a solicitation.
    pub local: IpAddr,
    /// Last resolved through it.
    pub used: Nanos,
    /// Last compared with the kernel's entry.
    pub checked: Nanos,
    /// Last solicited.
    pub solicited: Option<Nanos>,
}

/// A remembered lookup.
#[derive(Debug)]
struct Lookup {
    outcome: Result<Route, String>,
    asked: Nanos,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    lookups: HashMap<(IpAddr, IpAddr), Lookup>,
    pub(super) links: HashMap<u32, Link>,
    pub(super) neighbours: HashMap<(u32, IpAddr), Tracked>,
}

impl Cache {
    /// The lookup's outcome if it was made less than `lifetime` ago.
    pub(super) fn route(&self, ends: (IpAddr, IpAddr), now: Nanos, lifetime: Nanos) -> Option<Result<Route, String>> {
        let lookup = self.lookups.get(&ends)?;
        (now.since(lookup.asked) < lifetime).then(|| lookup.outcome.clone())
    }

    pub(super) fn store_route(&mut self, ends: (IpAddr, IpAddr), outcome: Result<Route, String>, now: Nanos) {
        if self.lookups.len() >= MAX_ROUTES {
            self.lookups.clear();
        }
        self.lookups.insert(ends, Lookup { outcome, asked: now });
    }

    /// Drops what nobody resolved for `lifetime`.
    pub(super) fn forget_unused(&mut self, now: Nanos, lifetime: Nanos) {
        self.neighbours.retain(|_, tracked| now.since(tracked.used) < lifetime);
        self.lookups.retain(|_, lookup| now.since(lookup.asked) < lifetime);
    }

    /// Distrusts everything: notifications were lost.
    pub(super) fn invalidate(&mut self) {
        self.lookups.clear();
        self.links.clear();
        for tracked in self.neighbours.values_mut() {
            tracked.reach = None;
        }
    }

    /// Takes a notification in; true if a resolution may now come out differently.
    pub(super) fn apply(&mut self, notification: Notification) -> bool {
        match notification {
            Notification::Routing => {
                self.lookups.clear();
                true
            }
            Notification::Link(link) => match self.links.get_mut(&link.ifindex) {
                Some(known) if *known != link => {
                    *known = link;
                    // IPv4 routes of a device that goes down vanish without a message of their own.
                    self.lookups.clear();
                    true
                }
                _ => false,
            },
            Notification::LinkGone(ifindex) => {
                let known = self.links.remove(&ifindex).is_some();
                if known {
                    self.lookups.clear();
                    self.neighbours.retain(|(of, _), _| *of != ifindex);
                }
                known
            }
            Notification::Neighbour(neighbour) => {
                self.learn((neighbour.ifindex, neighbour.address), Reach::of(&neighbour))
            }
            Notification::NeighbourGone(ifindex, address) => self.learn((ifindex, address), Reach::Absent),
        }
    }

    fn learn(&mut self, key: (u32, IpAddr), reach: Reach) -> bool {
        match self.neighbours.get_mut(&key) {
            Some(tracked) => tracked.reach.replace(reach) != Some(reach),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: (u32, IpAddr) = (3, IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)));

    fn neighbour(state: u16, mac: Option<[u8; 6]>) -> Neighbour {
        Neighbour { ifindex: HOST.0, address: HOST.1, state, mac }
    }

    fn tracking(reach: Option<Reach>) -> Cache {
        let mut cache = Cache::default();
        let (local, zero) = (HOST.1, Nanos(0));
        cache.neighbours.insert(HOST, Tracked { reach, local, used: zero, checked: zero, solicited: None });
        cache
    }

    #[test]
    fn states_mean_what_the_kernel_sends_by() {
        let mac = Some([2, 0, 0, 0, 0, 1]);
        for state in [libc::NUD_REACHABLE, libc::NUD_STALE, libc::NUD_DELAY, libc::NUD_PROBE, 0x40, 0x80] {
            assert_eq!(Reach::of(&neighbour(state, mac)), Reach::Known([2, 0, 0, 0, 0, 1]));
            assert_eq!(Reach::of(&neighbour(state, None)), Reach::Pending);
        }
        assert_eq!(Reach::of(&neighbour(libc::NUD_INCOMPLETE, None)), Reach::Pending);
        assert_eq!(Reach::of(&neighbour(libc::NUD_FAILED, mac)), Reach::Failed);
        assert_eq!(Reach::of(&neighbour(libc::NUD_NONE, None)), Reach::Absent);
    }

    #[test]
    fn only_a_difference_to_a_tracked_neighbour_is_a_change() {
        let mut cache = tracking(Some(Reach::Known([2; 6])));
        assert!(!cache.apply(Notification::Neighbour(neighbour(libc::NUD_STALE, Some([2; 6])))));
        assert!(cache.apply(Notification::Neighbour(neighbour(libc::NUD_REACHABLE, Some([4; 6])))));
        assert!(cache.apply(Notification::NeighbourGone(HOST.0, HOST.1)));
        assert!(!cache.apply(Notification::NeighbourGone(HOST.0, HOST.1)));
        assert!(!cache.apply(Notification::NeighbourGone(HOST.0 + 1, HOST.1)));
    }

    #[test]
    fn a_gone_link_takes_its_neighbours_along() {
        let mut cache = tracking(None);
        let link = Link {
            ifindex: HOST.0,
            name: "a".into(),
            ethernet: true,
            up: true,
            running: true,
            mac: None,
            mtu: 1500,
            vlan: None,
        };
        assert!(!cache.apply(Notification::Link(link.clone())), "nobody asked for this link");
        cache.links.insert(HOST.0, link.clone());
        assert!(!cache.apply(Notification::Link(link.clone())));
        assert!(cache.apply(Notification::Link(Link { mtu: 1400, ..link })));
        assert!(cache.apply(Notification::LinkGone(HOST.0)));
        assert!(cache.neighbours.is_empty() && cache.links.is_empty());
    }

    #[test]
    fn lookups_expire_and_unused_entries_go() {
        let mut cache = tracking(None);
        let ends = (HOST.1, HOST.1);
        cache.store_route(ends, Err("no".into()), Nanos(10));
        assert!(cache.route(ends, Nanos(14), Nanos(5)).is_some());
        assert!(cache.route(ends, Nanos(15), Nanos(5)).is_none());
        assert!(cache.apply(Notification::Routing));
        assert!(cache.route(ends, Nanos(11), Nanos(5)).is_none());
        cache.forget_unused(Nanos(4), Nanos(5));
        assert_eq!(cache.neighbours.len(), 1);
        cache.forget_unused(Nanos(5), Nanos(5));
        assert!(cache.neighbours.is_empty());
    }
}
