//! One endpoint of a provider, on one NIC or one IP address, with its queue, its addresses and its registration of the pool.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

use super::contexts::{Contexts, OpContext};
use super::info::{Facts, Info};
use super::objects::{AddressVector, CQ_BATCH, CompletionQueue, Domain, Endpoint, Region, failure};
use super::offer::{RailOffer, check_address};
use super::setup::{queue_entries, wanted_key};
use super::{options, status, sys};
use crate::FabricError;
use crate::fabric::Event;
use crate::memory::PoolMemory;

/// Batches of completions in one `poll`, so that posting gets its turn.
const BATCHES: usize = 8;

/// Room for the completions that are taken at a time.
pub(super) type Entries = Box<[sys::fi_cq_data_entry; CQ_BATCH]>;

/// Fields in the order in which they must go.
pub(super) struct Rail {
    /// Until [`end`](Self::end).
    endpoint: Option<Endpoint>,
    region: Region,
    addresses: Arc<AddressVector>,
    pub(super) queue: Arc<CompletionQueue>,
    domain: Arc<Domain>,
    pub(super) facts: Facts,
    /// As the provider writes it.
    pub(super) address: Vec<u8>,
    base: u64,
    /// Addresses in the vector, each once however many connections use it.
    inserted: HashMap<Vec<u8>, Inserted>,
}

struct Inserted {
    handle: sys::fi_addr_t,
    users: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Write { immediate: u32 },
    Read,
}

/// A write or a read, as the interface sees them: alike.
pub(super) struct Operation {
    pub(super) kind: Kind,
    pub(super) peer: sys::fi_addr_t,
    pub(super) ours: *mut u8,
    /// As the peer's provider addresses it.
    pub(super) theirs: u64,
    pub(super) key: u64,
    pub(super) len: u64,
    pub(super) context: NonNull<OpContext>,
}

/// Posts a message with its flags; a negative code is an error.
type Post = fn(&Endpoint, &sys::fi_msg_rma, u64) -> i64;

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Write { .. } => "fi_writemsg",
            Self::Read => "fi_readmsg",
        }
    }

    pub(super) fn is_write(self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

impl Rail {
    /// Opens an endpoint from libfabric's entry for it, and registers the pool there.
    pub(super) fn open(info: Info, pool: &PoolMemory, peers: usize) -> Result<Self, FabricError> {
        let mut facts = info.facts();
        let domain = Domain::open(info)?;
        let wanted = queue_entries(facts.queue_depth, peers);
        let queue = CompletionQueue::open(&domain, wanted, facts.queue_depth)?;
        let addresses = AddressVector::open(&domain, peers)?;
        let endpoint = Endpoint::open(&domain, &queue, &addresses)?;
        options::set(&endpoint, &facts)?;
        let region = Region::register(&domain, pool, wanted_key(&facts))?;
        endpoint.enable()?;
        facts.max_write_bytes = options::ask(&endpoint, &facts)?;
        if facts.bind_to_endpoint {
            region.bind(&endpoint)?;
        }
        let address = endpoint.name()?;
        let base = if facts.virtual_addresses { pool.ptr().as_ptr() as u64 } else { 0 };
        let inserted = HashMap::new();
        let endpoint = Some(endpoint);
        Ok(Self { endpoint, region, addresses, queue, domain, facts, address, base, inserted })
    }

    /// Closes its endpoint: nothing is read or written through it any more, unless that fails.
    pub(super) fn end(&mut self) -> Result<(), FabricError> {
        self.endpoint.take().map_or(Ok(()), Endpoint::close)
    }

    pub(super) fn offer(&self) -> RailOffer {
        RailOffer { address: self.address.clone(), base: self.base, key: self.region.key() }
    }

    /// Makes a peer's address known, once more.
    pub(super) fn insert(&mut self, address: &[u8]) -> Result<sys::fi_addr_t, FabricError> {
        check_address(address, &self.address, self.facts.string_addresses)?;
        if let Some(inserted) = self.inserted.get_mut(address) {
            inserted.users += 1;
            return Ok(inserted.handle);
        }
        let handle = self.addresses.insert(address)?;
        self.inserted.insert(address.to_vec(), Inserted { handle, users: 1 });
        Ok(handle)
    }

    /// Takes back one `insert`.
    pub(super) fn remove(&mut self, address: &[u8]) {
        let Some(inserted) = self.inserted.get_mut(address) else { return };
        inserted.users -= 1;
        if inserted.users == 0 {
            self.addresses.remove(inserted.handle);
            self.inserted.remove(address);
        }
    }

    /// `false`: no room now.
    pub(super) fn post(&self, operation: &Operation) -> Result<bool, FabricError> {
        let len = operation.len as usize;
        let iov = sys::iovec { iov_base: operation.ours.cast(), iov_len: len };
        let rma = sys::fi_rma_iov { addr: operation.theirs, len, key: operation.key };
        let mut descriptor = self.region.descriptor();
        let completion = u64::from(sys::FI_COMPLETION);
        let (data, flags, post): (_, _, Post) = match operation.kind {
            Kind::Write { immediate } => {
                let flags = u64::from(sys::FI_REMOTE_CQ_DATA) | completion | self.completes_when();
                (immediate.into(), flags, Endpoint::write)
            }
            Kind::Read => (0, completion, Endpoint::read),
        };
        let message = sys::fi_msg_rma {
            msg_iov: &iov,
            desc: &mut descriptor,
            iov_count: 1,
            addr: operation.peer,
            rma_iov: &rma,
            rma_iov_count: 1,
            context: operation.context.as_ptr().cast(),
            data,
        };
        let Some(endpoint) = &self.endpoint else { return Ok(false) };
        match post(endpoint, &message, flags) {
            0 => Ok(true),
            code if code == -i64::from(sys::FI_EAGAIN) => Ok(false),
            code => Err(failure(&self.domain.library(), operation.kind.name(), code)),
        }
    }

    /// A write's completion says, where the provider can, that it is in the target's memory.
    fn completes_when(&self) -> u64 {
        if self.facts.delivery_complete { sys::FI_DELIVERY_COMPLETE.into() } else { 0 }
    }

    /// Appends what happened since.
    pub(super) fn poll(&self, entries: &mut Entries, events: &mut Vec<Event>) -> Result<(), FabricError> {
        for _ in 0..BATCHES {
            match self.queue.read(entries) {
                Ok(None) => break,
                Ok(Some(entries)) => events.extend(entries.iter().filter_map(event)),
                Err(code) if code == -i64::from(sys::FI_EAVAIL) => events.extend(self.error_event()),
                Err(code) => return Err(failure(&self.domain.library(), "fi_cq_read", code)),
            }
        }
        Ok(())
    }

    fn error_event(&self) -> Option<Event> {
        let entry = self.queue.read_error()?;
        let ours = self.facts.speaks_efa().then(|| status::meaning(entry.prov_errno)).flatten();
        let reason = format!(
            "{}: {}, provider's code {}",
            ours.map_or_else(|| self.queue.error_text(&entry), str::to_owned),
            self.domain.library().error_text(entry.err.into()),
            entry.prov_errno
        );
        let context = NonNull::new(entry.op_context.cast::<OpContext>());
        if context.is_none() {
            tracing::debug!(reason, "an incoming operation failed");
        }
        context.map(|context| Event::Failed(Contexts::index(context), reason))
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
