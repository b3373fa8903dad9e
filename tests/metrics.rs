//! What processes count: every name is in docs/metrics.md, and the names that other pickers' dashboards read rise with requests.

use std::collections::BTreeMap;

use serde_json::json;

use crate::harness::{
    ANY, Ask, Client, Deployment, Metrics, ModelFolder, Shape, Up, eventually, prompt_of, start, words,
    worker_args,
};

const DOCS: &str = include_str!("../docs/metrics.md");

/// Names with their types, as a page says.
fn types_of(page: &str) -> BTreeMap<String, String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let shown = |(name, kind): (&str, &str)| match kind {
        "counter" => (format!("{name}_total"), kind.to_owned()),
        "info" => (format!("{name}_info"), kind.to_owned()),
        _ => (name.to_owned(), kind.to_owned()),
    };
    lines.map(shown).collect()
}

/// Names with their types, as the tables in the docs say: in the first two columns.
fn documented() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for row in DOCS.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for name in cells[1].split("<br>") {
            let name = name.trim().trim_matches('`').to_owned();
            assert_eq!(found.insert(name, cells[2].to_owned()), None, "twice: {row}");
        }
    }
    found
}

#[test]
fn every_metric_of_every_process_is_in_the_docs() {
    let model = ModelFolder::made_up(Shape::TINY);
    let folder = tempfile::tempdir().unwrap();
    let servers = folder.path().join("servers.yaml");
    std::fs::write(&servers, "endpoints: []\n").unwrap();
    let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let picking = ["--picker-listen", ANY, "--admin-listen", ANY, "--servers", servers.to_str().unwrap()];
    let (_scheduler, at) = start(&words(&[&line[..], &picking].concat()));
    let client = |address: String| Client::new(format!("http://{address}"));
    let (front, registry) = (client(at("http")), at("registry"));
    let mut pages = vec![("scheduler", front.clone()), ("scheduler's admin", client(at("admin")))];
    let line = ["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry];
    let (_sidecar, at) =
        start(&words(&[&line[..], &["--http-listen", ANY, "--model", &model.arg()]].concat()));
    pages.push(("sidecar", client(at("admin"))));
    let ngram = r#"{"method": "ngram", "num_speculative_tokens": 2}"#;
    let mut decode = worker_args("decode-worker", "decode", &model, &at("grpc"));
    decode.extend(words(&["--speculative-config", ngram]));
    let (_decode, at) = start(&decode);
    pages.push(("decode worker", client(at("admin"))));
    let (_prefill, at) = start(&worker_args("prefill-worker", "prefill", &model, &registry));
    pages.push(("prefill worker", client(at("admin"))));
    eventually("all are paired", || match front.get("/ready/pairs") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    Ask::new(&prompt_of(40, 1), 4).answer(&front);

    let documented = documented();
    let mut missing = Vec::new();
    for (process, client) in pages {
        let page = client.get("/metrics").body;
        let types = types_of(&page);
        assert!(types.len() >= 10, "{process}: {page}");
        for (name, kind) in types {
            if documented.get(&name) != Some(&kind) {
                missing.push(format!("{process}: {name} is a {kind}, docs: {:?}", documented.get(&name)));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn requests_are_counted_by_the_names_that_dashboards_read() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 1).with("--served-model-name", "m"));
    let client = deployment.client();
    for seed in 0..3 {
        Ask::new(&prompt_of(100, seed), 8).answer(&client.saying("x-llm-d-inference-fairness-id", "team"));
    }
    client.post("/v1/completions", &json!({ "model": "nobody's", "prompt": "x" })).error(404);
    client.post("/v1/completions", &json!({ "prompt": 7 })).error(400);
    let mut stream = Ask::new(&prompt_of(100, 9), 8).stream(client);
    stream.until_done();

    let shown = || Metrics::parse(&client.get("/metrics").body);
    eventually("the last request is counted", || {
        let answered = shown().get("llm_d_epp_request_duration_seconds_count", &[]);
        if answered == 4.0 { Ok(()) } else { Err(answered.to_string()) }
    });
    let metrics = shown();
    let m = ("model_name", "m");
    for (name, labels, value) in [
        ("llm_d_epp_request_total", &[m, ("fairness_id", "team"), ("priority", "0")][..], 3.0),
        ("inference_objective_request_total", &[m], 5.0),
        ("inference_model_request_total", &[("model_name", "other")], 1.0),
        ("inference_objective_request_error_total", &[("error_code", "NotFound")], 1.0),
        ("inference_model_request_error_total", &[m, ("error_code", "BadRequest")], 1.0),
        ("inference_objective_input_tokens_sum", &[m], 400.0),
        ("inference_objective_output_tokens_sum", &[m], 32.0),
        ("llm_d_epp_request_ttft_seconds_count", &[("streaming", "true")], 1.0),
        ("llm_d_epp_request_running", &[], 0.0),
        ("llm_d_epp_disagg_decision_total", &[("decision_type", "prefill-decode")], 4.0),
        ("llm_d_inference_scheduler_pd_decision_total", &[("decision_type", "prefill-decode")], 4.0),
        ("llm_d_epp_flow_control_requests_total", &[("outcome", "Dispatched")], 4.0),
        ("inference_extension_scheduler_attempts_total", &[("pod_name", "decode-0")], 4.0),
        ("inference_pool_ready_pods", &[], 2.0),
        ("gen_ai_server_time_to_first_token_seconds_count", &[("gen_ai_request_model", "m")], 4.0),
        ("gen_ai_server_request_duration_seconds_count", &[("error_type", "404")], 1.0),
        ("vllm:time_per_output_token_seconds_count", &[m], 28.0),
    ] {
        assert_eq!(metrics.get(name, labels), value, "{name}{labels:?}");
    }
    let decisions = |name: &str| metrics.get(name, &[]);
    assert_eq!(
        decisions("llm_d_epp_scheduler_e2e_duration_seconds_count"),
        decisions("baton_router_decision_seconds_count"),
    );
    deployment.stop();
}

#[test]
fn the_queries_of_published_dashboards_find_their_metrics() {
    // Of the Gateway API Inference Extension's and of llm-d's dashboards and alerts, by what they read.
    const READ: &[&str] = &[
        "inference_extension_flow_control_dispatch_cycle_duration_seconds_bucket",
        "inference_extension_flow_control_pool_saturation",
        "inference_extension_flow_control_queue_bytes",
        "inference_extension_flow_control_queue_size",
        "inference_extension_flow_control_request_enqueue_duration_seconds_bucket",
        "inference_extension_flow_control_request_queue_duration_seconds_bucket",
        "inference_extension_prefix_indexer_hit_bytes_bucket",
        "inference_extension_prefix_indexer_hit_ratio_bucket",
        "inference_extension_prefix_indexer_size",
        "inference_extension_scheduler_e2e_duration_seconds_bucket",
        "inference_model_request_duration_seconds_bucket",
        "inference_model_request_total",
        "inference_objective_input_tokens_bucket",
        "inference_objective_output_tokens_bucket",
        "inference_objective_request_duration_seconds_bucket",
        "inference_objective_request_sizes_bucket",
        "inference_objective_request_total",
        "inference_objective_response_sizes_bucket",
        "inference_pool_average_kv_cache_utilization",
        "inference_pool_average_queue_size",
        "inference_pool_per_pod_queue_size",
        "llm_d_epp_average_kv_cache_utilization",
        "llm_d_epp_average_queue_size",
        "llm_d_epp_flow_control_dispatch_cycle_duration_seconds_bucket",
        "llm_d_epp_flow_control_pool_saturation",
        "llm_d_epp_flow_control_queue_bytes",
        "llm_d_epp_flow_control_queue_size",
        "llm_d_epp_flow_control_request_enqueue_duration_seconds_bucket",
        "llm_d_epp_flow_control_request_queue_duration_seconds_bucket",
        "llm_d_epp_per_endpoint_queue_size",
        "llm_d_epp_request_duration_seconds_bucket",
        "llm_d_epp_request_input_tokens_bucket",
        "llm_d_epp_request_output_tokens_bucket",
        "llm_d_epp_request_size_bytes_bucket",
        "llm_d_epp_request_total",
        "llm_d_epp_response_size_bytes_bucket",
        "llm_d_inference_scheduler_pd_decision_total",
        "vllm:e2e_request_latency_seconds_bucket",
        "vllm:generation_tokens_total",
        "vllm:inter_token_latency_seconds_bucket",
        "vllm:prompt_tokens_total",
        "vllm:time_to_first_token_seconds_bucket",
    ];
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 1));
    Ask::new(&prompt_of(100, 1), 8).answer(deployment.client());
    let metrics = eventually("the request is counted", || {
        let metrics = Metrics::parse(&deployment.client().get("/metrics").body);
        match metrics.sum("inference_model_request_duration_seconds_count", &[]) {
            Some(1.0) => Ok(metrics),
            found => Err(format!("{found:?}")),
        }
    });
    for name in READ {
        assert!(metrics.sum(name, &[]).is_some(), "{name}");
    }
    deployment.stop();
}
