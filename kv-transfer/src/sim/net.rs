//! The simulated network: writes under way, who is alive, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blocks::{Blocks, Use};
use super::pipe::Pipe;
use super::reads::ReadFlight;
use crate::fabric::{Event, Write};
use crate::ids::{Immediate, PeerId, TransferKey};
use crate::memory::Mapping;

/// A write is through, or lost for good, after this. Shorter than the drain time that nodes are given.
pub(super) const LONGEST_FLIGHT: Duration = Duration::from_millis(60);

/// What the fabric does that fabrics must not: chances in a thousand, for each write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// It fails, having landed in part, or landing in part after that.
    pub(super) failed: u32,
    /// The path to its target fails under it, and another is left; it lands late, or never.
    pub(super) rerouted: u32,
    /// It lands, and its immediate does not.
    pub(super) arrival_lost: u32,
    /// Its immediate comes twice.
    pub(super) arrival_repeated: u32,
    /// A byte changes on the way.
    pub(super) corrupted: u32,
    /// It lands, and its sender never hears of it.
    pub(super) completion_lost: u32,
    /// It is never told: its source is read, and its destination written, again and again, until the fabric ends it or ends.
    pub(super) stuck: u32,
}

/// Counts of what a world must bring about to be worth running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Tickets of a former life that were refused by the node that has its name now.
    pub(super) stale_incarnations: usize,
    /// Transfers that were refused for want of a slot, a permit, a block or a place in the queue.
    pub(super) shortages: usize,
    /// Transfers of several senders that arrived.
    pub(super) joined: usize,
    /// Data planes that ended by themselves.
    pub(super) failed_planes: usize,
    /// Peers that were given up, with all that was under way to them back.
    pub(super) severed: usize,
    /// Fetches that were started, that brought the bytes, and that were told that the offer is gone.
    pub(super) fetches: usize,
    pub(super) fetched: usize,
    pub(super) offers_gone: usize,
    /// Fetches between different layouts that brought the bytes.
    pub(super) fetched_converted: usize,
}

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    Fails,
    Rerouted,
    ArrivalLost,
    ArrivalRepeated,
    Corrupted,
    CompletionLost,
    Stuck,
}

struct Flight {
    from: usize,
    to: usize,
    /// The sender, as the receiver's fabric numbers it.
    initiator: PeerId,
    write: Write,
    posted: Instant,
    fate: Fate,
    /// Taken from the source, with the completion on its way or given.
    bytes: Option<Vec<u8>>,
    landed: bool,
    completed: bool,
    /// The sender is not told how it ends.
    muted: bool,
}

/// One node as the network sees it.
pub(super) struct Port {
    /// Set with its death.
    pub(super) dead: CancellationToken,
    /// Stopped until then.
    pub(super) paused_until: Option<Instant>,
    /// It died without a word: until then its connections only stay silent.
    pub(super) silent_until: Option<Instant>,
    /// Its fabric has ended: nothing reads or writes its pool any more.
    pub(super) closed: bool,
    pub(super) pool: Arc<Mapping>,
    pub(super) blocks: Option<Blocks>,
    pub(super) events: VecDeque<Event>,
    pub(super) wake: Arc<Notify>,
}

impl Port {
    pub(super) fn is_alive(&self) -> bool {
        !self.dead.is_cancelled()
    }

    /// Something can be written here.
    pub(super) fn is_reachable(&self) -> bool {
        self.is_alive() && !self.closed
    }
}

