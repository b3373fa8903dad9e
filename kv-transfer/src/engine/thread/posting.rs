//! Posting writes within credits, and taking completions.

use super::in_flight::Flying;
use super::{DataPlane, SendId};
use crate::fabric::{Event, Write};
use crate::ids::Sequence;
use crate::{FabricError, TransferError};

/// Posts in one round, before completions and commands are looked at again.
const BATCH: usize = 32;
/// No peer takes more than this part of the credits, so that one which stands still does not stop the others.
pub(crate) const PEER_SHARE: usize = 4;

/// Bytes that a transfer posts before the next one has its turn.
const TURN_BYTES: u64 = 4 << 20;

/// What came of trying to post a transfer's next write.
enum Post {
    /// So many bytes.
    Posted(u64),
    /// No credit, or no room: later.
    Blocked,
    /// It has nothing to post; it leaves the turn.
    Nothing,
}

impl DataPlane {
    pub(super) fn poll(&mut self) -> Result<bool, FabricError> {
        let mut events = std::mem::take(&mut self.events);
        let polled = self.fabric.poll(&mut events);
        let any = !events.is_empty();
        let landed = events.iter().filter_map(|event| match event {
            Event::Landed { from, immediate } => Some((*from, *immediate)),
            _ => None,
        });
        if any {
            let mut landed = landed.peekable();
            if landed.peek().is_some() {
                self.receiver.landed(landed, &mut self.effects);
            }
        }
        for event in events.drain(..) {
            match event {
                Event::Landed { .. } => {}
                Event::Done(context) => self.completed(context, None),
                Event::Failed(context, reason) => self.completed(context, Some(reason)),
                Event::Fault { peer, reason } => {
                    tracing::warn!(peer = peer.0, reason, "a peer broke the fabric's rules and is ignored");
                    self.peers.hang_up(peer);
                }
            }
        }
        self.events = events;
        polled.map(|()| any)
    }

    fn completed(&mut self, context: u32, failure: Option<String>) {
        let Some(flying) = self.in_flight.land(context) else { return };
        if flying.given_up {
            return;
        }
        self.counters.in_flight_writes.sub(1);
        if let Some(target) = self.targets.get_mut(&flying.peer) {
            target.in_flight -= 1;
        }
        match failure {
            None => {
                self.counters.writes_sent.add(1);
                self.counters.bytes_sent.add(flying.len);
                self.write_done(&flying, Some(flying.sequence));
            }
            Some(reason) => {
                self.counters.writes_failed.add(1);
                self.with(flying.send, |s| {
                    s.end(TransferError::Write { peer: s.cell.endpoint.clone(), reason })
                });
                self.write_done(&flying, None);
            }
        }
    }

    pub(super) fn write_done(&mut self, flying: &Flying, delivered: Option<Sequence>) {
        self.with(flying.send, |sending| {
            sending.write_done(delivered);
            0
        });
    }

    /// Posts in turn; says whether any was posted and whether any had to wait.
    ///
    /// A turn is a part of a large transfer and the whole of a small one: of many small ones at once, each is then done as
    /// early as it can be, instead of all at the end.
    pub(super) fn post(&mut self) -> (bool, bool) {
        let (mut posted, mut blocked) = (0, 0);
        while posted < BATCH && blocked < self.ready.len() {
            let Some(&id) = self.ready.front() else { break };
            match self.post_one(id) {
                Post::Posted(bytes) => {
                    posted += 1;
                    self.turn_bytes += bytes;
                    if self.turn_bytes < TURN_BYTES {
                        continue;
                    }
                    self.ready.rotate_left(1);
                }
                Post::Blocked => {
                    blocked += 1;
                    self.ready.rotate_left(1);
                }
                Post::Nothing => drop(self.ready.pop_front()),
            }
            self.turn_bytes = 0;
        }
        (posted > 0, blocked > 0)
    }

    fn post_one(&mut self, id: SendId) -> Post {
        let max_write = self.capabilities.max_write_bytes;
        let Some(sending) = self.sends.get_mut(&id) else { return Post::Nothing };
        let Some(planned) = sending.next_write(&self.geometry, max_write) else {
            sending.in_turn = false;
            return Post::Nothing;
        };
        let peer = sending.peer();
        let share = (self.capabilities.max_in_flight / PEER_SHARE).max(1);
        let Some(target) = self.targets.get_mut(&peer) else { return Post::Nothing };
        if self.in_flight.count >= self.capabilities.max_in_flight || target.in_flight >= share {
            return Post::Blocked;
        }
        let immediate = sending.immediate();
        let flying =
            Flying { send: id, peer, len: planned.len, sequence: immediate.sequence, given_up: false };
        let context = self.in_flight.take_off(flying);
        let (source, destination, len) = (planned.source, planned.destination, planned.len);
        let write = Write { peer, source, destination, len, immediate: immediate.encode(), context };
        match self.fabric.post_write(&write) {
            Ok(true) => {
                target.in_flight += 1;
                self.counters.in_flight_writes.add(1);
                let done = sending.write_posted(&planned, &self.geometry);
                self.with(id, |_| done);
                Post::Posted(len)
            }
            Ok(false) => {
                self.in_flight.land(context);
                Post::Blocked
            }
            Err(error) => {
                self.in_flight.land(context);
                self.counters.writes_failed.add(1);
                let reason = error.to_string();
                self.with(id, |s| s.end(TransferError::Write { peer: s.cell.endpoint.clone(), reason }));
                Post::Nothing
            }
        }
    }
}
