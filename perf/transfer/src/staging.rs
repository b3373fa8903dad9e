//! From which size of a piece on a write of its own is faster than a chunk in which pieces travel together.

use std::io::Write as _;

use anyhow::Result;
use baton_kv_transfer::TransferNode;

use super::Args;
use super::protocol::Scenario;
use super::sender::{Receiver, Transfer, WARM_UP, median};
use super::tables::table;

/// Prints a row for each size: both ways in turn, over the same pair of processes.
pub(super) async fn curve(args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let (fabric, size, rounds) = (&args.fabric, args.size, args.rounds);
    writeln!(out, "{fabric}: {} layers, {size} MiB a round, median of {rounds} rounds\n", args.layers)?;
    writeln!(out, "| piece | a write for each, GB/s | in chunks, GB/s | ratio |\n|---|---|---|---|")?;
    for &piece_kib in &args.pieces {
        let scenario = Scenario::new(args, piece_kib, 1);
        if scenario.blocks == 0 {
            writeln!(out, "| {piece_kib} KiB: not one for each layer in --size | | | |")?;
            continue;
        }
        let [alone, together] = measure(&scenario, args.rounds).await?.map(|speed| speed / 1e9);
        writeln!(out, "| {piece_kib} KiB | {alone:.2} | {together:.2} | {:.2} |", together / alone)?;
    }
    Ok(())
}

/// Bytes per second with a write for each piece, and in chunks; medians.
async fn measure(scenario: &Scenario, rounds: u32) -> Result<[f64; 2]> {
    let mut receiver = Receiver::start(scenario)?;
    let nodes = [false, true].map(|staged| scenario.staged(staged).config());
    let [alone, together] = nodes;
    let nodes = [TransferNode::start(alone?).await?, TransferNode::start(together?).await?];
    let source = table(scenario.blocks, 1, u64::MAX);
    let mut speeds = [Vec::new(), Vec::new()];
    for round in 0..WARM_UP + rounds {
        for (node, speeds) in nodes.iter().zip(&mut speeds) {
            let destination = table(scenario.blocks, 1, u64::from(round));
            let transfer = Transfer { node, layers: scenario.layers, source: &source };
            let done = transfer.whole(&mut receiver, destination).await?;
            if round >= WARM_UP {
                speeds.push(done.bytes as f64 / done.seconds);
            }
        }
    }
    receiver.end()?;
    for node in nodes {
        node.shutdown().await;
    }
    Ok(speeds.map(median))
}
