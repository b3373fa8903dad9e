//! `Fabric` over the simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Net;
use super::net::Port;
use crate::error::FabricError;
use crate::fabric::{Capabilities, Event, Fabric, Offer, Read, Wake, Write};
use crate::ids::PeerId;
use crate::memory::{Mapping, PoolMemory};
use crate::staging::Region;

/// Writes in flight; few, so that credits run out.
const CREDITS: usize = 12;

pub(crate) struct SimFabric {
    net: Net,
    node: usize,
    max_write_bytes: u64,
    strided_writes: bool,
    stage_below_bytes: u64,
    next_peer: u64,
    /// Node and its number for us.
    targets: BTreeMap<PeerId, (usize, PeerId)>,
    initiators: BTreeSet<PeerId>,
    /// Contexts that are under way, and to whom.
    under_way: BTreeMap<u32, PeerId>,
    wake: Arc<Notify>,
}

struct Waker(Arc<Notify>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

fn fault(operation: &'static str, reason: &str) -> FabricError {
    FabricError { fabric: "sim", operation, reason: reason.to_owned() }
}

impl SimFabric {
    /// A new node on the network, with a pool of so many bytes.
    pub(super) fn join(
        net: &Net,
        region: Region,
        max_write_bytes: u64,
        strided_writes: bool,
    ) -> (usize, Self, PoolMemory) {
        let pool = Arc::new(Mapping::anonymous(region.bytes() as usize).expect("memory for a small pool"));
        let wake = Arc::new(Notify::new());
        let mut state = net.lock();
        let node = state.ports.len();
        state.ports.push(Port {
            dead: CancellationToken::new(),
            paused_until: None,
            silent_until: None,
            closed: false,
            pool: pool.clone(),
            blocks: None,
            events: Default::default(),
            wake: wake.clone(),
        });
        drop(state);
        let fabric = Self {
            net: net.clone(),
            node,
            max_write_bytes,
            strided_writes,
            // Everything, where there is something to stage in.
            stage_below_bytes: if region.chunks > 0 { u64::MAX } else { 0 },
            next_peer: 0,
            targets: BTreeMap::new(),
            initiators: BTreeSet::new(),
            under_way: BTreeMap::new(),
            wake,
        };
        (node, fabric, PoolMemory::new(pool, region.pool_bytes))
    }

    fn new_peer(&mut self) -> PeerId {
        self.next_peer += 1;
        PeerId(self.next_peer)
    }
}

impl Fabric for SimFabric {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "sim",
            provider: "sim".to_owned(),
            max_write_bytes: self.max_write_bytes,
            strided_writes: self.strided_writes,
            stage_below_bytes: self.stage_below_bytes,
            max_in_flight: CREDITS,
            buffers_bytes: true,
            wakes_on_arrival: true,
        }
    }

    fn address(&self) -> Vec<u8> {
        self.node.to_le_bytes().to_vec()
    }

    fn accept(&mut self, address: &[u8]) -> Result<(PeerId, Offer), FabricError> {
        if address.len() != size_of::<usize>() {
            return Err(fault("accept", "no address"));
        }
        let peer = self.new_peer();
        self.initiators.insert(peer);
        let bytes = [self.node.to_le_bytes(), (peer.0 as usize).to_le_bytes()].concat();
        Ok((peer, Offer { bytes, descriptors: Vec::new() }))
    }

    fn connect(&mut self, offer: Offer, _region_bytes: u64) -> Result<PeerId, FabricError> {
        let (words, []) = offer.bytes.as_chunks::<8>() else { return Err(fault("connect", "no offer")) };
        let [node, number] = *words else { return Err(fault("connect", "no offer")) };
        let peer = self.new_peer();
        self.targets.insert(peer, (usize::from_le_bytes(node), PeerId(u64::from_le_bytes(number))));
        Ok(peer)
    }

    fn sever(&mut self, peer: PeerId) {
        let Some(&path) = self.targets.get(&peer) else { return };
        if self.net.lock().severs {
            let contexts = self.under_way.extract_if(.., |_, to| *to == peer);
            let contexts: Vec<u32> = contexts.map(|(context, _)| context).collect();
            self.net.sever(self.node, path, &contexts);
        }
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some((to, initiator)) = self.targets.remove(&peer) {
            self.net.mute(to, initiator);
            self.under_way.retain(|_, to| *to != peer);
        }
        self.initiators.remove(&peer);
    }

    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError> {
        let &(to, initiator) =
            self.targets.get(&write.peer).ok_or_else(|| fault("write", "the peer is disconnected"))?;
        self.net.post(self.node, to, initiator, write);
        self.under_way.insert(write.context, write.peer);
        Ok(true)
    }

    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError> {
        let &(owner, initiator) =
            self.targets.get(&read.peer).ok_or_else(|| fault("read", "the peer is disconnected"))?;
        self.net.post_read(self.node, owner, initiator, read);
        self.under_way.insert(read.context, read.peer);
        Ok(true)
    }

    fn flush(&mut self) {}

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError> {
        let mut state = self.net.lock();
        let known = |event: &Event| match event {
            Event::Landed { from: Some(peer), .. } => self.initiators.contains(peer),
            _ => true,
        };
        let news = state.ports[self.node].events.drain(..).filter(known);
        events.extend(news.inspect(|event| {
            if let Event::Done(context) | Event::Failed(context, _) = event {
                self.under_way.remove(context);
            }
        }));
        Ok(())
    }

    /// Not called: the data plane runs as a task, which waits for the waker.
    fn wait(&mut self, _timeout: Option<Duration>) -> Result<(), FabricError> {
        Err(fault("wait", "a simulated data plane does not block"))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(Waker(self.wake.clone()))
    }
}

impl Drop for SimFabric {
    fn drop(&mut self) {
        self.net.close(self.node);
    }
}
