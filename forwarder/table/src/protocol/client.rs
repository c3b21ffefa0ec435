//! A blocking client of the forwarder's socket. Every error names the socket and what to do. Never retries.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Decoder, FrameError, PACKET_LIMIT, encode};
use super::request::{Call, Request};
use super::response::{Refused, Reply, Response};
use super::{DEFAULT_SOCKET, Greeting, Hello, Role, SOCKET_ENV, Welcome};

/// What can go wrong between a client and the forwarder.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens at the path.
    #[error("no forwarder listens at {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke or timed out.
    #[error("connection to the forwarder at {} failed while {doing}: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The forwarder sent, or was to be sent, something unintelligible.
    #[error("the forwarder at {} and this client misunderstand each other: {source}", path.display())]
    Frame {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the message.
        source: FrameError,
    },
    /// An answer of the wrong kind.
    #[error("the forwarder at {} gave an unexpected answer to {asked}", path.display())]
    Unexpected {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        asked: &'static str,
    },
    /// The forwarder refused.
    #[error("the forwarder refused: {0}")]
    Refused(Refused),
}

impl ClientError {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            ClientError::Unreachable { path, source } => match source.kind() {
                ErrorKind::PermissionDenied => {
                    format!("{} belongs to another user; run this as root or as the forwarder's user", path.display())
                }
                _ => format!(
                    "is sluice-forwarder running? start it with `sluice-forwarder --socket {}`, or name another socket \
                     with --socket or {SOCKET_ENV}",
                    path.display()
                ),
            },
            ClientError::Broken { source, .. } => match source.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    "the forwarder is overloaded or stopped; look at its log, or wait longer with --timeout".to_owned()
                }
                _ => "the forwarder may have stopped; look at its log".to_owned(),
            },
            ClientError::Frame { source: FrameError::TooLong { .. }, .. } => {
                "the table is too large for one message; split it".to_owned()
            }
            ClientError::Frame { .. } | ClientError::Unexpected { .. } => {
                "install sluice and sluice-forwarder from the same release".to_owned()
            }
            ClientError::Refused(refused) => refused.hint.clone(),
        }
    }
}

/// The socket to use: `given`, else `$SLUICE_SOCKET`, else [`DEFAULT_SOCKET`].
pub fn socket_path(given: Option<&Path>) -> PathBuf {
    match (given, std::env::var_os(SOCKET_ENV)) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(DEFAULT_SOCKET),
    }
}

/// A connection to the forwarder.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    decoder: Decoder,
    role: Role,
    next_id: u32,
    welcome: Welcome,
}

impl Client {
    /// Connects and shakes hands. `timeout` holds for every single read and write; `None` waits for ever.
    pub fn connect(path: &Path, role: Role, timeout: Option<Duration>) -> Result<Client, ClientError> {
        let unreachable = |source| ClientError::Unreachable { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(unreachable)?;
        stream.set_read_timeout(timeout).map_err(unreachable)?;
        stream.set_write_timeout(timeout).map_err(unreachable)?;
        let mut client = Client {
            stream,
            path: path.to_owned(),
            decoder: Decoder::new(PACKET_LIMIT),
            role,
            next_id: 1,
            welcome: Welcome { version: 0, software: String::new(), pid: 0, generation: 0 },
        };
        client.write(&Hello::new(role))?;
        match client.read()? {
            Greeting::Welcome(welcome) => client.welcome = welcome,
            Greeting::Refused(refused) => return Err(ClientError::Refused(refused)),
        }
        client.decoder.set_limit(role.limit());
        Ok(client)
    }

    /// Who answered.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a request and waits for its answer; a refusal is an error. Pushes of other requests are dropped while
    /// waiting, so use one connection for pushes and another one for questions.
    pub fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        let id = self.send(request)?;
        loop {
            let reply: Reply = self.read()?;
            match reply.response {
                Response::Trace(_) | Response::TraceEnd { .. } | Response::Event(_) => {}
                _ if reply.id != id => {}
                Response::Refused(refused) => return Err(ClientError::Refused(refused)),
                response => return Ok(response),
            }
        }
    }

    /// Sends a request and returns its id.
    pub fn send(&mut self, request: Request) -> Result<u32, ClientError> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.write(&Call { id, request })?;
        Ok(id)
    }

    /// Waits for the next answer or push.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        self.read()
    }

    /// Sets the time every single read may take; `None` waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        self.stream.set_read_timeout(timeout).map_err(|source| self.broken("setting a timeout", source))
    }

    /// The error of an answer that does not fit the question.
    pub fn unexpected(&self, asked: &'static str) -> ClientError {
        ClientError::Unexpected { path: self.path.clone(), asked }
    }

    /// Writes one message; for the packet connection, [`send`](Client::send) is for the table connection.
    pub fn write<T: Serialize>(&mut self, message: &T) -> Result<(), ClientError> {
        let frame = encode(message, self.role.limit()).map_err(|source| self.garbled(source))?;
        self.stream.write_all(&frame).map_err(|source| self.broken("sending", source))
    }

    /// Reads one message; for the packet connection, [`receive`](Client::receive) is for the table connection.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(message) = self.decoder.next().map_err(|source| self.garbled(source))? {
                return Ok(message);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.broken("waiting for an answer", ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.decoder.extend(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(self.broken("waiting for an answer", source)),
            }
        }
    }

    fn broken(&self, doing: &'static str, source: std::io::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), doing, source }
    }

    fn garbled(&self, source: FrameError) -> ClientError {
        ClientError::Frame { path: self.path.clone(), source }
    }
}
