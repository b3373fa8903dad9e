//! `Fabric` over a libfabric provider.

use std::collections::{BTreeMap, HashMap};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::choice::choose;
use super::contexts::{Contexts, OpContext};
use super::info::{Facts, Info};
use super::library::Library;
use super::objects::{AddressVector, CQ_BATCH, CompletionQueue, Domain, Endpoint, Region, failure};
use super::setup::{allocate, queue_entries, wanted_key, warn_of_fork_safety};
use super::{options, status, sys};
use crate::fabric::eventfd::Eventfd;
use crate::fabric::{Capabilities, Event, Fabric, Offer, Read, Wake, Write};
use crate::ids::PeerId;
use crate::memory::PoolMemory;
use crate::{FabricError, StartError, TransferConfig};

/// Large enough to keep any link busy, small enough that an abort is heard in good time.
const MAX_WRITE_BYTES: u64 = 1 << 20;
/// Measured with `baton bench transfer` over tcp (perf/RESULTS.md); networks with a higher cost for a write gain more.
const STAGE_BELOW_BYTES: u64 = 16 << 10;
/// Longest address that is a string.
const MAX_ADDRESS_BYTES: usize = 256;
/// Batches of completions in one `poll`, so that posting gets its turn.
const BATCHES: usize = 8;

/// The libfabric fabric of one node. Fields in the order in which they must go.
pub(crate) struct Libfabric {
    endpoint: Endpoint,
    region: Region,
    addresses: Arc<AddressVector>,
    queue: Arc<CompletionQueue>,
    domain: Arc<Domain>,
    facts: Facts,
    name: Vec<u8>,
    pool: PoolMemory,
    contexts: Contexts,
    entries: Box<[sys::fi_cq_data_entry; CQ_BATCH]>,
    wake: Arc<Eventfd>,
    next_peer: u64,
    peers: BTreeMap<PeerId, Peer>,
    /// Addresses in the vector, each once however many connections use it.
    inserted: HashMap<Vec<u8>, Inserted>,
}

// SAFETY: besides the objects (`Send` themselves) it holds contexts, which libfabric knows by address and this value owns.
unsafe impl Send for Libfabric {}

struct Peer {
    address: Vec<u8>,
    handle: sys::fi_addr_t,
    target: Option<Target>,
}

/// Where a peer's pool is to be addressed.
#[derive(Clone, Copy)]
struct Target {
    base: u64,
    key: u64,
    len: u64,
}

/// A write or a read, as the interface sees them: alike.
struct Operation {
    name: &'static str,
    post: fn(&Endpoint, &sys::fi_msg_rma, u64) -> i64,
    peer: PeerId,
    /// Offset into our pool.
    ours: u64,
    /// Offset into the peer's.
    theirs: u64,
    len: u64,
    immediate: u32,
    context: u32,
    flags: u64,
}

struct Inserted {
    handle: sys::fi_addr_t,
    users: usize,
}

/// How to reach a pool through libfabric.
#[derive(Clone, PartialEq, prost::Message)]
struct OfferWire {
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    /// Address of the pool's first byte: virtual, or zero where the provider counts from the region's start.
    #[prost(uint64, tag = "2")]
    base: u64,
    #[prost(fixed64, tag = "3")]
    key: u64,
}

impl OfferWire {
    /// An offer of a pool of so many bytes; its address is still to be checked.
    fn checked(bytes: &[u8], pool_bytes: u64) -> Result<Self, FabricError> {
        let wire = Self::decode(bytes).map_err(|error| fault("connect", &error))?;
        match wire.base.checked_add(pool_bytes) {
            Some(_) => Ok(wire),
            None => Err(fault("connect", &"the peer's pool leaves the address space")),
        }
    }
}

impl Libfabric {
    pub(crate) fn open(
        config: &TransferConfig,
        provider: Option<&str>,
    ) -> Result<(Self, PoolMemory), StartError> {
        let library = Library::open(config.libfabric_path.as_deref())?;
        let info = choose(library, provider, config.listen_ip)?;
        let facts = info.facts();
        warn_of_fork_safety(&facts);
        let region = config.region();
        let bytes = region.bytes();
        let mapping = allocate(bytes as usize, config.huge_pages)
            .map_err(|reason| StartError::Pool { bytes, reason })?;
        let pool = PoolMemory::new(Arc::new(mapping), region.pool_bytes);
        let fabric = Self::build(info, facts, pool.clone(), config.limits.peers)?;
        Ok((fabric, pool))
    }

