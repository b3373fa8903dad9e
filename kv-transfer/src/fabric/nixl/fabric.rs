//! `Fabric` over a NIXL agent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::agent::{Agent, Backend, Registration};
use super::library;
use super::notification::{self, Inbox, MAX_IMMEDIATES};
use super::object::fault;
use super::offer::{CheckedOffer, OfferWire, agent_name};
use super::remotes::{Posting, Remote};
use super::request::{Operation, Piece, Poster};
use crate::fabric::eventfd::Eventfd;
use crate::fabric::{Capabilities, Event, Fabric, Offer, Read, Wake, Write};
use crate::ids::PeerId;
use crate::memory::{Mapping, PoolMemory};
use crate::{FabricError, StartError, TransferConfig};

/// The backend that is taken when none is named.
const UCX: &str = "UCX";
/// Large enough to keep any link busy, small enough that an abort is heard in good time.
const MAX_WRITE_BYTES: u64 = 1 << 20;
/// Up to where chunks pay, measured with `baton bench transfer --staging-curve` over its UCX backend (perf/RESULTS.md).
const STAGE_BELOW_BYTES: u64 = 32 << 10;
/// A peer gets a quarter of it: one full request.
const MAX_IN_FLIGHT: usize = 4 * MAX_IMMEDIATES;
/// How often what is left of a disconnected peer is looked at while nothing else happens.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// The NIXL fabric of one node. Fields in the order in which they must go.
pub(crate) struct Nixl {
    remotes: BTreeMap<CString, Remote>,
    poster: Poster,
    inbox: Inbox,
    _registration: Registration,
    agent: Arc<Agent>,
    backend: String,
    name: CString,
    metadata: Vec<u8>,
    pool: PoolMemory,
    /// How long a failed request's bytes may still be on their way.
    drain: Duration,
    next_peer: u64,
    targets: BTreeMap<PeerId, Target>,
    initiators: Initiators,
    /// Over already when posted; the next poll tells.
    done: Vec<Event>,
    message: Vec<u8>,
    wake: Arc<Eventfd>,
}

/// Where a peer's pool is to be addressed.
struct Target {
    agent: CString,
    base: u64,
    len: u64,
}

/// Peers that may write here, by the name of their agents.
#[derive(Default)]
struct Initiators(BTreeMap<CString, Vec<PeerId>>);

impl Nixl {
    pub(crate) fn open(
        config: &TransferConfig,
        backend: Option<&str>,
    ) -> Result<(Self, PoolMemory), StartError> {
        let library = library::open(config.nixl_path.as_deref())?;
        let region = config.region();
        let bytes = region.bytes();
        let mapping =
            Mapping::anonymous(bytes as usize).map_err(|reason| StartError::Pool { bytes, reason })?;
        let pool = PoolMemory::new(Arc::new(mapping), region.pool_bytes);
        let name = CString::new(format!("baton-{:032x}", rand::random::<u128>())).unwrap_or_default();
        let agent = Agent::create(library, &name)?;
        let backend_name = backend.unwrap_or(UCX);
        let backend = open_backend(&agent, backend_name, config.listen_ip)?;
        let registration = backend.register(&pool)?;
        let fabric = Self {
            remotes: BTreeMap::new(),
            poster: Poster::new(&backend)?,
            inbox: Inbox::new(&backend)?,
            _registration: registration,
            // Only backends that reach other processes have metadata.
            metadata: agent.metadata().map_err(|error| no_backend(&agent, backend_name, &error))?,
            agent,
            backend: backend_name.to_owned(),
            name,
            pool: pool.clone(),
            drain: config.limits.drain,
            next_peer: 0,
            targets: BTreeMap::new(),
            initiators: Initiators::default(),
            done: Vec::new(),
            message: Vec::new(),
            wake: Arc::new(Eventfd::create().map_err(|error| fault("eventfd", &error))?),
        };
        Ok((fabric, pool))
    }

    fn new_peer(&mut self) -> PeerId {
        self.next_peer += 1;
        PeerId(self.next_peer)
    }

    fn post(
        &mut self,
        (operation, peer): (Operation, PeerId),
        (ours, theirs, len): (u64, u64, u64),
        immediate: u32,
        context: u32,
    ) -> Result<bool, FabricError> {
        let gone = || fault("post", &"the peer is disconnected, or offered no pool");
        let target = self.targets.get(&peer).ok_or_else(gone)?;
        assert!(ours + len <= self.pool.region().len() as u64, "our range leaves the region");
        assert!(theirs + len <= target.len, "the peer's range leaves its pool");
        let remote = self.remotes.get_mut(&target.agent).ok_or_else(gone)?;
        if !remote.takes()? {
            return Ok(false);
        }
        let piece = Piece {
            ours: self.pool.ptr().as_ptr() as usize + ours as usize,
            theirs: (target.base + theirs) as usize,
            len: len as usize,
        };
        let (poster, message, events) = (&mut self.poster, &mut self.message, &mut self.done);
        let mut posting = Posting { poster, message, events, drain: self.drain };
        remote.add(operation, piece, immediate, context, &mut posting);
        Ok(true)
    }
}

