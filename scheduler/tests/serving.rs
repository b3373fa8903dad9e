//! A scheduler as a whole: what its front is asked comes to the sidecar of a worker, and is counted.

mod common;

use baton_proto::v1::FinishReason;
use common::{Step, TestScheduler, tokenizer};
use serde_json::json;

#[tokio::test]
async fn the_sidecar_gets_the_request_with_prefill_workers_and_a_deadline() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&[]).await;
    let body = json!({"prompt": "Hello", "max_tokens": 9, "seed": 7, "cache_salt": "s"});
    let asked = tokio::spawn(async move {
        let answer = scheduler.post("/v1/completions", &body).await;
        (answer, scheduler.get("/metrics").await.text())
    });
    let call = sidecar.call().await;
    call.act(Step::Finish(FinishReason::Length));
    let (answer, metrics) = asked.await.unwrap();
    assert_eq!(answer.status, 200);
    let request = &call.request;
    assert_eq!(request.prompt, tokenizer().encode("Hello", true).unwrap());
    assert!(request.request_id.starts_with("test."), "{}", request.request_id);
    let candidates: Vec<&str> = request.prefill_candidates.iter().map(|c| c.worker_id.as_str()).collect();
    assert_eq!(candidates, ["prefill-0"]);
    assert!((1..=600_000).contains(&request.deadline_ms));
    assert_eq!(request.cache_salt.as_deref(), Some("s"));
    let sampling = request.sampling.clone().unwrap();
    assert_eq!((sampling.max_tokens, sampling.seed), (9, 7));
    for line in [
        "baton_scheduler_requests_total{endpoint=\"/v1/completions\",status=\"200\",outcome=\"ok\"} 1",
        "baton_scheduler_workers{role=\"decode\"} 1",
        "baton_scheduler_placements_total{role=\"prefill\",worker=\"prefill-0\"} 1",
        "baton_scheduler_retries_total 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no line {line:?} in\n{metrics}");
    }
}

#[tokio::test]
async fn what_the_largest_worker_holds_bounds_a_request() {
    let scheduler = TestScheduler::start(&[]).await;
    let mut info = common::decode_info("decode-0", ([127, 0, 0, 1], 9).into());
    info.kv_cache.as_mut().unwrap().num_blocks = 4;
    let _worker = common::FakeWorker::join(&scheduler, info).await.unwrap();
    let answer = scheduler.post("/v1/completions", &json!({"prompt": vec![5; 60], "max_tokens": 5})).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("room for 64"), "{}", answer.text());
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_option_that_changes_it() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let mut config = common::config(&[]);
    config.registry_listen = address;
    let Err(error) = baton_scheduler::Scheduler::bind(config, &baton_process::Metrics::new()).await else {
        panic!("two processes on one port")
    };
    let error = error.to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--registry-listen"), "{error}");
}

#[tokio::test]
async fn a_model_folder_that_is_none_is_named() {
    let mut config = common::config(&[]);
    config.model = Some("/nowhere/at-all".into());
    let Err(error) = baton_scheduler::Scheduler::bind(config, &baton_process::Metrics::new()).await else {
        panic!("no model, no scheduler")
    };
    let error = error.to_string();
    assert!(error.contains("/nowhere/at-all/tokenizer.json is missing"), "{error}");
}
