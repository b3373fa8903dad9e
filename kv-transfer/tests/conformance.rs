//! What every fabric must do, between two real processes. Each theme runs on each fabric.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_kv_transfer::{ExpectError, OpenError, PushError, TransferError};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use support::{
    Order, Peer, Reply, Setup, World, block_on, fill, first_wrong, first_wrong_of, pairs, shape, strict,
    support_is_here, until,
};

const LONG: Duration = Duration::from_secs(30);
/// What "at once" means on a machine that may be many times overloaded, the drain of buffering fabrics included. On a quiet
/// one it is milliseconds.
const SOON: Duration = Duration::from_secs(10);

support::peer_process!();

async fn moves_every_byte(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let (ours, layers) = ([5u32, 6, 7, 20, 3, 90], world.setup.layers);
    let theirs = [100u32, 101, 102, 7, 50, 49];
    world.peer.must(Order::Fill { blocks: theirs.to_vec(), seed: 1 }).await;
    let mut incoming = world.node.expect(&ours, 6, LONG).unwrap();
    world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    for layer in 0..layers {
        world.peer.must(Order::Push { id: 1, layers: (layer, layer + 1), blocks: pairs(&theirs) }).await;
    }
    world.peer.must(Order::Finish { id: 1 }).await;
    let received = incoming.wait().await.unwrap();
    assert_eq!(received.bytes, 6 * u64::from(layers) * u64::from(world.setup.block_bytes));
    // Three neighbours are one write; the others are alone, in each layer.
    assert_eq!(received.writes, 4 * layers);
    assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &ours, 1), None);
    world.at_rest().await;
    world.node.shutdown().await;
}

/// One run of neighbours in each layer, longer than some fabrics' largest write.
async fn long_runs_arrive_whole(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let (ours, theirs): (Vec<u32>, Vec<u32>) = ((8..40).collect(), (50..82).collect());
    world.peer.must(Order::Fill { blocks: theirs.clone(), seed: 4 }).await;
    let mut incoming = world.node.expect(&ours, 32, LONG).unwrap();
    world.peer.send_whole(1, incoming.ticket(), world.setup.layers, &pairs(&theirs)).await;
    let received = incoming.wait().await.unwrap();
    assert_eq!(received.bytes, 32 * u64::from(world.setup.layers) * u64::from(world.setup.block_bytes));
    assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &ours, 4), None);
    world.at_rest().await;
}

/// Block tables of several sizes, some contiguous, some torn, all at once and in both directions.
async fn many_at_once_in_both_directions(fabric: &str) {
    const TRANSFERS: usize = 40;
    let setup = Setup { layers: 4, blocks: 640, block_bytes: 8 << 10, ..shape(fabric) };
    let world = World::with_peer(setup.clone(), &setup).await;
    let mut random = SmallRng::seed_from_u64(42);
    // The lower half of each pool receives, the upper half is sent from.
    let mut tables = |range: std::ops::Range<u32>| -> Vec<Vec<u32>> {
        let mut blocks: Vec<u32> = range.collect();
        blocks[160..].shuffle(&mut random);
        let mut rest = blocks.as_slice();
        let cut = |i: usize| {
            let (table, tail) = rest.split_at(1 + i % 14);
            rest = tail;
            table.to_vec()
        };
        (0..TRANSFERS).map(cut).collect()
    };
    let (our_in, our_out, their_in, their_out) =
        (tables(0..320), tables(320..640), tables(0..320), tables(320..640));
    let inward = async {
        let one = |i: usize| {
            let (world, ours, theirs) = (&world, &our_in[i], &their_out[i]);
            async move {
                world.peer.must(Order::Fill { blocks: theirs.clone(), seed: i as u64 }).await;
                let mut incoming = world.node.expect(ours, ours.len() as u32, LONG).unwrap();
                world.peer.send_whole(i as u64, incoming.ticket(), world.setup.layers, &pairs(theirs)).await;
                incoming.wait().await.unwrap();
                assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), ours, i as u64), None);
            }
        };
        futures::future::join_all((0..TRANSFERS).map(one)).await;
    };
    let outward = async {
        let one = |i: usize| {
            let (world, ours, theirs) = (&world, &our_out[i], &their_in[i]);
            async move {
                let (id, seed) = (1000 + i as u64, 5000 + i as u64);
                fill(&world.node.pool(), &world.setup.geometry(), ours, seed);
                let ticket = world.peer.expect(id, theirs, LONG).await;
                let outgoing = world.node.open(&ticket).await.unwrap();
                for layer in 0..world.setup.layers {
                    outgoing.push(layer..layer + 1, &pairs(ours)).unwrap();
                }
                outgoing.finish().await.unwrap();
                world.peer.must(Order::Wait { id }).await;
                let check = Order::Check { blocks: theirs.clone(), tokens: theirs.len() as u32, seed };
                assert!(matches!(world.peer.must(check).await, Reply::Wrong(None)));
            }
        };
        futures::future::join_all((0..TRANSFERS).map(one)).await;
    };
    futures::join!(inward, outward);
    world.at_rest().await;
    let (ours, theirs) = (world.node.stats(), world.peer.stats().await);
    assert_eq!((ours.writes_sent, theirs.writes_sent), (theirs.writes_received, ours.writes_received));
    assert_eq!((ours.late_writes, theirs.late_writes), (0, 0));
}

