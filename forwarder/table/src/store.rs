//! A table that stays valid, change by change, at a cost of what changes rather than of what there is: it knows
//! who refers to whom and who uses which wire identity. Never validates by rules of its own; it hands the rows
//! that a transaction can affect to [`Table::validate`].

use std::collections::hash_map::Entry as Entries;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;

use sluice_srtp::Ssrc;
use sluice_srtp::key::KeyId;

use crate::model::{Change, Entry, EntryKind, Leg, LegKind, Name, Remote, Source, StreamRole, Table};
use crate::validate::Problem;

type Row = (EntryKind, Name);

/// What at most one row may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Address(SocketAddr),
    Tuple(Name, SocketAddr),
    SendKey(KeyId),
    Ingress(Name, Ssrc),
    Egress(Name, Ssrc),
    /// Rules of a leg are few; which of them match the same is left to validation.
    Rules(Name),
    /// Names egress streams can refer to.
    Carried(Name),
    /// Sources of a group are of one kind.
    Group(Name),
}

/// What a row refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Endpoint(Name),
    Leg(Name),
    /// An ingress stream, learn rule or source.
    Carried(Name),
    /// The sources of a group.
    Group(Name),
}

/// Rows under one key of an index, in order. Most keys have one row, and a set of one takes the room of a dozen.
#[derive(Debug)]
enum Rows {
    One(Row),
    Many(BTreeSet<Row>),
}

impl Rows {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Row> {
        let (one, many) = match self {
            Rows::One(row) => (Some(row), None),
            Rows::Many(rows) => (None, Some(rows)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, row: Row) {
        match self {
            Rows::One(only) if *only == row => {}
            Rows::One(only) => *self = Rows::Many(BTreeSet::from([only.clone(), row])),
            Rows::Many(rows) => drop(rows.insert(row)),
        }
    }

    /// Whether none is left.
    fn remove(&mut self, row: &Row) -> bool {
        match self {
            Rows::One(only) => only == row,
            Rows::Many(rows) => {
                rows.remove(row);
                rows.is_empty()
            }
        }
    }
}

/// A valid table and its indexes.
#[derive(Debug, Default)]
pub struct Store {
    table: Table,
    users: HashMap<Identity, Rows>,
    referrers: HashMap<Target, Rows>,
}

/// Rows as they were before changes were applied.
#[derive(Debug)]
pub struct Undo(Vec<(Row, Option<Entry>)>);

impl Undo {
    /// Each row that was touched, as it was before; `None` if there was none.
    pub fn rows(&self) -> BTreeMap<EntryKind, HashMap<&Name, Option<&Entry>>> {
        let mut rows: BTreeMap<EntryKind, HashMap<&Name, Option<&Entry>>> = BTreeMap::new();
        for ((kind, name), entry) in &self.0 {
            rows.entry(*kind).or_default().entry(name).or_insert(entry.as_ref());
        }
        rows
    }
}

impl Store {
    /// An empty table.
    pub fn new() -> Store {
        Store::default()
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Rows that refer to a row, by kind and name. Nothing refers to an egress stream.
    pub fn referrers(&self, kind: EntryKind, name: &Name) -> impl Iterator<Item = (EntryKind, &Name)> {
        let referrers = self.referrers.get(&target(&(kind, name.clone()))).filter(|_| kind != EntryKind::Egress);
        referrers.into_iter().flat_map(Rows::iter).map(|(kind, name)| (*kind, name))
    }

    /// Takes back what [`apply_undoable`](Self::apply_undoable) did, if nothing was applied since.
    pub fn revert(&mut self, undo: Undo) {
        for (row, entry) in undo.0.into_iter().rev() {
            self.set(&row, entry);
        }
    }

    /// Applies changes in order, all or nothing. Agrees with [`Table::apply`] on what is valid; of an invalid
    /// transaction it reports what is wrong with the rows touched and those that depend on them.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Vec<Problem>> {
        self.apply_undoable(changes).map(drop)
    }

    /// As [`apply`](Self::apply); gives what the rows were before.
    pub fn apply_undoable(&mut self, changes: &[Change]) -> Result<Undo, Vec<Problem>> {
        self.apply_checked(changes, true)
    }

    /// As [`apply_undoable`](Self::apply_undoable), for changes that lead to a table which was validated whole.
    pub fn apply_valid(&mut self, changes: &[Change]) -> Result<Undo, Vec<Problem>> {
        self.apply_checked(changes, false)
    }

