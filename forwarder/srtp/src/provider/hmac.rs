//! HMAC-SHA1 (RFC 2104) of one contiguous packet from two kept states: 40 bytes of key and no hashing of key blocks per
//! packet. SHA-1 itself is `RustCrypto`'s compression function (SHA extensions where the CPU has them).

use sha1::block_api::compress;
use zeroize::{Zeroize, ZeroizeOnDrop};

const BLOCK: usize = 64;
/// Where SHA-1 starts (FIPS 180-4 §5.3.1).
const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// SHA-1 states behind the inner and the outer key block.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct HmacKey {
    pub(crate) inner: [u32; 5],
    pub(crate) outer: [u32; 5],
}

impl HmacKey {
    /// The states of a 160-bit session authentication key (RFC 3711 §5.2).
    pub(crate) fn new(key: &[u8; 20]) -> Self {
        HmacKey { inner: after_key_block(key, 0x36), outer: after_key_block(key, 0x5c) }
    }

    /// The tag of `data` followed by `suffix` (the rollover counter, or nothing); at most 47 bytes of suffix.
    #[inline]
    pub(crate) fn tag(&self, data: &[u8], suffix: &[u8]) -> [u8; 20] {
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        let mut state = self.inner;
        compress(&mut state, blocks);
        // The key block counts, too.
        let bits = (BLOCK + data.len() + suffix.len()) as u64 * 8;
        let mut last = [[0; BLOCK]; 2];
        let flat = last.as_flattened_mut();
        let used = rest.len() + suffix.len();
        flat[..rest.len()].copy_from_slice(rest);
        flat[rest.len()..used].copy_from_slice(suffix);
        flat[used] = 0x80;
        let count = if used + 9 <= BLOCK { 1 } else { 2 };
        flat[count * BLOCK - 8..count * BLOCK].copy_from_slice(&bits.to_be_bytes());
        compress(&mut state, &last[..count]);

        let mut block = [0; BLOCK];
        block[..20].copy_from_slice(&bytes(state));
        block[20] = 0x80;
        block[BLOCK - 8..].copy_from_slice(&((BLOCK as u64 + 20) * 8).to_be_bytes());
        let mut state = self.outer;
        compress(&mut state, &[block]);
        bytes(state)
    }
}

fn after_key_block(key: &[u8; 20], pad: u8) -> [u32; 5] {
    let mut block = [pad; BLOCK];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    let mut state = START;
    compress(&mut state, &[block]);
    block.zeroize();
    state
}

#[inline]
fn bytes(state: [u32; 5]) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (four, word) in bytes.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac};
    use sha1::Sha1;

    use super::*;

    #[test]
    fn equals_the_hmac_crate_at_every_length() {
        let key: [u8; 20] = std::array::from_fn(|at| at as u8 * 11);
        let ours = HmacKey::new(&key);
        let data: Vec<u8> = (0..700_u32).map(|at| ((at * 37) >> 2) as u8).collect();
        for len in 0..data.len() {
            for suffix in [&[][..], &[1, 2, 3, 4]] {
                let mut theirs = Hmac::<Sha1>::new_from_slice(&key).unwrap();
                theirs.update(&data[..len]);
                theirs.update(suffix);
                assert_eq!(ours.tag(&data[..len], suffix)[..], theirs.finalize().into_bytes()[..], "length {len}");
            }
        }
    }
}
