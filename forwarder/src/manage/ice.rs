//! ICE of legs at planning: tuples a leg is reached by, the ways to them, prepared credentials. Decides when consent
//! starts over. Never keeps a password in clear.

use std::net::SocketAddr;

use sluice_table::{Ice, Leg, Remote};

use super::route::Route;
use crate::engine::rows::{LegConfig, TupleKey};
use crate::engine::stun::message::{IntegrityKey, Role};
use crate::engine::stun::{IceConfig, IceTuple};
use crate::wire::frame::Address;

/// What the planner remembers of a leg's ICE state.
#[derive(Clone, Debug, Default)]
pub(super) struct IcePlan {
    /// The incarnation last given to the engine; 0 without ICE.
    pub incarnation: u64,
    /// Ways to the validated tuples, in their order.
    pub ways: Vec<(SocketAddr, Route)>,
}

/// Where media of a leg goes: the selected tuple, else the address given, else the one learned.
pub(super) fn selected(leg: &Leg, learned: Option<SocketAddr>) -> Option<SocketAddr> {
    match (&leg.ice, &leg.remote) {
        (Some(ice), _) => ice.tuples.first().copied(),
        (None, Remote::Fixed(address)) => Some(*address),
        (None, Remote::Learn) => learned,
    }
}

/// Every tuple a leg is known by at its endpoint; only these are let in as the leg's.
pub(super) fn tuples(leg: &Leg, endpoint: u16, remote: Option<SocketAddr>) -> Vec<TupleKey> {
    let key = |remote: SocketAddr| TupleKey { endpoint, remote: Address::from(remote) };
    match &leg.ice {
        Some(ice) => ice.tuples.iter().copied().map(key).collect(),
        None => remote.map(key).into_iter().collect(),
    }
}

/// Whether consent given to the former state does not hold for the next: another peer, or another place.
pub(super) fn starts_over(old: Option<&Ice>, next: &Ice) -> bool {
    old.is_none_or(|old| {
        let same = old.local_ufrag == next.local_ufrag
            && old.local_password == next.local_password
            && old.remote_ufrag == next.remote_ufrag
            && old.remote_password == next.remote_password
            && old.tuples.first() == next.tuples.first();
        !same
    })
}

/// The engine's form of a leg's ICE state.
pub(super) fn config(ice: &Ice, plan: &IcePlan) -> Box<IceConfig> {
    let tuple = |(remote, route): &(SocketAddr, Route)| IceTuple {
        remote: Address::from(*remote),
        port: route.port,
        template: route.template.clone(),
        room: route.template.as_ref().map_or(0, |t| LegConfig::largest_rtp_of(t, route.mtu)),
    };
    Box::new(IceConfig {
        local_ufrag: ice.local_ufrag.as_str().into(),
        remote_ufrag: ice.remote_ufrag.as_str().into(),
        local_key: IntegrityKey::new(&ice.local_password),
        remote_key: IntegrityKey::new(&ice.remote_password),
        role: if ice.controlling { Role::Controlling } else { Role::Controlled },
        tie_breaker: ice.tie_breaker,
        tuples: plan.ways.iter().take(Ice::MAX_TUPLES).map(tuple).collect(),
        incarnation: plan.incarnation,
    })
}
