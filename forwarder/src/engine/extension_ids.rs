//! What header extension ids stand for on a leg, in both directions. Never reads or writes a packet.

/// What a header extension id stands for on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Meaning {
    /// sdes:mid; written per leg, never carried over.
    Mid,
    /// sdes:rtp-stream-id; read by learn rules, never carried over.
    Rid,
    /// sdes:repaired-rtp-stream-id; read by learn rules, never carried over.
    RepairedRid,
    /// ssrc-audio-level (RFC 6464).
    AudioLevel,
    /// Transport-wide sequence number; written per leg, never carried over.
    TransportCc,
    /// abs-send-time; written per leg, never carried over.
    AbsSendTime,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
    /// generic-frame-descriptor-00.
    FrameDescriptor,
    /// Video orientation (3GPP TS 26.114).
    VideoOrientation,
}

impl Meaning {
    /// How many meanings there are.
    pub const COUNT: usize = 9;

    /// Whether the element describes the hop and is therefore never carried to another leg.
    #[inline(always)]
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(self, Meaning::Mid | Meaning::Rid | Meaning::RepairedRid | Meaning::TransportCc | Meaning::AbsSendTime)
    }
}

/// The ids under which a leg is sent what packets out can carry, mid excepted: legs of one shape get the same extension
/// block, but for the transport-wide number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape(u64);

impl Shape {
    const MEANINGS: [Meaning; 6] = [
        Meaning::AudioLevel,
        Meaning::TransportCc,
        Meaning::AbsSendTime,
        Meaning::DependencyDescriptor,
        Meaning::FrameDescriptor,
        Meaning::VideoOrientation,
    ];
    /// Of a leg without any.
    pub const NONE: Shape = Shape(0);
}

/// A leg's header extension ids, in both directions of look-up.
#[derive(Clone, Debug)]
pub struct ExtensionMap {
    meanings: [Option<Meaning>; 256],
    ids: [u8; Meaning::COUNT],
}

impl ExtensionMap {
    /// From (meaning, id) pairs; id 0 is ignored.
    pub fn new(pairs: impl IntoIterator<Item = (Meaning, u8)>) -> Self {
        let mut map = ExtensionMap { meanings: [None; 256], ids: [0; Meaning::COUNT] };
        for (meaning, id) in pairs.into_iter().filter(|(_, id)| *id != 0) {
            map.meanings[usize::from(id)] = Some(meaning);
            map.ids[meaning as usize] = id;
        }
        map
    }

    /// What the leg is sent.
    pub fn shape(&self) -> Shape {
        let id = |meaning: Meaning| u64::from(self.ids[meaning as usize]);
        Shape(Shape::MEANINGS.into_iter().fold(0, |ids, meaning| ids << 8 | id(meaning)))
    }

    /// What an id of a received packet means.
    #[inline(always)]
    pub fn meaning(&self, id: u8) -> Option<Meaning> {
        self.meanings[usize::from(id)]
    }

    /// The id to send a meaning under.
    #[inline(always)]
    pub fn id(&self, meaning: Meaning) -> Option<u8> {
        Some(self.ids[meaning as usize]).filter(|id| *id != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_ids_both_ways() {
        let map = ExtensionMap::new([(Meaning::Mid, 4), (Meaning::AudioLevel, 1), (Meaning::Rid, 0)]);
        assert_eq!(map.meaning(4), Some(Meaning::Mid));
        assert_eq!(map.meaning(0), None);
        assert_eq!(map.id(Meaning::AudioLevel), Some(1));
        assert_eq!(map.id(Meaning::Rid), None);
        assert_eq!(map.shape(), ExtensionMap::new([(Meaning::AudioLevel, 1), (Meaning::Mid, 9)]).shape());
        assert_ne!(map.shape(), ExtensionMap::new([(Meaning::AudioLevel, 2)]).shape());
        assert_eq!(ExtensionMap::new([(Meaning::Mid, 4)]).shape(), Shape::NONE);
    }
}
