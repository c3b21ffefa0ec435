//! Writing the forwarder's table: everything when it is connected, and what follows from its answers. Never decides what
//! a row says.

use std::collections::BTreeSet;

use sluice_table::protocol::{Refused, Snapshot};
use sluice_table::{Change, Endpoint, Entry, EntryKind, Name};

use super::{Context, Count, ENDPOINTS_AGAIN, Node, Output, orphans, repair};
use crate::conference::Conference;
use crate::dialect::wire;

impl Node {
    /// The forwarder may have kept our rows, may have lost them by a restart, or hold those of an earlier process.
    pub(super) fn link_up(&mut self, context: &mut Context<'_>, snapshot: &Snapshot) {
        tracing::info!(generation = snapshot.generation, legs = snapshot.legs.len(), "the forwarder is connected");
        self.up = true;
        let now = self.awake.now(context.now);
        if !std::mem::replace(&mut self.was_up, true) {
            self.wire.set_resumes(now + self.settings.orphan_timeout);
        }
        let ours =
            |name: &Name| self.wire.owns(name) || self.settings.locals.iter().any(|(local, _)| local.endpoint == *name);
        self.orphans.find(now, snapshot, ours);
        // A snapshot shows no keys: rows of ours may be another process's by the same name. They are written again.
        self.program(context, orphans::rows(snapshot));
    }

    /// Writes everything, endpoints first.
    pub(super) fn program(&mut self, context: &mut Context<'_>, present: Vec<(EntryKind, Name)>) {
        self.repair.forget();
        self.open_endpoints();
        // Whoever waited for an answer that will not come waits for this one.
        let waiting: Vec<_> = self.keyed.drain().flat_map(|(_, waiting)| waiting).collect();
        match self.tell(context, wire::Event::Reprogram { present, only: None }) {
            Some(last) => self.keyed.entry(last).or_default().extend(waiting),
            None => waiting.into_iter().for_each(|participant| self.release(participant)),
        }
    }

    /// Asks the forwarder for our sockets.
    pub(super) fn open_endpoints(&mut self) {
        let endpoints: Vec<Change> = self
            .settings
            .locals
            .iter()
            .map(|(local, interface)| {
                let row = Endpoint { interface: interface.clone(), address: local.address };
                Change::Put(local.endpoint.clone(), Entry::Endpoint(row))
            })
            .collect();
        self.endpoints_transaction = Some(self.transaction(endpoints));
    }

    pub(super) fn committed(&mut self, context: &mut Context<'_>, id: u64, result: Result<u64, Refused>) {
        let endpoints = self.endpoints_transaction == Some(id);
        if endpoints {
            self.endpoints_transaction = None;
            self.endpoints_refused = None;
        }
        let ask = self.repair.answered(id, result.as_ref().map(|_| ()));
        let Err(refused) = result else {
            for participant in self.keyed.remove(&id).unwrap_or_default() {
                self.release(participant);
            }
            return;
        };
        self.counters.add(Count::TransactionsRefused);
        tracing::error!(id, %refused, hint = refused.hint, "the forwarder refused a transaction");
        for problem in &refused.problems {
            tracing::error!(id, %problem, "at fault");
        }
        if endpoints {
            self.repair.forget();
            self.endpoints_refused = Some(refused);
            self.endpoints_again = Some(context.now + ENDPOINTS_AGAIN);
            return;
        }
        if repair::is_full(&refused) {
            self.hurry_orphans();
        }
        if ask {
            self.outputs.push(Output::AskTable);
        }
    }

    /// The forwarder is full: what an earlier process left goes before anybody who is here now.
    pub(super) fn hurry_orphans(&mut self) {
        let orphans = self.orphans.take_all();
        if !orphans.is_empty() {
            tracing::warn!("the forwarder is full: calls of an earlier control process end now");
            self.counters.add(Count::OrphansHurried);
        }
        for changes in orphans {
            self.transaction(changes);
        }
    }

    /// What the forwarder holds behind a refusal: conferences concerned are programmed again. Refused once more, whoever
    /// cannot be programmed goes first.
    pub(super) fn repair(&mut self, context: &mut Context<'_>, snapshot: &Snapshot) {
        let present = orphans::rows(snapshot);
        let known: BTreeSet<_> = present.iter().cloned().collect();
        for repair::Job { conference, faults, mut held } in self.repair.jobs() {
            if let Some(faults) = faults {
                let wanted = self.wire.numbered(conference).map(Conference::table);
                let whose = |row: &Name| self.wire.participant_of_row(row);
                let gone = wanted.map(|table| repair::culprits(table, &known, &faults, whose)).unwrap_or_default();
                if gone.is_empty() {
                    tracing::error!(conference, "the forwarder takes no row of it, and nobody is left to end");
                    self.counters.add(Count::RepairsGivenUp);
                    self.repair.close(conference);
                    continue;
                }
                for participant in gone {
                    self.counters.add(Count::ParticipantsRefused);
                    self.finish(context, participant, "refused_by_forwarder");
                }
            }
            held.extend(self.repair.held(conference));
            let waiting: Vec<_> = held.iter().filter_map(|id| self.keyed.remove(id)).flatten().collect();
            self.counters.add(Count::Repairs);
            self.repair.open(conference, self.next_transaction);
            let event = wire::Event::Reprogram { present: present.clone(), only: Some(conference) };
            match self.tell(context, event) {
                Some(sent) => self.keyed.entry(sent).or_default().extend(waiting),
                None => self.repair.close(conference),
            }
        }
        if self.repair.go_on() {
            self.outputs.push(Output::AskTable);
        }
    }
}
