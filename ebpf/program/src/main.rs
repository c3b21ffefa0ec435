//! Steers packets of media endpoints to AF_XDP sockets, limits what strangers can send to them, and leaves
//! everything else alone. Holds no secret and never changes a packet.
#![no_std]
#![no_main]

mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use packet::Udp;
use sluice_xdp_layout::maps::{BUCKET_COUNT, MAX_ENDPOINTS, MAX_QUEUES, MAX_TUPLES};
use sluice_xdp_layout::{
    ACCEPT_UNKNOWN, Bucket, BucketState, Config, EndpointKey, EndpointValue, Stamp, TupleKey, TupleValue, VERDICTS,
    Verdict, stamp,
};

#[map]
static ENDPOINTS: HashMap<EndpointKey, EndpointValue> = HashMap::with_max_entries(MAX_ENDPOINTS, 0);
#[map]
static TUPLES: HashMap<TupleKey, TupleValue> = HashMap::with_max_entries(MAX_TUPLES, 0);
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICTS.len() as u32, 0);
#[map]
static BUCKETS: PerCpuArray<BucketState> = PerCpuArray::with_max_entries(BUCKET_COUNT, 0);

#[unsafe(no_mangle)]
static CONFIG: Config = Config::DEFAULT;

#[unsafe(link_section = "sluice.stamp")]
#[unsafe(no_mangle)]
static SOURCE_STAMP: Stamp =
    Stamp { magic: stamp::MAGIC, version: sluice_xdp_layout::VERSION.to_le_bytes(), hash: stamp::SOURCE_HASH };

#[xdp]
pub fn sluice(ctx: XdpContext) -> u32 {
    let verdict = match packet::parse(&ctx) {
        Ok(udp) => judge(&ctx, &udp),
        Err(verdict) => verdict,
    };
    count(verdict);
    match verdict {
        Verdict::RedirectTuple | Verdict::RedirectUnknown => XDP_REDIRECT,
        Verdict::PassNotIp
        | Verdict::PassNotUdp
        | Verdict::PassFragment
        | Verdict::PassOptions
        | Verdict::PassTruncated
        | Verdict::PassNotEndpoint
        | Verdict::PassNoSocket
        | Verdict::PassStun
        | Verdict::PassDtls => XDP_PASS,
        _ => XDP_DROP,
    }
}

/// Decides about a UDP packet; a redirect is already prepared when its verdict comes back.
#[inline(always)]
fn judge(ctx: &XdpContext, udp: &Udp) -> Verdict {
    let key = EndpointKey { address: udp.destination, port: udp.destination_port, zero: [0; 2] };
    let Some(endpoint) = ENDPOINTS.get_ptr(&key) else { return Verdict::PassNotEndpoint };
    if !udp.lengths_agree(ctx) {
        return Verdict::DropLength;
    }
    let Some(first) = udp.first_byte(ctx) else { return Verdict::DropEmpty };
    let kind = match first {
        0..=3 => Kind::Stun,
        20..=63 => Kind::Dtls,
        128..=191 => Kind::Media,
        _ => return Verdict::DropOtherProtocol,
    };
    let tuple = TupleKey {
        local: udp.destination,
        remote: udp.source,
        local_port: udp.destination_port,
        remote_port: udp.source_port,
    };
    if TUPLES.get_ptr(&tuple).is_some() {
        return redirect(ctx, Verdict::RedirectTuple);
    }
    match kind {
        Kind::Stun => limited(Bucket::Stun, Verdict::PassStun, Verdict::DropStunLimit),
        Kind::Dtls => limited(Bucket::Dtls, Verdict::PassDtls, Verdict::DropDtlsLimit),
        Kind::Media => {
            // SAFETY: the map outlives the packet; the flags are one word, read once.
            if unsafe { (*endpoint).flags } & ACCEPT_UNKNOWN == 0 {
                return Verdict::DropMediaUnknown;
            }
            match limited(Bucket::Media, Verdict::RedirectUnknown, Verdict::DropMediaLimit) {
                Verdict::RedirectUnknown => redirect(ctx, Verdict::RedirectUnknown),
                over => over,
            }
        }
    }
}

enum Kind {
    Stun,
    Dtls,
    Media,
}

/// Gives the packet to the socket of its receive queue; without one the kernel's own socket gets it.
#[inline(always)]
fn redirect(ctx: &XdpContext, verdict: Verdict) -> Verdict {
    match SOCKETS.redirect(ctx.rx_queue_index(), XDP_PASS as u64) {
        Ok(_) => verdict,
        Err(_) => Verdict::PassNoSocket,
    }
}

#[inline(always)]
fn limited(bucket: Bucket, within: Verdict, over: Verdict) -> Verdict {
    let Some(state) = BUCKETS.get_ptr_mut(bucket as u32) else { return over };
    // SAFETY: a per-CPU element, and XDP programs on one CPU do not interrupt each other. The configuration is
    // read as volatile because the loader replaces it after compilation.
    unsafe {
        let rate = &*core::ptr::addr_of!(CONFIG.rates[bucket as usize]);
        let rate = core::ptr::read_volatile(rate);
        match rate.admit((*state).debt_ns, bpf_ktime_get_ns()) {
            Some(debt) => {
                (*state).debt_ns = debt;
                within
            }
            None => over,
        }
    }
}

#[inline(always)]
fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict.index()) {
        // SAFETY: a per-CPU element, and XDP programs on one CPU do not interrupt each other.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: nothing in this program panics; the verifier would refuse a way that leads here.
    unsafe { core::hint::unreachable_unchecked() }
}

const _: () = assert!(XDP_ABORTED == 0 && XDP_DROP == 1 && XDP_PASS == 2 && XDP_REDIRECT == 4);

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
