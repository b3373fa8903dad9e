//! The field's failures that need a fabric which breaks its word; the others are in `tests/field_failures/`.
#![cfg(test)]

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, timeout};

use super::agents::Host;
use super::blocks::{Lease, Use};
use super::net::Faults;
use super::schedule::{Climate, DRAIN, Report, World, in_world};
use super::tests::{CALM, check};
use crate::{ExpectError, Incoming, Outgoing, TransferError};

/// Far longer than anything takes that takes no longer than it must.
const LONG: Duration = Duration::from_secs(60);
const TAG: u64 = 9;

/// vllm#52234: a failed write gave garbage, or the previous prompt's answer, with HTTP 200. Here each write fails, having landed in
/// part: nothing is received, both ends get an error, and nothing is left.
#[test]
fn failed_writes_are_never_an_answer() {
    let climate = Climate { faults: Faults { failed: 1000, ..CALM.faults }, ..CALM };
    let Report { transfers, received, seen, .. } = check(climate, 200);
    assert!(transfers > 500 && received == 0, "{received} of {transfers}");
    assert!(seen.fetches > 300 && seen.fetched == 0, "{seen:?}");
}

/// vllm#46283, #46289: the completion was lost, and decode's blocks never came back. Here no arrival is told: the transfer ends at its
/// deadline, and the worlds' own check finds nothing held.
#[test]
fn lost_completions_at_decode_give_the_blocks_back() {
    let climate = Climate { faults: Faults { arrival_lost: 1000, ..CALM.faults }, ..CALM };
    let Report { transfers, received, .. } = check(climate, 200);
    assert!(transfers > 500 && received == 0, "{received} of {transfers}");
}

/// Both ends of a transfer that is attached.
struct Pair {
    sender: Host,
    receiver: Host,
    source: Lease,
    destination: Lease,
    incoming: Incoming,
    outgoing: Outgoing,
}

async fn attached(
    world: &World,
    (sender, receiver): (&Host, &Host),
    tokens: u32,
    expires_in: Duration,
) -> Pair {
    let mut random = SmallRng::seed_from_u64(1);
    let mut take = |host: &Host| {
        host.blocks.take(host.layout.blocks_for(tokens) as usize, &mut random).expect("free blocks")
    };
    let (source, destination) = (take(sender), take(receiver));
    source.write(TAG, tokens);
    let incoming = receiver.node.expect(&destination.ids, tokens, expires_in).expect("a free slot");
    destination.used_as(Use::Destination(incoming.key()));
    let outgoing = sender.node.open(&incoming.ticket()).await.expect("a healthy pair");
    let (key, arrivals) = outgoing.target();
    source.used_as(Use::Source(receiver.number, key));
    world.net.lock().parts.insert((receiver.number, arrivals), key);
    Pair { sender: sender.clone(), receiver: receiver.clone(), source, destination, incoming, outgoing }
}

impl Pair {
    fn push(&self) {
        let blocks: Vec<(u32, u32)> = self.source.ids.iter().copied().zip(0..).collect();
        self.outgoing.push(0..self.sender.layout.layers, &blocks).expect("room in the queue");
    }
}

/// A fabric must tell how each write ended. If one does not, although its peer lives, then no time bounds what follows: the sender's
/// blocks stay held (the write may still be reading them), and the receiver's too, if the transfer failed (it may still be writing
/// them). The receiver itself is told of the failure at its deadline, and the end of the connection frees both ends.
#[test]
fn completions_that_never_come_hold_both_ends_until_their_connection_ends() {
    let climate = Climate { faults: Faults { completion_lost: 1000, ..CALM.faults }, ..CALM };
    let arrived = |seed| {
        let (early, late) = in_world(seed, climate, false, async |mut world| {
            (one_block(&mut world).await, more_than_the_credits(&mut world).await)
        });
        assert!(!late, "what is not posted does not arrive");
        early
    };
    let arrived = (0..20).filter(|&seed| arrived(seed)).count();
    assert!(arrived > 4, "one block needs no more writes than a peer may have in flight, mostly: {arrived}");
}

