//! The owners of transfers: what workers do with the library, at times that the seed decides.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Net;
use super::blocks::{Blocks, Use};
use crate::{ExpectError, KvLayout, OpenError, TransferError, TransferNode};

/// A node and what agents need of it.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) number: usize,
    /// What its endpoint is called; a node that is started in its place has the same.
    pub(super) name: usize,
    pub(super) node: TransferNode,
    pub(super) blocks: Blocks,
    pub(super) layout: KvLayout,
}

/// What became of one transfer, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) received: bool,
    pub(super) sent: bool,
}

/// One transfer to be.
pub(super) struct Transfer {
    pub(super) tag: u64,
    pub(super) tokens: u32,
    pub(super) starts_at: Duration,
    pub(super) expires_in: Duration,
    /// The receiver gives up after this.
    pub(super) receiver_patience: Option<Duration>,
    /// The sender gives up after this.
    pub(super) sender_patience: Option<Duration>,
    /// Its ticket is lost on the way.
    pub(super) ticket_lost: bool,
    /// And this transfer's sender opens it a second time.
    pub(super) opened_twice: bool,
    /// Who finds no room tries again, for so many times in all.
    pub(super) attempts: u32,
}

/// Between two attempts.
const PAUSE_MS: std::ops::Range<u64> = 1..12;

/// All ends of a transfer, to their end. The senders are the ranks that have something for the receiver.
pub(super) async fn run(
    net: Net,
    receiver: Host,
    senders: Vec<Host>,
    transfer: Transfer,
    seed: u64,
) -> Outcome {
    sleep(transfer.starts_at).await;
    let mut random = SmallRng::seed_from_u64(seed ^ 0x7e7);
    let transfer = Arc::new(transfer);
    let mut outcome = Outcome { received: false, sent: false };
    for attempt in 0..transfer.attempts {
        if attempt > 0 {
            sleep(Duration::from_millis(random.random_range(PAUSE_MS))).await;
        }
        let seed = seed.wrapping_add(u64::from(attempt) << 32);
        outcome = attempt_once(&net, &receiver, &senders, &transfer, seed).await;
        if outcome.received {
            net.lock().seen.joined += usize::from(senders.len() > 1);
            break;
        }
    }
    let Outcome { received, sent } = outcome;
    net.note(|| format!("transfer {} over: received {received}, sent {sent}", transfer.tag));
    outcome
}

