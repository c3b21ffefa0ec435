//! The packet connection as the management thread sees it: what workers hand up goes to control, what control sends
//! goes to the owner of the tuple or, for an address of no leg, out of the endpoint's kernel socket. Never blocks:
//! what does not fit is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};

use sluice_table::Name;
use sluice_table::protocol::PacketMessage;

use super::manager::Manager;
use crate::engine::Command;
use crate::worker::Order;

/// Packets that can wait for control.
pub const UP: usize = 1_024;
/// Packets of control that can wait for the management thread; its connection waits beyond that.
pub const DOWN: usize = 256;

/// The management thread's end of a packet connection.
#[derive(Debug)]
pub struct PacketLink {
    /// To control.
    pub up: SyncSender<PacketMessage>,
    /// From control.
    pub down: Receiver<PacketMessage>,
    /// Whether the management thread was told that something waits.
    pub rung: Arc<AtomicBool>,
}

/// What became of packets and events to and from control.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PacketCounts {
    /// Given to control's connection.
    pub up: u64,
    /// Dropped because control reads too slowly.
    pub up_full: u64,
    /// Dropped because control is not connected.
    pub up_nobody: u64,
    /// Given to workers.
    pub down: u64,
    /// Sent by a kernel socket.
    pub down_kernel: u64,
    /// Dropped because leg or endpoint is unknown.
    pub down_unknown: u64,
    /// Dropped because a worker or a kernel socket had no room.
    pub down_full: u64,
    /// Events not given to a subscriber that does not keep up.
    pub events_lost: u64,
}

impl PacketCounts {
    /// By name.
    pub(super) fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("up", self.up),
            ("up_full", self.up_full),
            ("up_nobody", self.up_nobody),
            ("down", self.down),
            ("down_kernel", self.down_kernel),
            ("down_unknown", self.down_unknown),
            ("down_full", self.down_full),
            ("events_lost", self.events_lost),
        ]
    }
}

impl Manager {
    /// Hands a packet to control.
    pub(super) fn packet_up(&mut self, message: PacketMessage) {
        let Some(link) = &self.packets else {
            self.packet_counts.up_nobody += 1;
            return;
        };
        match link.up.try_send(message) {
            Ok(()) => self.packet_counts.up += 1,
            Err(TrySendError::Full(_)) => self.packet_counts.up_full += 1,
            Err(TrySendError::Disconnected(_)) => {
                self.packet_counts.up_nobody += 1;
                self.packets = None;
            }
        }
    }

    /// Sends what control gave, a bounded number.
    pub(super) fn packets_down(&mut self) {
        // Workers that got something; woken once at the end, since each wake-up is a system call.
        let mut busy = [0u64; 4];
        for _ in 0..DOWN {
            let Some(link) = &self.packets else { break };
            link.rung.store(false, Ordering::SeqCst);
            match link.down.try_recv() {
                Ok(message) => {
                    if let Some(worker) = self.packet_down(message) {
                        busy[usize::from(worker) / 64] |= 1 << (worker % 64);
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.packets = None,
            }
        }
        for (at, worker) in self.workers.iter().enumerate() {
            if busy[at / 64] & 1 << (at % 64) != 0 {
                worker.wake();
            }
        }
    }

    /// Returns the worker that got it.
    fn packet_down(&mut self, message: PacketMessage) -> Option<u8> {
        match message {
            PacketMessage::RtcpOut { leg, bytes } => match self.planner.leg(&leg) {
                Some((worker, leg)) => return self.offer(worker, Command::Rtcp { leg, bytes: bytes.into() }),
                None => self.packet_counts.down_unknown += 1,
            },
            PacketMessage::PacketOut { endpoint, to, bytes } => match self.planner.owner(&endpoint, to) {
                Some(owner) => {
                    let command = Command::Packet { leg: owner.leg, to: to.into(), bytes: bytes.into() };
                    return self.offer(owner.worker, command);
                }
                None => self.kernel_send(&endpoint, to, &bytes),
            },
            // The connection lets nothing else through.
            PacketMessage::PacketIn { .. } | PacketMessage::RtcpIn { .. } => self.packet_counts.down_unknown += 1,
        }
        None
    }

    fn offer(&mut self, worker: u8, command: Command) -> Option<u8> {
        let offered = self.workers[usize::from(worker)].offer(Order::Engine(command)).is_ok();
        if offered {
            self.packet_counts.down += 1;
        } else {
            self.packet_counts.down_full += 1;
        }
        offered.then_some(worker)
    }

    fn kernel_send(&mut self, endpoint: &Name, to: SocketAddr, bytes: &[u8]) {
        match self.endpoints.send(endpoint, to, bytes) {
            Ok(_) => self.packet_counts.down_kernel += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.packet_counts.down_unknown += 1,
            Err(error) => {
                tracing::debug!(%endpoint, %to, %error, "a packet of control was not sent");
                self.packet_counts.down_full += 1;
            }
        }
    }
}
