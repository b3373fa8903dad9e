//! The HTTP API, as the official `openai` client and plain requests see it.

use std::process::Command;

use serde_json::json;

use crate::harness::{Deployment, Metrics, ModelFolder, Role, Up, required_variable};

#[test]
fn the_official_openai_client_is_served() {
    let python =
        required_variable("BATON_TEST_PYTHON", "a Python that has the packages of tests/requirements.txt");
    let up = Up::new(&ModelFolder::bundled(), 1, 1).with("--tool-call-parser", "hermes");
    let deployment = Deployment::up(&up);
    let script = "../tests/openai_client.py";
    let run = Command::new(python).args([script, deployment.client().base(), "baton-courier"]).output();
    let run = run.expect("BATON_TEST_PYTHON can be started");
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "tests/openai_client.py:\n{said}");
    deployment.stop();
}

#[test]
fn the_other_endpoints_answer() {
    let deployment = Deployment::up(&Up::new(&ModelFolder::bundled(), 1, 1));
    let client = deployment.client();
    for path in ["/health", "/ready"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    let models = client.get("/v1/models").ok();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "baton-courier");

    let tokens = client.post("/tokenize", &json!({"prompt": "Parcel 7 goes to Lisbon."})).ok();
    let ids = tokens["tokens"].as_array().expect("token ids");
    assert_eq!(tokens["count"].as_u64(), Some(ids.len() as u64));
    assert!(tokens["max_model_len"].as_u64().is_some_and(|limit| limit >= 2048), "{tokens}");
    let from_ids =
        client.post("/v1/completions", &json!({"prompt": ids, "max_tokens": 8, "temperature": 0})).ok();
    let from_text = json!({"prompt": "Parcel 7 goes to Lisbon.", "max_tokens": 8, "temperature": 0});
    let from_text = client.post("/v1/completions", &from_text).ok();
    assert_eq!(from_ids["choices"], from_text["choices"]);
    assert_eq!(from_ids["usage"]["prompt_tokens"].as_u64(), Some(ids.len() as u64));

    let front = Metrics::parse(&client.get("/metrics").body);
    for name in
        ["vllm:num_requests_running", "vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds"]
    {
        assert!(front.has(name), "the front has no {name}");
    }
    for worker in deployment.workers(Role::Prefill).into_iter().chain(deployment.workers(Role::Decode)) {
        let metrics = worker.metrics();
        for name in [
            "vllm:num_requests_waiting",
            "vllm:num_requests_running",
            "vllm:kv_cache_usage_perc",
            "vllm:cache_config_info",
            "vllm:prompt_tokens",
            "vllm:generation_tokens",
            "baton_kv_blocks",
            "baton_prefix_cache_blocks",
            "baton_prefix_cache_evictions",
            "vllm:prefix_cache_hits",
            "vllm:prefix_cache_queries",
        ] {
            assert!(metrics.has(name), "{} has no {name}", worker.id);
        }
    }
    deployment.stop();
}