async fn incompatible_peers_are_refused_by_the_field_that_differs(fabric: &str) {
    let setup = shape(fabric);
    let others = [
        ("layers", Setup { layers: 7, ..setup.clone() }),
        ("head_dim", Setup { block_bytes: 8 << 10, ..setup.clone() }),
        ("model", Setup { model: "another-model".to_owned(), ..setup.clone() }),
    ];
    for (field, theirs) in others {
        let world = World::with_peer(setup.clone(), &theirs).await;
        let incoming = world.node.expect(&[1], 1, LONG).unwrap();
        let error = world.peer.fails(Order::Open { id: 1, ticket: incoming.ticket() }).await;
        assert!(error.contains(field), "{error}");
        let (endpoint, node_id) = world.peer.describe().await;
        let error = world.node.connect(&endpoint, &node_id).await.unwrap_err();
        let OpenError::Incompatible { field: differs, ours, theirs, .. } = error else { panic!("{error}") };
        assert!(differs == field && ours != theirs, "{differs}: {ours} and {theirs}");
    }
}

/// Ahead of any ticket: the verdict, and a path that works. Nothing of it is counted as a transfer, or touches a block.
async fn connecting_ahead_gives_the_verdict_and_a_path_that_works(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let ((endpoint, node_id), blocks) = (world.peer.describe().await, [0u32, 1, 95]);
    fill(&world.node.pool(), &world.setup.geometry(), &blocks, 8);
    world.peer.must(Order::Fill { blocks: blocks.to_vec(), seed: 9 }).await;

    // However many ask, it is dialled once.
    let connecting = (0..5).map(|_| world.node.connect(&endpoint, &node_id));
    let connected = futures::future::join_all(connecting).await;
    let connected: Vec<_> = connected.into_iter().map(Result::unwrap).collect();
    let mine = world.node.fabric();
    let back = Order::Connect { endpoint: mine.control_endpoint.clone(), node_id: mine.node_id.clone() };
    world.peer.must(back).await;
    // One in each direction. The one that was dialled may know a moment later.
    until(|| (world.node.stats().peers == 2).then_some(())).await;
    let (ours, theirs) = (world.node.stats(), world.peer.stats().await);
    assert_eq!((ours.writes_sent, ours.bytes_sent, ours.writes_received, ours.late_writes), (0, 0, 0, 0));
    assert_eq!((theirs.writes_sent, theirs.writes_received, theirs.late_writes), (0, 0, 0));
    assert_eq!((ours.outgoing_completed, ours.writes_failed), (0, 0));
    assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &blocks, 8), None);
    let check = Order::Check { blocks: blocks.to_vec(), tokens: 3, seed: 9 };
    assert!(matches!(world.peer.must(check).await, Reply::Wrong(None)));

    // A transfer takes the connection that there is.
    let mut incoming = world.node.expect(&[5, 6], 2, LONG).unwrap();
    world.peer.send_whole(1, incoming.ticket(), world.setup.layers, &[(0, 0), (1, 1)]).await;
    incoming.wait().await.unwrap();
    assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &[5, 6], 9), None);
    assert_eq!(world.node.stats().peers, 2);
    world.at_rest().await;

    // Somebody else at that address, this node itself, and a peer that is gone.
    let stale = world.node.connect(&endpoint, &[7; 16]).await;
    assert!(matches!(stale, Err(OpenError::StaleIncarnation { .. })), "{stale:?}");
    for (endpoint, node_id) in [(&endpoint, &node_id[..4]), (&mine.control_endpoint, &mine.node_id[..])] {
        let refused = world.node.connect(endpoint, node_id).await;
        assert!(matches!(refused, Err(OpenError::Unreachable { .. })), "{refused:?}");
    }
    world.peer.end().await;
    for connected in connected {
        tokio::time::timeout(SOON, connected.ended()).await.expect("its end is known");
    }
    let gone = world.node.connect(&endpoint, &node_id).await;
    assert!(matches!(gone, Err(OpenError::Unreachable { .. })), "{gone:?}");
    // It is back, and is another.
    let again = Peer::start(&world.setup).await;
    let (endpoint, node_id) = again.describe().await;
    world.node.connect(&endpoint, &node_id).await.unwrap();
}

