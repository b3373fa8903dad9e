use std::{collections::BTreeSet, time::Duration};

use baton_policy::view::Role;
use baton_proto::v1::WorkerLoad;
use futures::FutureExt as _;

use super::{names::FAMILIES, *};
use crate::{
    dispatch::Wishes,
    router::{Ask, Route, WorkerFacts},
};

/// A router with a decode worker `d`, and all that it shows.
struct Bed {
    router: Arc<Router>,
    metrics: Metrics,
}

impl Bed {
    fn new() -> Self {
        let router = Arc::new(Router::of_defaults("m"));
        let metrics = Metrics::new();
        router.epp.register(&metrics, router.clone(), "space/pool");
        let bed = Self { router, metrics };
        bed.join("d");
        bed
    }

    fn join(&self, id: &str) {
        self.router.joined(&WorkerFacts {
            id: id.to_owned(),
            incarnation: 1,
            role: Role::Decode,
            address: Some("10.0.0.7:8000".to_owned()),
            capacity_tokens: 1_000,
            block_tokens: 10,
            ..WorkerFacts::default()
        });
    }

    fn begin(&self, asked: Asked<'_>, tenant: &str, priority: i32) -> Underway {
        self.router.epp.begin(self.router.epp.who(asked, tenant, priority), 300)
    }

    /// `None`: it waits.
    fn route(&self, prompt: &[u32]) -> Option<Result<Route, crate::router::Refused>> {
        let wishes = Wishes::default();
        let ask =
            Ask { prompt, prompt_tokens: prompt.len() as u64, max_tokens: 10, bytes: 40, ..wishes.ask() };
        self.router.route(&ask).now_or_never()
    }

    /// The value of this series.
    fn value(&self, series: &str) -> Option<f64> {
        let text = self.metrics.encode();
        let rest = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(rest.parse().unwrap())
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, f64)]) {
        for (series, value) in expected {
            assert_eq!(self.value(series), Some(*value), "{series}\n{}", self.metrics.encode());
        }
    }
}

fn answered() -> Answered {
    Answered {
        is_stream: true,
        first_token: Some(Duration::ZERO),
        response_bytes: 50,
        prompt_tokens: 100,
        output_tokens: 20,
        cached_tokens: Some(60),
    }
}

