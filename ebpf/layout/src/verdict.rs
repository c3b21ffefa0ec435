//! What became of a packet. The numbers index the counter map.

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What the XDP program decided about a packet, and why. Dense from 0.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verdict {
            $($(#[$doc])* $name,)*
        }

        /// All verdicts in the order of their numbers.
        pub const VERDICTS: &[Verdict] = &[$(Verdict::$name),*];

        impl Verdict {
            /// The name in metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Verdict::$name => $label,)* }
            }
        }
    };
}

verdicts! {
    /// Not IPv4 or IPv6 behind at most one VLAN tag.
    PassNotIp = "pass_not_ip",
    /// Another protocol than UDP, or IPv6 with extension headers.
    PassNotUdp = "pass_not_udp",
    /// An IPv4 fragment; the kernel puts it together.
    PassFragment = "pass_fragment",
    /// IPv4 with options.
    PassOptions = "pass_options",
    /// Ends within the Ethernet, IP or UDP header; the kernel rejects it.
    PassTruncated = "pass_truncated",
    /// UDP to something that is not a media endpoint.
    PassNotEndpoint = "pass_not_endpoint",
    /// For a socket, but none is bound to the queue: the kernel socket gets it.
    PassNoSocket = "pass_no_socket",
    /// STUN of an unknown tuple.
    PassStun = "pass_stun",
    /// DTLS of an unknown tuple.
    PassDtls = "pass_dtls",
    /// A known tuple's packet, given to the queue's socket.
    RedirectTuple = "redirect_tuple",
    /// An unknown tuple's RTP or RTCP at an endpoint that accepts it.
    RedirectUnknown = "redirect_unknown",
    /// STUN of an unknown tuple over its limit.
    DropStunLimit = "drop_stun_limit",
    /// DTLS of an unknown tuple over its limit.
    DropDtlsLimit = "drop_dtls_limit",
    /// RTP or RTCP of an unknown tuple.
    DropMediaUnknown = "drop_media_unknown",
    /// RTP or RTCP of an unknown tuple at an endpoint that accepts it, over the limit.
    DropMediaLimit = "drop_media_limit",
    /// A first payload byte that is none of STUN, DTLS, RTP or RTCP (RFC 7983).
    DropOtherProtocol = "drop_other_protocol",
    /// No payload at all.
    DropEmpty = "drop_empty",
    /// The lengths in the headers disagree with each other or with the frame.
    DropLength = "drop_length",
}

impl Verdict {
    /// The number, below [`VERDICTS`]`.len()`.
    pub const fn index(self) -> u32 {
        self as u32
    }
}