async fn revoked_expired_used_and_garbled_tickets_are_refused(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let revoked = world.node.expect(&[1], 1, LONG).unwrap();
    let ticket = revoked.ticket();
    revoked.abort().await;
    let error = world.peer.fails(Order::Open { id: 1, ticket: ticket.clone() }).await;
    assert!(error.contains("no longer expects"), "{error}");

    let mut expired = world.node.expect(&[1], 1, Duration::from_millis(1)).unwrap();
    assert!(matches!(expired.wait().await, Err(TransferError::Expired { .. })));
    let error = world.peer.fails(Order::Open { id: 2, ticket: expired.ticket() }).await;
    assert!(error.contains("no longer expects"), "{error}");

    let mut used = world.node.expect(&[1], 1, LONG).unwrap();
    let again = Order::Open { id: 4, ticket: used.ticket() };
    world.peer.must(Order::Open { id: 3, ticket: used.ticket() }).await;
    let error = world.peer.fails(again.clone()).await;
    assert!(error.contains("open here already"), "{error}");
    world.peer.must(Order::Push { id: 3, layers: (0, world.setup.layers), blocks: vec![(2, 0)] }).await;
    world.peer.must(Order::Finish { id: 3 }).await;
    used.wait().await.unwrap();
    world.peer.fails(again).await;

    let error = world.peer.fails(Order::Open { id: 5, ticket: ticket[..ticket.len() / 2].to_vec() }).await;
    assert!(error.contains("ticket"), "{error}");
    world.at_rest().await;
}

async fn a_restarted_receiver_refuses_tickets_of_its_former_life(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let ticket = world.peer.expect(1, &[1, 2], LONG).await;
    world.peer.kill();
    let started = Instant::now();
    let error = world.node.open(&ticket).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. } | OpenError::StaleIncarnation { .. }), "{error}");
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

async fn aborted_blocks_are_reused_only_when_quiet(fabric: &str) {
    let world = World::new(Setup { layers: 32, block_bytes: 32 << 10, ..shape(fabric) }).await;
    let (ours, theirs): (Vec<u32>, Vec<u32>) = ((10..26).collect(), (30..46).rev().collect());
    for round in 0..5 {
        world.peer.must(Order::Fill { blocks: theirs.clone(), seed: round }).await;
        let incoming = world.node.expect(&ours, 16, LONG).unwrap();
        let lease = Arc::new(());
        incoming.hold(lease.clone());
        world.peer.must(Order::Open { id: round, ticket: incoming.ticket() }).await;
        world.peer.must(Order::Push { id: round, layers: (0, 30), blocks: pairs(&theirs) }).await;
        // Somewhere in the middle of the writes.
        let quiesced = incoming.abort();
        tokio::time::timeout(SOON, quiesced).await.expect("quiet soon");
        assert_eq!(Arc::strong_count(&lease), 1, "the lease comes back with quiescence");
        let error = world.peer.fails(Order::Finish { id: round }).await;
        assert!(error.contains("aborted"), "{error}");

        world.peer.must(Order::Fill { blocks: theirs.clone(), seed: 100 + round }).await;
        let mut incoming = world.node.expect(&ours, 16, LONG).unwrap();
        world.peer.send_whole(50 + round, incoming.ticket(), 32, &pairs(&theirs)).await;
        incoming.wait().await.unwrap();
        assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &ours, 100 + round), None);
    }
    world.at_rest().await;
    let (ours, theirs) = (world.node.stats(), world.peer.stats().await);
    assert_eq!(theirs.writes_sent, ours.writes_received + ours.late_writes, "every write is counted once");
}

