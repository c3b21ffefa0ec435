//! A Wire client: CONFCONN, SETUP and its answer over HTTP, then ICE, DTLS, the channel and SRTP over a socket of its
//! own, driven by a thread. Behaves as a browser does unless a test makes it misbehave.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_control::sdp::SessionDescription;
use sluice_control::transport::{
    ChannelId, CloseReason, Credentials, DtlsVersion, HashFunction, Identity, Limits, LocalCandidate, Output, Payload,
    Transport, TransportConfig,
};
use sluice_srtp::MasterKey;
use sluice_table::Name;

use super::media::{Camera, Ear, Voice};
use super::stun::Check;
use super::{Answer, Lab};

/// Between packets of a voice.
const PACKET: Duration = Duration::from_millis(20);
const PING: Duration = Duration::from_secs(2);
/// Between consent checks; browsers take 4 to 6 s, but nobody here has that time.
const CONSENT: Duration = Duration::from_millis(500);

pub fn identity() -> Arc<Identity> {
    static ONE: OnceLock<Arc<Identity>> = OnceLock::new();
    ONE.get_or_init(|| Arc::new(Identity::generate().unwrap())).clone()
}

pub fn message(conv: &str, kind: &str, user: &str, resp: bool, more: &Value) -> Value {
    let mut message = json!({"version": "3.0", "type": kind, "sessid": conv, "src_userid": user, "src_clientid": "_",
        "dest_userid": "SFT", "dest_clientid": "_", "resp": resp});
    for (key, value) in more.as_object().unwrap() {
        message[key] = value.clone();
    }
    message
}

pub fn confconn(conv: &str, user: &str, update: bool) -> Value {
    let more = json!({"update": update, "tool": "avs 10.5.8 (?/?)", "toolver": "10.5.8", "env": 0, "status": 0,
        "selective_audio": true, "selective_video": true, "vstreams": 2});
    message(conv, "CONFCONN", user, false, &more)
}

/// What a test may look at and change while the client runs.
pub struct Inner {
    pub socket: UdpSocket,
    pub server: SocketAddr,
    pub transport: Transport,
    pub ours: Credentials,
    pub theirs: Credentials,
    pub voice: Option<Voice>,
    pub camera: Option<Camera>,
    pub ear: Option<Ear>,
    key: Option<MasterKey>,
    cameras: u32,
    pub channel: Option<ChannelId>,
    /// Users of the newest list.
    pub listed: Vec<String>,
    pub pongs: u64,
    pub closed: Vec<CloseReason>,
    /// Whether it talks, pings and checks; a client that does not is only heard of by what a test sends.
    pub behaves: bool,
    /// What was sent, for replays; the newest few.
    pub sent: Vec<Vec<u8>>,
    /// The first DTLS record sent.
    pub hello: Vec<u8>,
    user: String,
    conv: String,
    ssrc: u32,
    next: [Instant; 3],
    checks: u64,
}

