//! Reports of waiting for what will never come, and of pools that stand still.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton_kv_transfer::{ExpectError, OpenError, TransferError};

use super::support::{Limits, Order, Peer, Reply, Setup, World, fill, first_wrong, shape, until};
use super::{LONG, Lease, SOON, another, median, pairs, within};

/// How soon a healthy pair tells each other bad news.
const TOLD: Duration = Duration::from_millis(100);
const ROUNDS: usize = 9;

pub(super) async fn prefills_abort_reaches_decode_within_100_ms(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let told = median(ROUNDS, async |id| {
        let mut incoming = world.node.expect(&[1, 2], 2, LONG).unwrap();
        world.peer.must(Order::Open { id, ticket: incoming.ticket() }).await;
        world.peer.must(Order::Push { id, layers: (0, 3), blocks: pairs(&[4, 5]) }).await;
        let started = Instant::now();
        world.peer.post(&Order::AbortOutgoing { id }).await;
        let verdict = incoming.wait().await;
        let told = started.elapsed();
        assert!(matches!(verdict, Err(TransferError::AbortedByPeer { .. })), "{verdict:?}");
        incoming.abort().await;
        told
    })
    .await;
    assert!(told < TOLD, "{told:?}");
    world.at_rest().await;
}

/// Decode gives up while prefill computes: with the push half done, and before the ticket is opened.
pub(super) async fn decodes_refusal_reaches_prefill_within_100_ms(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let told = median(ROUNDS, async |id| {
        let ticket = world.peer.expect(id, &[4, 5], LONG).await;
        let outgoing = world.node.open(&ticket).await.unwrap();
        outgoing.push(0..3, &pairs(&[1, 2])).unwrap();
        let started = Instant::now();
        world.peer.post(&Order::AbortIncoming { id }).await;
        let error = until(|| outgoing.push(0..0, &[]).err()).await;
        assert!(error.to_string().contains("aborted"), "{error}");
        outgoing.finish().await.unwrap_err();
        let told = started.elapsed();
        world.peer.must(Order::Quiet { id }).await;
        told
    })
    .await;
    assert!(told < TOLD, "{told:?}");

    let refused = median(ROUNDS, async |round| {
        let id = 100 + round;
        let ticket = world.peer.expect(id, &[4, 5], LONG).await;
        world.peer.must(Order::AbortIncoming { id }).await;
        let started = Instant::now();
        let error = world.node.open(&ticket).await.unwrap_err();
        assert!(matches!(error, OpenError::Revoked { .. }), "{error}");
        started.elapsed()
    })
    .await;
    assert!(refused < TOLD, "{refused:?}");
    world.at_rest().await;
}

/// Prefill dies in the middle of two transfers and is started anew: who waits for its former life hears at once, and its new
/// one is served.
pub(super) async fn a_restarted_prefill_is_served_and_its_former_life_is_over(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let mut prefill = another(&world).await;
    for life in 0..3u64 {
        let mut waiting = Vec::new();
        for (id, block) in [(1, 10), (2, 20)] {
            let incoming = world.node.expect(&[block, block + 1], 2, LONG).unwrap();
            prefill.must(Order::Open { id, ticket: incoming.ticket() }).await;
            prefill.must(Order::Push { id, layers: (0, 2), blocks: pairs(&[4, 5]) }).await;
            waiting.push(incoming);
        }
        prefill.kill();
        let started = Instant::now();
        for mut incoming in waiting {
            let verdict = tokio::time::timeout(SOON, incoming.wait()).await.expect("known soon");
            assert!(matches!(verdict, Err(TransferError::PeerLost { .. })), "{verdict:?}");
            tokio::time::timeout(SOON, incoming.abort()).await.expect("quiet soon");
        }
        within(SOON, started);
        prefill = another(&world).await;
        prefill.must(Order::Fill { blocks: vec![4, 5], seed: life }).await;
        let mut incoming = world.node.expect(&[10, 11], 2, LONG).unwrap();
        prefill.send_whole(3, incoming.ticket(), world.setup.layers, &pairs(&[4, 5])).await;
        incoming.wait().await.unwrap();
        assert_eq!(first_wrong(&world.node.pool(), &world.setup.geometry(), &[10, 11], life), None);
    }
    until(|| (world.node.stats().peers == 1).then_some(())).await;
    world.at_rest().await;
}

