//! Reports of blocks that never came back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_kv_transfer::{OpenError, TransferError};

use super::hangs::open_soon;
use super::support::{Limits, Order, Setup, World, shape, until};
use super::{LONG, SOON, another, pairs, within};

/// Prefill dies between its last write and its word that this was the last.
pub(super) async fn a_completion_that_is_lost_with_its_sender_gives_the_blocks_back(fabric: &str) {
    let limits = Limits { incoming: 1, ..Limits::default() };
    let world = World::new(Setup { limits, ..shape(fabric) }).await;
    for _ in 0..3 {
        let prefill = another(&world).await;
        let lease = Arc::new(());
        let mut incoming = world.node.expect(&[1, 2, 3], 3, LONG).unwrap();
        incoming.hold(lease.clone());
        prefill.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
        let written = world.node.stats().writes_received;
        prefill.must(Order::Push { id: 1, layers: (0, 6), blocks: pairs(&[4, 5, 6]) }).await;
        until(|| (world.node.stats().writes_received == written + 6).then_some(())).await;
        prefill.kill();
        let verdict = tokio::time::timeout(SOON, incoming.wait()).await.expect("known soon");
        assert!(matches!(verdict, Err(TransferError::PeerLost { .. })), "{verdict:?}");
        tokio::time::timeout(SOON, incoming.abort()).await.expect("quiet soon");
        assert_eq!(Arc::strong_count(&lease), 1, "the blocks are back");
    }
    world.at_rest().await;
}

/// With room for one transfer: each must have given everything back before the next can be opened.
pub(super) async fn rejection_disconnect_and_timeout_strand_nothing_at_prefill(fabric: &str) {
    let limits = Limits { outgoing: 1, ..Limits::default() };
    let world = World::new(Setup { limits, ..shape(fabric) }).await;
    let (ours, lease) = ([1u32, 2], Arc::new(()));

    // Rejected at the door.
    let ticket = world.peer.expect(1, &[4, 5], LONG).await;
    world.peer.must(Order::AbortIncoming { id: 1 }).await;
    for _ in 0..3 {
        let started = Instant::now();
        let error = loop {
            match world.node.open(&ticket).await.unwrap_err() {
                OpenError::Full { .. } => tokio::time::sleep(Duration::from_millis(1)).await,
                error => break error,
            }
            within(SOON, started);
        };
        assert!(matches!(error, OpenError::Revoked { .. }), "{error}");
    }

    // Time is up while prefill computes.
    let ticket = world.peer.expect(2, &[4, 5], Duration::from_millis(700)).await;
    let outgoing = open_soon(&world, &ticket).await;
    outgoing.hold(lease.clone());
    outgoing.push(0..2, &pairs(&ours)).unwrap();
    until(|| outgoing.push(0..0, &[]).err()).await;
    tokio::time::timeout(SOON, outgoing.abort()).await.expect("quiet soon");
    assert_eq!(Arc::strong_count(&lease), 1, "time-out");
    let error = world.peer.fails(Order::Wait { id: 2 }).await;
    assert!(error.contains("700ms"), "{error}");

    // The connection ends, with its process.
    let decode = another(&world).await;
    let ticket = decode.expect(3, &[4, 5], LONG).await;
    let outgoing = open_soon(&world, &ticket).await;
    outgoing.hold(lease.clone());
    outgoing.push(0..2, &pairs(&ours)).unwrap();
    decode.kill();
    let error = until(|| outgoing.push(0..0, &[]).err()).await;
    assert!(error.to_string().contains("gone") || error.to_string().contains("lost"), "{error}");
    tokio::time::timeout(SOON, outgoing.abort()).await.expect("quiet soon");
    assert_eq!(Arc::strong_count(&lease), 1, "disconnect");

    world.peer.must(Order::AbortIncoming { id: 2 }).await;
    world.peer.must(Order::Quiet { id: 2 }).await;
    let ticket = world.peer.expect(4, &[4, 5], LONG).await;
    let outgoing = open_soon(&world, &ticket).await;
    outgoing.push(0..6, &pairs(&ours)).unwrap();
    outgoing.finish().await.unwrap();
    world.peer.must(Order::Wait { id: 4 }).await;
    world.at_rest().await;
}

