//! RFC 8285 header extensions: reading one- and two-byte elements, writing a block in either form.

use super::rtp::ExtensionBlock;

/// "defined by profile" of one-byte elements (RFC 8285 §4.2).
pub const ONE_BYTE: u16 = 0xbede;
/// "defined by profile" of two-byte elements without appbits (RFC 8285 §4.3).
pub const TWO_BYTE: u16 = 0x1000;

/// One element: its local id and where its data is in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Local identifier, 1 to 14 (one-byte) or 1 to 255 (two-byte).
    pub id: u8,
    /// Data length in bytes.
    pub len: u8,
    /// Offset of the data in the packet.
    pub at: u16,
}

/// Iterates over a block's elements. Ends early, with `broken` set, at an element that runs past the block; an
/// unknown profile has no elements.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    packet: &'a [u8],
    at: usize,
    end: usize,
    two_byte: bool,
    /// Set when the block contradicts itself.
    pub broken: bool,
}

impl<'a> Elements<'a> {
    /// Reads `block` of `packet`, as [`rtp::parse`](super::rtp::parse) found it.
    pub fn new(packet: &'a [u8], block: ExtensionBlock) -> Self {
        let known = block.profile == ONE_BYTE || block.profile & 0xfff0 == TWO_BYTE;
        let end = if known { usize::from(block.end).min(packet.len()) } else { 0 };
        let two_byte = block.profile != ONE_BYTE;
        Elements { packet, at: usize::from(block.start), end, two_byte, broken: false }
    }
}

impl Iterator for Elements<'_> {
    type Item = Element;

    fn next(&mut self) -> Option<Element> {
        while self.at < self.end && !self.broken {
            let first = self.packet[self.at];
            if first == 0 {
                self.at += 1; // padding
                continue;
            }
            let (id, len, data) = if self.two_byte {
                if self.at + 2 > self.end {
                    self.broken = true;
                    return None;
                }
                (first, usize::from(self.packet[self.at + 1]), self.at + 2)
            } else {
                if first >> 4 == 15 {
                    return None; // id 15 ends processing (RFC 8285 §4.2)
                }
                (first >> 4, usize::from(first & 15) + 1, self.at + 1)
            };
            // One-byte id 0 with a length is padding that lies about itself.
            if data + len > self.end || id == 0 {
                self.broken = true;
                return None;
            }
            self.at = data + len;
            return Some(Element { id, len: len as u8, at: data as u16 });
        }
        None
    }
}

/// Writes an extension block behind an RTP header; all elements must be known before the form is chosen.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    two_byte: bool,
}

impl<'a> BlockWriter<'a> {
    /// Starts a block at the beginning of `out`. `two_byte` is needed for ids over 14, data over 16 bytes or
    /// empty data.
    pub fn new(out: &'a mut [u8], two_byte: bool) -> Self {
        BlockWriter { out, at: 4, two_byte }
    }

    /// Appends an element; `false`, with nothing written, when it does not fit the buffer or the form.
    pub fn push(&mut self, id: u8, data: &[u8]) -> bool {
        let head = if self.two_byte { 2 } else { 1 };
        let fits = if self.two_byte {
            id != 0 && data.len() <= 255
        } else {
            (1..=14).contains(&id) && (1..=16).contains(&data.len())
        };
        // Three bytes are kept for padding to a whole word.
        if !fits || self.at + head + data.len() + 3 > self.out.len() {
            return false;
        }
        if self.two_byte {
            self.out[self.at] = id;
            self.out[self.at + 1] = data.len() as u8;
        } else {
            self.out[self.at] = (id << 4) | (data.len() - 1) as u8;
        }
        self.at += head;
        self.out[self.at..self.at + data.len()].copy_from_slice(data);
        self.at += data.len();
        true
    }

    /// Pads the block and writes its header; returns its length, 0 when it has no element.
    pub fn finish(self) -> usize {
        if self.at == 4 {
            return 0;
        }
        let end = self.at.next_multiple_of(4);
        self.out[self.at..end].fill(0);
        let profile = if self.two_byte { TWO_BYTE } else { ONE_BYTE };
        self.out[..2].copy_from_slice(&profile.to_be_bytes());
        self.out[2..4].copy_from_slice(&(((end - 4) / 4) as u16).to_be_bytes());
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_of(bytes: &[u8]) -> ExtensionBlock {
        ExtensionBlock { profile: u16::from_be_bytes([bytes[0], bytes[1]]), start: 4, end: bytes.len() as u16 }
    }

    #[test]
    fn both_forms_round_trip() {
        for two_byte in [false, true] {
            let mut out = [0xffu8; 64];
            let mut writer = BlockWriter::new(&mut out, two_byte);
            assert!(writer.push(1, b"a"));
            assert!(writer.push(14, b"0123456789abcdef"));
            assert_eq!(writer.push(200, b"x"), two_byte);
            assert_eq!(writer.push(3, b""), two_byte);
            let len = writer.finish();
            assert_eq!(len % 4, 0);
            let bytes = &out[..len];
            let mut elements = Elements::new(bytes, block_of(bytes));
            let found: Vec<(u8, &[u8])> = elements
                .by_ref()
                .map(|e| (e.id, &bytes[usize::from(e.at)..usize::from(e.at) + usize::from(e.len)]))
                .collect();
            let mut expected: Vec<(u8, &[u8])> = vec![(1, b"a"), (14, b"0123456789abcdef")];
            if two_byte {
                expected.extend_from_slice(&[(200, b"x"), (3, b"")]);
            }
            assert_eq!(found, expected);
            assert!(!elements.broken);
        }
    }

    #[test]
    fn an_element_past_the_block_is_broken() {
        let bytes = [0xbe, 0xde, 0, 1, 0x13, 1, 2, 3];
        let mut elements = Elements::new(&bytes, block_of(&bytes));
        assert_eq!(elements.next(), None);
        assert!(elements.broken);
    }

    #[test]
    fn fifteen_ends_and_foreign_profiles_are_empty() {
        let bytes = [0xbe, 0xde, 0, 1, 0xf0, 1, 2, 3];
        let mut elements = Elements::new(&bytes, block_of(&bytes));
        assert_eq!(elements.next(), None);
        assert!(!elements.broken);
        let bytes = [0x12, 0x34, 0, 1, 0x10, 1, 2, 3];
        assert_eq!(Elements::new(&bytes, block_of(&bytes)).count(), 0);
    }

    #[test]
    fn a_full_buffer_refuses() {
        let mut out = [0u8; 12];
        let mut writer = BlockWriter::new(&mut out, false);
        assert!(writer.push(1, b"abc"));
        assert!(!writer.push(2, b"abcd"));
        assert_eq!(writer.finish(), 8);
    }
}
