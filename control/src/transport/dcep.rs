//! The messages that open data channels (RFC 8832). Only their bytes.

/// Longest label or protocol accepted, in bytes.
const MAX_TEXT: usize = 256;

/// What an OPEN asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The channel's name, at most 256 bytes.
    pub label: String,
    /// Whether messages may overtake each other.
    pub unordered: bool,
    /// How hard to try.
    pub reliability: Reliability,
}

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reliability {
    /// Until it arrived.
    Full,
    /// At most so many times more.
    Retransmits(u32),
    /// At most for so many milliseconds.
    Milliseconds(u32),
}

/// A message on a stream before and while its channel is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dcep {
    /// The peer opens a channel.
    Open(Open),
    /// The peer took ours.
    Ack,
}

/// The answer to an OPEN.
pub const ACK: [u8; 1] = [0x02];

/// OPEN of an ordered reliable channel.
pub fn open(label: &str) -> Vec<u8> {
    let label = &label.as_bytes()[..label.len().min(MAX_TEXT)];
    let mut bytes = vec![0x03, 0, 1, 0, 0, 0, 0, 0];
    bytes.extend((label.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(label);
    bytes
}

/// Reads a message; `None` for anything else than the two there are.
pub fn parse(bytes: &[u8]) -> Option<Dcep> {
    match bytes {
        [0x02, ..] => Some(Dcep::Ack),
        [0x03, kind, _, _, v0, v1, v2, v3, l0, l1, p0, p1, rest @ ..] => {
            let (label, protocol) = (u16::from_be_bytes([*l0, *l1]), u16::from_be_bytes([*p0, *p1]));
            let (label, protocol) = (usize::from(label), usize::from(protocol));
            if label > MAX_TEXT || protocol > MAX_TEXT || rest.len() < label + protocol {
                return None;
            }
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            let reliability = match kind & 0x7f {
                0 => Reliability::Full,
                1 => Reliability::Retransmits(value),
                2 => Reliability::Milliseconds(value),
                _ => return None,
            };
            let label = std::str::from_utf8(&rest[..label]).ok()?.to_owned();
            Some(Dcep::Open(Open { label, unordered: kind & 0x80 != 0, reliability }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let read = parse(&open("calling-3.0")).unwrap();
        let expected = Open { label: "calling-3.0".into(), unordered: false, reliability: Reliability::Full };
        assert_eq!(read, Dcep::Open(expected));
        assert_eq!(parse(&ACK), Some(Dcep::Ack));
    }

    #[test]
    fn partial_reliability_is_read() {
        let mut bytes = open("x");
        bytes[1] = 0x81;
        bytes[7] = 3;
        let Some(Dcep::Open(read)) = parse(&bytes) else { panic!("not an OPEN") };
        assert_eq!((read.unordered, read.reliability), (true, Reliability::Retransmits(3)));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = open("label");
        for end in 0..good.len() {
            assert_eq!(parse(&good[..end]), None, "{end}");
        }
        let mut kind = good.clone();
        kind[1] = 0x03;
        let mut text = good.clone();
        text[12] = 0xff;
        let mut long = good;
        long[8] = 0xff;
        for bytes in [kind, text, long, vec![0x04], vec![]] {
            assert_eq!(parse(&bytes), None, "{bytes:?}");
        }
    }
}