/// The client; gone without a word when dropped.
pub struct Client {
    inner: Arc<Mutex<Inner>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Comes in by HTTP; the rest follows in the background.
    #[track_caller]
    pub fn join(lab: &Lab, user: &str, update: bool) -> Client {
        let setup = lab.post(&confconn(super::CONV, user, update)).json();
        let kind = if update { "UPDATE" } else { "SETUP" };
        assert_eq!(setup["type"], kind, "{setup}");
        let offer = setup["sdp"].as_str().unwrap();
        let theirs = SessionDescription::parse(offer).unwrap().remote_description().unwrap();
        let socket = socket();
        let address = socket.local_addr().unwrap();
        let seed = u32::from(address.port());
        let ours = Credentials { ufrag: format!("u{seed:07}"), password: format!("{seed:0>24}") };
        let config = TransportConfig {
            controlling: false,
            tie_breaker: 7,
            credentials: ours.clone(),
            locals: vec![LocalCandidate { endpoint: Name::new("me").unwrap(), address, advertised: address }],
            identity: identity(),
            dtls: DtlsVersion::V1_2,
            sctp_connect: true,
            limits: Limits::default(),
        };
        let now = Instant::now();
        let mut transport = Transport::new(config, now);
        // The server answers DTLS; we ask.
        let passive = sluice_control::transport::RemoteDescription {
            setup: sluice_control::transport::Setup::Passive,
            ..theirs.clone()
        };
        transport.set_remote(now, &passive).unwrap();
        let ssrc = 0x1000_0000 + seed;
        let text = answer(offer, &ours, address, ssrc);
        let props = json!({"videosend": "true", "screensend": "false", "audiocbr": "true", "muted": "false"});
        let reply = lab.post(&message(super::CONV, kind, user, true, &json!({"sdp": text, "props": props})));
        assert_eq!(reply.json()["status"], 0, "{}", reply.body);
        let inner = Inner {
            socket,
            server: lab.media,
            transport,
            ours,
            theirs: theirs.credentials,
            voice: None,
            camera: None,
            ear: None,
            key: None,
            cameras: 0,
            channel: None,
            listed: Vec::new(),
            pongs: 0,
            closed: Vec::new(),
            behaves: true,
            sent: Vec::new(),
            hello: Vec::new(),
            user: user.to_owned(),
            conv: super::CONV.to_owned(),
            ssrc,
            next: [now; 3],
            checks: 0,
        };
        let inner = Arc::new(Mutex::new(inner));
        let stop = Arc::new(AtomicBool::new(false));
        let (of_thread, told) = (inner.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                of_thread.lock().unwrap_or_else(PoisonError::into_inner).step();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Client { inner, stop, thread: Some(thread) }
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    pub fn wait(&self, what: &str, so: impl Fn(&Inner) -> bool) {
        super::wait(what, || so(&self.inner()));
    }

    /// Packets of the others it opened so far.
    pub fn heard(&self) -> u64 {
        self.inner().ear.as_ref().map_or(0, |ear| ear.heard)
    }

    #[track_caller]
    pub fn assert_unharmed(&self) {
        let inner = self.inner();
        assert_eq!(inner.closed, [], "{}'s call ended", inner.user);
        let ear = inner.ear.as_ref().unwrap();
        assert_eq!((ear.unopened, ear.twice), (0, 0), "{}", inner.user);
    }

    /// Waits for so many packets more.
    #[track_caller]
    pub fn hears_on(&self, packets: u64) {
        let before = self.heard();
        self.wait("packets", |inner| inner.ear.as_ref().is_some_and(|ear| ear.heard >= before + packets));
    }

    /// From now on the client sends a picture.
    pub fn film(&self) {
        let mut inner = self.inner();
        let key = inner.key.clone().unwrap();
        inner.cameras += 1;
        let ssrc = inner.ssrc + (inner.cameras << 24);
        inner.camera = Some(Camera::new(&key, ssrc));
    }

    /// Wants to see another one, in a quality of the protocol: 1 is low, 2 is high.
    pub fn watch(&self, user: &str, quality: u8) {
        let streams = json!({"mode": "list", "streams": [{"userid": user, "quality": quality}]});
        let mut inner = self.inner();
        let text = message(super::CONV, "CONFSTREAMS", &inner.user, false, &streams).to_string();
        assert!(inner.say(&text));
    }

    /// Waits for so many packets more of a layer.
    #[track_caller]
    pub fn sees_on(&self, layer: usize, packets: u64) {
        let seen = |inner: &Inner| inner.ear.as_ref().map_or(0, |ear| ear.seen[layer]);
        let before = seen(&self.inner());
        self.wait("packets of a picture", |inner| seen(inner) >= before + packets);
    }

    /// Sends on the channel.
    pub fn say(&self, text: &str) -> bool {
        self.inner().say(text)
    }

    /// Sends from the client's own address.
    pub fn send(&self, bytes: &[u8]) {
        let inner = self.inner();
        inner.socket.send_to(bytes, inner.server).unwrap();
    }

    /// From now on the client is at another port.
    pub fn move_away(&self) {
        self.inner().socket = socket();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told already.
            let _ = thread.join();
        }
    }
}

/// Two clients that hear each other.
pub fn call(lab: &Lab) -> [Client; 2] {
    let clients = ["alice", "bob"].map(|user| Client::join(lab, user, false));
    for client in &clients {
        client.wait("an open channel and a list", |inner| inner.channel.is_some() && inner.listed.len() == 2);
    }
    for client in &clients {
        client.hears_on(20);
    }
    clients
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

impl Inner {
    fn step(&mut self) {
        let now = Instant::now();
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            let bytes = &buffer[..length];
            match bytes.first() {
                Some(128..=191) if length > 1 && (192..=223).contains(&bytes[1]) => {}
                Some(128..=191) => {
                    if let Some(ear) = &mut self.ear {
                        ear.take(bytes);
                    }
                }
                _ => self.transport.handle_datagram(now, &Name::new("me").unwrap(), from, bytes),
            }
        }
        if self.transport.next_timeout().is_some_and(|at| at <= now) {
            self.transport.handle_timeout(now);
        }
        self.poll(now);
        if self.voice.is_some() && self.behaves {
            self.live(now);
        }
    }

    fn poll(&mut self, now: Instant) {
        while let Some(output) = self.transport.poll(now) {
            match output {
                Output::Datagram { bytes, .. } => self.transmit(bytes),
                Output::Connected(connection) => {
                    self.voice = Some(Voice::new(&connection.outbound, self.ssrc));
                    self.ear = Some(Ear::new(&connection.inbound));
                    self.key = Some(connection.outbound.clone());
                    self.next = [now; 3];
                    self.transport.release();
                }
                Output::ChannelOpen { channel, .. } => self.channel = Some(channel),
                Output::Message { bytes, .. } => self.message(&bytes),
                Output::Moved(_) | Output::ChannelClosed(_) => {}
                Output::Closed(reason) => self.closed.push(reason),
            }
        }
    }

    fn transmit(&mut self, bytes: Vec<u8>) {
        // A full buffer loses packets, as a network does.
        let _ = self.socket.send_to(&bytes, self.server);
        if self.hello.is_empty() && bytes[0] == 22 {
            self.hello.clone_from(&bytes);
        }
        self.sent.push(bytes);
        if self.sent.len() > 256 {
            self.sent.remove(0);
        }
    }

    fn live(&mut self, now: Instant) {
        // After a pause only the newest is due.
        let due = |at: &mut Instant, every: Duration| {
            let due = *at <= now;
            if due {
                *at = (*at + every).max(now);
            }
            due
        };
        let [packet, ping, consent] = &mut self.next;
        let (packet, ping, consent) = (due(packet, PACKET), due(ping, PING), due(consent, CONSENT));
        if packet && let Some(voice) = &mut self.voice {
            let bytes = voice.packet();
            self.transmit(bytes);
            for bytes in self.camera.as_mut().map(Camera::packets).into_iter().flatten() {
                self.transmit(bytes);
            }
        }
        if consent {
            let bytes = self.check().write();
            self.transmit(bytes);
        }
        if ping && self.channel.is_some() {
            let text = message(&self.conv, "PING", &self.user, false, &json!({})).to_string();
            self.say(&text);
        }
    }

    /// A correct check as this client sends it.
    pub fn check(&mut self) -> Check<'_> {
        self.checks += 1;
        let mut transaction = *b"????consents";
        transaction[..4].copy_from_slice(&(self.checks as u32).to_be_bytes());
        Check {
            username: format!("{}:{}", self.theirs.ufrag, self.ours.ufrag),
            password: &self.theirs.password,
            transaction,
            use_candidate: false,
            controlling: false,
            padding: 0,
        }
    }

