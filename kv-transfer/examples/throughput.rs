//! GB/s of a hand-over between two processes, beside plain memcpy of the same pieces in the same run.
//!
//! `cargo run --release -p baton-kv-transfer --example throughput -- [FABRIC] [PIECE_KIB] [ROUNDS]`
//! with BATON_LIBFABRIC naming libfabric.so.1 for libfabric fabrics. One round of the fabric and one of memcpy take turns;
//! medians are printed.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton_kv_transfer::{KvGeometry, PoolMemory, TransferConfig, TransferNode};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

const LAYERS: u32 = 16;
/// Bytes moved in one round.
const ROUND_BYTES: u64 = 256 << 20;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let fabric = args.next().unwrap_or_else(|| "shm".to_owned());
    let piece_kib: u64 = args.next().map_or(Ok(64), |text| text.parse())?;
    let rounds: usize = args.next().map_or(Ok(9), |text| text.parse())?;
    let receiver = args.next().is_some_and(|role| role == "receiver");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let blocks = (ROUND_BYTES / u64::from(LAYERS) / (piece_kib << 10)) as u32;
    let geometry = KvGeometry { layers: LAYERS, blocks: blocks * 2, block_bytes: piece_kib << 10 };
    let mut config = TransferConfig::new(fabric.parse()?, geometry, "throughput");
    config.libfabric_path = std::env::var_os("BATON_LIBFABRIC").map(Into::into);
    runtime.block_on(async {
        let node = TransferNode::start(config).await?;
        if receiver {
            receive(&node, blocks, rounds).await
        } else {
            send(&node, geometry, blocks, rounds, &fabric).await
        }
    })
}

/// Random, torn block tables: no two neighbours stay together.
fn table(blocks: u32, seed: u64) -> Vec<u32> {
    let mut table: Vec<u32> = (0..blocks).map(|block| block * 2).collect();
    table.shuffle(&mut SmallRng::seed_from_u64(seed));
    table
}

async fn receive(node: &TransferNode, blocks: u32, rounds: usize) -> Result<()> {
    let mut orders = BufReader::new(std::io::stdin()).lines();
    for round in 0..=rounds {
        let mut incoming = node.expect(&table(blocks, round as u64), 1, Duration::from_secs(60))?;
        let ticket: String = incoming.ticket().iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{ticket}");
        let received = incoming.wait().await?;
        println!("{}", received.bytes);
        orders.next().context("the sender is gone")??;
    }
    node.shutdown().await;
    Ok(())
}

struct Receiver {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Receiver {
    fn start() -> Result<Self> {
        let mut args: Vec<String> = std::env::args().skip(1).collect();
        for (i, default) in ["shm", "64", "9"].iter().enumerate().skip(args.len()) {
            debug_assert_eq!(i, args.len());
            args.push((*default).to_owned());
        }
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .arg("receiver")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the receiver is gone")??)
    }

    fn go_on(&mut self) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("piped")?.write_all(b"\n")?)
    }
}

async fn send(
    node: &TransferNode,
    geometry: KvGeometry,
    blocks: u32,
    rounds: usize,
    fabric: &str,
) -> Result<()> {
    let mut receiver = Receiver::start()?;
    let source = table(blocks, 1 << 40);
    let pairs: Vec<(u32, u32)> =
        source.iter().enumerate().map(|(index, &block)| (block, index as u32)).collect();
    let mut copy_target = vec![1u8; geometry.pool_bytes() as usize];
    let (mut moved, mut copied) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let ticket = receiver.line()?;
        let ticket: Vec<u8> = (0..ticket.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&ticket[i..i + 2], 16))
            .collect::<Result<_, _>>()?;
        let started = Instant::now();
        let outgoing = node.open(&ticket).await?;
        for layer in 0..LAYERS {
            outgoing.push(layer..layer + 1, &pairs)?;
        }
        let sent = outgoing.finish().await?;
        if receiver.line()?.parse::<u64>()? != sent.bytes {
            bail!("the receiver has other bytes");
        }
        let taken = started.elapsed();
        let copy = memcpy(&node.pool(), &mut copy_target, &geometry, &source, &table(blocks, round as u64));
        receiver.go_on()?;
        // The first round connects and warms.
        if round > 0 {
            moved.push(sent.bytes as f64 / taken.as_secs_f64() / 1e9);
            copied.push(sent.bytes as f64 / copy.as_secs_f64() / 1e9);
        }
    }
    let (moved, copied) = (median(moved), median(copied));
    let piece_kib = geometry.block_bytes >> 10;
    println!(
        "{fabric} {piece_kib} KiB pieces: {moved:.2} GB/s, memcpy {copied:.2} GB/s, ratio {:.2}",
        moved / copied
    );
    node.shutdown().await;
    receiver.child.wait()?;
    Ok(())
}

/// One thread, the same pieces in the same order.
fn memcpy(pool: &PoolMemory, target: &mut [u8], geometry: &KvGeometry, from: &[u32], to: &[u32]) -> Duration {
    let target = target.as_mut_ptr();
    let started = Instant::now();
    for layer in 0..geometry.layers {
        for (&from, &to) in from.iter().zip(to) {
            let (from, to) = (geometry.piece(layer, from), geometry.piece(layer, to));
            let (from, len) = (pool.ptr().as_ptr().wrapping_add(from.start), from.len());
            // SAFETY: both pieces lie in memory of the pool's size, which overlap nowhere and nobody else uses now.
            unsafe { std::ptr::copy_nonoverlapping(from, target.wrapping_add(to.start), len) };
        }
    }
    started.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
