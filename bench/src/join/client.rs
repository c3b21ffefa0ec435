//! One synthetic Wire client, from its first request on: asks, answers, connects, agrees to everybody it is told of,
//! and stays until the run ends.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_control::sdp::SessionDescription;
use sluice_control::transport::{
    ChannelId, Credentials, DtlsVersion, Fingerprint, HashFunction, Identity, Limits, LocalCandidate, Output, Payload,
    Setup, Transport, TransportConfig,
};
use sluice_srtp::AnyProvider;
use sluice_table::Name;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::answer::{Own, answer};
use super::commit;
use super::http::Connection;
use super::message::{self, Incoming};
use super::streams::{Ear, Run, Sender};
use super::tally::{Agreements, Tally};
use super::voice::is_rtp;
use crate::random::Random;

/// How often a client gives a sign of life.
const PING: Duration = Duration::from_secs(5);
/// Time until the channel must be open.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest datagram read.
const DATAGRAM: usize = 2_048;
/// Datagrams read before others get their turn.
const BURST: usize = 32;

/// What all clients of a run share.
pub(super) struct World {
    pub(super) http: SocketAddr,
    pub(super) tls: Option<TlsConnector>,
    /// Address clients send from.
    pub(super) local: std::net::IpAddr,
    pub(super) identity: Arc<Identity>,
    pub(super) fingerprint: Fingerprint,
    pub(super) provider: Rc<RefCell<AnyProvider>>,
    pub(super) endpoint: Name,
    pub(super) seed: u64,
    pub(super) participants: u32,
    pub(super) watch: u32,
    pub(super) audio_ms: u32,
    pub(super) tally: RefCell<Tally>,
    pub(super) rooms: Vec<RefCell<Agreements>>,
    /// See [`super::commit`].
    pub(super) watch_for: commit::Watch,
    /// Runs of the media phase; `None` if there is none.
    pub(super) runs: Option<watch::Sender<Option<Run>>>,
}

impl World {
    /// A certificate's fingerprint as clients tell it.
    pub(super) fn fingerprint(identity: &Identity) -> Fingerprint {
        identity.fingerprint(HashFunction::Sha256)
    }
}

/// Runs a client; it ends only by failing, which is counted.
pub(super) async fn run(world: Rc<World>, room: u32, number: u32) {
    if let Err(why) = join(&world, room, number).await {
        *world.tally.borrow_mut().failed.entry(why).or_default() += 1;
    }
}

async fn join(world: &Rc<World>, room: u32, number: u32) -> Result<(), String> {
    let (session, user) = (format!("room{room:06}"), message::user(number));
    let path = format!("/sft/{session}");
    let start = Instant::now();
    let mut http = Connection::open(world.http, world.tls.as_ref()).await.map_err(|e| format!("connecting: {e}"))?;
    let body = ask(&mut http, &path, &message::confconn(&session, &user, world.watch)).await?;
    world.tally.borrow_mut().confconn.record(nanoseconds(start.elapsed()));
    let offered: Incoming<'_> = serde_json::from_slice(&body).map_err(|e| format!("the offer's message: {e}"))?;
    let Some(offer) = &offered.sdp else {
        return Err(format!("{} with status {:?} instead of an offer", offered.kind, offered.status));
    };
    let socket = UdpSocket::bind(SocketAddr::new(world.local, 0)).await.map_err(|e| format!("socket: {e}"))?;
    let address = socket.local_addr().map_err(|e| format!("socket: {e}"))?;
    let leg = room * world.participants + number;
    let (transport, credentials) = transport(world, leg, address, offer)?;
    let audio = 0x1000_0000 + leg;
    let own = Own { credentials: &credentials, fingerprint: &world.fingerprint, address, audio };
    let sdp = answer(offer, &own);
    let start = Instant::now();
    let body = ask(&mut http, &path, &message::setup(&session, &user, &sdp)).await?;
    drop(http);
    world.tally.borrow_mut().setup.record(nanoseconds(start.elapsed()));
    let taken: Incoming<'_> = serde_json::from_slice(&body).map_err(|e| format!("the answer's message: {e}"))?;
    if taken.status != Some(0) {
        return Err(format!("the answer got {} with status {:?}", taken.kind, taken.status));
    }
    let now = Instant::now();
    let client = Client {
        world: world.clone(),
        room,
        number,
        session,
        user,
        socket,
        transport,
        channel: None,
        sender: None,
        ear: None,
        runs: world.runs.as_ref().map(watch::Sender::subscribe),
        remote: None,
        audio,
        answered: now,
        ping: now + PING,
        speak: None,
        listed: false,
        complete: false,
        hears: false,
        watching: 0,
    };
    client.stay().await
}

