//! Maps of the XDP program: their names, sizes, keys and values. Addresses and ports are kept as they stand in
//! the packet (network byte order), so that the program copies and never swaps.

/// The program's name in the object.
pub const PROGRAM: &str = "sluice";
/// Hash map [`EndpointKey`] -> [`EndpointValue`]: local addresses and ports that carry media.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Hash map [`TupleKey`] -> [`TupleValue`]: validated remote ends.
pub const TUPLES: &str = "TUPLES";
/// XSK map: receive queue -> `AF_XDP` socket.
pub const SOCKETS: &str = "SOCKETS";
/// Per-CPU array of `u64`, one counter per verdict.
pub const COUNTERS: &str = "COUNTERS";
/// Per-CPU array of [`BucketState`], one per [`Bucket`].
pub const BUCKETS: &str = "BUCKETS";
/// Read-only global of type [`Config`].
pub const CONFIG: &str = "CONFIG";

/// Entries of [`ENDPOINTS`] unless the loader asks for another size.
pub const MAX_ENDPOINTS: u32 = 256;
/// Entries of [`TUPLES`] unless the loader asks for another size (10,000 legs of 8 tuples fit).
pub const MAX_TUPLES: u32 = 81_920;
/// Entries of [`SOCKETS`]: receive queues of one interface.
pub const MAX_QUEUES: u32 = 128;

/// Types that are copied to and from maps byte by byte.
///
/// # Safety
/// The type is `repr(C)`, `Copy`, has no padding, and every bit pattern is valid.
pub unsafe trait Plain: Copy + 'static {}

/// A local address and port.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291 section 2.5.5.2).
    pub address: [u8; 16],
    /// Port, network byte order.
    pub port: [u8; 2],
    /// Always zero.
    pub zero: [u8; 2],
}

impl EndpointKey {
    /// The key of `address` (see [`map_ipv4`] for IPv4) and `port`.
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        EndpointKey { address, port: port.to_be_bytes(), zero: [0; 2] }
    }
}

// SAFETY: bytes only, a multiple of the alignment.
unsafe impl Plain for EndpointKey {}

/// What is to be done at an endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointValue {
    /// Set of flags: [`ACCEPT_UNKNOWN`] or nothing.
    pub flags: u32,
}

/// Flag of [`EndpointValue`]: RTP and RTCP of unknown tuples go to the socket too, under their own token bucket.
/// Set while a leg waits to learn where its peer is.
pub const ACCEPT_UNKNOWN: u32 = 1;

// SAFETY: one integer.
unsafe impl Plain for EndpointValue {}

/// A local and a remote end.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TupleKey {
    /// Local address, as in [`EndpointKey`].
    pub local: [u8; 16],
    /// Remote address, as in [`EndpointKey`].
    pub remote: [u8; 16],
    /// Local port, network byte order.
    pub local_port: [u8; 2],
    /// Remote port, network byte order.
    pub remote_port: [u8; 2],
}

impl TupleKey {
    /// The key of a local and a remote address and port.
    pub const fn new(local: [u8; 16], local_port: u16, remote: [u8; 16], remote_port: u16) -> Self {
        TupleKey { local, remote, local_port: local_port.to_be_bytes(), remote_port: remote_port.to_be_bytes() }
    }
}

// SAFETY: bytes only, a multiple of the alignment.
unsafe impl Plain for TupleKey {}

/// What user space wants to remember about a tuple; the program only asks whether the entry exists.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TupleValue {
    /// Number of the leg, for whoever lists the map.
    pub leg: u32,
}

// SAFETY: one integer.
unsafe impl Plain for TupleValue {}

/// Token buckets, one of each per CPU.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// STUN of unknown tuples.
    Stun = 0,
    /// DTLS of unknown tuples.
    Dtls = 1,
    /// RTP and RTCP of unknown tuples at endpoints that accept them.
    Media = 2,
}

/// Number of buckets.
pub const BUCKET_COUNT: u32 = 3;

/// Rate of one bucket. A packet costs `cost_ns` of the time that passes; at most `depth_ns` is saved up.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketRate {
    /// Nanoseconds between packets at the full rate; 0 means no limit, `u64::MAX` that nothing passes.
    pub cost_ns: u64,
    /// Packets allowed at once times `cost_ns`.
    pub depth_ns: u64,
}

impl BucketRate {
    /// `rate` packets a second and CPU, `burst` at once (at least one). A rate of 0 lets nothing pass.
    pub const fn per_second(rate: u32, burst: u32) -> Self {
        if rate == 0 {
            return BucketRate { cost_ns: u64::MAX, depth_ns: 0 };
        }
        let cost_ns = 1_000_000_000 / rate as u64;
        let burst = if burst == 0 { 1 } else { burst as u64 };
        BucketRate { cost_ns, depth_ns: cost_ns * burst }
    }

    /// Decides about a packet at `now` (nanoseconds). `debt` is the time at which the bucket will be full again;
    /// the result is the new debt, or `None` if the packet is over the limit.
    #[inline(always)]
    pub const fn admit(&self, debt: u64, now: u64) -> Option<u64> {
        let from = if debt > now { debt } else { now };
        let next = from.wrapping_add(self.cost_ns);
        if self.cost_ns == u64::MAX || next.wrapping_sub(now) > self.depth_ns { None } else { Some(next) }
    }
}

/// State of one bucket on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketState {
    /// See [`BucketRate::admit`].
    pub debt_ns: u64,
}

// SAFETY: one integer.
unsafe impl Plain for BucketState {}

/// What the loader tells the program; read-only once loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Rates, indexed by [`Bucket`].
    pub rates: [BucketRate; BUCKET_COUNT as usize],
}

impl Config {
    /// Per CPU: 500 STUN (burst 200), 500 DTLS (burst 200) and 2,000 media packets (burst 500) a second.
    pub const DEFAULT: Config = Config {
        rates: [BucketRate::per_second(500, 200), BucketRate::per_second(500, 200), BucketRate::per_second(2_000, 500)],
    };
}

// SAFETY: integers of one size.
unsafe impl Plain for Config {}

/// An IPv4 address mapped into IPv6.
pub const fn map_ipv4(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
