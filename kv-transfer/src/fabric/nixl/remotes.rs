//! The agents that are written to: each once, however many connections use it, with what is under way to it.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::batch::Batch;
use super::object::fault;
use super::request::{Operation, Piece, Poster, Request, Status};
use crate::FabricError;
use crate::fabric::Event;

/// One agent whose metadata is loaded. Its connection goes when nobody uses it and nothing is under way.
pub(super) struct Remote {
    agent: Arc<Agent>,
    name: CString,
    metadata: Vec<u8>,
    pub(super) users: usize,
    /// A request failed: nothing is posted until all that was under way has ended.
    broken: bool,
    writes: Batch,
    reads: Batch,
    /// In the order of posting, which is that in which they end on one connection.
    flights: VecDeque<Flight>,
    /// Failed, and some of the bytes may still be on their way.
    cooling: VecDeque<Cooling>,
}

struct Flight {
    request: Request,
    contexts: Vec<u32>,
}

struct Cooling {
    until: Instant,
    reason: String,
    contexts: Vec<u32>,
}

/// What posting takes, beside the remote.
pub(super) struct Posting<'a> {
    pub(super) poster: &'a mut Poster,
    /// For a notification while it is handed over.
    pub(super) message: &'a mut Vec<u8>,
    /// What is over already.
    pub(super) events: &'a mut Vec<Event>,
    pub(super) drain: Duration,
}

impl Remote {
    pub(super) fn connect(agent: &Arc<Agent>, name: CString, metadata: Vec<u8>) -> Result<Self, FabricError> {
        let remote = Self {
            agent: agent.clone(),
            name,
            metadata,
            users: 0,
            broken: false,
            writes: Batch::new(Operation::Write),
            reads: Batch::new(Operation::Read),
            flights: VecDeque::new(),
            cooling: VecDeque::new(),
        };
        remote.load()?;
        Ok(remote)
    }

    /// On an error the drop of the remote cleans up.
    fn load(&self) -> Result<(), FabricError> {
        let found = self.agent.load(&self.metadata)?;
        if found == self.name {
            return Ok(());
        }
        Err(fault("load a peer's metadata", &"it names another agent"))
    }

    /// Whether what a new offer says is what is loaded.
    pub(super) fn is_offered_by(&self, metadata: &[u8]) -> bool {
        self.metadata == metadata
    }

    /// Nobody uses it, and nothing is under way.
    pub(super) fn is_over(&self) -> bool {
        self.users == 0 && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        let collected = !self.writes.is_empty() || !self.reads.is_empty();
        !collected && self.flights.is_empty() && self.cooling.is_empty()
    }

    /// Whether it takes something now. After a failure it does when all has ended, over a new connection.
    pub(super) fn takes(&mut self) -> Result<bool, FabricError> {
        if self.broken && self.is_idle() {
            self.agent.invalidate(&self.name);
            self.load()?;
            self.broken = false;
        }
        Ok(!self.broken)
    }

    /// Collects one operation; a full batch goes at once.
    pub(super) fn add(
        &mut self,
        operation: Operation,
        piece: Piece,
        immediate: u32,
        context: u32,
        posting: &mut Posting<'_>,
    ) {
        let batch = match operation {
            Operation::Write => &mut self.writes,
            Operation::Read => &mut self.reads,
        };
        batch.add(piece, immediate, context);
        if batch.is_full() {
            self.flush(posting);
        }
    }

    /// Posts what was collected.
    pub(super) fn flush(&mut self, posting: &mut Posting<'_>) {
        for operation in [Operation::Write, Operation::Read] {
            let batch = match operation {
                Operation::Write => &mut self.writes,
                Operation::Read => &mut self.reads,
            };
            if batch.is_empty() {
                continue;
            }
            batch.notification(posting.message);
            let posted = posting.poster.post(operation, &self.name, &batch.pieces, posting.message);
            let contexts = batch.take();
            match posted {
                Ok((request, Status::InProgress)) => self.flights.push_back(Flight { request, contexts }),
                Ok((_, Status::Done)) => posting.events.extend(contexts.into_iter().map(Event::Done)),
                Ok((_, Status::Failed(reason))) => self.failed(contexts, reason, posting.drain),
                // Nothing was posted.
                Err(error) => self.failed(contexts, error.to_string(), Duration::ZERO),
            }
        }
    }

    /// Looks at what is under way. Requests on one connection end in order, so the first one that has not ends the look.
    pub(super) fn poll(&mut self, drain: Duration, events: &mut Vec<Event>) {
        while let Some(flight) = self.flights.front_mut() {
            let status = flight.request.status();
            if status == Status::InProgress {
                break;
            }
            let Some(Flight { contexts, .. }) = self.flights.pop_front() else { break };
            match status {
                Status::Failed(reason) => self.failed(contexts, reason, drain),
                _ => events.extend(contexts.into_iter().map(Event::Done)),
            }
        }
        let now = if self.cooling.is_empty() { return } else { Instant::now() };
        while let Some(cooled) = self.cooling.pop_front_if(|cooling| cooling.until <= now) {
            let Cooling { contexts, reason, .. } = cooled;
            events.extend(contexts.into_iter().map(|context| Event::Failed(context, reason.clone())));
        }
    }

    /// Its last user is gone, and the process with it: what was under way is told as failed. The requests themselves stay
    /// until the backend lets go of them: NIXL cancels by freeing, and UCX may still look at what is freed then.
    pub(super) fn abandon(&mut self, events: &mut Vec<Event>) {
        let collected = [&mut self.writes, &mut self.reads].map(Batch::take);
        let flying = self.flights.iter_mut().map(|flight| std::mem::take(&mut flight.contexts));
        let contexts = collected.into_iter().chain(flying).flatten();
        events.extend(contexts.map(|context| Event::Failed(context, "the peer is gone".to_owned())));
    }

    fn failed(&mut self, contexts: Vec<u32>, reason: String, drain: Duration) {
        tracing::debug!(agent = ?self.name, reason, "a transfer request failed");
        self.broken = true;
        self.cooling.push_back(Cooling { until: Instant::now() + drain, reason, contexts });
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Requests go before the connection that they use.
        self.flights.clear();
        self.agent.invalidate(&self.name);
    }
}
