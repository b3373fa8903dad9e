//! Where a request goes: policy, pure. It sees a view of the fleet and the request's size, and is handed `now`.
//!
//! The one policy so far goes by load alone; the seam is here because cache-aware placement takes its place beside it.

mod least_loaded;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

pub use least_loaded::LeastLoaded;

use crate::error::{NeverFits, NoDecodeWorker, NoSuchAdapter};

/// The size of one request.
#[derive(Clone, Copy, Debug)]
pub struct PlacementRequest<'a> {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens to generate at most.
    pub max_tokens: u64,
    /// Decode workers that have failed this request already.
    pub tried: &'a [String],
    /// The adapter that computes it beside the model.
    pub adapter: Option<&'a str>,
}

/// A decode worker, as the policy sees it.
#[derive(Clone, Debug, Default)]
pub struct DecodeView {
    /// Its id.
    pub worker_id: String,
    /// Which of its lives.
    pub incarnation: u64,
    /// Requests waiting or running by its own last report.
    pub reported_requests: u64,
    /// Requests that this scheduler has there now.
    pub in_flight_requests: u64,
    /// Free KV blocks by its own last report.
    pub blocks_free: u64,
    /// Tokens that its KV cache holds when empty.
    pub capacity_tokens: u64,
    /// Takes no new requests.
    pub is_draining: bool,
    /// When a call to it last failed.
    pub failed_at: Option<Instant>,
    /// Requests placed there so far.
    pub placed: u64,
    /// Its adapters by name, with their revisions.
    pub adapters: Arc<BTreeMap<String, String>>,
}

/// A prefill worker, as the policy sees it.
#[derive(Clone, Debug, Default)]
pub struct PrefillView {
    /// Its id.
    pub worker_id: String,
    /// Prompt tokens queued or not yet computed by its own last report.
    pub reported_prompt_tokens: u64,
    /// Prompt tokens that this scheduler has sent there and that have not led to a first token.
    pub in_flight_prompt_tokens: u64,
    /// Takes no new requests.
    pub is_draining: bool,
    /// Requests placed there so far.
    pub placed: u64,
    /// Decode workers that it can hand KV blocks to now: their incarnations, by id.
    pub connected: Arc<BTreeMap<String, u64>>,
    /// Its adapters by name, with their revisions.
    pub adapters: Arc<BTreeMap<String, String>>,
}

/// The fleet at one moment.
#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// Decode workers.
    pub decode: Vec<DecodeView>,
    /// Prefill workers.
    pub prefill: Vec<PrefillView>,
}

/// Where a request goes: indexes into the [`FleetView`] that was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The decode worker.
    pub decode: usize,
    /// Prefill workers that are connected to it, best first; empty: prefill where it decodes.
    pub prefill: Vec<usize>,
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the fact of the same name")]
pub enum PlacementRefused {
    #[error(transparent)]
    NoDecodeWorker(#[from] NoDecodeWorker),
    #[error(transparent)]
    NeverFits(#[from] NeverFits),
    #[error(transparent)]
    NoSuchAdapter(#[from] NoSuchAdapter),
}

/// Chooses a decode worker and ranks prefill workers.
pub trait PlacementPolicy: Send + Sync {
    /// Decides on `fleet` as it is `now`.
    ///
    /// # Errors
    /// [`PlacementRefused`].
    fn place(
        &self,
        request: &PlacementRequest<'_>,
        fleet: &FleetView,
        now: Instant,
    ) -> Result<Placement, PlacementRefused>;
}

/// A decode worker whose last call failed is avoided for this long, if there is another: the registry needs up to about
/// a second to notice that a worker is gone.
pub(crate) const AVOID_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Prefill candidates handed to the sidecar: it needs a second choice, not the whole fleet.
pub(crate) const MOST_PREFILL_CANDIDATES: usize = 4;
