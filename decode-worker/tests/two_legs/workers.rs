//! Workers of the real kind over a model's double, whose steps a test can hold up.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use baton_decode_worker::DecodeService;
use baton_engine::{BlockCounts, Dtype, Engine, EngineConfig, Forward, HashForward, KvLayout, StepSequence};
use baton_kv_transfer::{FabricSpec, TransferNode};
use baton_prefill_worker::PrefillService;
use baton_process::Metrics;
use baton_worker::{RequestMetrics, Worker, kv_memory, transfer_config};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

pub(crate) const VOCAB: usize = 50;
pub(crate) const CONTEXT: usize = 96;
pub(crate) const BLOCK_TOKENS: usize = 4;
/// With a multiple of 32 blocks a pool is whole pages.
pub(crate) const LAYOUT: KvLayout =
    KvLayout { layers: 3, kv_heads: 2, head_dim: 4, block_tokens: BLOCK_TOKENS, dtype: Dtype::Bf16 };

/// Only ever spent by a failing test.
const HANG: Duration = Duration::from_secs(30);
/// Between two looks at a condition that another thread brings about.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Fails the test when `future` takes for ever.
#[track_caller]
pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move { tokio::time::timeout(HANG, future).await.unwrap_or_else(|_| panic!("hangs at {caller}")) }
}

/// Waits until `look` finds what it looks for.
#[track_caller]
pub(crate) fn eventually(what: &str, mut look: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let (what, caller) = (what.to_owned(), std::panic::Location::caller());
    async move {
        let looking = async {
            while !look() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(HANG, looking).await.unwrap_or_else(|_| panic!("never: {what}, at {caller}"));
    }
}

/// Lets steps through, or not.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    state: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    /// Steps let through though it is closed.
    allowed: usize,
}

impl Gate {
    /// No further steps but `allowed`.
    pub(crate) fn close(&self, allowed: usize) {
        *self.state.0.lock().unwrap() = GateState { closed: true, allowed };
    }

    pub(crate) fn open(&self) {
        self.state.0.lock().unwrap().closed = false;
        self.state.1.notify_all();
    }

    fn pass(&self) {
        let lock = self.state.0.lock().unwrap();
        let mut state = self.state.1.wait_while(lock, |state| state.closed && state.allowed == 0).unwrap();
        state.allowed = state.allowed.saturating_sub(1);
    }
}

struct Gated {
    inner: HashForward,
    gate: Gate,
}

impl Forward for Gated {
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn kv_layout(&self) -> KvLayout {
        self.inner.kv_layout()
    }

    fn num_blocks(&self) -> usize {
        self.inner.num_blocks()
    }

    fn max_context_tokens(&self) -> usize {
        self.inner.max_context_tokens()
    }

    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        self.gate.pass();
        self.inner.step(batch, on_layer)
    }
}

/// A worker and its gRPC server.
pub(crate) struct Served {
    pub(crate) worker: Arc<Worker>,
    pub(crate) address: SocketAddr,
    pub(crate) gate: Gate,
    server: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn prefill() -> Self {
        Self::start(64, |worker| Routes::new(PrefillService::new(worker).into_server())).await
    }

    pub(crate) async fn decode(blocks: u32) -> Self {
        Self::start(blocks, |worker| Routes::new(DecodeService::new(worker).into_server())).await
    }

    async fn start(blocks: u32, routes: impl FnOnce(Arc<Worker>) -> Routes) -> Self {
        let config = transfer_config(FabricSpec::Shm, &LAYOUT, blocks, "double");
        let node = TransferNode::start(config).await.unwrap();
        let inner = HashForward::new(LAYOUT, kv_memory(node.pool()), VOCAB, CONTEXT);
        assert_eq!(inner.num_blocks(), blocks as usize, "the pool is whole pages");
        let gate = Gate::default();
        let forward = Gated { inner, gate: gate.clone() };
        let config =
            EngineConfig { max_step_tokens: 16, layer_group: 1, growth_tokens: 8, ..EngineConfig::default() };
        let engine = Engine::start(Box::new(forward), Vec::new(), config);
        let metrics = RequestMetrics::register(&Metrics::new(), "double");
        let worker = Arc::new(Worker::new(engine, node, metrics, VOCAB));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_routes(routes(worker.clone()));
        let server = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self { worker, address, gate, server }
    }

    pub(crate) fn blocks(&self) -> BlockCounts {
        self.worker.engine.load().blocks
    }

    /// Nothing is held here any more.
    #[track_caller]
    pub(crate) fn empties(&self) -> impl Future<Output = ()> {
        let worker = self.worker.clone();
        eventually("every block is free, no call and no transfer is left", move || {
            let (load, stats) = (worker.engine.load(), worker.node.stats());
            let blocks = load.blocks;
            blocks.available() == blocks.total
                && worker.calls.is_empty()
                && stats.incoming_live == 0
                && load.waiting == 0
        })
    }

    /// Ends as a process does that is killed: its calls break, its connections close.
    pub(crate) async fn kill(&self) {
        self.server.abort();
        self.worker.stop.cancel();
        self.gate.open();
        self.worker.node.shutdown().await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.gate.open();
        self.server.abort();
    }
}