async fn ask(http: &mut Connection, path: &str, body: &str) -> Result<Vec<u8>, String> {
    let (status, body) = http.post(path, body).await.map_err(|e| format!("http: {e}"))?;
    if status == 200 { Ok(body) } else { Err(format!("http {status}: {}", String::from_utf8_lossy(&body).trim())) }
}

/// The client's end of the connection, with the offer taken in.
fn transport(world: &World, leg: u32, address: SocketAddr, offer: &str) -> Result<(Transport, Credentials), String> {
    let mut random = Random::new(world.seed, u64::from(leg) + 1);
    let credentials = Credentials {
        ufrag: format!("{:016x}", random.word()),
        password: format!("{:016x}{:016x}", random.word(), random.word()),
    };
    let config = TransportConfig {
        controlling: false,
        tie_breaker: random.word(),
        credentials: credentials.clone(),
        locals: vec![LocalCandidate { endpoint: world.endpoint.clone(), address, advertised: address }],
        identity: world.identity.clone(),
        dtls: DtlsVersion::V1_2,
        sctp_connect: true,
        limits: Limits::default(),
    };
    let now = Instant::now();
    let mut transport = Transport::new(config, now);
    let description = SessionDescription::parse(offer).map_err(|e| format!("the offer: {e}"))?;
    let mut remote = description.remote_description().map_err(|e| format!("the offer: {e}"))?;
    // The answer chose to be active.
    remote.setup = Setup::Passive;
    transport.set_remote(now, &remote).map_err(|e| format!("the offer: {e}"))?;
    Ok((transport, credentials))
}

/// A client that has answered.
struct Client {
    world: Rc<World>,
    room: u32,
    number: u32,
    session: String,
    user: String,
    socket: UdpSocket,
    transport: Transport,
    channel: Option<ChannelId>,
    /// The first client of a conference speaks; in the media phase all do.
    sender: Option<Sender>,
    /// Opens some of what comes in the media phase.
    ear: Option<Ear>,
    runs: Option<watch::Receiver<Option<Run>>>,
    /// Where its media goes.
    remote: Option<SocketAddr>,
    audio: u32,
    answered: Instant,
    ping: Instant,
    speak: Option<Instant>,
    listed: bool,
    complete: bool,
    hears: bool,
    /// Participants it asked to see so far.
    watching: usize,
}

