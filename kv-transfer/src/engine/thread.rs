//! The loop of the data thread.

mod in_flight;
mod lost;
mod overdue;
mod posting;
mod staging;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::in_flight::InFlight;
use self::lost::Drain;
pub(crate) use self::posting::PEER_SHARE;
pub(crate) use self::staging::{gather, spread};
use super::{Command, CommandQueue, SendId, Sending, Work};
use crate::control::Peers;
use crate::fabric::{Capabilities, Event, Fabric};
use crate::ids::{PeerId, TransferKey};
use crate::memory::PoolMemory;
use crate::own_time::{OwnTime, STEP};
use crate::receive::{Effect, Receiver, Scatter};
use crate::send::{LinkSpeed, Sent};
use crate::staging::Region;
use crate::stats::Counters;
use crate::wire::{Body, Withdrawn};
use crate::{DataPlaneFailed, FabricError, TransferError, TransferLimits};

/// Rounds without news before the thread sleeps: some microseconds, less than a wake-up costs.
const SPINS: u32 = 200;
/// A target whose ring is full has been off its processor for long; so often it is tried again.
const RETRY_FULL: Duration = Duration::from_micros(200);
/// How long a fabric that cannot wake us is polled without pause after the last news, while a peer may write.
const POLL_WITHOUT_PAUSE: Duration = Duration::from_millis(20);
/// And how long it is left alone between polls after that.
const POLL_PAUSE: Duration = Duration::from_millis(1);

/// Everything the data thread owns or shares.
pub(crate) struct DataPlane {
    fabric: Box<dyn Fabric>,
    capabilities: Capabilities,
    memory: Memory,
    limits: TransferLimits,
    queue: Arc<CommandQueue>,
    receiver: Arc<Receiver>,
    peers: Arc<Peers>,
    counters: Arc<Counters>,
    sends: BTreeMap<SendId, Sending>,
    /// Transfers that have something to post, in turn.
    ready: VecDeque<SendId>,
    /// Posted by the first of them since its turn began.
    turn_bytes: u64,
    targets: BTreeMap<PeerId, Target>,
    drains: Vec<Drain>,
    in_flight: InFlight,
    in_flight_bytes: u64,
    /// Chunks to send from that are not in use.
    chunks: Vec<u32>,
    scatters: Vec<Scatter>,
    events: Vec<Event>,
    effects: Vec<Effect>,
    commands: VecDeque<Command>,
    last_news: Instant,
    time: OwnTime,
    /// When what is under way is to be looked at next, in own time.
    look_at: Duration,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// Something happened: the next round may find more.
    News,
    /// Nothing. `blocked`: there is something to post, and no room.
    Idle { blocked: bool },
    /// It was told to end.
    Stop,
}

/// The registered memory of this node.
pub(crate) struct Memory {
    pub(crate) pool: PoolMemory,
    pub(crate) region: Region,
}

/// A peer that we write to.
#[derive(Default)]
struct Target {
    in_flight: usize,
    in_flight_bytes: u64,
    speed: Arc<LinkSpeed>,
    /// Since when there was always something in flight, and the bytes that were done since.
    busy: Option<(Instant, u64)>,
    /// Its connection ended; until then, in own time, what is under way to it may come back.
    lost: Option<Duration>,
    /// Something to it was overdue; until then, in own time, all that is under way must be back.
    given_up: Option<Duration>,
    /// Who waits until nothing is under way to it.
    quiet: Option<oneshot::Sender<()>>,
}

