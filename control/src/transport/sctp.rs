//! The SCTP association inside DTLS and its data channels (RFC 8831). Takes and gives SCTP packets; knows no addresses.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationError, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload as Packets, PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, StreamId,
    TransportConfig,
};

use super::config::{ChannelId, CloseReason, Limits, Payload, SendError};
use super::dcep::{self, Dcep, Open, Reliability};
use super::status::ChannelStatus;

/// DATA payload such that a sealed packet stays below 1,200 bytes: 28 bytes of SCTP, at most 37 of DTLS.
const MAX_PAYLOAD: u32 = 1_120;
/// Largest message sent, whatever the peer takes.
const MAX_SENT: usize = 256 << 10;
/// Bytes the association is given before the peer acknowledged them, beside one whole message. It keeps the memory it
/// once needed for the pieces of messages, about 300 bytes a piece, so a thousand short messages wait outside.
const AHEAD: usize = 16 << 10;
/// Streams in each direction; browsers ask for as many.
const STREAMS: u16 = 1_024;
/// Retransmission times of browsers' own stack (dcSCTP), in milliseconds; RFC 9260's are for other networks.
const RTO: (u64, u64, u64) = (500, 400, 10_000);
/// Stands for the peer, whose address is DTLS's business.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// What the association brought.
#[derive(Debug)]
pub(super) enum SctpEvent {
    Open(ChannelId, String),
    Message { channel: ChannelId, text: bool, bytes: Vec<u8> },
    ChannelClosed(ChannelId),
    Lost(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for the association.
    Queued,
    /// OPEN was sent.
    Opening,
    Open,
    /// Being reset.
    Closing,
}

#[derive(Debug)]
struct Channel {
    id: ChannelId,
    stream: StreamId,
    label: String,
    state: State,
}

/// The association and its channels; nearly nothing until the peer's INIT arrives.
#[derive(Debug)]
pub(super) struct Sctp {
    limits: Limits,
    peer_takes: usize,
    endpoint: Option<Box<Endpoint>>,
    association: Option<(AssociationHandle, Box<Association>)>,
    established: bool,
    /// Whether our streams have even numbers, as the DTLS client's do (RFC 8832 §6).
    even: bool,
    channels: Vec<Channel>,
    next_id: u32,
    /// Messages the association was not given yet, and their bytes.
    queue: VecDeque<(StreamId, Ppid, Bytes)>,
    queued: usize,
}

impl Sctp {
    pub(super) fn new(limits: Limits) -> Sctp {
        Sctp {
            limits,
            peer_takes: 65_536,
            endpoint: None,
            association: None,
            established: false,
            even: false,
            channels: Vec::new(),
            next_id: 0,
            queue: VecDeque::new(),
            queued: 0,
        }
    }

    /// What the peer's description said, before the association exists.
    pub(super) fn set_peer(&mut self, max_message_size: u64, we_are_client: bool) {
        let takes = usize::try_from(max_message_size).unwrap_or(usize::MAX);
        self.peer_takes = if takes == 0 { MAX_SENT } else { takes.min(MAX_SENT) };
        self.even = we_are_client;
    }

    fn transport(&self) -> Arc<TransportConfig> {
        let (initial, min, max) = RTO;
        let config = TransportConfig::default()
            .with_max_send_message_size(self.peer_takes as u32)
            .with_max_receive_message_size(self.limits.message)
            .with_max_receive_buffer_size(self.limits.message.saturating_mul(2).max(256 << 10))
            .with_max_num_inbound_streams(STREAMS)
            .with_max_num_outbound_streams(STREAMS)
            .with_rto_initial_ms(initial)
            .with_rto_min_ms(min)
            .with_rto_max_ms(max);
        Arc::new(config)
    }

    fn endpoint(&mut self) -> &mut Endpoint {
        let transport = self.endpoint.is_none().then(|| self.transport());
        self.endpoint.get_or_insert_with(|| {
            let mut server = ServerConfig::new();
            server.transport = transport.unwrap_or_default();
            let mut config = EndpointConfig::new();
            config.max_payload_size(MAX_PAYLOAD);
            Box::new(Endpoint::new(Arc::new(config), Some(Arc::new(server))))
        })
    }

