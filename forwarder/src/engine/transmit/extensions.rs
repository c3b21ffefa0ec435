//! The header extensions of one packet out: what the leg inserts itself and what the packet carries end to end. Legs of
//! one shape get the same block but for its number, so it is made once. Never decides whether a packet goes out.

use std::cell::Cell as Number;

use super::super::cell::Cell;
use super::super::rows::{LegConfig, Meaning, Shape};
use super::super::time::Nanos;
use crate::wire::extension::{BlockWriter, ONE_BYTE};

/// The extension block of a packet for all legs of one shape.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) shape: Shape,
    /// Its bit in the first header word.
    pub(super) word: u32,
    len: u8,
    /// Where its transport-wide number is; 0 if it has none.
    number_at: u8,
    bytes: [u8; Block::LONGEST],
}

impl Block {
    /// A longer block is made anew for every receiver.
    pub(super) const LONGEST: usize = 32;

    /// Of legs that negotiated nothing.
    pub(super) const NONE: Block =
        Block { shape: Shape::NONE, word: 0, len: 0, number_at: 0, bytes: [0; Self::LONGEST] };

    /// Makes the block of a packet for a leg; `None` if it is too long to be kept.
    #[inline(never)]
    pub(super) fn of(cell: &Cell, leg: &LegConfig, now: Nanos) -> Option<Block> {
        let number = Number::new(0);
        let mut bytes = [0; 2 * Self::LONGEST];
        let room = bytes.len();
        let len = write_extensions(&mut bytes, &number, leg, cell, None, now, room);
        // The number comes first, behind the block's header and its own: of one byte or two (RFC 8285 §4.2, §4.3).
        let number_at = if number.get() == 0 { 0 } else { 5 + u8::from(bytes[..2] != ONE_BYTE.to_be_bytes()) };
        let word = if len > 0 { 1 << 28 } else { 0 };
        let kept = *bytes.first_chunk().filter(|_| len <= Self::LONGEST)?;
        Some(Block { shape: leg.extensions.shape(), word, len: len as u8, number_at, bytes: kept })
    }

    /// Its length in bytes.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Writes it with the leg's next number.
    ///
    /// # Safety
    /// `out` must be writable for [`LONGEST`](Self::LONGEST) bytes, however long the block is.
    #[inline(always)]
    pub(super) unsafe fn write(&self, out: *mut u8, number: &Number<u16>) {
        // SAFETY: as the caller promises; the number lies within.
        unsafe {
            out.cast::<[u8; Self::LONGEST]>().write(self.bytes);
            if self.number_at != 0 {
                let seq = number.get();
                number.set(seq.wrapping_add(1));
                out.add(usize::from(self.number_at)).cast::<[u8; 2]>().write(seq.to_be_bytes());
            }
        }
    }
}

/// Writes the extension block of one packet; returns its length, 0 if nothing fits or applies.
#[allow(clippy::too_many_arguments)]
pub(in super::super) fn write_extensions(
    out: &mut [u8],
    number: &Number<u16>,
    leg: &LegConfig,
    cell: &Cell,
    mid: Option<&[u8]>,
    now: Nanos,
    room: usize,
) -> usize {
    let room = room.min(out.len());
    let carried = cell.meta.elements.iter().filter(|e| !e.meaning.is_hop_by_hop());
    let carried = carried.filter_map(|e| {
        let id = leg.extensions.id(e.meaning)?;
        let at = usize::from(e.at);
        cell.header.get(at..at + usize::from(e.len)).map(|data| (id, data))
    });
    let mid = mid.and_then(|mid| Some((leg.extensions.id(Meaning::Mid)?, mid)));
    let own = [leg.extensions.id(Meaning::TransportCc), leg.extensions.id(Meaning::AbsSendTime)];
    let two_byte = carried.clone().chain(mid).any(|(id, data)| id > 14 || data.len() > 16 || data.is_empty())
        || own.iter().flatten().any(|id| *id > 14);
    let mut writer = BlockWriter::new(&mut out[..room], two_byte);
    // The transport-wide number first: it is not optional for a receiver that negotiated it.
    if let Some(id) = own[0] {
        let seq = number.get();
        if writer.push(id, &seq.to_be_bytes()) {
            number.set(seq.wrapping_add(1));
        }
    }
    if let Some((id, mid)) = mid {
        writer.push(id, mid);
    }
    for (id, data) in carried {
        writer.push(id, data);
    }
    if let Some(id) = own[1] {
        // 6.18 fixed point seconds modulo 64.
        let time = ((u128::from(now.0) << 18) / 1_000_000_000) as u32 & 0x00ff_ffff;
        writer.push(id, &time.to_be_bytes()[1..]);
    }
    writer.finish()
}