/// A decode worker was restarted and has its former endpoint again, as behind a service's address.
pub(super) async fn a_ticket_of_a_former_life_at_the_same_endpoint_is_refused_at_once(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let former = another(&world).await;
    let stale = former.expect(1, &[4, 5], LONG).await;
    former.kill();
    let ticket = world.peer.expect(1, &[4, 5], LONG).await;
    let moved = with_endpoint_of(&stale, &ticket);
    for _ in 0..2 {
        let started = Instant::now();
        let error = world.node.open(&moved).await.unwrap_err();
        assert!(matches!(error, OpenError::StaleIncarnation { .. }), "{error}");
        within(SOON, started);
    }
    let outgoing = world.node.open(&ticket).await.expect("the new life's own ticket");
    outgoing.push(0..world.setup.layers, &pairs(&[1, 2])).unwrap();
    outgoing.finish().await.unwrap();
    world.peer.must(Order::Wait { id: 1 }).await;
    world.at_rest().await;
}

/// The second field of a ticket is the endpoint: a tag, a length, text.
fn with_endpoint_of(ticket: &[u8], other: &[u8]) -> Vec<u8> {
    let endpoint = |ticket: &[u8]| {
        assert_eq!((ticket[0], ticket[2]), (0x08, 0x12), "a version, then an endpoint");
        3..4 + usize::from(ticket[3])
    };
    [&ticket[..3], &other[endpoint(other)], &ticket[endpoint(ticket).end..]].concat()
}

/// One decode worker after the other is killed in the middle of its transfers, and prefill has room for one transfer only: anything
/// that a dead one keeps would be missing for the next.
pub(super) async fn killed_decode_workers_do_not_poison_prefill(fabric: &str) {
    let limits = Limits { outgoing: 1, queued_pushes: 8, ..Limits::default() };
    let world = World::new(Setup { layers: 24, limits, ..shape(fabric) }).await;
    let ours: Vec<u32> = (0..40).collect();
    for life in 0..4u64 {
        let decode = another(&world).await;
        let theirs: Vec<u32> = (0..40).rev().collect();
        let ticket = decode.expect(1, &theirs, LONG).await;
        let lease = Lease::computed(&world, &ours, life);
        let outgoing = open_soon(&world, &ticket).await;
        outgoing.hold(lease);
        let pushed = outgoing.push(0..12, &pairs(&ours));
        decode.kill();
        if pushed.is_ok() {
            until(|| outgoing.push(0..0, &[]).err()).await;
        }
        tokio::time::timeout(SOON, outgoing.abort()).await.expect("the source is free soon");
    }
    // The workers that remain get right answers.
    let ticket = world.peer.expect(1, &[8, 9], LONG).await;
    fill(&world.node.pool(), &world.setup.geometry(), &[1, 2], 5);
    let outgoing = open_soon(&world, &ticket).await;
    outgoing.push(0..24, &pairs(&[1, 2])).unwrap();
    outgoing.finish().await.unwrap();
    world.peer.must(Order::Wait { id: 1 }).await;
    let wrong = world.peer.must(Order::Check { blocks: vec![8, 9], tokens: 2, seed: 5 }).await;
    assert!(matches!(wrong, Reply::Wrong(None)), "{wrong:?}");
    until(|| (world.node.stats().peers == 1).then_some(())).await;
    world.at_rest().await;
}

