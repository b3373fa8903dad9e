//! One run: a world drawn from a seed, and what must be true at its end.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::agents::{self, Host, Transfer};
use super::blocks::Blocks;
use super::fabric::SimFabric;
use super::net::{Faults, Net, Seen};
use super::pulls::{self, Pull};
use super::{Run, pipe};
use crate::control::Listener;
use crate::engine::{DataPlane, Round};
use crate::ids::NodeId;
use crate::layout::Conversion;
use crate::node::{Assembly, assemble};
use crate::{
    ChecksumMode, ExpectError, FabricSpec, KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel,
    TransferConfig, TransferNode,
};

/// Virtual time after which a run hangs.
const BOUND: Duration = Duration::from_secs(120);
/// The part of the transfers that are pulls.
const PULLS: f64 = 0.2;
/// Larger than any write takes.
pub(super) const DRAIN: Duration = Duration::from_millis(100);
/// Two nodes that are cut off from each other notice within this of each other.
pub(super) const SILENCE: Duration = Duration::from_millis(150);
/// Larger than any write takes that comes back at all, with all that it may have to wait for.
pub(super) const OVERDUE: Duration = Duration::from_millis(400);
/// A process whose data plane failed ends within this.
const LAST_WORDS_MS: std::ops::Range<u64> = 0..40;

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Climate {
    pub(super) faults: Faults,
    /// Deaths, pauses, cut connections and shutdowns, at most.
    pub(super) disasters: usize,
    /// Each disaster is the death of a node that is started again under its name before its peers know.
    pub(super) restarts: bool,
    /// Many transfers at once, few blocks, slots, permits and places in queues; who finds no room tries again.
    pub(super) crowd: bool,
}

/// How a run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// A hash of everything that happened, in order.
    pub(super) trace: u64,
    /// Pushes, and those of them that were received.
    pub(super) transfers: usize,
    pub(super) received: usize,
    pub(super) pulls: usize,
    pub(super) seen: Seen,
    /// What must not be.
    pub(super) violations: Vec<String>,
}

impl Report {
    /// Of the next transfer.
    fn tag(&self) -> u64 {
        (self.transfers + self.pulls) as u64
    }

    /// Sums up several runs.
    pub(super) fn add(&mut self, other: &Self) {
        self.transfers += other.transfers;
        self.received += other.received;
        self.pulls += other.pulls;
        self.seen.stale_incarnations += other.seen.stale_incarnations;
        self.seen.shortages += other.seen.shortages;
        self.seen.joined += other.seen.joined;
        self.seen.failed_planes += other.seen.failed_planes;
        self.seen.severed += other.seen.severed;
        self.seen.fetches += other.seen.fetches;
        self.seen.fetched += other.seen.fetched;
        self.seen.offers_gone += other.seen.offers_gone;
        self.seen.fetched_converted += other.seen.fetched_converted;
    }
}

/// Runs the world of `seed`.
pub(super) fn run(seed: u64, climate: Climate, prints: bool) -> Report {
    in_world(seed, climate, prints, async |world| world.run().await)
}

/// Makes the world of `seed`, for `what` to happen in it.
pub(super) fn in_world<T>(
    seed: u64,
    climate: Climate,
    prints: bool,
    what: impl AsyncFnOnce(World) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let result = runtime.block_on(async {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x0dd5);
        // Only where completion is delivery, a failed path's writes can be made up for.
        let completes_early = random.random_bool(0.5) && climate.faults.rerouted == 0;
        let net = Net::new(seed, climate.faults, completes_early, prints);
        let _run = Run::begin(net.clone(), seed);
        let network = tokio::spawn(net.clone().run());
        let result = what(World::new(net, climate, random)).await;
        network.abort();
        result
    });
    pipe::clear();
    result
}

pub(super) struct World {
    pub(super) net: Net,
    climate: Climate,
    random: SmallRng,
    layers: u32,
    /// Whether all workers have the same layout.
    alike: bool,
    /// How much is hashed, where bytes do not change on the way: what is right must not hang on it.
    checksums: ChecksumMode,
    /// Each of one or several tensor-parallel ranks.
    workers: Vec<Vec<Host>>,
    /// Nodes whose name another has now.
    former: Vec<Host>,
    planes: JoinSet<()>,
}

impl World {
    fn new(net: Net, climate: Climate, mut random: SmallRng) -> Self {
        let layers = random.random_range(1..5);
        // Mostly everybody cuts the cache alike, as in most deployments.
        let alike = random.random_bool(0.5);
        let checksums = if random.random_bool(0.5) { ChecksumMode::Off } else { ChecksumMode::Sampled };
        let (workers, former, planes) = (Vec::new(), Vec::new(), JoinSet::new());
        Self { net, climate, random, layers, alike, checksums, workers, former, planes }
    }

