//! The machine: sorts datagrams to ICE and DTLS, starts DTLS once ICE heard the peer, hands keys and tuples over, and
//! keeps the last flight back until the leg is there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_srtp::key::MasterKey;
use sluice_srtp::profile::Profile;
use sluice_table::{Ice, Name};

use super::config::{
    ChannelId, CloseReason, Connection, DtlsVersion, Limits, Output, Path, Payload, SendError, TransportConfig,
    TransportError,
};
use super::dtls::{Association, DtlsEvent};
use super::ice::Agent;
use super::pair::Tuple;
use super::sctp::{Sctp, SctpEvent};
use super::select;
use super::stun::{self, Protocol};
use super::{Candidate, Credentials, Fingerprint, Identity, RemoteDescription, Setup};

/// How long datagrams wait for [`Transport::release`] after keys exist.
const HOLD: Duration = Duration::from_millis(100);
/// Datagrams held; more of them leave at once.
const HELD: usize = 64;
/// Packets sealed before what they became is taken. `dimpl` queues ten, and never gives back a buffer it needed.
const SEALED: usize = 4;
/// Hellos of one transport that may make no sense.
const GARBLED: u64 = 16;
/// Longest datagram looked at.
const MAX_DATAGRAM: usize = 2_048;

/// One peer connection. Time is given, randomness is given; nothing here touches a socket.
///
/// After calls, [`Transport::poll`] until it gives nothing more, then wait for a datagram or for
/// [`Transport::next_timeout`]. Several datagrams and messages before the first poll are worked on together: that
/// makes fewer acknowledgements and fuller packets than one at a time.
#[derive(Debug)]
pub struct Transport {
    pub(super) agent: Agent,
    pub(super) identity: Arc<Identity>,
    pub(super) version: DtlsVersion,
    pub(super) sctp_connect: bool,
    /// Fingerprints of the peer and whether we are the DTLS client.
    pub(super) peer: Option<(Vec<Fingerprint>, bool)>,
    pub(super) dtls: Option<Association>,
    pub(super) sctp: Sctp,
    pub(super) keys: Option<(MasterKey, MasterKey)>,
    pub(super) profile: Option<Profile>,
    /// The path last told, once connected.
    pub(super) path: Option<Path>,
    pub(super) held: Vec<Vec<u8>>,
    pub(super) hold_until: Option<Instant>,
    pub(super) establish_by: Option<Instant>,
    pub(super) closed: Option<CloseReason>,
    pub(super) outputs: VecDeque<Output>,
    /// Whether anything happened since [`Transport::work`].
    pub(super) pending: bool,
}

impl Transport {
    /// A transport that waits for its peer. It costs an allocation or two until then.
    pub fn new(config: TransportConfig, now: Instant) -> Transport {
        let TransportConfig { controlling, tie_breaker, credentials, locals, identity, dtls, sctp_connect, limits } =
            config;
        let Limits { establish, .. } = limits;
        Transport {
            agent: Agent::new(credentials, controlling, tie_breaker, locals, limits),
            identity,
            version: dtls,
            sctp_connect,
            peer: None,
            dtls: None,
            sctp: Sctp::new(limits),
            keys: None,
            profile: None,
            path: None,
            held: Vec::new(),
            hold_until: None,
            establish_by: Some(now + establish),
            closed: None,
            outputs: VecDeque::new(),
            pending: false,
        }
    }

