//! Payload types in and out.

/// Payload types in and out, up to four pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadTypeMap {
    pairs: [(u8, u8); 4],
    len: u8,
}

impl PayloadTypeMap {
    /// Pairs a map holds.
    pub const MAX: usize = 4;

    /// From pairs; `None` if there are more than [`MAX`](Self::MAX).
    pub fn new(pairs: &[(u8, u8)]) -> Option<Self> {
        let mut map = PayloadTypeMap { pairs: [(0, 0); 4], len: pairs.len() as u8 };
        map.pairs.get_mut(..pairs.len())?.copy_from_slice(pairs);
        Some(map)
    }

    /// The payload type out, if listed.
    pub fn find(&self, payload_type: u8) -> Option<u8> {
        let known = &self.pairs[..usize::from(self.len & 7).min(4)];
        known.iter().find(|(from, _)| *from == payload_type).map(|(_, to)| *to)
    }

    /// The payload type out; one not listed goes out as it came.
    #[inline(always)]
    pub fn map(&self, payload_type: u8) -> u8 {
        let known = &self.pairs[..usize::from(self.len & 7).min(4)];
        known.iter().find(|(from, _)| *from == payload_type).map_or(payload_type, |(_, to)| *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_types_map_or_pass() {
        let map = PayloadTypeMap::new(&[(111, 96), (100, 97)]).unwrap();
        assert_eq!((map.map(111), map.map(100), map.map(8)), (96, 97, 8));
        assert!(PayloadTypeMap::new(&[(0, 0); 5]).is_none());
        assert_eq!(PayloadTypeMap::default().map(0), 0);
    }
}
