//! One call of one client, from its CONFCONN on. Never decides anything.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_table::{Name, Ssrc};

use super::WireConfig;
use super::capacity::Pools;
use super::offer::{AudioSlot, OfferParameters, Offered, VideoSlot};
use crate::conference::Quality;
use crate::dialect::Random;
use crate::transport::Credentials;

/// A user and a client of it, as they call themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) user: Arc<str>,
    pub(super) client: Arc<str>,
}

impl User {
    pub(super) fn new(user: &str, client: &str) -> User {
        User { user: user.into(), client: client.into() }
    }
}

/// The texts of a [`User`], so that one can be looked up without making one.
pub(super) trait UserKey {
    fn key(&self) -> (&str, &str);
}

impl UserKey for User {
    fn key(&self) -> (&str, &str) {
        (&self.user, &self.client)
    }
}

impl UserKey for (&str, &str) {
    fn key(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn UserKey + 'a> for User {
    fn borrow(&self) -> &(dyn UserKey + 'a) {
        self
    }
}

impl Hash for dyn UserKey + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for dyn UserKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn UserKey + '_ {}

impl Hash for User {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// How far a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The client has our offer.
    Offered,
    /// We have its answer.
    Answered,
    /// The transport is up.
    Connected,
    /// The channel is open.
    Open,
}

impl Stage {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Stage::Offered => "offered",
            Stage::Answered => "answered",
            Stage::Connected => "connected",
            Stage::Open => "open",
        }
    }
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    /// Its conference.
    pub(super) room: Arc<str>,
    pub(super) user: User,
    pub(super) stage: Stage,
    pub(super) since: Instant,
    pub(super) client: IpAddr,
    pub(super) tool: Box<str>,
    pub(super) streams: Streams,
    /// SSRC of the audio it sends.
    pub(super) audio: Option<Ssrc>,
    /// SSRC we invented for its picture.
    pub(super) video: Ssrc,
    /// Its place in the list of participants, and the place it is listed at.
    pub(super) place: Option<u64>,
    /// Version of the list it was sent last.
    pub(super) listed: u64,
    /// The message that tells its properties; empty before it told them.
    pub(super) properties: Bytes,
    pub(super) muted: bool,
    /// The list of participants it agreed to last.
    pub(super) agreed: Option<Agreed>,
    /// Whom it wants to see, by slot.
    pub(super) wants: Vec<Option<(User, Quality)>>,
    pub(super) bucket: Bucket,
    /// What is kept free for it in the forwarder.
    pub(super) reserved: Pools,
    /// Addresses of its leg.
    pub(super) tuples: Vec<(Name, SocketAddr)>,
}

/// A list of participants that a client answered, as far as it is known again: the next one usually begins with the same
/// entries, which then need not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// [`Room::losses`](super::room::Room::losses) at that time.
    pub(super) losses: u64,
    /// Bytes up to the end of the last entry, and their hash. A client that finds two lists of one hash only agrees to
    /// something else than it says.
    pub(super) end: usize,
    pub(super) hash: u64,
}

impl Agreed {
    /// Of a list's text, of which this much is entries.
    pub(super) fn new(losses: u64, text: &str, end: usize) -> Agreed {
        Agreed { losses, end, hash: hash(&text.as_bytes()[..end]) }
    }

    /// Whether a list begins with the same entries.
    pub(super) fn begins(&self, losses: u64, text: &str) -> bool {
        self.losses == losses && text.as_bytes().get(..self.end).is_some_and(|begin| hash(begin) == self.hash)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// SSRCs of the streams a call may be sent, and whether layers are asked for.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) audio: Vec<Ssrc>,
    /// Each with its RTX stream's.
    pub(super) video: Vec<(Ssrc, Ssrc)>,
    pub(super) simulcast: bool,
}

impl Streams {
    /// Draws SSRCs, all different.
    pub(super) fn draw(audio: usize, video: usize, simulcast: bool, random: &mut dyn Random) -> Streams {
        let mut used = BTreeSet::new();
        let mut ssrc = || {
            loop {
                let ssrc = Ssrc(random.number() as u32);
                if ssrc.0 != 0 && used.insert(ssrc) {
                    return ssrc;
                }
            }
        };
        Streams {
            audio: (0..audio).map(|_| ssrc()).collect(),
            video: (0..video).map(|_| (ssrc(), ssrc())).collect(),
            simulcast,
        }
    }

    /// What an answer is read against.
    pub(super) fn offered(&self) -> Offered {
        Offered { audio: self.audio.len(), video: self.video.len(), simulcast: self.simulcast }
    }

    /// The offer.
    pub(super) fn offer(&self, config: &WireConfig, credentials: &Credentials, random: &mut dyn Random) -> String {
        let audio: Vec<_> = self.audio.iter().map(|ssrc| AudioSlot { ssrc: *ssrc, label: label(random) }).collect();
        let video =
            self.video.iter().map(|(ssrc, rtx)| VideoSlot { ssrc: *ssrc, rtx_ssrc: *rtx, label: label(random) });
        let video: Vec<_> = video.collect();
        super::offer::offer(&OfferParameters {
            session_id: random.number() >> 1,
            session_version: 1,
            tool: &config.tool,
            credentials,
            fingerprint: &config.fingerprint,
            candidates: &config.candidates,
            audio: &audio,
            video: &video,
            simulcast: self.simulcast,
        })
    }
}

/// A random UUID (RFC 9562 §5.4).
fn label(random: &mut dyn Random) -> String {
    let (high, low) = (random.number(), random.number());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 50),
        low & 0xffff_ffff_ffff
    )
}

/// Messages a channel may still bring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// In nanoseconds of the rate.
    level: Duration,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant, rate: u32, burst: u32) -> Bucket {
        Bucket { level: Duration::from_secs(u64::from(burst)) / rate.max(1), at: now }
    }

    /// Takes one message; false if there is none left.
    pub(super) fn take(&mut self, now: Instant, rate: u32, burst: u32) -> bool {
        let cost = Duration::from_secs(1) / rate.max(1);
        let full = Duration::from_secs(u64::from(burst)) / rate.max(1);
        self.level = (self.level + now.saturating_duration_since(self.at)).min(full);
        self.at = now;
        let enough = self.level >= cost;
        if enough {
            self.level -= cost;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 50, 100);
        let mut take = |ms: u64, times: usize| {
            (0..times).filter(|_| bucket.take(start + Duration::from_millis(ms), 50, 100)).count()
        };
        assert_eq!(take(0, 200), 100);
        assert_eq!(take(100, 200), 5);
        assert_eq!(take(60_000, 200), 100);
    }
}