    pub fn say(&mut self, text: &str) -> bool {
        let Some(channel) = self.channel else { return false };
        let now = Instant::now();
        let sent = self.transport.send(channel, Payload::Text(text.to_owned().into())).is_ok();
        self.poll(now);
        sent
    }

    fn message(&mut self, bytes: &[u8]) {
        let message: Value = serde_json::from_slice(bytes).expect("the server sends JSON");
        match message["type"].as_str() {
            Some("PING") => self.pongs += 1,
            Some("CONFPART") => {
                let list = message["participants"].as_array().unwrap();
                self.listed = list.iter().map(|entry| entry["userid"].as_str().unwrap().to_owned()).collect();
                let others = list.iter().filter(|entry| entry["userid"] != self.user.as_str());
                let others: Vec<Value> = others
                    .map(|entry| {
                        let mut entry = entry.clone();
                        entry["authorized"] = json!(true);
                        entry
                    })
                    .collect();
                let text = self::message("", "CONFPART", &self.user, true, &json!({"participants": others}));
                self.say(&text.to_string());
            }
            _ => {}
        }
    }
}

/// An answer that takes everything offered and sends audio and layers.
pub fn answer(offer: &str, ours: &Credentials, address: SocketAddr, ssrc: u32) -> String {
    let mut text = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let fingerprint = identity().fingerprint(HashFunction::Sha256);
    let mut inside = false;
    for line in offer.lines() {
        if line.starts_with("a=group:BUNDLE") {
            let _ = write!(text, "{line}\r\n");
        }
        if line.starts_with("m=") {
            inside = true;
            let _ = write!(
                text,
                "{line}\r\nc=IN IP4 127.0.0.1\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=setup:active\r\n\
                 a=fingerprint:{fingerprint}\r\na=candidate:1 1 udp 2122260223 {} {} typ host\r\n",
                ours.ufrag,
                ours.password,
                address.ip(),
                address.port()
            );
        }
        let kept =
            ["a=mid:", "a=rtpmap:", "a=fmtp:", "a=extmap:", "a=rtcp-fb:", "a=rtcp-mux", "a=sctp-port", "a=sctpmap"];
        if inside && kept.iter().any(|prefix| line.starts_with(prefix)) {
            let _ = write!(text, "{line}\r\n");
        }
        match line {
            "a=sendonly" if inside => text.push_str("a=recvonly\r\n"),
            "a=rid:l recv" | "a=rid:h recv" | "a=simulcast:recv l;h" => {
                let _ = write!(text, "{}\r\n", line.replace("recv", "send"));
            }
            "a=mid:audio" => {
                let _ = write!(text, "a=sendrecv\r\na=ssrc:{ssrc} cname:x\r\n");
            }
            "a=mid:video" => text.push_str("a=sendrecv\r\n"),
            _ => {}
        }
    }
    text
}

/// An allocation that nobody will use.
pub fn abandon(lab: &Lab, from: &str, conv: &str, user: &str) -> Answer {
    lab.post_from(from, conv, &confconn(conv, user, false).to_string())
}
