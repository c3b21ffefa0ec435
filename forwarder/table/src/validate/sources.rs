//! Virtual sources and what competes for them: what they may carry, and that a group is of one kind.

use std::collections::{BTreeSet, HashMap};

use super::Check;
use crate::model::{EntryKind, Hears, Kind, Leg, Name, Source, StreamRole};

impl<'a> Check<'a> {
    pub(super) fn sources(&mut self) {
        let table = self.table;
        let kind = EntryKind::Source;
        for (name, row) in &table.sources {
            self.clock(kind, name, row.clock_rate);
            if table.ingress.contains_key(name) || table.learn.contains_key(name) {
                self.report(
                    kind,
                    name,
                    "name",
                    "an ingress stream or learn rule has this name; egress could mean either",
                );
            }
            if let Some(input) = &row.input {
                self.carries(name, row, "input", input);
            }
            let distinct: BTreeSet<&Name> = row.layers.iter().collect();
            for layer in distinct.iter().copied() {
                self.carries(name, row, "layers", layer);
            }
            if distinct.len() != row.layers.len() {
                self.report(kind, name, "layers", "names a stream twice; expected each encoding once");
            }
            if row.layers.len() > Source::MAX_LAYERS {
                let message = format!("{} layers; expected at most {}", row.layers.len(), Source::MAX_LAYERS);
                self.report(kind, name, "layers", message);
            }
            if row.input.is_some() && !row.layers.is_empty() {
                self.report(kind, name, "input", "layers say what the source carries; expected one of them");
            }
            if row.select.is_some() && (row.input.is_some() || !row.layers.is_empty()) {
                let key = if row.input.is_some() { "input" } else { "layers" };
                self.report(
                    kind,
                    name,
                    key,
                    "the forwarder chooses what a source with `select` carries; expected none",
                );
            }
        }
        let groups = self.groups();
        for (name, row) in &table.sources {
            let Some((media, rate, first)) = row.select.as_ref().and_then(|group| groups.get(group)) else { continue };
            if (row.kind, row.clock_rate) != (*media, *rate) {
                let message = format!("source {first} of the group is {media} at {rate} Hz; expected the same");
                self.report(kind, name, "select", message);
            }
        }
    }

    /// Kind and clock rate of every group, by its first source.
    pub(super) fn groups(&self) -> HashMap<&'a Name, (Kind, u32, &'a Name)> {
        let mut groups = HashMap::new();
        for (name, row) in &self.table.sources {
            if let Some(group) = &row.select {
                groups.entry(group).or_insert((row.kind, row.clock_rate, name));
            }
        }
        groups
    }

    /// A stream or rule that competes for a group must be what the group's sources carry.
    pub(super) fn candidate(
        &mut self,
        groups: &HashMap<&Name, (Kind, u32, &Name)>,
        row: (EntryKind, &Name),
        media: (Kind, u32),
        role: &StreamRole,
    ) {
        let Some(group) = &role.candidate else { return };
        if let Some((kind, rate, _)) = groups.get(group)
            && (*kind, *rate) != media
        {
            let message = format!("group {group} is {kind} at {rate} Hz, the stream {} at {} Hz", media.0, media.1);
            self.report(row.0, row.1, "candidate", message);
        }
    }

    fn carries(&mut self, name: &Name, row: &Source, key: &str, input: &Name) {
        let kind = EntryKind::Source;
        match self.table.carried(input) {
            None | Some((EntryKind::Source, ..)) => {
                self.report(kind, name, key, format!("no ingress stream or learn rule is called {input}"));
            }
            Some((_, other, rate)) => {
                if other != row.kind {
                    self.report(kind, name, key, format!("{input} is {other}, the source is {}", row.kind));
                }
                if rate != row.clock_rate {
                    let message = format!("{input} has clock rate {rate}, the source {}", row.clock_rate);
                    self.report(kind, name, key, message);
                }
            }
        }
    }

    pub(super) fn membership(&mut self, name: &Name, leg: &Leg) {
        let kind = EntryKind::Leg;
        if let Some(member) = leg.member.filter(|member| *member >= Hears::MEMBERS) {
            self.report(kind, name, "member", format!("{member} is out of range; expected 0 to 8191"));
        }
        if leg.hears.as_ref().is_some_and(|hears| hears.words().len() > usize::from(Hears::MEMBERS) / 64) {
            self.report(kind, name, "hears", "holds members above 8191; expected 0 to 8191");
        }
    }
}