async fn a_sender_that_gives_up_or_forgets_a_piece_is_heard(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let mut incoming = world.node.expect(&[1, 2], 2, LONG).unwrap();
    world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    world.peer.must(Order::Push { id: 1, layers: (0, 2), blocks: vec![(0, 0)] }).await;
    world.peer.must(Order::AbortOutgoing { id: 1 }).await;
    world.peer.must(Order::Quiet { id: 1 }).await;
    assert!(matches!(incoming.wait().await, Err(TransferError::AbortedByPeer { .. })));
    incoming.abort().await;

    let mut incoming = world.node.expect(&[1, 2], 2, LONG).unwrap();
    world.peer.must(Order::Open { id: 2, ticket: incoming.ticket() }).await;
    world.peer.must(Order::Push { id: 2, layers: (0, 6), blocks: vec![(0, 0)] }).await;
    let error = world.peer.fails(Order::Push { id: 2, layers: (5, 6), blocks: vec![(0, 0)] }).await;
    assert!(error.contains("layer 5"), "{error}");
    let error = world.peer.fails(Order::Finish { id: 2 }).await;
    assert!(error.contains("layer 0 of block 1 of the sequence"), "{error}");
    assert!(incoming.wait().await.is_err());
    incoming.abort().await;
    world.at_rest().await;
}

async fn a_sender_killed_before_or_during_its_push_is_known_at_once(fabric: &str) {
    for pushed in [0, 3] {
        let world = World::new(shape(fabric)).await;
        let mut incoming = world.node.expect(&[1, 2, 3], 3, LONG).unwrap();
        world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
        if pushed > 0 {
            let push = Order::Push { id: 1, layers: (0, pushed), blocks: pairs(&[4, 5, 6]) };
            world.peer.must(push).await;
        }
        world.peer.kill();
        let lost = tokio::time::timeout(SOON, incoming.wait()).await.expect("known soon");
        assert!(matches!(lost, Err(TransferError::PeerLost { .. })), "{lost:?}");
        tokio::time::timeout(SOON, incoming.abort()).await.expect("quiet soon");
        world.node.expect(&[1, 2, 3], 3, LONG).unwrap();
        assert_eq!(world.node.stats().quarantined_blocks, 0);
    }
}

/// The kill comes somewhere in the middle of many writes.
async fn a_sender_killed_at_any_moment_leaves_nothing_behind(fabric: &str) {
    for delay in [0, 1, 3, 8] {
        let world = World::new(Setup { layers: 48, block_bytes: 16 << 10, ..shape(fabric) }).await;
        let blocks: Vec<u32> = (0..90).collect();
        let torn: Vec<u32> = (0..90).rev().collect();
        let mut incoming = world.node.expect(&blocks, 90, LONG).unwrap();
        world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
        let push = Order::Push { id: 1, layers: (0, 48), blocks: pairs(&torn) };
        let _answer = world.peer.post(&push).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        world.peer.kill();
        let lost = tokio::time::timeout(SOON, incoming.wait()).await.expect("known soon");
        assert!(matches!(lost, Err(TransferError::PeerLost { .. })), "no manifest, no success: {lost:?}");
        tokio::time::timeout(SOON, incoming.abort()).await.expect("quiet soon");
        assert_eq!(world.node.stats().quarantined_blocks, 0);
    }
}

