//! Where the planner gets index rows from: the index file in production, plain memory in tests and benches.

use sluice_srtp::Ssrc;
use sluice_srtp::key::KeyId;

pub use crate::engine::index_store::Direction;
use crate::engine::index_store::IndexHandle;
use crate::index_file::store::{IndexStore, StoreError};

/// Index rows by key, SSRC and direction.
pub trait Indexes {
    /// The row, made when there is none; counts as in use until released.
    fn row(&mut self, key: KeyId, ssrc: Ssrc, direction: Direction) -> Result<IndexHandle, StoreError>;
    /// Whether a row exists already.
    fn has_row(&self, key: KeyId, ssrc: Ssrc, direction: Direction) -> bool;
    /// Whether rows of this key were given up, so that a missing row proves nothing.
    fn lost_rows(&self, key: KeyId) -> bool;
    /// The stream that a learn rule of a key stands for.
    fn learned(&self, key: KeyId, rule: u64) -> Option<Ssrc>;
    /// A learn rule stands for the stream of this row from now on.
    fn set_learned(&mut self, row: &IndexHandle, rule: u64);
    /// The stream is gone and no worker holds its row; it may be recycled when space is needed.
    fn release(&mut self, row: &IndexHandle);
    /// The stream is gone, no worker holds its row, and nobody will ask for it again.
    fn discard(&mut self, row: &IndexHandle);
    /// A key was installed.
    fn hold(&mut self, key: KeyId) -> Result<(), StoreError>;
    /// A key is no longer installed.
    fn let_go(&mut self, key: KeyId);
}

impl Indexes for IndexStore {
    fn row(&mut self, key: KeyId, ssrc: Ssrc, direction: Direction) -> Result<IndexHandle, StoreError> {
        self.get_or_create(key, ssrc, direction)
    }

    fn has_row(&self, key: KeyId, ssrc: Ssrc, direction: Direction) -> bool {
        self.get(key, ssrc, direction).is_some()
    }

    fn lost_rows(&self, key: KeyId) -> bool {
        self.key_lost_rows(key)
    }

    fn learned(&self, key: KeyId, rule: u64) -> Option<Ssrc> {
        IndexStore::learned(self, key, rule)
    }

    fn set_learned(&mut self, row: &IndexHandle, rule: u64) {
        IndexStore::set_learned(self, row, rule);
    }

    fn release(&mut self, row: &IndexHandle) {
        IndexStore::release(self, row);
    }

    fn discard(&mut self, row: &IndexHandle) {
        IndexStore::discard(self, row);
    }

    fn hold(&mut self, key: KeyId) -> Result<(), StoreError> {
        self.hold_key(key)
    }

    fn let_go(&mut self, key: KeyId) {
        self.release_key(key);
    }
}
