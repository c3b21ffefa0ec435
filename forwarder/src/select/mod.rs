//! Who is heard: candidates of a group by audio level, and which of the group's slots they hold. Pure: time is an
//! argument, nothing is read or sent.

pub mod group;
pub mod meter;

/// Levels are those of RFC 6464: 0 is as loud as it gets, 127 is silence. From here on a stream counts as silent.
pub const SILENT: u8 = 110;
/// The level of a stream whose packets do not tell it.
pub const UNKNOWN: u8 = 60;
