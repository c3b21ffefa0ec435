//! Netlink messages as bytes: splitting a datagram into messages and a message into attributes, and writing
//! requests. Pure; bytes from the kernel are treated as hostile: whatever is cut short or overlong ends the
//! iteration, nothing panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of `struct nlmsghdr`.
pub(super) const HEADER_LEN: usize = 16;
/// Nested and byte-order flags above an attribute's kind.
const KIND_MASK: u16 = 0x3fff;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_seq`: zero in a notification.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of one datagram, up to the first that is malformed.
#[derive(Debug)]
pub(super) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        let body = self.0.get(HEADER_LEN..length)?;
        let message = Message { kind: u16_at(self.0, 4)?, sequence: u32_at(self.0, 8)?, body };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes behind a message's fixed part: (kind without flags, value), up to the first malformed one.
#[derive(Debug)]
pub(super) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & KIND_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Two bytes in the machine's order.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Four bytes in the machine's order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An address attribute: 4 or 16 bytes in network order.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(*value.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// The family number of an address.
pub(super) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// A request being written. The sequence number is filled in by whoever sends it.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A request of a kind with its fixed part; `flags` besides `NLM_F_REQUEST`.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Request(bytes)
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an address as an attribute.
    pub(super) fn address(self, kind: u16, address: IpAddr) -> Request {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    /// The bytes to send under a sequence number.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = Request::new(26, 0x300, &[1, 2, 3, 4])
            .attribute(3, b"odd")
            .address(1, "192.0.2.1".parse().unwrap())
            .address(2, "2001:db8::1".parse().unwrap())
            .finish(77);
        let messages: Vec<_> = Messages(&bytes).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!((messages[0].kind, messages[0].sequence), (26, 77));
        assert_eq!(messages[0].body[..4], [1, 2, 3, 4]);
        let attributes: Vec<_> = Attributes(&messages[0].body[4..]).collect();
        assert_eq!(attributes[0], (3, &b"odd"[..]));
        assert_eq!(address(attributes[1].1), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(address(attributes[2].1), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(attributes.len(), 3);
    }

    #[test]
    fn two_messages_share_a_datagram_and_the_last_may_lack_padding() {
        let mut bytes = Request::new(1, 0, &[9; 4]).finish(1);
        bytes.extend(Request::new(2, 0, &[8; 3]).finish(2));
        let kinds: Vec<_> = Messages(&bytes).map(|m| (m.kind, m.body.len())).collect();
        assert_eq!(kinds, [(1, 4), (2, 3)]);
    }

    #[test]
    fn lengths_that_lie_end_the_iteration() {
        for length in [0u32, 4, 15, 17, 1000, u32::MAX] {
            let mut bytes = Request::new(1, 0, &[]).finish(1);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages(&bytes).count(), 0, "{length}");
        }
        for length in [0u16, 1, 3, 9, u16::MAX] {
            let mut bytes = vec![0; 8];
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Attributes(&bytes).count(), 0, "{length}");
        }
        assert_eq!(Attributes(&[4, 0, 7, 0x80]).collect::<Vec<_>>(), [(u16::from_ne_bytes([7, 0]), &[][..])]);
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
