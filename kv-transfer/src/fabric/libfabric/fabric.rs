//! `Fabric` over the rails of a libfabric provider.

use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::choice::choose;
use super::contexts::Contexts;
use super::info::Info;
use super::library::Library;
use super::objects::CQ_BATCH;
use super::offer::{decode_addresses, decode_offers, encode_addresses, encode_offers};
use super::paths::{Path, Paths, Peer, Verdict};
use super::rail::{Entries, Kind, Operation, Rail};
use super::setup::{allocate, warn_of_fork_safety};
use super::{fault, sys};
use crate::fabric::eventfd::Eventfd;
use crate::fabric::{Capabilities, Event, Fabric, LAST_POLLS, MAX_RAILS, Offer, Read, Wake, Write};
use crate::ids::PeerId;
use crate::memory::PoolMemory;
use crate::own_time::OwnTime;
use crate::{FabricError, StartError, TransferConfig};

/// Large enough to keep any link busy, small enough that an abort is heard in good time.
const MAX_WRITE_BYTES: u64 = 1 << 20;
/// Over several rails long runs are cut shorter, so that each has its part of one, but not shorter than this.
const MIN_STRIPE_BYTES: u64 = 128 << 10;
/// So often rails are looked at that may be silent.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The libfabric fabric of one node. Fields in the order in which they must go.
pub(crate) struct Libfabric {
    /// `None`: closed, as it did not work any more.
    rails: Vec<Option<Rail>>,
    contexts: Contexts,
    pool: PoolMemory,
    capabilities: Capabilities,
    /// A completed write is in the target's memory.
    delivers: bool,
    address: Vec<u8>,
    paths: Paths,
    entries: Entries,
    wake: Arc<Eventfd>,
    next_peer: u64,
    time: OwnTime,
    looked: Duration,
}

// SAFETY: besides the rails (`Send` themselves) it holds contexts, which libfabric knows by address and this value owns.
unsafe impl Send for Libfabric {}

impl Libfabric {
    pub(crate) fn open(
        config: &TransferConfig,
        provider: Option<&str>,
    ) -> Result<(Self, PoolMemory), StartError> {
        let library = Library::open(config.libfabric_path.as_deref())?;
        let chosen = choose(library, provider, config.listen_ip, &config.rails)?;
        let region = config.region();
        let bytes = region.bytes();
        let mapping = allocate(bytes as usize, config.huge_pages)
            .map_err(|reason| StartError::Pool { bytes, reason })?;
        let pool = PoolMemory::new(Arc::new(mapping), region.pool_bytes);
        let open = |info: Info| {
            let device = info.facts().label();
            Rail::open(info, &pool, config.limits.peers).map_err(|error| FabricError {
                reason: format!("{} (on {device}; name others with `rails`)", error.reason),
                ..error
            })
        };
        let rails = chosen.into_iter().map(open).collect::<Result<Vec<Rail>, FabricError>>()?;
        warn_of_fork_safety(&rails[0].facts);
        Ok((Self::over(rails, pool.clone())?, pool))
    }

    fn over(rails: Vec<Rail>, pool: PoolMemory) -> Result<Self, FabricError> {
        let wake = Eventfd::create().map_err(|e| fault("eventfd", &e))?;
        let empty = sys::fi_cq_data_entry {
            op_context: ptr::null_mut(),
            flags: 0,
            len: 0,
            buf: ptr::null_mut(),
            data: 0,
        };
        Ok(Self {
            capabilities: capabilities(&rails),
            delivers: rails.iter().all(|rail| rail.facts.delivery_complete),
            address: encode_addresses(rails.iter().map(|rail| rail.address.clone()).collect()),
            paths: Paths::new(rails.iter().map(|rail| (rail.facts.label(), rail.facts.queue_depth))),
            rails: rails.into_iter().map(Some).collect(),
            contexts: Contexts::default(),
            pool,
            entries: Box::new([empty; CQ_BATCH]),
            wake: Arc::new(wake),
            next_peer: 0,
            time: OwnTime::default(),
            looked: Duration::ZERO,
        })
    }

    /// A peer with as many paths as the end with more rails has. `their` gives address, base and key of one of its rails; no
    /// address says that the rail is closed.
    fn add_peer(
        &mut self,
        theirs: usize,
        their: impl Fn(usize) -> (Vec<u8>, u64, u64),
        region_bytes: Option<u64>,
    ) -> Result<PeerId, FabricError> {
        let ours = self.rails.len();
        let mut paths = Vec::with_capacity(ours.max(theirs));
        for index in 0..ours.max(theirs) {
            let (rail, (address, base, key)) = (index % ours, their(index % theirs));
            let Some(open) = self.rails[rail].as_mut().filter(|_| !address.is_empty()) else { continue };
            match open.insert(&address) {
                Ok(handle) => paths.push(Path::new(rail, address, handle, base, key)),
                Err(error) => {
                    self.forget(&paths);
                    return Err(error);
                }
            }
        }
        if paths.is_empty() {
            return Err(fault("connect", &"every rail that leads to this peer is closed"));
        }
        self.next_peer += 1;
        let peer = PeerId(self.next_peer);
        self.paths.insert(peer, Peer { paths, region_bytes });
        Ok(peer)
    }

