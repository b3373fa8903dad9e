//! What each metric is called: by llm-d's router today, and by it and the Gateway API Inference Extension before.
//!
//! Taken from `pkg/epp/metrics` of llm-d/llm-d-router (August 2026) and of kubernetes-sigs/gateway-api-inference-extension v0.3.0. Counters are
//! written here without `_total`, which is added when they are shown.

use prometheus_client::metrics::MetricType::{self, Counter, Gauge, Histogram};

use super::samples::{
    self,
    Label::{self, *},
    Sample, Scrape, Value,
};

/// A metric under all its names.
pub(super) struct Family {
    pub(super) kind: MetricType,
    pub(super) help: &'static str,
    pub(super) samples: fn(&Scrape<'_>) -> Vec<Sample>,
    /// The one of today, then older ones.
    pub(super) names: &'static [Name],
}

/// A name with the labels that it has: what each is called, and what it is.
pub(super) struct Name {
    pub(super) name: &'static str,
    pub(super) labels: &'static [(&'static str, Label)],
}

const fn name(name: &'static str, labels: &'static [(&'static str, Label)]) -> Name {
    Name { name, labels }
}

const MODELS: &[(&str, Label)] = &[("model_name", Model), ("target_model_name", Model)];
const MODELS_WITH_PRIORITY: &[(&str, Label)] =
    &[("model_name", Model), ("target_model_name", Model), ("priority", Priority)];
const WHO: &[(&str, Label)] =
    &[("model_name", Model), ("target_model_name", Model), ("fairness_id", Tenant), ("priority", Priority)];
const WHO_STREAMING: &[(&str, Label)] = &[
    ("model_name", Model),
    ("target_model_name", Model),
    ("fairness_id", Tenant),
    ("priority", Priority),
    ("streaming", Streaming),
];
const WHO_ERROR: &[(&str, Label)] = &[
    ("model_name", Model),
    ("target_model_name", Model),
    ("fairness_id", Tenant),
    ("priority", Priority),
    ("error_code", ErrorCode),
];
const MODELS_ERROR: &[(&str, Label)] =
    &[("model_name", Model), ("target_model_name", Model), ("error_code", ErrorCode)];
const MODEL: &[(&str, Label)] = &[("model_name", Model)];
const POOL: &[(&str, Label)] = &[("name", Pool)];
const PLUGIN: &[(&str, Label)] = &[("plugin_name", Plugin), ("plugin_type", Plugin)];
const PLUGIN_MODELS: &[(&str, Label)] =
    &[("plugin_name", Plugin), ("plugin_type", Plugin), ("model_name", Model), ("target_model_name", Model)];
const PLUGIN_DECISION: &[(&str, Label)] = &[
    ("plugin_name", Plugin),
    ("plugin_type", Plugin),
    ("model_name", Model),
    ("decision_type", DecisionType),
];
const DECISION: &[(&str, Label)] = &[("model_name", Model), ("decision_type", DecisionType)];
const FLOW: &[(&str, Label)] = &[
    ("fairness_id", Tenant),
    ("priority", Priority),
    ("inference_pool", Pool),
    ("model_name", Model),
    ("target_model_name", Model),
];
const FLOW_OUTCOME: &[(&str, Label)] = &[
    ("fairness_id", Tenant),
    ("priority", Priority),
    ("outcome", Outcome),
    ("inference_pool", Pool),
    ("model_name", Model),
    ("target_model_name", Model),
];
const FLOW_ENQUEUE: &[(&str, Label)] =
    &[("fairness_id", Tenant), ("priority", Priority), ("outcome", Outcome)];
const ENDPOINT: &[(&str, Label)] = &[
    ("status", Status),
    ("target_model_name", Model),
    ("endpoint_name", Worker),
    ("namespace", Namespace),
    ("port", Port),
];
const POD: &[(&str, Label)] = &[
    ("status", Status),
    ("target_model_name", Model),
    ("pod_name", Worker),
    ("namespace", Namespace),
    ("port", Port),
];
const STAGE: &[(&str, Label)] = &[("inference_pool", Pool), ("stage", Stage)];
const BUILD: &[(&str, Label)] = &[("commit", Empty), ("build_ref", Build)];

/// Defines a table's rows in the order kind, help, samples, names.
const fn family(
    kind: MetricType,
    help: &'static str,
    samples: fn(&Scrape<'_>) -> Vec<Sample>,
    names: &'static [Name],
) -> Family {
    Family { kind, help, samples, names }
}

/// All of them.
pub(super) const FAMILIES: &[Family] = &[
    family(
        Counter,
        "Requests",
        |scrape| samples::by_requests(scrape, |requests| Value::Count(requests.total)),
        &[
            name("llm_d_epp_request", WHO),
            name("inference_objective_request", MODELS_WITH_PRIORITY),
            name("inference_model_request", MODELS),
        ],
    ),
    family(
        Counter,
        "Requests that were refused or failed",
        samples::errors,
        &[
            name("llm_d_epp_request_error", WHO_ERROR),
            name("inference_objective_request_error", MODELS_ERROR),
            name("inference_model_request_error", MODELS_ERROR),
        ],
    ),
    family(
        Histogram,
        "From a request's arrival to its end",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.duration.clone())),
        &[
            name("llm_d_epp_request_duration_seconds", WHO),
            name("inference_objective_request_duration_seconds", MODELS),
            name("inference_model_request_duration_seconds", MODELS),
        ],
    ),
    family(
        Histogram,
        "Bytes of request bodies",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.request_bytes.clone())),
        &[
            name("llm_d_epp_request_size_bytes", WHO),
            name("inference_objective_request_sizes", MODELS),
            name("inference_model_request_sizes", MODELS),
        ],
    ),
    family(
        Histogram,
        "Bytes of answers",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.response_bytes.clone())),
        &[
            name("llm_d_epp_response_size_bytes", WHO),
            name("inference_objective_response_sizes", MODELS),
            name("inference_model_response_sizes", MODELS),
        ],
    ),
    family(
        Histogram,
        "Tokens of prompts",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.input_tokens.clone())),
        &[
            name("llm_d_epp_request_input_tokens", WHO),
            name("inference_objective_input_tokens", MODELS),
            name("inference_model_input_tokens", MODELS),
        ],
    ),
    family(
        Histogram,
        "Tokens of answers",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.output_tokens.clone())),
        &[
            name("llm_d_epp_request_output_tokens", WHO),
            name("inference_objective_output_tokens", MODELS),
            name("inference_model_output_tokens", MODELS),
        ],
    ),
    family(
        Histogram,
        "Tokens of prompts that were cached",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.cached_tokens.clone())),
        &[
            name("llm_d_epp_request_cached_tokens", WHO),
            name("inference_objective_prompt_cached_tokens", MODELS),
        ],
    ),
    family(
        Gauge,
        "Requests under way",
        |scrape| samples::by_requests(scrape, |requests| Value::Level(requests.running as f64)),
        &[
            name("llm_d_epp_request_running", WHO),
            name("inference_objective_running_requests", MODEL),
            name("inference_model_running_requests", MODEL),
        ],
    ),
    family(
        Histogram,
        "A request's time by tokens of its answer",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.normalized.clone())),
        &[
            name("llm_d_epp_request_ntpot_seconds", WHO),
            name("inference_objective_normalized_time_per_output_token_seconds", MODELS),
        ],
    ),
    family(
        Histogram,
        "From a request's arrival to its first token; of answers in one piece to their end",
        samples::first_tokens,
        &[
            name("llm_d_epp_request_ttft_seconds", WHO_STREAMING),
            name("inference_objective_request_ttft_seconds", MODELS),
        ],
    ),
    family(
        Histogram,
        "Mean time between tokens of a stream",
        |scrape| samples::by_requests(scrape, |requests| Value::Spread(requests.tpot.clone())),
        &[
            name("llm_d_epp_request_streaming_tpot_seconds", WHO),
            name("inference_objective_request_tpot_seconds", MODELS),
        ],
    ),
    family(
        Histogram,
        "Time to first token as it was predicted",
        samples::predictions,
        &[
            name("llm_d_epp_request_predicted_ttft_seconds", PLUGIN_MODELS),
            name("inference_objective_request_predicted_ttft_seconds", MODELS),
        ],
    ),
    family(
        Gauge,
        "Share of KV memory that requests use, of all workers the mean",
        |scrape| scrape.pool.mean(|worker| worker.kv_usage),
        &[
            name("llm_d_epp_average_kv_cache_utilization", POOL),
            name("inference_pool_average_kv_cache_utilization", POOL),
        ],
    ),
    family(
        Gauge,
        "Requests that wait at a worker, of all workers the mean",
        |scrape| scrape.pool.mean(|worker| worker.waiting),
        &[name("llm_d_epp_average_queue_size", POOL), name("inference_pool_average_queue_size", POOL)],
    ),
    family(
        Gauge,
        "Requests that are computed at a worker, of all workers the mean",
        |scrape| scrape.pool.mean(|worker| worker.running),
        &[
            name("llm_d_epp_average_running_requests", POOL),
            name("inference_pool_average_running_requests", POOL),
        ],
    ),
    family(
        Gauge,
        "Share of KV memory, the standard deviation over all workers",
        |scrape| scrape.pool.deviation(|worker| worker.kv_usage),
        &[name("llm_d_epp_std_dev_kv_cache_utilization", POOL)],
    ),
    family(
        Gauge,
        "Requests that wait at a worker, the standard deviation over all workers",
        |scrape| scrape.pool.deviation(|worker| worker.waiting),
        &[name("llm_d_epp_std_dev_queue_size", POOL)],
    ),
    family(
        Gauge,
        "Requests that are computed at a worker, the standard deviation over all workers",
        |scrape| scrape.pool.deviation(|worker| worker.running),
        &[name("llm_d_epp_std_dev_running_requests", POOL)],
    ),
    family(
        Gauge,
        "Workers that take requests",
        |scrape| scrape.pool.ready(),
        &[name("llm_d_epp_ready_endpoints", POOL), name("inference_pool_ready_pods", POOL)],
    ),
    family(
        Gauge,
        "Requests that wait at each worker",
        |scrape| scrape.pool.queues(),
        &[
            name("llm_d_epp_per_endpoint_queue_size", &[("name", Pool), ("model_server_endpoint", Worker)]),
            name("inference_pool_per_pod_queue_size", &[("name", Pool), ("model_server_pod", Worker)]),
        ],
    ),
    family(
        Counter,
        "Attempts to find a worker",
        samples::attempts,
        &[
            name("llm_d_epp_scheduler_attempts", ENDPOINT),
            name("inference_extension_scheduler_attempts", POD),
        ],
    ),
    family(
        Histogram,
        "From a request's arrival at the router until it may go, waiting included",
        |scrape| vec![Sample::new(Value::Spread(scrape.tallies.processing.clone()))],
        &[name("llm_d_epp_request_processing_duration_seconds", &[])],
    ),
    family(
        Counter,
        "Requests by where their prompt is computed",
        samples::decisions,
        &[
            name("llm_d_epp_disagg_decision", PLUGIN_DECISION),
            name("llm_d_epp_pd_decision", PLUGIN_DECISION),
            name("llm_d_inference_scheduler_disagg_decision", DECISION),
            name("llm_d_inference_scheduler_pd_decision", DECISION),
        ],
    ),
    family(
        Counter,
        "Requests by what admission did with them",
        |scrape| samples::flows(scrape, |flow| Value::Count(flow.queue.count())),
        &[name(
            "llm_d_epp_flow_control_requests",
            &[("outcome", Outcome), ("priority", Priority), ("inference_pool", Pool)],
        )],
    ),
    family(
        Histogram,
        "From a request's being offered to admission to what came of it",
        |scrape| samples::flows(scrape, |flow| Value::Spread(flow.queue.clone())),
        &[
            name("llm_d_epp_flow_control_request_queue_duration_seconds", FLOW_OUTCOME),
            name("inference_extension_flow_control_request_queue_duration_seconds", FLOW_OUTCOME),
        ],
    ),
    family(
        Histogram,
        "Offering a request to admission",
        |scrape| samples::flows(scrape, |flow| Value::Spread(flow.enqueue.clone())),
        &[
            name("llm_d_epp_flow_control_request_enqueue_duration_seconds", FLOW_ENQUEUE),
            name("inference_extension_flow_control_request_enqueue_duration_seconds", FLOW_ENQUEUE),
        ],
    ),
    family(
        Histogram,
        "Looking through those who wait",
        |scrape| vec![Sample::new(Value::Spread(scrape.tallies.cycle.clone()))],
        &[
            name("llm_d_epp_flow_control_dispatch_cycle_duration_seconds", &[]),
            name("inference_extension_flow_control_dispatch_cycle_duration_seconds", &[]),
        ],
    ),
    family(
        Gauge,
        "Requests that wait to be let in",
        |scrape| samples::by_waiting(scrape, |requests| requests.waiting),
        &[
            name("llm_d_epp_flow_control_queue_size", FLOW),
            name("inference_extension_flow_control_queue_size", FLOW),
        ],
    ),
    family(
        Gauge,
        "Bytes of requests that wait to be let in",
        |scrape| samples::by_waiting(scrape, |requests| requests.waiting_bytes),
        &[
            name("llm_d_epp_flow_control_queue_bytes", FLOW),
            name("inference_extension_flow_control_queue_bytes", FLOW),
        ],
    ),
    family(
        Gauge,
        "How full the pool is; from 1 on nothing is let in",
        |scrape| scrape.pool.saturation(),
        &[
            name("llm_d_epp_flow_control_pool_saturation", STAGE),
            name("inference_extension_flow_control_pool_saturation", STAGE),
        ],
    ),
    family(
        Gauge,
        "Cached blocks that are known",
        |scrape| samples::of_plugin(Value::Level(scrape.index_blocks as f64)),
        &[
            name("llm_d_epp_prefix_indexer_size", PLUGIN),
            name("inference_extension_prefix_indexer_size", &[]),
        ],
    ),
    family(
        Histogram,
        "Share of a prompt that is cached where it is computed",
        |scrape| samples::of_plugin(Value::Spread(scrape.tallies.hit_ratio.clone())),
        &[
            name("llm_d_epp_prefix_indexer_hit_ratio", PLUGIN),
            name("inference_extension_prefix_indexer_hit_ratio", &[]),
        ],
    ),
    family(
        Histogram,
        "Bytes of a prompt's text, about, that are cached where it is computed",
        |scrape| samples::of_plugin(Value::Spread(scrape.tallies.hit_bytes.clone())),
        &[
            name("llm_d_epp_prefix_indexer_hit_bytes", PLUGIN),
            name("inference_extension_prefix_indexer_hit_bytes", &[]),
        ],
    ),
    family(
        Gauge,
        "The scheduler's version",
        |_| samples::build(),
        &[name("llm_d_epp_info", BUILD), name("inference_extension_info", BUILD)],
    ),
];
