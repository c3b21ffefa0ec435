//! Key frames, recognised from header extensions alone: payloads may be end-to-end encrypted. Never looks at a
//! payload.

use sluice_table::Kind;

use super::cell::KnownElement;
use super::rows::{ExtensionMap, Meaning};

/// Whether a receiver may be switched to a stream with this packet: it is the first of a key frame, or nobody can
/// tell because the leg negotiated no extension that would say so. `packet` holds the header that `elements` lie in.
#[inline]
pub(super) fn starts_here(kind: Kind, extensions: &ExtensionMap, elements: &[KnownElement], packet: &[u8]) -> bool {
    if kind == Kind::Audio || !are_told(extensions) {
        return true;
    }
    elements.iter().any(|element| {
        let at = usize::from(element.at);
        let Some(data) = packet.get(at..at + usize::from(element.len)) else { return false };
        match element.meaning {
            Meaning::FrameDescriptor => frame_descriptor(data),
            Meaning::DependencyDescriptor => dependency_descriptor(data),
            _ => false,
        }
    })
}

/// Whether the leg negotiated an extension that tells key frames from others.
#[inline]
pub(super) fn are_told(extensions: &ExtensionMap) -> bool {
    [Meaning::FrameDescriptor, Meaning::DependencyDescriptor].into_iter().any(|told| extensions.id(told).is_some())
}

/// generic-frame-descriptor-00: start of a frame (0x80) without dependencies (0x08).
fn frame_descriptor(data: &[u8]) -> bool {
    data.first().is_some_and(|flags| flags & 0x88 == 0x80)
}

/// AV1 RTP specification, appendix A.8: start of a frame (first bit) with the extended fields behind the three
/// mandatory bytes and the template structure in them, which only a key frame carries.
fn dependency_descriptor(data: &[u8]) -> bool {
    data.len() > 3 && data[0] & 0x80 != 0 && data[3] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(meanings: &[Meaning]) -> ExtensionMap {
        ExtensionMap::new(meanings.iter().enumerate().map(|(at, meaning)| (*meaning, at as u8 + 1)))
    }

    fn with(meaning: Meaning, data: &[u8]) -> bool {
        let mut packet = vec![0; 16];
        packet.extend_from_slice(data);
        let element = KnownElement { meaning, len: data.len() as u8, at: 16 };
        let both = map(&[Meaning::FrameDescriptor, Meaning::DependencyDescriptor]);
        starts_here(Kind::Video, &both, &[element], &packet)
    }

    #[test]
    fn frame_descriptors_as_a_browser_writes_them() {
        assert!(with(Meaning::FrameDescriptor, &[0xb0, 1, 7, 0, 1, 0x40, 0, 0xf0]));
        assert!(!with(Meaning::FrameDescriptor, &[0xf8, 1, 3, 0, 4]));
        assert!(!with(Meaning::FrameDescriptor, &[0x30, 1]));
        assert!(!with(Meaning::FrameDescriptor, &[]));
    }

    #[test]
    fn dependency_descriptors_with_a_structure() {
        assert!(with(Meaning::DependencyDescriptor, &[0x80, 0, 1, 0x80, 0]));
        assert!(!with(Meaning::DependencyDescriptor, &[0x80, 0, 1, 0x40, 0]));
        assert!(!with(Meaning::DependencyDescriptor, &[0x00, 0, 1, 0x80, 0]));
        assert!(!with(Meaning::DependencyDescriptor, &[0xc0, 0, 1]));
    }

    #[test]
    fn without_any_descriptor_every_packet_will_do() {
        assert!(starts_here(Kind::Video, &map(&[Meaning::Mid]), &[], &[]));
        assert!(!starts_here(Kind::Video, &map(&[Meaning::FrameDescriptor]), &[], &[]));
        assert!(starts_here(Kind::Audio, &map(&[Meaning::FrameDescriptor]), &[], &[]));
    }
}
