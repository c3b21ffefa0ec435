//! Which row belongs to which (key, SSRC, direction), kept on the management thread. Rows of streams that ended
//! stay until their space is needed: a stream that comes back continues. Never touches the indexes of a row in use.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluice_srtp::{KeyId, Ssrc};

use crate::engine::index_store::{Direction, IndexHandle, IndexMemory, IndexRow, RowTag};

/// Why no row can be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Every row is in use.
    #[error("all {rows} index rows are in use; raise the capacity")]
    Full {
        /// Rows there are.
        rows: usize,
    },
    /// The rows contradict each other or hold what is never stored.
    #[error(
        "index row {row} {why}; to continue without the stored indexes stop every forwarder, remove the file and \
         let every client join again, so that no key it names is used again"
    )]
    Corrupt {
        /// The row.
        row: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The key's name is all zero, which marks free rows.
    #[error("a key id of zero names no key")]
    ZeroKey,
}

type StreamId = (KeyId, Ssrc, Direction);

/// What is known of one key.
#[derive(Debug)]
struct Key {
    /// Its marker row.
    marker: u32,
    /// Its other rows.
    rows: u32,
    /// Calls of `hold_key` without `release_key`.
    held: u32,
}

/// The rows of one memory by what they belong to.
pub struct IndexStore {
    memory: Arc<dyn IndexMemory>,
    streams: HashMap<StreamId, u32>,
    keys: HashMap<KeyId, Key>,
    /// Rows of learned streams by the rule that made them.
    learned: HashMap<(KeyId, u64), u32>,
    free: Vec<u32>,
    /// Rows that may be recycled, oldest first: streams nobody uses, markers of keys without rows and holders.
    idle: BTreeMap<u64, u32>,
    /// Users of each row.
    uses: Vec<u32>,
    stamp: u64,
}

impl fmt::Debug for IndexStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (streams, keys, free) = (self.streams.len(), self.keys.len(), self.free.len());
        write!(f, "IndexStore {{ streams: {streams}, keys: {keys}, free: {free} }}")
    }
}

impl IndexStore {
    /// Reads all rows of `memory`, which no other store may manage.
    pub fn new(memory: Arc<dyn IndexMemory>) -> Result<IndexStore, StoreError> {
        let count = memory.rows().len();
        let mut store = IndexStore {
            memory,
            streams: HashMap::new(),
            keys: HashMap::new(),
            learned: HashMap::new(),
            free: Vec::new(),
            idle: BTreeMap::new(),
            uses: vec![0; count],
            stamp: 0,
        };
        let mut found = Vec::new();
        let memory = store.memory.clone();
        for (row, at) in memory.rows().iter().zip(0u32..) {
            let corrupt = |why| StoreError::Corrupt { row: at, why };
            let Some(tag) = row.read_tag().map_err(|_| corrupt("has a tag that is never written"))? else {
                // Also what a process killed while it claimed the row left behind.
                row.clear();
                store.free.push(at);
                continue;
            };
            let key = row.key_id().ok_or_else(|| corrupt("is in use without a key"))?;
            if !row.indexes_plausible() {
                return Err(corrupt("holds an index beyond the last"));
            }
            if tag.is_marker() {
                if store.keys.insert(key, Key { marker: at, rows: 0, held: 0 }).is_some() {
                    return Err(corrupt("marks a key that is marked elsewhere"));
                }
            } else if store.streams.insert((key, tag.ssrc(), tag.direction()), at).is_some() {
                return Err(corrupt("repeats a stream"));
            }
            found.push((row.stamp.load(Ordering::Acquire), at, key, tag));
        }
        // Low rows first when taken from the end.
        store.free.reverse();
        for &(_, row, key, tag) in &found {
            if !tag.is_marker() {
                let why = "belongs to a key without a marker";
                store.keys.get_mut(&key).ok_or(StoreError::Corrupt { row, why })?.rows += 1;
            }
        }
        // Stamps start anew, in the order they had.
        found.sort_unstable_by_key(|&(stamp, row, _, _)| (stamp, row));
        for (_, row, key, tag) in found {
            let stamp = store.next_stamp(row);
            // Killed in between, two streams of a rule are left; the newer one took the place of the other.
            store.index_rule(key, row);
            if !tag.is_marker() || store.keys.get(&key).is_some_and(|key| key.rows == 0) {
                store.idle.insert(stamp, row);
            }
        }
        Ok(store)
    }

