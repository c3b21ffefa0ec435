//! The first bytes of every generated payload: which packet it is and when it was meant to be sent. The intended
//! time and not the actual one, so that a generator that was held up does not hide a stall (no coordinated omission).

/// Bytes of a stamp; no payload is shorter.
pub(crate) const STAMP_LEN: usize = 24;

const MAGIC: u32 = 0x534c_4345;

/// What a payload starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Number of the stream in its session.
    pub(crate) stream: u32,
    /// Number of the packet in its stream, from 0.
    pub(crate) sequence: u64,
    /// When it was due, `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) due: u64,
}

impl Stamp {
    /// Writes the stamp to the front of a payload of at least [`STAMP_LEN`] bytes.
    pub(crate) fn write(self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&MAGIC.to_be_bytes());
        payload[4..8].copy_from_slice(&self.stream.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload[16..STAMP_LEN].copy_from_slice(&self.due.to_be_bytes());
    }

    /// Reads a payload's stamp; `None` if it has none.
    pub(crate) fn read(payload: &[u8]) -> Option<Stamp> {
        let word = |at: usize| Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?));
        (word(0)? == MAGIC).then_some(Stamp { stream: word(4)?, sequence: long(8)?, due: long(16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_round_trip_and_other_bytes_are_none() {
        let stamp = Stamp { stream: 7, sequence: u64::MAX - 1, due: 123_456_789_012 };
        let mut payload = [0xaa; 40];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(payload[STAMP_LEN], 0xaa);
        for len in 0..STAMP_LEN {
            assert_eq!(Stamp::read(&payload[..len]), None);
        }
        payload[0] ^= 1;
        assert_eq!(Stamp::read(&payload), None);
    }
}
