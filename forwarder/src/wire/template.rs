//! The Ethernet, IP and UDP headers in front of every packet of one leg, prepared once. Writing them is a copy
//! and three or four patched fields.

use std::net::SocketAddr;

use super::checksum::{PADDING, Sum, fold_small, sum_padded};
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
#[repr(C)] // all of an IPv4 one is in the first 54 bytes
pub struct Template {
    /// IPv4 header without length and checksum, as a sum of native-endian words.
    ip_sum: u16,
    /// Pseudo header and ports, without the lengths, as a sum of native-endian words.
    udp_sum: u16,
    len: u8,
    ip_at: u8,
    v4: bool,
    bytes: [u8; MAX_HEADERS],
}

impl Default for Template {
    /// No headers at all, of a leg without a route.
    fn default() -> Self {
        Template { ip_sum: 0, udp_sum: 0, len: MAX_HEADERS as u8, ip_at: 14, v4: false, bytes: [0; MAX_HEADERS] }
    }
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
            ip_sum = Sum::default().add_bytes(ip);
            addresses = Sum::default().add_bytes(&ip[12..20]);
            udp_at = ip_at + IPV4_LEN;
        } else {
            let ip = &mut bytes[ip_at..ip_at + IPV6_LEN];
            ip[0] = 0x60;
            ip[6] = PROTOCOL_UDP;
            ip[7] = 64;
            ip[8..24].copy_from_slice(&local.ip.to_be_bytes());
            ip[24..40].copy_from_slice(&remote.ip.to_be_bytes());
            ip_sum = Sum::default();
            addresses = Sum::default().add_bytes(&ip[8..40]);
            udp_at = ip_at + IPV6_LEN;
        }
        bytes[udp_at..udp_at + 2].copy_from_slice(&local.port.to_be_bytes());
        bytes[udp_at + 2..udp_at + 4].copy_from_slice(&remote.port.to_be_bytes());
        let udp_sum = addresses.add_word(u16::from(PROTOCOL_UDP)).add_word(local.port).add_word(remote.port);
        Some(Template {
            ip_sum: (!ip_sum.finish()).to_be(),
            udp_sum: (!udp_sum.finish()).to_be(),
            len: (udp_at + UDP_LEN) as u8,
            ip_at: ip_at as u8,
            v4,
            bytes,
        })
    }

    /// The same headers with a DSCP (0 to 63).
    #[must_use]
    pub fn with_dscp(&self, dscp: u8) -> Template {
        let mut marked = self.clone();
        let (tos, at) = (dscp << 2, usize::from(self.ip_at));
        if self.v4 {
            marked.bytes[at + 1] = tos;
            let sum = Sum::default().add_word(u16::from_be(self.ip_sum)).add_word(u16::from(tos));
            marked.ip_sum = (!sum.finish()).to_be();
        } else {
            marked.bytes[at] = 0x60 | (tos >> 4);
            marked.bytes[at + 1] = tos << 4;
        }
        marked
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

    /// The sums that a checksum starts from: of the IPv4 header in the lower half, for UDP in the upper.
    #[inline(always)]
    pub(super) fn sums(&self) -> u32 {
        u32::from(self.ip_sum) | u32::from(self.udp_sum) << 16
    }

    /// Writes all headers in front of the `payload_len` bytes that are in place behind them, and zeroes the
    /// [`PADDING`] behind those where a checksum is wanted; returns the frame length.
    ///
    /// # Safety
    /// `frame` must be writable for [`len`](Self::len) + `payload_len` + [`PADDING`] bytes, 2,048 at most.
    pub(crate) unsafe fn finish(&self, frame: *mut u8, payload_len: usize, checksum: bool) -> usize {
        let start = self.len();
        let udp_len = ((payload_len + UDP_LEN) as u16).to_be();
        let total = ((payload_len + UDP_LEN + IPV4_LEN) as u16).to_be();
        let ip_checksum = !fold_small(u32::from(self.ip_sum) + u32::from(total));
        let mut udp_checksum = 0;
        // SAFETY: offsets up to `start + payload_len + PADDING`, which the caller has room for.
        unsafe {
            if checksum {
                let payload = frame.add(start);
                payload.add(payload_len).cast::<[u8; PADDING]>().write([0; PADDING]);
                // The UDP length counts twice: in the pseudo header and in the UDP header.
                let sum = sum_padded(payload, payload_len) + u32::from(self.udp_sum) + 2 * u32::from(udp_len);
                udp_checksum = udp(sum);
            }
            self.close(frame, pair(udp_len, udp_checksum), pair(total, ip_checksum));
        }
        start + payload_len
    }

    /// Writes the headers, given UDP length and checksum, and IPv4 total length and checksum, as they are on the wire:
    /// the first of both in the lower half.
    ///
    /// # Safety
    /// `frame` must be writable for [`len`](Self::len) bytes.
    #[inline(always)]
    pub(super) unsafe fn close(&self, frame: *mut u8, udp: u32, ip: u32) {
        let (from, start) = (self.bytes.as_ptr(), self.len());
        // Two overlapping copies cover any of the lengths: 42 and 46 of IPv4, 62 and 66 of IPv6.
        // SAFETY: `start` is one of those, which both sides have; the fields lie before it.
        unsafe {
            let payload = frame.add(start);
            frame.cast::<[u8; 32]>().write(from.cast::<[u8; 32]>().read());
            if self.v4 {
                let tail = from.add(start - 16).cast::<[u8; 16]>().read();
                payload.sub(16).cast::<[u8; 16]>().write(tail);
                let header = payload.sub(UDP_LEN + IPV4_LEN);
                header.add(2).cast::<[u8; 2]>().write((ip as u16).to_ne_bytes());
                header.add(10).cast::<[u8; 2]>().write(((ip >> 16) as u16).to_ne_bytes());
            } else {
                let tail = from.add(start - 36).cast::<[u8; 36]>().read();
                payload.sub(36).cast::<[u8; 36]>().write(tail);
                let header = payload.sub(UDP_LEN + IPV6_LEN);
                header.add(4).cast::<[u8; 2]>().write((udp as u16).to_ne_bytes());
            }
            payload.sub(4).cast::<[u8; 4]>().write(udp.to_ne_bytes());
        }
    }

    /// Writes all headers in front of a payload that is already in place; returns the frame length. For peers
    /// and tests, where no room behind the payload is promised.
    ///
    /// # Panics
    /// If `frame` is shorter than that.
    pub fn write(&self, frame: &mut [u8], payload_len: usize, dscp: u8, checksum: bool) -> usize {
        let start = self.len();
        let payload = &frame[start..start + payload_len];
        let udp_len = (payload_len + UDP_LEN) as u16;
        let mut udp_checksum = 0;
        if checksum {
            let sum = Sum(u64::from(u16::from_be(self.udp_sum)) + 2 * u64::from(udp_len));
            udp_checksum = sum.add_bytes(payload).finish_udp().to_be();
        }
        let marked = self.with_dscp(dscp);
        let total = (udp_len + IPV4_LEN as u16).to_be();
        let ip_checksum = !fold_small(u32::from(marked.ip_sum) + u32::from(total));
        // SAFETY: `frame` was just found to be longer than `start`.
        unsafe { marked.close(frame.as_mut_ptr(), pair(udp_len.to_be(), udp_checksum), pair(total, ip_checksum)) };
        start + payload_len
    }
}

