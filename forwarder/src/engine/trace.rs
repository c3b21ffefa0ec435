//! The trace tap of a worker: headers of sampled packets, never payload. Its memory comes from the management
//! thread and is swapped, not grown; without a tap a packet costs one comparison.

use arrayvec::ArrayVec;
use sluice_srtp::Ssrc;
use sluice_table::DropReason;
use sluice_table::protocol::{Direction, TraceRecord};

use super::time::Nanos;
use crate::wire::frame::{Class, classify, parse};
use crate::wire::rtp;

/// Rows kept until the management thread fetches them.
pub const ROWS: usize = 512;

/// What is traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Slot of the leg, if of one leg only.
    pub leg: Option<u32>,
    /// SSRC on the wire.
    pub ssrc: Option<Ssrc>,
    /// Received or sent.
    pub direction: Option<Direction>,
    /// Only what was dropped.
    pub dropped_only: bool,
}

/// Headers of one packet.
#[derive(Clone, Debug)]
pub struct Row {
    /// When, in engine time.
    pub at: Nanos,
    /// Received or sent.
    pub direction: Direction,
    /// Slot of its leg.
    pub leg: Option<u32>,
    /// Why it was dropped.
    pub dropped: Option<DropReason>,
    /// Frame length in bytes.
    pub length: u32,
    /// Ethernet to the end of the RTP or RTCP header.
    pub header: ArrayVec<u8, { TraceRecord::MAX_HEADER }>,
}

/// A running trace.
#[derive(Debug)]
pub struct Tap {
    filter: Filter,
    sample: u32,
    seen: u32,
    rows: Vec<Row>,
    missed: u64,
}

impl Tap {
    /// Traces every `sample`-th matching packet.
    pub fn new(filter: Filter, sample: u32) -> Self {
        Tap { filter, sample: sample.max(1), seen: 0, rows: Vec::with_capacity(ROWS), missed: 0 }
    }

    /// Swaps the rows for `empty`, which must have room for [`ROWS`]; returns how many did not fit meanwhile.
    pub fn take(&mut self, empty: &mut Vec<Row>) -> u64 {
        std::mem::swap(&mut self.rows, empty);
        std::mem::take(&mut self.missed)
    }

    /// Looks at a packet.
    pub fn see(
        &mut self,
        at: Nanos,
        direction: Direction,
        leg: Option<u32>,
        dropped: Option<DropReason>,
        frame: &[u8],
    ) {
        let f = &self.filter;
        let matches = f.direction.is_none_or(|d| d == direction)
            && (f.leg.is_none() || f.leg == leg)
            && (!f.dropped_only || dropped.is_some());
        if !matches {
            return;
        }
        let (header_len, ssrc) = headers(frame);
        if f.ssrc.is_some() && f.ssrc != ssrc {
            return;
        }
        self.seen = (self.seen + 1) % self.sample;
        if self.seen != 0 {
            return;
        }
        if self.rows.len() == self.rows.capacity() {
            self.missed += 1;
            return;
        }
        let mut header = ArrayVec::new();
        let kept = header_len.min(frame.len()).min(header.capacity());
        header.extend(frame[..kept].iter().copied());
        self.rows.push(Row { at, direction, leg, dropped, length: frame.len() as u32, header });
    }
}

/// Where a frame's headers end, and the SSRC in them. Nothing behind the UDP header is kept of what is neither
/// RTP nor RTCP.
fn headers(frame: &[u8]) -> (usize, Option<Ssrc>) {
    let Ok(datagram) = parse(frame) else { return (42, None) };
    let payload = &frame[datagram.payload_at..datagram.payload_at + datagram.payload_len];
    match classify(payload) {
        Class::Rtp => match rtp::parse(payload) {
            Ok(header) => (datagram.payload_at + header.len, Some(header.ssrc)),
            Err(_) => (datagram.payload_at + payload.len().min(rtp::FIXED_LEN), None),
        },
        Class::Rtcp if payload.len() >= 8 => (datagram.payload_at + 8, Some(Ssrc(crate::wire::be32(payload, 4)))),
        _ => (datagram.payload_at, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::template::{Hop, Template};

    fn frame(payload: &[u8]) -> Vec<u8> {
        let hop = Hop { source_mac: [2; 6], destination_mac: [4; 6], vlan: None };
        let template = Template::new(hop, "10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap()).unwrap();
        let mut frame = vec![0; template.len() + payload.len()];
        frame[template.len()..].copy_from_slice(payload);
        template.write(&mut frame, payload.len(), 0, true);
        frame
    }

    #[test]
    fn payload_never_gets_into_a_trace() {
        let mut packet = vec![0x80, 111, 0, 1, 0, 0, 0, 2, 0, 0, 0, 9];
        packet.extend_from_slice(b"secret words");
        let mut dtls = vec![22u8];
        dtls.extend_from_slice(b"secret words");
        let mut rtcp = vec![0x80, 200, 0, 1, 0, 0, 0, 9];
        rtcp.extend_from_slice(b"secret words");
        let mut tap = Tap::new(Filter::default(), 1);
        for payload in [packet, dtls, rtcp] {
            tap.see(Nanos(1), Direction::In, None, None, &frame(&payload));
        }
        let mut rows = Vec::new();
        tap.take(&mut rows);
        let lengths: Vec<usize> = rows.iter().map(|row| row.header.len()).collect();
        assert_eq!(lengths, [54, 42, 50]);
    }

    #[test]
    fn filters_samples_and_counts_what_did_not_fit() {
        let packet = frame(&[0x80, 111, 0, 1, 0, 0, 0, 2, 0, 0, 0, 9]);
        let filter = Filter { ssrc: Some(Ssrc(9)), dropped_only: true, ..Filter::default() };
        let mut tap = Tap::new(filter, 3);
        for n in 0..9 {
            let reason = (n % 3 != 0).then_some(DropReason::Replayed);
            tap.see(Nanos(n), Direction::In, Some(1), reason, &packet);
        }
        let mut rows = Vec::with_capacity(ROWS);
        assert_eq!((tap.take(&mut rows), rows.len()), (0, 2));
        let mut tap = Tap::new(Filter::default(), 1);
        for n in 0..ROWS as u64 + 5 {
            tap.see(Nanos(n), Direction::Out, None, None, &packet);
        }
        let mut rows = Vec::with_capacity(ROWS);
        assert_eq!((tap.take(&mut rows), rows.len()), (5, ROWS));
    }
}
