//! The rows of one conference as the forwarder was told them, and the changes of the running transaction.
//! Knows nothing of what rows mean.

use std::collections::BTreeMap;

use sluice_table::{Change, Entry, EntryKind, Name, Table};

/// Rows told so far; changes since the last [`Ledger::commit`] net of what was undone again.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    table: Table,
    /// Rows touched by the running transaction, with what they were before it.
    touched: BTreeMap<(EntryKind, Name), Option<Entry>>,
}

impl Ledger {
    /// The rows.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Adds or replaces a row.
    pub(super) fn put(&mut self, name: &Name, entry: Entry) {
        let kind = kind(&entry);
        let before = self.table.put(name.clone(), entry);
        self.touched.entry((kind, name.clone())).or_insert(before);
    }

    /// Removes a row if it is there.
    pub(super) fn remove(&mut self, kind: EntryKind, name: &Name) {
        if let Some(before) = self.table.take(kind, name) {
            self.touched.entry((kind, name.clone())).or_insert(Some(before));
        }
    }

    /// Whether nothing was touched.
    pub(super) fn is_settled(&self) -> bool {
        self.touched.is_empty()
    }

    /// Whether everything touched is a row that was not there before.
    pub(super) fn only_adds(&self) -> bool {
        self.touched.values().all(Option::is_none)
    }

    /// Ends the transaction: what really changed, in an order in which every reference holds after every step.
    pub(super) fn commit(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut removed = Vec::new();
        let mut put = Vec::new();
        for ((kind, name), before) in std::mem::take(&mut self.touched) {
            match (before, self.table.get(kind, &name)) {
                (Some(before), Some(after)) if before == after => {}
                (_, Some(after)) => put.push(Change::Put(name, after)),
                (Some(_), None) if kind == EntryKind::Egress => changes.push(Change::Remove(kind, name)),
                (Some(_), None) => removed.push(Change::Remove(kind, name)),
                (None, None) => {}
            }
        }
        // Kinds are ordered by who refers to whom, and so are the names of a stream and of what repairs it.
        changes.extend(put);
        changes.extend(removed.into_iter().rev());
        changes
    }

    /// Every row, as changes to an empty table.
    pub(super) fn whole(&self) -> Vec<Change> {
        Table::default().diff(&self.table)
    }
}

fn kind(entry: &Entry) -> EntryKind {
    match entry {
        Entry::Endpoint(_) => EntryKind::Endpoint,
        Entry::Leg(_) => EntryKind::Leg,
        Entry::Ingress(_) => EntryKind::Ingress,
        Entry::Learn(_) => EntryKind::Learn,
        Entry::Source(_) => EntryKind::Source,
        Entry::Egress(_) => EntryKind::Egress,
    }
}
