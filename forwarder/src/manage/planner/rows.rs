//! Rows as workers take them, from rows as tables hold them; refusals.

use sluice_srtp::Ssrc;
use sluice_srtp::key::KeyId;
use sluice_table::protocol::{Refusal, Refused};
use sluice_table::{ExtensionIds, Kind, Leg, LegKind};

use super::touched::Freed;
use super::{BURST, LegState, StreamSlot};
use crate::engine::index_store::IndexHandle;
use crate::engine::police::Rate;
use crate::engine::rows::{ExtensionMap, LearnRule, LegConfig, Meaning};
use crate::engine::rtcp::RtcpConfig;
use crate::index_file::store::StoreError;
use crate::manage::ice::{self};
use crate::manage::indexes::{Direction, Indexes};
use crate::wire::frame::Address;

/// The row of a stream: the one it has, or another if the key changed. A plain leg's row outlives nothing.
pub(super) fn row_of(
    indexes: &mut dyn Indexes,
    known: Option<&StreamSlot>,
    key: Option<(KeyId, u64)>,
    ssrc: Ssrc,
    direction: Direction,
    freed: &mut Freed,
) -> Result<IndexHandle, Refused> {
    let (id, incarnation) = key.unwrap_or((KeyId([0; 16]), PLAIN));
    if let Some(known) = known {
        if known.incarnation == incarnation {
            return Ok(known.row.clone());
        }
        freed.rows.push(known.row.clone());
    }
    if key.is_none() {
        return Ok(IndexHandle::detached());
    }
    indexes.row(id, ssrc, direction).map_err(|error| no_row(&error))
}

/// The incarnation of streams on legs without keys.
pub(super) const PLAIN: u64 = 0x504c_4149_4e00_0001;

pub(super) fn no_row(error: &StoreError) -> Refused {
    Refused::new(Refusal::Capacity, error.to_string(), "raise [capacity] and start the forwarder again")
}

pub(super) fn full(what: &str, wanted: usize, size: usize) -> Refused {
    Refused::new(
        Refusal::Capacity,
        format!("{wanted} {what} wanted, but the forwarder was started with room for {size}"),
        "raise that number in the forwarder's [capacity] and start it again",
    )
}

pub(super) fn leg_config(leg: &Leg, endpoint: u16, state: &LegState, rules: Box<[LearnRule]>) -> LegConfig {
    let (port, template, mtu) = match state.route.clone() {
        Some(route) => (route.port, route.template, route.mtu),
        None => (crate::engine::PortId(0), None, 1_500),
    };
    LegConfig {
        endpoint,
        remote: state.remote.map(Address::from),
        plain: leg.kind == LegKind::Plain,
        inbound: state.inbound.as_ref().map(|k| k.keys.clone()),
        outbound: state.outbound.as_ref().map(|k| k.keys.clone()),
        largest_rtp: template.as_ref().map_or(0, |t| LegConfig::largest_rtp_of(t, mtu)),
        template,
        port,
        extensions: extension_map(&leg.extensions),
        rules,
        inbound_incarnation: state.inbound.as_ref().map_or(PLAIN, |k| k.incarnation),
        byte_rate: Rate::bits_per_second(leg.limits.bits_per_second, BURST),
        packet_rate: Rate::per_second(u64::from(leg.limits.packets_per_second), BURST),
        ice: leg.ice.as_ref().map(|ice| ice::config(ice, &state.ice)),
        rtcp: RtcpConfig {
            send: state.outbound.as_ref().map(|key| key.row.pin()),
            receive: state.inbound.as_ref().map(|key| key.row.pin()),
            incarnation: state.inbound.as_ref().map_or(PLAIN, |key| key.incarnation),
        },
        member: leg.member,
        hears: leg.hears.clone(),
        feedback: leg.feedback,
    }
}

pub(super) fn stream_rate(limits: &sluice_table::Limits, kind: Kind) -> Rate {
    let bits = match kind {
        Kind::Audio => limits.audio_bits_per_second,
        Kind::Video => limits.video_bits_per_second,
    };
    Rate::bits_per_second(bits, BURST)
}

pub(super) fn extension_map(ids: &ExtensionIds) -> ExtensionMap {
    let pairs = [
        (Meaning::Mid, ids.mid),
        (Meaning::Rid, ids.rid),
        (Meaning::RepairedRid, ids.repaired_rid),
        (Meaning::AudioLevel, ids.audio_level),
        (Meaning::TransportCc, ids.transport_cc),
        (Meaning::AbsSendTime, ids.abs_send_time),
        (Meaning::DependencyDescriptor, ids.dependency_descriptor),
        (Meaning::FrameDescriptor, ids.frame_descriptor),
        (Meaning::VideoOrientation, ids.video_orientation),
    ];
    ExtensionMap::new(pairs.into_iter().filter_map(|(meaning, id)| Some((meaning, id?))))
}
