//! What one participant of shape `wire` sends and hears: its schedule, packet by packet, and a sample of what comes.
//! Pure: time is an argument, and nothing is sent here.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sluice_srtp::job::{OpenError, OpenJob};
use sluice_srtp::key::MasterKey;
use sluice_srtp::{AnyProvider, Provider as _, Receiver, Seq, SessionKeys, Ssrc};

use super::voice::{Content, LEVEL, LOUD, OPUS, Stream, VP8};
use crate::latency::Latency;
use crate::random::Random;

/// Audio packets and frames of video a second of each participant; the low layer has a packet a frame.
const AUDIO: u32 = 25;
const FRAMES: u32 = 30;
/// Packets a frame of the high layer.
const HIGH: u32 = 3;
/// Payload bytes of audio and of the layers.
const AUDIO_BYTES: usize = 80;
const LAYER_BYTES: [usize; 2] = [600, 1_100];
/// Who talks, and at most so many are heard.
const SPEAKERS: u32 = 5;
/// Level of those who do not talk: a room's noise (RFC 6464).
const NOISE: u8 = 80;
/// Ids of header extensions that the node offers: transport-wide number, rid, generic frame descriptor.
const TRANSPORT: u8 = 3;
const RID: u8 = 4;
const DESCRIPTOR: u8 = 11;
/// Added to the SSRC of a client's audio for its layers.
const LAYER_SSRC: u32 = 0x1000_0000;
/// Of so many packets of a stream the first is opened.
const SAMPLE: u32 = 64;

/// A run: from when on everybody sends, and for how many seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) start: Instant,
    pub(super) seconds: u32,
}

/// What all clients sent and saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) sent_audio: u64,
    /// Of `sent_audio`, of those who talk.
    pub(super) sent_speech: u64,
    pub(super) sent_layers: [u64; 2],
    pub(super) audio: u64,
    pub(super) video: u64,
    pub(super) rtcp: u64,
    pub(super) opened: u64,
    pub(super) unopened: u64,
    pub(super) late: Latency,
    /// Clients that sent all of the run.
    pub(super) finished: u32,
}

impl Seen {
    pub(super) fn new() -> Seen {
        Seen {
            sent_audio: 0,
            sent_speech: 0,
            sent_layers: [0; 2],
            audio: 0,
            video: 0,
            rtcp: 0,
            opened: 0,
            unopened: 0,
            late: Latency::new(),
            finished: 0,
        }
    }
}

/// A client's own streams.
pub(super) struct Sender {
    pub(super) audio: Stream,
    layers: [Stream; 2],
    talks: bool,
    /// Into the period of audio and of frames.
    phases: [Duration; 2],
    /// Next number of the transport's packets.
    number: u16,
    /// Frames of earlier runs.
    frames: u32,
    run: Option<Progress>,
}

/// How far a run is.
#[derive(Debug)]
struct Progress {
    run: Run,
    audio: u32,
    frames: u32,
    /// Packets of the frame that were sent.
    packets: u32,
}

impl Sender {
    /// Streams that have not begun.
    pub(super) fn new(
        provider: Rc<RefCell<AnyProvider>>,
        key: &MasterKey,
        ssrc: u32,
        number: u32,
        seed: u64,
    ) -> Sender {
        let audio = Stream::new(provider, key, OPUS, ssrc);
        let layers = [1, 2].map(|layer| audio.beside(VP8, ssrc + layer * LAYER_SSRC));
        let mut random = Random::new(seed, u64::from(ssrc));
        let phases = [AUDIO, FRAMES].map(|rate| Duration::from_nanos(random.below(1_000_000_000 / u64::from(rate))));
        Sender { audio, layers, talks: number < SPEAKERS, phases, number: 0, frames: 0, run: None }
    }

    /// Begins a run.
    pub(super) fn begin(&mut self, run: Run) {
        self.run = Some(Progress { run, audio: 0, frames: 0, packets: 0 });
    }

