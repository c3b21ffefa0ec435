//! Reads headers of a packet within bounds that the verifier can follow. Never decides about a packet.

use core::mem;

use aya_ebpf::programs::XdpContext;
use sluice_xdp_layout::Verdict;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_SERVICE_VLAN: u16 = 0x88a8;
const PROTOCOL_UDP: u8 = 17;

/// Addresses, ports and payload of a UDP packet.
pub struct Udp {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    /// Bytes that IP gives to UDP, header included.
    pub ip_payload: u16,
    /// Length field of the UDP header.
    pub length: u16,
    /// Offset of the UDP header from the start of the frame.
    pub offset: usize,
}

/// Parses down to UDP, or says why the packet is none of ours.
#[inline(always)]
pub fn parse(ctx: &XdpContext) -> Result<Udp, Verdict> {
    let mut kind = be16(ctx, ETHERNET - 2)?;
    if kind == TYPE_VLAN || kind == TYPE_SERVICE_VLAN {
        kind = be16(ctx, ETHERNET + VLAN - 2)?;
        return parse_ip(ctx, kind, ETHERNET + VLAN);
    }
    parse_ip(ctx, kind, ETHERNET)
}

#[inline(always)]
fn parse_ip(ctx: &XdpContext, kind: u16, at: usize) -> Result<Udp, Verdict> {
    match kind {
        TYPE_IPV4 => parse_ipv4(ctx, at),
        TYPE_IPV6 => parse_ipv6(ctx, at),
        _ => Err(Verdict::PassNotIp),
    }
}

#[inline(always)]
fn parse_ipv4(ctx: &XdpContext, at: usize) -> Result<Udp, Verdict> {
    let header: &[u8; IPV4] = read(ctx, at)?;
    if header[9] != PROTOCOL_UDP {
        return Err(Verdict::PassNotUdp);
    }
    // Version 4 and a header of five words.
    if header[0] != 0x45 {
        return Err(if header[0] >> 4 == 4 { Verdict::PassOptions } else { Verdict::PassNotIp });
    }
    // "More fragments" or an offset; "don't fragment" may be set.
    if header[6] & 0x3f != 0 || header[7] != 0 {
        return Err(Verdict::PassFragment);
    }
    let total = u16::from_be_bytes([header[2], header[3]]);
    udp(ctx, at + IPV4, total.saturating_sub(IPV4 as u16), mapped(read(ctx, at + 12)?), mapped(read(ctx, at + 16)?))
}

#[inline(always)]
fn parse_ipv6(ctx: &XdpContext, at: usize) -> Result<Udp, Verdict> {
    let header: &[u8; IPV6] = read(ctx, at)?;
    if header[0] >> 4 != 6 {
        return Err(Verdict::PassNotIp);
    }
    if header[6] != PROTOCOL_UDP {
        return Err(Verdict::PassNotUdp);
    }
    let source: &[u16; 8] = read(ctx, at + 8)?;
    let destination: &[u16; 8] = read(ctx, at + 24)?;
    // A mapped address never travels (RFC 6890); here it would pass for an IPv4 endpoint.
    if matches!(destination, [0, 0, 0, 0, 0, 0xffff, _, _]) {
        return Err(Verdict::PassNotIp);
    }
    udp(ctx, at + IPV6, u16::from_be_bytes([header[4], header[5]]), bytes(*source), bytes(*destination))
}

#[inline(always)]
fn udp(
    ctx: &XdpContext,
    offset: usize,
    ip_payload: u16,
    source: [u8; 16],
    destination: [u8; 16],
) -> Result<Udp, Verdict> {
    let header: &[u8; UDP] = read(ctx, offset)?;
    Ok(Udp {
        source,
        destination,
        source_port: [header[0], header[1]],
        destination_port: [header[2], header[3]],
        ip_payload,
        length: u16::from_be_bytes([header[4], header[5]]),
        offset,
    })
}

impl Udp {
    /// Whether the lengths in the headers agree with each other and with the frame. The frame may be longer:
    /// Ethernet pads it.
    #[inline(always)]
    pub fn lengths_agree(&self, ctx: &XdpContext) -> bool {
        let frame = ctx.data_end() - ctx.data();
        self.length >= UDP as u16 && self.length <= self.ip_payload && self.offset + self.ip_payload as usize <= frame
    }

    /// First byte of the payload, if there is one.
    #[inline(always)]
    pub fn first_byte(&self, ctx: &XdpContext) -> Option<u8> {
        if self.length == UDP as u16 {
            return None;
        }
        let byte: &[u8; 1] = read(ctx, self.offset + UDP).ok()?;
        Some(byte[0])
    }
}

#[inline(always)]
fn be16(ctx: &XdpContext, offset: usize) -> Result<u16, Verdict> {
    let bytes: &[u8; 2] = read(ctx, offset)?;
    Ok(u16::from_be_bytes(*bytes))
}

/// An IPv4 address mapped into IPv6, from its halves as they stand in the packet.
#[inline(always)]
fn mapped(halves: &[u16; 2]) -> [u8; 16] {
    bytes([0, 0, 0, 0, 0, 0xffff, halves[0], halves[1]])
}

/// The same bytes in memory order: half-words load and store faster than bytes here.
#[inline(always)]
fn bytes(words: [u16; 8]) -> [u8; 16] {
    // SAFETY: both are sixteen bytes of which every pattern is valid.
    unsafe { mem::transmute(words) }
}

#[inline(always)]
fn read<T>(ctx: &XdpContext, offset: usize) -> Result<&T, Verdict> {
    let start = ctx.data() + offset;
    if start + mem::size_of::<T>() > ctx.data_end() {
        return Err(Verdict::PassTruncated);
    }
    // SAFETY: the bytes lie inside the packet. `T` is an array of bytes, or of half-words at an even offset; packets
    // start at even addresses.
    Ok(unsafe { &*(start as *const T) })
}
