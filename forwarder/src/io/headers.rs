//! Ethernet, VLAN, IP and UDP headers of one frame, written and read whole. Serves ports that have only payloads
//! (kernel sockets), baselines and tests; the engine has its own templates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET: usize = 14;
/// Bytes of an 802.1Q tag.
pub const VLAN: usize = 4;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6: usize = 40;
/// Bytes of a UDP header.
pub const UDP: usize = 8;

const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TYPE_VLAN: [u8; 2] = [0x81, 0x00];
const PROTOCOL_UDP: u8 = 17;

/// Everything in the headers that differs between flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Destination MAC address.
    pub mac_destination: [u8; 6],
    /// Source MAC address.
    pub mac_source: [u8; 6],
    /// VLAN identifier, 0-4095, if the frame has one tag.
    pub vlan: Option<u16>,
    /// Source address and port; of the same family as the destination.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
}

impl Headers {
    /// Headers without MAC addresses, tag or traffic class.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Headers { mac_destination: [0; 6], mac_source: [0; 6], vlan: None, source, destination, traffic_class: 0 }
    }

    /// Bytes of all headers together: 42, 46, 62 or 66.
    pub fn len(&self) -> usize {
        let ip = if self.destination.is_ipv4() { IPV4 } else { IPV6 };
        ETHERNET + if self.vlan.is_some() { VLAN } else { 0 } + ip + UDP
    }

    /// Headers are never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the headers of `payload` bytes to the start of `frame`, with the IPv4 checksum and a UDP checksum of
    /// zero. Returns their length; `None` if the frame is too short, the payload too long or the families differ.
    pub fn write(&self, frame: &mut [u8], payload: usize) -> Option<usize> {
        let length = self.len();
        let udp_length = u16::try_from(payload + UDP + IPV4).ok()? - IPV4 as u16;
        let frame = frame.get_mut(..length)?;
        frame[..6].copy_from_slice(&self.mac_destination);
        frame[6..12].copy_from_slice(&self.mac_source);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            frame[12..14].copy_from_slice(&TYPE_VLAN);
            frame[14..16].copy_from_slice(&(vlan & 0x0fff).to_be_bytes());
            at = 16;
        }
        let ip = &mut frame[at + 2..];
        let kind = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip[..12].copy_from_slice(&[0x45, self.traffic_class, 0, 0, 0, 0, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
                ip[2..4].copy_from_slice(&(udp_length + IPV4 as u16).to_be_bytes());
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&destination.octets());
                let checksum = !fold(sum(&ip[..IPV4], 0));
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                TYPE_IPV4
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ip[..4].copy_from_slice(&(0x6000_0000 | u32::from(self.traffic_class) << 20).to_be_bytes());
                ip[4..6].copy_from_slice(&udp_length.to_be_bytes());
                ip[6..8].copy_from_slice(&[PROTOCOL_UDP, 64]);
                ip[8..24].copy_from_slice(&source.octets());
                ip[24..40].copy_from_slice(&destination.octets());
                TYPE_IPV6
            }
            _ => return None,
        };
        frame[at..at + 2].copy_from_slice(&kind);
        let udp = &mut frame[length - UDP..];
        udp[..2].copy_from_slice(&self.source.port().to_be_bytes());
        udp[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
        udp[6..8].fill(0);
        Some(length)
    }

    /// Reads the headers of a UDP frame and where its payload lies. `None` for anything else: other protocols,
    /// two tags, options, extension headers, fragments, lengths that disagree.
    pub fn parse(frame: &[u8]) -> Option<(Headers, Range<usize>)> {
        let (mac_destination, rest) = frame.split_first_chunk::<6>()?;
        let (mac_source, rest) = rest.split_first_chunk::<6>()?;
        let (mut kind, mut rest) = rest.split_first_chunk::<2>()?;
        let mut vlan = None;
        if *kind == TYPE_VLAN {
            let (tag, inner) = rest.split_first_chunk::<2>()?;
            vlan = Some(u16::from_be_bytes(*tag) & 0x0fff);
            (kind, rest) = inner.split_first_chunk::<2>()?;
        }
        let at = frame.len() - rest.len();
        let (source, destination, traffic_class, ip_length, udp_length): (IpAddr, IpAddr, u8, usize, usize) =
            match *kind {
                TYPE_IPV4 => {
                    let ip = rest.first_chunk::<IPV4>()?;
                    let fragment = ip[6] & 0x3f != 0 || ip[7] != 0;
                    if ip[0] != 0x45 || fragment || ip[9] != PROTOCOL_UDP {
                        return None;
                    }
                    let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
                    let destination = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
                    let total = u16::from_be_bytes([ip[2], ip[3]]) as usize;
                    (source.into(), destination.into(), ip[1], IPV4, total.checked_sub(IPV4)?)
                }
                TYPE_IPV6 => {
                    let ip = rest.first_chunk::<IPV6>()?;
                    if ip[0] >> 4 != 6 || ip[6] != PROTOCOL_UDP {
                        return None;
                    }
                    let source = Ipv6Addr::from(*ip[8..].first_chunk::<16>()?);
                    let destination = Ipv6Addr::from(*ip[24..].first_chunk::<16>()?);
                    let traffic_class = ip[0] << 4 | ip[1] >> 4;
                    let payload = u16::from_be_bytes([ip[4], ip[5]]) as usize;
                    (source.into(), destination.into(), traffic_class, IPV6, payload)
                }
                _ => return None,
            };
        let udp = rest.get(ip_length..ip_length + udp_length)?;
        let header = udp.first_chunk::<UDP>()?;
        let length = u16::from_be_bytes([header[4], header[5]]) as usize;
        if length < UDP || length > udp.len() {
            return None;
        }
        let start = at + ip_length + UDP;
        let headers = Headers {
            mac_destination: *mac_destination,
            mac_source: *mac_source,
            vlan,
            source: SocketAddr::new(source, u16::from_be_bytes([header[0], header[1]])),
            destination: SocketAddr::new(destination, u16::from_be_bytes([header[2], header[3]])),
            traffic_class,
        };
        Some((headers, start..start + length - UDP))
    }
}

