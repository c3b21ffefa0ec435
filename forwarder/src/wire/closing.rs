//! Closing a batch of frames: the UDP and IPv4 checksums of eight frames at a time (RFC 1071), then their headers.
//! Needs AVX2; elsewhere [`Template::finish`] closes frames one by one. Never looks at what a payload is.

use std::arch::x86_64::{
    __m256i, _mm_store_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_cmpeq_epi32, _mm256_hadd_epi32,
    _mm256_load_si256, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set_epi32, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_store_si256, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use super::checksum::{PADDING, sum_blocks};
use super::frame::{IPV4_LEN, UDP_LEN};
use super::template::Template;

/// Frames at most.
pub(crate) const MOST: usize = 32;
/// Frames folded at a time.
const LANES: usize = 8;

/// What the headers of a batch depend on, and then what goes into them.
#[derive(Debug)]
#[repr(C, align(32))]
pub(crate) struct Closing {
    /// Parts of each payload's sum.
    sums: [[u32; 4]; MOST],
    /// UDP payload lengths.
    lens: [u32; MOST],
    /// [`Template::sums`].
    headers: [u32; MOST],
    /// UDP length and checksum as they are on the wire.
    udp: [u32; MOST],
    /// IPv4 total length and header checksum as they are on the wire.
    ip: [u32; MOST],
}

impl Closing {
    /// Nothing to close yet.
    pub(crate) const fn new() -> Self {
        Closing { sums: [[0; 4]; MOST], lens: [0; MOST], headers: [0; MOST], udp: [0; MOST], ip: [0; MOST] }
    }

    /// Takes the frame at place `at` in, whose `len` bytes of UDP payload are in place behind the headers to be, and
    /// [`PADDING`] zeroes behind them.
    ///
    /// # Safety
    /// `at` must be below [`MOST`], and `frame` readable for [`Template::len`] + `len` + [`PADDING`] bytes, 2,048 at most.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) unsafe fn add(&mut self, at: usize, template: &Template, frame: *const u8, len: usize, checksum: bool) {
        // SAFETY: as the caller promises; the arrays are aligned as the struct is, and their elements too.
        unsafe {
            let sum = if checksum {
                sum_blocks(frame.add(template.len()), (len + PADDING - 1) & !(PADDING - 1))
            } else {
                std::mem::zeroed()
            };
            _mm_store_si128(self.sums.as_mut_ptr().add(at).cast(), sum);
            self.lens.as_mut_ptr().add(at).write(len as u32);
            self.headers.as_mut_ptr().add(at).write(template.sums());
        }
    }

    /// Makes lengths and checksums of the first `count` places, [`MOST`] at most.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn fold(&mut self, count: usize) {
        for group in 0..count.min(MOST).div_ceil(LANES) {
            // SAFETY: whole groups of the arrays, which are aligned to one.
            unsafe { self.fold_group(group * LANES) };
        }
    }

    /// # Safety
    /// `at` must be a multiple of [`LANES`] below [`MOST`].
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn fold_group(&mut self, at: usize) {
        let set = _mm256_set1_epi32;
        // SAFETY: as the caller promises.
        let load = |from: *const u32, at: usize| unsafe { _mm256_load_si256(from.add(at).cast()) };
        let sums = self.sums.as_ptr().cast::<u32>();
        let pair = |n: usize| load(sums, (at + 2 * n) * 4);
        let (first, second) = (_mm256_hadd_epi32(pair(0), pair(1)), _mm256_hadd_epi32(pair(2), pair(3)));
        // Even frames are in the lower half now.
        let order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
        let payload = _mm256_permutevar8x32_epi32(_mm256_hadd_epi32(first, second), order);
        let (lens, headers) = (load(self.lens.as_ptr(), at), load(self.headers.as_ptr(), at));
        // 2^15 for each of the words that `sum_blocks` took for signed.
        let padded = _mm256_and_si256(_mm256_add_epi32(lens, set(PADDING as i32 - 1)), set(-(PADDING as i32)));
        let payload = _mm256_add_epi32(payload, _mm256_slli_epi32::<14>(padded));
        let udp_len = network(_mm256_add_epi32(lens, set(UDP_LEN as i32)));
        let udp_sum = _mm256_srli_epi32::<16>(headers);
        // The UDP length counts twice: in the pseudo header and in the UDP header.
        let sum = _mm256_add_epi32(_mm256_add_epi32(payload, udp_sum), _mm256_add_epi32(udp_len, udp_len));
        let checksum = folded(sum);
        // Zero means "none" and is sent as all ones (RFC 768).
        let none = _mm256_srli_epi32::<16>(_mm256_cmpeq_epi32(checksum, _mm256_setzero_si256()));
        let udp = _mm256_or_si256(udp_len, _mm256_slli_epi32::<16>(_mm256_or_si256(checksum, none)));
        let total = network(_mm256_add_epi32(lens, set((IPV4_LEN + UDP_LEN) as i32)));
        let ip_sum = _mm256_add_epi32(_mm256_and_si256(headers, set(0xffff)), total);
        let ip = _mm256_or_si256(total, _mm256_slli_epi32::<16>(folded(ip_sum)));
        // SAFETY: as above.
        unsafe {
            _mm256_store_si256(self.udp.as_mut_ptr().add(at).cast(), udp);
            _mm256_store_si256(self.ip.as_mut_ptr().add(at).cast(), ip);
        }
    }

    /// Writes the headers of the frame at place `at`; returns the frame's length.
    ///
    /// # Safety
    /// As for [`add`](Self::add), with the same template and frame, writable, after [`fold`](Self::fold).
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) unsafe fn write(&self, at: usize, template: &Template, frame: *mut u8, checksum: bool) -> usize {
        // SAFETY: as the caller promises.
        unsafe {
            let udp = *self.udp.get_unchecked(at) & if checksum { u32::MAX } else { 0xffff };
            template.close(frame, udp, *self.ip.get_unchecked(at));
            template.len() + *self.lens.get_unchecked(at) as usize
        }
    }
}

