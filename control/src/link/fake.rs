//! A forwarder for tests that does what it is told, over a real Unix socket.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sluice_table::protocol::{
    Call, Decoder, Event, EventRecord, Hello, PACKET_LIMIT, PacketMessage, Reply, Request, Response, Role, Snapshot,
    TABLE_LIMIT, encode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// One accepted connection.
pub(super) struct Peer {
    stream: UnixStream,
    decoder: Decoder,
    pub(super) role: Role,
    /// The connection that subscribed, of the same session.
    events: Option<Box<Peer>>,
}

impl Peer {
    pub(super) async fn read<T: serde::de::DeserializeOwned>(&mut self) -> T {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return message;
            }
            let mut chunk = [0; 4096];
            let n = self.stream.read(&mut chunk).await.unwrap();
            assert!(n > 0, "the link closed the connection");
            self.decoder.extend(&chunk[..n]);
        }
    }

    pub(super) async fn write<T: Serialize>(&mut self, message: &T) {
        self.stream.write_all(&encode(message, TABLE_LIMIT).unwrap()).await.unwrap();
    }

    pub(super) async fn reply(&mut self, call: &Call, response: Response) {
        self.write(&Reply { id: call.id, response }).await;
    }

    pub(super) async fn event(&mut self, sequence: u64) {
        let record = EventRecord { sequence, at_unix_ns: 0, event: Event::TableChanged { generation: sequence } };
        let events = self.events.as_mut().expect("no connection subscribed");
        events.write(&Reply { id: 1, response: Response::Event(record) }).await;
    }

    pub(super) async fn packet(&mut self) -> PacketMessage {
        self.read().await
    }

    pub(super) async fn garbage(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}

/// A listening fake.
pub(super) struct Fake {
    pub(super) socket: PathBuf,
    listener: UnixListener,
}

impl Fake {
    pub(super) fn listen(dir: &Path) -> Fake {
        let socket = dir.join("table.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        Fake { socket, listener }
    }

    /// Accepts a connection without a word.
    pub(super) async fn accept_silent(&self) -> UnixStream {
        self.listener.accept().await.unwrap().0
    }

    async fn accept(&self) -> Peer {
        let stream = self.accept_silent().await;
        let mut peer = Peer { stream, decoder: Decoder::new(TABLE_LIMIT), role: Role::Table, events: None };
        let hello: Hello = peer.read().await;
        peer.role = hello.role;
        let greeting = encode(&hello.greet(0), PACKET_LIMIT).unwrap();
        peer.stream.write_all(&greeting).await.unwrap();
        peer
    }

    /// Accepts all connections and answers until the link is up. As with the forwarder, the one that subscribes serves
    /// nothing else.
    pub(super) async fn session(&self, sequence: u64) -> (Peer, Peer) {
        let mut events = self.accept().await;
        let mut table = self.accept().await;
        let packets = self.accept().await;
        assert_eq!((events.role, table.role, packets.role), (Role::Table, Role::Table, Role::Packet));
        let subscribe: Call = events.read().await;
        assert_eq!(subscribe.request, Request::Subscribe);
        events.reply(&subscribe, Response::Ok).await;
        table.events = Some(Box::new(events));
        let snapshot: Call = table.read().await;
        table.reply(&snapshot, Self::snapshot(sequence)).await;
        (table, packets)
    }

    pub(super) fn snapshot(event_sequence: u64) -> Response {
        Response::Snapshot(Box::new(Snapshot { event_sequence, ..Snapshot::default() }))
    }
}
