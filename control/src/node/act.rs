//! What the dialect wants becomes outputs and transports; what transports tell becomes events of the dialect.

use std::time::Duration;

use bytes::Bytes;
use sluice_table::protocol::PacketMessage;

use super::peers::Peer;
use super::{Context, Count, Node, Output};
use crate::conference::ParticipantId;
use crate::dialect::wire::{Action, Event};
use crate::http::Answer;
use crate::transport::{Output as TransportOutput, Payload, Transport, TransportConfig};

/// How long a transport that the dialect closed stays, so that its last message arrives.
const LINGER: Duration = Duration::from_millis(500);

impl Node {
    /// Does one thing; returns the transaction if it was one.
    pub(super) fn act(&mut self, context: &mut Context<'_>, action: Action) -> Option<u64> {
        match action {
            Action::Reply { request, status, content_type, body, location } => {
                let location = location.and_then(|to| http::HeaderValue::try_from(to).ok());
                let headers = location.map(|to| (http::header::LOCATION, to)).into_iter().collect();
                let answer = Answer { status, content_type, body: Bytes::from(body), headers };
                self.outputs.push(Output::Reply { id: request.0, answer });
            }
            Action::Open { participant, credentials, controlling } => {
                let mut tie_breaker = [0; 8];
                context.random.fill(&mut tie_breaker);
                let config = TransportConfig {
                    controlling,
                    tie_breaker: u64::from_be_bytes(tie_breaker),
                    credentials,
                    locals: self.settings.locals.iter().map(|(local, _)| local.clone()).collect(),
                    identity: self.settings.identity.clone(),
                    dtls: self.settings.dtls,
                    sctp_connect: false,
                    limits: self.settings.limits,
                };
                self.counters.add(Count::TransportsOpened);
                self.peers.insert(participant, Transport::new(config, context.now));
                self.stir(participant);
            }
            Action::Answer { participant, remote } => {
                let peer = self.peers.get_mut(participant)?;
                if let Err(error) = peer.transport.set_remote(context.now, &remote) {
                    tracing::info!(%participant, %error, "a client's description was not taken");
                    self.counters.add(Count::DescriptionsRefused);
                    self.finish(context, participant, "description");
                    return None;
                }
                self.stir(participant);
            }
            Action::OpenChannel { participant, label } => {
                let peer = self.peers.get_mut(participant)?;
                match peer.transport.open_channel(label) {
                    Ok(channel) => peer.channel = Some(channel),
                    Err(error) => {
                        tracing::info!(%participant, %error, "a channel was not opened");
                        self.counters.add(Count::ChannelLost);
                        self.finish(context, participant, "channel");
                        return None;
                    }
                }
                self.stir(participant);
            }
            Action::Send { participant, text } => self.send(context, participant, text),
            Action::SendList { participant, text } => self.send_list(context, participant, text),
            Action::Close { participant } => {
                match self.peers.get_mut(participant) {
                    Some(peer) if peer.channel.is_some() => {
                        peer.ends = Some(context.now + LINGER);
                        self.stir(participant);
                    }
                    // Nothing was said to it that could still be on its way.
                    Some(_) => self.end(context.now, participant),
                    None => {}
                }
            }
            Action::Table(changes) => return Some(self.transaction(changes)),
            Action::Drained => self.drained = true,
        }
        None
    }

    fn send(&mut self, context: &mut Context<'_>, participant: ParticipantId, text: Bytes) {
        let Some(peer) = self.peers.get_mut(participant) else { return };
        let Some(channel) = peer.channel else {
            self.counters.add(Count::NoChannel);
            return;
        };
        match peer.transport.send(channel, Payload::Text(text)) {
            Ok(()) => self.stir(participant),
            Err(error) => {
                tracing::info!(%participant, %error, "a participant does not take its messages");
                self.counters.add(Count::ChannelFull);
                self.finish(context, participant, "channel_full");
            }
        }
    }

