//! What rtnetlink says, as types: routes, links, neighbours and notifications. Pure functions from bytes; a
//! message that makes no sense is `None`, never a panic.

use std::net::IpAddr;

use super::message::{Attributes, Message, address, u16_at, u32_at};

/// Lengths of `rtmsg`, `ifinfomsg` and `ndmsg`.
const ROUTE_LEN: usize = 12;
const LINK_LEN: usize = 16;
const NEIGHBOUR_LEN: usize = 12;

/// `RTAX_MTU` of linux/rtnetlink.h.
const RTAX_MTU: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const ETHERTYPE_8021Q: [u8; 2] = [0x81, 0x00];

/// The answer to a route lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// `RTN_UNICAST`, `RTN_LOCAL`, ...
    pub kind: u8,
    /// Outgoing interface.
    pub ifindex: Option<u32>,
    /// The router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Path MTU, of the route or learned.
    pub mtu: Option<u32>,
    /// The route wraps packets (MPLS, segment routing, IP tunnels).
    pub wrapped: bool,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub ifindex: u32,
    pub name: String,
    /// Ethernet framing (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// `None` if it has no 6-byte address.
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub vlan: Option<Vlan>,
}

/// What a VLAN device does to its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vlan {
    /// 1 to 4,094.
    pub id: u16,
    /// The device below; `None` if it lies in another namespace.
    pub lower: Option<u32>,
    /// Tagged with 802.1Q rather than 802.1ad.
    pub dot1q: bool,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub ifindex: u32,
    pub address: IpAddr,
    /// `NUD_*`.
    pub state: u16,
    /// `None` while unknown or where it is not 6 bytes long.
    pub mac: Option<[u8; 6]>,
}

/// A change the kernel reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notification {
    /// An interface appeared or changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// A neighbour appeared or changed.
    Neighbour(Neighbour),
    /// A neighbour was forgotten.
    NeighbourGone(u32, IpAddr),
    /// Routes, rules, addresses or next-hop objects changed.
    Routing,
}

/// Reads an `RTM_NEWROUTE`.
pub(super) fn route(body: &[u8]) -> Option<Route> {
    let mut route = Route { kind: *body.get(7)?, ifindex: None, gateway: None, mtu: None, wrapped: false };
    for (kind, value) in Attributes(body.get(ROUTE_LEN..)?) {
        match kind {
            libc::RTA_OIF => route.ifindex = u32_at(value, 0),
            libc::RTA_GATEWAY => route.gateway = Some(address(value)?),
            // A router of the other family: its family in two bytes, then the address (RFC 5549 routes).
            libc::RTA_VIA => route.gateway = Some(address(value.get(2..)?)?),
            libc::RTA_METRICS => {
                route.mtu = Attributes(value).find(|(k, _)| *k == RTAX_MTU).and_then(|(_, v)| u32_at(v, 0));
            }
            libc::RTA_ENCAP => route.wrapped = true,
            _ => {}
        }
    }
    Some(route)
}

/// Reads an `RTM_NEWLINK`.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        ifindex: u32_at(body, 4)?,
        name: String::new(),
        ethernet: u16_at(body, 2)? == libc::ARPHRD_ETHER,
        up: flags & libc::IFF_UP as u32 != 0,
        running: flags & libc::IFF_RUNNING as u32 != 0,
        mac: None,
        mtu: 0,
        vlan: None,
    };
    let (mut lower, mut elsewhere) = (None, false);
    for (kind, value) in Attributes(body.get(LINK_LEN..)?) {
        match kind {
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next()?;
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_LINK => lower = u32_at(value, 0),
            libc::IFLA_LINKINFO => link.vlan = vlan(value),
            IFLA_LINK_NETNSID => elsewhere = true,
            _ => {}
        }
    }
    if let Some(vlan) = &mut link.vlan {
        vlan.lower = lower.filter(|_| !elsewhere);
    }
    Some(link)
}