async fn a_sender_killed_after_its_push_changes_nothing(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    world.peer.must(Order::Fill { blocks: vec![4, 5, 6], seed: 9 }).await;
    let mut incoming = world.node.expect(&[1, 2, 3], 3, LONG).unwrap();
    world.peer.send_whole(1, incoming.ticket(), world.setup.layers, &pairs(&[4, 5, 6])).await;
    world.peer.kill();
    incoming.wait().await.unwrap();
    assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &[1, 2, 3], 9), None);
}

async fn a_killed_receiver_fails_its_senders_soon(fabric: &str) {
    let world = World::new(Setup { layers: 48, block_bytes: 16 << 10, ..shape(fabric) }).await;
    let torn: Vec<u32> = (0..90).rev().collect();
    let lease = Arc::new(());
    let mut doomed = Vec::new();
    for (id, blocks) in [(1, 0..40), (2, 40..90)] {
        let ticket = world.peer.expect(id, &blocks.clone().collect::<Vec<u32>>(), LONG).await;
        let outgoing = world.node.open(&ticket).await.unwrap();
        outgoing.hold(lease.clone());
        doomed.push((outgoing, blocks));
    }
    let (idle, _) = doomed.pop().unwrap();
    let (busy, blocks) = doomed.pop().unwrap();
    busy.push(0..48, &pairs(&torn[blocks.start as usize..blocks.end as usize])).unwrap();
    world.peer.kill();
    let started = Instant::now();
    // Every write may be done before the death is known: then the sender has done its part.
    let finished = tokio::time::timeout(SOON, busy.finish()).await.expect("settled soon");
    assert!(
        matches!(finished, Ok(_) | Err(TransferError::PeerLost { .. } | TransferError::Write { .. })),
        "{finished:?}"
    );
    let lost = until(|| idle.push(0..0, &[]).err()).await;
    assert!(matches!(lost, PushError::Ended(TransferError::PeerLost { .. })), "{lost}");
    tokio::time::timeout(SOON, idle.abort()).await.expect("quiet soon");
    assert!(started.elapsed() < SOON);
    assert_eq!(Arc::strong_count(&lease), 1);
    assert_eq!(world.node.stats().in_flight_writes, 0);
    assert_eq!(world.node.stats().queued_pushes, 0);
}

async fn a_paused_sender_keeps_its_blocks_quarantined_until_it_wakes(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let mut incoming = world.node.expect(&[1, 2, 3], 3, Duration::from_millis(300)).unwrap();
    world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    world.peer.must(Order::Push { id: 1, layers: (0, 3), blocks: pairs(&[4, 5, 6]) }).await;
    world.peer.signal(rustix::process::Signal::STOP);
    let expired = incoming.wait().await;
    assert!(matches!(expired, Err(TransferError::Expired { .. })), "{expired:?}");
    let mut quiesced = incoming.abort();
    assert!(!quiesced.is_quiet());
    assert_eq!(world.node.stats().quarantined_blocks, 3);
    assert_eq!(world.node.expect(&[2], 1, LONG).unwrap_err(), ExpectError::BlockBusy { block: 2 });
    // Twice the drain: time alone must not lift this fence.
    tokio::time::timeout(Duration::from_millis(600), &mut quiesced).await.expect_err("it may still write");
    world.peer.signal(rustix::process::Signal::CONT);
    tokio::time::timeout(SOON, quiesced).await.expect("quiet soon after it woke");
    assert_eq!(world.node.stats().quarantined_blocks, 0);
    let error = world.peer.fails(Order::Finish { id: 1 }).await;
    assert!(error.contains("expired"), "{error}");
    world.at_rest().await;
}