/// On a loopback address UCX is kept to the loopback device, unless its own environment variable says otherwise.
fn open_backend(agent: &Arc<Agent>, name: &str, ip: IpAddr) -> Result<Backend, StartError> {
    let loopback = [(c"engine_config", c"NET_DEVICES=lo")];
    let parameters = if name == UCX && ip.is_loopback() { &loopback[..] } else { &[] };
    let plugin = CString::new(name).map_err(|error| no_backend(agent, name, &error))?;
    Backend::create(agent, &plugin, parameters).map_err(|error| no_backend(agent, name, &error))
}

fn no_backend(agent: &Agent, backend: &str, error: &dyn std::fmt::Display) -> StartError {
    let plugins = agent.plugins().unwrap_or_default().join(", ");
    let reason = format!("{error}; plugins that are there: {plugins}");
    StartError::NoBackend { backend: backend.to_owned(), reason }
}

impl Fabric for Nixl {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "nixl",
            provider: self.backend.clone(),
            max_write_bytes: MAX_WRITE_BYTES,
            strided_writes: false,
            stage_below_bytes: STAGE_BELOW_BYTES,
            max_in_flight: MAX_IN_FLIGHT,
            buffers_bytes: true,
            wakes_on_arrival: false,
        }
    }

    /// The name alone: who is written to needs nothing of who writes but that.
    fn address(&self) -> Vec<u8> {
        self.name.to_bytes().to_vec()
    }

    fn accept(&mut self, address: &[u8]) -> Result<(PeerId, Offer), FabricError> {
        let name = agent_name(address)?;
        let peer = self.new_peer();
        self.initiators.add(name, peer);
        let offer = OfferWire {
            agent: self.name.to_bytes().to_vec(),
            metadata: self.metadata.clone(),
            base: self.pool.ptr().as_ptr() as u64,
        };
        Ok((peer, Offer { bytes: offer.encode_to_vec(), descriptors: Vec::new() }))
    }

    fn connect(&mut self, offer: Offer, region_bytes: u64) -> Result<PeerId, FabricError> {
        let CheckedOffer { agent, metadata, base } = CheckedOffer::decode(&offer.bytes, region_bytes)?;
        let remote = match self.remotes.entry(agent.clone()) {
            Entry::Vacant(place) => place.insert(Remote::connect(&self.agent, agent.clone(), metadata)?),
            Entry::Occupied(known) if known.get().is_offered_by(&metadata) => known.into_mut(),
            Entry::Occupied(_) => {
                return Err(fault("connect", &"the agent is known already, by other metadata"));
            }
        };
        remote.users += 1;
        let peer = self.new_peer();
        self.targets.insert(peer, Target { agent, base, len: region_bytes });
        Ok(peer)
    }

    /// What is still under way to a dead peer fails now; a backend may take minutes to notice that nobody answers.
    fn disconnect(&mut self, peer: PeerId) {
        self.initiators.remove(peer);
        let Some(target) = self.targets.remove(&peer) else { return };
        let Some(remote) = self.remotes.get_mut(&target.agent) else { return };
        remote.users -= 1;
        if remote.users > 0 {
            return;
        }
        remote.abandon(&mut self.done);
        if remote.is_over() {
            self.remotes.remove(&target.agent);
        }
    }

    fn post_write(&mut self, write: &Write) -> Result<bool, FabricError> {
        let ranges = (write.source, write.destination, write.len);
        self.post((Operation::Write, write.peer), ranges, write.immediate, write.context)
    }

    fn post_read(&mut self, read: &Read) -> Result<bool, FabricError> {
        let ranges = (read.destination, read.source, read.len);
        self.post((Operation::Read, read.peer), ranges, 0, read.context)
    }

    fn flush(&mut self) {
        for remote in self.remotes.values_mut() {
            let (poster, message, events) = (&mut self.poster, &mut self.message, &mut self.done);
            remote.flush(&mut Posting { poster, message, events, drain: self.drain });
        }
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), FabricError> {
        events.append(&mut self.done);
        self.remotes.retain(|_, remote| {
            remote.poll(self.drain, events);
            !remote.is_over()
        });
        self.inbox.take(|name, message| self.initiators.heard(name, message, events))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), FabricError> {
        let left_over = self.remotes.values().any(|remote| remote.users == 0).then_some(LOOK_AFTER);
        let timeout = timeout.into_iter().chain(left_over).min();
        self.wake.sleep::<1>(std::iter::empty(), timeout).map_err(|error| fault("poll", &error))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.wake.clone()
    }
}

impl Initiators {
    fn add(&mut self, agent: CString, peer: PeerId) {
        self.0.entry(agent).or_default().push(peer);
    }

    fn remove(&mut self, peer: PeerId) {
        self.0.retain(|_, peers| {
            peers.retain(|&other| other != peer);
            !peers.is_empty()
        });
    }

    /// A notification under this name. Only those of known peers count; one that is malformed ends the hearing of its sender.
    fn heard(&mut self, name: &CStr, message: &[u8], events: &mut Vec<Event>) {
        let Some(peers) = self.0.get(name) else {
            return tracing::debug!(?name, "a notification of an unknown agent is ignored");
        };
        match notification::decode(message) {
            Ok(immediates) => {
                // One agent over two connections: which of them it meant is not said.
                let from = match peers[..] {
                    [peer] => Some(peer),
                    _ => None,
                };
                events.extend(immediates.map(|immediate| Event::Landed { from, immediate }));
            }
            Err(reason) => {
                let peers = self.0.remove(name).unwrap_or_default();
                events.extend(peers.into_iter().map(|peer| Event::Fault { peer, reason: reason.clone() }));
            }
        }
    }
}
