//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): arrival times of packets by
//! their transport-wide sequence number, in steps of 250 µs.

use sluice_srtp::Ssrc;

use super::{kind, put32, write_head};
use crate::wire::{be16, be32};

/// Feedback message type.
pub const FORMAT: u8 = 15;
/// Packets one message tells of at most.
pub const MAX_STATUSES: usize = 512;
/// Nanoseconds of one tick.
pub const TICK: u64 = 250_000;
/// Bytes before the chunks, the first word included.
const HEAD: usize = 20;

const NOT_RECEIVED: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Length of the message in bytes.
    pub len: usize,
    /// How many packets it tells of.
    pub packets: usize,
}

/// Writes one message about the packets `base`, `base + 1` and so on, `total` of them; `arrival` gives a packet's arrival
/// in [`TICK`]s modulo 2^32. The message may tell of fewer: no more than fit, and none whose distance in time to the
/// one before needs more than 16 bits. `None` if no packet arrived or there is no room.
pub fn write(
    out: &mut [u8],
    (sender, media): (Ssrc, Ssrc),
    (base, number): (u16, u8),
    total: usize,
    arrival: impl Fn(usize) -> Option<u32>,
) -> Option<Written> {
    let mut symbols = [NOT_RECEIVED; MAX_STATUSES];
    let (mut packets, mut deltas, mut before) = (0, 0, None);
    for (at, symbol) in symbols.iter_mut().enumerate().take(total) {
        let mut more = 0;
        if let Some(tick) = arrival(at) {
            let delta = tick.wrapping_sub(before.unwrap_or(tick & !0xff)) as i32;
            (*symbol, more) = match delta {
                0..=255 => (SMALL, 1),
                _ if i16::try_from(delta).is_ok() => (LARGE, 2),
                _ => break,
            };
            before = Some(tick);
        }
        // Every chunk but the last covers at least seven packets; up to three bytes of padding follow.
        if HEAD + 2 * (at / 7 + 2) + deltas + more + 3 > out.len() {
            break;
        }
        deltas += more;
        packets = at + 1;
    }
    let symbols = &symbols[..packets];
    let first = (0..packets).find_map(&arrival)?;
    let mut len = HEAD;
    let mut at = 0;
    while at < packets {
        let (chunk, covered) = chunk(&symbols[at..]);
        out[len..len + 2].copy_from_slice(&chunk.to_be_bytes());
        len += 2;
        at += covered;
    }
    let mut before = first & !0xff;
    for tick in (0..packets).filter_map(&arrival) {
        let delta = tick.wrapping_sub(before) as i32;
        before = tick;
        if let Ok(small) = u8::try_from(delta) {
            out[len] = small;
            len += 1;
        } else {
            out[len..len + 2].copy_from_slice(&(delta as i16).to_be_bytes());
            len += 2;
        }
    }
    let padded = len.next_multiple_of(4);
    write_head(out, kind::TRANSPORT_FEEDBACK, FORMAT, padded);
    if padded > len {
        out[len..padded].fill(0);
        out[padded - 1] = (padded - len) as u8;
        out[0] |= 0x20;
    }
    put32(out, 4, sender.0);
    put32(out, 8, media.0);
    put32(out, 12, u32::from(base) << 16 | packets as u32);
    put32(out, 16, first & !0xff | u32::from(number)); // 24 bits of 64 ms
    Some(Written { len: padded, packets })
}

/// The chunk to begin `symbols` with, and how many of them it covers.
fn chunk(symbols: &[u8]) -> (u16, usize) {
    let first = symbols[0];
    let run = symbols.iter().take_while(|symbol| **symbol == first).count();
    if run >= 14 || run == symbols.len() {
        return (u16::from(first) << 13 | run as u16, run);
    }
    let short = &symbols[..symbols.len().min(14)];
    if !short.contains(&LARGE) {
        let bits = short.iter().enumerate().map(|(at, symbol)| u16::from(*symbol) << (13 - at));
        return (0x8000 | bits.fold(0, |all, bit| all | bit), short.len());
    }
    if run >= 7 {
        return (u16::from(first) << 13 | run as u16, run);
    }
    let short = &symbols[..symbols.len().min(7)];
    let bits = short.iter().enumerate().map(|(at, symbol)| u16::from(*symbol) << (12 - 2 * at));
    (0xc000 | bits.fold(0, |all, bit| all | bit), short.len())
}

/// A message, whose chunks and deltas add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback<'a> {
    /// Who received.
    pub sender: Ssrc,
    /// Some stream of the sender of the packets.
    pub media: Ssrc,
    /// Transport-wide number of the first packet.
    pub base: u16,
    /// How many packets it tells of.
    pub packets: u16,
    /// Its number, modulo 256.
    pub number: u8,
    /// Reference time in ticks: a multiple of 256.
    pub reference: u32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let rest = body.get(16..)?;
        let (packets, word) = (be16(body, 10), be32(body, 12));
        let (mut covered, mut chunks, mut deltas) = (0usize, 0, 0);
        while covered < usize::from(packets) {
            let chunk = rest.get(chunks..chunks + 2).map(|bytes| be16(bytes, 0))?;
            let count = Symbols::of(chunk).left.min(usize::from(packets) - covered);
            deltas += Symbols::of(chunk).take(count).map(delta_len).sum::<usize>();
            covered += count;
            chunks += 2;
            if count == 0 {
                return None;
            }
        }
        Some(Feedback {
            sender: Ssrc(be32(body, 0)),
            media: Ssrc(be32(body, 4)),
            base: be16(body, 8),
            packets,
            number: word as u8,
            reference: word & !0xff,
            chunks: &rest[..chunks],
            deltas: rest.get(chunks..chunks + deltas)?,
        })
    }

    /// Every packet with its arrival in ticks modulo 2^32; `None` where it did not arrive.
    pub fn arrivals(&self) -> impl Iterator<Item = (u16, Option<u32>)> + 'a {
        let (base, mut deltas, mut tick) = (self.base, self.deltas, self.reference);
        let symbols = self.chunks.as_chunks::<2>().0.iter().flat_map(|chunk| Symbols::of(u16::from_be_bytes(*chunk)));
        symbols.take(usize::from(self.packets)).enumerate().map(move |(at, symbol)| {
            let (delta, rest) = deltas.split_at(delta_len(symbol).min(deltas.len()));
            deltas = rest;
            let arrived = match *delta {
                [small] => Some(u32::from(small)),
                [high, low] => Some(i32::from(i16::from_be_bytes([high, low])) as u32),
                _ => None,
            };
            tick = tick.wrapping_add(arrived.unwrap_or(0));
            (base.wrapping_add(at as u16), arrived.map(|_| tick))
        })
    }
}

fn delta_len(symbol: u8) -> usize {
    match symbol {
        SMALL => 1,
        LARGE => 2,
        _ => 0,
    }
}

/// The symbols of one chunk.
struct Symbols {
    chunk: u16,
    left: usize,
}

impl Symbols {
    fn of(chunk: u16) -> Self {
        let left = match chunk >> 14 {
            0 | 1 => usize::from(chunk & 0x1fff),
            2 => 14,
            _ => 7,
        };
        Symbols { chunk, left }
    }
}

impl Iterator for Symbols {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        Some(match self.chunk >> 14 {
            0 | 1 => (self.chunk >> 13) as u8 & 3,
            2 => (self.chunk >> self.left) as u8 & 1,
            _ => (self.chunk >> (2 * self.left)) as u8 & 3,
        })
    }
}