impl DataPlane {
    pub(crate) fn new(
        fabric: Box<dyn Fabric>,
        memory: Memory,
        limits: TransferLimits,
        queue: Arc<CommandQueue>,
        receiver: Arc<Receiver>,
        peers: Arc<Peers>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            capabilities: fabric.capabilities(),
            fabric,
            chunks: (0..memory.region.chunks).rev().collect(),
            scatters: Vec::new(),
            memory,
            limits,
            in_flight_bytes: 0,
            queue,
            receiver,
            peers,
            counters,
            sends: BTreeMap::new(),
            ready: VecDeque::new(),
            turn_bytes: 0,
            targets: BTreeMap::new(),
            drains: Vec::new(),
            in_flight: InFlight::default(),
            events: Vec::with_capacity(1024),
            effects: Vec::with_capacity(64),
            commands: VecDeque::with_capacity(64),
            last_news: Instant::now(),
            time: OwnTime::default(),
            look_at: Duration::ZERO,
        }
    }

    /// Runs until `Stop`, or until the fabric fails for good.
    pub(crate) fn run(mut self) {
        let failure = self.serve().err();
        if let Some(error) = &failure {
            tracing::error!(%error, "the data plane stopped; every transfer of this node fails");
        }
        self.shut_down(failure);
    }

    fn serve(&mut self) -> Result<(), FabricError> {
        let mut idle_rounds = 0;
        loop {
            match self.round()? {
                Round::Stop => return Ok(()),
                Round::News => idle_rounds = 0,
                Round::Idle { .. } if idle_rounds < SPINS => {
                    idle_rounds += 1;
                    std::hint::spin_loop();
                }
                Round::Idle { blocked } => self.sleep(blocked)?,
            }
        }
    }

    /// Looks at everything once; never waits.
    pub(crate) fn round(&mut self) -> Result<Round, FabricError> {
        self.time.advance(self.in_flight.count > 0 || self.next_lost().is_some());
        let (told, stop) = self.take_commands();
        if stop {
            return Ok(Round::Stop);
        }
        let heard = self.poll()?;
        let (posted, blocked) = self.post();
        self.fabric.flush();
        let reaped = self.reap_lost()?;
        let gave_up = self.watch()?;
        if told || heard || posted || reaped || gave_up {
            self.last_news = Instant::now();
            return Ok(Round::News);
        }
        Ok(Round::Idle { blocked })
    }

    /// How long there is nothing to do unless something wakes us; for ever if `None`.
    pub(crate) fn pause(&self, blocked: bool) -> Option<Duration> {
        let next_lost = self.next_lost().map(|at| at.saturating_sub(self.time.ran()).min(STEP));
        let retry = if self.is_polled() { Some(POLL_PAUSE) } else { blocked.then_some(RETRY_FULL) };
        let look = (self.in_flight.count > 0).then(|| self.look_after());
        retry.into_iter().chain(next_lost).chain(look).min()
    }

    /// The fabric wakes nobody, and something may come.
    fn is_polled(&self) -> bool {
        let expects = self.in_flight.count > 0
            || self.next_lost().is_some()
            // Some providers need the owner's hand even for one-sided reads, whether it still offers what is read or not.
            || self.counters.peers.get() > 0;
        !self.capabilities.wakes_on_arrival && expects
    }

    fn sleep(&mut self, blocked: bool) -> Result<(), FabricError> {
        if self.is_polled() && self.last_news.elapsed() < POLL_WITHOUT_PAUSE {
            std::thread::yield_now();
            return Ok(());
        }
        self.fabric.wait(self.pause(blocked))
    }

    fn take_commands(&mut self) -> (bool, bool) {
        let mut commands = std::mem::take(&mut self.commands);
        self.queue.take(&mut commands);
        let (any, mut stop) = (!commands.is_empty(), false);
        for command in commands.drain(..) {
            stop |= matches!(command, Command::Stop);
            self.carry_out(command);
        }
        self.commands = commands;
        (any, stop)
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Accept { address, reply } => {
                let accepted = self.fabric.accept(&address);
                // Nobody waits any more: the handshake was given up, so the peer is too.
                if let Err(Ok((peer, _))) = reply.send(accepted) {
                    self.fabric.disconnect(peer);
                }
            }
            Command::Connect { offer, region_bytes, speed, reply } => {
                let connected = self.fabric.connect(offer, region_bytes);
                if let Ok(peer) = &connected {
                    self.targets.insert(*peer, Target { speed, ..Target::default() });
                }
                if let Err(Ok(peer)) = reply.send(connected) {
                    self.targets.remove(&peer);
                    self.fabric.disconnect(peer);
                }
            }
            Command::Open { id, sending } => self.open(id, *sending),
            Command::Push { id, work } => self.push(id, work),
            Command::Recalled { peer, key, waits } => self.recalled(peer, key, waits),
            Command::Granted { peer, key, chunk } => self.granted(peer, key, chunk),
            Command::Finish { id, manifest } => {
                self.with(id, |sending| {
                    sending.finish(manifest);
                    0
                });
            }
            // It posted nothing and never will; its receiver does not know it.
            Command::Refused { id } => drop(self.sends.remove(&id)),
            Command::Abort { id } => self.with(id, |sending| sending.end(TransferError::Aborted)),
            Command::AbortByPeer { peer, key, reason } => self.abort_by_peer(peer, key, reason),
            Command::TargetLost { peer, quiet } => self.target_lost(peer, quiet),
            Command::InitiatorLost { peer, name, silent } => self.initiator_lost(peer, &name, silent),
            Command::DrainPart { key, sender, stray } => self.drain_part(key, sender, stray),
            Command::Drain => self.end_all(|_| true, |_| TransferError::ShuttingDown),
            #[cfg(test)]
            Command::Allocations(reply) => drop(reply.send(super::allocations::of_this_thread())),
            Command::Stop => {}
        }
    }

    fn open(&mut self, id: SendId, mut sending: Sending) {
        let gone = |target: &Target| target.lost.is_some() || target.given_up.is_some();
        if self.targets.get(&sending.peer()).is_none_or(gone) {
            sending.end(TransferError::PeerLost { peer: sending.cell.endpoint.clone() });
        }
        self.sends.insert(id, sending);
        self.with(id, |_| 0);
    }

    fn push(&mut self, id: SendId, work: Work) {
        let Some(sending) = self.sends.get_mut(&id) else { return self.queue.pushes_done(1) };
        if !sending.push(work) {
            return self.queue.pushes_done(1);
        }
        self.queue_up(id);
    }

    /// Gives a transfer its place in the turn.
    fn queue_up(&mut self, id: SendId) {
        let Some(sending) = self.sends.get_mut(&id) else { return };
        if !std::mem::replace(&mut sending.in_turn, true) {
            self.ready.push_back(id);
        }
    }

    /// Changes a transfer, then settles it if nothing holds it any more. `act` returns how many pushes it dropped.
    fn with(&mut self, id: SendId, act: impl FnOnce(&mut Sending) -> usize) {
        let Some(sending) = self.sends.get_mut(&id) else { return };
        self.queue.pushes_done(act(sending));
        self.chunks.append(&mut sending.freed);
        if let Some(outcome) = sending.advance() {
            let sending = self.sends.remove(&id).expect("just found");
            // Reads are counted by who asked for them.
            if sending.cell.key.is_some() {
                self.count_outcome(&outcome);
            }
            sending.cell.settle(outcome);
        }
    }

    fn count_outcome(&self, outcome: &Result<Sent, TransferError>) {
        match outcome {
            Ok(_) => self.counters.outgoing_completed.add(1),
            Err(TransferError::Aborted | TransferError::AbortedByPeer { .. }) => {
                self.counters.outgoing_aborted.add(1)
            }
            Err(_) => self.counters.outgoing_failed.add(1),
        }
    }

    /// Our transfer that a receiver names.
    pub(super) fn sending_of(&self, peer: PeerId, key: TransferKey) -> Option<SendId> {
        let named = |sending: &Sending| sending.peer() == peer && sending.cell.key == Some(key);
        self.sends.iter().find(|(_, sending)| named(sending)).map(|(&id, _)| id)
    }

    fn recalled(&mut self, peer: PeerId, key: TransferKey, waits: bool) {
        let Some(id) = self.sending_of(peer, key) else { return };
        self.with(id, |sending| {
            sending.recalled(waits);
            0
        });
        self.queue_up(id);
    }

    fn abort_by_peer(&mut self, peer: PeerId, key: TransferKey, reason: String) {
        match self.sending_of(peer, key) {
            Some(id) => self.with(id, |sending| sending.end(TransferError::AbortedByPeer { reason })),
            None => self.answer_unknown(peer, key),
        }
    }

    /// The receiver aborts what we finished already: nothing is in flight, and it has our count from the manifest.
    fn answer_unknown(&self, peer: PeerId, key: TransferKey) {
        let reason = "finished".to_owned();
        let withdrawn = Withdrawn { key: key.into(), writes: None, reason };
        self.peers.send(peer, Body::Withdrawn(withdrawn));
    }

    fn end_all(&mut self, which: impl Fn(&Sending) -> bool, error: impl Fn(&Sending) -> TransferError) {
        let ids: Vec<SendId> = self.sends.iter().filter(|(_, s)| which(s)).map(|(&id, _)| id).collect();
        for id in ids {
            self.with(id, |sending| sending.end(error(sending)));
        }
    }

    /// Fails what is left. Dropping the fabric ends every access to the pool, so the latches may open after it.
    pub(crate) fn shut_down(mut self, failure: Option<FabricError>) {
        let failure = failure.map(|error| DataPlaneFailed { reason: error.to_string() });
        self.queue.close(failure.clone());
        for sending in self.sends.values_mut() {
            self.queue.pushes_done(sending.end(TransferError::ended(failure.clone())));
        }
        drop(self.fabric);
        self.sends.clear();
    }
}