/// Writes the UDP checksum of a frame that [`Headers::parse`] accepts (RFC 768: a sum of zero is sent as all
/// ones). Returns whether it did.
pub fn write_udp_checksum(frame: &mut [u8]) -> bool {
    let Some((headers, payload)) = Headers::parse(frame) else { return false };
    let udp = payload.start - UDP;
    frame[udp + 6..udp + 8].fill(0);
    let length = payload.end - udp;
    let pseudo = match (headers.source.ip(), headers.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => sum(&destination.octets(), sum(&source.octets(), 0)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => sum(&destination.octets(), sum(&source.octets(), 0)),
        _ => return false,
    };
    let total = sum(&frame[udp..payload.end], pseudo + u64::from(PROTOCOL_UDP) + length as u64);
    let checksum = match !fold(total) {
        0 => 0xffff,
        other => other,
    };
    frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Adds big-endian 16-bit words to a sum; a last odd byte is padded with zero.
fn sum(bytes: &[u8], start: u64) -> u64 {
    let words = bytes.chunks_exact(2);
    let last = words.remainder().first().map_or(0, |byte| u64::from(*byte) << 8);
    words.fold(start + last, |total, word| total + u64::from(u16::from_be_bytes([word[0], word[1]])))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_families() -> [Headers; 2] {
        ["192.0.2.1:5000 198.51.100.7:6000", "[2001:db8::1]:5000 [2001:db8::7]:6000"].map(|pair| {
            let (source, destination) = pair.split_once(' ').unwrap();
            let mut headers = Headers::new(source.parse().unwrap(), destination.parse().unwrap());
            headers.mac_source = [2, 0, 0, 0, 0, 1];
            headers.mac_destination = [2, 0, 0, 0, 0, 2];
            headers.traffic_class = 46 << 2 | 1;
            headers
        })
    }

    #[test]
    fn what_was_written_is_read_back() {
        for mut headers in both_families() {
            for vlan in [None, Some(0), Some(4095)] {
                headers.vlan = vlan;
                let mut frame = [0xaa; 200];
                let length = headers.write(&mut frame, 100).unwrap();
                assert_eq!(length, headers.len());
                // Ethernet padding behind the packet does not count.
                assert_eq!(Headers::parse(&frame), Some((headers, length..length + 100)));
                for cut in 0..length + 100 {
                    assert_eq!(Headers::parse(&frame[..cut]), None, "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn checksums_are_right() {
        for headers in both_families() {
            for payload in [0, 1, 2, 99, 100] {
                let mut frame = vec![0xee; headers.len() + payload];
                headers.write(&mut frame, payload).unwrap();
                assert!(write_udp_checksum(&mut frame));
                let (_, range) = Headers::parse(&frame).unwrap();
                let udp = range.start - UDP;
                let addresses = if headers.source.is_ipv4() { udp - 8..udp } else { udp - 32..udp };
                let total = sum(&frame[addresses], sum(&frame[udp..], 17 + (UDP + payload) as u64));
                assert_eq!(fold(total), 0xffff, "the sum over a right packet is all ones");
                if headers.source.is_ipv4() {
                    assert_eq!(fold(sum(&frame[ETHERNET..ETHERNET + IPV4], 0)), 0xffff);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let [v4, v6] = both_families();
        let mixed = Headers { destination: v6.destination, ..v4 };
        assert_eq!(mixed.write(&mut [0; 100], 1), None);
        assert_eq!(v4.write(&mut [0; 41], 1), None);
        assert_eq!(v4.write(&mut [0; 42], 65_508), None);
        assert_eq!(v4.write(&mut [0; 42], 65_507), Some(42));
    }
}
