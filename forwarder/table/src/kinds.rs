//! How the enums of the model are spelled, in files, messages and JSON. Never parses a file.

use std::fmt;

use crate::model::{Change, Entry, EntryKind, ExtensionIds, Kind, LegKind, Name, Remote};

impl EntryKind {
    /// Every kind, in the order rows may refer to earlier kinds.
    pub const ALL: [EntryKind; 6] = [
        EntryKind::Endpoint,
        EntryKind::Leg,
        EntryKind::Ingress,
        EntryKind::Learn,
        EntryKind::Source,
        EntryKind::Egress,
    ];

    /// The spelling in table files and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            EntryKind::Endpoint => "endpoint",
            EntryKind::Leg => "leg",
            EntryKind::Ingress => "ingress",
            EntryKind::Learn => "learn",
            EntryKind::Source => "source",
            EntryKind::Egress => "egress",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    /// The spelling in table files and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Audio => "audio",
            Kind::Video => "video",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl LegKind {
    /// The spelling in table files and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            LegKind::Client => "client",
            LegKind::Trunk => "trunk",
            LegKind::Plain => "plain",
        }
    }
}

impl fmt::Display for LegKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remote::Fixed(address) => address.fmt(f),
            Remote::Learn => f.write_str("learn"),
        }
    }
}

impl ExtensionIds {
    /// How many extensions there are.
    pub const COUNT: usize = 9;
    /// Their spellings in table files, in the order of [`ExtensionIds::pairs`].
    pub const NAMES: [&'static str; ExtensionIds::COUNT] = [
        "mid",
        "rid",
        "repaired_rid",
        "audio_level",
        "transport_cc",
        "abs_send_time",
        "dependency_descriptor",
        "frame_descriptor",
        "video_orientation",
    ];

    /// Every extension with its id.
    pub fn pairs(&self) -> [(&'static str, Option<u8>); ExtensionIds::COUNT] {
        let ids = [
            self.mid,
            self.rid,
            self.repaired_rid,
            self.audio_level,
            self.transport_cc,
            self.abs_send_time,
            self.dependency_descriptor,
            self.frame_descriptor,
            self.video_orientation,
        ];
        std::array::from_fn(|i| (ExtensionIds::NAMES[i], ids[i]))
    }

    /// The id of the extension a table file calls `name`, to set; `None` for an unknown name.
    pub fn slot(&mut self, name: &str) -> Option<&mut Option<u8>> {
        Some(match name {
            "mid" => &mut self.mid,
            "rid" => &mut self.rid,
            "repaired_rid" => &mut self.repaired_rid,
            "audio_level" => &mut self.audio_level,
            "transport_cc" => &mut self.transport_cc,
            "abs_send_time" => &mut self.abs_send_time,
            "dependency_descriptor" => &mut self.dependency_descriptor,
            "frame_descriptor" => &mut self.frame_descriptor,
            "video_orientation" => &mut self.video_orientation,
            _ => return None,
        })
    }
}

impl Entry {
    /// The row's kind.
    pub const fn kind(&self) -> EntryKind {
        match self {
            Entry::Endpoint(_) => EntryKind::Endpoint,
            Entry::Leg(_) => EntryKind::Leg,
            Entry::Ingress(_) => EntryKind::Ingress,
            Entry::Learn(_) => EntryKind::Learn,
            Entry::Source(_) => EntryKind::Source,
            Entry::Egress(_) => EntryKind::Egress,
        }
    }
}

impl Change {
    /// Kind and name of the row it touches.
    pub fn row(&self) -> (EntryKind, &Name) {
        match self {
            Change::Put(name, entry) => (entry.kind(), name),
            Change::Remove(kind, name) => (*kind, name),
            Change::Switch { source, .. } => (EntryKind::Source, source),
        }
    }
}