#[test]
fn older_names_show_the_same_requests_with_the_labels_that_they_have() {
    let bed = Bed::new();
    bed.begin(Asked::Model, "t", 0).answered(&answered());
    bed.begin(Asked::Named("m"), "u", 0).answered(&answered());
    bed.begin(Asked::Named("gpt"), "u", 3).failed(404, true);
    let running = bed.begin(Asked::Model, "", 0);
    bed.check(&[
        (r#"llm_d_epp_request_total{model_name="m",target_model_name="m",fairness_id="t",priority="0"}"#, 1.0),
        (r#"llm_d_epp_request_total{model_name="m",target_model_name="m",fairness_id="default-flow",priority="0"}"#, 1.0),
        (r#"inference_objective_request_total{model_name="m",target_model_name="m",priority="0"}"#, 3.0),
        (r#"inference_objective_request_total{model_name="other",target_model_name="other",priority="3"}"#, 1.0),
        (r#"inference_model_request_total{model_name="m",target_model_name="m"}"#, 3.0),
        (r#"llm_d_epp_request_error_total{model_name="other",target_model_name="other",fairness_id="u",priority="3",error_code="NotFound"}"#, 1.0),
        (r#"inference_model_request_error_total{model_name="other",target_model_name="other",error_code="NotFound"}"#, 1.0),
        (r#"llm_d_epp_request_running{model_name="m",target_model_name="m",fairness_id="default-flow",priority="0"}"#, 1.0),
        (r#"inference_model_running_requests{model_name="m"}"#, 1.0),
        (r#"llm_d_epp_request_input_tokens_sum{model_name="m",target_model_name="m",fairness_id="u",priority="0"}"#, 100.0),
        (r#"inference_objective_input_tokens_bucket{le="64.0",model_name="m",target_model_name="m"}"#, 0.0),
        (r#"inference_objective_input_tokens_bucket{le="128.0",model_name="m",target_model_name="m"}"#, 2.0),
        (r#"inference_objective_prompt_cached_tokens_sum{model_name="m",target_model_name="m"}"#, 120.0),
        (r#"inference_model_request_sizes_sum{model_name="m",target_model_name="m"}"#, 900.0),
        (r#"llm_d_epp_request_ttft_seconds_count{model_name="m",target_model_name="m",fairness_id="t",priority="0",streaming="true"}"#, 1.0),
        (r#"inference_objective_request_ttft_seconds_count{model_name="m",target_model_name="m"}"#, 2.0),
    ]);
    drop(running);
    bed.check(&[(r#"inference_model_running_requests{model_name="m"}"#, 0.0)]);
}

#[test]
fn a_client_that_leaves_is_neither_an_answer_nor_an_error() {
    let bed = Bed::new();
    drop(bed.begin(Asked::Model, "", 0));
    let labels = r#"{model_name="m",target_model_name="m"}"#;
    bed.check(&[
        (&format!("inference_model_request_total{labels}"), 1.0),
        (&format!("inference_model_request_duration_seconds_count{labels}"), 0.0),
        (r#"inference_model_running_requests{model_name="m"}"#, 0.0),
    ]);
    assert!(!bed.metrics.encode().contains("inference_model_request_error_total{"));
}

#[tokio::test]
async fn what_admission_did_is_told_and_who_waits_is_shown() {
    let bed = Bed::new();
    let first = bed.route(&[7; 500]).unwrap().unwrap();
    let wishes = Wishes::default();
    let ask = Ask { prompt_tokens: 900, max_tokens: 10, bytes: 40, ..wishes.ask() };
    let mut waiting = Box::pin(bed.router.route(&ask));
    assert!(waiting.as_mut().now_or_never().is_none());
    let flow = r#"{fairness_id="default-flow",priority="0",inference_pool="pool",model_name="m",target_model_name="m"}"#;
    bed.check(&[
        (&format!("llm_d_epp_flow_control_queue_size{flow}"), 1.0),
        (&format!("inference_extension_flow_control_queue_bytes{flow}"), 40.0),
    ]);
    drop(waiting);
    bed.check(&[
        (&format!("llm_d_epp_flow_control_queue_size{flow}"), 0.0),
        (r#"llm_d_epp_flow_control_requests_total{outcome="Dispatched",priority="0",inference_pool="pool"}"#, 1.0),
        (r#"llm_d_epp_flow_control_requests_total{outcome="EvictedContextCancelled",priority="0",inference_pool="pool"}"#, 1.0),
        (r#"inference_extension_flow_control_request_enqueue_duration_seconds_count{fairness_id="default-flow",priority="0",outcome="Dispatched"}"#, 1.0),
        (r#"llm_d_epp_disagg_decision_total{plugin_name="baton-router",plugin_type="baton-router",model_name="m",decision_type="decode-only"}"#, 1.0),
        (r#"llm_d_inference_scheduler_pd_decision_total{model_name="m",decision_type="decode-only"}"#, 1.0),
    ]);
    assert!(bed.route(&[7; 5_000]).unwrap().is_err(), "it can never fit");
    bed.check(&[(
        r#"llm_d_epp_scheduler_attempts_total{status="failure",target_model_name="m",endpoint_name="",namespace="space",port=""}"#,
        1.0,
    )]);
    drop(first);
}

#[tokio::test]
async fn what_a_worker_had_goes_with_it() {
    let bed = Bed::new();
    bed.join("e");
    bed.router.reported(
        "d",
        &WorkerLoad { waiting: 4, running: 2, blocks_total: 100, blocks_free: 50, ..WorkerLoad::default() },
    );
    drop(bed.route(&[1; 100]).unwrap().unwrap());
    let attempts = |id: &str| {
        format!(
            r#"inference_extension_scheduler_attempts_total{{status="success",target_model_name="m",pod_name="{id}",namespace="space",port="8000"}}"#
        )
    };
    let went_to = ["d", "e"].into_iter().find(|id| bed.value(&attempts(id)).is_some()).expect("one of them");
    bed.check(&[
        (r#"inference_pool_ready_pods{name="pool"}"#, 2.0),
        (r#"llm_d_epp_per_endpoint_queue_size{name="pool",model_server_endpoint="d"}"#, 4.0),
        (r#"inference_pool_average_queue_size{name="pool"}"#, 2.0),
        (r#"llm_d_epp_std_dev_queue_size{name="pool"}"#, 2.0),
        (r#"llm_d_epp_average_kv_cache_utilization{name="pool"}"#, 0.25),
    ]);
    for id in ["d", "e"] {
        bed.router.gone(id, 1);
    }
    assert_eq!(bed.value(&attempts(went_to)), None);
    assert!(!bed.metrics.encode().contains("model_server_pod=\""));
    bed.check(&[
        (r#"inference_pool_ready_pods{name="pool"}"#, 0.0),
        (r#"inference_extension_flow_control_pool_saturation{inference_pool="pool",stage="decode"}"#, 1.0),
    ]);
}

#[test]
fn each_name_is_there_once() {
    let names: Vec<_> = FAMILIES.iter().flat_map(|family| family.names).map(|name| name.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    let prefixes = [
        "llm_d_epp_",
        "inference_extension_",
        "inference_objective_",
        "inference_model_",
        "inference_pool_",
        "llm_d_inference_scheduler_",
    ];
    for name in names {
        assert!(
            prefixes.iter().any(|prefix| name.starts_with(prefix)) && !name.ends_with("_total"),
            "{name}"
        );
    }
}
