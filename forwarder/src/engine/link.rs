//! The queues between two workers: packets one way, cells coming home the other. Bounded; a full queue is a
//! counted drop, except for returns, whose queue holds every cell there is.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::cell::{CellId, SlabMemory};
use super::feedback::Anchor;
use crate::wire::frame::Address;

/// What one worker tells another. The cell is in the sender's slab, held once for the receiver.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// An opened packet with receivers here.
    Opened(CellId),
    /// A packet of a leg owned here, as it came.
    Stray {
        /// Its UDP payload.
        cell: CellId,
        /// Payload length.
        len: u16,
        /// Endpoint it arrived at.
        endpoint: u16,
        /// Sender.
        remote: Address,
    },
    /// When a source's timestamps are; holds no cell.
    Anchor(Anchor),
}

/// One worker's end of the connection to another.
#[derive(Debug)]
pub struct Link {
    outgoing: Arc<ArrayQueue<Message>>,
    incoming: Arc<ArrayQueue<Message>>,
    /// Cells of the other's slab that we are done with.
    giving: Arc<ArrayQueue<CellId>>,
    /// Cells of ours that the other is done with.
    getting: Arc<ArrayQueue<CellId>>,
    /// The other's slab.
    pub(super) memory: Arc<SlabMemory>,
}

impl Link {
    /// Both ends between two workers with `cells` cells each.
    pub fn pair(a: &Arc<SlabMemory>, b: &Arc<SlabMemory>, cells: usize) -> (Link, Link) {
        let queue = || Arc::new(ArrayQueue::new(cells.max(1)));
        let (ab, ba) = (queue(), queue());
        let returns = || Arc::new(ArrayQueue::new(cells.max(1)));
        let (home_a, home_b) = (returns(), returns());
        (
            Link {
                outgoing: ab.clone(),
                incoming: ba.clone(),
                giving: home_b.clone(),
                getting: home_a.clone(),
                memory: b.clone(),
            },
            Link { outgoing: ba, incoming: ab, giving: home_a, getting: home_b, memory: a.clone() },
        )
    }

    /// Sends a message; `false` when the queue is full.
    #[inline]
    pub fn send(&self, message: Message) -> bool {
        self.outgoing.push(message).is_ok()
    }

    /// The next message.
    #[inline]
    pub fn receive(&self) -> Option<Message> {
        self.incoming.pop()
    }

    /// Gives a cell back to its owner.
    #[inline]
    pub fn give_back(&self, cell: CellId) {
        let given = self.giving.push(cell);
        debug_assert!(given.is_ok(), "the return queue holds every cell");
    }

    /// A cell of ours that came home.
    #[inline]
    pub fn returned(&self) -> Option<CellId> {
        self.getting.pop()
    }
}
