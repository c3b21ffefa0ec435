//! The header extensions of one packet out: what the leg inserts itself and what the packet carries end to end.
//! Never decides whether a packet goes out.

use super::super::cell::Cell;
use super::super::rows::{LegConfig, LegRow, Meaning};
use super::super::time::Nanos;
use crate::wire::extension::BlockWriter;

/// Writes the extension block of one packet; returns its length, 0 if nothing fits or applies.
#[allow(clippy::too_many_arguments)]
pub(in super::super) fn write_extensions(
    out: &mut [u8],
    row: &LegRow,
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
        let seq = row.transport_seq.get();
        if writer.push(id, &seq.to_be_bytes()) {
            row.transport_seq.set(seq.wrapping_add(1));
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
