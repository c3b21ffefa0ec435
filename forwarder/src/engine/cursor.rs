//! Fan-outs in progress: one cursor per opened packet and worker, resumable at any receiver. Audio runs first,
//! in order of arrival; video runs round-robin over sources.

use std::collections::VecDeque;

use sluice_table::Kind;

use super::cell::CellId;
use super::list::List;
use super::time::Nanos;

/// How long an audio packet may wait for its turn.
pub const AUDIO_PATIENCE: Nanos = Nanos::from_millis(60);
/// How long a video packet may wait for its turn.
pub const VIDEO_PATIENCE: Nanos = Nanos::from_millis(200);
/// Frames one video source sends before the next has its turn.
const VIDEO_TURN: u32 = 32;

const NONE: u32 = u32::MAX;

/// An opened packet at some worker's slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose slab.
    pub worker: u8,
    /// Which cell.
    pub cell: CellId,
}

/// A fan-out in progress.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// The packet.
    pub held: Held,
    /// Its source's list.
    pub list: u32,
    /// 0 for the list's own members, n for those of its n-th attached virtual source.
    pub stage: u32,
    /// Next position within the stage.
    pub position: u32,
    /// When it is dropped.
    pub deadline: Nanos,
    next: u32,
}

/// All cursors of a worker.
#[derive(Debug)]
pub struct Cursors {
    nodes: Vec<Cursor>,
    free: Vec<u32>,
    audio: VecDeque<u32>,
    /// Lists with video waiting.
    video: VecDeque<u32>,
    turn_left: u32,
}

/// Which cursor runs now.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Index for [`Cursors::get_mut`].
    pub node: u32,
    /// Which queue it is in.
    pub kind: Kind,
}

impl Cursors {
    /// Room for `capacity` packets over `lists` lists.
    pub fn new(capacity: usize, lists: usize) -> Self {
        Cursors {
            nodes: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            audio: VecDeque::with_capacity(capacity),
            video: VecDeque::with_capacity(lists.min(capacity) + 1),
            turn_left: VIDEO_TURN,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.audio.is_empty() && self.video.is_empty()
    }

    /// Packets waiting.
    pub fn waiting(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Queues a packet; `false` when all cursors are taken.
    #[inline]
    pub fn push(&mut self, lists: &mut [List], held: Held, list: u32, kind: Kind, now: Nanos) -> bool {
        let patience = if kind == Kind::Audio { AUDIO_PATIENCE } else { VIDEO_PATIENCE };
        let cursor = Cursor { held, list, stage: 0, position: 0, deadline: now + patience, next: NONE };
        let node = if let Some(node) = self.free.pop() {
            self.nodes[node as usize] = cursor;
            node
        } else if self.nodes.len() < self.nodes.capacity() {
            self.nodes.push(cursor);
            (self.nodes.len() - 1) as u32
        } else {
            return false;
        };
        if kind == Kind::Audio {
            self.audio.push_back(node);
            return true;
        }
        let queue = &mut lists[list as usize].queue;
        if let Some((_, last)) = queue {
            self.nodes[*last as usize].next = node;
            *last = node;
        } else {
            *queue = Some((node, node));
            self.video.push_back(list);
        }
        true
    }

    /// The cursor whose turn it is.
    #[inline]
    pub fn turn(&mut self, lists: &[List]) -> Option<Turn> {
        if let Some(node) = self.audio.front() {
            return Some(Turn { node: *node, kind: Kind::Audio });
        }
        if self.turn_left == 0 {
            self.video.rotate_left(usize::from(self.video.len() > 1));
            self.turn_left = VIDEO_TURN;
        }
        let list = *self.video.front()?;
        let (node, _) = lists[list as usize].queue?;
        Some(Turn { node, kind: Kind::Video })
    }

    /// The cursor of a turn.
    #[inline(always)]
    pub fn get_mut(&mut self, turn: Turn) -> &mut Cursor {
        &mut self.nodes[turn.node as usize]
    }

    /// Frames this turn may send before another source's turn.
    #[inline(always)]
    pub fn allowance(&self, turn: Turn) -> u32 {
        if turn.kind == Kind::Audio { u32::MAX } else { self.turn_left }
    }

    /// Charges a turn for `frames` frames.
    #[inline(always)]
    pub fn charge(&mut self, turn: Turn, frames: u32) {
        if turn.kind == Kind::Video {
            self.turn_left = self.turn_left.saturating_sub(frames);
        }
    }

    /// Takes the cursor of a turn out; the caller releases its packet.
    #[inline]
    pub fn finish(&mut self, lists: &mut [List], turn: Turn) -> Cursor {
        let cursor = self.nodes[turn.node as usize];
        self.free.push(turn.node);
        if turn.kind == Kind::Audio {
            self.audio.pop_front();
            return cursor;
        }
        let queue = &mut lists[cursor.list as usize].queue;
        if cursor.next == NONE {
            *queue = None;
            self.video.pop_front();
            self.turn_left = VIDEO_TURN;
        } else if let Some((first, _)) = queue {
            *first = cursor.next;
        }
        cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(cell: u32) -> Held {
        Held { worker: 0, cell: CellId(cell) }
    }

    #[test]
    fn audio_first_then_video_in_turns() {
        let mut lists: Vec<List> = (0..4).map(|_| List::default()).collect();
        let mut cursors = Cursors::new(16, 4);
        for (cell, list) in [(0, 1), (1, 1), (2, 2)] {
            assert!(cursors.push(&mut lists, held(cell), list, Kind::Video, Nanos(0)));
        }
        assert!(cursors.push(&mut lists, held(9), 0, Kind::Audio, Nanos(0)));
        let mut order = Vec::new();
        while let Some(turn) = cursors.turn(&lists) {
            order.push(cursors.get_mut(turn).held.cell.0);
            cursors.charge(turn, VIDEO_TURN);
            if order.len() % 2 == 1 || turn.kind == Kind::Audio {
                cursors.finish(&mut lists, turn);
            }
        }
        assert_eq!(order[0], 9);
        assert_eq!(cursors.waiting(), 0);
        assert!(cursors.is_empty());
        // Both sources got a turn before either finished.
        assert!(order.iter().position(|c| *c == 2).unwrap() < order.iter().position(|c| *c == 1).unwrap());
    }

    #[test]
    fn capacity_is_a_limit() {
        let mut lists = vec![List::default()];
        let mut cursors = Cursors::new(2, 1);
        assert!(cursors.push(&mut lists, held(0), 0, Kind::Audio, Nanos(0)));
        assert!(cursors.push(&mut lists, held(1), 0, Kind::Video, Nanos(0)));
        assert!(!cursors.push(&mut lists, held(2), 0, Kind::Audio, Nanos(0)));
    }
}