/// Reading what a peer offers: of the same layout, and of one that is converted.
async fn offered_blocks_are_fetched_and_taken_back_ones_are_not_used(fabric: &str) {
    const TOKENS: u32 = 21;
    let base = Setup { layers: 3, kv_heads: 2, block_bytes: 8 << 10, block_tokens: 4, ..shape(fabric) };
    for theirs in [base.clone(), Setup { block_tokens: 8, block_bytes: 16 << 10, nhd: true, ..base.clone() }]
    {
        let world = World::with_peer(base.clone(), &theirs).await;
        let needed = TOKENS.div_ceil(theirs.block_tokens);
        let held: Vec<u32> = (0..needed).map(|i| 40 - 3 * i).collect();
        let ours: Vec<u32> = (10..16).collect();
        world.peer.must(Order::Fill { blocks: held.clone(), seed: 8 }).await;
        let offer = |id| Order::Offer { id, blocks: held.clone(), tokens: TOKENS, expires_ms: 30_000 };
        let ticket = world.peer.ticket(offer(1)).await;
        let geometry = world.setup.geometry();
        for _ in 0..2 {
            let mut fetching = world.node.fetch(&ticket, &ours).await.unwrap();
            let busy = world.node.expect(&ours[..1], 4, LONG).unwrap_err();
            assert_eq!(busy, ExpectError::BlockBusy { block: 10 });
            fetching.wait().await.unwrap();
            assert_eq!(first_wrong_of(&world.node.pool(), &geometry, &ours, TOKENS, 8), None);
            fetching.abort().await;
        }
        // Taken back while the reader reads: what it read is not used.
        let mut late = world.node.fetch(&ticket, &ours).await.unwrap();
        world.peer.must(Order::TakeBack { id: 1 }).await;
        world.peer.must(Order::Fill { blocks: held.clone(), seed: 9 }).await;
        assert!(matches!(late.wait().await, Err(TransferError::OfferGone { .. })));
        drop(late);
        world.node.expect(&ours, TOKENS, LONG).unwrap();

        // And the other way.
        fill(&world.node.pool(), &geometry, &ours, 4);
        let offered = world.node.offer(&ours, TOKENS, LONG).unwrap();
        world.peer.must(Order::Fetch { ticket: offered.ticket(), blocks: held.clone() }).await;
        let check = Order::Check { blocks: held.clone(), tokens: TOKENS, seed: 4 };
        assert!(matches!(world.peer.must(check).await, Reply::Wrong(None)));
        assert!(offered.renew(Duration::ZERO) && !offered.renew(LONG), "it is over");
        let order = Order::Fetch { ticket: offered.ticket(), blocks: held.clone() };
        let error = world.peer.fails(order).await;
        assert!(error.contains("does not confirm"), "{error}");
        assert_eq!(world.node.stats().offers_live, 1);
        drop(offered);
        assert_eq!(world.node.stats().offers_live, 0);
        world.at_rest().await;
    }
}

/// An owner of short blocks sends a hash for each; they are many more than its reader has blocks.
#[test]
fn an_owner_of_many_short_blocks_is_heard_out() {
    const TOKENS: u32 = 2048;
    let ours = Setup { block_tokens: 64, block_bytes: 1024, blocks: TOKENS / 64, ..shape("shm") };
    let theirs = Setup { block_tokens: 1, block_bytes: 16, blocks: TOKENS, ..ours.clone() };
    block_on(async {
        let world = World::with_peer(ours.clone(), &theirs).await;
        let held: Vec<u32> = (0..TOKENS).collect();
        world.peer.must(Order::Fill { blocks: held.clone(), seed: 8 }).await;
        let offer = Order::Offer { id: 1, blocks: held, tokens: TOKENS, expires_ms: 30_000 };
        let ticket = world.peer.ticket(offer).await;
        let blocks: Vec<u32> = (0..ours.blocks).collect();
        let mut fetching = world.node.fetch(&ticket, &blocks).await.unwrap();
        fetching.wait().await.unwrap();
        assert_eq!(first_wrong_of(&world.node.pool(), &ours.geometry(), &blocks, TOKENS, 8), None);
    });
}

async fn an_owner_killed_while_it_is_read_is_known_at_once(fabric: &str) {
    let world = World::new(Setup { layers: 48, block_bytes: 64 << 10, ..shape(fabric) }).await;
    let held: Vec<u32> = (0..90).collect();
    let offer = Order::Offer { id: 1, blocks: held.clone(), tokens: 90, expires_ms: 30_000 };
    let ticket = world.peer.ticket(offer).await;
    let mut fetching = world.node.fetch(&ticket, &held).await.unwrap();
    world.peer.kill();
    let started = Instant::now();
    // It may have been quick.
    let outcome = fetching.wait().await;
    assert!(outcome.is_err(), "a dead owner confirms nothing: {outcome:?}");
    fetching.abort().await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    world.node.expect(&held, 90, LONG).unwrap();
}

