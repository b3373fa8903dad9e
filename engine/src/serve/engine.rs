//! The handle to a running engine.

use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    CacheObserver, EngineConfig, EngineLoad, EngineState, GeneratedToken, PrefillHandle, Reservation,
    SequenceHandle, SequenceRequest, SharedPrefillSink, Shutdown, Speculation, StepSample, SubmitError,
    core::Core,
    handle::CancelOnDrop,
    mailbox::Command,
    sequence::{Leg, Sequence},
    shared::Shared,
    speculation::Drafter,
};
use crate::{
    kv::{BlockId, HeldBlocks, KvLayout},
    model::Forward,
};

/// A running engine; clones are handles to the same one. When the last is dropped the engine aborts.
///
/// Its thread owns the model and computes step after step: one token of each running sequence (more with drafts), then prompts in order of
/// arrival, cut to what the step has room for. It sleeps when there is nothing to compute.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    _abort_on_last_drop: Arc<AbortOnDrop>,
}

struct AbortOnDrop(Arc<Shared>);

impl Engine {
    /// Starts the engine's thread. `eos_token_ids` end a sequence unless `ignore_eos` is set.
    ///
    /// # Panics
    /// When a limit in `config` is 0, or the system cannot start a thread.
    pub fn start(forward: Box<dyn Forward>, eos_token_ids: Vec<u32>, config: EngineConfig) -> Self {
        Self::start_observed(forward, eos_token_ids, config, None)
    }

