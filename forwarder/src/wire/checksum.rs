//! The Internet checksum (RFC 1071), over whole packets with SIMD where the CPU has it.

/// A partial ones-complement sum. Adding is associative, so header parts are summed ahead of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(pub u64);

impl Sum {
    /// Adds one 16-bit word in host order of its big-endian value.
    #[inline(always)]
    #[must_use]
    pub const fn add_word(self, word: u16) -> Sum {
        Sum(self.0 + word as u64)
    }

    /// Adds bytes as big-endian words; an odd last byte counts as its word's upper half.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        Sum(self.0 + u64::from(swap_folded(sum_native(bytes))))
    }

    /// The checksum to store: folded, complemented.
    #[inline(always)]
    pub const fn finish(self) -> u16 {
        !fold(self.0)
    }

    /// The checksum to store in UDP, where zero means "none" and is sent as all ones (RFC 768).
    #[inline(always)]
    pub const fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            other => other,
        }
    }
}

/// Folds a 64-bit sum of 16- or 32-bit words: rotating by half and adding carries the end around by itself.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let half = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
}

/// A sum taken in native byte order, folded and brought to network order: the ones-complement sum does not
/// depend on byte order except for one final swap (RFC 1071 §2 B).
#[inline(always)]
const fn swap_folded(native: u64) -> u16 {
    u16::from_be(fold(native))
}

/// Bytes behind a packet that [`sum_padded`] may read and that must be zero up to the next multiple of this.
pub const PADDING: usize = 64;

/// Folds a sum of 16-bit words below 2^32.
#[inline(always)]
pub(super) const fn fold_small(sum: u32) -> u16 {
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The sum of `len` bytes at `padded` as native-endian 16-bit words, below 2^27.
///
/// # Safety
/// `padded` must be readable for `len`, at most 2,048, rounded up to a multiple of [`PADDING`] and zero behind `len`.
pub(super) unsafe fn sum_padded(padded: *const u8, len: usize) -> u32 {
    debug_assert!(len <= 2048);
    // SAFETY: as the caller promises.
    let words = unsafe { std::slice::from_raw_parts(padded, len.next_multiple_of(PADDING)) }.as_chunks::<2>().0;
    words.iter().map(|word| u32::from(u16::from_ne_bytes(*word))).sum()
}

/// Sums native-endian 16-bit words, as a 64-bit total that `fold` brings down.
fn sum_native(bytes: &[u8]) -> u64 {
    sum_portable(bytes)
}

#[inline(always)]
fn sum_portable(bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0u8; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

/// Sums native-endian 16-bit words into four parts; each word counts 2^15 too little, wrapping. There is no unsigned 16-bit
/// multiply-add, so words are moved to the signed range; whoever adds the parts up makes good for it.
///
/// # Safety
/// `blocks` must be readable for `len`, a multiple of [`PADDING`] and not 0.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
#[allow(clippy::cast_ptr_alignment, reason = "loads of the unaligned kind")]
pub(super) unsafe fn sum_blocks(blocks: *const u8, len: usize) -> std::arch::x86_64::__m128i {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi32, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_xor_si256,
    };
    let (shift, ones) = (_mm256_set1_epi16(i16::MIN), _mm256_set1_epi16(1));
    // SAFETY: at most `len` behind `blocks`.
    let end = unsafe { blocks.add(len) };
    let half = |at: isize| {
        // SAFETY: `at` is below 0 by 32 at least, and by `len` at most; the load takes any alignment.
        let words = unsafe { _mm256_loadu_si256(end.offset(at).cast::<__m256i>()) };
        _mm256_madd_epi16(_mm256_xor_si256(words, shift), ones)
    };
    let (mut even, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let mut at = -(len as isize);
    while at < 0 {
        even = _mm256_add_epi32(even, half(at));
        odd = _mm256_add_epi32(odd, half(at + 32));
        at += PADDING as isize;
    }
    let all = _mm256_add_epi32(even, odd);
    _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn equals_the_naive_sum_at_every_length_and_alignment() {
        let mut state = 1u32;
        let data: Vec<u8> = (0..1700)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        for start in 0..5 {
            for len in 0..1600 {
                let bytes = &data[start..start + len];
                assert_eq!(Sum::default().add_bytes(bytes).finish(), naive(bytes), "start {start} len {len}");
                let mut padded = bytes.to_vec();
                padded.resize(len + PADDING, 0);
                // SAFETY: `padded` goes on for PADDING zeroes.
                let sum = unsafe { sum_padded(padded.as_ptr(), len) };
                assert_eq!(!u16::from_be(fold_small(sum)), naive(bytes), "len {len}");
            }
        }
        let ones = [0xffu8; 2048];
        assert_eq!(Sum::default().add_bytes(&ones).finish(), naive(&ones));
        // SAFETY: as above.
        let sum = unsafe { sum_padded(ones.as_ptr(), 2048) };
        assert_eq!(sum, 1024 * 0xffff);
    }

    #[test]
    fn parts_add_up() {
        let data: Vec<u8> = (0..200u8).collect();
        let parts = Sum::default().add_bytes(&data[..50]).add_bytes(&data[50..]).add_word(0x1234);
        let whole = Sum::default().add_word(0x1234).add_bytes(&data);
        assert_eq!(parts.finish(), whole.finish());
    }

    #[test]
    fn udp_never_sends_zero() {
        assert_eq!(Sum::default().add_word(0xffff).finish_udp(), 0xffff);
    }
}
