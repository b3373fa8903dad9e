//! `Fabric` over mapped memory.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::doorbell::{Doorbell, PeerDoorbell};
use super::ring::{Consumer, ENTRIES, Producer};
use crate::error::{FabricError, StartError};
use crate::fabric::{Capabilities, Event, Fabric, Offer, Read, Wake, Write};
use crate::ids::PeerId;
use crate::memory::{Mapping, PoolMemory, create_sealed, create_sealed_huge, verify_sealed};

/// A write is a copy on the data thread: short enough that an abort is heard in good time.
const MAX_WRITE_BYTES: u64 = 1 << 20;
const DESCRIPTORS: usize = 3;
/// Bytes of a peer's pool populated at a time: a multiple of every page size.
const POPULATE_BYTES: usize = 32 << 20;

/// The shared-memory fabric of one node.
pub(crate) struct ShmFabric {
    pool: Arc<Mapping>,
    pool_fd: OwnedFd,
    doorbell: Arc<Doorbell>,
    doorbell_fd: OwnedFd,
    next_peer: u64,
    targets: BTreeMap<PeerId, Target>,
    initiators: BTreeMap<PeerId, Consumer>,
    /// Contexts of copies that are done and not reported yet.
    done: Vec<u32>,
    to_ring: BTreeSet<PeerId>,
}

/// A peer we write to.
struct Target {
    pool: Arc<Mapping>,
    ring: Producer,
    doorbell: PeerDoorbell,
}

impl ShmFabric {
    pub(crate) fn open(pool_bytes: u64, huge_pages: bool) -> Result<(Self, PoolMemory), StartError> {
        let (pool_fd, pool) = allocate(pool_bytes, huge_pages)
            .map_err(|reason| StartError::Pool { bytes: pool_bytes, reason })?;
        let pool = Arc::new(pool);
        let (doorbell, doorbell_fd) =
            Doorbell::create().map_err(|error| fault("create the doorbell", &error))?;
        let memory = PoolMemory::new(pool.clone(), pool_bytes);
        let fabric = Self {
            pool,
            pool_fd,
            doorbell,
            doorbell_fd,
            next_peer: 0,
            targets: BTreeMap::new(),
            initiators: BTreeMap::new(),
            done: Vec::with_capacity(ENTRIES as usize),
            to_ring: BTreeSet::new(),
        };
        Ok((fabric, memory))
    }

    fn new_peer(&mut self) -> PeerId {
        self.next_peer += 1;
        PeerId(self.next_peer)
    }
}

/// A pool on reserved huge pages if asked for and there are enough, else on ordinary ones.
fn allocate(bytes: u64, huge_pages: bool) -> std::io::Result<(OwnedFd, Mapping)> {
    if huge_pages {
        let huge = create_sealed_huge("baton-kv-pool", bytes)
            .and_then(|fd| Mapping::shared(fd.as_fd(), bytes as usize).map(|mapping| (fd, mapping)));
        match huge {
            Ok((fd, mapping)) => {
                mapping.populate(0..mapping.len());
                return Ok((fd, mapping));
            }
            Err(error) => tracing::warn!(%error, bytes, "no huge pages for the KV pool, using ordinary ones"),
        }
    }
    let fd = create_sealed("baton-kv-pool", bytes)?;
    let mapping = Mapping::shared(fd.as_fd(), bytes as usize)?;
    mapping.populate(0..mapping.len());
    Ok((fd, mapping))
}

/// Maps the pages of a peer's pool in the background: a large pool takes long, and writes need not wait for it. Ends early
/// when the peer is disconnected.
fn warm(pool: &Arc<Mapping>) {
    let (pool, len) = (Arc::downgrade(pool), pool.len());
    let populate = move || {
        for start in (0..len).step_by(POPULATE_BYTES) {
            let Some(pool) = pool.upgrade() else { return };
            pool.populate(start..len.min(start + POPULATE_BYTES));
        }
    };
    // Without it the first writes fault the pages in themselves.
    let _ = std::thread::Builder::new().name("kv-warm".to_owned()).spawn(populate);
}