impl Client {
    async fn stay(mut self) -> Result<(), String> {
        let mut buffer = [0; DATAGRAM];
        loop {
            self.settle().await?;
            let media = self.sender.as_ref().and_then(Sender::next);
            let next = [self.transport.next_timeout(), self.speak, media, Some(self.ping)].into_iter().flatten().min();
            let next = next.unwrap_or(self.ping);
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    let (length, from) = received.map_err(|e| format!("receiving: {e}"))?;
                    self.datagram(from, &buffer[..length]);
                    for _ in 1..BURST {
                        let Ok((length, from)) = self.socket.try_recv_from(&mut buffer) else { break };
                        self.datagram(from, &buffer[..length]);
                    }
                }
                run = begun(&mut self.runs) => {
                    self.speak = None;
                    if let Some(sender) = &mut self.sender {
                        sender.begin(run);
                    }
                }
                () = tokio::time::sleep_until(next.into()) => self.due().await?,
            }
        }
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        if !is_rtp(bytes) {
            // RTCP says nothing to a client that has no encoder.
            if bytes.first().is_some_and(|first| first >> 6 == 2) {
                self.world.tally.borrow_mut().media.rtcp += 1;
                return;
            }
            self.transport.handle_datagram(Instant::now(), &self.world.endpoint, from, bytes);
            return;
        }
        let mut tally = self.world.tally.borrow_mut();
        tally.received += 1;
        commit::note(&self.world.watch_for, bytes);
        if let Some(ear) = &mut self.ear {
            ear.take(bytes, &mut tally.media);
        }
        if !self.hears {
            self.hears = true;
            tally.hearing += 1;
            tally.heard_ssrcs.insert(u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]));
            if let Some(since) = self.world.rooms[self.room as usize].borrow().since(self.number) {
                tally.heard.record(nanoseconds(since.elapsed()));
            }
        }
    }

    async fn due(&mut self) -> Result<(), String> {
        let now = Instant::now();
        if self.transport.next_timeout().is_some_and(|at| at <= now) {
            self.transport.handle_timeout(now);
        }
        if self.ping <= now {
            self.ping += PING;
            if self.channel.is_some() {
                let text = message::ping(&self.session, &self.user);
                self.send(text)?;
            } else if self.answered + PATIENCE <= now {
                return Err("the channel did not open".to_owned());
            }
        }
        if self.speak.is_some_and(|at| at <= now) {
            self.speak = Some(now + Duration::from_millis(u64::from(self.world.audio_ms)));
            let every = self.world.audio_ms;
            if let Some(packet) = self.sender.as_mut().and_then(|sender| sender.audio.speech(every))
                && let Some(to) = self.remote
            {
                self.socket.send_to(&packet, to).await.map_err(|e| format!("sending: {e}"))?;
                self.world.tally.borrow_mut().sent += 1;
            }
        }
        if let (Some(sender), Some(to)) = (&mut self.sender, self.remote) {
            loop {
                let packet = sender.due(now, &mut self.world.tally.borrow_mut().media);
                let Some(packet) = packet else { break };
                self.socket.send_to(&packet, to).await.map_err(|e| format!("sending: {e}"))?;
            }
        }
        Ok(())
    }

    /// Does what the transport wants until it wants nothing more.
    async fn settle(&mut self) -> Result<(), String> {
        while let Some(output) = self.transport.poll(Instant::now()) {
            match output {
                Output::Datagram { to, bytes, .. } => {
                    self.socket.send_to(&bytes, to).await.map_err(|e| format!("sending: {e}"))?;
                }
                Output::Connected(connection) => {
                    let now = Instant::now();
                    let provider = &self.world.provider;
                    let speaks = self.number == 0 && self.world.audio_ms > 0;
                    if speaks || self.runs.is_some() {
                        let key = &connection.outbound;
                        self.sender =
                            Some(Sender::new(provider.clone(), key, self.audio, self.number, self.world.seed));
                    }
                    self.speak = speaks.then_some(now);
                    self.ear = self.runs.is_some().then(|| Ear::new(provider.clone(), &connection.inbound));
                    self.remote = connection.ice.tuples.first().copied();
                    self.transport.release();
                }
                Output::ChannelOpen { channel, .. } => self.open(channel)?,
                Output::Message { bytes, .. } => self.message(&bytes)?,
                Output::ChannelClosed(_) => return Err("the node closed the channel".to_owned()),
                Output::Closed(why) => return Err(why.to_string()),
                Output::Moved(_) => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, channel: ChannelId) -> Result<(), String> {
        self.channel = Some(channel);
        {
            let mut tally = self.world.tally.borrow_mut();
            tally.open += 1;
            tally.last_open = Some(Instant::now());
            tally.channel.record(nanoseconds(self.answered.elapsed()));
        }
        self.ping = Instant::now() + PING;
        self.send(message::propsync(&self.session, &self.user))
    }

    fn send(&mut self, text: String) -> Result<(), String> {
        let Some(channel) = self.channel else { return Ok(()) };
        self.transport.send(channel, Payload::Text(text.into())).map_err(|e| format!("channel: {e}"))
    }

    fn message(&mut self, bytes: &[u8]) -> Result<(), String> {
        let read: Incoming<'_> = serde_json::from_slice(bytes).map_err(|e| format!("a message: {e}"))?;
        if read.kind != "CONFPART" {
            return Ok(());
        }
        let now = Instant::now();
        let all = read.participants.len() == self.world.participants as usize;
        {
            let mut tally = self.world.tally.borrow_mut();
            tally.lists += 1;
            tally.list_bytes += bytes.len() as u64;
            if !std::mem::replace(&mut self.listed, true) {
                tally.listed.record(nanoseconds(self.answered.elapsed()));
            }
            if all && !std::mem::replace(&mut self.complete, true) {
                tally.complete += 1;
            }
        }
        let mut others: Vec<u32> = read.participants.iter().filter_map(|one| message::number(one.userid)).collect();
        {
            let mut agreements = self.world.rooms[self.room as usize].borrow_mut();
            for other in &others {
                agreements.agree(self.number, *other, now);
            }
        }
        self.send(message::agreement(&self.user, &read.participants))?;
        if self.runs.is_some() {
            // Those after oneself, so that everybody is seen by as many; asked for once everybody is there.
            let all = self.world.participants;
            others.sort_unstable_by_key(|other| (other + all - self.number) % all);
        }
        let wanted = others.iter().filter(|other| **other != self.number).take(self.world.watch as usize);
        let wanted: Vec<String> = wanted.map(|other| message::user(*other)).collect();
        if wanted.len() > self.watching && (all || self.runs.is_none()) {
            self.watching = wanted.len();
            self.send(message::confstreams(&self.session, &self.user, &wanted))?;
        }
        Ok(())
    }
}

/// The next run of the media phase; never, if there is none.
async fn begun(runs: &mut Option<watch::Receiver<Option<Run>>>) -> Run {
    if let Some(runs) = runs {
        while runs.changed().await.is_ok() {
            if let Some(run) = *runs.borrow_and_update() {
                return run;
            }
        }
    }
    std::future::pending().await
}

fn nanoseconds(time: Duration) -> i64 {
    time.as_nanos() as i64
}
