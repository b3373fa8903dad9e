//! `Fabric` over UCP.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::library::{Library, fault};
use super::mailbox::Task;
use super::objects::{Context, Region, Worker};
use super::offer;
use super::writes::{Peer, Writes};
use crate::fabric::eventfd::Eventfd;
use crate::fabric::{Capabilities, Event, Fabric, Offer, Read, Wake, Write};
use crate::ids::PeerId;
use crate::memory::{Mapping, PoolMemory};
use crate::{FabricError, StartError, TransferConfig};

/// Large enough to keep any link busy, small enough that an abort is heard in good time.
const MAX_WRITE_BYTES: u64 = 1 << 20;
/// UCX's names of the transports within a host.
const SHARED_MEMORY: [&str; 9] = ["posix", "sysv", "cma", "xpmem", "knem", "mm", "sm", "shm", "self"];
/// UCX queues what its transport does not take yet, so this bounds its memory and how much an abort must wait for.
const MAX_IN_FLIGHT: usize = 1024;
/// Rounds of progress in one `poll`, so that posting gets its turn.
const ROUNDS: usize = 32;
/// How long UCX may take to give back what is cancelled at the end; it takes a few rounds of progress.
const PATIENCE: Duration = Duration::from_millis(200);

/// The UCX fabric of one node. Fields in the order in which they must go.
pub(crate) struct Ucx {
    writes: Writes,
    region: Region,
    worker: Rc<Worker>,
    transports: String,
    address: Vec<u8>,
    key: Vec<u8>,
    pool: PoolMemory,
    wake: Arc<Eventfd>,
    next_peer: u64,
    /// The last round of progress found nothing to do.
    drained: bool,
}

// SAFETY: UCX's objects belong to no thread (the worker is made for use by one at a time), and every `Rc` to them, and
// every pointer that UCX has to a callback's argument, is of this value alone.
unsafe impl Send for Ucx {}

impl Ucx {
    pub(crate) fn open(
        config: &TransferConfig,
        transports: Option<&str>,
    ) -> Result<(Self, PoolMemory), StartError> {
        let library = Library::open(config.ucx_path.as_deref())?;
        let context = Context::open(library, transports, config.listen_ip)?;
        let region = config.region();
        let bytes = region.bytes();
        let mapping =
            Mapping::anonymous(bytes as usize).map_err(|reason| StartError::Pool { bytes, reason })?;
        let pool = PoolMemory::new(Arc::new(mapping), region.pool_bytes);
        let fabric = Self::build(&context, transports.unwrap_or("all"), pool.clone())?;
        Ok((fabric, pool))
    }

    fn build(context: &Rc<Context>, transports: &str, pool: PoolMemory) -> Result<Self, FabricError> {
        let worker = Worker::open(context, MAX_IN_FLIGHT)?;
        let region = Region::map(context, &pool)?;
        let wake = Eventfd::create().map_err(|error| fault("eventfd", &error))?;
        Ok(Self {
            writes: Writes::new(worker.clone(), MAX_IN_FLIGHT),
            address: worker.address()?,
            key: region.key()?,
            region,
            worker,
            transports: transports.to_owned(),
            pool,
            wake: Arc::new(wake),
            next_peer: 0,
            drained: false,
        })
    }

    fn new_peer(&mut self) -> PeerId {
        self.next_peer += 1;
        PeerId(self.next_peer)
    }

    /// The address of `len` bytes of our pool.
    fn ours(&self, offset: u64, len: u64) -> *mut u8 {
        assert!(offset + len <= self.pool.region().len() as u64, "our range leaves the region");
        self.pool.ptr().as_ptr().wrapping_add(offset as usize)
    }
}

/// Up to how many bytes chunks pay, measured with `baton bench transfer --staging-curve` (perf/RESULTS.md).
fn stage_below(transports: &str) -> u64 {
    match transports {
        "tcp" => 32 << 10,
        _ if transports.split(',').all(|name| SHARED_MEMORY.contains(&name)) => 2 << 10,
        // Something between: of others nothing is measured, and UCX may choose by peer.
        _ => 16 << 10,
    }
}

impl Fabric for Ucx {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "ucx",
            provider: self.transports.clone(),
            max_write_bytes: MAX_WRITE_BYTES,
            strided_writes: false,
            stage_below_bytes: stage_below(&self.transports),
            max_in_flight: MAX_IN_FLIGHT,
            buffers_bytes: true,
            wakes_on_arrival: true,
        }
    }

    /// A target needs nothing of its initiators.
    fn address(&self) -> Vec<u8> {
        Vec::new()
    }

    fn accept(&mut self, _address: &[u8]) -> Result<(PeerId, Offer), FabricError> {
        let (peer, token) = (self.new_peer(), crate::random::number());
        self.worker.mailbox().admit(token, peer);
        let base = self.pool.ptr().as_ptr() as u64;
        let bytes = offer::write(&self.address, &self.key, base, token);
        Ok((peer, Offer { bytes, descriptors: Vec::new() }))
    }

    fn connect(&mut self, offer: Offer, region_bytes: u64) -> Result<PeerId, FabricError> {
        let offered = offer::read(&offer.bytes, region_bytes)?;
        let peer = self.new_peer();
        let endpoint = Endpoint::connect(&self.worker, peer, &offered)?;
        self.writes.join(peer, Peer::new(endpoint, offered.base, region_bytes, offered.token));
        Ok(peer)
    }

    fn sever(&mut self, peer: PeerId) {
        self.writes.sever(peer);
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.worker.mailbox().dismiss(peer);
        self.writes.leave(peer);
    }

    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError> {
        let ours = self.ours(write.source, write.len);
        self.writes.post(write.peer, write.context, Some(write.immediate), |peer| {
            let theirs = peer.address(write.destination, write.len);
            let task = Task::Operation(write.context);
            peer.endpoint.put(&self.region, ours, write.len as usize, theirs, task)
        })
    }

    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError> {
        let ours = self.ours(read.destination, read.len);
        self.writes.post(read.peer, read.context, None, |peer| {
            let theirs = peer.address(read.source, read.len);
            let task = Task::Operation(read.context);
            peer.endpoint.get(&self.region, ours, read.len as usize, theirs, task)
        })
    }

    fn flush(&mut self) {
        self.writes.flush();
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError> {
        self.drained = (0..ROUNDS).any(|_| !self.worker.progress());
        self.worker.mailbox().take_arrived(events);
        self.writes.settle();
        self.writes.flush();
        self.writes.take_events(events);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), FabricError> {
        let has_news = !self.drained || self.writes.has_events() || !self.worker.mailbox().is_empty();
        if has_news || !self.worker.arm()? {
            return Ok(());
        }
        self.wake
            .sleep::<2>([self.worker.wait_fd()].into_iter(), timeout)
            .map_err(|error| fault("poll", &error))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.wake.clone()
    }
}

impl Drop for Ucx {
    /// Takes back what is under way, so that UCX touches neither pool nor contexts any more.
    fn drop(&mut self) {
        self.writes.leave_all();
        let started = Instant::now();
        while !self.writes.is_quiet() {
            if started.elapsed() > PATIENCE {
                tracing::warn!("UCX did not give back everything that was cancelled");
                return self.writes.abandon();
            }
            self.worker.progress();
            self.writes.settle();
        }
    }
}