    fn forget(&mut self, paths: &[Path]) {
        for path in paths {
            if let Some(rail) = &mut self.rails[path.rail] {
                rail.remove(&path.address);
            }
        }
    }

    /// Posts on the best path that takes it.
    fn post(&mut self, wanted: &Wanted) -> Result<bool, FabricError> {
        let Wanted { kind, peer, ours, theirs, len, .. } = *wanted;
        let name = kind.name();
        let known = self.paths.peer(peer).ok_or_else(|| fault(name, &"the peer is disconnected"))?;
        let region = known.region_bytes.ok_or_else(|| fault(name, &"the peer offered no pool"))?;
        assert!(ours + len <= self.pool.region().len() as u64, "our range leaves the region");
        assert!(theirs + len <= region, "the peer's range leaves its region");
        let mut tried = 0;
        while let Some(index) = self.paths.pick(peer, tried) {
            match self.post_on(index, wanted) {
                Ok(true) => {
                    self.paths.posted(wanted.context, (peer, index), len, kind.is_write(), self.time.ran());
                    return Ok(true);
                }
                Ok(false) => {}
                Err(_) if self.paths.give_up(peer, index) => {}
                Err(error) => return Err(error),
            }
            tried |= 1 << index;
        }
        if self.paths.is_cut_off(peer) {
            return Err(fault(name, &"every rail that leads to this peer is closed"));
        }
        Ok(false)
    }

    fn post_on(&mut self, index: usize, wanted: &Wanted) -> Result<bool, FabricError> {
        let path = &self.paths.peer(wanted.peer).expect("just found").paths[index];
        let rail = self.rails[path.rail].as_ref().expect("paths of closed rails are not picked");
        rail.post(&Operation {
            kind: wanted.kind,
            peer: path.handle,
            ours: self.pool.ptr().as_ptr().wrapping_add(wanted.ours as usize),
            theirs: path.base + wanted.theirs,
            key: path.key,
            len: wanted.len,
            context: self.contexts.get(wanted.context),
        })
    }

    /// Takes what came from one rail; closes one that cannot be asked, unless it is the last.
    fn poll_rail(&mut self, index: usize, events: &mut Vec<Event>) -> Result<(), FabricError> {
        match self.take(index, events) {
            Err(error) if self.paths.open() > 1 => self.close_rail(index, &error.to_string(), events),
            taken => taken,
        }
    }

    /// Takes some of what came from one rail, and keeps account of it.
    fn take(&mut self, index: usize, events: &mut Vec<Event>) -> Result<(), FabricError> {
        let Some(rail) = &self.rails[index] else { return Ok(()) };
        let before = events.len();
        let polled = rail.poll(&mut self.entries, events);
        for event in &mut events[before..] {
            match event {
                Event::Done(context) => self.paths.done(*context),
                Event::Failed(context, reason) => {
                    let verdict = self.paths.failed(*context);
                    *event = self.outcome(*context, verdict, std::mem::take(reason));
                }
                _ => {}
            }
        }
        polled
    }

    /// Only where completion is delivery is it known which of a failed path's writes need not be done again.
    fn outcome(&self, context: u32, verdict: Verdict, reason: String) -> Event {
        match verdict {
            Verdict::Again if self.delivers => Event::Again(context, reason),
            Verdict::Again | Verdict::Failed => Event::Failed(context, reason),
        }
    }

    /// Ends every access through a rail; fails when the provider does not, as it may then still read what others use next.
    fn close_rail(&mut self, index: usize, reason: &str, events: &mut Vec<Event>) -> Result<(), FabricError> {
        let rails = self.paths.rails();
        let device = &rails[index].device;
        tracing::error!(
            device,
            reason,
            "a rail is closed; the others carry its traffic until this worker is restarted"
        );
        // What has come is not to be lost with it: the senders know by their completions that it was delivered.
        for _ in 0..LAST_POLLS {
            let before = events.len();
            if self.take(index, events).is_err() || events.len() == before {
                break;
            }
        }
        if let Some(mut rail) = self.rails[index].take() {
            rail.end()?;
        }
        for (context, verdict) in self.paths.close(index) {
            events.push(self.outcome(context, verdict, format!("the rail {device} was closed: {reason}")));
        }
        Ok(())
    }