    fn build(info: Info, mut facts: Facts, pool: PoolMemory, peers: usize) -> Result<Self, FabricError> {
        let domain = Domain::open(info)?;
        let wanted = queue_entries(facts.queue_depth, peers);
        let queue = CompletionQueue::open(&domain, wanted, facts.queue_depth)?;
        let addresses = AddressVector::open(&domain, peers)?;
        let endpoint = Endpoint::open(&domain, &queue, &addresses)?;
        options::set(&endpoint, &facts)?;
        let region = Region::register(&domain, &pool, wanted_key(&facts))?;
        endpoint.enable()?;
        facts.max_write_bytes = options::ask(&endpoint, &facts)?;
        if facts.bind_to_endpoint {
            region.bind(&endpoint)?;
        }
        let name = endpoint.name()?;
        let wake = Eventfd::create().map_err(|e| fault("eventfd", &e))?;
        let empty = sys::fi_cq_data_entry {
            op_context: ptr::null_mut(),
            flags: 0,
            len: 0,
            buf: ptr::null_mut(),
            data: 0,
        };
        Ok(Self {
            endpoint,
            region,
            addresses,
            queue,
            domain,
            facts,
            name,
            pool,
            contexts: Contexts::default(),
            entries: Box::new([empty; CQ_BATCH]),
            wake: Arc::new(wake),
            next_peer: 0,
            peers: BTreeMap::new(),
            inserted: HashMap::new(),
        })
    }

    fn add_peer(&mut self, address: &[u8], target: Option<Target>) -> Result<PeerId, FabricError> {
        check_address(address, &self.name, self.facts.string_addresses)?;
        let handle = match self.inserted.get_mut(address) {
            Some(inserted) => {
                inserted.users += 1;
                inserted.handle
            }
            None => {
                let handle = self.addresses.insert(address)?;
                self.inserted.insert(address.to_vec(), Inserted { handle, users: 1 });
                handle
            }
        };
        self.next_peer += 1;
        let peer = PeerId(self.next_peer);
        self.peers.insert(peer, Peer { address: address.to_vec(), handle, target });
        Ok(peer)
    }

    fn post(&mut self, operation: &Operation) -> Result<bool, FabricError> {
        let Operation { name, len, .. } = *operation;
        let gone = || fault(name, &"the peer is disconnected");
        let peer = self.peers.get(&operation.peer).ok_or_else(gone)?;
        let target = peer.target.ok_or_else(|| fault(name, &"the peer offered no pool"))?;
        assert!(operation.ours + len <= self.pool.region().len() as u64, "our range leaves the region");
        assert!(operation.theirs + len <= target.len, "the peer's range leaves its region");
        let ours = self.pool.ptr().as_ptr().wrapping_add(operation.ours as usize);
        let iov = sys::iovec { iov_base: ours.cast(), iov_len: len as usize };
        let rma =
            sys::fi_rma_iov { addr: target.base + operation.theirs, len: len as usize, key: target.key };
        let mut descriptor = self.region.descriptor();
        let context = self.contexts.get(operation.context);
        let message = sys::fi_msg_rma {
            msg_iov: &iov,
            desc: &mut descriptor,
            iov_count: 1,
            addr: peer.handle,
            rma_iov: &rma,
            rma_iov_count: 1,
            context: context.as_ptr().cast(),
            data: operation.immediate.into(),
        };
        match (operation.post)(&self.endpoint, &message, operation.flags) {
            0 => Ok(true),
            code if code == -i64::from(sys::FI_EAGAIN) => Ok(false),
            code => Err(failure(&self.domain.library(), name, code)),
        }
    }

    fn error_event(&mut self, events: &mut Vec<Event>) {
        let Some(entry) = self.queue.read_error() else { return };
        let library = self.domain.library();
        let ours = self.facts.speaks_efa().then(|| status::meaning(entry.prov_errno)).flatten();
        let reason = format!(
            "{}: {}, provider's code {}",
            ours.map_or_else(|| self.queue.error_text(&entry), str::to_owned),
            library.error_text(entry.err.into()),
            entry.prov_errno
        );
        match NonNull::new(entry.op_context.cast::<OpContext>()) {
            Some(context) => events.push(Event::Failed(Contexts::index(context), reason)),
            None => tracing::debug!(reason, "an incoming operation failed"),
        }
    }
}

/// The provider reads as many bytes as its own addresses have, or up to the NUL: make sure they are there.
fn check_address(address: &[u8], own: &[u8], string: bool) -> Result<(), FabricError> {
    let first_nul = address.iter().position(|&byte| byte == 0);
    let sound = if string {
        address.len() <= MAX_ADDRESS_BYTES && first_nul == address.len().checked_sub(1) && address.len() > 1
    } else {
        address.len() == own.len()
    };
    if sound {
        return Ok(());
    }
    let reason =
        format!("the peer's address has {} bytes, an odd form beside ours of {}", address.len(), own.len());
    Err(fault("fi_av_insert", &reason))
}

fn fault(operation: &'static str, reason: &dyn std::fmt::Display) -> FabricError {
    FabricError { fabric: "libfabric", operation, reason: reason.to_string() }
}

