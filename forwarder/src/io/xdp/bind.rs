//! Creating and binding one `AF_XDP` socket: the ladder of modes, what each refused step said, and patience with
//! a queue that the last process has not quite let go.

use std::io;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::option::BusyPoll;
use crate::io::PollMode;
use crate::xdp::AttachMode;

/// Ring sizes; powers of two. There are `fill + rx` receive frames and `tx` transmit frames of 2,048 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Receive ring.
    pub rx: u32,
    /// Transmit ring.
    pub tx: u32,
    /// Fill ring, at least twice the receive ring.
    pub fill: u32,
    /// Completion ring, at least the transmit ring.
    pub completion: u32,
}

impl Default for RingSizes {
    fn default() -> Self {
        RingSizes { rx: 2048, tx: 2048, fill: 4096, completion: 2048 }
    }
}

/// How to open a port.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// Interface name.
    pub interface: String,
    /// Queue of the interface.
    pub queue: u32,
    /// How the program was attached ([`Steering::attach`](crate::xdp::Steering::attach)).
    pub attached: AttachMode,
    /// Ring sizes.
    pub rings: RingSizes,
    /// What waiting means.
    pub poll: PollMode,
    /// Preferred busy polling; used in [`PollMode::Busy`] only.
    pub busy_poll: Option<BusyPoll>,
    /// Put frames on huge pages if there are any.
    pub huge_pages: bool,
    /// How long a busy queue is tried again.
    pub patience: Duration,
}

impl XdpOptions {
    /// Defaults for a queue of an interface.
    pub fn new(interface: &str, queue: u32, attached: AttachMode) -> Self {
        XdpOptions {
            interface: interface.to_owned(),
            queue,
            attached,
            rings: RingSizes::default(),
            poll: PollMode::default(),
            busy_poll: None,
            huge_pages: false,
            patience: Duration::from_secs(3),
        }
    }
}

/// A step of the ladder, fastest first. What is left below is the kernel socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The driver reads and writes the frames themselves.
    ZeroCopy,
    /// The driver runs the program, the kernel copies.
    CopyDriver,
    /// The kernel runs the program late and copies.
    CopyGeneric,
    /// Frames on huge pages.
    HugePages,
    /// Preferred busy polling.
    BusyPoll,
}

/// A step that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refused {
    /// The step.
    pub step: Step,
    /// The reason.
    pub reason: String,
}

/// Why no socket could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Sizes that cannot work.
    #[error("ring sizes: {0}")]
    Sizes(String),
    /// No step of the ladder worked.
    #[error("no AF_XDP socket on queue {queue} of {interface}: {}; the kernel socket is used instead", list(.refused))]
    Refused {
        /// Interface name.
        interface: String,
        /// Queue.
        queue: u32,
        /// Every step tried.
        refused: Vec<Refused>,
    },
}

fn list(refused: &[Refused]) -> String {
    refused.iter().map(|one| format!("{:?}: {}", one.step, one.reason)).collect::<Vec<_>>().join("; ")
}

/// An open socket with its memory.
pub(super) struct Parts {
    pub(super) umem: Umem,
    pub(super) frames: Vec<FrameDesc>,
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) fill: FillQueue,
    pub(super) completion: CompQueue,
    pub(super) step: Step,
    pub(super) refused: Vec<Refused>,
}

/// Walks the ladder until a step works.
pub(super) fn open(options: &XdpOptions) -> Result<Parts, OpenError> {
    check(&options.rings)?;
    let mut refused = Vec::new();
    let steps = match &options.attached {
        AttachMode::Driver => &[(Step::ZeroCopy, BindFlags::XDP_ZEROCOPY), (Step::CopyDriver, BindFlags::XDP_COPY)][..],
        AttachMode::Generic { reason } => {
            for step in [Step::ZeroCopy, Step::CopyDriver] {
                refused.push(Refused { step, reason: format!("the program runs in generic mode: {reason}") });
            }
            &[(Step::CopyGeneric, BindFlags::XDP_COPY)][..]
        }
    };
    for (step, flags) in steps {
        match try_step(options, *flags, &mut refused) {
            Ok(mut parts) => {
                parts.step = *step;
                parts.refused = refused;
                return Ok(parts);
            }
            Err(reason) => {
                let (interface, queue) = (&options.interface, options.queue);
                tracing::info!(interface, queue, ?step, %reason, "AF_XDP mode refused");
                refused.push(Refused { step: *step, reason });
            }
        }
    }
    Err(OpenError::Refused { interface: options.interface.clone(), queue: options.queue, refused })
}