    async fn run(mut self) -> Report {
        for _ in 0..self.random.random_range(2..5) {
            self.start_worker();
        }
        let mut transfers = JoinSet::new();
        let mut report = Report::default();
        let first = self.random.random_range(if self.climate.crowd { 12..24 } else { 2..9 });
        self.start_transfers(first, &mut transfers, &mut report);
        let least = usize::from(self.climate.restarts);
        for _ in 0..self.random.random_range(least..=self.climate.disasters.max(least)) {
            sleep(Duration::from_millis(self.random.random_range(0..120))).await;
            if self.climate.restarts {
                self.restart();
            } else {
                self.strike();
            }
            if self.random.random_bool(0.3) {
                // A worker that was restarted is a new one, whatever it is called.
                self.start_worker();
            }
            let more = self.random.random_range(0..3);
            self.start_transfers(more, &mut transfers, &mut report);
        }
        let all = async {
            while let Some(received) = transfers.join_next().await {
                let received = received.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                report.received += usize::from(received);
            }
        };
        if timeout(BOUND, all).await.is_err() {
            report.violations.push("a transfer hangs".to_owned());
        }
        self.settle(&mut report).await;
        let state = self.net.lock();
        report.seen = state.seen;
        report.violations.extend(state.violations.iter().cloned());
        drop(state);
        report.trace = self.net.trace();
        report
    }

    /// A node that is a worker of its own, with all heads in blocks of two tokens, of a model with one layer.
    pub(super) fn one_layer_host(&mut self) -> Host {
        (self.alike, self.layers) = (true, 1);
        let layout = self.layout();
        self.start_node(layout, layout.tensor_parallel, None)
    }

    fn start_transfers(&mut self, count: usize, transfers: &mut JoinSet<bool>, report: &mut Report) {
        for _ in 0..count {
            if self.random.random_bool(PULLS) {
                self.start_pull(transfers, report);
                continue;
            }
            let (receiver, senders) = self.ends();
            let transfer = self.transfer(report.tag());
            let seed = self.random.random();
            report.transfers += 1;
            let run = agents::run(self.net.clone(), receiver, senders, transfer, seed);
            transfers.spawn(async { run.await.received });
        }
    }

    fn start_pull(&mut self, transfers: &mut JoinSet<bool>, report: &mut Report) {
        let (owner, readers) = self.pull_ends();
        let pull = self.pull(report.tag());
        let seed = self.random.random();
        report.pulls += 1;
        let run = pulls::run(self.net.clone(), owner, readers, pull, seed);
        transfers.spawn(async {
            run.await;
            false
        });
    }

    /// All ranks of a worker, or of one that took its place.
    fn start_worker(&mut self) {
        let layout = self.layout();
        let size = layout.tensor_parallel.size;
        let ranks =
            (0..size).map(|rank| self.start_node(layout, TensorParallel { rank, size }, None)).collect();
        self.workers.push(ranks);
    }

    fn layout(&mut self) -> KvLayout {
        let plain = KvGeometry::plain(self.layers, 1, 64).layout;
        let layout = KvLayout { kv_heads: 4, head_dim: 4, block_tokens: 2, ..plain };
        if self.alike {
            return layout;
        }
        let random = &mut self.random;
        let size = *[1, 1, 1, 2, 2, 4, 8].choose(random).expect("a choice");
        KvLayout {
            block_tokens: random.random_range(1..5),
            placement: *[KvPlacement::Joined, KvPlacement::Split].choose(random).expect("a choice"),
            order: *[KvOrder::Nhd, KvOrder::Hnd].choose(random).expect("a choice"),
            tensor_parallel: TensorParallel { rank: 0, size },
            ..layout
        }
    }