impl Fabric for Libfabric {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "libfabric",
            provider: self.facts.name().to_owned(),
            max_write_bytes: self.facts.max_write_bytes.min(MAX_WRITE_BYTES),
            strided_writes: false,
            stage_below_bytes: STAGE_BELOW_BYTES,
            max_in_flight: self.facts.queue_depth,
            buffers_bytes: true,
            wakes_on_arrival: self.queue.wait_fd().is_some(),
        }
    }

    fn address(&self) -> Vec<u8> {
        self.name.clone()
    }

    /// Inserts the initiator: some providers (efa) drop writes of peers that they do not know.
    fn accept(&mut self, address: &[u8]) -> Result<(PeerId, Offer), FabricError> {
        let peer = self.add_peer(address, None)?;
        let base = if self.facts.virtual_addresses { self.pool.ptr().as_ptr() as u64 } else { 0 };
        let offer = OfferWire { address: self.name.clone(), base, key: self.region.key() };
        Ok((peer, Offer { bytes: offer.encode_to_vec(), descriptors: Vec::new() }))
    }

    fn connect(&mut self, offer: Offer, region_bytes: u64) -> Result<PeerId, FabricError> {
        let wire = OfferWire::checked(&offer.bytes, region_bytes)?;
        self.add_peer(&wire.address, Some(Target { base: wire.base, key: wire.key, len: region_bytes }))
    }

    fn disconnect(&mut self, peer: PeerId) {
        let Some(peer) = self.peers.remove(&peer) else { return };
        let Some(inserted) = self.inserted.get_mut(&peer.address) else { return };
        inserted.users -= 1;
        if inserted.users == 0 {
            self.addresses.remove(inserted.handle);
            self.inserted.remove(&peer.address);
        }
    }

    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError> {
        let mut flags = sys::FI_REMOTE_CQ_DATA | sys::FI_COMPLETION;
        if self.facts.delivery_complete {
            flags |= sys::FI_DELIVERY_COMPLETE;
        }
        self.post(&Operation {
            name: "fi_writemsg",
            post: Endpoint::write,
            peer: write.peer,
            ours: write.source,
            theirs: write.destination,
            len: write.len,
            immediate: write.immediate,
            context: write.context,
            flags: flags.into(),
        })
    }

    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError> {
        self.post(&Operation {
            name: "fi_readmsg",
            post: Endpoint::read,
            peer: read.peer,
            ours: read.destination,
            theirs: read.source,
            len: read.len,
            immediate: 0,
            context: read.context,
            flags: sys::FI_COMPLETION.into(),
        })
    }

    fn flush(&mut self) {}

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError> {
        for _ in 0..BATCHES {
            match self.queue.read(&mut self.entries) {
                Ok(None) => break,
                Ok(Some(entries)) => events.extend(entries.iter().filter_map(event)),
                Err(code) if code == -i64::from(sys::FI_EAVAIL) => self.error_event(events),
                Err(code) => return Err(failure(&self.domain.library(), "fi_cq_read", code)),
            }
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), FabricError> {
        let queue_fd = self.queue.wait_fd();
        if queue_fd.is_some() && !self.queue.may_sleep() {
            return Ok(());
        }
        self.wake.sleep(queue_fd, timeout).map_err(|error| fault("poll", &error))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.wake.clone()
    }
}

/// What one completion means. The data flag decides: on some providers the target's entry has no other.
fn event(entry: &sys::fi_cq_data_entry) -> Option<Event> {
    if entry.flags & u64::from(sys::FI_REMOTE_CQ_DATA) != 0 {
        return Some(Event::Landed { from: None, immediate: entry.data as u32 });
    }
    let context = NonNull::new(entry.op_context.cast::<OpContext>())?;
    Some(Event::Done(Contexts::index(context)))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    //! What the fuzz target of offers needs: no fabric, so no library.
    use super::*;

    /// Whether an offer would be used; address, base and key if so.
    pub(crate) fn check(
        bytes: &[u8],
        own: &[u8],
        string: bool,
        pool: u64,
    ) -> Result<(Vec<u8>, u64, u64), FabricError> {
        let OfferWire { address, base, key } = OfferWire::checked(bytes, pool)?;
        check_address(&address, own, string)?;
        Ok((address, base, key))
    }

    pub(crate) fn encode(address: &[u8], base: u64, key: u64) -> Vec<u8> {
        OfferWire { address: address.to_vec(), base, key }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_be_read_past_their_end_are_refused() {
        let own = [0u8; 16];
        assert!(check_address(&[1; 16], &own, false).is_ok());
        for len in [0, 15, 17] {
            assert!(check_address(&vec![1; len], &own, false).is_err());
        }
        assert!(check_address(b"fi_shm://1:0:0\0", b"x\0", true).is_ok());
        for bad in [&b""[..], b"\0", b"no end", b"two\0\0", b"in\0side\0", &[b'a'; 300]] {
            assert!(check_address(bad, b"x\0", true).is_err());
        }
    }
}