    /// Takes the peer's description, the first one or one of an ICE restart.
    pub fn set_remote(&mut self, now: Instant, remote: &RemoteDescription) -> Result<(), TransportError> {
        if self.closed.is_some() {
            return Err(TransportError::Closed);
        }
        let Credentials { ufrag, password } = &remote.credentials;
        if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&password.len()) {
            return Err(TransportError::Credentials);
        }
        match &self.peer {
            _ if remote.fingerprints.is_empty() => return Err(TransportError::NoFingerprint),
            Some((known, _)) if *known != remote.fingerprints => return Err(TransportError::FingerprintChanged),
            Some(_) => {}
            None => {
                let active = remote.setup == Setup::Passive;
                self.peer = Some((remote.fingerprints.clone(), active));
                self.sctp.set_peer(remote.max_message_size, active);
            }
        }
        self.agent.set_remote(now, &remote.credentials, remote.ice_lite);
        for candidate in &remote.candidates {
            self.agent.add_candidate(now, candidate);
        }
        self.pending = true;
        Ok(())
    }

    /// Takes another candidate of the peer.
    pub fn add_candidate(&mut self, now: Instant, candidate: &Candidate) {
        if self.closed.is_none() {
            self.agent.add_candidate(now, candidate);
            self.pending = true;
        }
    }

    /// Our current user fragment and password.
    pub fn credentials(&self) -> &Credentials {
        &self.agent.local
    }

    /// Starts an ICE restart with new credentials. What runs goes on until a tuple of the new session is validated,
    /// which [`Output::Moved`] tells; the peer's new credentials come by [`Transport::set_remote`].
    pub fn restart(&mut self, credentials: Credentials) {
        if self.closed.is_none() {
            self.agent.restart(credentials);
            self.pending = true;
        }
    }

    /// Takes a datagram that arrived at an endpoint.
    pub fn handle_datagram(&mut self, now: Instant, endpoint: &Name, from: SocketAddr, bytes: &[u8]) {
        if self.closed.is_some() {
            return;
        }
        let local = self.agent.locals.iter().position(|local| local.endpoint == *endpoint);
        let Some(local) = local.filter(|_| bytes.len() <= MAX_DATAGRAM) else {
            self.agent.ignored.stray += 1;
            return;
        };
        let tuple = Tuple { local, remote: from };
        match stun::protocol(bytes) {
            Protocol::Stun => self.agent.handle(now, tuple, bytes),
            Protocol::Dtls if self.peer.is_some() && self.agent.admits(tuple, bytes.len()) => {
                self.handle_dtls(now, bytes);
            }
            Protocol::Dtls => self.agent.ignored.early += 1,
            Protocol::Other => self.agent.ignored.stray += 1,
        }
        self.pending = true;
    }

    fn handle_dtls(&mut self, now: Instant, bytes: &[u8]) {
        let result = match self.start_dtls(now) {
            Ok(dtls) => dtls.handle(now, bytes),
            Err(reason) => Err(reason),
        };
        self.drain_dtls(now, result);
    }

    fn start_dtls(&mut self, now: Instant) -> Result<&mut Association, CloseReason> {
        if self.dtls.is_none() {
            let (fingerprints, active) = self.peer.clone().ok_or(CloseReason::Dtls)?;
            let rtt = self.agent.rtt();
            self.dtls = Some(Association::new(now, &self.identity, self.version, active, fingerprints, rtt)?);
        }
        self.dtls.as_mut().ok_or(CloseReason::Dtls)
    }

    /// Takes what DTLS has, and gives what that brings to SCTP.
    fn drain_dtls(&mut self, now: Instant, result: Result<(), CloseReason>) {
        let (mut datagrams, mut events) = (Vec::new(), Vec::new());
        let Some(dtls) = &mut self.dtls else {
            result.unwrap_or_else(|reason| self.end(reason));
            return;
        };
        // Even a failed handshake has an alert to send.
        let drained = dtls.drain(&mut datagrams, &mut events);
        let mut peer_closed = false;
        for event in events {
            match event {
                DtlsEvent::Keys { inbound, outbound } => {
                    self.profile = Some(inbound.profile());
                    self.keys = Some((inbound, outbound));
                    self.hold_until = Some(now + HOLD);
                    if self.sctp_connect {
                        self.sctp.connect();
                    }
                }
                DtlsEvent::Data(packet) => self.sctp.handle(now, packet),
                DtlsEvent::Closed => peer_closed = true,
            }
        }
        for datagram in datagrams {
            self.send_or_hold(datagram);
        }
        if peer_closed {
            // What came before the end still counts.
            let mut events = Vec::new();
            self.sctp.drain(now, &mut Vec::new(), &mut events);
            self.tell(events);
        }
        // What is wrong with the certificate says more than that its signature did not verify.
        let result = if peer_closed { Err(CloseReason::Peer) } else { drained.and(result) };
        match (result, &self.dtls) {
            (Ok(()), _) => {}
            // Nothing of it was seen by the peer, whose next hello finds a new association.
            (Err(CloseReason::Dtls), Some(dtls)) if !dtls.spoke() && self.agent.ignored.garbled < GARBLED => {
                self.agent.ignored.garbled += 1;
                self.dtls = None;
            }
            (Err(reason), _) => self.end(reason),
        }
    }

    /// Takes what SCTP has and seals it.
    fn drain_sctp(&mut self, now: Instant) {
        let (mut packets, mut events) = (Vec::new(), Vec::new());
        self.sctp.drain(now, &mut packets, &mut events);
        for packets in packets.chunks(SEALED) {
            let Some(dtls) = &mut self.dtls else { break };
            let result = packets.iter().try_for_each(|packet| dtls.send(packet));
            self.drain_dtls(now, result);
        }
        self.tell(events);
    }

    fn tell(&mut self, events: Vec<SctpEvent>) {
        for event in events {
            if self.closed.is_some() {
                return;
            }
            let output = match event {
                SctpEvent::Open(channel, label) => Output::ChannelOpen { channel, label },
                SctpEvent::Message { channel, text, bytes } => Output::Message { channel, text, bytes },
                SctpEvent::ChannelClosed(channel) => Output::ChannelClosed(channel),
                SctpEvent::Lost(reason) => {
                    self.end(reason);
                    continue;
                }
            };
            self.outputs.push_back(output);
        }
    }

    fn send_or_hold(&mut self, datagram: Vec<u8>) {
        if self.hold_until.is_some() && self.held.len() < HELD {
            self.held.push(datagram);
        } else {
            self.send_datagram(datagram);
        }
    }

    fn send_datagram(&mut self, bytes: Vec<u8>) {
        let Some(tuple) = self.agent.target() else { return };
        if self.agent.spend(tuple, bytes.len()) {
            self.push_datagram(tuple, bytes);
        }
    }

    fn push_datagram(&mut self, tuple: Tuple, bytes: Vec<u8>) {
        let endpoint = self.agent.locals[tuple.local].endpoint.clone();
        self.outputs.push_back(Output::Datagram { endpoint, to: tuple.remote, bytes });
    }

    /// Lets the datagrams go that waited for the leg. To be called once the forwarder has the keys.
    pub fn release(&mut self) {
        self.hold_until = None;
        for datagram in std::mem::take(&mut self.held) {
            self.send_datagram(datagram);
        }
        self.pending = true;
    }

    /// Everything that may follow from whatever just happened.
    fn work(&mut self, now: Instant) {
        if self.closed.is_none() {
            self.agent.handle_timeout(now);
        }
        while let Some((tuple, bytes)) = self.agent.poll() {
            self.push_datagram(tuple, bytes);
        }
        if self.closed.is_some() {
            return;
        }
        let active = self.peer.as_ref().is_some_and(|(_, active)| *active);
        if active && self.dtls.is_none() && self.agent.heard && self.agent.target().is_some() {
            let result = self.start_dtls(now).map(|_| ());
            self.drain_dtls(now, result);
        }
        self.drain_sctp(now);
        if self.closed.is_some() {
            return;
        }
        if self.keys.is_some() && self.path.is_none() && self.agent.selection.establish(&self.agent.pairs) {
            self.connect();
        } else if self.path.is_some() && self.agent.selection.take_changed() {
            let path = self.current_path();
            if path.is_some() && path != self.path {
                self.path.clone_from(&path);
                self.outputs.extend(path.map(Output::Moved));
            }
        }
    }

    fn connect(&mut self) {
        let (Some(path), Some((inbound, outbound))) = (self.current_path(), self.keys.take()) else { return };
        let connection = Connection { endpoint: path.endpoint.clone(), inbound, outbound, ice: path.ice.clone() };
        self.path = Some(path);
        self.establish_by = None;
        self.outputs.push_back(Output::Connected(Box::new(connection)));
    }

    fn current_path(&self) -> Option<Path> {
        let tuples = self.agent.selection.tuples(&self.agent.pairs);
        let endpoint = self.agent.locals[tuples.first()?.local].endpoint.clone();
        let (local, remote) = (&self.agent.local, self.agent.remote.as_ref()?);
        let ice = Ice {
            local_ufrag: local.ufrag.clone(),
            local_password: local.password.clone(),
            remote_ufrag: remote.ufrag.clone(),
            remote_password: remote.password.clone(),
            controlling: self.agent.controlling,
            tie_breaker: self.agent.tie_breaker,
            tuples: select::addresses(&tuples),
        };
        Some(Path { endpoint, ice })
    }

    /// When [`Transport::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.closed.is_some() {
            return None;
        }
        let dtls = self.dtls.as_ref().and_then(Association::next_timeout);
        let own = self.establish_by.into_iter().chain(self.hold_until);
        own.chain(self.agent.next_timeout()).chain(dtls).chain(self.sctp.next_timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        if self.establish_by.is_some_and(|by| by <= now) {
            let answered = self.agent.pairs.iter().any(super::pair::Pair::validated);
            let reason = match (self.agent.heard, answered) {
                (false, _) => CloseReason::Unreachable,
                (true, false) => CloseReason::NoAnswer,
                (true, true) => CloseReason::DtlsTimeout,
            };
            self.end(reason);
            return;
        }
        if self.hold_until.is_some_and(|until| until <= now) {
            self.release();
        }
        if self.dtls.as_ref().and_then(Association::next_timeout).is_some_and(|at| at <= now) {
            let result = self.dtls.as_mut().map_or(Ok(()), |dtls| dtls.handle_timeout(now));
            self.drain_dtls(now, result);
        }
        if self.sctp.next_timeout().is_some_and(|at| at <= now) {
            self.sctp.handle_timeout(now);
        }
        self.pending = true;
    }

    /// What to do next; `None` when there is nothing more for now.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        if self.outputs.is_empty() && std::mem::take(&mut self.pending) {
            self.work(now);
        }
        self.outputs.pop_front()
    }

    /// Opens an ordered reliable channel; [`Output::ChannelOpen`] tells when the peer took it.
    pub fn open_channel(&mut self, label: &str) -> Result<ChannelId, SendError> {
        if self.closed.is_some() {
            return Err(SendError::Closed);
        }
        let channel = self.sctp.open(label)?;
        self.pending = true;
        Ok(channel)
    }

    /// Closes a channel; [`Output::ChannelClosed`] follows.
    pub fn close_channel(&mut self, channel: ChannelId) -> Result<(), SendError> {
        let mut events = Vec::new();
        self.sctp.close_channel(channel, &mut events)?;
        self.tell(events);
        self.pending = true;
        Ok(())
    }

    /// Bytes of messages of a channel that wait to be sent or acknowledged.
    pub fn buffered(&mut self, channel: ChannelId) -> usize {
        self.sctp.buffered_in(channel)
    }

    /// Sends a message on an open channel.
    pub fn send(&mut self, channel: ChannelId, payload: Payload) -> Result<(), SendError> {
        if self.closed.is_some() {
            return Err(SendError::Closed);
        }
        self.sctp.send(channel, payload)?;
        self.pending = true;
        Ok(())
    }

    /// Tells the peer by `close_notify` and ends. Its datagram and [`Output::Closed`] still come out of
    /// [`Transport::poll`].
    pub fn close(&mut self, now: Instant) {
        if self.closed.is_none() {
            self.release();
            // What was said before goes out before.
            self.work(now);
        }
        if self.closed.is_none() {
            self.end(CloseReason::Local);
        }
    }

    fn end(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(reason);
        (self.hold_until, self.keys) = (None, None);
        let mut datagrams = std::mem::take(&mut self.held);
        if let Some(mut dtls) = self.dtls.take() {
            dtls.close();
            // Its events and errors have nobody left to tell.
            let _ = dtls.drain(&mut datagrams, &mut Vec::new());
        }
        for datagram in datagrams {
            self.send_datagram(datagram);
        }
        self.outputs.push_back(Output::Closed(reason));
    }
}
