//! Addresses of this host that media can arrive at, by rtnetlink. Never changes one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{Request, ask, attributes};

const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Not usable (RFC 4862): tentative, failed duplicate detection, deprecated; and temporary ones (RFC 8981), which go.
const UNUSABLE: u32 = 0x40 | 0x08 | 0x20 | 0x01;

/// An address and the interface that has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

/// Every global or private unicast address; loopback, link-local and unusable ones are left out. IPv4 first.
pub fn addresses() -> io::Result<Vec<HostAddress>> {
    let dump = ask(libc::NETLINK_ROUTE, RTM_GETADDR, libc::NLM_F_DUMP as u16, &Request::new(&[0; 8]))?;
    let mut found: Vec<HostAddress> = dump.iter().filter_map(|message| usable(message)).collect();
    found.sort_by_key(|host| (host.address.is_ipv6(), host.interface.clone(), host.address));
    found.dedup();
    Ok(found)
}

fn usable(message: &[u8]) -> Option<HostAddress> {
    let (header, rest) = message.split_first_chunk::<8>()?;
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let (mut local, mut peer, mut flags) = (None, None, u32::from(header[2]));
    for (kind, value) in attributes(rest) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => peer = address(value),
            IFA_FLAGS => flags = u32::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's.
    let address = local.or(peer)?;
    let reachable = match address {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified()),
    };
    if !reachable || flags & UNUSABLE != 0 {
        return None;
    }
    Some(HostAddress { interface: super::name(index)?, address })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(ip) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(ip).into());
    }
    <[u8; 16]>::try_from(value).ok().map(|ip| Ipv6Addr::from(ip).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 24, flags, 0];
        bytes.extend(1u32.to_ne_bytes());
        super::super::netlink::put(&mut bytes, attribute, value);
        bytes
    }

    #[test]
    fn loopback_and_link_local_are_left_out() {
        // Index 1 is the loopback interface everywhere; only the address decides.
        assert!(usable(&message(0, IFA_LOCAL, &[127, 0, 0, 1])).is_none());
        assert!(usable(&message(0, IFA_LOCAL, &[169, 254, 1, 1])).is_none());
        let found = usable(&message(0, IFA_LOCAL, &[192, 0, 2, 1])).unwrap();
        assert_eq!(found, HostAddress { interface: "lo".into(), address: [192, 0, 2, 1].into() });
        assert!(usable(&message(0x40, IFA_LOCAL, &[192, 0, 2, 1])).is_none());
        assert!(usable(&[0; 7]).is_none());
    }

    #[test]
    fn the_hosts_own_addresses_can_be_read() {
        assert!(addresses().unwrap().iter().all(|host| !host.address.is_loopback()));
    }
}
