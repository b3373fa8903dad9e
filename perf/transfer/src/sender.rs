//! The sending process: drives the other, and takes the times.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use baton_kv_transfer::{KvGeometry, RawFabric, TransferNode};

use tokio::task::JoinSet;

use super::memcpy;
use super::protocol::{Answer, Order, Scenario, cpu_ns, now_ns};
use super::tables::table;

/// Blocks of a transfer that is timed for its latency.
const SMALL_BLOCKS: u32 = 4;
/// Rounds that connect and warm.
pub(super) const WARM_UP: u32 = 2;

/// What a scenario reached; medians.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) bytes_per_second: f64,
    pub(super) memcpy_bytes_per_second: f64,
    /// With nothing on top of the fabric, where that can be had.
    pub(super) raw_bytes_per_second: Option<f64>,
    /// Sorted, in microseconds.
    pub(super) latencies: Vec<f64>,
    /// Bytes of the layer whose hand-over was timed.
    pub(super) latency_bytes: u64,
    /// Processor seconds for each GB.
    pub(super) sender_cpu: f64,
    pub(super) receiver_cpu: f64,
}

pub(super) async fn measure(scenario: &Scenario, rounds: u32, latencies: u32) -> Result<Measured> {
    let mut receiver = Receiver::start(scenario)?;
    let node = TransferNode::start(scenario.config()?).await?;
    // Memory of the same kind as the receiver's, for memcpy.
    let target = TransferNode::start(scenario.config()?).await?;
    let geometry = scenario.geometry();
    let source = table(scenario.blocks, scenario.run, u64::MAX);

    let mut raw = if scenario.has_raw() { Some(Raw::connect(scenario, &mut receiver).await?) } else { None };
    let (mut moved, mut copied, mut bare, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + rounds {
        let destination = table(scenario.blocks, scenario.run, u64::from(round));
        let cpu_before = (cpu_ns(), receiver.cpu_ns);
        let transfer = Transfer { node: &node, layers: scenario.layers, source: &source };
        let done = transfer.whole(&mut receiver, destination.clone()).await?;
        let cpu_after = (cpu_ns(), receiver.cpu_ns);
        let copying =
            memcpy::copy(&node.pool(), &target.pool(), &geometry, &source, &destination, scenario.run);
        let raw_seconds = match &mut raw {
            Some(raw) => Some(raw.write(&source, &destination, &mut receiver)?),
            None => None,
        };
        if round >= WARM_UP {
            let bytes = done.bytes as f64;
            moved.push(bytes / done.seconds);
            copied.push(bytes / copying.as_secs_f64());
            bare.extend(raw_seconds.map(|seconds| bytes / seconds));
            cpu.push((
                (cpu_after.0 - cpu_before.0) as f64 / bytes,
                (cpu_after.1 - cpu_before.1) as f64 / bytes,
            ));
        }
    }

    let mut times = Vec::new();
    let small = SMALL_BLOCKS.min(scenario.blocks);
    for number in 0..WARM_UP + latencies {
        let destination = table(scenario.blocks, scenario.run, u64::from(number))[..small as usize].to_vec();
        let transfer = Transfer { node: &node, layers: scenario.layers, source: &source[..small as usize] };
        let done = transfer.last_layer(&mut receiver, destination).await?;
        if number >= WARM_UP {
            times.push(done.seconds * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    receiver.end()?;
    target.shutdown().await;
    node.shutdown().await;
    Ok(Measured {
        bytes_per_second: median(moved),
        memcpy_bytes_per_second: median(copied),
        raw_bytes_per_second: raw.map(|_| median(bare)),
        latencies: times,
        latency_bytes: u64::from(small) * scenario.piece_bytes,
        sender_cpu: median(cpu.iter().map(|cpu| cpu.0).collect()),
        receiver_cpu: median(cpu.iter().map(|cpu| cpu.1).collect()),
    })
}

/// As many transfers of one block as asked for, or as there are blocks, all at once; the time from their common start to each
/// one's end, sorted, in microseconds.
pub(super) async fn measure_crowd(scenario: &Scenario, transfers: u32) -> Result<Vec<f64>> {
    let mut receiver = Receiver::start(scenario)?;
    let node = TransferNode::start(scenario.config()?).await?;
    let mut times = Vec::new();
    for round in 0..=WARM_UP {
        let blocks = table(scenario.blocks, 1, u64::from(round));
        let blocks = &blocks[..blocks.len().min(transfers as usize)];
        receiver.tell(&Order::ExpectEach { blocks: blocks.to_vec() })?;
        let Answer::Tickets(tickets) = receiver.hear()? else { bail!("the receiver gives no tickets") };
        let started = now_ns();
        let mut sending = JoinSet::new();
        for (ticket, &block) in tickets.into_iter().zip(blocks) {
            let (node, layers) = (node.clone(), scenario.layers);
            sending.spawn(async move {
                let outgoing = node.open(&ticket).await?;
                outgoing.push(0..layers, &[(block, 0)])?;
                outgoing.finish().await?;
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(sent) = sending.join_next().await {
            sent??;
        }
        let Answer::ReceivedEach { at_ns } = receiver.hear()? else { bail!("nothing was received") };
        times = at_ns.iter().map(|at| at.saturating_sub(started) as f64 / 1e3).collect();
    }
    receiver.end()?;
    node.shutdown().await;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// What a write costs beyond its bytes.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) writes: u32,
    pub(super) planning_ms: f64,
    pub(super) posting_ns: f64,
}

/// One transfer of many small blocks: the time that `push` takes, then the time until all writes are done; medians.
pub(super) async fn measure_operations(scenario: &Scenario) -> Result<Operations> {
    const ROUNDS: u32 = 5;
    let mut receiver = Receiver::start(scenario)?;
    let node = TransferNode::start(scenario.config()?).await?;
    let source = table(scenario.blocks, 1, u64::MAX);
    let (mut planning, mut posting, mut writes) = (Vec::new(), Vec::new(), 0);
    for round in 0..WARM_UP + ROUNDS {
        let transfer = Transfer { node: &node, layers: 1, source: &source };
        let ticket = receiver.ticket(table(scenario.blocks, 1, u64::from(round)))?;
        let outgoing = node.open(&ticket).await?;
        let pairs = transfer.pairs();
        let started = now_ns();
        outgoing.push(0..1, &pairs)?;
        let planned = now_ns();
        let sent = outgoing.finish().await?;
        let finished = now_ns();
        receiver.received(started, sent.bytes)?;
        writes = sent.writes;
        if round >= WARM_UP {
            planning.push((planned - started) as f64 / 1e6);
            posting.push((finished - planned) as f64 / f64::from(sent.writes));
        }
    }
    receiver.end()?;
    node.shutdown().await;
    Ok(Operations { writes, planning_ms: median(planning), posting_ns: median(posting) })
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

pub(super) struct Transfer<'a> {
    pub(super) node: &'a TransferNode,
    pub(super) layers: u32,
    pub(super) source: &'a [u32],
}

pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

impl Transfer<'_> {
    /// Layer after layer, as a prefill pushes them.
    pub(super) async fn whole(&self, receiver: &mut Receiver, destination: Vec<u32>) -> Result<Done> {
        let ticket = receiver.ticket(destination)?;
        let started = now_ns();
        let outgoing = self.node.open(&ticket).await?;
        for layer in 0..self.layers {
            outgoing.push(layer..layer + 1, &self.pairs())?;
        }
        let sent = outgoing.finish().await?;
        receiver.received(started, sent.bytes)
    }

    /// All layers but the last, which is timed.
    async fn last_layer(&self, receiver: &mut Receiver, destination: Vec<u32>) -> Result<Done> {
        let ticket = receiver.ticket(destination)?;
        let outgoing = self.node.open(&ticket).await?;
        let writes_before = self.node.stats().writes_sent;
        outgoing.push(0..self.layers - 1, &self.pairs())?;
        while self.layers > 1 && self.node.stats().writes_sent == writes_before {
            tokio::task::yield_now().await;
        }
        while self.node.stats().in_flight_writes + self.node.stats().queued_pushes > 0 {
            tokio::task::yield_now().await;
        }
        let started = now_ns();
        outgoing.push(self.layers - 1..self.layers, &self.pairs())?;
        let sent = outgoing.finish().await?;
        receiver.received(started, sent.bytes)
    }

    fn pairs(&self) -> Vec<(u32, u32)> {
        self.source.iter().copied().zip(0..).collect()
    }
}

/// Writes with nothing on top.
struct Raw {
    fabric: RawFabric,
    geometry: KvGeometry,
    run: u32,
}

impl Raw {
    async fn connect(scenario: &Scenario, receiver: &mut Receiver) -> Result<Self> {
        let mut fabric = RawFabric::open(&scenario.config()?).await?;
        receiver.tell(&Order::Raw { address: fabric.address() })?;
        let Answer::Offer(offer) = receiver.hear()? else { bail!("the receiver offers nothing") };
        fabric.connect(offer)?;
        Ok(Self { fabric, geometry: scenario.geometry(), run: scenario.run })
    }

    /// The same runs as a transfer; returns the seconds until the last has landed.
    fn write(&mut self, from: &[u32], to: &[u32], receiver: &mut Receiver) -> Result<f64> {
        let (geometry, run) = (self.geometry, self.run);
        let runs = || from.chunks(run as usize).zip(to.chunks(run as usize));
        let bytes = geometry.layout.block_bytes() * u64::from(run);
        let ranges: Vec<_> = (0..geometry.layout.layers)
            .flat_map(|layer| {
                runs().map(move |(from, to)| {
                    (
                        geometry.tensor_offset(layer, 0, from[0]),
                        geometry.tensor_offset(layer, 0, to[0]),
                        bytes,
                    )
                })
            })
            .collect();
        receiver.tell(&Order::RawReceive { writes: self.fabric.count(&ranges) })?;
        let started = now_ns();
        self.fabric.write(&ranges)?;
        Ok(receiver.received(started, 0)?.seconds)
    }
}

/// The other process.
pub(super) struct Receiver {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Its processor time when it last spoke.
    cpu_ns: u64,
}

impl Receiver {
    pub(super) fn start(scenario: &Scenario) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["bench", "transfer", "--receiver", "--log", "warn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the receiving process")?;
        let (orders, answers) = child.stdin.take().zip(child.stdout.take()).context("its pipes")?;
        let mut this = Self { child, orders, answers: BufReader::new(answers).lines(), cpu_ns: 0 };
        this.tell(&Order::Start(scenario.clone()))?;
        match this.hear()? {
            Answer::Started => Ok(this),
            other => bail!("the receiver says {other:?} at its start"),
        }
    }

    fn ticket(&mut self, blocks: Vec<u32>) -> Result<Vec<u8>> {
        self.tell(&Order::Expect { blocks })?;
        match self.hear()? {
            Answer::Ticket(ticket) => Ok(ticket),
            other => bail!("the receiver says {other:?} instead of a ticket"),
        }
    }

    fn received(&mut self, started_ns: u64, sent: u64) -> Result<Done> {
        let Answer::Received { bytes, at_ns, cpu_ns } = self.hear()? else { bail!("nothing was received") };
        if bytes != sent {
            bail!("{sent} bytes were sent and {bytes} received");
        }
        self.cpu_ns = cpu_ns;
        Ok(Done { bytes, seconds: at_ns.saturating_sub(started_ns) as f64 / 1e9 })
    }

    pub(super) fn end(self) -> Result<()> {
        let Self { mut child, orders, .. } = self;
        drop(orders);
        child.wait()?;
        Ok(())
    }

    fn tell(&mut self, order: &Order) -> Result<()> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?).context("the receiving process is gone")
    }

    fn hear(&mut self) -> Result<Answer> {
        let line = self.answers.next().context("the receiving process ended; its reason stands above")??;
        serde_json::from_str(&line).context("an answer of the receiving process")
    }
}