async fn a_lease_lives_while_it_is_renewed(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    world.peer.must(Order::Fill { blocks: vec![8], seed: 2 }).await;
    let mut incoming = world.node.expect(&[3], 1, Duration::from_millis(300)).unwrap();
    world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    for _ in 0..10 {
        assert!(incoming.renew(SOON));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.peer.must(Order::Push { id: 1, layers: (0, 6), blocks: pairs(&[8]) }).await;
    world.peer.must(Order::Finish { id: 1 }).await;
    incoming.wait().await.unwrap();
    assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &[3], 2), None);
    assert!(!incoming.renew(SOON), "it is over");
    world.at_rest().await;
}

/// Two senders that hold half of the heads each, in larger blocks and in another order, make one cache; then the other way.
async fn differing_layouts_and_ranks_are_converted(fabric: &str) {
    const TOKENS: u32 = 43;
    let base = Setup { layers: 3, kv_heads: 4, block_bytes: 4 << 10, block_tokens: 4, ..shape(fabric) };
    let rank =
        |rank| Setup { rank: (rank, 2), block_bytes: 16 << 10, block_tokens: 16, nhd: true, ..base.clone() };
    let world = World::with_peer(Setup { split: true, ..base.clone() }, &rank(0)).await;
    let second = Peer::start(&rank(1)).await;
    let peers = [&world.peer, &second];
    let (ours, theirs) = ((10..21).rev().collect::<Vec<u32>>(), [7u32, 3, 4]);

    let mut incoming = world.node.expect(&ours, TOKENS, LONG).unwrap();
    for peer in peers {
        peer.must(Order::Fill { blocks: theirs.to_vec(), seed: 5 }).await;
        peer.send_whole(1, incoming.ticket(), 3, &pairs(&theirs)).await;
    }
    let received = incoming.wait().await.unwrap();
    assert_eq!(received.bytes, u64::from(TOKENS) * 3 * u64::from(base.block_bytes / base.block_tokens));
    let geometry = world.setup.geometry();
    assert_eq!(first_wrong_of(&world.node.pool(), &geometry, &ours, TOKENS, 5), None);

    fill(&world.node.pool(), &geometry, &ours, 6);
    for peer in peers {
        let ticket = peer.expect_tokens(2, &theirs, TOKENS, LONG).await;
        let outgoing = world.node.open(&ticket).await.unwrap();
        assert_eq!(outgoing.block_count(), ours.len());
        outgoing.push(0..3, &pairs(&ours)).unwrap();
        outgoing.finish().await.unwrap();
        peer.must(Order::Wait { id: 2 }).await;
        let wrong = peer.must(Order::Check { blocks: theirs.to_vec(), tokens: TOKENS, seed: 6 }).await;
        assert!(matches!(wrong, Reply::Wrong(None)), "{wrong:?}");
    }
    world.at_rest().await;
}

async fn corrupted_bytes_are_named(fabric: &str) {
    for full_checksums in [true, false] {
        let world = World::new(Setup { full_checksums, ..shape(fabric) }).await;
        world.peer.must(Order::Fill { blocks: vec![4, 5], seed: 3 }).await;
        let mut incoming = world.node.expect(&[30, 31], 2, LONG).unwrap();
        world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
        world.peer.must(Order::Push { id: 1, layers: (0, 6), blocks: pairs(&[4, 5]) }).await;
        // All writes are here, the manifest is not: a stray write now is what the checksums are for.
        until(|| (world.node.stats().writes_received == 6).then_some(())).await;
        let geometry = world.setup.geometry();
        let damaged: Vec<_> = if full_checksums { vec![(4, 31)] } else { vec![(4, 30), (4, 31)] };
        for &(layer, block) in &damaged {
            let piece = geometry.pieces(layer, block).next().unwrap();
            let mut byte = [0];
            world.node.pool().copy_out(piece.end - 1, &mut byte);
            world.node.pool().copy_in(piece.end - 1, &[byte[0] ^ 1]);
        }
        world.peer.must(Order::Finish { id: 1 }).await;
        match incoming.wait().await {
            Err(TransferError::Checksum { layer, block, .. }) => assert!(damaged.contains(&(layer, block))),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.node.stats().checksum_failures, 1);
        world.at_rest().await;
    }
}

