//! The field's failures that need a fabric which breaks its word; the others are in `tests/field_failures/`.
#![cfg(test)]

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, timeout};

use super::agents::Host;
use super::blocks::{Lease, Use};
use super::net::Faults;
use super::schedule::{Climate, DRAIN, OVERDUE, Report, World, in_world};
use super::tests::{CALM, check};
use crate::{ExpectError, Incoming, OpenError, Outgoing, TransferError};

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
    Pair { sender: sender.clone(), source, destination, incoming, outgoing }
}

impl Pair {
    fn push(&self) {
        let blocks: Vec<(u32, u32)> = self.source.ids.iter().copied().zip(0..).collect();
        self.outgoing.push(0..self.sender.layout.layers, &blocks).expect("room in the queue");
    }
}

/// A fabric must tell how each write ended. If one does not, although its peer lives, its sender's blocks stay held: the write may
/// still be reading them. At the limit the peer is given up; a fabric that can end the data path gives the blocks back, and with
/// any other the data plane ends, and says so. Nobody waits for ever: neither their owners nor the receiver.
#[test]
fn completions_that_never_come_end_their_peer_or_their_data_plane() {
    let lost = Climate { faults: Faults { completion_lost: 1000, ..CALM.faults }, ..CALM };
    let stuck = Climate { faults: Faults { stuck: 1000, ..CALM.faults }, ..CALM };
    let arrived = |climate, seed| {
        in_world(seed, climate, false, async |mut world| {
            let severs = world.net.lock().severs;
            (severs, overdue(&mut world, 1).await, overdue(&mut world, 10).await)
        })
    };
    let lost: Vec<_> = (0..20).map(|seed| arrived(lost, seed)).collect();
    assert!(
        lost.iter().filter(|(_, one, _)| *one).count() > 4,
        "one block fits the credits, mostly: {lost:?}"
    );
    assert!(lost.iter().all(|(_, _, many)| !many), "what is not posted does not arrive");
    let stuck: Vec<_> = (0..20).map(|seed| arrived(stuck, seed)).collect();
    assert!(stuck.iter().all(|(_, one, many)| !one && !many), "{stuck:?}");
    let severed = |all: &[(bool, bool, bool)]| all.iter().filter(|(severs, ..)| *severs).count();
    assert!((4..17).contains(&severed(&lost)) && (4..17).contains(&severed(&stuck)), "both kinds of fabric");
}

/// Whether a transfer of so many tokens arrives, none of whose writes comes back.
async fn overdue(world: &mut World, tokens: u32) -> bool {
    let (a, b) = (world.one_layer_host(), world.one_layer_host());
    let severs = world.net.lock().severs;
    let mut pair = attached(world, (&a, &b), tokens, LONG).await;
    pair.push();
    let started = Instant::now();
    let finishing = pair.outgoing.finish();
    tokio::pin!(finishing);
    assert!(
        timeout(OVERDUE * 3 / 4, &mut finishing).await.is_err(),
        "nobody tells it that its source is free"
    );
    assert!(a.node.stats().in_flight_writes > 0);
    let sent = timeout(LONG, &mut finishing).await.expect("known soon");
    assert!(matches!(&sent, Err(TransferError::Overdue { after, .. }) if *after == OVERDUE), "{sent:?}");
    let took = started.elapsed();
    let bound = OVERDUE + OVERDUE / 2 + if severs { Duration::ZERO } else { DRAIN };
    assert!(OVERDUE <= took && took < bound, "{took:?}");
    // The source is its owner's, who has another use for it at once.
    drop(pair.source);
    let failed = timeout(DRAIN, a.node.failed()).await;
    assert_eq!(failed.is_err(), severs, "{failed:?}");
    if let Ok(failure) = failed {
        let refused = a.node.expect(&[0], 1, LONG).unwrap_err();
        assert_eq!(refused, ExpectError::DataPlane(failure));
        let ticket = b.node.expect(&[0], 1, LONG);
        let ticket = ticket.map(|incoming| incoming.ticket());
        let refused = ticket.map(async |ticket| a.node.open(&ticket).await.unwrap_err());
        if let Ok(refused) = refused {
            assert!(matches!(refused.await, OpenError::DataPlane(_)));
        }
    }
    let arrived =
        timeout(LONG, pair.incoming.wait()).await.expect("the end of the connection tells it").is_ok();
    assert!(!arrived || pair.destination.first_different(TAG, tokens).is_none());
    timeout(2 * DRAIN, pair.incoming.abort()).await.expect("and its drain lifts the fence");
    end(world, [a, b]).await;
    arrived
}

