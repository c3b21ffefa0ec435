//! Messages over a tokio Unix stream: reading one, writing many at once. Never looks into a message.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_table::protocol::{Decoder, Greeting, Hello, PACKET_LIMIT, Role, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::error::LinkError;

/// Bytes that are collected before they are written.
pub(super) const BATCH: usize = 256 << 10;

/// The reading half of a connection.
pub(super) struct Reader<R> {
    stream: R,
    decoder: Decoder,
    /// Nothing the forwarder says holds a key.
    chunk: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R, limit: usize) -> Reader<R> {
        Reader { stream, decoder: Decoder::new(limit), chunk: vec![0; 64 << 10] }
    }

    /// The next message. May be dropped while it waits without losing anything.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            let broken = |source| LinkError::Broken { doing: "reading", source };
            match self.stream.read(&mut self.chunk).await.map_err(broken)? {
                0 => return Err(broken(ErrorKind::UnexpectedEof.into())),
                n => self.decoder.extend(&self.chunk[..n]),
            }
        }
    }
}

/// Table messages that are written together; zeroed afterwards, since they carry keys.
#[derive(Default)]
pub(super) struct Batch {
    frames: Vec<Zeroizing<Vec<u8>>>,
    bytes: usize,
}

impl Batch {
    /// Adds a message.
    pub(super) fn push<T: Serialize>(&mut self, message: &T, limit: usize) -> Result<(), LinkError> {
        let frame = encode(message, limit)?;
        self.bytes += frame.len();
        self.frames.push(frame);
        Ok(())
    }

    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH || self.frames.len() >= 512
    }

    /// Writes everything and forgets it.
    pub(super) async fn write<W: AsyncWrite + Unpin>(&mut self, stream: &mut W) -> Result<(), LinkError> {
        let broken = |source| LinkError::Broken { doing: "writing", source };
        let mut slices: Vec<IoSlice<'_>> = self.frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match stream.write_vectored(rest).await.map_err(broken)? {
                0 => return Err(broken(ErrorKind::WriteZero.into())),
                n => IoSlice::advance_slices(&mut rest, n),
            }
        }
        drop(slices);
        self.frames.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Connects and shakes hands within `timeout`.
pub(super) async fn connect(path: &Path, role: Role, timeout: Duration) -> Result<UnixStream, LinkError> {
    let attempt = async {
        let unreachable = |source| LinkError::Unreachable { path: path.to_owned(), source };
        let mut stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let hello = encode(&Hello::new(role), PACKET_LIMIT)?;
        let broken = |source| LinkError::Broken { doing: "shaking hands", source };
        stream.write_all(&hello).await.map_err(broken)?;
        // Nothing follows the greeting before the first request, so nothing is lost with this reader.
        let greeting = Reader::new(&mut stream, PACKET_LIMIT).next().await;
        // A forwarder that has gone away in between says no more than that.
        match greeting? {
            Greeting::Welcome(_) => Ok(stream),
            Greeting::Refused(refused) => Err(LinkError::Refused(refused)),
        }
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(LinkError::Timeout(timeout)))
}