    fn apply_checked(&mut self, changes: &[Change], checks: bool) -> Result<Undo, Vec<Problem>> {
        let mut undo: Vec<(Row, Option<Entry>)> = Vec::with_capacity(changes.len());
        let mut problems = Vec::new();
        let mut touched = BTreeSet::new();
        // A switched source is as good for its receivers as it was before; they need no second look.
        let mut replaced = BTreeSet::new();
        for change in changes {
            let (kind, name) = change.row();
            let row = (kind, name.clone());
            let entry = match change {
                Change::Put(_, entry) => Some(entry.clone()),
                Change::Remove(..) => None,
                Change::Switch { input, .. } => {
                    let Some(old) = self.table.sources.get(name) else {
                        problems.push(absent(&row, "cannot be switched: there is no such source"));
                        continue;
                    };
                    Some(Entry::Source(Source { input: input.clone(), ..old.clone() }))
                }
            };
            if entry.is_none() && !self.table.has(kind, name) {
                problems.push(absent(&row, "cannot be removed: there is no such row"));
                continue;
            }
            let old = self.set(&row, entry);
            if checks {
                if !matches!(change, Change::Switch { .. }) {
                    replaced.insert(row.clone());
                }
                touched.insert(row.clone());
            }
            undo.push((row, old));
        }
        if problems.is_empty() && checks {
            problems = self.check(touched, &replaced, &undo);
        }
        if problems.is_empty() {
            return Ok(Undo(undo));
        }
        self.revert(Undo(undo));
        Err(problems)
    }

    /// Puts or removes a row and keeps the indexes; returns what was there.
    fn set(&mut self, row: &Row, entry: Option<Entry>) -> Option<Entry> {
        let new = entry.as_ref().map(|e| (identities(&row.1, e), targets(e)));
        let old = match entry {
            Some(entry) => self.table.put(row.1.clone(), entry),
            None => self.table.take(row.0, &row.1),
        };
        if let Some(old) = &old {
            for key in &identities(&row.1, old) {
                leave(&mut self.users, key, row);
            }
            for key in &targets(old) {
                leave(&mut self.referrers, key, row);
            }
        }
        if let Some((identities, targets)) = new {
            for key in identities {
                enter(&mut self.users, key, row);
            }
            for key in targets {
                enter(&mut self.referrers, key, row);
            }
        }
        old
    }

    /// Problems of the touched rows and of every row that can be wrong because of them.
    fn check(&self, touched: BTreeSet<Row>, replaced: &BTreeSet<Row>, undo: &[(Row, Option<Entry>)]) -> Vec<Problem> {
        let mut suspects = touched;
        for row in replaced {
            suspects.extend(self.referrers.get(&target(row)).into_iter().flat_map(Rows::iter).cloned());
            // A group that gets another source may be of another kind than its candidates.
            let group = self.table.sources.get(&row.1).filter(|_| row.0 == EntryKind::Source);
            if let Some(group) = group.and_then(|source| source.select.clone()) {
                suspects.extend(self.referrers.get(&Target::Group(group)).into_iter().flat_map(Rows::iter).cloned());
            }
        }
        // Legs of streams that came, changed or went: which keys they need depends on their streams.
        for (_, old) in undo {
            suspects.extend(old.iter().flat_map(targets).filter_map(|target| self.keyless(target)));
        }
        let mut entries = HashMap::new();
        for (kind, name) in suspects.clone() {
            let Some(entry) = self.table.get(kind, &name) else { continue };
            suspects.extend(targets(&entry).into_iter().filter_map(|target| self.keyless(target)));
            for identity in identities(&name, &entry) {
                let users = self.users.get(&identity).into_iter().flat_map(Rows::iter);
                suspects.extend(users.filter(|user| (user.0, &user.1) != (kind, &name)).cloned());
            }
            entries.insert((kind, name), entry);
        }
        let mut part = Table::default();
        for (kind, name) in &suspects {
            let entry = entries.remove(&(*kind, name.clone())).or_else(|| self.table.get(*kind, name));
            let Some(entry) = entry else { continue };
            for target in targets(&entry) {
                self.add_target(&mut part, &target);
            }
            if *kind == EntryKind::Leg {
                self.add_streams(&mut part, name);
            }
            part.put(name.clone(), entry);
        }
        let found = part.validate().err().unwrap_or_default();
        found.into_iter().filter(|p| suspects.contains(&(p.kind, p.name.clone()))).collect()
    }

    /// The leg of a stream if it lacks a key: only then can its streams make it invalid.
    fn keyless(&self, target: Target) -> Option<Row> {
        let Target::Leg(name) = target else { return None };
        let leg = self.table.legs.get(&name)?;
        (leg.inbound.is_none() || leg.outbound.is_none()).then_some((EntryKind::Leg, name))
    }

    fn add(&self, part: &mut Table, kind: EntryKind, name: &Name) {
        if !part.has(kind, name)
            && let Some(entry) = self.table.get(kind, name)
        {
            part.put(name.clone(), entry);
        }
    }

