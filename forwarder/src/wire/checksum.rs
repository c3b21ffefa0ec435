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

#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// A sum taken in native byte order, folded and brought to network order: the ones-complement sum does not
/// depend on byte order except for one final swap (RFC 1071 §2 B).
#[inline(always)]
const fn swap_folded(native: u64) -> u16 {
    u16::from_be(fold(native))
}

/// Sums native-endian 16-bit words, as a 64-bit total that `fold` brings down.
#[inline(always)]
fn sum_native(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= 64 && simd_available() {
        // SAFETY: AVX2 was detected.
        return unsafe { sum_avx2(bytes) };
    }
    sum_portable(bytes)
}

fn sum_portable(bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    sum + sum_tail(words.remainder())
}

/// Sums up to 31 trailing bytes, zero-padded to whole words.
#[inline(always)]
fn sum_tail(tail: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut at = 0;
    while at + 4 <= tail.len() {
        sum += u64::from(u32::from_ne_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]));
        at += 4;
    }
    let mut last = [0u8; 4];
    let rest = &tail[at..];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn simd_available() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

/// 32 bytes a turn: 32-bit lanes widened to 64-bit sums by mask and shift, so no lane ever overflows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u64 {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi64, _mm_cvtsi128_si64, _mm_unpackhi_epi64, _mm256_add_epi64, _mm256_and_si256,
        _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_set1_epi64x, _mm256_setzero_si256,
        _mm256_srli_epi64,
    };
    let low_half = _mm256_set1_epi64x(0xffff_ffff);
    let (mut even, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        // SAFETY: a block has 32 readable bytes; the load takes any alignment.
        let v = unsafe { _mm256_loadu_si256(block.as_ptr().cast::<__m256i>()) };
        even = _mm256_add_epi64(even, _mm256_and_si256(v, low_half));
        odd = _mm256_add_epi64(odd, _mm256_srli_epi64::<32>(v));
    }
    let all = _mm256_add_epi64(even, odd);
    let two = _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    let one = _mm_add_epi64(two, _mm_unpackhi_epi64(two, two));
    _mm_cvtsi128_si64(one).cast_unsigned() + sum_tail(blocks.remainder())
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
            }
        }
        let ones = [0xffu8; 1500];
        assert_eq!(Sum::default().add_bytes(&ones).finish(), naive(&ones));
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
