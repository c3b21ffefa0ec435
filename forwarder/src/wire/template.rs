//! The Ethernet, IP and UDP headers in front of every packet of one leg, prepared once. Writing them is a copy
//! of 66 bytes and four patched fields.

use std::net::SocketAddr;

use super::checksum::{PADDING, Sum};
use super::frame::{
    Address, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, IPV4_LEN, IPV6_LEN, MAX_HEADERS,
    PROTOCOL_UDP, UDP_LEN, VLAN_LEN,
};

/// The link to the next router or neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Our interface's address.
    pub source_mac: [u8; 6],
    /// The neighbour's address.
    pub destination_mac: [u8; 6],
    /// VLAN id 1 to 4,094 to tag frames with.
    pub vlan: Option<u16>,
}

/// Prepared headers of one leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Copied whole; bytes past `len` are overwritten by the payload.
    bytes: [u8; MAX_HEADERS],
    len: u8,
    ip_at: u8,
    v4: bool,
    /// IPv4 header sum without length, DSCP and checksum.
    ip_sum: u32,
    /// Pseudo header and ports, without the lengths.
    udp_sum: u32,
}

impl Template {
    /// Prepares headers from `local` to `remote`; `None` if one is IPv4 and the other IPv6.
    pub fn new(hop: Hop, local: SocketAddr, remote: SocketAddr) -> Option<Template> {
        let (local, remote) = (Address::from(local), Address::from(remote));
        if local.is_v4() != remote.is_v4() {
            return None;
        }
        let v4 = local.is_v4();
        let mut bytes = [0u8; MAX_HEADERS];
        bytes[..6].copy_from_slice(&hop.destination_mac);
        bytes[6..12].copy_from_slice(&hop.source_mac);
        let mut at = 12;
        if let Some(id) = hop.vlan {
            bytes[at..at + 2].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&(id & 0x0fff).to_be_bytes());
            at += VLAN_LEN;
        }
        let ethertype = if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        bytes[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
        let ip_at = at + 2;
        debug_assert!(ip_at == ETHERNET_LEN || ip_at == ETHERNET_LEN + VLAN_LEN);
        let (ip_sum, addresses, udp_at);
        if v4 {
            let ip = &mut bytes[ip_at..ip_at + IPV4_LEN];
            ip[0] = 0x45;
            ip[6] = 0x40; // don't fragment
            ip[8] = 64;
            ip[9] = PROTOCOL_UDP;
            ip[12..16].copy_from_slice(&(local.ip as u32).to_be_bytes());
            ip[16..20].copy_from_slice(&(remote.ip as u32).to_be_bytes());
            ip_sum = Sum::default().add_bytes(ip).0;
            addresses = Sum::default().add_bytes(&ip[12..20]);
            udp_at = ip_at + IPV4_LEN;
        } else {
            let ip = &mut bytes[ip_at..ip_at + IPV6_LEN];
            ip[0] = 0x60;
            ip[6] = PROTOCOL_UDP;
            ip[7] = 64;
            ip[8..24].copy_from_slice(&local.ip.to_be_bytes());
            ip[24..40].copy_from_slice(&remote.ip.to_be_bytes());
            ip_sum = 0;
            addresses = Sum::default().add_bytes(&ip[8..40]);
            udp_at = ip_at + IPV6_LEN;
        }
        bytes[udp_at..udp_at + 2].copy_from_slice(&local.port.to_be_bytes());
        bytes[udp_at + 2..udp_at + 4].copy_from_slice(&remote.port.to_be_bytes());
        let udp_sum = addresses.add_word(u16::from(PROTOCOL_UDP)).add_word(local.port).add_word(remote.port).0;
        Some(Template {
            bytes,
            len: (udp_at + UDP_LEN) as u8,
            ip_at: ip_at as u8,
            v4,
            ip_sum: ip_sum as u32,
            udp_sum: udp_sum as u32,
        })
    }

    /// Header length: where the UDP payload starts, 42 to 66 bytes.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// IP and UDP header length, which counts against the MTU.
    pub fn overhead(&self) -> usize {
        usize::from(self.len - self.ip_at)
    }

    /// Writes the constant part of the headers. The payload must be written after this.
    #[inline(always)]
    pub fn start(&self, frame: &mut [u8]) {
        if let Some(headers) = frame.first_chunk_mut::<MAX_HEADERS>() {
            *headers = self.bytes;
        }
    }

