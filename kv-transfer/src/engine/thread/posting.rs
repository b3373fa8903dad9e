//! Posting writes within credits, and taking completions.

use super::in_flight::Flying;
use tokio::time::Instant;

use super::{DataPlane, SendId, Target};
use crate::engine::{Again, Next, Work};
use crate::fabric::{Event, Read, Write};
use crate::ids::Sequence;
use crate::plan::{Tile, WriteRules};
use crate::{FabricError, TransferError};

/// Posts in one round, before completions and commands are looked at again.
const BATCH: usize = 32;
/// No peer takes more than this part of the credits, so that one which stands still does not stop the others.
pub(crate) const PEER_SHARE: usize = 4;

/// Bytes over which the speed of a link is measured.
const MEASURE_BYTES: u64 = 4 << 20;
/// Bytes that a transfer posts before the next one has its turn.
const TURN_BYTES: u64 = 4 << 20;

/// What came of trying to post a transfer's next write.
pub(super) enum Post {
    /// So many bytes.
    Posted(u64),
    /// No credit, or no room: later.
    Blocked,
    /// It has nothing to post; it leaves the turn.
    Nothing,
}

/// What came of one write.
pub(super) enum Tried {
    Posted,
    NoRoom,
    Failed,
}

impl Target {
    /// Measures the link, a few times for each group that it could carry.
    fn note_done(&mut self, bytes: u64) {
        let Some((since, done)) = &mut self.busy else { return };
        *done += bytes;
        if self.in_flight > 0 && *done < MEASURE_BYTES {
            return;
        }
        // A few small writes say more of the way to the peer and back than of how much goes over it.
        if *done >= MEASURE_BYTES / 8 {
            self.speed.measured(*done, since.elapsed());
        }
        self.busy = (self.in_flight > 0).then(|| (Instant::now(), 0));
    }
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
                self.receiver.landed(landed, &mut self.effects, &mut self.scatters);
            }
        }
        for event in events.drain(..) {
            match event {
                Event::Landed { .. } => {}
                Event::Done(context) => self.completed(context, None),
                Event::Failed(context, reason) => self.completed(context, Some(reason)),
                Event::Again(context, reason) => self.failed_on_its_way(context, reason),
                Event::Fault { peer, reason } => {
                    tracing::warn!(peer = peer.0, reason, "a peer broke the fabric's rules and is ignored");
                    self.peers.hang_up(peer);
                }
            }
        }
        if any {
            self.counters.lost_paths.set(self.fabric.lost_paths());
        }
        self.events = events;
        self.scatter();
        polled.map(|()| any)
    }

    /// A write or read is not under way any more; `None` if its peer died and nobody waits for it.
    fn came_back(&mut self, context: u32) -> Option<Flying> {
        let flying = self.in_flight.land(context).filter(|flying| !flying.given_up)?;
        self.counters.in_flight_writes.sub(1);
        if let Some(target) = self.targets.get_mut(&flying.peer) {
            target.in_flight -= 1;
            target.in_flight_bytes -= flying.bytes();
            target.note_done(flying.bytes());
        }
        Some(flying)
    }

    fn completed(&mut self, context: u32, failure: Option<String>) {
        let Some(flying) = self.came_back(context) else { return };
        match failure {
            None => {
                // What is read is counted when it is confirmed.
                if self.sends.get(&flying.send).is_some_and(|sending| sending.immediate().is_some()) {
                    self.counters.writes_sent.add(1);
                    self.counters.bytes_sent.add(flying.payload);
                }
                self.write_done(&flying, Some(flying.sequence));
            }
            Some(reason) => self.write_failed(&flying, reason),
        }
    }

    fn write_failed(&mut self, flying: &Flying, reason: String) {
        self.counters.writes_failed.add(1);
        self.with(flying.send, |s| s.end(TransferError::Write { peer: s.cell.endpoint.clone(), reason }));
        self.write_done(flying, None);
    }

    /// Posts a write again that may land all the same; the receiver will be told which those were.
    fn failed_on_its_way(&mut self, context: u32, reason: String) {
        let Some(flying) = self.came_back(context) else { return };
        let again = Again { tile: flying.tile, chunk: flying.chunk.map(|chunk| (chunk, flying.payload)) };
        let sending = self.sends.get_mut(&flying.send);
        if sending.is_none_or(|sending| sending.write_doubtful(flying.sequence, again).is_err()) {
            return self.write_failed(&flying, reason);
        }
        tracing::debug!(peer = flying.peer.0, reason, "a write goes another way");
        self.counters.writes_repeated.add(1);
        self.in_flight_bytes -= flying.bytes();
        self.queue_up(flying.send);
    }

    pub(super) fn write_done(&mut self, flying: &Flying, delivered: Option<Sequence>) {
        self.in_flight_bytes -= flying.bytes();
        self.chunks.extend(flying.chunk);
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
        let Some(sending) = self.sends.get_mut(&id) else { return Post::Nothing };
        match sending.next() {
            None => {
                sending.in_turn = false;
                Post::Nothing
            }
            Some(Next::Again(&Again { tile, chunk })) => match chunk {
                Some(chunk) => self.post_chunk_again(id, &tile, chunk),
                None => self.post_again(id, &tile, None),
            },
            Some(Next::Work(Work::Units(_))) => self.post_chunk(id),
            Some(Next::Work(Work::Tiles(cursor))) => {
                let rules = WriteRules {
                    max_bytes: self.capabilities.max_write_bytes,
                    strided: self.capabilities.strided_writes && sending.immediate().is_some(),
                };
                match cursor.peek(rules) {
                    Some(tile) => self.post_tile(id, &tile),
                    None => Post::Nothing,
                }
            }
        }
    }

    fn post_tile(&mut self, id: SendId, tile: &Tile) -> Post {
        match self.try_post(id, tile, None) {
            Tried::Posted => {
                let posted = self.sends.get_mut(&id).map_or(0, |sending| sending.write_posted(tile));
                self.with(id, |_| posted);
                Post::Posted(tile.bytes())
            }
            Tried::NoRoom => Post::Blocked,
            Tried::Failed => Post::Nothing,
        }
    }

    pub(super) fn post_again(&mut self, id: SendId, tile: &Tile, chunk: Option<(u32, u64)>) -> Post {
        match self.try_post(id, tile, chunk) {
            Tried::Posted => {
                self.with(id, |sending| {
                    sending.again_posted();
                    0
                });
                Post::Posted(tile.bytes())
            }
            Tried::NoRoom => Post::Blocked,
            Tried::Failed => Post::Nothing,
        }
    }

    /// Posts one write or read, within the credits of all and of its peer. One that fails ends its transfer. `chunk`: the one
    /// of ours that it is of, and its payload.
    pub(super) fn try_post(&mut self, id: SendId, tile: &Tile, chunk: Option<(u32, u64)>) -> Tried {
        let Some(sending) = self.sends.get_mut(&id) else { return Tried::Failed };
        let peer = sending.peer();
        let Some(target) = self.targets.get_mut(&peer) else { return Tried::Failed };
        let Tile { source, destination, len, inner, outer } = *tile;
        let bytes = tile.bytes();
        let share = (self.capabilities.max_in_flight / PEER_SHARE).max(1);
        let room = self.in_flight.count < self.capabilities.max_in_flight && target.in_flight < share;
        // One is always let through, however large.
        let within = |in_flight: u64, limit: u64| in_flight == 0 || in_flight + bytes <= limit;
        let (per_peer, in_all) = (self.limits.in_flight_bytes_per_peer, self.limits.in_flight_bytes);
        if !room || !within(target.in_flight_bytes, per_peer) || !within(self.in_flight_bytes, in_all) {
            return Tried::NoRoom;
        }
        let sequence = sending.sequence();
        let (chunk, payload) = chunk.map_or((None, bytes), |(chunk, payload)| (Some(chunk), payload));
        let context = self.in_flight.take_off(Flying {
            send: id,
            peer,
            tile: *tile,
            payload,
            chunk,
            sequence,
            posted: self.time.ran(),
            given_up: false,
        });
        let posted = match sending.immediate() {
            Some(immediate) => {
                let immediate = immediate.encode();
                let write = Write { peer, source, destination, len, inner, outer, immediate, context };
                self.fabric.post_write(&write)
            }
            None => self.fabric.post_read(&Read { peer, source, destination, len, context }),
        };
        match posted {
            Ok(true) => {
                target.busy.get_or_insert_with(|| (Instant::now(), 0));
                target.in_flight += 1;
                target.in_flight_bytes += bytes;
                self.in_flight_bytes += bytes;
                self.counters.in_flight_writes.add(1);
                Tried::Posted
            }
            Ok(false) => {
                self.in_flight.land(context);
                Tried::NoRoom
            }
            Err(error) => {
                self.in_flight.land(context);
                self.counters.writes_failed.add(1);
                let reason = error.to_string();
                self.with(id, |s| s.end(TransferError::Write { peer: s.cell.endpoint.clone(), reason }));
                Tried::Failed
            }
        }
    }
}