    /// The row of a stream, made with all indexes zero if there is none, and in use until
    /// [`release`](Self::release). When the store is full, the longest unused row is recycled.
    pub fn get_or_create(&mut self, key: KeyId, ssrc: Ssrc, direction: Direction) -> Result<IndexHandle, StoreError> {
        let id = (key, ssrc, direction);
        let row = match self.streams.get(&id) {
            Some(&row) => row,
            None => self.create(id)?,
        };
        self.idle.remove(&self.row(row).stamp.load(Ordering::Acquire));
        self.uses[row as usize] += 1;
        self.handle(row)
    }

    /// The row of a stream if there is one; does not count as a use.
    pub fn get(&self, key: KeyId, ssrc: Ssrc, direction: Direction) -> Option<IndexHandle> {
        IndexHandle::new(self.memory.clone(), *self.streams.get(&(key, ssrc, direction))?)
    }

    /// The stream that a learn rule of a key stands for, as [`set_learned`](Self::set_learned) noted last, here or in a
    /// forwarder before.
    pub fn learned(&self, key: KeyId, rule: u64) -> Option<Ssrc> {
        let tag = self.row(*self.learned.get(&(key, rule))?).read_tag();
        tag.ok().flatten().map(RowTag::ssrc)
    }

    /// Notes that a learn rule stands for the stream of a row in use from now on; `rule` is not 0. What it stood for
    /// before keeps its indexes.
    pub fn set_learned(&mut self, handle: &IndexHandle, rule: u64) {
        let row = handle.row();
        let Some(key) = self.row(row).key_id().filter(|_| self.uses.get(row as usize).is_some_and(|uses| *uses > 0))
        else {
            return;
        };
        self.forget_rule(key, row);
        // As the newest of its rule's, in case the process is killed before the other is told.
        self.next_stamp(row);
        self.row(row).rule.store(rule, Ordering::Release);
        self.index_rule(key, row);
    }

    /// Makes a row the one of the rule it names; the one before names none any more.
    fn index_rule(&mut self, key: KeyId, row: u32) {
        let rule = self.row(row).rule.load(Ordering::Acquire);
        if rule != 0
            && let Some(former) = self.learned.insert((key, rule), row).filter(|former| *former != row)
        {
            self.row(former).rule.store(0, Ordering::Release);
        }
    }

    /// Forgets that a row is its rule's.
    fn forget_rule(&mut self, key: KeyId, row: u32) {
        let rule = self.row(row).rule.swap(0, Ordering::AcqRel);
        if self.learned.get(&(key, rule)) == Some(&row) {
            self.learned.remove(&(key, rule));
        }
    }

    /// Ends one use of a row. After the last, when no worker holds it any more, it may be recycled.
    pub fn release(&mut self, handle: &IndexHandle) {
        let row = handle.row();
        let Some(uses) = self.uses.get_mut(row as usize).filter(|uses| **uses > 0) else { return };
        *uses -= 1;
        if *uses == 0 {
            let stamp = self.next_stamp(row);
            self.idle.insert(stamp, row);
        }
    }

    /// Ends one use of a row whose indexes nobody asks for any more; after the last it is free at once. No worker may
    /// hold it.
    pub fn discard(&mut self, handle: &IndexHandle) {
        self.release(handle);
        let row = handle.row();
        if self.uses.get(row as usize) == Some(&0)
            && self.idle.remove(&self.row(row).stamp.load(Ordering::Acquire)).is_some()
        {
            self.recycle(row);
            self.free.push(row);
        }
    }

    /// Whether the key was ever given a row or held, here or by a forwarder before.
    pub fn knows_key(&self, key: KeyId) -> bool {
        self.keys.contains_key(&key)
    }

    /// Whether a row of the key for sending was recycled: a stream without a row may then have been sent before, and the key
    /// must not be used for it.
    pub fn key_lost_rows(&self, key: KeyId) -> bool {
        let marker = self.keys.get(&key).map(|key| self.row(key.marker));
        marker.is_some_and(|row| matches!(row.read_tag(), Ok(Some(tag)) if tag.is_lost()))
    }

