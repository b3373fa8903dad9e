//! What the tests of the engine are written in.

use std::{
    future::Future,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use baton_engine::{
    BlockId, Dtype, Engine, EngineConfig, FinishReason, Forward, HashForward, KvLayout, KvMemory,
    SamplingParams, SequenceEvent, SequenceFailure, SequenceHandle, SequenceRequest, Speculation,
    StepSequence,
};

use crate::mirror::Mirror;

pub(crate) const VOCAB: usize = 50;
pub(crate) const EOS: [u32; 2] = [0, 1];
pub(crate) const CONTEXT: usize = 64;
pub(crate) const BLOCK_TOKENS: usize = 4;
pub(crate) const LAYOUT: KvLayout =
    KvLayout { layers: 3, kv_heads: 2, head_dim: 2, block_tokens: BLOCK_TOKENS, dtype: Dtype::Bf16 };

/// Long enough to be reached by a hang only.
const HANG: Duration = Duration::from_secs(60);

/// An engine over a pool that the test can read and write.
pub(crate) struct Worker {
    pub(crate) engine: Engine,
    pub(crate) memory: KvMemory,
    pub(crate) blocks: usize,
    /// What its events say.
    pub(crate) mirror: Mirror,
}

/// How a sequence ended, with its tokens.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) tokens: Vec<u32>,
    pub(crate) end: Result<FinishReason, SequenceFailure>,
}

/// Lets a model compute one step at a time, and remembers what it was given: for each sequence of a step its first token,
/// its position, and the number of its tokens.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    inner: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Default)]
struct GateState {
    permits: usize,
    is_open: bool,
    entered: usize,
    steps: Vec<Vec<(u32, usize, usize)>>,
}

/// What a step gives.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Right,
    NotANumber,
}

/// A model with something that happens before each step.
struct Hooked<F> {
    model: HashForward,
    before_step: F,
}

impl Worker {
    pub(crate) fn start(blocks: usize, config: EngineConfig) -> Self {
        Self::start_hooked(blocks, config, |_| Answer::Right)
    }

    /// The model waits for the gate before each step.
    pub(crate) fn start_gated(blocks: usize, config: EngineConfig) -> (Self, Gate) {
        let gate = Gate::default();
        let held = gate.clone();
        let worker = Self::start_hooked(blocks, config, move |batch| {
            held.pass(batch);
            Answer::Right
        });
        (worker, gate)
    }