pub(super) struct State {
    pub(super) random: SmallRng,
    pub(super) ports: Vec<Port>,
    /// Which node answers to a name: the last that was started under it.
    pub(super) names: BTreeMap<usize, usize>,
    /// How often rare things happened.
    pub(super) seen: Seen,
    flights: Vec<Flight>,
    pub(super) reads: Vec<ReadFlight>,
    pub(super) faults: Faults,
    /// A completed write may still be on its way.
    pub(super) completes_early: bool,
    /// A data path can be ended, and what is under way on it is told.
    pub(super) severs: bool,
    /// An arrival says whose write it was; many fabrics do not know.
    tells_sender: bool,
    /// The transfers of which these slots of a node count a part.
    pub(super) parts: BTreeMap<(usize, TransferKey), TransferKey>,
    /// Ends control connections, by the nodes at their ends.
    pub(super) pipes: Vec<(usize, usize, Pipe)>,
    /// Nodes that were cut off from each other once.
    pub(super) cuts: BTreeSet<(usize, usize)>,
    pub(super) violations: Vec<String>,
    started: Instant,
    trace: u64,
    prints: bool,
}

/// A network; clones share it.
#[derive(Clone)]
pub(crate) struct Net(Arc<(Mutex<State>, Notify)>);

impl Net {
    pub(super) fn new(seed: u64, faults: Faults, completes_early: bool, prints: bool) -> Self {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            ports: Vec::new(),
            names: BTreeMap::new(),
            seen: Seen::default(),
            flights: Vec::new(),
            reads: Vec::new(),
            faults,
            completes_early,
            severs: SmallRng::seed_from_u64(seed ^ 0x5e7e).random(),
            tells_sender: SmallRng::seed_from_u64(seed ^ 0x7e11).random(),
            parts: BTreeMap::new(),
            pipes: Vec::new(),
            cuts: BTreeSet::new(),
            violations: Vec::new(),
            started: Instant::now(),
            trace: seed,
            prints,
        };
        Self(Arc::new((Mutex::new(state), Notify::new())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something for the trace.
    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        self.lock().note(what);
    }

    /// A hash of everything that was noted, in order.
    pub(super) fn trace(&self) -> u64 {
        self.lock().trace
    }

    pub(super) fn post(&self, from: usize, to: usize, initiator: PeerId, write: &Write) {
        {
            let mut state = self.lock();
            let fate = state.draw_fate();
            let posted = Instant::now();
            state.note(|| format!("post {from}>{to} {write:?} {fate:?}"));
            state.flights.push(Flight {
                from,
                to,
                initiator,
                write: *write,
                posted,
                fate,
                bytes: None,
                landed: false,
                completed: false,
                muted: false,
            });
        }
        self.moves();
    }

    /// Moves writes and reads along, for ever.
    pub(super) async fn run(self) {
        loop {
            let pause = {
                let mut state = self.lock();
                if state.is_still() { None } else { Some(state.random.random_range(0..4)) }
            };
            match pause {
                None => self.0.1.notified().await,
                Some(0) => tokio::task::yield_now().await,
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            }
            let mut state = self.lock();
            let steps = state.random.random_range(1..6);
            (0..steps).for_each(|_| state.step());
        }
    }

    /// The sender of a connection does not want to hear of its writes any more; they fly on. What is stuck ends only with
    /// a peer that was cut off, and is as good as dead.
    pub(super) fn mute(&self, to: usize, initiator: PeerId) {
        let mut state = self.lock();
        let theirs = |flight: &Flight| (flight.to, flight.initiator) == (to, initiator);
        state.flights.iter_mut().filter(|flight| theirs(flight)).for_each(|flight| flight.muted = true);
        let State { cuts, flights, .. } = &mut *state;
        let over = |flight: &Flight| flight.fate == Fate::Stuck && cuts.contains(&(flight.from, flight.to));
        flights.retain(|flight| !(theirs(flight) && over(flight)));
        state.mute_reads(to, initiator);
    }

    /// Something is under way.
    pub(super) fn moves(&self) {
        self.0.1.notify_one();
    }

    /// A data path ends: no source is read for it any more. What was taken already flies on; all of `contexts` has failed.
    pub(super) fn sever(&self, from: usize, (to, initiator): (usize, PeerId), contexts: &[u32]) {
        let mut state = self.lock();
        state.seen.severed += usize::from(!contexts.is_empty());
        let theirs = |flight: &Flight| (flight.to, flight.initiator) == (to, initiator);
        state.flights.retain(|flight| !theirs(flight) || flight.bytes.is_some());
        state.flights.iter_mut().filter(|flight| theirs(flight)).for_each(|flight| flight.muted = true);
        state.sever_reads(to, initiator);
        let failed = |&context: &u32| Event::Failed(context, "the data path was ended".to_owned());
        contexts.iter().for_each(|context| state.tell(from, failed(context)));
    }

    /// The node's fabric is gone, and with it every access to its pool.
    pub(super) fn close(&self, node: usize) {
        let mut state = self.lock();
        // Until now the source may be read.
        let (over, others): (Vec<Flight>, _) = std::mem::take(&mut state.flights)
            .into_iter()
            .partition(|flight| flight.from == node && flight.bytes.is_none());
        state.flights = others;
        over.into_iter().for_each(|mut flight| state.take_bytes(&mut flight));
        state.ports[node].closed = true;
        state.end_reads(node);
    }

    /// The node's process is gone. What it had handed to a fabric that buffers may still arrive.
    pub(super) fn kill(&self, node: usize) {
        let pipes = {
            let mut state = self.lock();
            state.die(node);
            state.pipes(|from, to| from == node || to == node)
        };
        pipes.iter().for_each(Pipe::cut);
        self.0.1.notify_one();
    }

    /// The node's host is gone, with nobody to end its connections: peers only hear nothing any more, for so long.
    pub(super) fn vanish(&self, node: usize, silence: Duration) {
        let mut state = self.lock();
        state.die(node);
        state.ports[node].silent_until = Some(Instant::now() + silence);
        drop(state);
        self.0.1.notify_one();
    }

    /// Returns when the peers of a node can know that its connections have ended: at once, mostly.
    pub(super) async fn ended(&self, node: usize) {
        let until = self.lock().ports[node].silent_until;
        if let Some(at) = until {
            tokio::time::sleep_until(at).await;
        }
    }

    /// The control connections between two nodes end.
    pub(super) fn cut(&self, a: usize, b: usize) {
        let pipes: Vec<_> = {
            let mut state = self.lock();
            state.note(|| format!("cut {a} {b}"));
            state.cuts.extend([(a, b), (b, a)]);
            state.pipes(|from, to| (from, to) == (a, b) || (from, to) == (b, a))
        };
        pipes.iter().for_each(Pipe::cut);
    }

    /// Nothing goes over the control connections between two nodes any more, which both live. The one hears nothing from now on,
    /// the other after a while.
    pub(super) fn part(&self, first: usize, second: usize, after: Duration) {
        let mut state = self.lock();
        state.note(|| format!("part {first} {second} {after:?}"));
        state.cuts.extend([(first, second), (second, first)]);
        let ends = state.pipes.iter().filter_map(|(from, to, pipe)| match (*from, *to) {
            ends if ends == (first, second) => Some((pipe, 0)),
            ends if ends == (second, first) => Some((pipe, 1)),
            _ => None,
        });
        let mut late = Vec::new();
        for (pipe, end) in ends {
            pipe.silent.store(true, Ordering::Relaxed);
            pipe.cuts[end].cancel();
            late.push(pipe.cuts[1 - end].clone());
        }
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            late.iter().for_each(CancellationToken::cancel);
        });
    }

    /// The node's process stops for a while.
    pub(super) fn pause(&self, node: usize, length: Duration) {
        let mut state = self.lock();
        state.note(|| format!("pause {node} {length:?}"));
        state.ports[node].paused_until = Some(Instant::now() + length);
    }

    /// Cancelled when the node's process dies.
    pub(super) fn dead(&self, node: usize) -> CancellationToken {
        self.lock().ports[node].dead.clone()
    }

    /// Returns when the node runs: at once, mostly.
    pub(super) async fn running(&self, node: usize) {
        loop {
            let until = self.lock().ports[node].paused_until;
            match until.filter(|&at| at > Instant::now()) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => return,
            }
        }
    }
}

