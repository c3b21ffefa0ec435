//! Packets kept to be sent again: a ring of fixed size for all streams of a worker, newest over oldest. Where a repair
//! stream carries them, one copy in clear serves all receivers; else each stream's sealed bytes are kept.

use sluice_table::Kind;

use super::super::cell::{Cell, PAYLOAD_ROOM};
use super::super::map::{FlatMap, Key};

/// What a kept packet is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum KeptKey {
    /// In clear: source number and index at ingress.
    Clear(u32, u64),
    /// Sealed: egress slot, its incarnation, sequence number on the wire.
    Sealed(u32, u64, u16),
}

impl Key for KeptKey {
    fn words(self) -> [u64; 3] {
        match self {
            KeptKey::Clear(source, index) => [u64::from(source), index, 1],
            KeptKey::Sealed(slot, incarnation, seq) => [u64::from(slot) << 32 | u64::from(seq), incarnation, 2],
        }
    }
}

/// The ring.
#[derive(Debug)]
pub(in super::super) struct History {
    cells: Vec<Cell>,
    keys: Vec<Option<KeptKey>>,
    places: FlatMap<KeptKey, u32>,
    next: usize,
    /// Streams with a repair stream, by kind.
    users: [u32; 2],
}

impl History {
    pub(super) fn new(cells: usize, seed: [u64; 2]) -> Self {
        History {
            cells: std::iter::repeat_with(Cell::default).take(cells).collect(),
            keys: vec![None; cells],
            places: FlatMap::new(cells, seed),
            next: 0,
            users: [0; 2],
        }
    }

    /// A stream with a repair stream came (`1`) or went (`-1`).
    pub(super) fn count(&mut self, kind: Kind, by: i32) {
        let users = &mut self.users[kind as usize];
        *users = users.saturating_add_signed(by);
    }

    /// Whether packets of a kind are to be kept in clear.
    #[inline(always)]
    pub(in super::super) fn wants(&self, kind: Kind) -> bool {
        self.users[kind as usize] > 0
    }

    fn place(&mut self, key: KeptKey) -> Option<&mut Cell> {
        if self.cells.is_empty() {
            return None;
        }
        let at = self.next;
        self.next = (at + 1) % self.cells.len();
        if let Some(old) = self.keys[at].replace(key)
            && self.places.get(old) == Some(at as u32)
        {
            self.places.remove(old);
        }
        self.places.insert(key, at as u32).ok()?;
        Some(&mut self.cells[at])
    }

    /// Keeps an opened packet.
    pub(in super::super) fn keep_clear(&mut self, cell: &Cell) {
        let key = KeptKey::Clear(cell.meta.source, cell.meta.index);
        if self.places.get(key).is_some() {
            return;
        }
        let Some(kept) = self.place(key) else { return };
        kept.meta = cell.meta.clone();
        let (header, payload) = (usize::from(cell.meta.header_len), usize::from(cell.meta.payload_len));
        if !cell.meta.elements.is_empty() {
            kept.header[..header].copy_from_slice(&cell.header[..header]);
        }
        kept.payload[..payload].copy_from_slice(&cell.payload[..payload]);
    }

    /// Keeps a sealed packet.
    #[cold]
    pub(in super::super) fn keep_sealed(&mut self, slot: u32, incarnation: u64, packet: &[u8]) {
        if packet.len() < 4 || packet.len() > PAYLOAD_ROOM {
            return;
        }
        let key = KeptKey::Sealed(slot, incarnation, crate::wire::be16(packet, 2));
        let Some(kept) = self.place(key) else { return };
        kept.meta.payload_len = packet.len() as u16;
        kept.payload[..packet.len()].copy_from_slice(packet);
    }

    /// A kept packet.
    pub(super) fn get(&self, key: KeptKey) -> Option<&Cell> {
        Some(&self.cells[self.places.get(key)? as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_nothing_else() {
        let mut history = History::new(8, [1, 2]);
        let mut cell = Cell::default();
        for index in 0..20u64 {
            (cell.meta.source, cell.meta.index, cell.meta.payload_len) = (7, index, 1);
            cell.payload[0] = index as u8;
            history.keep_clear(&cell);
            history.keep_clear(&cell); // twice is once
            let kept = (0..=index).filter(|n| history.get(KeptKey::Clear(7, *n)).is_some()).count();
            assert_eq!(kept as u64, (index + 1).min(8));
            assert_eq!(history.get(KeptKey::Clear(7, index)).unwrap().payload[0], index as u8);
        }
        history.keep_sealed(3, 1, &[0x80, 96, 0, 9, 1]);
        history.keep_sealed(3, 1, &[0x80, 96, 0, 9, 2]); // 65,536 packets later
        assert_eq!(history.get(KeptKey::Sealed(3, 1, 9)).unwrap().payload[4], 2);
        assert!(history.get(KeptKey::Sealed(3, 2, 9)).is_none() && history.get(KeptKey::Sealed(4, 1, 9)).is_none());
        for seq in 10..17u8 {
            history.keep_sealed(3, 1, &[0x80, 96, 0, seq]);
        }
        assert_eq!(history.get(KeptKey::Sealed(3, 1, 9)).unwrap().payload[4], 2, "the older copy of 9 went first");
    }
}