    pub(crate) fn start_hooked(
        blocks: usize,
        config: EngineConfig,
        before_step: impl FnMut(&[StepSequence<'_>]) -> Answer + Send + 'static,
    ) -> Self {
        Self::start_speculating(blocks, config, None, before_step)
    }

    /// An engine that drafts, if `speculation` is given.
    pub(crate) fn start_speculating(
        blocks: usize,
        config: EngineConfig,
        speculation: Option<Speculation>,
        before_step: impl FnMut(&[StepSequence<'_>]) -> Answer + Send + 'static,
    ) -> Self {
        let memory = KvMemory::allocate(&LAYOUT, blocks);
        let model = HashForward::new(LAYOUT, memory.clone(), VOCAB, CONTEXT);
        let forward = Box::new(Hooked { model, before_step });
        let mirror = Mirror::default();
        let observer = Box::new(mirror.clone());
        let engine = Engine::start_speculating(forward, EOS.to_vec(), config, Some(observer), speculation);
        Self { engine, memory, blocks, mirror }
    }

    /// Copies one layer of a block to another worker, as a network card would.
    pub(crate) fn push(from: (&KvMemory, usize, BlockId), to: (&KvMemory, usize, BlockId), layer: usize) {
        let piece = LAYOUT.piece_bytes();
        let offset = |blocks: usize, id: BlockId| (layer * blocks + id.0 as usize) * piece;
        // SAFETY: both offsets are of whole pieces in pools of that many blocks, of different allocations.
        unsafe {
            let source = from.0.base().add(offset(from.1, from.2));
            let target = to.0.base().add(offset(to.1, to.2));
            source.copy_to_nonoverlapping(target, piece);
        }
    }

    /// All blocks can be taken, and nobody waits or runs.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        let load = self.engine.load();
        assert_eq!(load.blocks.available(), self.blocks, "{load:?}");
        assert_eq!(load.blocks.cached, load.blocks.indexed, "{load:?}");
        assert_eq!((load.blocks.owned, load.blocks.held), (0, 0), "{load:?}");
        assert_eq!(
            (load.waiting, load.running, load.reservations, load.waiting_prompt_tokens),
            (0, 0, 0, 0),
            "{load:?}"
        );
    }

    /// Finishes everything and checks that nothing is left.
    pub(crate) async fn drain(&self) {
        within(self.engine.shutdown(baton_engine::Shutdown::Drain)).await;
        self.assert_empty();
        assert_eq!(self.mirror.len(), self.engine.load().blocks.indexed);
    }
}

impl Gate {
    /// Lets `steps` more steps be computed.
    pub(crate) fn allow(&self, steps: usize) {
        self.change(|state| state.permits += steps);
    }

    /// Lets everything be computed.
    pub(crate) fn open(&self) {
        self.change(|state| state.is_open = true);
    }

    /// Waits until the model is about to compute step number `step`, counted from 1.
    pub(crate) fn wait_for_step(&self, step: usize) {
        let (state, changed) = &*self.inner;
        let (_state, wait) =
            changed.wait_timeout_while(state.lock().unwrap(), HANG, |state| state.entered < step).unwrap();
        assert!(!wait.timed_out(), "step {step} never came");
    }

    /// For each step, the sequences: first token, position, number of tokens.
    pub(crate) fn steps(&self) -> Vec<Vec<(u32, usize, usize)>> {
        self.inner.0.lock().unwrap().steps.clone()
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.inner.0.lock().unwrap());
        self.inner.1.notify_all();
    }

    /// What a model does before each step.
    pub(crate) fn pass(&self, batch: &[StepSequence<'_>]) {
        let (state, changed) = &*self.inner;
        let mut state = state.lock().unwrap();
        state.entered += 1;
        state.steps.push(batch.iter().map(|s| (s.tokens[0], s.position, s.tokens.len())).collect());
        changed.notify_all();
        state = changed.wait_while(state, |state| state.permits == 0 && !state.is_open).unwrap();
        state.permits = state.permits.saturating_sub(1);
    }
}

impl<F: FnMut(&[StepSequence<'_>]) -> Answer + Send> Forward for Hooked<F> {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }
    fn kv_layout(&self) -> KvLayout {
        self.model.kv_layout()
    }
    fn num_blocks(&self) -> usize {
        self.model.num_blocks()
    }
    fn max_context_tokens(&self) -> usize {
        self.model.max_context_tokens()
    }
    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        match (self.before_step)(batch) {
            Answer::Right => self.model.step(batch, on_layer),
            Answer::NotANumber => {
                self.model.step(batch, on_layer);
                &[f32::NAN; VOCAB]
            }
        }
    }
}

/// A prompt of `len` tokens that starts with `first`.
pub(crate) fn prompt(first: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (first + i * 7) % VOCAB as u32).collect()
}

/// Greedy, and never ended by the model.
pub(crate) fn endless(max_tokens: u32) -> SamplingParams {
    SamplingParams { ignore_eos: true, ..SamplingParams::greedy(max_tokens) }
}

pub(crate) fn request(prompt: Vec<u32>, sampling: SamplingParams) -> SequenceRequest {
    SequenceRequest::new("test", prompt, sampling)
}

/// A request whose blocks are reserved, for a prompt that starts with 3.
pub(crate) fn reserved(
    prompt_tokens: usize,
    sampling: &SamplingParams,
    deadline: Option<std::time::Instant>,
) -> SequenceRequest {
    SequenceRequest { deadline, ..request(prompt(3, prompt_tokens), sampling.clone()) }
}

/// What the request gives when it is alone, with all the room there is.
pub(crate) async fn alone(request: SequenceRequest) -> Outcome {
    let worker = Worker::start(CONTEXT, EngineConfig::default());
    finish(worker.engine.submit(request).unwrap()).await
}

/// All tokens, and the terminal event, which must be the last.
pub(crate) async fn finish(mut handle: SequenceHandle) -> Outcome {
    let mut tokens = Vec::new();
    let end = loop {
        match within(handle.recv()).await.expect("a terminal event comes before the end") {
            SequenceEvent::Prefilled(_) => assert!(tokens.is_empty(), "before the first token"),
            SequenceEvent::Token(token) => tokens.push(token.id),
            SequenceEvent::Finished(reason, _) => break Ok(reason),
            SequenceEvent::Failed(failure) => break Err(failure),
        }
    };
    assert_eq!(within(handle.recv()).await, None, "nothing follows the terminal event");
    Outcome { tokens, end }
}

/// The next event, which must be a token.
pub(crate) async fn next_token(handle: &mut SequenceHandle) -> u32 {
    loop {
        match within(handle.recv()).await {
            Some(SequenceEvent::Prefilled(_)) => {}
            Some(SequenceEvent::Token(token)) => return token.id,
            other => panic!("a token was expected, not {other:?}"),
        }
    }
}

/// Turns a hang into a failure.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("no hang")
}

/// What a future gives when polled once.
pub(crate) fn polled_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