    /// Opens the association instead of waiting for the peer to.
    pub(super) fn connect(&mut self) {
        if self.association.is_some() {
            return;
        }
        let mut config = ClientConfig::new();
        config.transport = self.transport();
        if let Ok((handle, association)) = self.endpoint().connect(config, PEER) {
            self.association = Some((handle, Box::new(association)));
        }
    }

    /// Takes an SCTP packet.
    pub(super) fn handle(&mut self, now: Instant, packet: Vec<u8>) {
        match self.endpoint().handle(now, PEER, None, None, Bytes::from(packet)) {
            Some((handle, DatagramEvent::NewAssociation(association))) if self.association.is_none() => {
                self.association = Some((handle, Box::new(association)));
                // An INIT with another tag would make another one, for ever.
                self.endpoint().reject_new_associations();
            }
            Some((at, DatagramEvent::AssociationEvent(event))) => {
                if let Some((handle, association)) = &mut self.association
                    && *handle == at
                {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.association.as_ref()?.1.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
    }

    /// Takes everything the association has to say.
    pub(super) fn drain(&mut self, now: Instant, packets: &mut Vec<Bytes>, events: &mut Vec<SctpEvent>) {
        while let Some((handle, association)) = &mut self.association {
            let event = association.poll();
            while let Some(event) = association.poll_endpoint_event() {
                let reply = self.endpoint.as_mut().and_then(|endpoint| endpoint.handle_event(*handle, event));
                if let Some(event) = reply {
                    association.handle_event(event);
                }
            }
            match event {
                Some(event) => self.event(&event, events),
                None => break,
            }
        }
        let mut push = |payload: Packets| {
            if let Packets::RawEncode(encoded) = payload {
                packets.extend(encoded);
            }
        };
        self.feed(AHEAD);
        if let Some(endpoint) = &mut self.endpoint {
            while let Some(transmit) = endpoint.poll_transmit() {
                push(transmit.payload);
            }
        }
        if let Some((_, association)) = &mut self.association {
            while let Some(transmit) = association.poll_transmit(now) {
                push(transmit.payload);
            }
        }
    }

    fn event(&mut self, event: &Event, events: &mut Vec<SctpEvent>) {
        match event {
            Event::Connected => {
                self.established = true;
                for at in 0..self.channels.len() {
                    self.send_open(at);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(*id, events),
            Event::Stream(StreamEvent::Finished { id }) => self.forget(*id, events),
            Event::AssociationLost {
                reason: AssociationError::AssociationClosed | AssociationError::ApplicationClosed,
            } => {
                events.push(SctpEvent::Lost(CloseReason::Peer));
            }
            Event::AssociationLost { .. } | Event::HandshakeFailed { .. } => {
                events.push(SctpEvent::Lost(CloseReason::Sctp));
            }
            _ => {}
        }
    }

    fn forget(&mut self, stream: StreamId, events: &mut Vec<SctpEvent>) {
        if let Some(at) = self.channels.iter().position(|c| c.stream == stream && c.state != State::Queued) {
            events.push(SctpEvent::ChannelClosed(self.channels.swap_remove(at).id));
        }
    }

    fn read(&mut self, id: StreamId, events: &mut Vec<SctpEvent>) {
        loop {
            let Some((_, association)) = &mut self.association else { return };
            // Streams the peer opened wait in a list of their own, which is of no use here.
            while association.accept_stream().is_some() {}
            let Ok(Some(message)) = association.stream(id).and_then(|mut stream| stream.read_sctp()) else { return };
            let mut bytes = vec![0; message.len()];
            if message.read(&mut bytes).is_err() {
                continue;
            }
            let open = self.channels.iter().find(|c| c.stream == id && matches!(c.state, State::Open | State::Opening));
            let channel = open.map(|c| c.id);
            match (message.ppi, channel) {
                (Ppid::Dcep, _) => self.control(id, &bytes, events),
                (_, None) => self.reset(id),
                (Ppid::String, Some(channel)) => events.push(SctpEvent::Message { channel, text: true, bytes }),
                (Ppid::Binary, Some(channel)) => events.push(SctpEvent::Message { channel, text: false, bytes }),
                (Ppid::StringEmpty | Ppid::BinaryEmpty, Some(channel)) => {
                    let text = message.ppi == Ppid::StringEmpty;
                    events.push(SctpEvent::Message { channel, text, bytes: Vec::new() });
                }
                (Ppid::Unknown, Some(_)) => {}
            }
        }
    }

    fn control(&mut self, id: StreamId, bytes: &[u8], events: &mut Vec<SctpEvent>) {
        let known = self.channels.iter_mut().find(|c| c.stream == id && c.state != State::Queued);
        match (dcep::parse(bytes), known) {
            (Some(Dcep::Ack), Some(channel)) if channel.state == State::Opening => {
                channel.state = State::Open;
                events.push(SctpEvent::Open(channel.id, channel.label.clone()));
            }
            (Some(Dcep::Open(open)), None) => self.accept(id, open, events),
            (Some(Dcep::Ack), Some(_)) => {}
            // An OPEN on a channel in use, an ACK to nothing, or something unreadable.
            _ => self.reset(id),
        }
    }

    fn accept(&mut self, id: StreamId, open: Open, events: &mut Vec<SctpEvent>) {
        if self.channels.len() >= self.limits.channels {
            self.reset(id);
            return;
        }
        let Some((_, association)) = &mut self.association else { return };
        let Ok(mut stream) = association.stream(id) else { return };
        let (kind, value) = match open.reliability {
            Reliability::Full => (ReliabilityType::Reliable, 0),
            Reliability::Retransmits(times) => (ReliabilityType::Rexmit, times),
            Reliability::Milliseconds(time) => (ReliabilityType::Timed, time),
        };
        if stream.set_reliability_params(open.unordered, kind, value).is_err()
            || stream.write_with_ppi(&dcep::ACK, Ppid::Dcep).is_err()
        {
            return;
        }
        let channel = self.new_id();
        self.channels.push(Channel { id: channel, stream: id, label: open.label.clone(), state: State::Open });
        events.push(SctpEvent::Open(channel, open.label));
    }

    fn reset(&mut self, id: StreamId) {
        if let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
        {
            // Fails only where there is nothing to reset any more.
            let _ = stream.close();
        }
    }

    fn new_id(&mut self) -> ChannelId {
        self.next_id += 1;
        ChannelId(self.next_id - 1)
    }

    /// A new ordered reliable channel; its OPEN goes out once the association is there.
    pub(super) fn open(&mut self, label: &str) -> Result<ChannelId, SendError> {
        if self.channels.len() >= self.limits.channels {
            return Err(SendError::TooManyChannels(self.channels.len()));
        }
        let id = self.new_id();
        self.channels.push(Channel { id, stream: 0, label: label.to_owned(), state: State::Queued });
        if self.established {
            self.send_open(self.channels.len() - 1);
        }
        Ok(id)
    }

    fn send_open(&mut self, at: usize) {
        if self.channels[at].state != State::Queued {
            return;
        }
        let Some((_, association)) = &mut self.association else { return };
        let taken = |id: StreamId| self.channels.iter().any(|c| c.stream == id && c.state != State::Queued);
        let first = StreamId::from(!self.even);
        for id in (first..STREAMS).step_by(2).filter(|id| !taken(*id)) {
            // A stream that is still being reset is passed over.
            let Ok(mut stream) = association.open_stream(id, Ppid::Binary) else { continue };
            if stream.write_with_ppi(&dcep::open(&self.channels[at].label), Ppid::Dcep).is_ok() {
                (self.channels[at].stream, self.channels[at].state) = (id, State::Opening);
            }
            return;
        }
    }

    /// Starts to close a channel; it is closed once the peer agreed.
    pub(super) fn close_channel(&mut self, id: ChannelId, events: &mut Vec<SctpEvent>) -> Result<(), SendError> {
        let at = self.channels.iter().position(|c| c.id == id).ok_or(SendError::NotOpen(id))?;
        match self.channels[at].state {
            State::Queued => {
                self.channels.swap_remove(at);
                events.push(SctpEvent::ChannelClosed(id));
            }
            State::Closing => {}
            State::Opening | State::Open => {
                self.channels[at].state = State::Closing;
                // What was said before the end is said.
                self.feed(usize::MAX);
                self.reset(self.channels[at].stream);
            }
        }
        Ok(())
    }

    /// Queues a message.
    pub(super) fn send(&mut self, id: ChannelId, payload: Payload) -> Result<(), SendError> {
        let open = self.channels.iter().find(|c| c.id == id && c.state == State::Open);
        let stream = open.ok_or(SendError::NotOpen(id))?.stream;
        let (text, bytes) = payload.into_bytes();
        if bytes.len() > self.peer_takes {
            return Err(SendError::TooLarge { length: bytes.len(), limit: self.peer_takes });
        }
        let waiting = self.queued + self.given();
        if waiting + bytes.len() > self.limits.send_buffer {
            return Err(SendError::Full { waiting, limit: self.limits.send_buffer });
        }
        let (ppid, bytes) = match (text, bytes.is_empty()) {
            (true, false) => (Ppid::String, bytes),
            (false, false) => (Ppid::Binary, bytes),
            // SCTP has no empty messages (RFC 8831 §6.6).
            (true, true) => (Ppid::StringEmpty, Bytes::from_static(&[0])),
            (false, true) => (Ppid::BinaryEmpty, Bytes::from_static(&[0])),
        };
        self.queued += bytes.len();
        self.queue.push_back((stream, ppid, bytes));
        Ok(())
    }

    /// Gives the association messages until it has this much.
    fn feed(&mut self, ahead: usize) {
        while !self.queue.is_empty() && self.given() < ahead {
            let Some((stream, ppid, bytes)) = self.queue.pop_front() else { break };
            self.queued -= bytes.len();
            let Some((_, association)) = &mut self.association else { continue };
            // A stream that ended meanwhile takes nothing, and whoever sends to it is told that it ended.
            let Ok(mut stream) = association.stream(stream) else { continue };
            // The one way to write that keeps references to the bytes instead of a copy.
            let _ = stream.set_default_payload_type(ppid).and_then(|()| stream.write_chunks(&mut [bytes]));
        }
        if self.queue.is_empty() && self.queue.capacity() > 8 {
            self.queue = VecDeque::new();
        }
    }

    /// Bytes of a channel's messages that are not acknowledged.
    pub(super) fn buffered_in(&mut self, id: ChannelId) -> usize {
        let open = self.channels.iter().find(|c| c.id == id && c.state != State::Queued);
        open.map(|channel| channel.stream).map_or(0, |stream| self.buffered_on(stream))
    }

    fn buffered_on(&mut self, stream: StreamId) -> usize {
        let queued: usize = self.queue.iter().filter(|(on, ..)| *on == stream).map(|(.., bytes)| bytes.len()).sum();
        queued + self.given_on(stream)
    }

    fn given_on(&mut self, stream: StreamId) -> usize {
        let association = self.association.as_mut();
        let stream = association.and_then(|(_, association)| association.stream(stream).ok());
        stream.and_then(|stream| stream.buffered_amount().ok()).unwrap_or(0)
    }

    /// Bytes the association has and the peer did not acknowledge.
    fn given(&mut self) -> usize {
        (0..self.channels.len()).map(|at| self.given_on(self.channels[at].stream)).sum()
    }

    pub(super) fn status(&mut self) -> Vec<ChannelStatus> {
        let mut all = Vec::with_capacity(self.channels.len());
        for at in 0..self.channels.len() {
            let Channel { id, stream, state, .. } = self.channels[at];
            let buffered = if state == State::Queued { 0 } else { self.buffered_on(stream) };
            let label = self.channels[at].label.clone();
            all.push(ChannelStatus { channel: id, label, open: state == State::Open, buffered });
        }
        all
    }
}