    fn close_silent_rail(&mut self, now: Duration, events: &mut Vec<Event>) -> Result<(), FabricError> {
        if self.rails.len() == 1 || now.saturating_sub(self.looked) < LOOK_EVERY {
            return Ok(());
        }
        self.looked = now;
        match self.paths.silent(now) {
            None => Ok(()),
            Some(rail) => {
                self.close_rail(rail, "nothing comes back from it, while it does from others", events)
            }
        }
    }
}

impl Drop for Libfabric {
    /// Ends all rails before any is taken apart, which takes its time with a large pool.
    fn drop(&mut self) {
        for rail in self.rails.iter_mut().flatten() {
            if let Err(error) = rail.end() {
                tracing::error!(%error, "memory may be in use until this process ends");
            }
        }
    }
}

/// A write or a read, before it has its path.
struct Wanted {
    kind: Kind,
    peer: PeerId,
    /// Offset into our region.
    ours: u64,
    /// Offset into the peer's.
    theirs: u64,
    len: u64,
    context: u32,
}

/// Up to how many bytes chunks pay, measured with `baton bench transfer --staging-curve` (perf/RESULTS.md).
fn stage_below(provider: &str) -> u64 {
    // Each write is a message through the kernel. Utility providers stand behind their core, as in `tcp;ofi_rxm`.
    if provider.starts_with("tcp") {
        return 128 << 10;
    }
    // Measured over the shm provider. EFA's is not; a write there costs about as much.
    16 << 10
}

/// What holds over all rails.
fn capabilities(rails: &[Rail]) -> Capabilities {
    let largest = (MAX_WRITE_BYTES / rails.len() as u64).max(MIN_STRIPE_BYTES);
    let facts = || rails.iter().map(|rail| &rail.facts);
    Capabilities {
        name: "libfabric",
        provider: rails[0].facts.name().to_owned(),
        max_write_bytes: facts().map(|facts| facts.max_write_bytes).fold(largest, u64::min),
        strided_writes: false,
        stage_below_bytes: stage_below(rails[0].facts.name()),
        max_in_flight: facts().map(|facts| facts.queue_depth).sum(),
        buffers_bytes: true,
        wakes_on_arrival: rails.iter().all(|rail| rail.queue.wait_fd().is_some()),
    }
}

impl Fabric for Libfabric {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn address(&self) -> Vec<u8> {
        self.address.clone()
    }

    /// Inserts the initiator: some providers (efa) drop writes of peers that they do not know.
    fn accept(&mut self, address: &[u8]) -> Result<(PeerId, Offer), FabricError> {
        let theirs = decode_addresses(address)?;
        let peer = self.add_peer(theirs.len(), |rail| (theirs[rail].clone(), 0, 0), None)?;
        // A closed rail keeps its place, so that both ends pair the others alike.
        let offers =
            self.rails.iter().map(|rail| rail.as_ref().map(Rail::offer).unwrap_or_default()).collect();
        Ok((peer, Offer { bytes: encode_offers(offers), descriptors: Vec::new() }))
    }

    fn connect(&mut self, offer: Offer, region_bytes: u64) -> Result<PeerId, FabricError> {
        let theirs = decode_offers(&offer.bytes, region_bytes)?;
        let their = |rail: usize| (theirs[rail].address.clone(), theirs[rail].base, theirs[rail].key);
        self.add_peer(theirs.len(), their, Some(region_bytes))
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some(peer) = self.paths.remove(peer) {
            self.forget(&peer.paths);
        }
    }

    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError> {
        self.post(&Wanted {
            kind: Kind::Write { immediate: write.immediate },
            peer: write.peer,
            ours: write.source,
            theirs: write.destination,
            len: write.len,
            context: write.context,
        })
    }

    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError> {
        self.post(&Wanted {
            kind: Kind::Read,
            peer: read.peer,
            ours: read.destination,
            theirs: read.source,
            len: read.len,
            context: read.context,
        })
    }

    fn flush(&mut self) {}

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError> {
        self.time.advance(true);
        (0..self.rails.len()).try_for_each(|rail| self.poll_rail(rail, events))?;
        self.close_silent_rail(self.time.ran(), events)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), FabricError> {
        let queues = || self.rails.iter().flatten().map(|rail| &rail.queue);
        if queues().any(|queue| queue.wait_fd().is_some() && !queue.may_sleep()) {
            return Ok(());
        }
        let descriptors = queues().filter_map(|queue| queue.wait_fd());
        self.wake.sleep::<{ MAX_RAILS + 1 }>(descriptors, timeout).map_err(|error| fault("poll", &error))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.wake.clone()
    }

    fn rails(&self) -> Arc<[crate::fabric::Rail]> {
        self.paths.rails()
    }

    fn lost_paths(&self) -> u64 {
        self.paths.lost()
    }
}
