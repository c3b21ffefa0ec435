//! The peer connections of a node and how packets find them. Never decides what an output of one means.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use sluice_table::Name;

use super::routes::Routes;
use crate::conference::ParticipantId;
use crate::transport::{ChannelId, Transport, stun_ufrag};

/// One peer connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) transport: Transport,
    /// The dialect's channel, once it was asked for.
    pub(super) channel: Option<ChannelId>,
    /// The dialect is through with it: it ends then, so that what was sent last arrives.
    pub(super) ends: Option<Instant>,
}

impl Peer {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [self.transport.next_timeout(), self.ends].into_iter().flatten().min()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: HashMap<ParticipantId, Peer>,
    routes: Routes,
}

impl Peers {
    pub(super) fn insert(&mut self, participant: ParticipantId, transport: Transport) {
        self.routes.add_ufrag(participant, &transport.credentials().ufrag);
        self.peers.insert(participant, Peer { transport, channel: None, ends: None });
    }

    pub(super) fn get_mut(&mut self, participant: ParticipantId) -> Option<&mut Peer> {
        self.peers.get_mut(&participant)
    }

    pub(super) fn remove(&mut self, participant: ParticipantId) {
        self.routes.remove(participant);
        self.peers.remove(&participant);
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whose a packet is.
    pub(super) fn find(&self, endpoint: &Name, from: SocketAddr, bytes: &[u8]) -> Option<ParticipantId> {
        self.routes.find(endpoint, from, stun_ufrag(bytes), bytes)
    }

    /// Notes what is sent, so that answers find their way.
    pub(super) fn sent(&mut self, participant: ParticipantId, endpoint: &Name, to: SocketAddr, bytes: &[u8]) {
        self.routes.sent(participant, endpoint, to, bytes);
    }
}