    /// Fills in lengths, DSCP and checksums once the `payload_len` bytes behind the headers are final; returns
    /// the frame length. `frame` must go on for [`PADDING`] bytes behind the payload, which are zeroed.
    #[inline(always)]
    pub(crate) fn finish<const AVX2: bool>(
        &self,
        frame: &mut [u8],
        payload_len: usize,
        dscp: u8,
        checksum: bool,
    ) -> usize {
        let start = usize::from(self.len);
        let end = start + payload_len;
        let udp_len = (payload_len + UDP_LEN) as u16;
        let mut udp_checksum = 0;
        if checksum {
            if let Some(padding) = frame.get_mut(end..).and_then(<[u8]>::first_chunk_mut::<PADDING>) {
                *padding = [0; PADDING];
            }
            // The UDP length counts twice: in the pseudo header and in the UDP header.
            let sum = Sum(u64::from(self.udp_sum) + 2 * u64::from(udp_len));
            udp_checksum = sum.add_padded::<AVX2>(&frame[start..], payload_len).finish_udp();
        }
        self.close(frame, udp_len, udp_checksum, dscp);
        end
    }

    /// Writes what depends on length, DSCP and checksum.
    #[inline(always)]
    fn close(&self, frame: &mut [u8], udp_len: u16, udp_checksum: u16, dscp: u8) {
        let Some(headers) = frame.first_chunk_mut::<MAX_HEADERS>() else { return };
        let ip_at = usize::from(self.ip_at);
        let tos = dscp << 2;
        if self.v4 {
            let total = udp_len + IPV4_LEN as u16;
            let sum = Sum(u64::from(self.ip_sum) + u64::from(total) + u64::from(tos)).finish();
            let ip = &mut headers[ip_at..ip_at + IPV4_LEN + UDP_LEN];
            ip[1] = tos;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip[24..26].copy_from_slice(&udp_len.to_be_bytes());
            ip[26..28].copy_from_slice(&udp_checksum.to_be_bytes());
        } else {
            let ip = &mut headers[ip_at..ip_at + IPV6_LEN + UDP_LEN];
            ip[0] = 0x60 | (tos >> 4);
            ip[1] = tos << 4;
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
            ip[44..46].copy_from_slice(&udp_len.to_be_bytes());
            ip[46..48].copy_from_slice(&udp_checksum.to_be_bytes());
        }
    }

    /// Writes all headers in front of a payload that is already in place; returns the frame length. For peers
    /// and tests, where no room behind the payload is promised.
    pub fn write(&self, frame: &mut [u8], payload_len: usize, dscp: u8, checksum: bool) -> usize {
        let start = usize::from(self.len);
        let mut headers = [0u8; MAX_HEADERS];
        headers.copy_from_slice(&self.bytes);
        let udp_len = (payload_len + UDP_LEN) as u16;
        let mut udp_checksum = 0;
        if checksum {
            let sum = Sum(u64::from(self.udp_sum) + 2 * u64::from(udp_len));
            udp_checksum = sum.add_bytes(&frame[start..start + payload_len]).finish_udp();
        }
        self.close(&mut headers, udp_len, udp_checksum, dscp);
        frame[..start].copy_from_slice(&headers[..start]);
        start + payload_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_verify_to_zero() {
        for (local, remote) in [("10.0.0.1:5000", "10.9.8.7:6000"), ("[fd00::1]:5000", "[fd00::2]:6000")] {
            let hop = Hop { source_mac: [2; 6], destination_mac: [4; 6], vlan: None };
            let template = Template::new(hop, local.parse().unwrap(), remote.parse().unwrap()).unwrap();
            for payload_len in [0usize, 1, 33, 160, 1200] {
                let mut frame = vec![0u8; 2048];
                template.start(&mut frame);
                for (i, byte) in frame[template.len()..template.len() + payload_len].iter_mut().enumerate() {
                    *byte = (i * 7) as u8;
                }
                let len = template.finish::<false>(&mut frame, payload_len, 46, true);
                let v4 = frame[14] >> 4 == 4;
                if v4 {
                    assert_eq!(Sum::default().add_bytes(&frame[14..34]).finish(), 0);
                    assert_eq!(frame[15], 46 << 2);
                }
                let addresses = if v4 { &frame[26..34] } else { &frame[22..54] };
                let udp = &frame[template.len() - UDP_LEN..len];
                let sum = Sum::default().add_bytes(addresses).add_word(17).add_word(udp.len() as u16).add_bytes(udp);
                assert_eq!(sum.finish(), 0, "{local} {payload_len}");
            }
        }
    }

    #[test]
    fn families_do_not_mix() {
        let hop = Hop { source_mac: [0; 6], destination_mac: [0; 6], vlan: None };
        assert!(Template::new(hop, "10.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()).is_none());
    }
}