/// Two fields that are in network order already.
#[inline(always)]
const fn pair(first: u16, second: u16) -> u32 {
    first as u32 | (second as u32) << 16
}

/// A UDP checksum of a native-endian sum, where zero means "none" and is sent as all ones (RFC 768).
#[inline(always)]
const fn udp(sum: u32) -> u16 {
    match !fold_small(sum) {
        0 => 0xffff,
        other => other,
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
            let tagged = Template::new(Hop { vlan: Some(7), ..hop }, local.parse().unwrap(), remote.parse().unwrap());
            tag_only_moves_headers(&template, &tagged.unwrap());
            for payload_len in [0usize, 1, 33, 160, 1200] {
                let mut frame = vec![0u8; 2048];
                for (i, byte) in frame[template.len()..template.len() + payload_len].iter_mut().enumerate() {
                    *byte = (i * 7) as u8;
                }
                let marked = template.with_dscp(46);
                // SAFETY: the frame has 2,048 bytes.
                let len = unsafe { marked.finish(frame.as_mut_ptr(), payload_len, true) };
                let mut again = frame.clone();
                again[..template.len()].fill(0xee);
                assert_eq!(template.write(&mut again, payload_len, 46, true), len);
                assert_eq!(again, frame);
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

    fn tag_only_moves_headers(plain: &Template, tagged: &Template) {
        let (mut a, mut b) = ([9u8; 300], [9u8; 300]);
        plain.write(&mut a, 100, 10, true);
        tagged.write(&mut b, 100, 10, true);
        assert_eq!(b[12..16], [0x81, 0, 0, 7]);
        assert_eq!((&a[..12], &a[12..plain.len()]), (&b[..12], &b[16..tagged.len()]));
        assert!(a[plain.len()..].iter().chain(&b[tagged.len()..]).all(|byte| *byte == 9));
    }
}