    /// When the next packet is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let [audio, frame] = self.dues()?;
        [audio, frame].into_iter().flatten().min()
    }

    /// When the next packet of audio and the next frame are due; `None` outside runs.
    fn dues(&self) -> Option<[Option<Instant>; 2]> {
        let progress = self.run.as_ref()?;
        let due = |at: usize, rate: u32, done: u32| {
            let into = Duration::from_nanos(1_000_000_000 * u64::from(done) / u64::from(rate));
            (done < rate * progress.run.seconds).then(|| progress.run.start + self.phases[at] + into)
        };
        Some([due(0, AUDIO, progress.audio), due(1, FRAMES, progress.frames)])
    }

    /// The next packet that is due; also counts how late it is.
    pub(super) fn due(&mut self, now: Instant, seen: &mut Seen) -> Option<Vec<u8>> {
        let [audio, frame] = self.dues()?;
        let progress = self.run.as_mut()?;
        let number = self.number.to_be_bytes();
        let packet = if let Some(due) = audio.filter(|due| *due <= now) {
            progress.audio += 1;
            seen.late.record(now.duration_since(due).as_nanos() as i64);
            seen.sent_audio += 1;
            seen.sent_speech += u64::from(self.talks);
            let level = if self.talks { LOUD } else { NOISE };
            let extensions = &[LEVEL << 4, level, TRANSPORT << 4 | 1, number[0], number[1], 0, 0, 0];
            self.audio.packet(&Content { extensions, payload: AUDIO_BYTES, marker: false, step: 48_000 / AUDIO })
        } else if let Some(due) = frame.filter(|due| *due <= now) {
            // The low layer's packet, then those of the high one.
            let at = progress.packets;
            let (layer, first, last) = (usize::from(at > 0), at <= 1, at == 0 || at == HIGH);
            let frames = self.frames + progress.frames;
            progress.packets += 1;
            if at == HIGH {
                (progress.packets, progress.frames) = (0, progress.frames + 1);
            }
            if at == 0 {
                seen.late.record(now.duration_since(due).as_nanos() as i64);
            }
            seen.sent_layers[layer] += 1;
            // Start and end of a frame, and whether it depends on others: all but a key frame every second do.
            let depends = if frames.is_multiple_of(FRAMES) { 0 } else { 0x08 };
            let flags = 0x30 | u8::from(first) << 7 | u8::from(last) << 6 | depends;
            // Browsers name the layer until they hear that somebody receives it.
            let named = if frames < FRAMES { [RID << 4, [b'l', b'h'][layer]] } else { [0, 0] };
            let extensions = &[named[0], named[1], DESCRIPTOR << 4, flags, TRANSPORT << 4 | 1, number[0], number[1], 0];
            let step = if last { 90_000 / FRAMES } else { 0 };
            self.layers[layer].packet(&Content { extensions, payload: LAYER_BYTES[layer], marker: last, step })
        } else {
            if audio.is_none() && frame.is_none() {
                self.frames += progress.frames;
                self.run = None;
                seen.finished += 1;
            }
            return None;
        };
        self.number = self.number.wrapping_add(1);
        packet
    }
}

/// Counts what comes and opens a sample.
pub(super) struct Ear {
    provider: Rc<RefCell<AnyProvider>>,
    keys: SessionKeys,
    streams: Vec<(Ssrc, Receiver, u32)>,
}

impl Ear {
    /// Under the key of what the node sends.
    pub(super) fn new(provider: Rc<RefCell<AnyProvider>>, key: &MasterKey) -> Ear {
        let keys = provider.borrow_mut().expand(key);
        Ear { provider, keys, streams: Vec::new() }
    }