/// Futures and transfers are dropped at both ends, at moments a few hundred microseconds apart.
pub(super) async fn a_cancel_at_any_moment_leaks_nothing_and_the_next_transfer_works(fabric: &str) {
    let limits = Limits { incoming: 2, outgoing: 2, ..Limits::default() };
    let world = World::new(Setup { layers: 24, limits, ..shape(fabric) }).await;
    let (ours, theirs): (Vec<u32>, Vec<u32>) = ((0..24).collect(), (0..24).rev().collect());
    let lease = Arc::new(());
    for round in 0..24u64 {
        // As prefill: the request is cancelled somewhere in opening, pushing or finishing.
        let ticket = world.peer.expect(round, &theirs, LONG).await;
        let sending = async {
            let outgoing = open_soon(&world, &ticket).await;
            outgoing.hold(lease.clone());
            for layer in 0..24 {
                outgoing.push(layer..layer + 1, &pairs(&ours))?;
                tokio::task::yield_now().await;
            }
            outgoing.finish().await?;
            Ok::<_, anyhow::Error>(())
        };
        let _ = tokio::time::timeout(Duration::from_micros(round * 150), sending).await;
        world.peer.must(Order::AbortIncoming { id: round }).await;
        world.peer.must(Order::Quiet { id: round }).await;

        // As decode: the request is cancelled while the blocks arrive.
        let id = 1000 + round;
        let mut incoming = open_slot(&world, &ours).await;
        incoming.hold(lease.clone());
        world.peer.must(Order::Open { id, ticket: incoming.ticket() }).await;
        let _answer = world.peer.post(&Order::Push { id, layers: (0, 24), blocks: pairs(&theirs) }).await;
        let _ = tokio::time::timeout(Duration::from_micros(round * 100), incoming.wait()).await;
        drop(incoming);
        // It may have been done already.
        world.peer.ask(Order::Finish { id }).await;
    }
    until(|| (Arc::strong_count(&lease) == 1).then_some(())).await;
    world.at_rest().await;
    let mut incoming = world.node.expect(&ours, 24, LONG).unwrap();
    world.peer.send_whole(5000, incoming.ticket(), 24, &pairs(&theirs)).await;
    incoming.wait().await.unwrap();
    world.at_rest().await;
}

/// Expects once the blocks of the transfer before are quiet.
async fn open_slot(world: &World, blocks: &[u32]) -> baton_kv_transfer::Incoming {
    let tokens = blocks.len() as u32;
    tokio::time::timeout(SOON, until(|| world.node.expect(blocks, tokens, LONG).ok()))
        .await
        .expect("the blocks come back")
}

/// The sender is attached, alive, has pushed a part, and never goes on.
pub(super) async fn a_transfer_that_never_ends_times_out(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let started = Instant::now();
    let mut incoming = world.node.expect(&[1, 2], 2, Duration::from_secs(1)).unwrap();
    world.peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    world.peer.must(Order::Push { id: 1, layers: (0, 5), blocks: pairs(&[4, 5]) }).await;
    let verdict = tokio::time::timeout(SOON, incoming.wait()).await.expect("not stuck");
    assert!(started.elapsed() >= Duration::from_secs(1), "not early either");
    match verdict {
        Err(TransferError::Expired { manifest, .. }) => assert_eq!(manifest, "missing"),
        other => panic!("{other:?}"),
    }
    tokio::time::timeout(SOON, incoming.abort()).await.expect("quiet soon");
    let error = world.peer.fails(Order::Finish { id: 1 }).await;
    assert!(error.contains("expired"), "{error}");
    world.at_rest().await;
}
