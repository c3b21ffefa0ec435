//! Writes headers of traced packets as pcapng. Never writes payload: whatever it is given, it cuts after the
//! RTP, RTCP, STUN or DTLS header.

use std::io::{self, Write};

use sluice_table::protocol::{Direction, TraceRecord};

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;

/// A pcapng file with one section and one interface, in nanoseconds.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Writes the section header and the interface description.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Writer { out };
        let mut body = Vec::new();
        body.extend_from_slice(&0x1A2B_3C4D_u32.to_le_bytes());
        body.extend_from_slice(&1u16.to_le_bytes());
        body.extend_from_slice(&0u16.to_le_bytes());
        // Section length unknown.
        body.extend_from_slice(&u64::MAX.to_le_bytes());
        option(&mut body, 4, concat!("sluice ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, 0, &[]);
        writer.block(SECTION_HEADER, &body)?;
        body.clear();
        body.extend_from_slice(&ETHERNET.to_le_bytes());
        body.extend_from_slice(&0u16.to_le_bytes());
        body.extend_from_slice(&(TraceRecord::MAX_HEADER as u32).to_le_bytes());
        option(&mut body, 2, b"sluice");
        // Timestamps in 10^-9 s.
        option(&mut body, 9, &[9]);
        option(&mut body, 0, &[]);
        writer.block(INTERFACE_DESCRIPTION, &body)?;
        Ok(writer)
    }

    /// Writes one packet's headers, its direction and a comment with leg, worker and drop reason.
    pub fn packet(&mut self, record: &TraceRecord) -> io::Result<()> {
        let header = &record.header[..header_len(&record.header)];
        let mut body = Vec::with_capacity(128 + header.len());
        body.extend_from_slice(&0u32.to_le_bytes());
        body.extend_from_slice(&((record.at_unix_ns >> 32) as u32).to_le_bytes());
        body.extend_from_slice(&(record.at_unix_ns as u32).to_le_bytes());
        body.extend_from_slice(&(header.len() as u32).to_le_bytes());
        // A file whose packets are longer than on the wire is refused by readers.
        body.extend_from_slice(&record.length.max(header.len() as u32).to_le_bytes());
        body.extend_from_slice(header);
        pad(&mut body);
        let flags: u32 = match record.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        option(&mut body, 2, &flags.to_le_bytes());
        option(&mut body, 1, comment(record).as_bytes());
        option(&mut body, 0, &[]);
        self.block(ENHANCED_PACKET, &body)
    }

    /// Flushes and returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// Flushes what is written so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let len = (body.len() + 12) as u32;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(&len.to_le_bytes())
    }
}

fn comment(record: &TraceRecord) -> String {
    let leg = record.leg.as_ref().map_or_else(String::new, |leg| format!(" leg={leg}"));
    let dropped = record.dropped.map_or_else(String::new, |reason| format!(" dropped={reason}"));
    format!("worker={}{leg}{dropped}", record.worker)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// How many leading bytes of an Ethernet frame are headers: up to and including the RTP header with CSRCs and
/// extensions, the fixed part of RTCP, STUN or DTLS, or the last header understood.
pub fn header_len(frame: &[u8]) -> usize {
    known_headers(frame).min(frame.len()).min(TraceRecord::MAX_HEADER)
}

fn known_headers(frame: &[u8]) -> usize {
    let word = |at: usize| frame.get(at..at + 2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let mut at = 14;
    let mut ether_type = word(12);
    for _ in 0..2 {
        if ether_type == 0x8100 || ether_type == 0x88A8 {
            ether_type = word(at + 2);
            at += 4;
        }
    }
    let Some(&first) = frame.get(at) else { return at };
    let (header, protocol) = match ether_type {
        0x0800 => (usize::from(first & 15) * 4, frame.get(at + 9).copied()),
        0x86DD => (40, frame.get(at + 6).copied()),
        _ => return at,
    };
    at += header;
    if protocol != Some(17) {
        return at;
    }
    at += 8;
    let (Some(&first), Some(&second)) = (frame.get(at), frame.get(at + 1)) else { return at };
    // RFC 7983 §7, RFC 5761 §4.
    match (first, second) {
        (0..=3, _) => at + 20,
        (20..=63, _) => at + 13,
        (128..=191, 192..=223) => at + 8,
        (128..=191, _) => {
            let fixed = at + 12 + usize::from(first & 15) * 4;
            let extension = if first & 0x10 != 0 { 4 + word(fixed + 2) * 4 } else { 0 };
            fixed + extension
        }
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_table::{DropReason, Name};

    fn frame(vlan: bool, v6: bool, udp: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if vlan {
            frame.extend_from_slice(&[0x81, 0, 0, 5]);
        }
        if v6 {
            frame.extend_from_slice(&[0x86, 0xDD, 0x60, 0, 0, 0, 0, 0, 17, 64]);
            frame.extend_from_slice(&[0; 32]);
        } else {
            frame.extend_from_slice(&[0x08, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend_from_slice(&[0; 8]);
        }
        frame.extend_from_slice(&[0; 8]);
        frame.extend_from_slice(udp);
        frame
    }

    #[test]
    fn payload_is_cut() {
        let mut rtp = vec![0x92, 96];
        rtp.resize(20, 0);
        rtp.extend_from_slice(&[0xBE, 0xDE, 0, 1, 1, 2, 3, 4]);
        rtp.extend_from_slice(&[0xEE; 100]);
        assert_eq!(header_len(&frame(false, false, &rtp)), 42 + 28);
        assert_eq!(header_len(&frame(true, true, &rtp)), 18 + 48 + 28);
        let mut rtcp = vec![0x80, 200];
        rtcp.resize(60, 0xEE);
        assert_eq!(header_len(&frame(false, false, &rtcp)), 42 + 8);
        assert_eq!(header_len(&frame(false, false, &[22; 60])), 42 + 13);
        assert_eq!(header_len(&frame(false, false, &[0; 60])), 42 + 20);
        assert_eq!(header_len(&frame(false, false, &[255; 60])), 42);
    }

    #[test]
    fn any_cut_or_length_field_stays_inside() {
        let mut rtp = vec![0x9F, 96];
        rtp.resize(100, 0xFF);
        let whole = frame(true, false, &rtp);
        for len in 0..whole.len() {
            assert!(header_len(&whole[..len]) <= len);
        }
        assert!(header_len(&frame(false, false, &[0x9F; 400])) <= TraceRecord::MAX_HEADER);
    }

    #[test]
    fn blocks_are_well_formed() {
        let mut rtp = vec![0x80, 96];
        rtp.resize(12, 0);
        rtp.extend_from_slice(b"SECRETPAYLOAD");
        let record = TraceRecord {
            at_unix_ns: 0x1_0000_0002,
            worker: 3,
            direction: Direction::Out,
            leg: Some(Name::new("bob").unwrap()),
            dropped: Some(DropReason::TxFull),
            length: 1200,
            header: frame(false, false, &rtp),
        };
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.packet(&record).unwrap();
        let bytes = writer.finish().unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"SECRET"));
        let mut kinds = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let len = word(at + 4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(at + len - 4) as usize, len, "both lengths of a block are equal");
            if word(at) == ENHANCED_PACKET {
                assert_eq!((word(at + 12), word(at + 16)), (1, 2), "timestamp");
                assert_eq!((word(at + 20), word(at + 24)), (54, 1200), "captured and original length");
            }
            kinds.push(word(at));
            at += len;
        }
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET]);
        let comment = b"worker=3 leg=bob dropped=tx_full";
        assert!(bytes.windows(comment.len()).any(|w| w == comment));
    }
}
