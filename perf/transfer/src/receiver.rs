//! The receiving process: obeys orders on standard input.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baton_kv_transfer::{RawFabric, TransferNode};

use tokio::task::JoinSet;

use super::protocol::{Answer, Order, cpu_ns, now_ns};

/// Longer than any round.
const EXPIRY: Duration = Duration::from_secs(120);

pub(super) async fn serve() -> Result<()> {
    let mut orders = std::io::stdin().lock().lines();
    let Some(Order::Start(scenario)) = next(&mut orders)? else { bail!("the first order is to start") };
    let node = TransferNode::start(scenario.receiver_config()?).await?;
    let mut raw = None;
    answer(&Answer::Started)?;
    while let Some(order) = next(&mut orders)? {
        match order {
            Order::Start(_) => bail!("started already"),
            Order::Expect { blocks } => {
                let mut incoming = node.expect(&blocks, scenario.tokens(blocks.len()), EXPIRY)?;
                answer(&Answer::Ticket(incoming.ticket()))?;
                let received = incoming.wait().await?;
                received_now(received.bytes)?;
            }
            Order::ExpectEach { blocks } => expect_each(&node, &blocks, scenario.block_tokens()).await?,
            Order::Raw { address } => {
                let mut fabric = RawFabric::open(&scenario.config()?).await?;
                answer(&Answer::Offer(fabric.accept(&address)?))?;
                raw = Some(fabric);
            }
            Order::RawReceive { writes } => {
                let fabric = raw.as_mut().context("no raw fabric was opened")?;
                fabric.receive(writes)?;
                received_now(0)?;
            }
        }
    }
    node.shutdown().await;
    Ok(())
}

/// Waits for all side by side.
async fn expect_each(node: &TransferNode, blocks: &[u32], block_tokens: u32) -> Result<()> {
    let mut tickets = Vec::with_capacity(blocks.len());
    let mut waiting = JoinSet::new();
    for (index, &block) in blocks.iter().enumerate() {
        let mut incoming = node.expect(&[block], block_tokens, EXPIRY)?;
        tickets.push(incoming.ticket());
        waiting.spawn(async move { incoming.wait().await.map(|_| (index, now_ns())) });
    }
    answer(&Answer::Tickets(tickets))?;
    let mut at_ns = vec![0; blocks.len()];
    while let Some(received) = waiting.join_next().await {
        let (index, at) = received??;
        at_ns[index] = at;
    }
    answer(&Answer::ReceivedEach { at_ns })
}

fn next(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Result<Option<Order>> {
    lines.next().map(|line| serde_json::from_str(&line?).context("an order")).transpose()
}

fn received_now(bytes: u64) -> Result<()> {
    let at_ns = now_ns();
    answer(&Answer::Received { bytes, at_ns, cpu_ns: cpu_ns() })
}

fn answer(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}