    /// Starts the engine's thread; `observer` is told what happens to the prefix cache.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_observed(
        forward: Box<dyn Forward>,
        eos_token_ids: Vec<u32>,
        config: EngineConfig,
        observer: Option<Box<dyn CacheObserver>>,
    ) -> Self {
        Self::start_speculating(forward, eos_token_ids, config, observer, None)
    }

    /// Starts the engine's thread, which decodes with drafts if `speculation` is given: the same tokens, in fewer steps.
    ///
    /// # Panics
    /// As [`Self::start`], or when drafts are of no tokens or more than [`MAX_DRAFT_TOKENS`](super::MAX_DRAFT_TOKENS).
    pub fn start_speculating(
        forward: Box<dyn Forward>,
        eos_token_ids: Vec<u32>,
        config: EngineConfig,
        observer: Option<Box<dyn CacheObserver>>,
        speculation: Option<Speculation>,
    ) -> Self {
        config.assert_valid();
        let mut shared = Shared::new(forward.as_ref(), eos_token_ids, config, observer.is_some());
        shared.draft_tokens = speculation.as_ref().map_or(0, |speculation| speculation.draft_tokens);
        let shared = Arc::new(shared);
        let core = Core::new(forward, shared.clone(), observer, speculation.map(Drafter::new));
        thread::Builder::new()
            .name("baton-engine".to_owned())
            .spawn(move || core.run())
            .expect("the system can start the engine's thread");
        Self { _abort_on_last_drop: Arc::new(AbortOnDrop(shared.clone())), shared }
    }

    /// Takes a request to be prefilled and decoded here.
    ///
    /// # Errors
    /// The request is invalid or can never fit, the queue is full, or the engine takes nothing new.
    pub fn submit(&self, request: SequenceRequest) -> Result<SequenceHandle, SubmitError> {
        let shared = &self.shared;
        shared.check(&request)?;
        shared.check_pool(request.prompt.len() + 1, request.prompt.len())?;
        let slot = shared.queue.enter(request.prompt.len(), shared.config.max_waiting)?;
        let arrival = shared.arrive();
        let (sequence, handle) = shared.stream(request, arrival, None);
        shared.enqueue(arrival, sequence, slot)?;
        Ok(handle)
    }

    /// Takes the first leg of a request: computes the prompt, telling `sink` as layers of its blocks become final, and
    /// samples the first token.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub fn prefill(
        &self,
        request: SequenceRequest,
        sink: SharedPrefillSink,
    ) -> Result<PrefillHandle, SubmitError> {
        let shared = &self.shared;
        shared.check(&request)?;
        shared.check_pool(request.prompt.len(), request.prompt.len())?;
        let slot = shared.queue.enter(request.prompt.len(), shared.config.max_waiting)?;
        let arrival = shared.arrive();
        let held = HeldBlocks::pending();
        let (reply, first_token) = oneshot::channel();
        let leg = Leg::first(reply, sink, held.clone());
        let (eos, most_tokens) = (&shared.eos_token_ids, shared.max_context_tokens);
        let sequence = Sequence::new(request, eos, most_tokens, shared.allocator.lease(), leg);
        let handle = PrefillHandle::new(first_token, held, CancelOnDrop::new(shared.clone(), arrival));
        shared.enqueue(arrival, sequence, slot)?;
        Ok(handle)
    }

    /// Waits, in order of arrival and until the request's deadline, for the blocks of its prompt and its expected growth. The
    /// place in the order is taken at once, the wait begins when the future is first polled. What is cached of the prompt is
    /// shared: see [`Reservation::blocks_to_fill`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue, and returns what was granted meanwhile.
    ///
    /// # Errors
    /// As for [`Self::submit`], or the deadline passed first.
    pub fn reserve(
        &self,
        request: &SequenceRequest,
    ) -> impl Future<Output = Result<Reservation, SubmitError>> + Send + use<> {
        let shared = self.shared.clone();
        let (place, deadline) = (shared.place_for_reservation(request), request.deadline);
        async move {
            let (arrival, purpose, slot) = place?;
            shared.wait_for_blocks(arrival, purpose, deadline, slot).await
        }
    }

    /// The second leg: goes on after `first`, which the prefill worker sampled. The prompt's keys and values are complete in
    /// the reservation's blocks. The handle's first token is the one after `first`; when `first` ends the request already,
    /// there is none.
    ///
    /// # Errors
    /// The request is invalid or not the one that was reserved for, or the engine has stopped. The reservation is given up.
    pub fn decode(
        &self,
        reservation: Reservation,
        request: SequenceRequest,
        first: GeneratedToken,
    ) -> Result<SequenceHandle, SubmitError> {
        self.shared.check_token(request.prompt.len(), first.id)?;
        self.start_reserved(reservation, request, Some(first))
    }

    /// Prefills here into reserved blocks, and decodes: the way out when no prefill worker could.
    ///
    /// No transfer into the blocks may be under way any more: see [`Reservation::replace_blocks`].
    ///
    /// # Errors
    /// As for [`Self::decode`].
    pub fn submit_reserved(
        &self,
        reservation: Reservation,
        request: SequenceRequest,
    ) -> Result<SequenceHandle, SubmitError> {
        self.start_reserved(reservation, request, None)
    }

    fn start_reserved(
        &self,
        reservation: Reservation,
        request: SequenceRequest,
        first: Option<GeneratedToken>,
    ) -> Result<SequenceHandle, SubmitError> {
        let shared = &self.shared;
        if !reservation.is_of(shared) {
            return Err(SubmitError::ForeignReservation);
        }
        shared.check_request(&request)?;
        let (reserved_tokens, prompt_tokens) = (reservation.prompt_tokens(), request.prompt.len());
        if reserved_tokens != prompt_tokens {
            return Err(SubmitError::ReservationMismatch { reserved_tokens, prompt_tokens });
        }
        if !reservation.is_for(&request.prompt, request.scope().as_ref()) {
            return Err(SubmitError::OtherPrompt);
        }
        let arrival = reservation.arrival();
        // A draining engine waits for `_origin`, and so for the sequence to be enqueued.
        let (lease, shared_blocks, _origin) = reservation.into_parts();
        let (mut sequence, handle) = shared.stream(request, arrival, first);
        sequence.adopt(lease, shared_blocks, shared.layout.block_tokens);
        if !sequence.finish_if_over(Instant::now()) {
            let slot = shared.queue.enter_again(sequence.uncomputed());
            shared.enqueue(arrival, sequence, slot)?;
        }
        Ok(handle)
    }

    /// Load and totals now.
    pub fn load(&self) -> EngineLoad {
        let shared = &self.shared;
        let progress = *shared.progress();
        let (waiting, waiting_tokens) = shared.queue.counts();
        EngineLoad {
            waiting,
            running: progress.running,
            waiting_prompt_tokens: waiting_tokens + progress.uncomputed_tokens,
            reservations: shared.reservations.load(Ordering::Relaxed),
            blocks: shared.allocator.counts(),
            totals: progress.totals,
        }
    }

    /// The limits that it keeps.
    pub fn config(&self) -> &EngineConfig {
        &self.shared.config
    }

    /// The last steps but the first `seen` ones, and how many there ever were: a reader that hands that in the next time gets each once,
    /// or, if it comes late, the last 256.
    pub fn steps_since(&self, seen: u64) -> (Vec<StepSample>, u64) {
        self.shared.steps.since(seen)
    }

    /// Forgets all cached prefixes, before whatever is handed over after this call. Sequences under way keep their blocks.
    pub fn clear_prefix_cache(&self) {
        // An engine that has ended caches nothing.
        let _ = self.shared.mailbox.post(Command::ClearCache);
    }

    /// Has the observer of the prefix cache told all that is cached, after what has happened so far.
    pub fn tell_cache(&self) {
        // An engine that has ended caches nothing.
        let _ = self.shared.mailbox.post(Command::TellCache);
    }

    /// How often the contents of a block were given up; `None` for a block that the pool does not have.
    pub fn block_generation(&self, block: BlockId) -> Option<u64> {
        self.shared.allocator.generation(block)
    }

    /// Shape of the KV cache.
    pub fn kv_layout(&self) -> KvLayout {
        self.shared.layout
    }

    /// Most tokens drafted for a sequence in a step; 0 when the engine does not speculate.
    pub fn draft_tokens(&self) -> usize {
        self.shared.draft_tokens
    }

    /// Longest sequence, prompt and output, in tokens.
    pub fn max_context_tokens(&self) -> usize {
        self.shared.max_context_tokens
    }

    /// Where the engine stands in its life.
    pub fn state(&self) -> EngineState {
        self.shared.state.borrow().clone()
    }

    /// Waits until the engine has stopped, and says why.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn stopped(&self) -> EngineState {
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|state| matches!(state, EngineState::Stopped { .. })).await {
            Ok(state) => state.clone(),
            Err(_) => self.state(),
        }
    }

    /// Ends the engine, and waits until it has ended: no sequence runs, the thread is gone, and the model is dropped.
    ///
    /// # Cancel safety
    /// The engine goes on ending when the future is dropped. After `Drain`, `Abort` may follow.
    pub async fn shutdown(&self, how: Shutdown) {
        self.shared.begin_shutdown(how);
        self.stopped().await;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.begin_shutdown(Shutdown::Abort);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("state", &*self.shared.state.borrow()).finish_non_exhaustive()
    }
}