async fn shutdown_quiesces_both_ends_in_time(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let mut incoming = world.node.expect(&[1, 2], 2, LONG).unwrap();
    world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    world.peer.must(Order::Push { id: 1, layers: (0, 2), blocks: pairs(&[3, 4]) }).await;
    let ticket = world.peer.expect(2, &[9], LONG).await;
    let outgoing = world.node.open(&ticket).await.unwrap();
    let started = Instant::now();
    world.node.shutdown().await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(incoming.wait().await, Err(TransferError::ShuttingDown));
    assert!(outgoing.finish().await.is_err());
    assert_eq!(world.node.expect(&[5], 1, LONG).unwrap_err(), ExpectError::ShuttingDown);
    let endpoint = world.node.fabric().control_endpoint;
    if let Some(name) = endpoint.strip_prefix("unix:") {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!sockets.contains(name), "the socket is gone");
    }
    world.peer.fails(Order::Wait { id: 2 }).await;
}

macro_rules! conformance {
    ($fabric:ident, $name:literal) => {
        conformance!($fabric, $name, [
            moves_every_byte,
            long_runs_arrive_whole,
            many_at_once_in_both_directions,
            incompatible_peers_are_refused_by_the_field_that_differs,
            connecting_ahead_gives_the_verdict_and_a_path_that_works,
            revoked_expired_used_and_garbled_tickets_are_refused,
            a_restarted_receiver_refuses_tickets_of_its_former_life,
            aborted_blocks_are_reused_only_when_quiet,
            a_sender_that_gives_up_or_forgets_a_piece_is_heard,
            a_sender_killed_before_or_during_its_push_is_known_at_once,
            a_sender_killed_at_any_moment_leaves_nothing_behind,
            a_sender_killed_after_its_push_changes_nothing,
            a_killed_receiver_fails_its_senders_soon,
            a_paused_sender_keeps_its_blocks_quarantined_until_it_wakes,
            a_lease_lives_while_it_is_renewed,
            offered_blocks_are_fetched_and_taken_back_ones_are_not_used,
            an_owner_killed_while_it_is_read_is_known_at_once,
            differing_layouts_and_ranks_are_converted,
            corrupted_bytes_are_named,
            shutdown_quiesces_both_ends_in_time,
        ]);
    };
    ($fabric:ident, $name:literal, [$($theme:ident),* $(,)?]) => {
        mod $fabric {
            use super::*;
            $(#[test] fn $theme() {
                let name = concat!(stringify!($fabric), "::", stringify!($theme));
                run(name, $name, super::$theme($name));
            })*
        }
    };
}

/// Runs a theme here, or in a process of its own where the fabric needs an environment of its own.
fn run(name: &str, fabric: &str, theme: impl Future<Output = ()>) {
    if !support_is_here(fabric) {
        return;
    }
    match strict::environment(name) {
        Some(environment) if !strict::is_here() => {
            let log = strict::run_alone(name, &environment);
            strict::assert_obeyed(&log);
            if name.ends_with("::many_at_once_in_both_directions") {
                strict::assert_hard(&log);
            }
        }
        _ => block_on(theme),
    }
}

conformance!(shm, "shm");
conformance!(libfabric_tcp, "libfabric:tcp");
// Several endpoints, as of several NICs.
conformance!(libfabric_rails, "libfabric:tcp@127.0.0.2,127.0.0.3,127.0.0.4");
conformance!(libfabric_shm, "libfabric:shm");
// EFA's rules, enforced: as efa-direct has them, and in the weaker shapes that EFA may take (see support/strict.rs).
conformance!(libfabric_strict, "libfabric:strict");
conformance!(libfabric_strict_weak, "libfabric:strict");
conformance!(libfabric_strict_rails, "libfabric:strict");
conformance!(nixl, "nixl");
conformance!(ucx_tcp, "ucx:tcp");
// Puts are the kernel's copies from process to process.
conformance!(ucx_cma, "ucx:posix,cma");
// Puts are UCX's messages, which the target's UCX copies into place.
conformance!(ucx_sysv, "ucx:sysv");