/// If it fits the credits it arrives, and only its sender waits.
async fn one_block(world: &mut World) -> bool {
    let (a, b) = (world.one_layer_host(), world.one_layer_host());
    let mut pair = attached(world, (&a, &b), 1, LONG).await;
    pair.push();
    let finishing = pair.outgoing.finish();
    tokio::pin!(finishing);
    assert!(timeout(LONG, &mut finishing).await.is_err(), "nobody tells it that its source is free");
    assert!(a.node.stats().in_flight_writes > 0);
    let arrived = pair.incoming.wait().await.is_ok();
    assert!(!arrived || pair.destination.first_different(TAG, 1).is_none());
    let fence = pair.incoming.abort();
    assert_eq!(fence.is_quiet(), arrived, "a failed one may still be written");
    world.net.cut(a.number, b.number);
    let ended = timeout(2 * DRAIN, async { (finishing.await, fence.await).0 }).await;
    let sent = ended.expect("both are free");
    assert!(
        matches!(sent, Ok(_) | Err(TransferError::PeerLost { .. } | TransferError::AbortedByPeer { .. })),
        "{sent:?}"
    );
    assert_eq!(a.node.stats().in_flight_writes, 0);
    end(world, [a, b]).await;
    arrived
}

/// The rest is never posted, and the receiver hears of it at its deadline.
async fn more_than_the_credits(world: &mut World) -> bool {
    let (a, b) = (world.one_layer_host(), world.one_layer_host());
    let expires_in = Duration::from_secs(3);
    let mut large = attached(world, (&a, &b), 10, expires_in).await;
    large.push();
    let started = Instant::now();
    let verdict = large.incoming.wait().await;
    assert!(matches!(verdict, Err(TransferError::Expired { .. })), "{verdict:?}");
    assert!(started.elapsed() <= expires_in, "at the deadline");
    let fence = large.incoming.abort();
    assert!(timeout(LONG, fence.clone()).await.is_err(), "time alone lifts no fence");
    assert!(large.receiver.node.stats().quarantined_blocks > 0);
    let source = large.outgoing.abort();
    assert!(!source.is_quiet());
    world.net.cut(a.number, b.number);
    timeout(2 * DRAIN, async { (fence.await, source.await) }).await.expect("both are free");
    end(world, [a, b]).await;
    verdict.is_ok()
}

/// The same for reads: whoever reads waits, and its blocks are nobody else's, until the connection ends.
#[test]
fn reads_that_never_complete_hold_their_blocks_until_their_connection_ends() {
    let climate = Climate { faults: Faults { completion_lost: 1000, ..CALM.faults }, ..CALM };
    (0..20).for_each(|seed| in_world(seed, climate, false, stuck_fetch));
}

async fn stuck_fetch(mut world: World) {
    let (owner, reader) = (world.one_layer_host(), world.one_layer_host());
    let mut random = SmallRng::seed_from_u64(1);
    let mut take = |host: &Host| host.blocks.take(1, &mut random).expect("free blocks");
    let (held, destination) = (take(&owner), take(&reader));
    let offered = owner.node.offer(&held.ids, 1, 2 * LONG).expect("room for an offer");
    destination.used_as(Use::Fetching(TAG));
    let mut fetching = reader.node.fetch(&offered.ticket(), &destination.ids).await.expect("a healthy pair");
    assert!(timeout(LONG, fetching.wait()).await.is_err(), "nobody tells it that the bytes are here");
    let expect = || reader.node.expect(&destination.ids, 1, LONG);
    assert!(matches!(expect(), Err(ExpectError::BlockBusy { .. })), "they may still be written");
    world.net.cut(owner.number, reader.number);
    let ended = timeout(2 * DRAIN, fetching.wait()).await;
    assert!(matches!(ended, Ok(Err(TransferError::PeerLost { .. }))), "{ended:?}");
    assert!(expect().is_ok() && reader.node.permits_in_use() == 0);
    end(&world, [owner, reader]).await;
}

async fn end(world: &World, hosts: [Host; 2]) {
    for host in hosts {
        host.node.shutdown().await;
    }
    assert_eq!(world.net.lock().violations, [""; 0]);
}
