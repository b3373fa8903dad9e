//! One worker of the fleet.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use baton_policy::view;
use baton_proto::v1::{AdapterReport, Role, Step, WorkReport, WorkerInfo, WorkerLoad};
use baton_tls::Dial;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::{Pairs, Revisions, StepSamples};
use crate::router::{Reach, Tracked, WorkerFacts};

/// A worker from its joining to its loss.
pub(crate) struct Member {
    pub(crate) info: WorkerInfo,
    /// Cancelled when its requests must be given up.
    pub(crate) lost: CancellationToken,
    /// To its sidecar; one HTTP/2 connection, made at the first call. Decode workers only.
    pub(crate) channel: Option<Channel>,
    pub(super) in_flight_requests: AtomicU64,
    pub(super) in_flight_prompt_tokens: AtomicU64,
    tracked: OnceLock<Arc<Tracked>>,
    session: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    load: WorkerLoad,
    reported_at: Option<Instant>,
    failed_at: Option<Instant>,
    /// A prefill worker's.
    pairs: Pairs,
    steps: StepSamples,
    pub(super) adapter_report: AdapterReport,
    /// What of that placement needs.
    pub(super) adapters: Arc<Revisions>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A peer that is gone without a word (its machine lost power) is noticed after interval and timeout together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(500);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(1);

impl Member {
    /// Must be called on a tokio runtime: the channel has a task there.
    pub(super) fn new(info: WorkerInfo, lost: CancellationToken, dial: &Dial) -> Result<Self, String> {
        let channel = match info.role() {
            Role::Decode => Some(connect(&info.serving_endpoint, dial)?),
            Role::Prefill | Role::Unspecified => None,
        };
        Ok(Self {
            info,
            lost,
            channel,
            in_flight_requests: AtomicU64::new(0),
            in_flight_prompt_tokens: AtomicU64::new(0),
            tracked: OnceLock::new(),
            session: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.info.worker_id
    }

    pub(crate) fn role(&self) -> Role {
        self.info.role()
    }

    /// Tokens that its KV cache holds when empty.
    pub(crate) fn capacity_tokens(&self) -> u64 {
        self.info.kv_cache.as_ref().map_or(0, |kv| u64::from(kv.num_blocks) * u64::from(kv.block_tokens))
    }

    /// Tokens of a KV block.
    pub(crate) fn block_tokens(&self) -> u32 {
        self.info.kv_cache.as_ref().map_or(1, |kv| kv.block_tokens)
    }

    /// What decisions go by, of what does not change.
    pub(crate) fn facts(&self) -> WorkerFacts {
        let kv = self.info.kv_cache.clone().unwrap_or_default();
        let bytes = if kv.dtype == "f32" { 4.0 } else { 2.0 };
        // Gateways send requests to sidecars, which call prefill workers.
        let address =
            if self.role() == Role::Prefill { &self.info.endpoint } else { &self.info.gateway_endpoint };
        let address = Some(address.clone()).filter(|address| !address.is_empty());
        WorkerFacts {
            id: self.info.worker_id.clone(),
            incarnation: self.info.incarnation,
            role: if self.role() == Role::Prefill { view::Role::Prefill } else { view::Role::Decode },
            reach: if address.is_some() { Reach::Both } else { Reach::Front },
            address,
            labels: self.info.labels.clone().into_iter().collect(),
            capacity_tokens: self.capacity_tokens(),
            block_tokens: self.block_tokens(),
            // Keys and values.
            kv_bytes_per_token: 2.0
                * bytes
                * [kv.layers, kv.kv_heads, kv.head_dim].map(f64::from).iter().product::<f64>(),
        }
    }

    /// Its place in the index of caches.
    pub(super) fn tracked(&self) -> Option<Arc<Tracked>> {
        self.tracked.get().cloned()
    }

    pub(super) fn set_tracked(&self, tracked: Arc<Tracked>) {
        // One stream of a life follows another.
        let _ = self.tracked.set(tracked);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.with_state(|state| state.load.draining)
    }

    /// Its last report, and when it came.
    pub(crate) fn load(&self) -> (WorkerLoad, Option<Instant>) {
        self.with_state(|state| (state.load, state.reported_at))
    }

    pub(crate) fn in_flight(&self) -> (u64, u64) {
        (
            self.in_flight_requests.load(Ordering::Relaxed),
            self.in_flight_prompt_tokens.load(Ordering::Relaxed),
        )
    }

    pub(super) fn report(&self, load: WorkerLoad, now: Instant) {
        self.with_state(|state| {
            state.load = load;
            state.reported_at = Some(now);
        });
    }

    pub(super) fn note_work(&self, report: &WorkReport) {
        self.with_state(|state| report.steps.iter().for_each(|step| state.steps.add(*step)));
    }

    /// Steps that it computed, of every kind some of the last.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.with_state(|state| state.steps.iter().copied().collect())
    }

    /// Its pairs, by its last report of them.
    pub(crate) fn pairs(&self) -> Pairs {
        self.with_state(|state| state.pairs.clone())
    }

    /// Returns the former ones.
    pub(super) fn set_pairs(&self, pairs: Pairs) -> Pairs {
        self.with_state(|state| std::mem::replace(&mut state.pairs, pairs))
    }

    pub(super) fn note_failure(&self, now: Instant) {
        self.with_state(|state| state.failed_at = Some(now));
    }

    pub(super) fn begin_session(&self, number: u64) {
        self.session.store(number, Ordering::Relaxed);
    }

    pub(super) fn session(&self) -> u64 {
        self.session.load(Ordering::Relaxed)
    }

    pub(super) fn with_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn connect(endpoint: &str, dial: &Dial) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))
        .map_err(|error| format!("serving_endpoint {endpoint:?} is not host:port: {error}"))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .tcp_nodelay(true);
    Ok(dial.connect_lazy(&endpoint))
}
