//! Sender and receiver reports and source descriptions (RFC 3550 §6.4, §6.5).

use sluice_srtp::Ssrc;

use super::{kind, put32, write_head};
use crate::wire::be32;

/// Report blocks one packet holds.
pub const MAX_BLOCKS: usize = 31;
/// Length of a report block in bytes.
pub const BLOCK_LEN: usize = 24;
/// Length of a sender report without blocks in bytes.
pub const SENDER_LEN: usize = 28;

/// What a sender says of its own stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// When, as seconds in 32.32 fixed point.
    pub ntp: u64,
    /// The stream's timestamp at that moment.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

impl SenderInfo {
    pub(super) fn read(bytes: &[u8]) -> Self {
        SenderInfo {
            ntp: u64::from(be32(bytes, 0)) << 32 | u64::from(be32(bytes, 4)),
            timestamp: be32(bytes, 8),
            packets: be32(bytes, 12),
            octets: be32(bytes, 16),
        }
    }

    /// The middle 32 bits of the time, as report blocks repeat them.
    pub fn short_ntp(&self) -> u32 {
        (self.ntp >> 16) as u32
    }
}

/// What a receiver says of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the beginning, -2^23 to 2^23 - 1.
    pub lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Interarrival jitter in the stream's clock.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's time; 0 if there was none.
    pub last_report: u32,
    /// Time since that report in 1/65,536 s.
    pub delay: u32,
}

impl ReportBlock {
    fn read(bytes: &[u8]) -> Self {
        let word = be32(bytes, 4);
        ReportBlock {
            ssrc: be32(bytes, 0),
            fraction_lost: (word >> 24) as u8,
            lost: ((word << 8) as i32) >> 8,
            highest: be32(bytes, 8),
            jitter: be32(bytes, 12),
            last_report: be32(bytes, 16),
            delay: be32(bytes, 20),
        }
    }

    fn write(&self, out: &mut [u8]) {
        let lost = self.lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0x00ff_ffff;
        let words = [
            self.ssrc,
            u32::from(self.fraction_lost) << 24 | lost,
            self.highest,
            self.jitter,
            self.last_report,
            self.delay,
        ];
        for (at, word) in words.into_iter().enumerate() {
            put32(out, at * 4, word);
        }
    }
}

/// The blocks of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks<'a>(&'a [u8]);

impl<'a> Blocks<'a> {
    pub(super) fn new(bytes: &'a [u8], count: u8) -> Option<Self> {
        bytes.get(..usize::from(count) * BLOCK_LEN).map(Blocks)
    }

    /// The blocks in order.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        self.0.as_chunks::<BLOCK_LEN>().0.iter().map(|block| ReportBlock::read(block))
    }
}

/// Writes a sender report; `None` if there is no room or there are more than [`MAX_BLOCKS`] blocks.
pub fn write_sender(out: &mut [u8], ssrc: Ssrc, info: &SenderInfo, blocks: &[ReportBlock]) -> Option<usize> {
    let len = SENDER_LEN + blocks.len() * BLOCK_LEN;
    let out = out.get_mut(..len).filter(|_| blocks.len() <= MAX_BLOCKS)?;
    write_head(out, kind::SENDER_REPORT, blocks.len() as u8, len);
    let words = [ssrc.0, (info.ntp >> 32) as u32, info.ntp as u32, info.timestamp, info.packets, info.octets];
    for (at, word) in words.into_iter().enumerate() {
        put32(out, 4 + at * 4, word);
    }
    write_blocks(&mut out[SENDER_LEN..], blocks);
    Some(len)
}

/// Writes a receiver report; `None` if there is no room or there are more than [`MAX_BLOCKS`] blocks.
pub fn write_receiver(out: &mut [u8], ssrc: Ssrc, blocks: &[ReportBlock]) -> Option<usize> {
    let len = 8 + blocks.len() * BLOCK_LEN;
    let out = out.get_mut(..len).filter(|_| blocks.len() <= MAX_BLOCKS)?;
    write_head(out, kind::RECEIVER_REPORT, blocks.len() as u8, len);
    put32(out, 4, ssrc.0);
    write_blocks(&mut out[8..], blocks);
    Some(len)
}

fn write_blocks(out: &mut [u8], blocks: &[ReportBlock]) {
    for (out, block) in out.as_chunks_mut::<BLOCK_LEN>().0.iter_mut().zip(blocks) {
        block.write(out);
    }
}

/// Length of one chunk of a source description with a canonical name of `name` bytes.
pub const fn description_chunk(name: usize) -> usize {
    // SSRC, type, length, the name and at least one zero.
    (4 + 2 + name + 1).next_multiple_of(4)
}

/// Writes a source description that gives all of `streams`, at most 31, one canonical name of at most 255 bytes.
pub fn write_names(out: &mut [u8], streams: &[Ssrc], name: &[u8]) -> Option<usize> {
    let chunk = description_chunk(name.len());
    let len = 4 + streams.len() * chunk;
    let out = out.get_mut(..len).filter(|_| streams.len() <= MAX_BLOCKS && name.len() <= 255)?;
    write_head(out, kind::DESCRIPTION, streams.len() as u8, len);
    for (ssrc, out) in streams.iter().zip(out[4..].chunks_exact_mut(chunk)) {
        out.fill(0);
        put32(out, 0, ssrc.0);
        (out[4], out[5]) = (1, name.len() as u8);
        out[6..6 + name.len()].copy_from_slice(name);
    }
    Some(len)
}
