//! The baseline: a forwarder that does nothing but turn packets around. What the engine costs is measured against
//! it, over the same ports. Never opens, checks or rewrites a payload.

use super::headers::{ETHERNET, IPV4, IPV6, UDP, VLAN};
use super::{PacketIo, RxBurst};

/// Totals of a baseline forwarder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct BareCounters {
    /// Packets received.
    pub received: u64,
    /// Copies sent.
    pub sent: u64,
    /// Received frames that are not UDP in IPv4 without options or in IPv6, or too long to send.
    pub not_udp: u64,
    /// Copies not sent because no transmit frame was free.
    pub no_credit: u64,
}

/// A forwarder that sends each packet back `copies` times, with source and destination swapped.
#[derive(Debug)]
pub struct Bare {
    copies: u32,
    burst: RxBurst,
    counters: BareCounters,
}

impl Bare {
    /// `copies` is the fan-out, at least 1.
    pub fn new(copies: u32) -> Self {
        Bare { copies: copies.max(1), burst: RxBurst::new(), counters: BareCounters::default() }
    }

    /// One receive burst and what it leads to. Returns how many packets were received.
    pub fn step(&mut self, io: &mut impl PacketIo) -> usize {
        let taken = io.receive(&mut self.burst);
        if taken == 0 {
            return 0;
        }
        self.counters.received += taken as u64;
        let mut credit = io.credit();
        for frame in self.burst.drain(..) {
            let bytes: &[u8] = &frame;
            match ip_offset(bytes) {
                Some(ip) => {
                    for _ in 0..self.copies {
                        let Some(mut out) = (if credit == 0 { None } else { io.acquire() }) else {
                            self.counters.no_credit += 1;
                            continue;
                        };
                        credit -= 1;
                        let Some(target) = out.get_mut(..bytes.len()) else {
                            io.cancel(out);
                            self.counters.not_udp += 1;
                            break;
                        };
                        target.copy_from_slice(bytes);
                        turn_around(target, ip);
                        io.submit(out, bytes.len());
                        self.counters.sent += 1;
                    }
                }
                None => self.counters.not_udp += 1,
            }
            io.release(frame);
        }
        io.flush();
        taken
    }

    /// Totals so far.
    pub fn counters(&self) -> BareCounters {
        self.counters
    }
}

/// Where the IP header of a whole UDP frame starts.
#[inline]
fn ip_offset(frame: &[u8]) -> Option<usize> {
    let tagged = frame.get(12..14)? == [0x81, 0x00];
    let at = ETHERNET + if tagged { VLAN } else { 0 };
    let rest = frame.get(at..)?;
    let (length, protocol) = match frame.get(at - 2..at)? {
        [0x08, 0x00] if rest.first() == Some(&0x45) => (IPV4, *rest.get(9)?),
        [0x86, 0xdd] => (IPV6, *rest.get(6)?),
        _ => return None,
    };
    (protocol == 17 && rest.len() >= length + UDP).then_some(at)
}

/// Swaps MAC addresses, IP addresses and ports of a frame that [`ip_offset`] accepted. Checksums stay right: sums
/// do not depend on order.
#[inline]
fn turn_around(frame: &mut [u8], ip: usize) {
    swap(&mut frame[..12]);
    let (addresses, udp) = if frame[ip] == 0x45 { (ip + 12..ip + 20, ip + IPV4) } else { (ip + 8..ip + 40, ip + IPV6) };
    swap(&mut frame[addresses]);
    swap(&mut frame[udp..udp + 4]);
}

/// Swaps the halves of a slice of even length.
#[inline]
fn swap(bytes: &mut [u8]) {
    let (first, second) = bytes.split_at_mut(bytes.len() / 2);
    first.swap_with_slice(second);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryIo;
    use crate::io::headers::{Headers, write_udp_checksum};

    fn frame(pair: &str, vlan: Option<u16>) -> (Headers, Vec<u8>) {
        let (source, destination) = pair.split_once(' ').unwrap();
        let headers = Headers {
            vlan,
            mac_source: [2, 0, 0, 0, 0, 1],
            mac_destination: [2, 0, 0, 0, 0, 2],
            ..Headers::new(source.parse().unwrap(), destination.parse().unwrap())
        };
        let mut frame = vec![0xab; headers.len() + 101];
        headers.write(&mut frame, 101).unwrap();
        write_udp_checksum(&mut frame);
        (headers, frame)
    }

    #[test]
    fn packets_return_with_right_checksums() {
        for pair in ["192.0.2.1:5000 198.51.100.7:6000", "[2001:db8::1]:5000 [2001:db8::7]:6000"] {
            for vlan in [None, Some(9)] {
                let (mut peer, mut port) = MemoryIo::pair(16);
                let (headers, frame) = frame(pair, vlan);
                assert!(peer.send(&frame));
                let mut bare = Bare::new(3);
                assert_eq!(bare.step(&mut port), 1);
                let mut copies = 0;
                peer.drain(|bytes| {
                    let (got, range) = Headers::parse(bytes).unwrap();
                    assert_eq!((got.source, got.destination), (headers.destination, headers.source));
                    assert_eq!((got.mac_source, got.vlan), (headers.mac_destination, vlan));
                    assert!(bytes[range].iter().all(|byte| *byte == 0xab));
                    let mut again = bytes.to_vec();
                    write_udp_checksum(&mut again);
                    assert_eq!(again, bytes);
                    copies += 1;
                });
                assert_eq!(copies, 3);
                assert_eq!(bare.counters(), BareCounters { received: 1, sent: 3, ..BareCounters::default() });
            }
        }
    }

    #[test]
    fn other_frames_and_missing_credit_are_counted() {
        let (mut peer, mut port) = MemoryIo::pair(4);
        let (_, frame) = frame("192.0.2.1:5000 198.51.100.7:6000", None);
        assert!(peer.send(&frame[..30]) && peer.send(&[]) && peer.send(&frame));
        let mut bare = Bare::new(10);
        assert_eq!(bare.step(&mut port), 3);
        let counters = bare.counters();
        assert_eq!((counters.received, counters.not_udp), (3, 2));
        assert_eq!((counters.sent, counters.no_credit), (8, 2));
        assert!(port.ledger().is_settled());
    }
}
