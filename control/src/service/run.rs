//! The main loop: one task owns the node and is fed by the listener, the link, the administration and the clock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_table::protocol::Capacity;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{self, Asked, Sources};

use super::ServiceError;
use super::banner;
use super::media::{locals, url_host};
use super::random::Secure;
use super::trim::{self, Trim};
use crate::config::{Config, DtlsVersion as ConfigDtls, Tls};
use crate::dialect::wire::token::Secret;
use crate::dialect::wire::{Wire, WireConfig};
use crate::http::{Answer, Incoming, Server};
use crate::link::{self, Events, Link, LinkConfig, LinkEvent};
use crate::node::{Context, Node, Output, Settings};
use crate::transport::{DtlsVersion, HashFunction, Identity, Limits as TransportLimits};

/// Events and requests taken before the outputs are looked at.
const BATCH: usize = 64;
/// How soon after it is connected the forwarder is asked what it has room for.
const FIRST_STATUS: Duration = Duration::from_millis(100);
/// Questions of administration that may wait.
const QUERIES: usize = 64;
/// A draining node turns new calls away for at least this long, so that whoever sends them hears of it.
const DRAIN: Duration = Duration::from_secs(5);
/// How long answers that are under way may take when the service ends.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the service until it is told to end.
pub async fn run(config: Config, state: Option<&Path>) -> Result<(), ServiceError> {
    let locals = locals(&config.media)?;
    let identity = Arc::new(Identity::generate()?);
    let (incoming, requests) = mpsc::channel(config.http.queue);
    let server = Server::start(&config.http, state, incoming).await.map_err(|error| ServiceError::Http {
        reason: error.to_string(),
        hint: "see the [http] section of the configuration".to_owned(),
    })?;
    let public_url = if let Some(url) = &config.http.public_url {
        url.to_string()
    } else {
        let listen = server.addresses().first().copied().unwrap_or(config.http.listen[0]);
        let scheme = if config.http.tls == Tls::Off { "http" } else { "https" };
        format!("{scheme}://{}:{}", url_host(listen, &locals), listen.port())
    };
    let mut wire = WireConfig::new(
        &public_url,
        identity.fingerprint(HashFunction::Sha256),
        locals.iter().map(|(local, _)| local.advertised).collect(),
    );
    wire.servers = config.wire.servers.iter().map(ToString::to_string).collect();
    wire.redirect = config.wire.redirect.as_ref().map(ToString::to_string);
    wire.tokens = token_secret(&config)?;
    wire.tokens_required = config.wire.require_tokens;
    wire.blacklist = config.wire.blacklist.clone();
    wire.first_conference = wall_ms();
    limits(&mut wire, &config);
    let settings = Settings {
        identity,
        locals,
        dtls: match config.media.dtls {
            ConfigDtls::V12 => DtlsVersion::V1_2,
            ConfigDtls::V13 => DtlsVersion::V1_3,
            ConfigDtls::Auto => DtlsVersion::Auto,
        },
        limits: TransportLimits {
            candidates: config.limits.candidates,
            send_buffer: config.limits.channel_queue_bytes,
            message: config.limits.message_bytes as u32,
            ..TransportLimits::default()
        },
        orphan_timeout: config.limits.orphan_timeout,
        // No process makes a million transactions a millisecond.
        first_transaction: wall_ms() << 20,
    };
    let mut link_config = LinkConfig::new(config.forwarder.socket.clone());
    link_config.timeout = config.forwarder.timeout;
    let (link, events) = link::spawn(link_config);
    let (asks, asked) = mpsc::channel(QUERIES);
    let sources = Sources { node: asks, link: link.clone(), http: server.counters() };
    let admin = admin::Server::start(&config.admin, sources).await.map_err(|error| ServiceError::Admin {
        reason: error.to_string(),
        hint: "see the [admin] section of the configuration".to_owned(),
    })?;
    let (told, capacity) = mpsc::channel(1);
    tokio::spawn(heartbeat(link.clone(), config.forwarder.timeout / 4, told));
    let node = Node::new(settings, Wire::new(wire));
    let service = Service {
        node,
        link,
        events,
        requests,
        asked,
        capacity,
        _admin: admin,
        waiting: HashMap::new(),
        next_request: 1,
        random: Secure::default(),
        server,
        public_url,
        config,
        announced: false,
        trim: Trim::new(Instant::now()),
    };
    service.serve().await
}

/// Asks the forwarder for a sign of life. Nothing else may ask it anything for a long time, and then nobody would notice
/// that it stands still; the link gives up a session whose questions stay unanswered.
/// Tells the node what the forwarder has room for.
async fn heartbeat(link: Link, every: Duration, told: mpsc::Sender<Vec<Capacity>>) {
    let mut known = false;
    loop {
        // Until the first answer nobody knows what there is room for.
        tokio::time::sleep(if known { every } else { every.min(FIRST_STATUS) }).await;
        // Whatever is wrong, the link tells the node.
        known = match link.status().await {
            Ok(status) => told.send(status.capacity).await.is_ok(),
            Err(_) => false,
        };
    }
}