async fn attempt_once(
    net: &Net,
    receiver: &Host,
    senders: &[Host],
    transfer: &Arc<Transfer>,
    seed: u64,
) -> Outcome {
    // With its process, an agent ends wherever it is.
    let receiver_dead = net.dead(receiver.number);
    let (mut tickets, mut sending) = (Vec::new(), Vec::new());
    for (sender, rank) in senders.iter().cloned().zip(0..) {
        let (ticket, received_ticket) = oneshot::channel();
        tickets.push(ticket);
        let (net, transfer, dead) = (net.clone(), transfer.clone(), net.dead(sender.number));
        let to = receiver.number;
        sending.push(tokio::spawn(async move {
            let send = send(net, sender, transfer, to, received_ticket, seed.wrapping_add(rank));
            dead.run_until_cancelled(send).await.unwrap_or(false)
        }));
    }
    let received = receive(net, receiver, transfer, tickets, seed);
    let received = receiver_dead.run_until_cancelled(received).await.unwrap_or(false);
    let mut sent = true;
    for sender in sending {
        sent &= sender.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
    Outcome { received, sent }
}

/// Expects the transfer, and checks what arrived; `true` when it did.
async fn receive(
    net: &Net,
    host: &Host,
    transfer: &Transfer,
    tickets: Vec<oneshot::Sender<Vec<u8>>>,
    seed: u64,
) -> bool {
    let mut random = SmallRng::seed_from_u64(seed);
    net.running(host.number).await;
    let blocks = host.layout.blocks_for(transfer.tokens) as usize;
    let Some(lease) = host.blocks.take(blocks, &mut random) else { return false };
    let mut incoming = match host.node.expect(&lease.ids, transfer.tokens, transfer.expires_in) {
        Ok(incoming) => incoming,
        Err(error) => {
            net.lock().seen.shortages += usize::from(matches!(error, ExpectError::Full { .. }));
            net.note(|| format!("transfer {}: not expected: {error}", transfer.tag));
            return false;
        }
    };
    lease.used_as(Use::Destination(incoming.key()));
    net.note(|| format!("transfer {} is {} of node {}", transfer.tag, incoming.key(), host.number));
    if !transfer.ticket_lost {
        tickets.into_iter().for_each(|ticket| drop(ticket.send(incoming.ticket())));
    }
    let patience = transfer.receiver_patience.unwrap_or(Duration::MAX);
    let verdict = timeout(patience, incoming.wait()).await;
    net.running(host.number).await;
    match verdict {
        Ok(Ok(received)) => {
            if let Some(row) = lease.first_different(transfer.tag, transfer.tokens) {
                net.lock().violations.push(format!("transfer {} is wrong at {row:?}", transfer.tag));
            }
            net.note(|| format!("transfer {} received {received:?}", transfer.tag));
            true
        }
        Ok(Err(error)) => {
            net.note(|| format!("transfer {} not received: {error}", transfer.tag));
            let quiesced = incoming.abort();
            quiesced.await;
            false
        }
        Err(_) => {
            net.note(|| format!("transfer {}: the receiver gives up", transfer.tag));
            if random.random_bool(0.5) {
                incoming.abort().await;
            } else {
                // The lease goes with it, and comes back when nobody writes any more.
                incoming.hold(lease);
            }
            false
        }
    }
}

/// Waits for room, if that is what one does in this world and there is time.
async fn waits(net: &Net, transfer: &Transfer, give_up: Instant) -> bool {
    net.lock().seen.shortages += 1;
    let goes_on = transfer.attempts > 1 && Instant::now() < give_up;
    if goes_on {
        sleep(Duration::from_millis(5)).await;
    }
    goes_on
}

/// Opens, pushes in random groups, finishes; `true` when it was sent.
async fn send(
    net: Net,
    host: Host,
    transfer: Arc<Transfer>,
    to: usize,
    ticket: oneshot::Receiver<Vec<u8>>,
    seed: u64,
) -> bool {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x5e4d);
    let Ok(ticket) = ticket.await else { return false };
    sleep(Duration::from_millis(random.random_range(0..30))).await;
    net.running(host.number).await;
    let blocks = host.layout.blocks_for(transfer.tokens) as usize;
    // Who has room already waits for the rest, holding what it has.
    let give_up = Instant::now() + transfer.expires_in;
    let lease = loop {
        if let Some(lease) = host.blocks.take(blocks, &mut random) {
            break lease;
        }
        if !waits(&net, &transfer, give_up).await {
            return false;
        }
    };
    lease.write(transfer.tag, transfer.tokens);
    let opened = loop {
        match host.node.open(&ticket).await {
            Err(OpenError::Full { .. }) if waits(&net, &transfer, give_up).await => {}
            opened => break opened,
        }
    };
    let outgoing = match opened {
        Ok(outgoing) => outgoing,
        Err(error) => {
            let stale = matches!(error, OpenError::StaleIncarnation { .. });
            net.lock().seen.stale_incarnations += usize::from(stale);
            net.note(|| format!("transfer {} not opened: {error}", transfer.tag));
            return false;
        }
    };
    if transfer.opened_twice {
        let again = host.node.open(&ticket).await;
        let refused = matches!(
            again,
            Err(OpenError::Revoked { .. }
                | OpenError::Unreachable { .. }
                | OpenError::ShuttingDown
                | OpenError::StaleIncarnation { .. }
                | OpenError::TimedOut { .. }
                | OpenError::Full { .. })
        );
        if !refused {
            net.lock().violations.push(format!("transfer {} was opened twice: {again:?}", transfer.tag));
        }
    }
    let (key, arrivals) = outgoing.target();
    lease.used_as(Use::Source(to, key));
    net.lock().parts.insert((to, arrivals), key);
    let pushed = async {
        let layers = host.layout.layers;
        let mut layer = 0;
        while layer < layers {
            let next = random.random_range(layer + 1..=layers);
            let mut pairs: Vec<(u32, u32)> = lease.ids.iter().copied().zip(0..).collect();
            let half = pairs.split_off(random.random_range(0..=pairs.len()));
            net.running(host.number).await;
            outgoing.push(layer..next, &half)?;
            if random.random_bool(0.4) {
                sleep(Duration::from_millis(random.random_range(1..12))).await;
                net.running(host.number).await;
            }
            outgoing.push(layer..next, &pairs)?;
            layer = next;
        }
        Ok::<_, crate::PushError>(())
    };
    let patience = transfer.sender_patience.unwrap_or(Duration::MAX);
    match timeout(patience, pushed).await {
        Ok(Ok(())) => {}
        given_up => {
            net.note(|| format!("transfer {}: the sender gives up: {given_up:?}", transfer.tag));
            outgoing.abort().await;
            return false;
        }
    }
    if random.random_bool(0.1) {
        // Dropped in the middle of finishing: the lease must outlive what is under way.
        outgoing.hold(lease);
        let _ = timeout(Duration::from_millis(random.random_range(0..5)), outgoing.finish()).await;
        return false;
    }
    match outgoing.finish().await {
        Ok(_) => true,
        Err(TransferError::Incomplete { layer, index }) => {
            let tag = transfer.tag;
            net.lock()
                .violations
                .push(format!("transfer {tag} was pushed whole, and misses {layer}, {index}"));
            false
        }
        Err(error) => {
            net.note(|| format!("transfer {} not sent: {error}", transfer.tag));
            false
        }
    }
}