    /// Under a name of its own, or one that another node had.
    fn start_node(&mut self, layout: KvLayout, tensor_parallel: TensorParallel, name: Option<usize>) -> Host {
        let crowd = self.climate.crowd;
        let blocks = if crowd { 14 } else { 24 };
        let geometry = KvGeometry { layout: KvLayout { tensor_parallel, ..layout }, blocks };
        let max_write = 32 << self.random.random_range(0..5);
        let strided_writes = self.random.random_bool(0.5);
        // Shared memory needs no staging; whether there is any is all that the name decides here.
        let staged = !strided_writes && self.random.random_bool(0.5);
        let fabric = if staged { FabricSpec::Libfabric { provider: None } } else { FabricSpec::Shm };
        let mut config = TransferConfig::new(fabric, geometry, "sim");
        config.limits.staging_chunks = 2;
        config.limits.staging_chunk_bytes = 800;
        let (region, max_write) = (config.region(), if staged { 800 } else { max_write });
        let (number, fabric, pool) = SimFabric::join(&self.net, region, max_write, strided_writes);
        // A corrupted piece must be seen wherever it is.
        config.checksums =
            if self.climate.faults.corrupted > 0 { ChecksumMode::Full } else { self.checksums };
        config.limits.incoming = if crowd { 3 } else { 6 };
        config.limits.outgoing = if crowd { 2 } else { 6 };
        config.limits.offers = if crowd { 2 } else { 6 };
        config.limits.queued_pushes = if crowd { 3 } else { 8 };
        config.limits.push_patience = Duration::ZERO;
        config.limits.handshake = Duration::from_millis(400);
        config.limits.silence = SILENCE;
        config.limits.drain = DRAIN;
        config.limits.overdue = OVERDUE;
        let blocks = Blocks::new(pool.clone(), geometry);
        self.net.lock().ports[number].blocks = Some(blocks.clone());
        let wake = self.net.lock().ports[number].wake.clone();
        let name = name.unwrap_or(number);
        self.net.lock().names.insert(name, number);
        let Assembly { node, plane, end } =
            assemble(config, NodeId::random(), Listener::sim(name), Box::new(fabric), pool)
                .expect("a simulated node starts");
        let net = self.net.clone();
        self.planes.spawn(async move {
            let _end = end;
            drive(net, number, plane, wake).await;
        });
        let node = TransferNode::simulated(node);
        let last_words = Duration::from_millis(self.random.random_range(LAST_WORDS_MS));
        tokio::spawn(restart_when_failed(self.net.clone(), number, node.clone(), last_words));
        Host { number, name, node, blocks, layout: geometry.layout }
    }

    /// A rank of one worker, and the ranks of another that have something for it.
    fn ends(&mut self) -> (Host, Vec<Host>) {
        let receiver = self.random.random_range(0..self.workers.len());
        let mut sender = self.random.random_range(0..self.workers.len() - 1);
        sender += usize::from(sender >= receiver);
        let receiver = self.workers[receiver].choose(&mut self.random).expect("a rank").clone();
        let geometry = |host: &Host| KvGeometry { layout: host.layout, blocks: 1 };
        let needed = |sender: &&Host| {
            Conversion::between(geometry(sender), geometry(&receiver)).expect("one model").is_needed()
        };
        let senders = self.workers[sender].iter().filter(needed).cloned().collect();
        (receiver, senders)
    }

    /// A node, and some that read what it has; one of them may do so twice. Mostly it has all that they need.
    fn pull_ends(&mut self) -> (Host, Vec<Host>) {
        let owner = self.any_host();
        let others = || self.workers.iter().flatten().filter(|host| host.number != owner.number);
        let (all, served): (Vec<&Host>, Vec<&Host>) =
            (others().collect(), others().filter(|host| pulls::covers(&owner, host)).collect());
        let few = served.is_empty() || self.random.random_bool(0.05);
        let readers = if few { all } else { served };
        let count = self.random.random_range(1..4);
        let readers =
            (0..count).map(|_| (*readers.choose(&mut self.random).expect("a reader")).clone()).collect();
        (owner, readers)
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.workers.iter().flatten().chain(&self.former)
    }

    fn any_host(&mut self) -> Host {
        let hosts: Vec<&Host> = self.workers.iter().flatten().collect();
        (*hosts.choose(&mut self.random).expect("a host")).clone()
    }

    fn transfer(&mut self, tag: u64) -> Transfer {
        let random = &mut self.random;
        let ms = |random: &mut SmallRng, range: std::ops::Range<u64>| {
            Duration::from_millis(random.random_range(range))
        };
        Transfer {
            tag,
            tokens: random.random_range(1..11),
            starts_at: ms(random, 0..80),
            expires_in: match self.climate.crowd {
                true => ms(random, 200..1500),
                false if random.random_bool(0.3) => ms(random, 1..120),
                false => Duration::from_secs(5),
            },
            receiver_patience: random.random_bool(0.2).then(|| ms(random, 0..120)),
            sender_patience: random.random_bool(0.2).then(|| ms(random, 0..40)),
            ticket_lost: random.random_bool(0.05),
            opened_twice: random.random_bool(0.1),
            attempts: if self.climate.crowd { 12 } else { 1 },
        }
    }

    fn pull(&mut self, tag: u64) -> Pull {
        let Climate { faults, disasters, restarts, crowd } = self.climate;
        let random = &mut self.random;
        let ms = |random: &mut SmallRng, range: std::ops::Range<u64>| {
            Duration::from_millis(random.random_range(range))
        };
        let short = random.random_bool(0.4);
        let taken_back = random.random_bool(0.3).then(|| ms(random, 0..250));
        Pull {
            tag,
            tokens: random.random_range(1..11),
            starts_at: ms(random, 0..80),
            expires_in: if short { ms(random, 1..200) } else { Duration::from_secs(5) },
            renewed: random.random_bool(0.5),
            kept: faults == Faults::default()
                && disasters == 0
                && !restarts
                && taken_back.is_none()
                && !short,
            taken_back,
            corrupted: faults.corrupted > 0,
            stuck: faults.stuck + faults.completion_lost > 0,
            crowd,
        }
    }

