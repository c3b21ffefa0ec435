//! Binding requests, written by hand so that they can be wrong in every way.

use aws_lc_rs::hmac;

/// How a binding request is written.
#[derive(Clone)]
pub struct Check<'a> {
    /// Theirs, then ours.
    pub username: String,
    pub password: &'a str,
    pub transaction: [u8; 12],
    pub use_candidate: bool,
    pub controlling: bool,
    /// Bytes of an attribute nobody knows.
    pub padding: usize,
}

impl Check<'_> {
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        bytes.extend_from_slice(&self.transaction);
        attribute(&mut bytes, 0x0006, self.username.as_bytes());
        attribute(&mut bytes, 0x0024, &0x6eff_00ff_u32.to_be_bytes());
        attribute(&mut bytes, if self.controlling { 0x802a } else { 0x8029 }, &7_u64.to_be_bytes());
        if self.use_candidate {
            attribute(&mut bytes, 0x0025, &[]);
        }
        if self.padding > 0 {
            // Comprehension-optional.
            attribute(&mut bytes, 0xc0de, &vec![0x5a; self.padding]);
        }
        length(&mut bytes, 24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.password.as_bytes());
        let tag = hmac::sign(&key, &bytes);
        attribute(&mut bytes, 0x0008, tag.as_ref());
        length(&mut bytes, 8);
        let crc = crc32(&bytes) ^ 0x5354_554e;
        attribute(&mut bytes, 0x8028, &crc.to_be_bytes());
        bytes
    }
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    length(bytes, 0);
}

fn length(bytes: &mut [u8], more: usize) {
    let length = (bytes.len() - 20 + more) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

/// CRC-32 of ISO 3309, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, step)
}
