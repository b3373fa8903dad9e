//! Who is eligible.

use crate::view::{FleetView, Ms, RequestView};

/// A rule that a worker must pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Not draining.
    Drain,
    /// Has not failed this request, nor (if there is another) any within these milliseconds.
    Failed {
        /// How long a failure is held against it.
        avoid_ms: Ms,
    },
    /// One of those that the gateway allows.
    Subset,
    /// Could hold the request when empty.
    Capacity,
    /// Has the request's adapter loaded.
    Adapter,
    /// Has the labels that the request asks for.
    RequestLabels,
    /// Has this label with this value.
    Label {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Has cached at least this share of the prompt, if anybody has.
    Prefix {
        /// From 0 to 1.
        min_share: f64,
    },
}

impl Filter {
    /// Those that the default has; a worker that fails one of them could not serve.
    pub const DEFAULT: [Self; 6] = [
        Self::Drain,
        Self::Failed { avoid_ms: 1_000.0 },
        Self::Subset,
        Self::Capacity,
        Self::Adapter,
        Self::RequestLabels,
    ];

    /// As in files and refusals.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Failed { .. } => "failed",
            Self::Subset => "subset",
            Self::Capacity => "capacity",
            Self::Adapter => "adapter",
            Self::RequestLabels => "request-labels",
            Self::Label { .. } => "label",
            Self::Prefix { .. } => "prefix",
        }
    }

    /// Whether it expresses a wish: if nobody passes, it is as if it were not there.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Prefix { .. })
    }

    /// Whether it could exclude anybody from `request`.
    #[must_use]
    pub fn concerns(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Subset => !request.subset.is_empty(),
            Self::Adapter => request.adapter.is_some(),
            Self::RequestLabels => !request.labels.is_empty(),
            Self::Drain | Self::Failed { .. } | Self::Capacity | Self::Label { .. } | Self::Prefix { .. } => {
                true
            }
        }
    }

    /// Whether worker `index` passes.
    #[must_use]
    pub fn admits(&self, fleet: &FleetView, index: usize, request: &RequestView<'_>, now: Ms) -> bool {
        let worker = &fleet.workers[index];
        match self {
            Self::Drain => !worker.is_draining,
            Self::Failed { avoid_ms } => worker.failed_at.is_none_or(|at| now - at >= *avoid_ms),
            Self::Subset => request.subset.is_empty() || request.subset.contains(&index),
            // It must hold the prompt in any case, and what may come after it where it generates.
            Self::Capacity => {
                let needed = request.prompt_tokens + if worker.decodes() { request.max_tokens } else { 1 };
                worker.kv_capacity_tokens >= needed
            }
            Self::Adapter => request.adapter.is_none_or(|name| worker.adapters.contains(name)),
            Self::RequestLabels => request
                .labels
                .iter()
                .all(|(key, value)| worker.labels.get(*key).is_some_and(|has| has == value)),
            Self::Label { key, value } => worker.labels.get(key) == Some(value),
            Self::Prefix { min_share } => {
                request.cached_at(index).tokens() as f64 >= min_share * request.prompt_tokens as f64
            }
        }
    }
}