    /// Sends a list as soon as earlier ones were taken; the newest is enough.
    fn send_list(&mut self, context: &mut Context<'_>, participant: ParticipantId, text: Bytes) {
        let Some(peer) = self.peers.get_mut(participant) else { return };
        if peer.list.replace(text).is_some() {
            self.counters.add(Count::ListsSuperseded);
        }
        self.send_ready_list(context, participant);
    }

    /// Whether there was one.
    fn send_ready_list(&mut self, context: &mut Context<'_>, participant: ParticipantId) -> bool {
        let ready = self.peers.get_mut(participant).and_then(Peer::ready_list);
        let Some(list) = ready else { return false };
        self.send(context, participant, list);
        true
    }

    /// Notes that a transport may have something to tell.
    pub(super) fn stir(&mut self, participant: ParticipantId) {
        if let Some(peer) = self.peers.get_mut(participant)
            && !std::mem::replace(&mut peer.restless, true)
        {
            self.restless.push_back(participant);
        }
    }

    /// Lets every transport that has something to tell tell it, until none has. First come, first served: what the first
    /// ones cause for one that waits is then sent together.
    pub fn settle(&mut self, context: &mut Context<'_>) {
        while let Some(participant) = self.restless.pop_front() {
            self.drive(context, participant);
        }
    }

    fn drive(&mut self, context: &mut Context<'_>, participant: ParticipantId) {
        if let Some(peer) = self.peers.get_mut(participant) {
            peer.restless = false;
        }
        loop {
            self.take_outputs(context, participant);
            // Acknowledgements may have made room for it.
            if !self.send_ready_list(context, participant) {
                break;
            }
        }
        let next = self.peers.get_mut(participant).and_then(|peer| peer.next_timeout());
        self.deadlines.set(participant, next);
    }

    fn take_outputs(&mut self, context: &mut Context<'_>, participant: ParticipantId) {
        while let Some(output) = self.peers.get_mut(participant).and_then(|peer| peer.transport.poll(context.now)) {
            match output {
                TransportOutput::Datagram { endpoint, to, bytes } => {
                    self.peers.sent(participant, &endpoint, to, &bytes);
                    self.outputs.push(Output::Packet(PacketMessage::PacketOut { endpoint, to, bytes }));
                }
                TransportOutput::Connected(connection) => {
                    self.counters.add(Count::TransportsConnected);
                    match self.tell(context, Event::Connected { participant, connection }) {
                        Some(transaction) => self.keyed.entry(transaction).or_default().push(participant),
                        None => self.release(participant),
                    }
                }
                TransportOutput::Moved(path) => {
                    self.counters.add(Count::TransportsMoved);
                    self.tell(context, Event::Moved { participant, path: Box::new(path) });
                }
                TransportOutput::ChannelOpen { channel, .. } => {
                    if self.is_ours(participant, channel) {
                        self.tell(context, Event::ChannelOpen { participant });
                    }
                }
                TransportOutput::Message { channel, bytes, .. } => {
                    if self.is_ours(participant, channel) {
                        self.tell(context, Event::Message { participant, text: bytes });
                    }
                }
                TransportOutput::ChannelClosed(channel) => {
                    if self.is_ours(participant, channel) {
                        self.counters.add(Count::ChannelLost);
                        self.finish(context, participant, "channel_closed");
                    }
                }
                TransportOutput::Closed(reason) => {
                    tracing::debug!(%participant, %reason, "a peer connection ended");
                    self.counters.closed(reason);
                    self.peers.remove(participant);
                    self.deadlines.set(participant, None);
                    self.tell(context, Event::Closed { participant, reason: reason.name() });
                }
            }
        }
    }

    /// Lets go what waited for a participant's leg.
    pub(super) fn release(&mut self, participant: ParticipantId) {
        if let Some(peer) = self.peers.get_mut(participant) {
            peer.transport.release();
            self.stir(participant);
        }
    }

    /// Whether a channel is the dialect's; a client may open others, which nobody reads.
    fn is_ours(&mut self, participant: ParticipantId, channel: crate::transport::ChannelId) -> bool {
        self.peers.get_mut(participant).is_some_and(|peer| peer.channel == Some(channel))
    }
}