impl State {
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.started.elapsed().as_millis();
        let line = format!("{at:>6} {}", what());
        self.trace = twox_hash::XxHash3_64::oneshot_with_seed(self.trace, line.as_bytes());
        if self.prints {
            eprintln!("{line}");
        }
    }

    fn die(&mut self, node: usize) {
        self.note(|| format!("kill {node}"));
        self.ports[node].dead.cancel();
        self.ports[node].events.clear();
        let survives = |flight: &Flight| flight.from != node || flight.bytes.is_some();
        self.flights.retain(survives);
        self.end_reads(node);
    }

    /// The control connections between nodes of which `wanted` holds.
    fn pipes(&self, wanted: impl Fn(usize, usize) -> bool) -> Vec<Pipe> {
        let chosen = self.pipes.iter().filter(|&&(from, to, _)| wanted(from, to));
        chosen.map(|(_, _, pipe)| pipe.clone()).collect()
    }

    pub(super) fn draw_fate(&mut self) -> Fate {
        let mut drawn = self.random.random_range(0..1000);
        let chances = [
            (self.faults.failed, Fate::Fails),
            (self.faults.rerouted, Fate::Rerouted),
            (self.faults.arrival_lost, Fate::ArrivalLost),
            (self.faults.arrival_repeated, Fate::ArrivalRepeated),
            (self.faults.corrupted, Fate::Corrupted),
            (self.faults.completion_lost, Fate::CompletionLost),
            (self.faults.stuck, Fate::Stuck),
        ];
        for (chance, fate) in chances {
            if drawn < chance {
                return fate;
            }
            drawn -= chance;
        }
        Fate::Arrives
    }

    /// Nothing is under way.
    fn is_still(&self) -> bool {
        self.flights.is_empty() && self.reads.is_empty()
    }

    /// Moves one write or read along: an overdue one, or any.
    fn step(&mut self) {
        let (writes, reads) = (self.flights.len(), self.reads.len());
        if reads > 0 && self.random.random_range(0..writes + reads) < reads {
            return self.step_read();
        }
        if writes == 0 {
            return;
        }
        let now = Instant::now();
        let overdue = |flight: &Flight| now - flight.posted > LONGEST_FLIGHT && flight.fate != Fate::Stuck;
        let overdue = self.flights.iter().position(overdue);
        let index = overdue.unwrap_or_else(|| self.random.random_range(0..self.flights.len()));
        let mut flight = self.flights.swap_remove(index);
        if self.advance(&mut flight) {
            self.flights.push(flight);
        }
    }

    /// One stage further; `false` when it is over.
    fn advance(&mut self, flight: &mut Flight) -> bool {
        if flight.fate == Fate::Fails && flight.completed {
            let bytes = flight.bytes.take().unwrap_or_default();
            if self.ports[flight.to].is_reachable() {
                self.write_into(flight, &bytes);
            }
            return false;
        }
        if flight.fate == Fate::Fails || (!self.ports[flight.to].is_reachable() && flight.bytes.is_none()) {
            return self.fail(flight);
        }
        if flight.fate == Fate::Stuck {
            self.take_bytes(flight);
            let bytes = flight.bytes.take().unwrap_or_default();
            if !self.cuts.contains(&(flight.from, flight.to)) && self.random.random_bool(0.3) {
                self.write_into(flight, &bytes);
            }
            return true;
        }
        if flight.bytes.is_none() {
            self.take_bytes(flight);
            return flight.fate != Fate::Rerouted || self.reroute(flight);
        }
        // Early: completed, then landed. Otherwise a completion says that it has landed.
        let complete_now = !flight.completed && (self.completes_early || flight.landed);
        if complete_now {
            flight.completed = true;
            if flight.fate != Fate::CompletionLost {
                self.report(flight, Event::Done(flight.write.context));
            }
        } else if !flight.landed {
            self.land(flight);
        }
        !(flight.landed && flight.completed)
    }

    /// The NIC reads the source.
    fn take_bytes(&mut self, flight: &mut Flight) {
        let key = self.transfer_of(flight);
        let mut bytes = Vec::new();
        for (source, _) in flight.write.rows() {
            let range = source..source + flight.write.len;
            self.check(flight.from, range, Use::Source(flight.to, key), "read of");
            let mut row = vec![0; flight.write.len as usize];
            self.ports[flight.from].pool.copy_out(source as usize, &mut row);
            bytes.extend(row);
        }
        if flight.fate == Fate::Corrupted {
            let index = self.random.random_range(0..bytes.len());
            bytes[index] ^= 1 << self.random.random_range(0..8);
        }
        flight.bytes = Some(bytes);
    }

    fn land(&mut self, flight: &mut Flight) {
        flight.landed = true;
        if !self.ports[flight.to].is_reachable() {
            return;
        }
        let bytes = flight.bytes.clone().unwrap_or_default();
        self.write_into(flight, &bytes);
        let from = self.tells_sender.then_some(flight.initiator);
        let landed = || Event::Landed { from, immediate: flight.write.immediate };
        let times = match flight.fate {
            Fate::ArrivalLost => 0,
            Fate::ArrivalRepeated => 2,
            Fate::Arrives
            | Fate::Fails
            | Fate::Rerouted
            | Fate::Corrupted
            | Fate::CompletionLost
            | Fate::Stuck => 1,
        };
        (0..times).for_each(|_| self.tell(flight.to, landed()));
    }

    /// Its sender hears that its path failed; what the NIC had read may land all the same.
    fn reroute(&mut self, flight: &mut Flight) -> bool {
        flight.completed = true;
        self.report(flight, Event::Again(flight.write.context, "a rail failed".to_owned()));
        self.random.random_bool(0.5)
    }

    /// Some of it may have landed.
    fn fail(&mut self, flight: &mut Flight) -> bool {
        if self.ports[flight.to].is_reachable() && self.random.random_bool(0.5) {
            self.take_bytes(flight);
            let bytes = flight.bytes.take().unwrap_or_default();
            let part = self.random.random_range(0..=bytes.len());
            if self.random.random_bool(0.5) {
                flight.bytes = Some(bytes[..part].to_vec());
            } else {
                self.write_into(flight, &bytes[..part]);
            }
        }
        self.report(flight, Event::Failed(flight.write.context, "lost on the way".to_owned()));
        flight.completed = true;
        flight.bytes.is_some()
    }

    fn write_into(&mut self, flight: &Flight, bytes: &[u8]) {
        let key = self.transfer_of(flight);
        for ((_, destination), row) in flight.write.rows().zip(bytes.chunks(flight.write.len as usize)) {
            let range = destination..destination + row.len() as u64;
            self.check(flight.to, range, Use::Destination(key), "write to");
            self.ports[flight.to].pool.copy_in(destination as usize, row);
        }
    }

    /// The transfer to which a write belongs.
    fn transfer_of(&self, flight: &Flight) -> TransferKey {
        let key = Immediate::decode(flight.write.immediate).expect("writes carry immediates").key;
        self.parts.get(&(flight.to, key)).copied().unwrap_or(key)
    }

    pub(super) fn check(&mut self, node: usize, bytes: std::ops::Range<u64>, expected: Use, what: &str) {
        let port = &self.ports[node];
        if bytes.is_empty() || !port.is_alive() {
            return;
        }
        let wrong = port.blocks.as_ref().and_then(|blocks| blocks.first_wrong(bytes, expected));
        if let Some((block, used)) = wrong {
            let violation =
                format!("{what} block {block} of node {node} for {expected:?}, which is in use as {used:?}");
            self.note(|| violation.clone());
            self.violations.push(violation);
        }
    }

    fn report(&mut self, flight: &Flight, event: Event) {
        if !flight.muted {
            self.tell(flight.from, event);
        }
    }

    pub(super) fn tell(&mut self, node: usize, event: Event) {
        if self.ports[node].is_alive() {
            self.note(|| format!("tell {node} {event:?}"));
            self.ports[node].events.push_back(event);
            self.ports[node].wake.notify_one();
        }
    }
}
