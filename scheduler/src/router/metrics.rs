//! What routing is like: counts, times, and how wrong predictions were.

use std::{sync::Arc, time::Duration};

use baton_kv_index::IndexStats;
use baton_policy::admission::Reason;
use baton_process::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Unit,
};

use crate::traffic::Held;

/// Handles; cheap to clone.
#[derive(Clone)]
pub(crate) struct RouterMetrics(Arc<Handles>);

struct Handles {
    decisions: Family<KindLabels, Counter>,
    decision: Histogram,
    refused: Family<ReasonLabels, Counter>,
    queued: Gauge,
    reserved_tokens: Gauge,
    predicted_ttft: Histogram,
    ttft_error: Histogram,
    index_blocks: Gauge,
    text_blocks: Gauge,
    index_bytes: Gauge,
    index_evicted: Gauge,
    traffic_requests: Gauge,
    traffic_bytes: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    prefill: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

impl RouterMetrics {
    /// Registers everything.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let seconds =
            || Histogram::new([0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        let handles = Handles {
            decisions: Family::default(),
            decision: Histogram::new([
                5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
            ]),
            refused: Family::default(),
            queued: Gauge::default(),
            reserved_tokens: Gauge::default(),
            predicted_ttft: seconds(),
            ttft_error: seconds(),
            index_blocks: Gauge::default(),
            text_blocks: Gauge::default(),
            index_bytes: Gauge::default(),
            index_evicted: Gauge::default(),
            traffic_requests: Gauge::default(),
            traffic_bytes: Gauge::default(),
        };
        metrics.register(|registry| {
            // What pickers have called it, and still do.
            for name in ["llm_d_epp_scheduler_e2e_duration", "inference_extension_scheduler_e2e_duration"] {
                registry.register_with_unit(
                    name,
                    "Finding a place for a request",
                    Unit::Seconds,
                    handles.decision.clone(),
                );
            }
            let own = registry.sub_registry_with_prefix("baton_router");
            own.register(
                "decisions",
                "Decisions, by where the prompt is computed",
                handles.decisions.clone(),
            );
            own.register_with_unit(
                "decision",
                "Finding a place for a request",
                Unit::Seconds,
                handles.decision.clone(),
            );
            own.register("refused", "Requests that were not let in", handles.refused.clone());
            own.register("queued", "Requests that wait to be let in", handles.queued.clone());
            own.register(
                "reserved_kv_tokens",
                "KV tokens that requests have or will probably have",
                handles.reserved_tokens.clone(),
            );
            let name = "predicted_time_to_first_token";
            own.register_with_unit(name, "As decided", Unit::Seconds, handles.predicted_ttft.clone());
            let help = "Between predicted and actual time to first token";
            own.register_with_unit(
                "time_to_first_token_error",
                help,
                Unit::Seconds,
                handles.ttft_error.clone(),
            );
            let help = "Cached blocks that are known, each once whoever has it";
            own.register("kv_index_blocks", help, handles.index_blocks.clone());
            let help = "Blocks of prompts' texts that are remembered as sent somewhere";
            own.register("kv_index_text_blocks", help, handles.text_blocks.clone());
            own.register("kv_index_bytes", "Memory of what is known of caches", handles.index_bytes.clone());
            let help = "Cached blocks that were forgotten to stay within the memory";
            own.register("kv_index_evicted_blocks", help, handles.index_evicted.clone());
            let help = "Requests in the record of traffic";
            own.register("traffic_requests", help, handles.traffic_requests.clone());
            own.register("traffic_bytes", "Memory of that record", handles.traffic_bytes.clone());
        });
        Self(Arc::new(handles))
    }

    pub(super) fn decided(&self, is_disaggregated: bool, took: Duration) {
        let prefill = if is_disaggregated { "prefill-worker" } else { "decode-worker" };
        self.0.decisions.get_or_create(&KindLabels { prefill }).inc();
        self.0.decision.observe(took.as_secs_f64());
    }

    pub(super) fn refused(&self, reason: Reason) {
        let reason = serde_json::to_value(reason).ok().and_then(|reason| reason.as_str().map(str::to_owned));
        self.0.refused.get_or_create(&ReasonLabels { reason: reason.unwrap_or_default() }).inc();
    }

    pub(super) fn set_queue(&self, queued: usize, reserved_tokens: u64) {
        set(&self.0.queued, queued as u64);
        set(&self.0.reserved_tokens, reserved_tokens);
    }

    pub(super) fn set_traffic(&self, held: &Held) {
        set(&self.0.traffic_requests, held.requests as u64);
        set(&self.0.traffic_bytes, held.bytes as u64);
    }

    pub(super) fn set_index(&self, [tokens, texts]: &[IndexStats; 2]) {
        set(&self.0.index_blocks, tokens.blocks as u64);
        set(&self.0.text_blocks, texts.blocks as u64);
        set(&self.0.index_bytes, (tokens.bytes + texts.bytes) as u64);
        set(&self.0.index_evicted, tokens.evicted + texts.evicted);
    }

    pub(super) fn first_token(&self, predicted_ms: f64, actual_ms: f64) {
        self.0.predicted_ttft.observe(predicted_ms / 1e3);
        self.0.ttft_error.observe((actual_ms - predicted_ms).abs() / 1e3);
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
