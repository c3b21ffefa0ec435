//! Ethernet, one VLAN tag, IPv4 or IPv6, UDP: from a frame to a UDP payload and its addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::be16;

/// Ethernet header without a tag, in bytes.
pub const ETHERNET_LEN: usize = 14;
/// One VLAN tag, in bytes.
pub const VLAN_LEN: usize = 4;
/// IPv4 header without options, in bytes.
pub const IPV4_LEN: usize = 20;
/// IPv6 header without extensions, in bytes.
pub const IPV6_LEN: usize = 40;
/// UDP header, in bytes.
pub const UDP_LEN: usize = 8;
/// Longest header in front of a UDP payload that Sluice writes, in bytes.
pub const MAX_HEADERS: usize = ETHERNET_LEN + VLAN_LEN + IPV6_LEN + UDP_LEN;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(crate) const PROTOCOL_UDP: u8 = 17;

/// A UDP address in the form tables are keyed by: IPv4 is held as an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// IPv6 or IPv4-mapped address, as a big-endian number.
    pub ip: u128,
    /// Port.
    pub port: u16,
}

impl Address {
    const MAPPED: u128 = 0xffff_0000_0000;

    /// From four address bytes.
    #[inline(always)]
    pub const fn v4(ip: u32, port: u16) -> Self {
        Address { ip: Self::MAPPED | ip as u128, port }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.ip >> 32 == 0xffff
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Address { ip: u128::from_be_bytes(ip.octets()), port: addr.port() }
    }
}

impl From<Address> for SocketAddr {
    fn from(addr: Address) -> Self {
        let ip = if addr.is_v4() {
            IpAddr::V4(Ipv4Addr::from_bits(addr.ip as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(addr.ip))
        };
        SocketAddr::new(ip, addr.port)
    }
}

/// Why a frame holds no UDP payload for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Shorter than its headers or their lengths say.
    Truncated,
    /// Not IPv4 or IPv6 with UDP next, a fragment, or with options or extension headers.
    NotUdp,
    /// A version, header length or UDP length that contradicts itself.
    Malformed,
}

/// A UDP datagram inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Sender.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Where the UDP payload starts in the frame.
    pub payload_at: usize,
    /// UDP payload length.
    pub payload_len: usize,
}

/// Finds the UDP datagram in a frame. Ethernet padding behind the IP packet is not part of it.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Datagram, FrameError> {
    if frame.len() < ETHERNET_LEN + IPV4_LEN + UDP_LEN {
        return Err(FrameError::Truncated);
    }
    let mut ethertype = be16(frame, 12);
    let mut at = ETHERNET_LEN;
    if ethertype == ETHERTYPE_VLAN {
        ethertype = be16(frame, 16);
        at += VLAN_LEN;
    }
    match ethertype {
        ETHERTYPE_IPV4 => parse_ipv4(frame, at),
        ETHERTYPE_IPV6 => parse_ipv6(frame, at),
        _ => Err(FrameError::NotUdp),
    }
}

#[inline(always)]
fn parse_ipv4(frame: &[u8], at: usize) -> Result<Datagram, FrameError> {
    let ip = frame.get(at..).filter(|ip| ip.len() >= IPV4_LEN + UDP_LEN).ok_or(FrameError::Truncated)?;
    if ip[0] != 0x45 {
        return Err(if ip[0] >> 4 == 4 && ip[0] & 15 > 5 { FrameError::NotUdp } else { FrameError::Malformed });
    }
    if ip[9] != PROTOCOL_UDP || be16(ip, 6) & 0x3fff != 0 {
        return Err(FrameError::NotUdp);
    }
    let total = usize::from(be16(ip, 2));
    if total > ip.len() {
        return Err(FrameError::Truncated);
    }
    if total < IPV4_LEN + UDP_LEN {
        return Err(FrameError::Malformed);
    }
    let (source, destination) = (super::be32(ip, 12), super::be32(ip, 16));
    let udp = &ip[IPV4_LEN..total];
    let payload_len = udp_payload(udp)?;
    Ok(Datagram {
        source: Address::v4(source, be16(udp, 0)),
        destination: Address::v4(destination, be16(udp, 2)),
        payload_at: at + IPV4_LEN + UDP_LEN,
        payload_len,
    })
}

#[inline(always)]
fn parse_ipv6(frame: &[u8], at: usize) -> Result<Datagram, FrameError> {
    let ip = frame.get(at..).filter(|ip| ip.len() >= IPV6_LEN + UDP_LEN).ok_or(FrameError::Truncated)?;
    if ip[0] >> 4 != 6 {
        return Err(FrameError::Malformed);
    }
    if ip[6] != PROTOCOL_UDP {
        return Err(FrameError::NotUdp);
    }
    let total = IPV6_LEN + usize::from(be16(ip, 4));
    if total > ip.len() {
        return Err(FrameError::Truncated);
    }
    if total < IPV6_LEN + UDP_LEN {
        return Err(FrameError::Malformed);
    }
    let address = |at: usize| {
        let mut octets = [0u8; 16];
        octets.copy_from_slice(&ip[at..at + 16]);
        u128::from_be_bytes(octets)
    };
    let udp = &ip[IPV6_LEN..total];
    let payload_len = udp_payload(udp)?;
    Ok(Datagram {
        source: Address { ip: address(8), port: be16(udp, 0) },
        destination: Address { ip: address(24), port: be16(udp, 2) },
        payload_at: at + IPV6_LEN + UDP_LEN,
        payload_len,
    })
}

