//! Loads the XDP program, attaches it to one interface, and keeps its tables. Never replaces somebody else's
//! program and never pins anything: when the process ends, the kernel detaches ours.

pub mod attach;
pub mod netlink;
pub mod object;
pub mod steering;

pub use attach::AttachMode;
pub use steering::{Options, Steering, Tally};

/// Why steering could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The embedded object has no stamp.
    #[error("the embedded XDP object carries no stamp; run scripts/build-ebpf and build again")]
    Unstamped,
    /// The embedded object was built for another layout or from other sources.
    #[error(
        "the embedded XDP object (layout {found}) was not built from these sources (layout {expected}); \
         run scripts/build-ebpf and build again"
    )]
    Stale {
        /// Layout version in the object.
        found: u32,
        /// Layout version of this build.
        expected: u32,
    },
    /// The kernel or the loader refused the object.
    #[error("loading the XDP program failed; CAP_BPF and CAP_NET_ADMIN are needed")]
    Load(#[source] Box<aya::EbpfError>),
    /// The verifier refused the program. Its whole log is logged at level `debug`.
    #[error(
        "the kernel refused the XDP program; CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed; its verifier said: {last}"
    )]
    Verifier {
        /// The end of the verifier's log.
        last: String,
        /// What the system call said.
        #[source]
        source: std::io::Error,
    },
    /// Something was asked of the program that it cannot do as it is.
    #[error("the XDP program cannot be used")]
    Program(#[source] Box<aya::programs::ProgramError>),
    /// The object lacks a map or the program.
    #[error("the embedded XDP object has no {0}")]
    Missing(&'static str),
    /// A map could not be read or written.
    #[error("{what} failed")]
    Map {
        /// What was attempted.
        what: String,
        /// What the map said.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// Another program is on the interface.
    #[error(
        "XDP program {id} is already attached to interface {ifindex}; it is left alone: detach it \
         (`ip link set dev DEV xdp off`) or use the kernel sockets there"
    )]
    Foreign {
        /// Interface index.
        ifindex: u32,
        /// Kernel's id of the program, as `bpftool prog` shows it.
        id: u32,
    },
    /// Neither driver nor generic mode worked.
    #[error("attaching XDP to interface {ifindex} failed; driver mode: {driver}; generic mode: {generic}")]
    Attach {
        /// Interface index.
        ifindex: u32,
        /// Why driver mode was refused.
        driver: String,
        /// Why generic mode was refused.
        generic: String,
    },
    /// The kernel attaches XDP only by netlink, which would outlive the process.
    #[error("this kernel has no bpf_link for XDP (Linux 5.9 is needed)")]
    NoLink,
    /// Asking the kernel about an interface failed.
    #[error("asking the kernel about interface {ifindex} failed")]
    Query {
        /// Interface index.
        ifindex: u32,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The handle is attached already.
    #[error("steering is already attached to an interface")]
    AlreadyAttached,
}
