//! What can be configured, with every default. Never holds a secret: secrets are files that are named here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::network::{Cidr, PublicUrl};
use crate::dialect::wire::Blacklist;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The public listener.
    pub http: Http,
    /// Where media is sent and received.
    pub media: Media,
    /// How the forwarder is reached.
    pub forwarder: Forwarder,
    /// Metrics and administration.
    pub admin: Admin,
    /// The Wire SFT dialect.
    pub wire: Wire,
    /// What an open node takes before it refuses.
    pub limits: Limits,
    /// The log.
    pub log: Log,
}

/// The public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Addresses to listen on, at least one.
    pub listen: Vec<SocketAddr>,
    /// Encryption.
    pub tls: Tls,
    /// The URL clients use; by default made of the first address.
    pub public_url: Option<PublicUrl>,
    /// Proxies whose `Forwarded` or `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Web origins that may use the listener.
    pub allowed_origins: Origins,
    /// Longest request body, in bytes.
    pub body_limit: usize,
    /// Longest request head, in bytes; at least 8,192.
    pub header_limit: usize,
    /// Most header fields of a request.
    pub header_count: usize,
    /// Most open connections.
    pub max_connections: usize,
    /// Most open connections of one address that is no trusted proxy.
    pub max_connections_per_address: usize,
    /// Time for a TLS handshake.
    pub tls_timeout: Duration,
    /// Time for a request's head, and how long an unused connection stays open.
    pub header_timeout: Duration,
    /// Time for a request's body.
    pub body_timeout: Duration,
    /// Time for the client to take a response.
    pub write_timeout: Duration,
    /// Time for the node to answer.
    pub answer_timeout: Duration,
    /// Requests that may wait for the node.
    pub queue: usize,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443))],
            tls: Tls::SelfSigned,
            public_url: None,
            trusted_proxies: Vec::new(),
            allowed_origins: Origins::Any,
            body_limit: 256 << 10,
            header_limit: 16 << 10,
            header_count: 64,
            max_connections: 8192,
            max_connections_per_address: 256,
            tls_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(10),
            queue: 4096,
        }
    }
}

/// How the public listener encrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// With a certificate made at first start and kept in the state directory.
    SelfSigned,
    /// With PEM files.
    Files {
        /// The certificate chain, leaf first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Not at all; for use behind a proxy.
    Off,
}

/// Web origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every one.
    Any,
    /// These, as browsers write them, e.g. `https://app.example`; the public URL's own is always allowed.
    List(Vec<String>),
}

/// Where media is sent and received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Local addresses.
    pub addresses: MediaAddresses,
    /// UDP port of every address.
    pub port: u16,
    /// DTLS version.
    pub dtls: DtlsVersion,
}

impl Default for Media {
    fn default() -> Media {
        Media { addresses: MediaAddresses::Auto, port: 3480, dtls: DtlsVersion::V12 }
    }
}

/// Local addresses of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaAddresses {
    /// Every address of the host that is neither loopback nor link-local, of interfaces that are up.
    Auto,
    /// These.
    List(Vec<MediaAddress>),
}

/// One local address of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaAddress {
    /// Its interface.
    pub interface: String,
    /// The address on the interface.
    pub address: IpAddr,
    /// What clients are told instead, behind 1:1 NAT.
    pub advertised: Option<IpAddr>,
}

/// Which DTLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsVersion {
    /// DTLS 1.2; browsers then use `AEAD_AES_256_GCM`.
    V12,
    /// DTLS 1.3.
    V13,
    /// Either, newest first.
    Auto,
}

/// How the forwarder is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// Its socket.
    pub socket: PathBuf,
    /// How long it may leave a request unanswered before the connection is made anew.
    pub timeout: Duration,
}

impl Default for Forwarder {
    fn default() -> Forwarder {
        Forwarder { socket: PathBuf::from(sluice_table::protocol::DEFAULT_SOCKET), timeout: Duration::from_secs(10) }
    }
}

/// Metrics and administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address of metrics and health; `None` is off. Loopback unless chosen otherwise.
    pub listen: Option<SocketAddr>,
    /// Socket of the `sluice` command; 0600.
    pub socket: PathBuf,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 49_090))),
            socket: PathBuf::from(crate::admin::DEFAULT_SOCKET),
        }
    }
}

/// The Wire SFT dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// File whose first word is the secret of tokens.
    pub token_secret_file: Option<PathBuf>,
    /// Whether a token is needed; otherwise one that is given must be right.
    pub require_tokens: bool,
    /// Client releases that may not connect.
    pub blacklist: Blacklist,
    /// URLs of `/sft_servers_all.json`; by default this node's own.
    pub servers: Vec<PublicUrl>,
    /// The server a draining node names to new calls.
    pub redirect: Option<PublicUrl>,
}

/// What an open node takes before it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Conferences of the node.
    pub conferences: usize,
    /// Participants of the node.
    pub participants: usize,
    /// Participants of one conference.
    pub participants_per_conference: usize,
    /// Allocations nobody has used yet; the oldest goes for a new one.
    pub allocations: usize,
    /// The same of one token, IPv4 /24 or IPv6 /56.
    pub allocations_per_source: usize,
    /// How long an allocation waits to be used.
    pub allocation_timeout: Duration,
    /// How long a participant may be silent on its channel.
    pub liveness_timeout: Duration,
    /// How long calls of an earlier control process go on in the forwarder before they are removed.
    pub orphan_timeout: Duration,
    /// Longest session description, in bytes.
    pub sdp_bytes: usize,
    /// Candidates of one client.
    pub candidates: usize,
    /// Longest channel message from a client, in bytes.
    pub message_bytes: usize,
    /// Channel messages of one client a second.
    pub messages_per_second: u32,
    /// Channel messages of one client at once.
    pub message_burst: u32,
    /// Packets of each picture a client is sent that are kept to be sent again; at most 1,024.
    pub history: u16,
    /// Channel bytes that may wait for one client.
    pub channel_queue_bytes: usize,
    /// Video streams one client may receive.
    pub video_streams: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            conferences: 10_000,
            participants: 50_000,
            participants_per_conference: 5000,
            allocations: 20_000,
            allocations_per_source: 64,
            allocation_timeout: Duration::from_secs(10),
            liveness_timeout: Duration::from_secs(20),
            orphan_timeout: Duration::from_mins(1),
            sdp_bytes: 256 << 10,
            candidates: 64,
            message_bytes: 256 << 10,
            messages_per_second: 50,
            message_burst: 200,
            history: 256,
            channel_queue_bytes: 4 << 20,
            video_streams: 32,
        }
    }
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or directives as `info,sluice_control::http=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
