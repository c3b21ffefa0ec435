//! The peer connections of a node and how packets find them. Never decides what an output of one means.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use sluice_table::Name;

use super::routes::Routes;
use crate::conference::ParticipantId;
use crate::transport::{ChannelId, Transport, stun_ufrag};

/// Bytes a channel may have unacknowledged when a list is added to them. A list is only of use while it is the newest, and
/// what the channel took cannot be taken back.
const BEHIND: usize = 16 << 10;

/// One peer connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) transport: Transport,
    /// The dialect's channel, once it was asked for.
    pub(super) channel: Option<ChannelId>,
    /// The dialect is through with it: it ends then, so that what was sent last arrives.
    pub(super) ends: Option<Instant>,
    /// A list that waits until the channel took earlier ones.
    pub(super) list: Option<Bytes>,
    /// Whether it is to be driven.
    pub(super) restless: bool,
}

impl Peer {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [self.transport.next_timeout(), self.ends].into_iter().flatten().min()
    }

    /// The list that waits, once it would not wait in the channel's buffer.
    pub(super) fn ready_list(&mut self) -> Option<Bytes> {
        self.list.as_ref()?;
        let waiting = self.channel.map_or(0, |channel| self.transport.buffered(channel));
        self.list.take_if(|_| waiting <= BEHIND)
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
        self.peers.insert(participant, Peer { transport, channel: None, ends: None, list: None, restless: false });
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
