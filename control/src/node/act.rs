//! What the dialect wants becomes outputs and transports; what transports tell becomes events of the dialect.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_table::protocol::PacketMessage;

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
                self.restless.push(participant);
            }
            Action::Answer { participant, remote } => {
                let peer = self.peers.get_mut(participant)?;
                if let Err(error) = peer.transport.set_remote(context.now, &remote) {
                    tracing::info!(%participant, %error, "a client's description was not taken");
                    self.counters.add(Count::DescriptionsRefused);
                    self.finish(context, participant, "description");
                    return None;
                }
                self.restless.push(participant);
            }
            Action::OpenChannel { participant, label } => {
                let peer = self.peers.get_mut(participant)?;
                match peer.transport.open_channel(context.now, label) {
                    Ok(channel) => peer.channel = Some(channel),
                    Err(error) => {
                        tracing::info!(%participant, %error, "a channel was not opened");
                        self.counters.add(Count::ChannelLost);
                        self.finish(context, participant, "channel");
                        return None;
                    }
                }
                self.restless.push(participant);
            }
            Action::Send { participant, text } => self.send(context, participant, &text),
            Action::Close { participant } => {
                match self.peers.get_mut(participant) {
                    Some(peer) if peer.channel.is_some() => {
                        peer.ends = Some(context.now + LINGER);
                        self.restless.push(participant);
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

    fn send(&mut self, context: &mut Context<'_>, participant: ParticipantId, text: &str) {
        let Some(peer) = self.peers.get_mut(participant) else { return };
        let Some(channel) = peer.channel else {
            self.counters.add(Count::NoChannel);
            return;
        };
        match peer.transport.send(context.now, channel, Payload::Text(text.to_owned())) {
            Ok(()) => self.restless.push(participant),
            Err(error) => {
                tracing::info!(%participant, %error, "a participant does not take its messages");
                self.counters.add(Count::ChannelFull);
                self.finish(context, participant, "channel_full");
            }
        }
    }

    /// Lets every transport that has something to tell tell it, until none has.
    pub(super) fn settle(&mut self, context: &mut Context<'_>) {
        while let Some(participant) = self.restless.pop() {
            self.drive(context, participant);
        }
    }

    fn drive(&mut self, context: &mut Context<'_>, participant: ParticipantId) {
        while let Some(output) = self.peers.get_mut(participant).and_then(|peer| peer.transport.poll()) {
            match output {
                TransportOutput::Datagram { endpoint, to, bytes } => {
                    self.peers.sent(participant, &endpoint, to, &bytes);
                    self.outputs.push(Output::Packet(PacketMessage::PacketOut { endpoint, to, bytes }));
                }
                TransportOutput::Connected(connection) => {
                    self.counters.add(Count::TransportsConnected);
                    match self.tell(context, Event::Connected { participant, connection }) {
                        Some(transaction) => self.keyed.entry(transaction).or_default().push(participant),
                        None => self.release(context.now, participant),
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
        let next = self.peers.get_mut(participant).and_then(|peer| peer.next_timeout());
        self.deadlines.set(participant, next);
    }

    pub(super) fn release(&mut self, now: Instant, participant: ParticipantId) {
        if let Some(peer) = self.peers.get_mut(participant) {
            peer.transport.release(now);
        }
    }

    /// Whether a channel is the dialect's; a client may open others, which nobody reads.
    fn is_ours(&mut self, participant: ParticipantId, channel: crate::transport::ChannelId) -> bool {
        self.peers.get_mut(participant).is_some_and(|peer| peer.channel == Some(channel))
    }
}
