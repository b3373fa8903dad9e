//! Reports in which a client got a wrong answer with HTTP 200.

use std::time::{Duration, Instant};

use baton_kv_transfer::{ExpectError, TransferError};

use super::support::{
    Limits, Order, Peer, Reply, Setup, World, fill, first_wrong, first_wrong_of, shape, until,
};
use super::{LONG, Lease, SOON, another, pairs, within};

/// 42 requests, of which decode's patience ends for 8: before prefill opened, or in the middle of the push. The blocks of each are
/// overwritten as soon as their lease is over.
pub(super) async fn a_lease_that_ends_while_decode_queues_is_an_error_or_right_bytes(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let layers = world.setup.layers;
    let (mut arrived, mut failed) = (0, 0);
    for request in 0..42u32 {
        let ours: Vec<u32> = (0..4).map(|i| (request * 7 + i * 5) % 96).collect();
        let theirs: Vec<u32> = (0..4).map(|i| (request * 3 + i) % 100).collect();
        let (id, late) = (u64::from(request), request % 5 == 4);
        let patience =
            if late { Duration::from_millis(if request % 2 == 0 { 1 } else { 150 }) } else { LONG };
        let ticket = world.peer.expect(id, &theirs, patience).await;
        let waiting = world.peer.post(&Order::Wait { id }).await;
        let lease = Lease::computed(&world, &ours, id);
        if late && request % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let opened = world.node.open(&ticket).await;
        if let Ok(outgoing) = opened {
            outgoing.hold(lease);
            let half = outgoing.push(0..layers / 2, &pairs(&ours));
            if late {
                // Prefill computes for longer than decode waits.
                until(|| outgoing.push(0..0, &[]).err()).await;
                outgoing.abort().await;
            } else {
                half.unwrap();
                outgoing.push(layers / 2..layers, &pairs(&ours)).unwrap();
                outgoing.finish().await.unwrap();
            }
        }
        let verdict = tokio::time::timeout(SOON, waiting).await.expect("decode hears soon").unwrap();
        let check = Order::Check { blocks: theirs.clone(), tokens: 4, seed: id };
        match verdict {
            Reply::Bytes(_) => {
                arrived += 1;
                let wrong = world.peer.must(check).await;
                assert!(matches!(wrong, Reply::Wrong(None)), "freed KV was served: {wrong:?}");
            }
            Reply::Error(error) => {
                failed += 1;
                assert!(
                    error.contains("deadline") || error.contains("expired") || error.contains("within"),
                    "{error}"
                );
                world.peer.must(Order::AbortIncoming { id }).await;
                world.peer.must(Order::Quiet { id }).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((arrived, failed), (34, 8));
    world.at_rest().await;
}

/// The destination blocks hold the answer of the request before, and the next transfer into them ends badly in one way after the
/// other.
pub(super) async fn what_an_earlier_prompt_left_in_the_blocks_is_never_an_answer(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let (ours, theirs, layers) = ([5u32, 6, 40], [9u32, 30, 31], world.setup.layers);
    let geometry = world.setup.geometry();
    for (round, end) in ["abort", "forget a piece", "die"].into_iter().enumerate() {
        fill(&world.node.pool(), &geometry, &ours, 1000 + round as u64);
        let peer = another(&world).await;
        let mut incoming = world.node.expect(&ours, 3, LONG).unwrap();
        peer.must(Order::Open { id: 1, ticket: incoming.ticket() }).await;
        match end {
            "abort" => {
                peer.must(Order::Push { id: 1, layers: (0, layers), blocks: pairs(&theirs) }).await;
                peer.must(Order::AbortOutgoing { id: 1 }).await;
            }
            "forget a piece" => {
                peer.must(Order::Push { id: 1, layers: (0, layers), blocks: pairs(&theirs)[..2].to_vec() })
                    .await;
                peer.fails(Order::Finish { id: 1 }).await;
            }
            _ => {
                peer.must(Order::Push { id: 1, layers: (0, layers), blocks: pairs(&theirs) }).await;
                peer.kill();
            }
        }
        let verdict = tokio::time::timeout(SOON, incoming.wait()).await.expect("known soon");
        assert!(verdict.is_err(), "{end}: {verdict:?}");
        incoming.abort().await;
    }
    world.peer.must(Order::Fill { blocks: theirs.to_vec(), seed: 4 }).await;
    let mut incoming = world.node.expect(&ours, 3, LONG).unwrap();
    world.peer.send_whole(2, incoming.ticket(), layers, &pairs(&theirs)).await;
    incoming.wait().await.unwrap();
    assert_eq!(first_wrong(&world.node.pool(), &geometry, &ours, 4), None);
    world.at_rest().await;
}

/// The writer is stopped in the middle of its writes, the reader aborts and wants its blocks back for the next request.
pub(super) async fn blocks_of_an_aborted_transfer_are_not_reused_while_they_may_be_written(fabric: &str) {
    let world = World::new(Setup { layers: 48, ..shape(fabric) }).await;
    let (ours, torn): (Vec<u32>, Vec<u32>) = ((0..60).collect(), (0..60).rev().collect());
    for (round, delay) in [0, 2, 5].into_iter().enumerate() {
        let id = round as u64;
        let incoming = world.node.expect(&ours, 60, LONG).unwrap();
        world.peer.must(Order::Open { id, ticket: incoming.ticket() }).await;
        let push = Order::Push { id, layers: (0, 47), blocks: pairs(&torn) };
        let _answer = world.peer.post(&push).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        world.peer.stop().await;
        let mut quiesced = incoming.abort();
        let refused = world.node.expect(&ours[7..8], 1, LONG).unwrap_err();
        assert_eq!(refused, ExpectError::BlockBusy { block: 7 });
        let early = tokio::time::timeout(Duration::from_millis(400), &mut quiesced).await;
        early.expect_err("a stopped writer may still write");
        world.peer.signal(rustix::process::Signal::CONT);
        tokio::time::timeout(SOON, quiesced).await.expect("quiet soon after");
        // From here on they are somebody else's.
        let (pool, geometry) = (world.node.pool(), world.setup.geometry());
        fill(&pool, &geometry, &ours, 77 + id);
        world.peer.fails(Order::Finish { id }).await;
        world.at_rest().await;
        assert_eq!(first_wrong(&pool, &geometry, &ours, 77 + id), None, "written after quiescence");
    }
}

/// What is moved is what the receiver's heads take: all of it from four ranks, a quarter of it from one, nothing from a rank whose
/// heads are not needed.
pub(super) async fn other_tensor_parallel_sizes_move_exactly_the_bytes_that_are_needed(fabric: &str) {
    const TOKENS: u32 = 13;
    let whole = Setup { layers: 3, kv_heads: 4, block_tokens: 4, ..shape(fabric) };
    let rank = |rank, size| Setup { rank: (rank, size), ..whole.clone() };
    let token_bytes = u64::from(whole.layers) * u64::from(whole.block_bytes / whole.block_tokens);
    let (ours, theirs) = ([3u32, 9, 8, 1], [7u32, 6, 20, 4]);

    for (senders, our_rank) in [(4, (0, 1)), (1, (2, 4)), (2, (1, 4)), (2, (1, 2))] {
        let setup = rank(our_rank.0, our_rank.1);
        let world = World::with_peer(setup.clone(), &rank(0, senders)).await;
        let mut others = Vec::new();
        for other in 1..senders {
            others.push(Peer::start(&rank(other, senders)).await);
        }
        let mut incoming = world.node.expect(&ours, TOKENS, LONG).unwrap();
        let mut needed = 0;
        for peer in std::iter::once(&world.peer).chain(&others) {
            peer.must(Order::Fill { blocks: theirs.to_vec(), seed: 3 }).await;
            match peer.ask(Order::Open { id: 1, ticket: incoming.ticket() }).await {
                Reply::Done => {
                    needed += 1;
                    peer.must(Order::Push { id: 1, layers: (0, 3), blocks: pairs(&theirs) }).await;
                    peer.must(Order::Finish { id: 1 }).await;
                }
                Reply::Error(error) => assert!(error.contains("needs none"), "{error}"),
                other => panic!("{other:?}"),
            }
        }
        let received = incoming.wait().await.unwrap();
        let (_, our_size) = our_rank;
        // Whole blocks travel with their last one's unused rows where both cut alike.
        let tokens = if senders == our_size { 16 } else { TOKENS };
        assert_eq!(
            received.bytes,
            u64::from(tokens) * token_bytes / u64::from(our_size),
            "{senders} to {our_rank:?}"
        );
        assert_eq!(needed, senders.div_ceil(our_size), "{senders} to {our_rank:?}");
        let geometry = setup.geometry();
        assert_eq!(first_wrong_of(&world.node.pool(), &geometry, &ours, TOKENS, 3), None);
        world.at_rest().await;
    }
}

/// Prefill does not take prompts of that length, and decode must not take the silence for an answer.
pub(super) async fn a_prompt_over_the_limit_is_refused_and_decode_gets_an_error(fabric: &str) {
    let setup = shape(fabric);
    let small = Setup { limits: Limits { blocks_per_transfer: 4, ..Limits::default() }, ..setup.clone() };
    let world = World::with_peer(setup, &small).await;
    let (ours, started) = ([1u32, 2, 3, 4, 5, 6], Instant::now());
    fill(&world.node.pool(), &world.setup.geometry(), &ours, 99);
    let mut incoming = world.node.expect(&ours, 6, Duration::from_millis(500)).unwrap();
    let error = world.peer.fails(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    assert!(error.contains("6 blocks where 1 to 4"), "{error}");
    let verdict = incoming.wait().await;
    assert!(matches!(verdict, Err(TransferError::Expired { arrived: 0, .. })), "{verdict:?}");
    within(SOON, started);
    incoming.abort().await;
    // And decode's own limit, before anything is reserved.
    let error =
        world.peer.fails(Order::Expect { id: 2, blocks: ours.to_vec(), tokens: 6, expires_ms: 1000 }).await;
    assert!(error.contains("limit of 4"), "{error}");
    world.at_rest().await;
}

pub(super) async fn other_block_sizes_are_converted_and_what_cannot_be_is_refused_by_name(fabric: &str) {
    let setup = Setup { block_tokens: 4, block_bytes: 4 << 10, ..shape(fabric) };
    let sixteen = Setup { block_tokens: 16, block_bytes: 16 << 10, ..setup.clone() };
    let world = World::with_peer(setup.clone(), &sixteen).await;
    let (ours, theirs) = ([8u32, 2, 33, 50, 51], [4u32, 90]);
    world.peer.must(Order::Fill { blocks: theirs.to_vec(), seed: 8 }).await;
    let mut incoming = world.node.expect(&ours, 19, LONG).unwrap();
    world.peer.send_whole(1, incoming.ticket(), world.setup.layers, &pairs(&theirs)).await;
    assert_eq!(incoming.wait().await.unwrap().bytes, 19 * 6 * 1024);
    assert_eq!(first_wrong_of(&world.node.pool(), &setup.geometry(), &ours, 19, 8), None);

    // Blocks of as many bytes, but of other tokens times heads: not the same thing at all.
    let wider = Peer::start(&Setup { block_bytes: 16 << 10, ..setup }).await;
    let incoming = world.node.expect(&ours, 19, LONG).unwrap();
    let error = wider.fails(Order::Open { id: 1, ticket: incoming.ticket() }).await;
    assert!(error.contains("head_dim is `1024` here and `256` there"), "{error}");
}