/// Opens when there is room: what ended a moment ago gives its place back a moment later.
pub(super) async fn open_soon(world: &World, ticket: &[u8]) -> baton_kv_transfer::Outgoing {
    let started = Instant::now();
    loop {
        match world.node.open(ticket).await {
            Ok(outgoing) => return outgoing,
            Err(OpenError::Full { .. }) if started.elapsed() < SOON => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Far more transfers than slots, destination blocks, places for sending and queue entries, both ways at once. Each is tried until it
/// is through; an attempt may fail, but only by a clear error.
pub(super) async fn exhausted_pools_slots_and_queues_in_both_directions_do_not_deadlock(fabric: &str) {
    const TRANSFERS: usize = 24;
    let limits = Limits { incoming: 3, outgoing: 2, queued_pushes: 2, ..Limits::default() };
    let setup = Setup { blocks: 120, limits, ..shape(fabric) };
    let world = World::with_peer(setup.clone(), &setup).await;
    // Four tables to receive into at each end, fewer than transfers and more than slots; each transfer has its own source blocks.
    let into = |i: usize| -> Vec<u32> { (0..4).map(|n| (i % 4 * 4 + n) as u32).collect() };
    let from = |i: usize| -> Vec<u32> { (0..4).map(|n| (20 + i * 4 + n) as u32).collect() };
    let tables = |_| [const { tokio::sync::Mutex::const_new(()) }; 4];
    let [our_tables, their_tables] = [0, 1].map(tables);
    let full = AtomicUsize::new(0);
    let inward = async |i: usize| {
        let (ours, theirs, id) = (into(i), from(i), i as u64);
        let _owner = our_tables[i % 4].lock().await;
        world.peer.must(Order::Fill { blocks: theirs.clone(), seed: id }).await;
        let mut incoming = loop {
            match world.node.expect(&ours, 4, LONG) {
                Ok(incoming) => break incoming,
                Err(ExpectError::Full { .. }) => wait(&full).await,
                Err(error) => panic!("{error}"),
            }
        };
        retried(&world.peer, Order::Open { id, ticket: incoming.ticket() }, &full).await;
        for layer in 0..setup.layers {
            world.peer.must(Order::Push { id, layers: (layer, layer + 1), blocks: pairs(&theirs) }).await;
        }
        world.peer.must(Order::Finish { id }).await;
        incoming.wait().await.unwrap();
        assert_eq!(first_wrong(&world.node.pool(), &setup.geometry(), &ours, id), None);
    };
    let outward = async |i: usize| {
        let (ours, theirs, id) = (from(i), into(i), 1000 + i as u64);
        fill(&world.node.pool(), &setup.geometry(), &ours, id);
        let _owner = their_tables[i % 4].lock().await;
        let expect = Order::Expect { id, blocks: theirs.clone(), tokens: 4, expires_ms: 30_000 };
        let Reply::Ticket(ticket) = retried(&world.peer, expect, &full).await else { panic!("no ticket") };
        let outgoing = loop {
            match world.node.open(&ticket).await {
                Ok(outgoing) => break outgoing,
                Err(OpenError::Full { .. }) => wait(&full).await,
                Err(error) => panic!("{error}"),
            }
        };
        for layer in 0..setup.layers {
            outgoing.push(layer..layer + 1, &pairs(&ours)).unwrap();
        }
        outgoing.finish().await.unwrap();
        world.peer.must(Order::Wait { id }).await;
        world.peer.must(Order::AbortIncoming { id }).await;
    };
    let inward = futures::future::join_all((0..TRANSFERS).map(inward));
    let outward = futures::future::join_all((0..TRANSFERS).map(outward));
    tokio::time::timeout(Duration::from_secs(60), async { futures::join!(inward, outward) })
        .await
        .expect("everybody gets through");
    assert!(full.into_inner() > 0, "something ran out");
    world.at_rest().await;
}

async fn wait(full: &AtomicUsize) {
    full.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Gives an order again while the peer says that it has no room.
async fn retried(peer: &Peer, order: Order, full: &AtomicUsize) -> Reply {
    loop {
        match peer.ask(order.clone()).await {
            Reply::Error(error) if error.contains("in use") => wait(full).await,
            Reply::Error(error) => panic!("{error}"),
            reply => return reply,
        }
    }
}

/// A port scanner, or a process that hangs: more connections than may be greeted at once.
pub(super) async fn connections_that_say_nothing_hold_up_nobody(fabric: &str) {
    let world = World::new(shape(fabric)).await;
    let endpoint = world.node.fabric().control_endpoint;
    let silent: Vec<OwnedFd> = (0..80).map(|_| dial(&endpoint)).collect();
    let started = Instant::now();
    let mut incoming = world.node.expect(&[1, 2], 2, LONG).unwrap();
    world.peer.must(Order::Fill { blocks: vec![4, 5], seed: 3 }).await;
    world.peer.send_whole(1, incoming.ticket(), world.setup.layers, &pairs(&[4, 5])).await;
    incoming.wait().await.unwrap();
    within(Duration::from_secs(4), started);
    drop(silent);
}

fn dial(endpoint: &str) -> OwnedFd {
    if let Some(address) = endpoint.strip_prefix("tcp:") {
        return TcpStream::connect(address).unwrap().into();
    }
    let name = endpoint.strip_prefix("unix:@").unwrap();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    UnixStream::connect_addr(&address).unwrap().into()
}
