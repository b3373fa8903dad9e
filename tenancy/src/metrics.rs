//! Usage by key and team, and what became of keys, limits and the audit log.
//!
//! A label is a configured name, never what a client sent; a key's series go when the key goes.

use baton_line_log::LogMetrics;
use baton_process::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(crate) struct KeyLabels {
    pub(crate) key: String,
    pub(crate) team: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    key: String,
    team: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ReloadLabels {
    pub(crate) outcome: &'static str,
}

/// How a request ended, as far as metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Served,
    Refused,
    Failed,
    Cancelled,
}

impl Ending {
    const ALL: [Self; 4] = [Self::Served, Self::Refused, Self::Failed, Self::Cancelled];

    /// By the status that the client got.
    pub(crate) fn of(status: u16) -> Self {
        match status {
            ..400 => Self::Served,
            499 => Self::Cancelled,
            400..500 | 503 => Self::Refused,
            _ => Self::Failed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
}

/// One key's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    /// By [`Ending`].
    requests: [Counter; 4],
    prompt: Counter,
    cached: Counter,
    output: Counter,
    pub(crate) running: Gauge,
}

/// Handles to every metric; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct TenancyMetrics {
    requests: Family<OutcomeLabels, Counter>,
    prompt_tokens: Family<KeyLabels, Counter>,
    cached_tokens: Family<KeyLabels, Counter>,
    output_tokens: Family<KeyLabels, Counter>,
    running: Family<KeyLabels, Gauge>,
    pub(crate) refusals: Family<ReasonLabels, Counter>,
    pub(crate) reloads: Family<ReloadLabels, Counter>,
    pub(crate) keys: Gauge,
    pub(crate) audit: LogMetrics,
}

impl TenancyMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let audit = LogMetrics::register(metrics, "baton_audit", "the audit log");
        let this = Self { audit, ..Self::default() };
        metrics.register(|registry| {
            let own = registry.sub_registry_with_prefix("baton_tenant");
            own.register("requests", "Requests by key, team and outcome", this.requests.clone());
            own.register("prompt_tokens", "Prompt tokens by key and team", this.prompt_tokens.clone());
            own.register(
                "cached_prompt_tokens",
                "Prompt tokens that were not computed again",
                this.cached_tokens.clone(),
            );
            own.register("output_tokens", "Generated tokens by key and team", this.output_tokens.clone());
            own.register("running", "Requests being served", this.running.clone());
            own.register("refusals", "Requests refused, by reason", this.refusals.clone());
            own.register("key_reloads", "Changed key files, taken or found wrong", this.reloads.clone());
            own.register("keys", "Keys known", this.keys.clone());
        });
        this
    }

    /// What a key's holder counts in.
    pub(crate) fn usage(&self, labels: &KeyLabels) -> Usage {
        let of = |ending| self.requests.get_or_create(&OutcomeLabels::new(labels, ending)).clone();
        Usage {
            requests: Ending::ALL.map(of),
            prompt: self.prompt_tokens.get_or_create(labels).clone(),
            cached: self.cached_tokens.get_or_create(labels).clone(),
            output: self.output_tokens.get_or_create(labels).clone(),
            running: self.running.get_or_create(labels).clone(),
        }
    }

    /// Forgets a key. Requests of it that still run count for themselves.
    pub(crate) fn forget(&self, labels: &KeyLabels) {
        for ending in Ending::ALL {
            self.requests.remove(&OutcomeLabels::new(labels, ending));
        }
        for family in [&self.prompt_tokens, &self.cached_tokens, &self.output_tokens] {
            family.remove(labels);
        }
        self.running.remove(labels);
    }
}

impl OutcomeLabels {
    fn new(KeyLabels { key, team }: &KeyLabels, ending: Ending) -> Self {
        Self { key: key.clone(), team: team.clone(), outcome: ending.name() }
    }
}

impl Usage {
    /// A request is over.
    pub(crate) fn count(&self, ending: Ending, tokens: Tokens) {
        self.requests[ending as usize].inc();
        self.prompt.inc_by(tokens.prompt);
        self.cached.inc_by(tokens.cached);
        self.output.inc_by(tokens.output);
    }
}
