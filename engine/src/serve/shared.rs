//! What the two sides of an engine share: its thread, and everybody who has a handle.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    EngineConfig, EngineState, EngineTotals, GeneratedToken, Reservation, SequenceFailure, SequenceHandle,
    SequenceRequest, Shutdown, SubmitError,
    handle::CancelOnDrop,
    mailbox::{Arrival, Command, Mailbox},
    queue_bound::{QueueBound, QueueSlot},
    reservation::Purpose,
    sequence::{Leg, Sequence},
    step_log::StepLog,
    waiting::{ReserveRequest, Waiting},
};
use crate::{
    kv::{BlockAllocator, CacheMode, KvLayout},
    model::Forward,
};

/// What the engine's thread, its handles and its reservations share.
pub(super) struct Shared {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) allocator: BlockAllocator,
    pub(super) queue: Arc<QueueBound>,
    pub(super) reservations: AtomicUsize,
    pub(super) progress: Mutex<Progress>,
    pub(super) steps: StepLog,
    pub(super) state: watch::Sender<EngineState>,
    pub(super) config: EngineConfig,
    pub(super) layout: KvLayout,
    pub(super) next_arrival: AtomicU64,
    pub(super) eos_token_ids: Vec<u32>,
    pub(super) vocab_size: usize,
    pub(super) max_context_tokens: usize,
    /// Most tokens drafted for a sequence in a step; 0: none ever.
    pub(super) draft_tokens: usize,
}

/// What the engine's thread says about itself after each step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) running: usize,
    pub(super) uncomputed_tokens: usize,
    pub(super) totals: EngineTotals,
}

impl Shared {
    pub(super) fn new(
        forward: &dyn Forward,
        eos_token_ids: Vec<u32>,
        config: EngineConfig,
        is_observed: bool,
    ) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let for_room = mailbox.clone();
        let cache = CacheMode { is_on: config.prefix_cache, keeps_events: is_observed };
        Self {
            allocator: BlockAllocator::new(forward.num_blocks(), cache, move || for_room.notify_room()),
            mailbox,
            queue: Arc::default(),
            reservations: AtomicUsize::new(0),
            progress: Mutex::default(),
            steps: StepLog::default(),
            state: watch::Sender::new(EngineState::Serving),
            config,
            layout: forward.kv_layout(),
            next_arrival: AtomicU64::new(0),
            eos_token_ids,
            vocab_size: forward.vocab_size(),
            max_context_tokens: forward.max_context_tokens(),
            draft_tokens: 0,
        }
    }

    /// Checks a reservation to be made, and gives it its place and its size in blocks.
    pub(super) fn place_for_reservation(
        &self,
        request: &SequenceRequest,
    ) -> Result<(Arrival, Purpose, QueueSlot), SubmitError> {
        let SequenceRequest { prompt, sampling, .. } = request;
        let prompt_tokens = prompt.len();
        self.check_serving()?;
        sampling.validate(self.vocab_size)?;
        self.check_prompt_len(prompt_tokens)?;
        self.check_pool(prompt_tokens + 1, prompt_tokens)?;
        let growth = self.config.growth_tokens.min(sampling.max_tokens as usize);
        let blocks = self.layout.blocks_for(prompt_tokens + growth).min(self.allocator.counts().total);
        let slot = self.queue.enter(0, self.config.max_waiting)?;
        let purpose =
            Purpose { prompt: prompt.as_slice().into(), scope: request.scope(), blocks, shares: true };
        Ok((self.arrive(), purpose, slot))
    }

    /// Waits for blocks at the place of `arrival` in the queue.
    pub(super) async fn wait_for_blocks(
        self: &Arc<Self>,
        arrival: Arrival,
        purpose: Purpose,
        deadline: Option<Instant>,
        slot: QueueSlot,
    ) -> Result<Reservation, SubmitError> {
        let (reply, granted) = oneshot::channel();
        let request = ReserveRequest { purpose, deadline, reply, slot };
        let mut cancel = CancelOnDrop::new(self.clone(), arrival);
        self.mailbox
            .post(Command::Enqueue(arrival, Waiting::Reserve(request)))
            .map_err(|_| self.stop_error())?;
        let outcome = granted.await;
        cancel.disarm();
        outcome.unwrap_or_else(|_| Err(self.stop_error()))
    }

    pub(super) fn stream(
        self: &Arc<Self>,
        request: SequenceRequest,
        arrival: Arrival,
        first: Option<GeneratedToken>,
    ) -> (Sequence, SequenceHandle) {
        let most_tokens = self.max_context_tokens.min(self.pool_tokens());
        let left = most_tokens.saturating_sub(request.prompt.len()).min(request.sampling.max_tokens as usize);
        // Room for every event that the sequence can have: sending never waits, and never fails for want of room.
        let (events, receiver) = mpsc::channel(left + 3);
        let (lease, leg) = (self.allocator.lease(), Leg::Whole { events });
        let mut sequence = Sequence::new(request, &self.eos_token_ids, most_tokens, lease, leg);
        if let Some(first) = first {
            sequence.resume_after(first);
        }
        (sequence, SequenceHandle::new(receiver, CancelOnDrop::new(self.clone(), arrival)))
    }

    pub(super) fn enqueue(
        &self,
        arrival: Arrival,
        sequence: Sequence,
        slot: QueueSlot,
    ) -> Result<(), SubmitError> {
        let waiting = Waiting::Sequence(Box::new(sequence), slot);
        self.mailbox.post(Command::Enqueue(arrival, waiting)).map_err(|_| self.stop_error())
    }

    pub(super) fn arrive(&self) -> Arrival {
        Arrival(self.next_arrival.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin_shutdown(&self, how: Shutdown) {
        self.state.send_if_modified(|state| {
            let serving = *state == EngineState::Serving;
            if serving {
                *state = EngineState::Draining;
            }
            serving
        });
        // An engine that has ended needs no telling.
        let _ = self.mailbox.post(Command::Shutdown(how));
    }

    pub(super) fn stop_failure(&self) -> SequenceFailure {
        SequenceFailure::Stopped { reason: self.stop_reason() }
    }

    pub(super) fn stop_error(&self) -> SubmitError {
        SubmitError::Stopped { reason: self.stop_reason() }
    }

    pub(super) fn stop_reason(&self) -> String {
        match &*self.state.borrow() {
            EngineState::Stopped { reason, .. } => reason.clone(),
            EngineState::Serving | EngineState::Draining => "its thread is ending".to_owned(),
        }
    }
}
