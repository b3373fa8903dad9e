//! From a posted write to its event: put, flush of the endpoint, message with the immediate.
//!
//! ```text
//!  post ─► put ─┐                             ┌─► Done, Done, Done
//!  post ─► put ─┼─ batch ─► flush ─► message ─┤
//!  post ─► put ─┘  (open)   (in the target's  └─ at the target: Landed, Landed, Landed
//!                            memory after it)
//! ```
//! UCX's put completes when the source is free, and says nothing about the target. A flush of the endpoint does, for
//! everything that was put before. The message with the immediates is sent after it, so they cannot be early; a fence
//! instead of the flush would order put and message too, but nobody would know here when the bytes have arrived.
//!
//! A few flushes of a peer are under way at a time, and what is posted meanwhile goes into the next batch: the longer a
//! flush takes, the more writes share the next one.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::batches::{BatchId, Batches};
use super::endpoint::{Endpoint, Started};
use super::library::fault;
use super::mailbox::Task;
use super::objects::Worker;
use super::sys;
use crate::FabricError;
use crate::fabric::Event;
use crate::ids::PeerId;

/// Flushes of one peer under way.
const FLUSHES: usize = 2;
/// Why a write failed whose endpoint was closed, if there is no better reason.
const CLOSED: &str = "the connection was closed";
/// And why one failed that was under way when its peer was given up.
const SEVERED: &str = "the connection was ended here";

/// A peer that we write to.
pub(super) struct Peer {
    pub(super) endpoint: Endpoint,
    base: u64,
    len: u64,
    token: u64,
    /// The batch that takes its next write.
    open: Option<BatchId>,
    flushes: usize,
    /// What UCX has of it that uses our memory or its key: operations and messages.
    tasks: usize,
    /// Why its endpoint does not work any more.
    broken: Option<String>,
    /// Disconnected; kept until UCX has nothing of it.
    gone: bool,
}

/// What is under way, over all peers.
pub(super) struct Writes {
    peers: BTreeMap<PeerId, Peer>,
    /// Operations by context: to whom, and for writes in which batch.
    operations: Vec<Option<(PeerId, Option<BatchId>)>>,
    batches: Batches,
    /// Peers with an open batch.
    unflushed: Vec<PeerId>,
    events: Vec<(PeerId, Event)>,
    finished: Vec<(Task, sys::ucs_status_t)>,
    worker: Rc<Worker>,
}

impl Peer {
    pub(super) fn new(endpoint: Endpoint, base: u64, len: u64, token: u64) -> Self {
        let (open, flushes, tasks, broken, gone) = (None, 0, 0, None, false);
        Self { endpoint, base, len, token, open, flushes, tasks, broken, gone }
    }

    /// Where `offset` of its pool is, with `len` bytes behind it.
    pub(super) fn address(&self, offset: u64, len: u64) -> u64 {
        assert!(offset + len <= self.len, "the peer's range leaves its pool");
        self.base + offset
    }
}

impl Writes {
    pub(super) fn new(worker: Rc<Worker>, in_flight: usize) -> Self {
        Self {
            peers: BTreeMap::new(),
            operations: vec![None; in_flight],
            batches: Batches::default(),
            unflushed: Vec::new(),
            events: Vec::with_capacity(in_flight),
            finished: Vec::with_capacity(in_flight),
            worker,
        }
    }

    pub(super) fn join(&mut self, id: PeerId, peer: Peer) {
        self.peers.insert(id, peer);
    }