fn token_secret(config: &Config) -> Result<Option<Secret>, ServiceError> {
    let Some(path) = &config.wire.token_secret_file else { return Ok(None) };
    let fail = |reason: String| ServiceError::Secret { path: path.clone(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let word = text.split_whitespace().next().unwrap_or_default();
    Secret::new(word.as_bytes()).map(Some).ok_or_else(|| fail("the file is empty".to_owned()))
}

fn limits(wire: &mut WireConfig, config: &Config) {
    let limits = &config.limits;
    wire.limits.conference.participants = limits.participants_per_conference;
    wire.limits.conferences = limits.conferences;
    wire.limits.participants = limits.participants;
    wire.limits.allocations = limits.allocations;
    wire.limits.allocations_per_source = limits.allocations_per_source;
    wire.limits.setup = limits.allocation_timeout;
    wire.limits.alive = limits.liveness_timeout;
    wire.limits.description.bytes = limits.sdp_bytes;
    wire.limits.description.candidates = limits.candidates;
    wire.limits.message_most = limits.message_bytes;
    wire.limits.message_rate = limits.messages_per_second;
    wire.limits.message_burst = limits.message_burst;
    wire.limits.history = limits.history;
    wire.limits.video_slots = limits.video_streams.min(32) as u8;
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

struct Service {
    node: Node,
    link: Link,
    events: Events,
    requests: mpsc::Receiver<Incoming>,
    asked: mpsc::Receiver<Asked>,
    capacity: mpsc::Receiver<Vec<Capacity>>,
    /// Ends when dropped.
    _admin: admin::Server,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    next_request: u64,
    random: Secure,
    server: Server,
    public_url: String,
    config: Config,
    announced: bool,
    trim: Trim,
}

impl Service {
    async fn serve(mut self) -> Result<(), ServiceError> {
        let stream = |kind| signal(kind).map_err(ServiceError::Runtime);
        let mut terminate = stream(SignalKind::terminate())?;
        let mut interrupt = stream(SignalKind::interrupt())?;
        let mut hangup = stream(SignalKind::hangup())?;
        let mut draining = None;
        loop {
            let sleep = self.node.next_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            let sleep = sleep.unwrap_or(Duration::from_hours(1)).min(draining.map_or(Duration::MAX, |_| DRAIN / 5));
            // Not biased: a flood of packets keeps neither requests nor signals from being heard.
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.link_events(event)?,
                    None => break,
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.take_requests(request),
                    None => break,
                },
                Some((query, reply)) = self.asked.recv() => {
                    let report = self.with(|node, context| node.query(context, &query));
                    // Whoever asked may have gone.
                    let _ = reply.send(report);
                }
                Some(capacity) = self.capacity.recv() => self.node.set_capacity(&capacity),
                () = tokio::time::sleep(sleep) => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => match self.server.reload() {
                    Ok(true) => tracing::info!("the certificate was read again"),
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the old certificate stays"),
                },
            }
            if self.node.next_timeout().is_some_and(|at| at <= Instant::now()) {
                self.with(Node::handle_timeout);
            }
            self.flush();
            if self.trim.is_due(Instant::now()) {
                trim::trim();
            }
            if self.node.wire().is_draining() {
                draining.get_or_insert_with(Instant::now);
            }
            if self.node.is_drained() && draining.is_some_and(|since| since.elapsed() >= DRAIN) {
                tracing::info!("drained: the last call ended");
                break;
            }
        }
        tracing::info!("ending; calls that run go on in the forwarder");
        self.server.shutdown(GRACE).await;
        Ok(())
    }

    /// Calls the node with the time as it is.
    fn with<T>(&mut self, act: impl FnOnce(&mut Node, &mut Context<'_>) -> T) -> T {
        let mut context = Context { now: Instant::now(), wall_ms: wall_ms(), random: &mut self.random };
        act(&mut self.node, &mut context)
    }

    fn link_events(&mut self, first: LinkEvent) -> Result<(), ServiceError> {
        let mut context = Context { now: Instant::now(), wall_ms: wall_ms(), random: &mut self.random };
        let mut next = Some(first);
        let mut room = BATCH;
        let mut answered = false;
        while let Some(event) = next {
            answered |= matches!(event, LinkEvent::Committed { .. });
            self.node.hear(&mut context, event);
            room -= 1;
            next = if room > 0 { self.events.try_recv() } else { None };
        }
        self.node.settle(&mut context);
        self.flush();
        if answered && !self.announced {
            self.announce()?;
        }
        Ok(())
    }

    /// Says what is served, once the forwarder opened the endpoints; a refusal at the start ends the service.
    fn announce(&mut self) -> Result<(), ServiceError> {
        if let Some(refused) = self.node.endpoints_refused() {
            return Err(ServiceError::Endpoints { reason: refused.to_string(), hint: refused.hint.clone() });
        }
        if self.node.ready().is_ok() {
            self.announced = true;
            let banner = banner::Banner {
                public_url: self.public_url.clone(),
                addresses: self.server.addresses().to_vec(),
                fingerprint: self.server.fingerprint(),
                tls: self.config.http.tls.clone(),
                media: self.node.locals().to_vec(),
                dtls: self.config.media.dtls,
                admin: self.config.admin.clone(),
            };
            tokio::spawn(banner.print(self.link.clone()));
        }
        Ok(())
    }

    fn take_requests(&mut self, first: Incoming) {
        let mut next = Some(first);
        let mut room = BATCH;
        while let Some(Incoming { request, reply }) = next {
            let id = self.next_request;
            self.next_request += 1;
            self.waiting.insert(id, reply);
            self.with(|node, context| node.request(context, id, request));
            self.flush();
            // The dialect answers in the same call; whoever has no answer now has it never.
            self.waiting.remove(&id);
            room -= 1;
            next = if room > 0 { self.requests.try_recv().ok() } else { None };
        }
    }

    fn flush(&mut self) {
        for output in self.node.outputs() {
            match output {
                Output::Reply { id, answer } => {
                    // A client that went away needs no answer.
                    let _ = self.waiting.remove(&id).map(|reply| reply.send(answer));
                }
                Output::Transaction { id, changes } => self.link.transaction(id, changes),
                Output::AskTable => self.link.ask_table(),
                Output::Packet(packet) => {
                    self.trim.sent(1);
                    // The link counts what does not fit.
                    let _ = self.link.packet(packet);
                }
            }
        }
    }
}
