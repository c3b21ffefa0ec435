//! Send side: indexes are issued once per (key, SSRC) and consumed by sealing.

use crate::index::PacketIndex;

/// The right to seal one packet under one index of one (key, SSRC). Not `Clone`, made only by a sent window.
#[derive(Debug)]
#[must_use = "an issued index that seals nothing leaves a gap"]
pub struct SendIndex(PacketIndex);