fn check(rings: &RingSizes) -> Result<(), OpenError> {
    let all = [rings.rx, rings.tx, rings.fill, rings.completion];
    if all.iter().any(|size| !size.is_power_of_two() || *size > 1 << 16) {
        return Err(OpenError::Sizes(format!("{all:?} must be powers of two up to 65,536")));
    }
    if rings.completion < rings.tx || rings.fill < 2 * rings.rx {
        return Err(OpenError::Sizes("completion >= tx and fill >= 2 rx are needed".to_owned()));
    }
    Ok(())
}

/// Tries one step, again and again while the queue is busy.
fn try_step(options: &XdpOptions, flags: BindFlags, refused: &mut Vec<Refused>) -> Result<Parts, String> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match create(options, flags, refused) {
            Ok(parts) => return Ok(parts),
            Err((libc::EBUSY, _)) if started.elapsed() + pause < options.patience => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(250));
            }
            Err((libc::EBUSY, reason)) => {
                return Err(format!("{reason} (another socket holds the queue; tried for {:?})", started.elapsed()));
            }
            Err((_, reason)) => return Err(reason),
        }
    }
}

/// The operating system's code and the whole story.
type Failure = (i32, String);

fn create(options: &XdpOptions, flags: BindFlags, refused: &mut Vec<Refused>) -> Result<Parts, Failure> {
    let rings = &options.rings;
    let size = |value: u32| QueueSize::new(value).map_err(|error| (0, error.to_string()));
    let umem_config = UmemConfig::builder()
        .frame_size(FrameSize::new(2048).map_err(|error| (0, error.to_string()))?)
        .fill_queue_size(size(rings.fill)?)
        .comp_queue_size(size(rings.completion)?)
        .build()
        .map_err(|error| (0, error.to_string()))?;
    let count = NonZeroU32::new(rings.fill + rings.rx + rings.tx).ok_or((0, "no frames".to_owned()))?;
    let (umem, frames) = memory(umem_config, count, options.huge_pages, refused)?;
    let socket_config = SocketConfig::builder()
        .rx_queue_size(size(rings.rx)?)
        .tx_queue_size(size(rings.tx)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let interface: Interface = options.interface.parse().map_err(|error: std::ffi::NulError| (0, error.to_string()))?;
    // SAFETY: the UMEM is new and serves this socket only.
    let (tx, rx, rest) =
        unsafe { Socket::new(socket_config, &umem, &interface, options.queue) }.map_err(|error| explain(&error))?;
    let (fill, completion) = rest.ok_or((0, "the kernel gave no fill and completion rings".to_owned()))?;
    Ok(Parts { umem, frames, tx, rx, fill, completion, step: Step::CopyDriver, refused: Vec::new() })
}

fn memory(
    config: UmemConfig,
    count: NonZeroU32,
    huge: bool,
    refused: &mut Vec<Refused>,
) -> Result<(Umem, Vec<FrameDesc>), Failure> {
    if huge && !refused.iter().any(|one| one.step == Step::HugePages) {
        match Umem::new(config, count, true) {
            Ok(umem) => return Ok(umem),
            Err(error) => {
                let (_, reason) = explain(&error);
                tracing::warn!(%reason, "no huge pages for packet memory; see vm.nr_hugepages");
                refused.push(Refused { step: Step::HugePages, reason });
            }
        }
    }
    Umem::new(config, count, false).map_err(|error| explain(&error))
}

fn explain(error: &dyn std::error::Error) -> Failure {
    let source = error.source();
    let code = source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
        .unwrap_or_default();
    (code, source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(check(&RingSizes::default()).is_ok());
        for bad in [
            RingSizes { rx: 1000, ..RingSizes::default() },
            RingSizes { completion: 1024, ..RingSizes::default() },
            RingSizes { fill: 2048, ..RingSizes::default() },
        ] {
            assert!(matches!(check(&bad), Err(OpenError::Sizes(_))), "{bad:?}");
        }
    }
}
