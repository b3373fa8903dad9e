//! What needs a look inside: a write under a generation that is over, made by a sender that ought to know better.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Command, Sending, Work};
use crate::plan::{Cursor, Plan};
use crate::send::OutgoingCell;
use crate::ticket::Ticket;
use crate::{FabricSpec, KvGeometry, StartError, TransferConfig, TransferNode};

const LONG: Duration = Duration::from_secs(30);

fn geometry() -> KvGeometry {
    KvGeometry::plain(2, 8, 4096)
}

async fn node() -> TransferNode {
    TransferNode::start(TransferConfig::new(FabricSpec::Shm, geometry(), "test")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_write_is_counted_and_completes_nothing() {
    let (receiver, sender) = (node().await, node().await);
    let mut first = receiver.expect(&[1], 1, LONG).unwrap();
    let ticket = first.ticket();
    let outgoing = sender.open(&ticket).await.unwrap();
    outgoing.push(0..2, &[(3, 0)]).unwrap();
    outgoing.finish().await.unwrap();
    first.wait().await.unwrap();
    let late_before = receiver.stats().late_writes;

    // The same destination again, under a new generation; then one more write under the old one.
    let second = receiver.expect(&[1], 1, LONG).unwrap();
    let stale = Ticket::decode(&ticket, 8).unwrap();
    let inner = sender.inner();
    let link = inner.links().get(inner, &stale.endpoint, stale.node).await.unwrap();
    let cell = Arc::new(OutgoingCell::new(Some(stale.key), link.clone()));
    let sending = Box::new(Sending::new(cell.clone(), link.outbox.clone(), None));
    inner.queue().send(Command::Open { id: u64::MAX, sending });
    let plan = Plan::new(&link.conversion, &[(3, 0)], &stale.blocks, stale.tokens);
    let cursor = Cursor::new(0..1, Arc::new(plan));
    inner.queue().push(Command::Push { id: u64::MAX, work: Work::Tiles(cursor) }, Duration::ZERO).unwrap();

    tokio::time::timeout(LONG, async {
        while receiver.stats().late_writes == late_before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the late write is counted");
    assert_eq!(receiver.stats().late_writes, late_before + 1);
    assert_eq!(receiver.stats().incoming_live, 1, "the second transfer still waits");
    second.abort().await;
    inner.queue().send(Command::Abort { id: u64::MAX });
    sender.shutdown().await;
    receiver.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_send_to_itself() {
    let node = node().await;
    let incoming = node.expect(&[1], 1, LONG).unwrap();
    assert!(matches!(node.open(&incoming.ticket()).await, Err(crate::OpenError::BadTicket { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_settings_are_refused_by_name() {
    let config = || TransferConfig::new(FabricSpec::Shm, geometry(), "test");
    let mut slots = config();
    slots.limits.incoming = 4097;
    let error = TransferNode::start(slots).await.unwrap_err();
    assert!(matches!(error, StartError::Limit { name: "incoming", value: 4097, max: 4096 }), "{error}");

    let mut library = config();
    library.fabric = FabricSpec::Libfabric { provider: None };
    library.libfabric_path = Some("/nonexistent/libfabric.so.1".into());
    let error = TransferNode::start(library.clone()).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/libfabric.so.1") && error.contains("install libfabric"), "{error}");

    library.listen_ip = std::net::Ipv4Addr::UNSPECIFIED.into();
    let error = TransferNode::start(library).await.unwrap_err();
    assert!(matches!(error, StartError::Control { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_when_its_data_thread_is_gone() {
    let node = node().await;
    assert!(tokio::time::timeout(Duration::from_millis(50), node.ended()).await.is_err(), "it serves");
    node.inner().queue().send(Command::Stop);
    tokio::time::timeout(LONG, node.ended()).await.expect("said");
    assert!(node.expect(&[1], 1, LONG).is_err());
}

/// Allocations of the node's data thread so far.
async fn allocations(node: &TransferNode) -> u64 {
    let (reply, allocations) = tokio::sync::oneshot::channel();
    node.inner().queue().send(Command::Allocations(reply));
    allocations.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_threads_allocate_nothing_per_write() {
    let geometry = KvGeometry::plain(16, 512, 64);
    let node =
        async || TransferNode::start(TransferConfig::new(FabricSpec::Shm, geometry, "test")).await.unwrap();
    let (receiver, sender) = (node().await, node().await);
    // Every second block, so that no two are merged.
    let transfer = async |blocks: u32| {
        let destination: Vec<u32> = (0..blocks).map(|i| 2 * i).collect();
        let pairs: Vec<(u32, u32)> = (0..blocks).map(|i| (2 * i, i)).collect();
        let mut incoming = receiver.expect(&destination, blocks, LONG).unwrap();
        let outgoing = sender.open(&incoming.ticket()).await.unwrap();
        for layer in 0..geometry.layout.layers {
            outgoing.push(layer..layer + 1, &pairs).unwrap();
        }
        let sent = outgoing.finish().await.unwrap();
        incoming.wait().await.unwrap();
        sent.writes
    };
    for _ in 0..4 {
        transfer(256).await;
    }
    let mut counts = Vec::new();
    for blocks in [1, 256] {
        let before = (allocations(&sender).await, allocations(&receiver).await);
        let mut writes = 0;
        for _ in 0..20 {
            writes += transfer(blocks).await;
        }
        let after = (allocations(&sender).await, allocations(&receiver).await);
        counts.push((writes, after.0 - before.0, after.1 - before.1));
    }
    let [(few, few_sent, few_received), (many, many_sent, many_received)] = counts[..] else {
        unreachable!()
    };
    assert!(few == 20 * 16 && many == 256 * few, "{counts:?}");
    // What a transfer takes (its entry, its manifest) does not grow with its writes.
    assert!(many_sent <= few_sent + 20 && many_received <= few_received + 20, "{counts:?}");
}
