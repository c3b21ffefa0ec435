//! The table socket: accepts connections, decodes requests, passes them to the management thread, writes answers.
//! One thread a connection; none of them touches a worker.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_table::protocol::{
    Call, Decoder, Greeting, Hello, PACKET_LIMIT, PacketMessage, Refusal, Refused, Reply, Request, Response, Role,
    TABLE_LIMIT, TraceFilter, append, encode,
};

use super::manager::Ask;
use super::packets::{DOWN, PacketLink, UP};
use super::tracing::TraceAsk;

/// A client that sends nothing for this long during the handshake is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Events that wait for a subscriber; one that is further behind misses some.
const EVENTS: usize = 1_024;
/// How often a silent subscriber is looked at: it may be gone.
const LOOK: Duration = Duration::from_secs(1);
/// Trace records that wait for a slow client; more are counted as missed.
const TRACE_QUEUE: usize = 1_024;
/// Connections served at a time.
const CONNECTIONS: usize = 64;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory cannot be made.
    #[error("cannot make directory {path} for the table socket: {source}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another forwarder answers there.
    #[error("another forwarder already serves {path}; stop it, or choose another --socket")]
    Taken {
        /// Which.
        path: String,
    },
    /// The socket cannot be bound.
    #[error("cannot listen on {path}: {source}")]
    Bind {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Binds the table socket, mode 0600. A socket nobody answers on is replaced; a live one is not.
pub fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let shown = path.display().to_string();
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|source| ServeError::Directory { path: parent.display().to_string(), source })?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(ServeError::Taken { path: shown });
    }
    let bind_error = |source| ServeError::Bind { path: shown.clone(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(bind_error(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(bind_error)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(bind_error)?;
    Ok(listener)
}

/// Accepts connections until the process ends.
pub fn accept(listener: &UnixListener, asks: &Sender<Ask>) {
    let places = std::sync::Arc::new(());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if std::sync::Arc::strong_count(&places) > CONNECTIONS {
            tracing::warn!("too many connections to the table socket; one was closed");
            continue;
        }
        let (asks, place) = (asks.clone(), places.clone());
        let thread = std::thread::Builder::new().name("table".to_owned()).spawn(move || {
            let place = place;
            if let Err(error) = Connection::new(stream).serve(&asks) {
                tracing::debug!(%error, "table connection ended");
            }
            drop(place);
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread for a table connection");
        }
    }
}

struct Connection {
    stream: UnixStream,
    packets: bool,
    decoder: Decoder,
    /// Held while a message is written, by whichever thread.
    writing: Arc<Mutex<()>>,
    /// Whether events are pushed.
    subscribed: bool,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Connection {
            stream,
            packets: false,
            decoder: Decoder::new(PACKET_LIMIT),
            writing: Arc::default(),
            subscribed: false,
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&mut self) -> std::io::Result<Option<T>> {
        let mut buffer = [0u8; 16 * 1024];
        loop {
            match self.decoder.next::<T>() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(error) => {
                    let refused = Refused::new(
                        Refusal::BadMessage,
                        error.to_string(),
                        "speak the table protocol of this release",
                    );
                    if !self.packets {
                        let _ = self.write(&Reply { id: 0, response: Response::Refused(refused) });
                    }
                    return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, error));
                }
            }
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                n => self.decoder.extend(&buffer[..n]),
            }
        }
    }

    fn write<T: serde::Serialize>(&mut self, message: &T) -> std::io::Result<()> {
        write(&self.stream, &self.writing, message)
    }

    fn serve(&mut self, asks: &Sender<Ask>) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(HANDSHAKE))?;
        self.stream.set_write_timeout(Some(HANDSHAKE))?;
        let Some(hello) = self.read::<Hello>()? else { return Ok(()) };
        let (reply, generation) = channel();
        // A forwarder that ends answers no more.
        let _ = asks.send(Ask::Generation(reply));
        let generation = generation.recv().unwrap_or(0);
        let greeting = hello.greet(generation);
        let refused = matches!(greeting, Greeting::Refused(_));
        // Whoever was welcomed misses no packet from then on.
        let ends = (hello.role == Role::Packet && !refused).then(|| PacketEnds::register(asks)).flatten();
        self.write(&greeting)?;
        if refused {
            return Ok(());
        }
        self.decoder.set_limit(hello.role.limit());
        self.stream.set_read_timeout(None)?;
        match hello.role {
            Role::Table => self.table(asks),
            Role::Packet => ends.map_or(Ok(()), |ends| self.packets(asks, ends)),
        }
    }

    fn table(&mut self, asks: &Sender<Ask>) -> std::io::Result<()> {
        while let Some(Call { id, request }) = self.read::<Call>()? {
            match request {
                Request::Subscribe => {
                    self.subscribe(id, asks)?;
                    continue;
                }
                Request::Trace { filter, sample, count } => {
                    self.trace(id, asks, filter, sample, count)?;
                    continue;
                }
                _ => {}
            }
            let stopping =
                || Refused::new(Refusal::Stopping, "the forwarder is stopping", "connect again once it runs");
            let response = ask(asks, request).unwrap_or_else(|| Response::Refused(stopping()));
            self.write(&Reply { id, response })?;
        }
        Ok(())
    }

    /// Records until there were enough or the client goes.
    fn trace(
        &mut self,
        id: u32,
        asks: &Sender<Ask>,
        filter: TraceFilter,
        sample: u32,
        count: u64,
    ) -> std::io::Result<()> {
        let (sink, records) = sync_channel(TRACE_QUEUE);
        let (reply, answer) = channel();
        let started = asks.send(Ask::Trace(TraceAsk { filter, sample, count, sink }, reply)).is_ok();
        let Ok(response) = answer.recv() else { return Ok(()) };
        let refused = !matches!(response, Response::Ok);
        self.write(&Reply { id, response })?;
        if refused || !started {
            return Ok(());
        }
        let mut ended = false;
        for response in records {
            ended |= matches!(response, Response::TraceEnd { .. });
            // `Ok` only asks whether anybody is still there.
            if !matches!(response, Response::Ok) {
                self.write(&Reply { id, response })?;
            } else if self.gone()? {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
        }
        if ended { Ok(()) } else { self.write(&Reply { id, response: Response::TraceEnd { missed: 0 } }) }
    }

    /// Whether the client closed the connection.
    fn gone(&self) -> std::io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = rustix::net::recv(&self.stream, &mut [0u8; 1], rustix::net::RecvFlags::PEEK);
        self.stream.set_nonblocking(false)?;
        Ok(matches!(peeked, Ok((_, 0))))
    }

    /// Events from now on, beside the answers to other requests.
    fn subscribe(&mut self, id: u32, asks: &Sender<Ask>) -> std::io::Result<()> {
        if self.subscribed {
            let refused = Refused::new(Refusal::Busy, "events are pushed already", "subscribe once a connection");
            return self.write(&Reply { id, response: Response::Refused(refused) });
        }
        let (events, received) = sync_channel(EVENTS);
        if asks.send(Ask::Subscribe(events)).is_err() {
            return Ok(());
        }
        self.subscribed = true;
        self.write(&Reply { id, response: Response::Ok })?;
        let (stream, writing) = (self.stream.try_clone()?, self.writing.clone());
        std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            // The connection holds the other clone while it lives.
            loop {
                let written = match received.recv_timeout(LOOK) {
                    Ok(event) => write(&stream, &writing, &Reply { id, response: Response::Event(event) }).is_ok(),
                    Err(RecvTimeoutError::Timeout) => Arc::strong_count(&writing) > 1,
                    Err(RecvTimeoutError::Disconnected) => false,
                };
                if !written {
                    break;
                }
            }
            // Whatever ended it ends the connection.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        })?;
        Ok(())
    }

    /// Packets in both directions until the client goes or another one takes its place.
    fn packets(&mut self, asks: &Sender<Ask>, ends: PacketEnds) -> std::io::Result<()> {
        self.packets = true;
        let PacketEnds { received, down, rung } = ends;
        let stream = self.stream.try_clone()?;
        let writer = std::thread::Builder::new().name("packets".to_owned()).spawn(move || {
            write_packets(&stream, &received);
            // Whatever ended it ends the connection.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        })?;
        while let Some(message) = self.read::<PacketMessage>()? {
            let sent_by_us = matches!(message, PacketMessage::PacketIn { .. } | PacketMessage::RtcpIn { .. });
            if sent_by_us || down.send(message).is_err() {
                break;
            }
            if !rung.swap(true, Ordering::SeqCst) && asks.send(Ask::PacketsWaiting).is_err() {
                break;
            }
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        drop(down); // the management thread lets go of its end, which ends the writer
        let _ = writer.join();
        Ok(())
    }
}

/// Writes one message whole.
fn write<T: serde::Serialize>(mut stream: &UnixStream, writing: &Mutex<()>, message: &T) -> std::io::Result<()> {
    let frame = encode(message, TABLE_LIMIT).map_err(std::io::Error::other)?;
    let _whole = writing.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_all(&frame)
}

/// The connection's ends of the queues to and from the management thread.
struct PacketEnds {
    received: Receiver<PacketMessage>,
    down: SyncSender<PacketMessage>,
    rung: Arc<AtomicBool>,
}

impl PacketEnds {
    /// Takes the place of the packet connection before; `None` when the forwarder is stopping.
    fn register(asks: &Sender<Ask>) -> Option<PacketEnds> {
        let (up, received) = sync_channel(UP);
        let (down, taken) = sync_channel(DOWN);
        let rung = Arc::new(AtomicBool::new(false));
        asks.send(Ask::Packets(PacketLink { up, down: taken, rung: rung.clone() })).ok()?;
        Some(PacketEnds { received, down, rung })
    }
}

/// Writes what waits in one call: a call a packet would cost control a wake-up each.
fn write_packets(mut stream: &UnixStream, messages: &Receiver<PacketMessage>) {
    let mut frames = Vec::new();
    for first in messages {
        for message in std::iter::once(first).chain(messages.try_iter()) {
            // One that is too long for the connection is too long for a datagram.
            let _ = append(&message, PACKET_LIMIT, &mut frames);
            if frames.len() >= PACKET_LIMIT {
                break;
            }
        }
        if stream.write_all(&frames).is_err() {
            return;
        }
        frames.clear();
    }
}

fn ask(asks: &Sender<Ask>, request: Request) -> Option<Response> {
    let (reply, answer) = channel();
    asks.send(Ask::Request(Box::new(request), reply)).ok()?;
    answer.recv().ok()
}