/// Checks the UDP length against the IP payload it is in; returns the UDP payload length.
#[inline(always)]
fn udp_payload(udp: &[u8]) -> Result<usize, FrameError> {
    let len = usize::from(be16(udp, 4));
    if len < UDP_LEN {
        return Err(FrameError::Malformed);
    }
    if len > udp.len() {
        return Err(FrameError::Truncated);
    }
    Ok(len - UDP_LEN)
}

/// What a UDP payload is by its first bytes (RFC 7983, RFC 5761 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// STUN: first byte 0 to 3.
    Stun,
    /// DTLS: first byte 20 to 63.
    Dtls,
    /// RTP: first byte 128 to 191.
    Rtp,
    /// RTCP: as RTP with a second byte of 192 to 223.
    Rtcp,
    /// Anything else.
    Other,
}

/// Classifies a UDP payload. An empty one is [`Class::Other`].
#[inline(always)]
pub fn classify(payload: &[u8]) -> Class {
    match payload {
        [128..=191, 192..=223, ..] => Class::Rtcp,
        [128..=191, ..] => Class::Rtp,
        [0..=3, ..] => Class::Stun,
        [20..=63, ..] => Class::Dtls,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::{Hop, Template};
    use super::*;

    fn built(v6: bool, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
        let (local, remote) =
            if v6 { ("[fd00::1]:5000", "[fd00::2]:6000") } else { ("10.0.0.1:5000", "10.0.0.2:6000") };
        let hop = Hop { source_mac: [2; 6], destination_mac: [4; 6], vlan };
        let template = Template::new(hop, local.parse().unwrap(), remote.parse().unwrap()).unwrap();
        let mut frame = vec![0u8; 2048];
        frame[template.len()..template.len() + payload.len()].copy_from_slice(payload);
        let len = template.write(&mut frame, payload.len(), 46, true);
        frame.truncate(len);
        frame
    }

    #[test]
    fn finds_what_the_template_wrote() {
        for (v6, vlan) in [(false, None), (false, Some(100)), (true, None), (true, Some(7))] {
            let mut frame = built(v6, vlan, b"\x80payload");
            frame.extend_from_slice(&[0; 9]); // Ethernet padding
            let got = parse(&frame).unwrap();
            assert_eq!(&frame[got.payload_at..got.payload_at + got.payload_len], b"\x80payload");
            assert_eq!(SocketAddr::from(got.destination).port(), 6000);
            assert_eq!(got.source.is_v4(), !v6);
        }
    }

    #[test]
    fn truncated_at_every_length_is_an_error() {
        for v6 in [false, true] {
            let frame = built(v6, Some(1), &[0x80; 30]);
            for len in 0..frame.len() {
                assert!(parse(&frame[..len]).is_err(), "len {len}");
            }
        }
    }

    #[test]
    fn options_fragments_and_lies_are_refused() {
        let good = built(false, None, &[0x80; 30]);
        let with = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] = value;
            parse(&frame)
        };
        assert_eq!(with(14, 0x46), Err(FrameError::NotUdp));
        assert_eq!(with(14, 0x44), Err(FrameError::Malformed));
        assert_eq!(with(14, 0x65), Err(FrameError::Malformed));
        assert_eq!(with(20, 0x20), Err(FrameError::NotUdp)); // more fragments
        assert_eq!(with(23, 6), Err(FrameError::NotUdp));
        assert_eq!(with(16, 0xff), Err(FrameError::Truncated));
        assert_eq!(with(17, 10), Err(FrameError::Malformed));
        assert_eq!(with(38, 0xff), Err(FrameError::Truncated));
        assert_eq!(with(39, 3), Err(FrameError::Malformed));
        assert_eq!(with(12, 0x86), Err(FrameError::NotUdp)); // 0x8600
    }

    #[test]
    fn classes_follow_rfc_7983() {
        assert_eq!(classify(&[]), Class::Other);
        assert_eq!(classify(&[0, 1]), Class::Stun);
        assert_eq!(classify(&[22]), Class::Dtls);
        assert_eq!(classify(&[63]), Class::Dtls);
        assert_eq!(classify(&[64]), Class::Other);
        assert_eq!(classify(&[0x80, 111]), Class::Rtp);
        assert_eq!(classify(&[0x80, 200]), Class::Rtcp);
        assert_eq!(classify(&[0xbf, 224]), Class::Rtp);
        assert_eq!(classify(&[192]), Class::Other);
    }
}
