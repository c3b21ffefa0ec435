//! Checks one received packet after the other: is it known, is its tag right, did it come before, is it in order,
//! how old is it. Never touches a socket.

use std::collections::HashMap;

use serde::Serialize;
use sluice_forwarder::wire::frame::{Class, classify};
use sluice_forwarder::wire::rtp;
use sluice_srtp::job::{OpenError, OpenJob};
use sluice_srtp::replay::{Receiver as Window, ReplayError};
use sluice_srtp::{AnyProvider, PacketIndex, Profile, Provider as _, SessionKeys};

use crate::error::BenchError;
use crate::keys::Session;
use crate::latency::{Latency, Percentiles};
use crate::stamp::Stamp;

/// Totals of a sink.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Received {
    /// Packets of expected streams, duplicates included.
    pub(crate) packets: u64,
    /// Bytes of them, UDP payload.
    pub(crate) bytes: u64,
    /// Packets that were opened.
    pub(crate) opened: u64,
    /// Packets whose tag was wrong.
    pub(crate) bad_tag: u64,
    /// Packets that came before.
    pub(crate) duplicates: u64,
    /// Packets behind one with a higher index.
    pub(crate) reordered: u64,
    /// Packets too old to tell.
    pub(crate) too_old: u64,
    /// Indexes between the first and the highest that never came.
    pub(crate) lost: u64,
    /// Opened packets without a stamp, or with another stream's.
    pub(crate) foreign: u64,
    /// Opened packets whose number in the source does not go with their index: something was skipped or inserted.
    pub(crate) shifted: u64,
    /// Packets to a port or of an SSRC that is not in the session.
    pub(crate) unknown: u64,
    /// Packets that are not RTP, RTCP left out.
    pub(crate) malformed: u64,
    /// RTCP packets, not looked at.
    pub(crate) rtcp: u64,
    /// Streams something arrived on.
    pub(crate) streams: u64,
}

struct Stream {
    /// Index into the receivers' keys.
    receiver: usize,
    /// Number of the source stream it must carry.
    carries: u32,
    window: Window,
    first: Option<u64>,
    unique: u64,
    /// Index less source number of the last opened packet.
    shift: Option<i64>,
}

/// Checks packets of a session's receivers.
pub(crate) struct Checker {
    provider: AnyProvider,
    keys: Vec<Option<SessionKeys>>,
    /// By receiving port and SSRC.
    streams: HashMap<(u16, u32), Stream>,
    every: u64,
    count: u64,
    out: Vec<u8>,
    totals: Received,
    latency: Latency,
}

impl Checker {
    /// Opens one packet in `every` (1 or more).
    pub(crate) fn new(session: &Session, mut provider: AnyProvider, every: u64) -> Result<Self, BenchError> {
        let (mut keys, mut streams) = (Vec::new(), HashMap::new());
        for (receiver, one) in session.receivers.iter().enumerate() {
            keys.push(one.key.as_ref().map(|key| Ok::<_, BenchError>(provider.expand(&key.master()?))).transpose()?);
            for (ssrc, carries) in &one.expects {
                let stream =
                    Stream { receiver, carries: *carries, window: Window::new(0), first: None, unique: 0, shift: None };
                streams.insert((one.local.port(), *ssrc), stream);
            }
        }
        Ok(Checker {
            provider,
            keys,
            streams,
            every: every.max(1),
            count: 0,
            out: vec![0; 2048 + Profile::MAX_TAG],
            totals: Received::default(),
            latency: Latency::new(),
        })
    }

    /// Takes a packet that arrived at `port` at time `at` (`CLOCK_MONOTONIC`).
    pub(crate) fn take(&mut self, port: u16, packet: &[u8], at: u64) {
        match classify(packet) {
            Class::Rtp => {}
            Class::Rtcp => {
                self.totals.rtcp += 1;
                return;
            }
            _ => {
                self.totals.malformed += 1;
                return;
            }
        }
        let Ok(header) = rtp::parse(packet) else {
            self.totals.malformed += 1;
            return;
        };
        let Some(stream) = self.streams.get_mut(&(port, header.ssrc.0)) else {
            self.totals.unknown += 1;
            return;
        };
        self.totals.packets += 1;
        self.totals.bytes += packet.len() as u64;
        let index = stream.window.estimate(header.seq);
        match stream.window.check(index) {
            Ok(()) => {}
            Err(ReplayError::Replayed) => {
                self.totals.duplicates += 1;
                return;
            }
            Err(ReplayError::TooOld) => {
                self.totals.too_old += 1;
                return;
            }
        }
        self.count += 1;
        let sampled = self.count.is_multiple_of(self.every) || stream.first.is_none();
        let opened = match &self.keys[stream.receiver] {
            None => Some(packet.get(header.len..).unwrap_or_default()),
            Some(_) if !sampled => None,
            Some(keys) => {
                let out = self.out.as_mut_slice();
                let mut job = [OpenJob {
                    keys,
                    ssrc: header.ssrc,
                    index,
                    packet,
                    header_len: header.len,
                    out,
                    result: Err(OpenError::Refused),
                }];
                if packet.len() <= 2048 {
                    self.provider.open(&mut job);
                }
                let [OpenJob { result, .. }] = job;
                let Ok(len) = result else {
                    self.totals.bad_tag += 1;
                    return;
                };
                Some(&self.out[..len])
            }
        };
        let highest = stream.window.highest().map_or(0, PacketIndex::as_u64);
        if stream.first.is_some() && index.as_u64() < highest {
            self.totals.reordered += 1;
        }
        stream.window.accept(index);
        stream.unique += 1;
        stream.first = Some(stream.first.map_or(index.as_u64(), |first| first.min(index.as_u64())));
        let Some(payload) = opened.filter(|_| sampled) else { return };
        self.totals.opened += 1;
        match Stamp::read(payload) {
            Some(stamp) if stamp.stream == stream.carries => {
                let shift = index.as_u64() as i64 - stamp.sequence as i64;
                if stream.shift.is_some_and(|before| before != shift) {
                    self.totals.shifted += 1;
                }
                stream.shift = Some(shift);
                self.latency.record(at as i64 - stamp.due as i64);
            }
            _ => self.totals.foreign += 1,
        }
    }

    /// Totals so far.
    pub(crate) fn totals(&self) -> Received {
        let mut totals = self.totals.clone();
        for stream in self.streams.values() {
            if let (Some(first), Some(highest)) = (stream.first, stream.window.highest()) {
                totals.lost += highest.as_u64() - first + 1 - stream.unique.min(highest.as_u64() - first + 1);
                totals.streams += 1;
            }
        }
        totals
    }

    /// Time from the intended sending to the arrival.
    pub(crate) fn latency(&self) -> Option<Percentiles> {
        self.latency.percentiles()
    }

    /// Forgets latencies recorded so far (those of a warm-up).
    pub(crate) fn clear_latency(&mut self) {
        self.latency.clear();
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("totals", &self.totals).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
