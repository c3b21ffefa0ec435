//! Rows that an earlier control process left in the forwarder. Its calls go on in them until their clients came back
//! on new connections; then they are removed. Never touches a row of this process.

use std::time::{Duration, Instant};

use sluice_table::protocol::Snapshot;
use sluice_table::{Change, EntryKind, Name};

/// Rows removed by one transaction, so that none comes near the longest message.
const SLICE: usize = 4_096;

/// The rows and when they go.
#[derive(Debug)]
pub(super) struct Orphans {
    rows: Vec<(EntryKind, Name)>,
    at: Option<Instant>,
    /// How long calls of an earlier process may go on. A client notices within 25 s that its channel is dead and takes
    /// some more to connect again.
    grace: Duration,
}

impl Orphans {
    pub(super) fn new(grace: Duration) -> Orphans {
        Orphans { rows: Vec::new(), at: None, grace }
    }

    /// Notes what is in the forwarder and not `kept`.
    pub(super) fn find(&mut self, now: Instant, snapshot: &Snapshot, kept: impl Fn(&Name) -> bool) {
        self.rows = rows(snapshot).into_iter().filter(|(_, name)| !kept(name)).collect();
        if self.rows.is_empty() {
            self.at = None;
        } else if self.at.is_none() {
            tracing::info!(
                rows = self.rows.len(),
                "calls of an earlier control process go on until their clients came back"
            );
            self.at = Some(now + self.grace);
        }
    }

    /// Forgets the rows, not how long their calls may still go on.
    pub(super) fn forget(&mut self) {
        self.rows.clear();
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// The transactions that remove them, in order, once it is time.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Vec<Change>> {
        if self.at.is_none_or(|at| at > now) { Vec::new() } else { self.take_all() }
    }

    /// The transactions that remove them, in order.
    pub(super) fn take_all(&mut self) -> Vec<Vec<Change>> {
        self.at = None;
        let rows = std::mem::take(&mut self.rows);
        let removed =
            |rows: &[(EntryKind, Name)]| rows.iter().map(|(kind, name)| Change::Remove(*kind, name.clone())).collect();
        rows.chunks(SLICE).map(removed).collect()
    }
}

/// Every row, in an order in which they can be removed.
pub(super) fn rows(snapshot: &Snapshot) -> Vec<(EntryKind, Name)> {
    fn named<'a, V: 'a>(
        kind: EntryKind,
        rows: &'a std::collections::BTreeMap<Name, V>,
    ) -> impl Iterator<Item = (EntryKind, Name)> + 'a {
        rows.keys().map(move |name| (kind, name.clone()))
    }
    named(EntryKind::Egress, &snapshot.egress)
        .chain(named(EntryKind::Source, &snapshot.sources))
        .chain(named(EntryKind::Learn, &snapshot.learn))
        .chain(named(EntryKind::Ingress, &snapshot.ingress))
        .chain(named(EntryKind::Leg, &snapshot.legs))
        .chain(named(EntryKind::Endpoint, &snapshot.endpoints))
        .collect()
}

#[cfg(test)]
mod tests {
    use sluice_table::Endpoint;

    use super::*;

    #[test]
    fn what_is_not_kept_goes_after_a_while() {
        let now = Instant::now();
        let row = Endpoint { interface: "eth0".into(), address: ([192, 0, 2, 1], 3480).into() };
        let mut snapshot = Snapshot::default();
        for name in ["mine", "other"] {
            snapshot.endpoints.insert(Name::new(name).unwrap(), row.clone());
        }
        let grace = Duration::from_mins(1);
        let mut orphans = Orphans::new(grace);
        orphans.find(now, &snapshot, |name| &*name.0 == "mine");
        assert_eq!(orphans.deadline(), Some(now + grace));
        assert!(orphans.take(now).is_empty());
        let removed = orphans.take(now + grace);
        assert_eq!(removed, [[Change::Remove(EntryKind::Endpoint, Name::new("other").unwrap())]]);
        assert_eq!((orphans.deadline(), orphans.take(now + grace)), (None, Vec::new()));
    }
}
