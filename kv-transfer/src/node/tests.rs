//! What needs a look inside: a write under a generation that is over, made by a sender that ought to know better.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::start::{bind, open_fabric, start_on};
use crate::engine::{Command, Sending, Work};
use crate::fabric::{Capabilities, Event, Fabric, Offer, Read, Wake, Write};
use crate::ids::{NodeId, PeerId};
use crate::plan::{Cursor, Plan};
use crate::send::OutgoingCell;
use crate::ticket::Ticket;
use crate::{
    ExpectError, FabricError, FabricSpec, KvGeometry, OpenError, StartError, TransferConfig, TransferError,
    TransferNode,
};

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
async fn a_node_whose_fabric_fails_says_so_and_everything_settles_with_that_error() {
    let (receiver, (sender, breaks)) = (node().await, breakable().await);
    let incoming = receiver.expect(&[1], 1, LONG).unwrap();
    let outgoing = sender.open(&incoming.ticket()).await.unwrap();
    outgoing.push(0..1, &[(3, 0)]).unwrap();
    let mut expected = sender.expect(&[5], 1, LONG).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), sender.failed()).await.is_err(), "it serves");

    breaks.store(true, Ordering::Relaxed);
    sender.inner().queue().nudge();
    let failure = tokio::time::timeout(LONG, sender.failed()).await.expect("said");
    assert!(failure.to_string().contains("the cable is gone"), "{failure}");
    assert_eq!(sender.failed().await, failure, "asked again");
    assert_eq!(outgoing.finish().await, Err(TransferError::DataPlane(failure.clone())));
    assert_eq!(expected.wait().await, Err(TransferError::DataPlane(failure.clone())));
    assert_eq!(sender.expect(&[6], 1, LONG).unwrap_err(), ExpectError::DataPlane(failure.clone()));
    let second = receiver.expect(&[2], 1, LONG).unwrap();
    assert_eq!(sender.open(&second.ticket()).await.unwrap_err(), OpenError::DataPlane(failure));
    sender.shutdown().await;
    receiver.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_shut_down_did_not_fail() {
    let node = node().await;
    node.shutdown().await;
    assert!(node.inner().data_ended.is_cancelled());
    assert!(tokio::time::timeout(Duration::from_millis(20), node.failed()).await.is_err());
    assert_eq!(node.expect(&[1], 1, LONG).unwrap_err(), ExpectError::ShuttingDown);
}

/// A node whose fabric fails for good once it is told to.
async fn breakable() -> (TransferNode, Arc<AtomicBool>) {
    let config = TransferConfig::new(FabricSpec::Shm, geometry(), "test");
    let (id, broken) = (NodeId::random(), Arc::<AtomicBool>::default());
    let listener = bind(&config, id).await.unwrap();
    let (fabric, pool) = open_fabric(&config).await.unwrap();
    let fabric = Box::new(Breakable { fabric, broken: broken.clone() });
    let inner = start_on((fabric, pool), config, id, listener).unwrap();
    (TransferNode::simulated(inner), broken)
}

struct Breakable {
    fabric: Box<dyn Fabric>,
    broken: Arc<AtomicBool>,
}

impl Fabric for Breakable {
    fn capabilities(&self) -> Capabilities {
        self.fabric.capabilities()
    }

    fn address(&self) -> Vec<u8> {
        self.fabric.address()
    }

    fn accept(&mut self, address: &[u8]) -> Result<(PeerId, Offer), FabricError> {
        self.fabric.accept(address)
    }

    fn connect(&mut self, offer: Offer, region_bytes: u64) -> Result<PeerId, FabricError> {
        self.fabric.connect(offer, region_bytes)
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.fabric.disconnect(peer);
    }

    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError> {
        self.fabric.post_write(write)
    }

    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError> {
        self.fabric.post_read(read)
    }

    fn flush(&mut self) {
        self.fabric.flush();
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError> {
        if self.broken.load(Ordering::Relaxed) {
            let reason = "the cable is gone".to_owned();
            return Err(FabricError { fabric: "breakable", operation: "poll", reason });
        }
        self.fabric.poll(events)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), FabricError> {
        self.fabric.wait(timeout)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.fabric.waker()
    }
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
