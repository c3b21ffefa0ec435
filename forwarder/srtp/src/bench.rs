//! The bare cost of the cipher: what an engine is compared with. An edge module: it reads the clock and nothing of
//! the forwarder calls it.

use std::array;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::index::{PacketIndex, Seq, Ssrc};
use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::{MasterKey, SessionKeys};
use crate::profile::Profile;
use crate::provider::Provider;
use crate::window::SentWindow;

/// Jobs handed to the provider at once.
pub const BATCH: usize = 64;
/// Frames written in turn: 512 KiB, what a worker's transmit ring keeps warm.
const FRAMES: usize = 256;
const FRAME_LEN: usize = 2048;
/// A fixed header and one 8-byte extension block, as a forwarded packet has.
const HEADER_LEN: usize = 20;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Profile of every key.
    pub profile: Profile,
    /// Payload bytes of a packet (0 to 2,012).
    pub payload: usize,
    /// Receivers, each with a key of its own, served in turn (at least 1).
    pub keys: usize,
    /// Packets to measure, rounded up to whole batches of [`BATCH`]; an eighth more is run before as a warm-up.
    pub packets: usize,
}

impl Shape {
    fn batches(&self) -> usize {
        self.packets.div_ceil(BATCH).max(1)
    }

    fn payload(&self) -> usize {
        self.payload.min(FRAME_LEN - HEADER_LEN - Profile::MAX_TAG)
    }

    fn expand(&self, provider: &mut impl Provider) -> (Vec<Receiver>, Vec<SentWindow>) {
        let length = self.profile.key_len() + self.profile.salt_len();
        (0..self.keys.max(1) as u32)
            .filter_map(|number| {
                let bytes: Vec<u8> = (0..length as u32).map(|at| (number.wrapping_mul(31) + at * 7) as u8).collect();
                let master = MasterKey::from_bytes(self.profile, &bytes).ok()?;
                let keys = provider.expand(&master);
                Some((Receiver { keys, ssrc: Ssrc(0x1000_0000 + number) }, SentWindow::new(FIRST)))
            })
            .unzip()
    }
}

const FIRST: PacketIndex = PacketIndex::new(0, Seq(1));

struct Receiver {
    keys: SessionKeys,
    ssrc: Ssrc,
}

fn frames() -> Vec<[u8; FRAME_LEN]> {
    let mut frame = [0; FRAME_LEN];
    frame[..HEADER_LEN]
        .copy_from_slice(&[0x90, 96, 0, 1, 0, 0, 0, 0, 0x10, 0, 0, 0, 0xbe, 0xde, 0, 1, 0x10, 0xa5, 0, 0]);
    vec![frame; FRAMES]
}

/// Fills one batch of seal jobs and seals it; what is timed, so it does nothing else.
#[inline(never)]
fn seal_batch(
    provider: &mut impl Provider,
    receivers: &[Receiver],
    sent: &mut [SentWindow],
    at: &mut usize,
    plain: &[u8],
    frames: &mut [[u8; FRAME_LEN]],
) {
    let mut free = frames.iter_mut();
    let mut jobs: [SealJob<'_>; BATCH] = array::from_fn(|_| {
        let number = *at;
        *at = if number + 1 == receivers.len() { 0 } else { number + 1 };
        let Receiver { keys, ssrc } = &receivers[number];
        let window = &mut sent[number];
        let index = window.next().and_then(|next| window.issue(next).ok());
        match (index, free.next()) {
            (Some(index), Some(frame)) => {
                SealJob { keys, ssrc: *ssrc, index, plain, frame: frame.as_mut_slice(), header_len: HEADER_LEN }
            }
            _ => unreachable!("a batch has {BATCH} frames and a fresh key 2^48 indexes"),
        }
    });
    provider.seal(&mut jobs);
}

/// Nanoseconds per packet to fill a job and seal it, over `shape.packets` packets. Repeat and take a median.
pub fn bare_seal(provider: &mut impl Provider, shape: Shape) -> f64 {
    let (receivers, mut sent) = shape.expand(provider);
    let plain = vec![0x5a; shape.payload()];
    let mut frames = frames();
    let mut at = 0;
    let mut run = |batches: usize| {
        let start = Instant::now();
        for batch in 0..batches {
            let first = batch * BATCH % FRAMES;
            seal_batch(provider, &receivers, &mut sent, &mut at, &plain, &mut frames[first..first + BATCH]);
        }
        start.elapsed()
    };
    run(shape.batches().div_ceil(8));
    let elapsed = run(shape.batches());
    black_box(&frames);
    per_packet(elapsed, shape)
}

/// Nanoseconds per packet to fill a job and open it. Every packet must authenticate; NaN if one did not.
pub fn bare_open(provider: &mut impl Provider, shape: Shape) -> f64 {
    let (receivers, mut sent) = shape.expand(provider);
    let plain = vec![0x5a; shape.payload()];
    let mut frames = frames();
    let mut at = 0;
    for group in frames.chunks_mut(BATCH) {
        seal_batch(provider, &receivers, &mut sent, &mut at, &plain, group);
    }
    let total = HEADER_LEN + plain.len() + shape.profile.rtp_tag_len();
    let sealed: Vec<(usize, PacketIndex)> = (0..FRAMES)
        .map(|number| (number % receivers.len(), PacketIndex::new(0, Seq(1 + (number / receivers.len()) as u16))))
        .collect();
    let mut outs = vec![[0; FRAME_LEN]; BATCH];
    let mut opened = 0;
    let mut run = |batches: usize| {
        let start = Instant::now();
        for batch in 0..batches {
            let first = batch * BATCH % FRAMES;
            let mut outs = outs.iter_mut();
            let mut jobs: [OpenJob<'_>; BATCH] = array::from_fn(|slot| {
                let (receiver, index) = sealed[first + slot];
                let Receiver { keys, ssrc } = &receivers[receiver];
                let out = outs.next().map(<[u8; FRAME_LEN]>::as_mut_slice).unwrap_or_default();
                let packet = &frames[first + slot][..total];
                OpenJob {
                    keys,
                    ssrc: *ssrc,
                    index,
                    packet,
                    header_len: HEADER_LEN,
                    out,
                    result: Err(OpenError::Pending),
                }
            });
            provider.open(&mut jobs);
            opened += jobs.iter().filter(|job| job.result == Ok(plain.len())).count();
        }
        start.elapsed()
    };
    let warm = shape.batches().div_ceil(8);
    run(warm);
    let elapsed = run(shape.batches());
    black_box(&outs);
    if opened == (warm + shape.batches()) * BATCH { per_packet(elapsed, shape) } else { f64::NAN }
}

fn per_packet(elapsed: Duration, shape: Shape) -> f64 {
    elapsed.as_secs_f64() * 1e9 / (shape.batches() * BATCH) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{AnyProvider, ProviderKind};

    #[test]
    fn measures_work_that_succeeded() {
        for kind in [ProviderKind::Portable, ProviderKind::best(), ProviderKind::Null] {
            let mut provider = AnyProvider::new(kind).unwrap();
            for profile in Profile::ALL {
                for (payload, keys) in [(0, 1), (160, 50), (5000, 3)] {
                    let shape = Shape { profile, payload, keys, packets: 600 };
                    assert!(bare_seal(&mut provider, shape) > 0.0);
                    assert!(bare_open(&mut provider, shape) > 0.0, "{kind} {profile:?} {payload}");
                }
            }
            assert_eq!(provider.refused(), 0);
        }
    }
}
