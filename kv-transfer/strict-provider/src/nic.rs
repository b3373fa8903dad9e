//! The device that is played: all of a domain's state, changed by whoever calls in, under one lock.
//!
//! Nothing happens by itself (manual progress): links are read, writes placed and completions made while somebody reads the
//! completion queue.

mod post;
mod progress;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::event::epoll;

use crate::context::Contexts;
use crate::link::Link;
use crate::log::Log;
use crate::queue::{Entry, Queue};
use crate::rules::{Post, Rule};
use crate::settings::Settings;
use crate::wire::Address;

/// A domain, as its objects share it.
pub(crate) struct Shared {
    nic: Mutex<Nic>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) log: Arc<Log>,
}

impl Shared {
    pub(crate) fn new(settings: Arc<Settings>, log: Arc<Log>) -> Arc<Self> {
        let nic = Mutex::new(Nic::new(settings.clone(), log.clone()));
        Arc::new(Self { nic, settings, log })
    }

    /// The device, for one call. FI_THREAD_DOMAIN: calls do not overlap.
    pub(crate) fn enter(&self) -> MutexGuard<'_, Nic> {
        match self.nic.try_lock() {
            Ok(nic) => nic,
            Err(TryLockError::Poisoned(nic)) => nic.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.log.violation(Rule::Threads, "two calls into one domain at the same time");
                self.nic.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }
    }
}

pub(crate) struct Nic {
    settings: Arc<Settings>,
    log: Arc<Log>,
    random: SmallRng,
    pub(crate) regions: Regions,
    pub(crate) peers: Peers,
    pub(crate) queue: Option<Queue>,
    /// What the queue's owner sleeps on: an epoll of all sockets.
    pub(crate) wait: Option<OwnedFd>,
    pub(crate) door: Option<Door>,
    /// An endpoint is open, enabled or not.
    pub(crate) endpoint: bool,
    contexts: Contexts,
    operations: BTreeMap<u64, Operation>,
    next_operation: u64,
    /// Posted, and their completion not read yet.
    outstanding: usize,
    /// Posted with FI_MORE, waiting for a post without it.
    deferred: Vec<u64>,
    /// To be put on a link.
    ready: Vec<u64>,
    outgoing: BTreeMap<Address, Link>,
    incoming: BTreeMap<u64, Caller>,
    next_caller: u64,
    arrivals: Vec<Held<target::Arrival>>,
    /// How many were accepted, and the latest of those that were delivered.
    arrived: u64,
    furthest: u64,
    completions: Vec<Held<Entry>>,
    /// FI_EAGAIN was said, and this many posts came since without a look at the queue.
    unheard: Option<u32>,
    tally: Tally,
}

/// Where an enabled endpoint is found.
pub(crate) struct Door {
    pub(crate) listener: UnixListener,
    pub(crate) address: Address,
}

/// A provider that connected to us.
struct Caller {
    link: Link,
    from: Option<Address>,
}

/// An operation of ours.
struct Operation {
    post: Post,
    target: Address,
    sent: bool,
}

/// Something kept back for some rounds of progress.
struct Held<T> {
    rounds: u32,
    what: T,
}

/// What chance did, so that a test can see that it did something.
#[derive(Debug, Default)]
struct Tally {
    posts: u64,
    eagain: u64,
    delivered: u64,
    /// Delivered after something that had arrived later.
    overtaken: u64,
    refused: u64,
}

impl Nic {
    fn new(settings: Arc<Settings>, log: Arc<Log>) -> Self {
        let random = SmallRng::seed_from_u64(settings.seed);
        Self {
            settings,
            log,
            random,
            regions: Regions::default(),
            peers: Peers::default(),
            queue: None,
            wait: None,
            door: None,
            endpoint: false,
            contexts: Contexts::default(),
            operations: BTreeMap::new(),
            next_operation: 0,
            outstanding: 0,
            deferred: Vec::new(),
            ready: Vec::new(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            next_caller: 0,
            arrivals: Vec::new(),
            arrived: 0,
            furthest: 0,
            completions: Vec::new(),
            unheard: None,
            tally: Tally::default(),
        }
    }

    fn hold<T>(&mut self, what: T) -> Held<T> {
        Held { rounds: self.random.random_range(0..=self.settings.hold), what }
    }

    /// Lets the queue's descriptor tell of a socket.
    pub(crate) fn watch(&self, socket: impl AsFd) {
        if let Some(wait) = &self.wait {
            let told = epoll::add(wait, socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
            if let Err(error) = told {
                self.log.note(&format!("a socket is not watched: {error}"));
            }
        }
    }

    /// Whether something is to be done that no socket will tell of.
    pub(crate) fn is_busy(&self) -> bool {
        let links = self.outgoing.values().chain(self.incoming.values().map(|caller| &caller.link));
        !self.queue.as_ref().is_none_or(Queue::is_empty)
            || !self.arrivals.is_empty()
            || !self.completions.is_empty()
            || !self.ready.is_empty()
            || links.into_iter().any(Link::has_unsent)
    }

    /// The endpoint is closed: nothing of it is heard of again, and its contexts are the application's.
    pub(crate) fn shut(&mut self) {
        self.endpoint = false;
        if self.door.take().is_some() {
            self.log.note(&format!("closed: {:?}", self.tally));
        }
        self.operations.clear();
        self.contexts.clear();
        self.deferred.clear();
        self.ready.clear();
        self.outgoing.clear();
        self.incoming.clear();
        self.arrivals.clear();
        self.completions.clear();
        self.outstanding = 0;
    }

    /// Takes a region away. What is in flight may still touch it, so that must be over.
    pub(crate) fn deregister(&mut self, key: u64) {
        let Some(region) = self.regions.0.remove(&key) else { return };
        let users = self.operations.values().filter(|op| op.post.descriptor == region.descriptor).count();
        if users > 0 {
            self.log
                .violation(Rule::CloseOrder, &format!("a region with {users} operations in flight closed"));
        }
    }
}

/// Registered memory.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) access: u64,
    pub(crate) descriptor: usize,
}

impl Region {
    pub(crate) fn holds(&self, address: u64, len: u64) -> bool {
        let end = address.checked_add(len);
        address >= self.start && end.is_some_and(|end| end <= self.start + self.len)
    }
}

/// The open regions, by key.
#[derive(Debug, Default)]
pub(crate) struct Regions(pub(crate) BTreeMap<u64, Region>);

impl Regions {
    pub(crate) fn by_descriptor(&self, descriptor: usize) -> Option<&Region> {
        self.0.values().find(|region| region.descriptor == descriptor)
    }
}

/// The address vector.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    handles: BTreeMap<u64, Address>,
    next: u64,
    /// Every address that was ever in it: a late write of one that was removed is nobody's fault.
    ever: BTreeSet<Address>,
}

impl Peers {
    pub(crate) fn insert(&mut self, address: Address) -> u64 {
        self.ever.insert(address);
        self.handles.insert(self.next, address);
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn get(&self, handle: u64) -> Option<Address> {
        self.handles.get(&handle).copied()
    }

    fn has(&self, address: &Address) -> bool {
        self.handles.values().any(|known| known == address)
    }
}