fn fault(operation: &'static str, reason: &dyn std::fmt::Display) -> FabricError {
    FabricError { fabric: "shm", operation, reason: reason.to_string() }
}

impl Fabric for ShmFabric {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "shm",
            provider: "shm".to_owned(),
            max_write_bytes: MAX_WRITE_BYTES,
            strided_writes: true,
            stage_below_bytes: 0,
            max_in_flight: ENTRIES as usize,
            buffers_bytes: false,
            wakes_on_arrival: true,
        }
    }

    fn address(&self) -> Vec<u8> {
        Vec::new()
    }

    fn accept(&mut self, _address: &[u8]) -> Result<(PeerId, Offer), FabricError> {
        let (consumer, ring_fd) = Consumer::create().map_err(|error| fault("create a ring", &error))?;
        let pool_fd = self.pool_fd.try_clone().map_err(|error| fault("share the pool", &error))?;
        let doorbell_fd =
            self.doorbell_fd.try_clone().map_err(|error| fault("share the doorbell", &error))?;
        let peer = self.new_peer();
        self.initiators.insert(peer, consumer);
        Ok((peer, Offer { bytes: Vec::new(), descriptors: vec![pool_fd, ring_fd, doorbell_fd] }))
    }

    fn connect(&mut self, offer: Offer, region_bytes: u64) -> Result<PeerId, FabricError> {
        let count = offer.descriptors.len();
        let [pool_fd, ring_fd, doorbell_fd] = <[OwnedFd; DESCRIPTORS]>::try_from(offer.descriptors)
            .map_err(|_| fault("connect", &format!("{count} descriptors where {DESCRIPTORS} are needed")))?;
        verify_sealed(pool_fd.as_fd(), region_bytes).map_err(|error| fault("map the peer's pool", &error))?;
        let open = || -> std::io::Result<Target> {
            Ok(Target {
                pool: Arc::new(Mapping::shared(pool_fd.as_fd(), region_bytes as usize)?),
                ring: Producer::open(&ring_fd)?,
                doorbell: PeerDoorbell::open(&doorbell_fd)?,
            })
        };
        let target = open().map_err(|error| fault("map the peer's memory", &error))?;
        warm(&target.pool);
        let peer = self.new_peer();
        self.targets.insert(peer, target);
        Ok(peer)
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.targets.remove(&peer);
        self.initiators.remove(&peer);
        self.to_ring.remove(&peer);
    }

    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError> {
        let target =
            self.targets.get_mut(&write.peer).ok_or_else(|| fault("write", &"the peer is disconnected"))?;
        if !target.ring.has_room().map_err(|error| fault("write", &error))? {
            return Ok(false);
        }
        let len = write.len as usize;
        for (source, destination) in write.rows() {
            self.pool.copy_to(source as usize, &target.pool, destination as usize, len);
        }
        target.ring.push(write.immediate);
        self.to_ring.insert(write.peer);
        self.done.push(write.context);
        Ok(true)
    }

    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError> {
        let target =
            self.targets.get(&read.peer).ok_or_else(|| fault("read", &"the peer is disconnected"))?;
        let len = read.len as usize;
        target.pool.copy_to(read.source as usize, &self.pool, read.destination as usize, len);
        self.done.push(read.context);
        Ok(true)
    }

    fn flush(&mut self) {
        while let Some(peer) = self.to_ring.pop_first() {
            if let Some(target) = self.targets.get(&peer) {
                target.doorbell.ring();
            }
        }
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError> {
        events.extend(self.done.drain(..).map(Event::Done));
        let mut faulty = None;
        for (&peer, ring) in &mut self.initiators {
            let landed = ring.drain(|immediate| events.push(Event::Landed { from: Some(peer), immediate }));
            if let Err(error) = landed {
                events.push(Event::Fault { peer, reason: error.to_string() });
                faulty = Some(peer);
            }
        }
        if let Some(peer) = faulty {
            self.initiators.remove(&peer);
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), FabricError> {
        let has_work = || !self.done.is_empty() || self.initiators.values().any(|ring| !ring.is_empty());
        self.doorbell.sleep_unless(has_work, timeout).map_err(|error| fault("wait", &error))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.doorbell.clone()
    }
}
