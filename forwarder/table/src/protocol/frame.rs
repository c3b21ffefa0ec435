//! Length-prefixed postcard: a little-endian `u32` body length, then the body. Never trusts a length: memory
//! grows with the bytes that arrived, and buffers of table connections are zeroed because their messages carry keys.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

/// Longest body on a table connection, in bytes.
pub const TABLE_LIMIT: usize = 64 << 20;
/// Longest body on a packet connection and of the handshake, in bytes.
pub const PACKET_LIMIT: usize = 64 << 10;
/// Bytes of the length prefix.
pub const PREFIX: usize = 4;

/// Why a message cannot be sent or understood. The connection cannot be used after a receive error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length prefix, or a message to send, exceeds the connection's limit.
    #[error("message of {len} bytes; at most {limit} are allowed on this connection")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is not the expected message.
    #[error("message of {len} bytes cannot be decoded: {why}")]
    Malformed {
        /// Body length in bytes.
        len: usize,
        /// What the decoder said.
        why: String,
    },
    /// The body goes on after the message.
    #[error("{extra} bytes follow the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// One message with its length prefix; zeroed on drop.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let mut frame = Zeroizing::new(Vec::new());
    append(message, limit, &mut frame)?;
    Ok(frame)
}

/// Appends one message with its length prefix, so that many are written at once. Messages with keys belong into an empty
/// vector, see [`encode`]: one that has to grow leaves a copy of what it holds behind.
pub fn append<T: Serialize>(message: &T, limit: usize, frames: &mut Vec<u8>) -> Result<(), FrameError> {
    let malformed = |e: postcard::Error| FrameError::Malformed { len: 0, why: e.to_string() };
    // Sized first, so that no reallocation leaves a copy of a key behind.
    let len = postcard::experimental::serialized_size(message).map_err(malformed)?;
    if len > limit.min(u32::MAX as usize) {
        return Err(FrameError::TooLong { len, limit });
    }
    let start = frames.len();
    frames.resize(start + PREFIX + len, 0);
    frames[start..start + PREFIX].copy_from_slice(&(len as u32).to_le_bytes());
    if let Err(error) = postcard::to_slice(message, &mut frames[start + PREFIX..]) {
        frames.truncate(start);
        return Err(malformed(error));
    }
    Ok(())
}

/// Decodes one body, which must hold exactly one message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::Trailing { extra: rest.len() }),
        Err(e) => Err(FrameError::Malformed { len: body.len(), why: e.to_string() }),
    }
}

/// Cuts a byte stream into messages. For blocking and non-blocking readers alike: bytes in with
/// [`extend`](Decoder::extend), messages out with [`next`](Decoder::next).
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    limit: usize,
}

/// Whether messages of a connection with this limit may hold keys. Those of the packet connection never do, and zeroing
/// is byte by byte.
fn secret(limit: usize) -> bool {
    limit > PACKET_LIMIT
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("buffered", &self.buffered())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder that refuses bodies longer than `limit` bytes.
    pub fn new(limit: usize) -> Decoder {
        Decoder { buffer: Vec::new(), start: 0, limit }
    }

    /// Changes the limit, for the messages after the handshake.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Bytes taken in and not yet given out.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Takes bytes in. A reader that calls [`next`](Decoder::next) until `None` after every read keeps at most
    /// one partial message and one read here.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > self.buffer.capacity() {
            let kept = self.buffered();
            let mut grown = Vec::with_capacity((kept + bytes.len()).next_power_of_two().max(4096));
            grown.extend_from_slice(&self.buffer[self.start..]);
            if secret(self.limit) {
                self.buffer.zeroize();
            }
            self.buffer = grown;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` until enough bytes came. After an error the stream is out of step: close it.
    #[allow(clippy::should_implement_trait, reason = "the type of the message differs from call to call")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(prefix) = self.buffer[self.start..].first_chunk::<PREFIX>() else { return Ok(None) };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len > self.limit {
            return Err(FrameError::TooLong { len, limit: self.limit });
        }
        let body = self.start + PREFIX;
        let Some(bytes) = self.buffer.get_mut(body..body + len) else { return Ok(None) };
        let message = decode(bytes);
        if secret(self.limit) {
            bytes.zeroize();
        }
        self.start = body + len;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            if self.buffer.capacity() > PACKET_LIMIT {
                // A large table came through once; its buffer need not stay.
                self.buffer = Vec::new();
            }
        }
        message.map(Some)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}
