//! Attaching by an unpinned `bpf_link`: driver mode first, generic mode if the driver has no XDP.

use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};

use super::{SteeringError, netlink};

/// How the program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// By the driver, before a socket buffer exists.
    Driver,
    /// By the kernel's generic hook, which costs a copy per packet.
    Generic {
        /// Why the driver refused.
        reason: String,
    },
}

impl AttachMode {
    /// `driver` or `generic`.
    pub fn name(&self) -> &'static str {
        match self {
            AttachMode::Driver => "driver",
            AttachMode::Generic { .. } => "generic",
        }
    }
}

/// Attaches `program`. The program goes when the link is dropped or the process ends.
pub(super) fn attach(program: &mut Xdp, ifindex: u32) -> Result<(FdLink, AttachMode), SteeringError> {
    refuse_foreign(ifindex)?;
    let driver = match try_mode(program, ifindex, XdpMode::Driver)? {
        Ok(link) => return Ok((link, AttachMode::Driver)),
        Err(reason) => reason,
    };
    // Somebody may have attached between the question and the attempt.
    refuse_foreign(ifindex)?;
    match try_mode(program, ifindex, XdpMode::Skb)? {
        Ok(link) => {
            tracing::warn!(ifindex, reason = %driver, "XDP runs in generic mode: slower than the driver's");
            Ok((link, AttachMode::Generic { reason: driver }))
        }
        Err(generic) => Err(SteeringError::Attach { ifindex, driver, generic }),
    }
}

fn refuse_foreign(ifindex: u32) -> Result<(), SteeringError> {
    match netlink::attached_program(ifindex) {
        Ok(None) => Ok(()),
        Ok(Some(id)) => Err(SteeringError::Foreign { ifindex, id }),
        Err(source) => Err(SteeringError::Query { ifindex, source }),
    }
}

fn try_mode(program: &mut Xdp, ifindex: u32, mode: XdpMode) -> Result<Result<FdLink, String>, SteeringError> {
    let id = match program.attach_to_if_index(ifindex, mode) {
        Ok(id) => id,
        Err(error) => return Ok(Err(explain(&error))),
    };
    let link = program.take_link(id).map_err(|error| SteeringError::Program(Box::new(error)))?;
    // A netlink attachment would stay behind a killed process; dropping it here detaches it.
    FdLink::try_from(link).map(Ok).map_err(|_| SteeringError::NoLink)
}

/// An error with its causes on one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