    /// Marks a key as installed: it stays known, and its rows are recycled only after those of keys that are not.
    pub fn hold_key(&mut self, key: KeyId) -> Result<(), StoreError> {
        self.mark(key)?;
        let Some(state) = self.keys.get_mut(&key) else { return Ok(()) };
        state.held += 1;
        let marker = state.marker;
        self.idle.remove(&self.row(marker).stamp.load(Ordering::Acquire));
        Ok(())
    }

    /// Ends one [`hold_key`](Self::hold_key).
    pub fn release_key(&mut self, key: KeyId) {
        let Some(state) = self.keys.get_mut(&key).filter(|state| state.held > 0) else { return };
        state.held -= 1;
        self.idle_marker(key);
    }

    /// Rows not given to anything.
    pub fn free_rows(&self) -> usize {
        self.free.len()
    }

    fn row(&self, row: u32) -> &IndexRow {
        &self.memory.rows()[row as usize]
    }

    fn handle(&self, row: u32) -> Result<IndexHandle, StoreError> {
        let why = "does not exist";
        IndexHandle::new(self.memory.clone(), row).ok_or(StoreError::Corrupt { row, why })
    }

    fn next_stamp(&mut self, row: u32) -> u64 {
        self.stamp += 1;
        self.row(row).stamp.store(self.stamp, Ordering::Release);
        self.stamp
    }

    fn create(&mut self, id: StreamId) -> Result<u32, StoreError> {
        self.mark(id.0)?;
        // Holding the key keeps its marker from being recycled for its own row.
        self.hold_key(id.0)?;
        let taken = self.take();
        if let Some(state) = self.keys.get_mut(&id.0) {
            state.rows += u32::from(taken.is_ok());
        }
        self.release_key(id.0);
        let row = taken?;
        self.stamp += 1;
        self.row(row).claim(id.0, RowTag::stream(id.1, id.2), self.stamp);
        self.streams.insert(id, row);
        Ok(row)
    }

    /// Makes sure the key has a marker.
    fn mark(&mut self, key: KeyId) -> Result<(), StoreError> {
        if key.0 == [0; 16] {
            return Err(StoreError::ZeroKey);
        }
        if self.keys.contains_key(&key) {
            return Ok(());
        }
        let marker = self.take()?;
        self.stamp += 1;
        self.row(marker).claim(key, RowTag::marker(false), self.stamp);
        self.keys.insert(key, Key { marker, rows: 0, held: 0 });
        self.idle_marker(key);
        Ok(())
    }

    /// Lets the marker be recycled once nothing depends on it.
    fn idle_marker(&mut self, key: KeyId) {
        let Some(state) = self.keys.get(&key) else { return };
        if state.rows == 0 && state.held == 0 {
            let marker = state.marker;
            self.idle.remove(&self.row(marker).stamp.load(Ordering::Acquire));
            let stamp = self.next_stamp(marker);
            self.idle.insert(stamp, marker);
        }
    }

    /// A cleared row: a free one, else the longest idle one of a key nobody holds, else the longest idle one.
    fn take(&mut self) -> Result<u32, StoreError> {
        if let Some(row) = self.free.pop() {
            return Ok(row);
        }
        let held = |row: u32| self.row(row).key_id().and_then(|key| self.keys.get(&key)).is_some_and(|k| k.held > 0);
        let chosen = self.idle.iter().find(|(_, row)| !held(**row)).or_else(|| self.idle.iter().next());
        let Some((&stamp, &row)) = chosen else { return Err(StoreError::Full { rows: self.uses.len() }) };
        self.idle.remove(&stamp);
        self.recycle(row);
        Ok(row)
    }

    fn recycle(&mut self, row: u32) {
        let (key, tag) = (self.row(row).key_id(), self.row(row).read_tag());
        if let (Some(key), Ok(Some(tag))) = (key, tag) {
            if tag.is_marker() {
                self.keys.remove(&key);
            } else {
                self.streams.remove(&(key, tag.ssrc(), tag.direction()));
                self.forget_rule(key, row);
                if let Some(state) = self.keys.get_mut(&key) {
                    state.rows -= 1;
                    let marker = state.marker;
                    if tag.direction() == Direction::Send {
                        // Before the row goes: a process killed in between has lost nothing unnoticed.
                        self.row(marker).retag(RowTag::marker(true));
                    }
                }
                self.row(row).clear();
                self.idle_marker(key);
                return;
            }
        }
        self.row(row).clear();
    }
}