/// nixl's libfabric plug-in has no fail-over: one NIC that goes takes its requests along. Here each third write loses its path, before or
/// after the manifest: every transfer arrives all the same, and blocks are not given back while what the NIC had read may land.
#[test]
fn writes_that_lose_their_path_are_made_again_and_no_transfer_is_lost() {
    let climate = Climate { faults: Faults { rerouted: 333, ..CALM.faults }, ..CALM };
    let repeated = |seed| {
        in_world(seed, climate, false, async |mut world| {
            let (a, b) = (world.one_layer_host(), world.one_layer_host());
            for tokens in [1, 10, 3] {
                let mut pair = attached(&world, (&a, &b), tokens, LONG).await;
                pair.push();
                let (sent, received) = tokio::join!(pair.outgoing.finish(), pair.incoming.wait());
                assert!(sent.is_ok() && received.is_ok(), "seed {seed}: {sent:?}, {received:?}");
                assert!(pair.destination.first_different(TAG, tokens).is_none(), "seed {seed}");
            }
            let repeated = a.node.stats().writes_repeated;
            end(&world, [a, b]).await;
            repeated
        })
    };
    let repeated: u64 = (0..300).map(repeated).sum();
    assert!(repeated > 1000, "{repeated}");
}

/// The same for reads: whoever reads hears of it at the limit, and until then its blocks are nobody else's.
#[test]
fn reads_that_never_complete_end_their_peer_or_their_data_plane() {
    for faults in [Faults { completion_lost: 1000, ..CALM.faults }, Faults { stuck: 1000, ..CALM.faults }] {
        let climate = Climate { faults, ..CALM };
        (0..20).for_each(|seed| in_world(seed, climate, false, stuck_fetch));
    }
}

async fn stuck_fetch(mut world: World) {
    let (owner, reader) = (world.one_layer_host(), world.one_layer_host());
    let mut random = SmallRng::seed_from_u64(1);
    let mut take = |host: &Host| host.blocks.take(1, &mut random).expect("free blocks");
    let (held, destination) = (take(&owner), take(&reader));
    let offered = owner.node.offer(&held.ids, 1, 2 * LONG).expect("room for an offer");
    destination.used_as(Use::Fetching(TAG));
    let mut fetching = reader.node.fetch(&offered.ticket(), &destination.ids).await.expect("a healthy pair");
    assert!(
        timeout(OVERDUE * 3 / 4, fetching.wait()).await.is_err(),
        "nobody tells it that the bytes are here"
    );
    let expect = || reader.node.expect(&destination.ids, 1, LONG);
    assert!(matches!(expect(), Err(ExpectError::BlockBusy { .. })), "they may still be written");
    let ended = timeout(OVERDUE + DRAIN, fetching.wait()).await.expect("known soon");
    assert!(matches!(ended, Err(TransferError::Overdue { .. })), "{ended:?}");
    let severs = world.net.lock().severs;
    let freed = matches!(expect(), Ok(_) | Err(ExpectError::DataPlane(_)));
    assert!(freed && reader.node.permits_in_use() == 0);
    assert_eq!(timeout(DRAIN, reader.node.failed()).await.is_err(), severs);
    drop(destination);
    end(&world, [owner, reader]).await;
}

async fn end(world: &World, hosts: [Host; 2]) {
    for host in hosts {
        host.node.shutdown().await;
    }
    assert_eq!(world.net.lock().violations, [""; 0]);
}