/// Reads `IFLA_LINKINFO`; `None` for what is not a VLAN device.
fn vlan(info: &[u8]) -> Option<Vlan> {
    let find = |kind| Attributes(info).find(|(k, _)| *k == kind).map(|(_, value)| value);
    if find(libc::IFLA_INFO_KIND)?.strip_suffix(&[0]) != Some(b"vlan") {
        return None;
    }
    let (mut id, mut dot1q) = (None, true);
    for (kind, value) in Attributes(find(libc::IFLA_INFO_DATA)?) {
        match kind {
            IFLA_VLAN_ID => id = u16_at(value, 0),
            IFLA_VLAN_PROTOCOL => dot1q = value == ETHERTYPE_8021Q,
            _ => {}
        }
    }
    Some(Vlan { id: id?, lower: None, dot1q })
}

/// Reads an `RTM_NEWNEIGH`; `None` for bridge and proxy entries too.
pub(super) fn neighbour(body: &[u8]) -> Option<Neighbour> {
    let family = *body.first()?;
    let flags = *body.get(10)?;
    if ![libc::AF_INET as u8, libc::AF_INET6 as u8].contains(&family) || flags & libc::NTF_PROXY != 0 {
        return None;
    }
    let (mut to, mut mac) = (None, None);
    for (kind, value) in Attributes(body.get(NEIGHBOUR_LEN..)?) {
        match kind {
            libc::NDA_DST => to = address(value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour { ifindex: u32_at(body, 4)?, address: to?, state: u16_at(body, 8)?, mac })
}

/// Reads a notification; `None` if it is about something else.
pub(super) fn notification(message: &Message<'_>) -> Option<Notification> {
    /// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP` of linux/rtnetlink.h.
    const NEXT_HOPS: [u16; 2] = [104, 105];
    match message.kind {
        // Bridge ports repeat their link in a family of their own.
        libc::RTM_NEWLINK if message.body.first() == Some(&0) => link(message.body).map(Notification::Link),
        libc::RTM_DELLINK if message.body.first() == Some(&0) => u32_at(message.body, 4).map(Notification::LinkGone),
        libc::RTM_NEWNEIGH => neighbour(message.body).map(Notification::Neighbour),
        libc::RTM_DELNEIGH => neighbour(message.body).map(|n| Notification::NeighbourGone(n.ifindex, n.address)),
        libc::RTM_NEWROUTE
        | libc::RTM_DELROUTE
        | libc::RTM_NEWADDR
        | libc::RTM_DELADDR
        | libc::RTM_NEWRULE
        | libc::RTM_DELRULE => Some(Notification::Routing),
        kind if NEXT_HOPS.contains(&kind) => Some(Notification::Routing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hops::message::{Messages, Request};

    fn body(request: Request) -> Vec<u8> {
        request.finish(1)[16..].to_vec()
    }

    /// Attributes alone, for nesting.
    fn nested(request: Request) -> Vec<u8> {
        body(request)
    }

    fn a_route() -> Vec<u8> {
        let metrics = nested(Request::new(0, 0, &[]).attribute(8, &[0; 4]).attribute(2, &1400u32.to_ne_bytes()));
        body(
            Request::new(24, 0, &[2, 32, 32, 0, 254, 0, 0, 1, 0, 0, 0, 0])
                .address(libc::RTA_DST, "198.51.100.7".parse().unwrap())
                .attribute(libc::RTA_OIF, &5u32.to_ne_bytes())
                .address(libc::RTA_GATEWAY, "192.0.2.1".parse().unwrap())
                .attribute(libc::RTA_METRICS | 0x8000, &metrics),
        )
    }

    fn a_vlan_link() -> Vec<u8> {
        let data = nested(
            Request::new(0, 0, &[])
                .attribute(IFLA_VLAN_ID, &42u16.to_ne_bytes())
                .attribute(IFLA_VLAN_PROTOCOL, &ETHERTYPE_8021Q),
        );
        let info = nested(Request::new(0, 0, &[]).attribute(1, b"vlan\0").attribute(2, &data));
        let mut fixed = [0; LINK_LEN];
        fixed[2..4].copy_from_slice(&1u16.to_ne_bytes());
        fixed[4..8].copy_from_slice(&9u32.to_ne_bytes());
        fixed[8..12].copy_from_slice(&1u32.to_ne_bytes());
        body(
            Request::new(16, 0, &fixed)
                .attribute(libc::IFLA_IFNAME, b"eth0.42\0")
                .attribute(libc::IFLA_MTU, &1500u32.to_ne_bytes())
                .attribute(libc::IFLA_LINK, &3u32.to_ne_bytes())
                .attribute(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9])
                .attribute(libc::IFLA_LINKINFO, &info),
        )
    }

    fn a_neighbour(family: u8, flags: u8) -> Vec<u8> {
        let mut fixed = [0; NEIGHBOUR_LEN];
        fixed[0] = family;
        fixed[4..8].copy_from_slice(&5u32.to_ne_bytes());
        fixed[8..10].copy_from_slice(&libc::NUD_STALE.to_ne_bytes());
        fixed[10] = flags;
        body(
            Request::new(28, 0, &fixed)
                .address(libc::NDA_DST, "2001:db8::9".parse().unwrap())
                .attribute(libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 7]),
        )
    }

    #[test]
    fn a_route_with_gateway_and_mtu() {
        let gateway = Some("192.0.2.1".parse().unwrap());
        let expected = Route { kind: 1, ifindex: Some(5), gateway, mtu: Some(1400), wrapped: false };
        assert_eq!(route(&a_route()), Some(expected));
    }

    #[test]
    fn a_route_through_a_router_of_the_other_family() {
        let mut via = vec![10, 0];
        via.extend("fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let bytes = body(Request::new(24, 0, &[2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0]).attribute(18, &via));
        assert_eq!(route(&bytes).unwrap().gateway, Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn a_vlan_device_names_its_id_and_lower_device() {
        let expected = Link {
            ifindex: 9,
            name: "eth0.42".into(),
            ethernet: true,
            up: true,
            running: false,
            mac: Some([2, 0, 0, 0, 0, 9]),
            mtu: 1500,
            vlan: Some(Vlan { id: 42, lower: Some(3), dot1q: true }),
        };
        assert_eq!(link(&a_vlan_link()), Some(expected));
    }

    #[test]
    fn neighbours_of_bridges_and_proxies_are_not_ours() {
        let known = neighbour(&a_neighbour(10, 0)).unwrap();
        assert_eq!((known.ifindex, known.state, known.mac), (5, libc::NUD_STALE, Some([2, 0, 0, 0, 0, 7])));
        assert_eq!(known.address, "2001:db8::9".parse::<IpAddr>().unwrap());
        assert_eq!(neighbour(&a_neighbour(7, 0)), None);
        assert_eq!(neighbour(&a_neighbour(10, libc::NTF_PROXY)), None);
    }

    #[test]
    fn notifications_are_sorted_by_kind() {
        let of = |kind, body: &[u8]| notification(&Message { kind, sequence: 0, body });
        assert_eq!(of(libc::RTM_DELLINK, &a_vlan_link()), Some(Notification::LinkGone(9)));
        assert!(matches!(of(libc::RTM_NEWLINK, &a_vlan_link()), Some(Notification::Link(_))));
        let gone = Notification::NeighbourGone(5, "2001:db8::9".parse().unwrap());
        assert_eq!(of(libc::RTM_DELNEIGH, &a_neighbour(10, 0)), Some(gone));
        for kind in [20, 21, 24, 25, 32, 33, 104, 105] {
            assert_eq!(of(kind, &[]), Some(Notification::Routing), "{kind}");
        }
        assert_eq!(of(200, &a_route()), None);
    }

    #[test]
    fn bytes_cut_or_flipped_anywhere_never_panic() {
        for sample in [a_route(), a_vlan_link(), a_neighbour(10, 0)] {
            for cut in 0..sample.len() {
                let bytes = &sample[..cut];
                let _ = (route(bytes), link(bytes), neighbour(bytes));
            }
            for at in 0..sample.len() {
                for value in [0, 1, 3, 4, 0x7f, 0xff] {
                    let mut bytes = sample.clone();
                    bytes[at] = value;
                    let _ = (route(&bytes), link(&bytes), neighbour(&bytes));
                    assert!(Messages(&bytes).count() <= bytes.len() / 16);
                }
            }
        }
        assert_eq!((route(&[]), link(&[]), neighbour(&[])), (None, None, None));
    }
}