    /// A node dies with its host, and is there again under its name while its peers still believe in its former life.
    fn restart(&mut self) {
        let worker = self.random.random_range(0..self.workers.len());
        let rank = self.random.random_range(0..self.workers[worker].len());
        let Host { number, name, node, layout, .. } = self.workers[worker][rank].clone();
        let silence = Duration::from_millis(self.random.random_range(0..300));
        self.net.note(|| format!("restart {name}, which was {number}"));
        self.net.vanish(number, silence);
        node.abandon();
        let again = self.start_node(layout, layout.tensor_parallel, Some(name));
        let former = std::mem::replace(&mut self.workers[worker][rank], again);
        self.former.push(former);
    }

    /// Something happens to somebody.
    fn strike(&mut self) {
        let host = self.any_host();
        match self.random.random_range(0..5) {
            0 => {
                // Its process is gone; nobody is there to hear what it finds out.
                self.net.kill(host.number);
                host.node.abandon();
            }
            1 => self.net.pause(host.number, Duration::from_millis(self.random.random_range(1..400))),
            2 => {
                let other = self.any_host();
                self.net.cut(host.number, other.number);
            }
            3 => {
                let other = self.any_host();
                let late = self.random.random_range(0..SILENCE.as_millis() as u64);
                self.net.part(host.number, other.number, Duration::from_millis(late));
            }
            _ => {
                self.net.note(|| format!("shut down {}", host.number));
                let net = self.net.clone();
                tokio::spawn(async move {
                    net.running(host.number).await;
                    host.node.shutdown().await;
                });
            }
        }
    }

    /// Nothing may be left anywhere.
    async fn settle(&mut self, report: &mut Report) {
        // Leases that were given to transfers come back once those are quiet.
        let quiet = async {
            while self.hosts().any(|host| self.holds(host)) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(BOUND, quiet).await.is_err() {
            for host in self.hosts().filter(|host| self.holds(host)) {
                let (free, stats) = (host.blocks.free(), host.node.stats());
                report
                    .violations
                    .push(format!("node {} leaks: {free} blocks are free, {stats:?}", host.number));
            }
        }
        for host in self.hosts() {
            // Every block can be received into again.
            let all: Vec<u32> = (0..host.blocks.len() as u32).collect();
            let tokens = all.len() as u32 * host.layout.block_tokens;
            if let Err(error @ ExpectError::BlockBusy { .. }) = host.node.expect(&all, tokens, BOUND)
                && self.net.lock().ports[host.number].is_alive()
            {
                report.violations.push(format!("node {}: {error}", host.number));
            }
            if timeout(BOUND, host.node.shutdown()).await.is_err() {
                report.violations.push(format!("node {} does not shut down", host.number));
            }
        }
        let ended = async { while self.planes.join_next().await.is_some() {} };
        if timeout(BOUND, ended).await.is_err() {
            report.violations.push("a data plane does not end".to_owned());
        }
    }

    /// Whether a living node holds anything.
    fn holds(&self, host: &Host) -> bool {
        let stats = host.node.stats();
        let received = stats.incoming_live == 0 && stats.quarantined_blocks == 0;
        let idle = received && stats.in_flight_writes == 0 && stats.offers_live == 0;
        let idle = idle && host.node.permits_in_use() == 0;
        let free = host.blocks.free() == host.blocks.len();
        self.net.lock().ports[host.number].is_alive() && !(idle && free)
    }
}

/// The data plane as a task.
async fn drive(net: Net, number: usize, mut plane: DataPlane, wake: Arc<tokio::sync::Notify>) {
    loop {
        net.running(number).await;
        match plane.round() {
            Ok(Round::News) => tokio::task::yield_now().await,
            Ok(Round::Idle { blocked }) => {
                let pause = plane.pause(blocked).unwrap_or(Duration::MAX);
                let _ = timeout(pause, wake.notified()).await;
            }
            Ok(Round::Stop) => return plane.shut_down(None),
            Err(error) => {
                net.note(|| format!("node {number}: {error}"));
                return plane.shut_down(Some(error));
            }
        }
    }
}

/// What a worker does whose data plane failed: its process ends. Its blocks have other uses until then.
async fn restart_when_failed(net: Net, number: usize, node: TransferNode, after: Duration) {
    let failure = node.failed().await;
    net.note(|| format!("node {number}: {failure}"));
    net.lock().seen.failed_planes += 1;
    sleep(after).await;
    net.kill(number);
    node.abandon();
}