    /// Starts an operation: a write if there is an immediate, else a read. `false`: no room now.
    pub(super) fn post(
        &mut self,
        id: PeerId,
        context: u32,
        immediate: Option<u32>,
        start: impl FnOnce(&Peer) -> Started,
    ) -> Result<bool, FabricError> {
        let operation = if immediate.is_some() { "ucp_put_nbx" } else { "ucp_get_nbx" };
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.gone) else {
            return Err(fault(operation, &"the peer is disconnected"));
        };
        if let Some(reason) = &peer.broken {
            return Err(fault(operation, reason));
        }
        if immediate.is_some() && peer.open.is_some_and(|batch| self.batches.get(batch).is_full()) {
            return Ok(false);
        }
        let started = start(peer);
        match started {
            Started::NoRoom => return Ok(false),
            Started::Failed(status) => return Err(self.worker.library().failure(operation, status)),
            Started::Done | Started::UnderWay => peer.tasks += 1,
        }
        let batch = immediate.map(|immediate| {
            let batch = *peer.open.get_or_insert_with(|| {
                self.unflushed.push(id);
                self.batches.begin(id, peer.token)
            });
            self.batches.get(batch).add(context, immediate);
            batch
        });
        if self.operations.len() <= context as usize {
            self.operations.resize(context as usize + 1, None);
        }
        debug_assert!(
            self.operations[context as usize].is_none(),
            "a context is unique among those in flight"
        );
        self.operations[context as usize] = Some((id, batch));
        if started == Started::Done {
            self.over(Task::Operation(context), sys::UCS_OK);
        }
        Ok(true)
    }

    /// Starts the flushes that there is something for, and room.
    pub(super) fn flush(&mut self) {
        let mut unflushed = std::mem::take(&mut self.unflushed);
        unflushed.retain(|&peer| !self.flush_peer(peer));
        // Nothing was posted meanwhile, so nobody joined.
        self.unflushed = unflushed;
    }

    /// Whether it has no open batch any more.
    fn flush_peer(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return true };
        if peer.flushes >= FLUSHES {
            return false;
        }
        let Some(batch) = peer.open.take() else { return true };
        peer.flushes += 1;
        self.batches.get(batch).flushing();
        let task = Task::Flush(batch);
        let started = peer.endpoint.flush(task);
        self.started(task, started);
        true
    }

    /// Takes what UCX finished, and endpoints that broke.
    pub(super) fn settle(&mut self) {
        let mut finished = std::mem::take(&mut self.finished);
        loop {
            self.worker.mailbox().take_finished(&mut finished);
            while let Some((id, status)) = self.worker.mailbox().take_broken() {
                self.break_off(id, status);
            }
            if finished.is_empty() {
                break;
            }
            finished.drain(..).for_each(|(task, status)| self.over(task, status));
        }
        self.finished = finished;
    }

    fn started(&mut self, task: Task, started: Started) {
        match started {
            Started::Done => self.over(task, sys::UCS_OK),
            Started::UnderWay => {}
            Started::NoRoom => self.over(task, sys::UCS_ERR_NO_RESOURCE),
            Started::Failed(status) => self.over(task, status),
        }
    }

    /// A task is over: does what follows.
    fn over(&mut self, task: Task, status: sys::ucs_status_t) {
        let error = (status != sys::UCS_OK).then(|| self.worker.library().text(status));
        match task {
            Task::Operation(context) => {
                let Some((peer, batch)) = self.operations[context as usize].take() else { return };
                match batch {
                    Some(batch) => {
                        self.batches.get(batch).written(error);
                        self.advance(batch);
                    }
                    None => self.tell(peer, context, error),
                }
                self.release(peer);
            }
            Task::Flush(batch) => {
                if let Some(peer) = self.peers.get_mut(&self.batches.get(batch).peer) {
                    peer.flushes -= 1;
                }
                if self.batches.flushed(batch, error) {
                    self.advance(batch);
                }
            }
            Task::Announcement(batch) => {
                let peer = self.batches.get(batch).peer;
                self.batches.get(batch).fail(error);
                self.conclude(batch);
                self.release(peer);
            }
        }
    }

    /// Announces a batch that is in the target's memory.
    fn advance(&mut self, id: BatchId) {
        let batch = self.batches.get(id);
        if !batch.is_settled() {
            return;
        }
        let task = Task::Announcement(id);
        match self.peers.get_mut(&batch.peer) {
            Some(peer) if batch.error.is_none() && peer.endpoint.is_open() => {
                peer.tasks += 1;
                let started = peer.endpoint.send(&batch.message, task);
                self.started(task, started);
            }
            _ => {
                batch.fail(Some(CLOSED.to_owned()));
                self.conclude(id);
            }
        }
    }

    /// Says what came of a batch's writes.
    fn conclude(&mut self, id: BatchId) {
        let batch = self.batches.get(id);
        let (peer, error) = (batch.peer, batch.error.take());
        let contexts = std::mem::take(&mut batch.contexts);
        contexts.iter().for_each(|&context| self.tell(peer, context, error.clone()));
        self.batches.get(id).contexts = contexts;
        self.batches.conclude(id);
    }

    fn tell(&mut self, id: PeerId, context: u32, error: Option<String>) {
        let Some(peer) = self.peers.get(&id).filter(|peer| !peer.gone) else { return };
        let event = match error {
            None => Event::Done(context),
            // What ended a write when its endpoint broke is less than why it broke.
            Some(error) => Event::Failed(context, peer.broken.clone().unwrap_or(error)),
        };
        self.events.push((id, event));
    }

    /// One task less of a peer, which may have been the last.
    fn release(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.tasks -= 1;
        if peer.gone && peer.tasks == 0 {
            self.peers.remove(&id);
        }
    }

    fn break_off(&mut self, id: PeerId, status: sys::ucs_status_t) {
        let reason = self.worker.library().text(status);
        if let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.gone) {
            tracing::debug!(peer = id.0, reason, "an endpoint broke");
            peer.broken = Some(reason);
            self.close(id);
        }
    }

    /// Closes a peer's endpoint; what it has under way will be over soon.
    fn close(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.endpoint.close();
        peer.open = None;
        for batch in self.batches.unflushed(id) {
            self.batches.get(batch).cut(CLOSED);
            self.advance(batch);
        }
    }

    /// Closes a peer's endpoint by force: what is under way is told as failed once UCX has let go of it.
    pub(super) fn sever(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.gone) else { return };
        peer.broken.get_or_insert_with(|| SEVERED.to_owned());
        self.close(id);
    }

    /// Forgets a peer; nothing is heard of it any more.
    pub(super) fn leave(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.gone = true;
        self.close(id);
        self.events.retain(|(peer, _)| *peer != id);
        if self.peers.get(&id).is_some_and(|peer| peer.tasks == 0) {
            self.peers.remove(&id);
        }
    }

    pub(super) fn leave_all(&mut self) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.leave(id));
    }

    /// Nothing of any peer is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.peers.is_empty()
    }

    /// Lets go of peers that are still under way: their keys must not be destroyed.
    pub(super) fn abandon(&mut self) {
        std::mem::take(&mut self.peers).into_values().for_each(|peer| peer.endpoint.forget());
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn take_events(&mut self, into: &mut Vec<Event>) {
        into.extend(self.events.drain(..).map(|(_, event)| event));
    }
}