    fn add_target(&self, part: &mut Table, target: &Target) {
        match target {
            Target::Endpoint(name) => self.add(part, EntryKind::Endpoint, name),
            Target::Leg(name) => {
                // Streams ask a leg for its extension ids only; its keys are not copied around for that.
                if let Some(leg) = self.table.legs.get(name) {
                    let (endpoint, extensions, limits) = (leg.endpoint.clone(), leg.extensions, leg.limits);
                    part.legs.entry(name.clone()).or_insert(Leg {
                        endpoint,
                        kind: LegKind::Plain,
                        remote: Remote::Learn,
                        inbound: None,
                        outbound: None,
                        accept_key_reuse: false,
                        extensions,
                        limits,
                        ice: None,
                        feedback: crate::Feedback::default(),
                        member: None,
                        hears: None,
                    });
                }
            }
            Target::Group(name) => {
                for (kind, name) in self.users.get(&Identity::Group(name.clone())).into_iter().flat_map(Rows::iter) {
                    self.add(part, *kind, name);
                }
            }
            Target::Carried(name) => {
                for kind in [EntryKind::Ingress, EntryKind::Learn, EntryKind::Source] {
                    self.add(part, kind, name);
                }
            }
        }
    }

    /// One stream in and one out of a leg, if there are, so that validation sees which keys it needs.
    fn add_streams(&self, part: &mut Table, leg: &Name) {
        let Some(streams) = self.referrers.get(&Target::Leg(leg.clone())) else { return };
        // Rows are ordered by kind: ingress and learn come first, egress last.
        for (kind, name) in streams.iter().next().into_iter().chain(streams.iter().next_back()) {
            self.add(part, *kind, name);
        }
    }
}

fn absent(row: &Row, message: &str) -> Problem {
    Problem { kind: row.0, name: row.1.clone(), key: "name".to_owned(), message: message.to_owned() }
}

fn enter<K: Eq + Hash>(index: &mut HashMap<K, Rows>, key: K, row: &Row) {
    match index.entry(key) {
        Entries::Occupied(mut rows) => rows.get_mut().insert(row.clone()),
        Entries::Vacant(place) => drop(place.insert(Rows::One(row.clone()))),
    }
}

fn leave<K: Eq + Hash>(index: &mut HashMap<K, Rows>, key: &K, row: &Row) {
    if index.get_mut(key).is_some_and(|rows| rows.remove(row)) {
        index.remove(key);
    }
}

/// What others refer to a row as. Nothing refers to an egress stream; its name then finds nobody.
fn target((kind, name): &Row) -> Target {
    match kind {
        EntryKind::Endpoint => Target::Endpoint(name.clone()),
        EntryKind::Leg => Target::Leg(name.clone()),
        EntryKind::Ingress | EntryKind::Learn | EntryKind::Source | EntryKind::Egress => Target::Carried(name.clone()),
    }
}

fn identities(name: &Name, entry: &Entry) -> Vec<Identity> {
    match entry {
        Entry::Endpoint(row) => vec![Identity::Address(row.address)],
        Entry::Leg(row) => {
            let fixed = match row.remote {
                Remote::Fixed(address) => Some(address),
                Remote::Learn => None,
            };
            let tuples = fixed.into_iter().chain(row.ice.iter().flat_map(|ice| ice.tuples.iter().copied()));
            let tuples = tuples.map(|tuple| Identity::Tuple(row.endpoint.clone(), tuple));
            tuples.chain(row.outbound.iter().map(|key| Identity::SendKey(key.key_id()))).collect()
        }
        Entry::Ingress(row) => vec![Identity::Ingress(row.leg.clone(), row.ssrc), Identity::Carried(name.clone())],
        Entry::Learn(row) => vec![Identity::Rules(row.leg.clone()), Identity::Carried(name.clone())],
        Entry::Source(row) => {
            let group = row.select.iter().cloned().map(Identity::Group);
            group.chain([Identity::Carried(name.clone())]).collect()
        }
        Entry::Egress(row) => vec![Identity::Egress(row.leg.clone(), row.ssrc)],
    }
}

fn targets(entry: &Entry) -> Vec<Target> {
    match entry {
        Entry::Endpoint(_) => Vec::new(),
        Entry::Leg(row) => vec![Target::Endpoint(row.endpoint.clone())],
        Entry::Ingress(row) => stream_targets(&row.leg, &row.role),
        Entry::Learn(row) => stream_targets(&row.leg, &row.role),
        Entry::Source(row) => row.input.iter().chain(&row.layers).cloned().map(Target::Carried).collect(),
        Entry::Egress(row) => vec![Target::Leg(row.leg.clone()), Target::Carried(row.source.clone())],
    }
}

fn stream_targets(leg: &Name, role: &StreamRole) -> Vec<Target> {
    let group = role.candidate.iter().cloned().map(Target::Group);
    let repaired = role.repairs.iter().map(|repair| Target::Carried(repair.stream.clone()));
    group.chain(repaired).chain([Target::Leg(leg.clone())]).collect()
}
