//! The questions put to the kernel, and how it is made to ask the link for a neighbour.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use super::message::{Request, family};
use super::parse::{self, Link, Neighbour, Route};
use super::socket::Asker;

const IFLA_EXT_MASK: u16 = 29;
/// The discard port: whatever arrives there is meant to be ignored (RFC 863).
const DISCARD: u16 = 9;

/// The route a packet from `local` to `remote` takes.
pub(super) fn route(asker: &mut Asker, local: IpAddr, remote: IpAddr) -> Result<Route, Errno> {
    let bits = if remote.is_ipv4() { 32 } else { 128 };
    let source_bits = if local.is_unspecified() { 0 } else { bits };
    let fixed = [family(remote), bits, source_bits, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut request = Request::new(libc::RTM_GETROUTE, 0, &fixed).address(libc::RTA_DST, remote);
    if source_bits != 0 {
        request = request.address(libc::RTA_SRC, local);
    }
    asker.ask(request, |answer| parse::route(answer.body))
}

/// One interface.
pub(super) fn link(asker: &mut Asker, ifindex: u32) -> Result<Link, Errno> {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let filter = (libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes();
    let request = Request::new(libc::RTM_GETLINK, 0, &fixed).attribute(IFLA_EXT_MASK, &filter);
    asker.ask(request, |answer| parse::link(answer.body))
}

/// One neighbour; `None` if the kernel has no entry.
pub(super) fn neighbour(asker: &mut Asker, ifindex: u32, address: IpAddr) -> Result<Option<Neighbour>, Errno> {
    let request = Request::new(libc::RTM_GETNEIGH, 0, &neighbour_header(ifindex, address, 0));
    match asker.ask(request.address(libc::NDA_DST, address), |answer| parse::neighbour(answer.body)) {
        Ok(neighbour) => Ok(Some(neighbour)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the kernel treat the neighbour as just used: an absent or failed one is solicited, a stale one is
/// probed after the kernel's delay, a reachable one is left alone. Must not be used on a permanent entry.
///
/// `NTF_USE` does exactly this, sends nothing by itself and needs no address of ours, but takes `CAP_NET_ADMIN`,
/// which the forwarder may have dropped. Then an empty datagram to the neighbour's discard port has the same
/// effect; hop limit 1 keeps it on the link.
pub(super) fn touch(asker: &mut Asker, ifindex: u32, address: IpAddr, local: IpAddr) -> Result<(), Errno> {
    let flags = (libc::NLM_F_ACK | libc::NLM_F_CREATE) as u16;
    let request = Request::new(libc::RTM_NEWNEIGH, flags, &neighbour_header(ifindex, address, libc::NTF_USE));
    match asker.ask(request.address(libc::NDA_DST, address), |_| Some(())) {
        Err(Errno::PERM | Errno::ACCESS) => poke(ifindex, address, local),
        outcome => outcome,
    }
}

fn poke(ifindex: u32, address: IpAddr, local: IpAddr) -> Result<(), Errno> {
    let v4 = address.is_ipv4();
    let domain = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(domain, SocketType::DGRAM, flags, None)?;
    if v4 {
        sockopt::set_ip_ttl(&socket, 1)?;
    } else {
        sockopt::set_ipv6_unicast_hops(&socket, Some(1))?;
    }
    let to = match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddr::V6(SocketAddrV6::new(v6, DISCARD, 0, ifindex)),
        _ => SocketAddr::new(address, DISCARD),
    };
    // A router may be of the other family, or link-local while our address is not: then the kernel chooses.
    let from = match (local, address) {
        (IpAddr::V6(_), IpAddr::V6(router)) if router.is_unicast_link_local() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        (local, _) if local.is_ipv4() == v4 => local,
        _ if v4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    rustix::net::sendto(&socket, &[], SendFlags::empty(), &to).map(|_| ())
}

fn neighbour_header(ifindex: u32, address: IpAddr, flags: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family(address);
    fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    fixed[10] = flags;
    fixed
}
