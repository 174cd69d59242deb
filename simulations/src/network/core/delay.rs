//! Packets on their way: kept until they are due.
//!
//! A thread waits for them, because timers of the runtime are a millisecond coarse, which four ways of a handshake would add up.
//!
//! What it is not: a queue of a router that fills up by its rate; only the time of the way counts, and a bound on memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::port::Port;

/// Bytes that may be on their way at once: a second of 64 MiB/s. More is dropped.
const MOST_BYTES: usize = 64 << 20;

/// The packets that are on their way, the next one to arrive first.
#[derive(Default)]
pub(super) struct DelayLine {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Default)]
struct Line {
    waiting: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    count: u64,
    closed: bool,
}

struct Waiting {
    due: Instant,
    /// Keeps the order of packets that are due at once.
    turn: u64,
    target: Arc<Port>,
    packet: Vec<u8>,
}

impl DelayLine {
    /// Takes a packet until it is due; false if there is no room for it.
    pub(super) fn push(&self, target: Arc<Port>, packet: Vec<u8>, due: Instant) -> bool {
        let mut line = self.line();
        if line.bytes + packet.len() > MOST_BYTES {
            return false;
        }
        line.bytes += packet.len();
        line.count += 1;
        let waiting = Waiting { due, turn: line.count, target, packet };
        let first = line.waiting.peek().is_none_or(|next| waiting.due < next.0.due);
        line.waiting.push(Reverse(waiting));
        if first {
            self.changed.notify_one();
        }
        true
    }

    /// Waits until a packet is due; none once the line is closed.
    pub(super) fn next(&self) -> Option<(Arc<Port>, Vec<u8>)> {
        let mut line = self.line();
        while !line.closed {
            let now = Instant::now();
            line = match line.waiting.peek() {
                None => self.changed.wait(line).unwrap_or_else(PoisonError::into_inner),
                Some(Reverse(next)) if next.due > now => {
                    let left = next.due - now;
                    self.changed.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let Reverse(waiting) = line.waiting.pop()?;
                    line.bytes -= waiting.packet.len();
                    return Some((waiting.target, waiting.packet));
                }
            };
        }
        None
    }

    /// Ends the wait of whoever takes packets, and drops those that are on their way.
    pub(super) fn close(&self) {
        let mut line = self.line();
        line.closed = true;
        line.waiting.clear();
        self.changed.notify_all();
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.turn).cmp(&(other.due, other.turn))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}
