//! Where the planner gets index rows from: the index file in production, plain memory in tests and benches.

use std::collections::HashMap;

use sluice_srtp::Ssrc;
use sluice_srtp::key::KeyId;

use crate::engine::index_store::IndexHandle;

/// Which way a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Packets to a peer.
    Send,
    /// Packets from a peer.
    Receive,
}

/// Why there is no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Every row belongs to a stream in use.
    #[error("all {0} index rows are in use; raise the capacity for streams")]
    Full(usize),
}

/// Index rows by key, SSRC and direction.
pub trait Indexes {
    /// The row, made when there is none.
    fn row(&mut self, key: KeyId, ssrc: Ssrc, direction: Direction) -> Result<IndexHandle, IndexError>;
    /// Whether a row exists already.
    fn has_row(&self, key: KeyId, ssrc: Ssrc, direction: Direction) -> bool;
    /// Whether rows of this key were given up, so that a missing row proves nothing.
    fn lost_rows(&self, key: KeyId) -> bool;
    /// The stream is gone; its row may be recycled when space is needed.
    fn release(&mut self, key: KeyId, ssrc: Ssrc, direction: Direction);
}

/// Rows in plain memory.
#[derive(Debug, Default)]
pub struct MemoryIndexes {
    rows: HashMap<(KeyId, Ssrc, Direction), IndexHandle>,
}

impl Indexes for MemoryIndexes {
    fn row(&mut self, key: KeyId, ssrc: Ssrc, direction: Direction) -> Result<IndexHandle, IndexError> {
        Ok(self.rows.entry((key, ssrc, direction)).or_insert_with(IndexHandle::detached).clone())
    }

    fn has_row(&self, key: KeyId, ssrc: Ssrc, direction: Direction) -> bool {
        self.rows.contains_key(&(key, ssrc, direction))
    }

    fn lost_rows(&self, _: KeyId) -> bool {
        false
    }

    fn release(&mut self, _: KeyId, _: Ssrc, _: Direction) {}
}