    /// Takes a packet of RTP, longer than its fixed header.
    pub(super) fn take(&mut self, packet: &[u8], seen: &mut Seen) {
        match packet[1] & 0x7f {
            OPUS => seen.audio += 1,
            _ => seen.video += 1,
        }
        let ssrc = Ssrc(u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]));
        let at = self.streams.iter().position(|(known, ..)| *known == ssrc).unwrap_or_else(|| {
            self.streams.push((ssrc, Receiver::new(0), 0));
            self.streams.len() - 1
        });
        let (_, receiver, count) = &mut self.streams[at];
        *count += 1;
        if *count % SAMPLE != 1 {
            return;
        }
        let index = receiver.estimate(Seq(u16::from_be_bytes([packet[2], packet[3]])));
        let mut out = [0; 2_048];
        let mut job = OpenJob {
            keys: &self.keys,
            ssrc,
            index,
            packet,
            header_len: header_len(packet),
            out: &mut out,
            result: Err(OpenError::Pending),
        };
        self.provider.borrow_mut().open(std::slice::from_mut(&mut job));
        if job.result.is_ok() && receiver.check(index).is_ok() {
            receiver.accept(index);
            seen.opened += 1;
        } else {
            seen.unopened += 1;
        }
    }
}

/// Length of an RTP header with CSRCs and extension.
fn header_len(packet: &[u8]) -> usize {
    let fixed = 12 + usize::from(packet[0] & 15) * 4;
    match packet.get(fixed + 2..fixed + 4) {
        Some(words) if packet[0] & 0x10 != 0 => fixed + 4 + usize::from(u16::from_be_bytes([words[0], words[1]])) * 4,
        _ => fixed,
    }
}

#[cfg(test)]
mod tests {
    use sluice_srtp::{Profile, ProviderKind};

    use super::*;

    #[test]
    fn a_run_is_the_shape_and_what_is_sent_can_be_opened() {
        let provider = Rc::new(RefCell::new(AnyProvider::new(ProviderKind::Portable).unwrap()));
        let key = MasterKey::new(Profile::AeadAes256Gcm, &[7; 32], &[9; 12]).unwrap();
        let mut sender = Sender::new(provider.clone(), &key, 5, SPEAKERS, 1);
        let (mut seen, start) = (Seen::new(), Instant::now());
        assert_eq!(sender.next(), None);
        sender.begin(Run { start, seconds: 2 });
        assert!(sender.due(start, &mut seen).is_none() && seen.finished == 0 && sender.next().is_some());
        let packets: Vec<Vec<u8>> =
            std::iter::from_fn(|| sender.due(start + Duration::from_secs(3), &mut seen)).collect();
        assert_eq!((seen.sent_audio, seen.sent_speech, seen.sent_layers), (50, 0, [60, 180]));
        assert_eq!((seen.finished, sender.next(), packets.len()), (1, None, 290));

        let of =
            |layer: u32| packets.iter().filter(move |packet| packet[8..12] == (5 + layer * LAYER_SSRC).to_be_bytes());
        let low: Vec<_> = of(1).collect();
        // The rid for a second, and a key frame at its beginning.
        assert_eq!((&low[0][16..20], &low[1][16..20]), (&[0x40, b'l', 0xb0, 0xf0][..], &[0x40, b'l', 0xb0, 0xf8][..]));
        assert_eq!((&low[30][16..20], &low[31][16..20]), (&[0, 0, 0xb0, 0xf0][..], &[0, 0, 0xb0, 0xf8][..]));
        let high: Vec<_> = of(2).collect();
        assert_eq!([high[0][19], high[1][19], high[2][19], high[3][19]], [0xb0, 0x30, 0x70, 0xb8]);
        assert!(high[0][4..8] == high[2][4..8] && high[2][1] == 0x80 | VP8 && high[2][4..8] != high[3][4..8]);

        let mut ear = Ear::new(provider, &key);
        for packet in &packets {
            ear.take(packet, &mut seen);
        }
        // The first of each stream, and the 65th and 129th of the high layer.
        assert_eq!((seen.audio, seen.video, seen.opened, seen.unopened), (50, 240, 5, 0));
        let mut forged = packets[0].clone();
        forged[11] ^= 1;
        ear.take(&forged, &mut seen);
        assert_eq!(seen.unopened, 1);
    }
}