/// Lanes below 2^16 with their two bytes swapped.
#[inline]
#[target_feature(enable = "avx2")]
fn network(lanes: __m256i) -> __m256i {
    let low = _mm256_set1_epi64x(i64::from_ne_bytes([1, 0, 0x80, 0x80, 5, 4, 0x80, 0x80]));
    let high = _mm256_set1_epi64x(i64::from_ne_bytes([9, 8, 0x80, 0x80, 13, 12, 0x80, 0x80]));
    _mm256_shuffle_epi8(lanes, _mm256_unpacklo_epi64(low, high))
}

/// Complements of 32-bit sums of 16-bit words, folded: adding a sum rotated by half carries the end around.
#[inline]
#[target_feature(enable = "avx2")]
fn folded(sums: __m256i) -> __m256i {
    let low = _mm256_set1_epi64x(i64::from_ne_bytes([2, 3, 0, 1, 6, 7, 4, 5]));
    let high = _mm256_set1_epi64x(i64::from_ne_bytes([10, 11, 8, 9, 14, 15, 12, 13]));
    let rotated = _mm256_shuffle_epi8(sums, _mm256_unpacklo_epi64(low, high));
    let folded = _mm256_srli_epi32::<16>(_mm256_add_epi32(sums, rotated));
    _mm256_xor_si256(folded, _mm256_set1_epi32(0xffff))
}

#[cfg(test)]
mod tests {
    use super::super::template::Hop;
    use super::*;

    /// Against closing frame by frame.
    #[test]
    fn a_batch_closes_as_its_frames_would_alone() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            eprintln!("skipped: the CPU has no AVX2");
            return;
        }
        let hop = |vlan| Hop { source_mac: [2; 6], destination_mac: [4; 6], vlan };
        let make = |vlan, local: &str, remote: &str| {
            Template::new(hop(vlan), local.parse().unwrap(), remote.parse().unwrap()).unwrap()
        };
        let templates = [
            make(None, "10.0.0.1:5000", "10.9.8.7:6000"),
            make(Some(7), "10.0.0.1:5000", "10.255.255.254:65535").with_dscp(46),
            make(None, "[fd00::1]:5000", "[fd00::2]:6000"),
            make(Some(4_000), "[fd00::1]:5000", "[ffff::ffff]:65535").with_dscp(34),
        ];
        let mut state = 5u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for round in 0..200 {
            let count = random() % MOST + 1;
            let mut closing = Closing::new();
            let mut frames: Vec<(Vec<u8>, usize, &Template, bool)> = (0..count)
                .map(|_| {
                    let (template, len) = (&templates[random() % templates.len()], random() % 1_500);
                    let fill = [0, 0xff, 0x80, random() as u8][random() % 4];
                    let mut frame = vec![0x77; 2_048];
                    for byte in &mut frame[template.len()..template.len() + len] {
                        *byte = if fill == 0x80 { random() as u8 } else { fill };
                    }
                    (frame, len, template, random() % 8 > 0)
                })
                .collect();
            let mut alone = frames.clone();
            // SAFETY: AVX2 was detected; the frames have 2,048 bytes.
            unsafe {
                for (at, (frame, len, template, checksum)) in frames.iter_mut().enumerate() {
                    frame[template.len() + *len..][..PADDING].fill(0);
                    closing.add(at, template, frame.as_ptr(), *len, *checksum);
                }
                closing.fold(count);
                for (at, (frame, len, template, checksum)) in frames.iter_mut().enumerate() {
                    let whole = closing.write(at, template, frame.as_mut_ptr(), *checksum);
                    assert_eq!(whole, template.len() + *len);
                }
                for (frame, len, template, checksum) in &mut alone {
                    frame[template.len() + *len..][..PADDING].fill(0);
                    template.finish(frame.as_mut_ptr(), *len, *checksum);
                }
            }
            assert!(frames == alone, "round {round}");
        }
    }
}
